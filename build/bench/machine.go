//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"rtcd/build/bench/report"
)

// machine says where this runs.
func machine(ctx context.Context, begin time.Time, quick bool) report.Machine {
	m := report.Machine{
		Start: begin.UTC().Format(time.RFC3339), Cores: runtime.NumCPU(), Go: runtime.Version(), Quick: quick,
		CPU: field("/proc/cpuinfo", "model name"),
	}
	var kib int
	_, _ = fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib)
	m.Memory = (kib + 1<<19) >> 20
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err == nil {
		m.Commit = strings.TrimSpace(string(commit))
	}
	return m
}

// field returns what a file of lines "name: value" has under a name.
func field(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
