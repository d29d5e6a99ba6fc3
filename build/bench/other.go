//go:build !linux

// Command bench measures what forwarding costs, on Linux only.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: works on Linux only")
	os.Exit(1)
}
