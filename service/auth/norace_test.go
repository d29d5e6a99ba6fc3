//go:build !race

package auth

const manyTokens = 1_000_000
