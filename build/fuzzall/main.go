// Command fuzzall runs every fuzz target of the module in turn, each for FUZZTIME (default 30s).
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	length := os.Getenv("FUZZTIME")
	if length == "" {
		length = "30s"
	}
	packages, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall: list packages:", err)
		os.Exit(1)
	}
	targets, failed := 0, 0
	for _, pkg := range strings.Fields(string(packages)) {
		list, err := exec.Command("go", "test", "-list", "^Fuzz", pkg).Output()
		if err != nil {
			fmt.Fprintln(os.Stderr, "fuzzall: list targets of", pkg, err)
			os.Exit(1)
		}
		for _, target := range strings.Fields(string(list)) {
			if !strings.HasPrefix(target, "Fuzz") {
				continue
			}
			targets++
			fmt.Printf("== %s %s for %s\n", pkg, target, length)
			// A small bound on minimising: interesting inputs are many, and time is for finding.
			cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+target+"$",
				"-fuzztime", length, "-fuzzminimizetime", "10x", pkg)
			var out bytes.Buffer
			cmd.Stdout = io.MultiWriter(os.Stdout, &out)
			cmd.Stderr = cmd.Stdout
			if cmd.Run() != nil && !outOfTime(out.String()) {
				failed++
			}
		}
	}
	fmt.Printf("%d fuzz targets, %d failed\n", targets, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// outOfTime reports whether a run failed only because its time was over in the middle of an input:
// the go command then says so and writes no failing input.
func outOfTime(out string) bool {
	return strings.Contains(out, "context deadline exceeded") &&
		!strings.Contains(out, "Failing input") && !strings.Contains(out, "panic") && !strings.Contains(out, "fatal error")
}
