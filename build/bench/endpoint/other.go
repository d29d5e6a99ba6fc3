//go:build !linux

// Package endpoint has the end users of the benchmark, which is made for Linux only.
package endpoint
