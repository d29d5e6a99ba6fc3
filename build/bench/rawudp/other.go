//go:build !linux || !(amd64 || arm64)

// Command rawudp is the floor of the benchmark, which is measured on Linux only.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "rawudp: works on Linux, amd64 or arm64, only")
	os.Exit(1)
}
