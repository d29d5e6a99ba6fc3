// Command impairments measures what a viewer gets on impaired links, with the matrix of the tests in
// service/rtc, and puts the results into docs/media: as JSON, as a plot, and as the table in
// docs/media.md. It is run in the root of the module.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"rtcd/service/rtc/rtctest/report"
)

const (
	page   = "docs/media.md"
	data   = "docs/media/impairments.json"
	plot   = "docs/media/impairments.svg"
	course = "3 Mbit/s, 300 kbit/s, 3 Mbit/s" // scenario whose course is plotted

	begin = "<!-- impairments: go run ./build/impairments -->\n"
	end   = "<!-- end of impairments -->\n"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "impairments:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := os.MkdirAll(filepath.Dir(data), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	path, err := filepath.Abs(data)
	if err != nil {
		return fmt.Errorf("find %s: %w", data, err)
	}
	// Not cached: what is drawn was measured now.
	cmd := exec.Command("go", "test", "-count=1", "-run", "^TestImpairedLinks$", "-v", "./service/rtc")
	cmd.Env = append(os.Environ(), "RTCD_MATRIX=1", "RTCD_MATRIX_JSON="+path)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the matrix: %w", err)
	}
	results, err := report.Read(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(plot, []byte(report.Plot(results, course)), 0o644); err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	changed, err := insert(string(text), report.Table(results))
	if err != nil {
		return err
	}
	if err := os.WriteFile(page, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// insert replaces what is between the marks.
func insert(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("put the table into %s: no line %q with %q below it", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + table + "\n" + end + after, nil
}
