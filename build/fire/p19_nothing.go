//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

var nothingLeft = scenario{
	id: "P19", title: "races, deadlocks, leaks and known weaknesses", promises: []string{"P19"},
	criterion: "no race, no lock taken in two orders, nothing found by the scanners, and tests of every package look for leaks",
	run: func(ctx context.Context, t *trial) error {
		watched := []string{"run", "./build/deadlock"}
		if t.quick {
			watched = append(watched, "./service/access", "./service/auth", "./service/api/ws")
		}
		ok := t.command(ctx, "go", watched...)
		scanned := "the scanners are left to full runs"
		if !t.quick {
			ok = t.command(ctx, "go", "run", "./build/scan") && ok
			scanned = "the scanners ran"
		}
		without, packages, err := leakless(ctx)
		if err != nil {
			return err
		}
		t.result.More["packages_that_do_not_look_for_leaks"] = without
		ok = t.expect(len(without) == 0, "tests of %d of %d packages do not look for leaks: %s", len(without), packages, strings.Join(without, ", ")) && ok
		t.promise("P19", ok, packages, "packages", "%d do not look for leaks; %s", len(without), scanned)
		return nil
	},
}

// command runs a command whose failure is a shortfall.
func (t *trial) command(ctx context.Context, name string, args ...string) bool {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	t.result.Count++
	text := bytes.TrimSpace(out)
	t.say("%s: %s", strings.Join(args, " "), text[bytes.LastIndexByte(text, '\n')+1:])
	return t.expect(err == nil, "%s %s: %v: %s", name, strings.Join(args, " "), err, text[max(0, len(text)-600):])
}

// looking is what tests have that look for goroutines that stay behind: at the end of all, or at the end
// of each bubble of virtual time.
var looking = regexp.MustCompile(`goleak\.|synctest\.Test\(`)

// leakless returns the packages of the product that have tests and do not look for leaks.
func leakless(ctx context.Context) (without []string, packages int, err error) {
	const format = `{{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}`
	out, err := exec.CommandContext(ctx, "go", "list", "-f", format, "./client/...", "./cmd/...", "./config/...", "./service/...").Output()
	if err != nil {
		return nil, 0, fmt.Errorf("list packages: %w", err)
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return nil, 0, err
	}
	for line := range strings.Lines(string(out)) {
		dir, files, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		packages++
		found, err := containsAny(dir, strings.Fields(files), looking)
		if err != nil {
			return nil, 0, err
		}
		if !found {
			name, _ := filepath.Rel(root, dir)
			without = append(without, name)
		}
	}
	return without, packages, nil
}

func containsAny(dir string, files []string, what *regexp.Regexp) (bool, error) {
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil || what.Match(text) {
			return err == nil, err
		}
	}
	return false, nil
}
