//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "fire: SKIPPED, NOTHING WAS SHOWN: it needs Linux")
	os.Exit(4)
}
