//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rtcd/build/bench/report"
)

const (
	page  = "docs/performance.md"
	begin = "<!-- bench: make bench -->\n"
	end   = "<!-- end of bench -->\n"
)

// document writes the report, its plots, and its tables into the page.
func document(r report.Report) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err := r.Write(filepath.Join(folder, "bench.json")); err != nil {
		return err
	}
	for name, plot := range report.Plots(r) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(plot), 0o644); err != nil {
			return fmt.Errorf("write a plot: %w", err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	changed, err := insert(string(text), report.Tables(r))
	if err != nil {
		return err
	}
	if err := os.WriteFile(page, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// insert puts tables between the markers of a page.
func insert(text, tables string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("change %s: it has no lines %q and %q", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + tables + "\n" + end + after, nil
}
