//go:build race

package auth

// manyTokens is for the race detector, which makes everything ten times slower.
const manyTokens = 100_000
