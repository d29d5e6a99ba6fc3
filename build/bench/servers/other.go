//go:build !linux

// Package servers runs the servers that are compared, on Linux only.
package servers
