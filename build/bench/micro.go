//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const folder = "docs/performance"

// micro runs the benchmarks of the packages. Their output is fit for benchstat.
func micro(ctx context.Context, o options) error {
	args := []string{"test", "-run", "^$", "-bench", ".", "-benchmem", "-p", "1"}
	if o.quick {
		args = append(args, "-count", "1", "-benchtime", "50ms")
	} else {
		args = append(args, "-count", "6", "-benchtime", "300ms")
	}
	// What a packet goes through is in the packages below; sessions are measured whole.
	const stages = "service/rtc"
	entries, err := os.ReadDir(stages)
	if err != nil {
		return fmt.Errorf("find the packages: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			args = append(args, "./"+filepath.Join(stages, e.Name()))
		}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.WaitDelay = time.Second // a child that is left over must not keep us
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the benchmarks of the packages: %w", err)
	}
	if o.quick || o.only != "" || !o.write {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "micro.txt"), results(out.Bytes()), 0o644); err != nil {
		return fmt.Errorf("write the benchmarks: %w", err)
	}
	return nil
}

// results leaves out what go test says of packages without benchmarks.
func results(out []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(out) {
		if !bytes.HasPrefix(line, []byte("?")) && !bytes.HasPrefix(line, []byte("PASS")) && !bytes.HasPrefix(line, []byte("ok")) {
			kept = append(kept, line...)
		}
	}
	return kept
}
