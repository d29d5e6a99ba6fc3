// Command fuzzall runs every fuzz target of the module in turn, each for FUZZTIME (default 30s).
package main

import (
	"fmt"
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
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if cmd.Run() != nil {
				failed++
			}
		}
	}
	fmt.Printf("%d fuzz targets, %d failed\n", targets, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
