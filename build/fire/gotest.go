//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// tested is what a run of tests came to. A test that has others in it does not count.
type tested struct {
	passed, failed, skipped int
	failures                []string
}

// goTest runs tests of this module, for faults that they inject already.
func (t *trial) goTest(ctx context.Context, args ...string) (r tested, err error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, runErr := cmd.Output()
	parents := make(map[string]bool)
	outcome := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue
		}
		name := e.Package + " " + e.Test
		if i := strings.LastIndexByte(name, '/'); i > strings.IndexByte(name, ' ') {
			parents[name[:i]] = true
		}
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			outcome[name] = e.Action
		}
	}
	for name, action := range outcome {
		switch {
		case action == "fail":
			r.failed++
			r.failures = append(r.failures, name)
		case parents[name]:
		case action == "skip":
			r.skipped++
		default:
			r.passed++
		}
	}
	if runErr != nil && r.failed == 0 {
		return r, fmt.Errorf("go test %s: %w: %s", strings.Join(args, " "), runErr, strings.TrimSpace(stderr.String()))
	}
	t.say("go test %s: %d passed, %d failed, %d skipped", strings.Join(args, " "), r.passed, r.failed, r.skipped)
	return r, nil
}

// testsHold runs tests and says what they show about a promise.
func (t *trial) testsHold(ctx context.Context, promise, of string, args ...string) error {
	r, err := t.goTest(ctx, args...)
	if err != nil {
		return err
	}
	t.result.Count += r.passed + r.failed
	t.expect(r.failed == 0, "tests fail: %s", strings.Join(r.failures, ", "))
	t.expect(r.passed > 0, "no test ran")
	if promise != "" {
		t.promise(promise, r.failed == 0 && r.passed > 0, r.passed+r.failed, of, "%d do not hold", r.failed)
	}
	return nil
}
