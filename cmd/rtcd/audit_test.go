package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rtcd/config"
	"rtcd/service/audit"
)

// auditLog returns an open log of a few events and its folder.
func auditLog(t *testing.T) (*audit.Recorder, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := audit.Open(audit.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	for i, id := range []string{"chat", "other", "chat", "chat\x1b[31m"} {
		r.Record(audit.Event{
			Actor: audit.Actor{Kind: audit.Client, ID: id}, Type: []string{"ws.join", "ws.leave"}[i%2],
			Outcome: audit.Outcome(i % 2 * 8), Action: audit.Create,
		})
	}
	if err := r.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, dir
}

func auditRun(t *testing.T, dir string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	var cfg config.Config
	cfg.Audit.Dir = dir
	status = auditCommand(cfg, args, &out, &errs)
	return status, out.String(), errs.String()
}

// TestAuditVerify shows CR-14: rtcd audit verify proves a whole log, also while it is written, and names the line
// that was edited, with exit status 1.
func TestAuditVerify(t *testing.T) {
	r, dir := auditLog(t)
	status, out, _ := auditRun(t, dir, "verify")
	_, head, found := strings.Cut(strings.TrimSpace(out), "head ")
	if status != 0 || !found || !strings.Contains(out, "5 records") {
		t.Fatalf("status %d: %s", status, out)
	}
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := auditRun(t, "elsewhere", "verify", "-dir", dir, "-anchor", head); status != 0 {
		t.Errorf("with its own anchor: %s", out)
	}
	if status, _, errs := auditRun(t, dir, "verify", "-anchor", "3"+head[1:]); status != 1 || !strings.Contains(errs, "anchor") {
		t.Errorf("with an anchor of another log: %d, %s", status, errs)
	}
	path := filepath.Join(dir, "00000000000000000001.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte("other"), []byte("chat!"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := auditRun(t, dir, "verify")
	if status != 1 || out != "" || !strings.Contains(errs, "00000000000000000001.jsonl, line 3 (record 3)") {
		t.Errorf("status %d: %q %q", status, out, errs)
	}
	if status, _, errs := auditRun(t, filepath.Join(dir, "none"), "verify"); status != 1 || errs == "" {
		t.Errorf("no folder: status %d, %q", status, errs)
	}
}

// TestAuditTail shows CR-13: rtcd audit tail prints the last events, filtered, as text that moves no terminal or as JSON.
func TestAuditTail(t *testing.T) {
	_, dir := auditLog(t)
	for _, test := range []struct {
		args  []string
		lines int
		has   string
	}{
		{nil, 5, `actor="client" id="chat"`}, {[]string{"-n", "2"}, 2, `id="chat\u001b[31m"`}, {[]string{"-client", "other"}, 1, "ws.leave C 8"},
		{[]string{"-type", "ws.join"}, 2, "ws.join"}, {[]string{"-outcome", "8", "-client", "other", "-n", "1"}, 1, "other"}, {[]string{"-n", "0"}, 0, ""},
	} {
		status, out, errs := auditRun(t, dir, append([]string{"tail"}, test.args...)...)
		if status != 0 || errs != "" || strings.Count(out, "\n") != test.lines || !strings.Contains(out, test.has) || strings.Contains(out, "\x1b") {
			t.Errorf("%q: status %d\n%s%s", test.args, status, out, errs)
		}
	}
	_, out, _ := auditRun(t, dir, "tail", "-json")
	for l := range strings.Lines(out) {
		var e struct {
			Seq  uint64
			Time time.Time
			Type string
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.Seq == 0 || e.Time.IsZero() || e.Type == "" {
			t.Errorf("%q: %v", l, err)
		}
	}
}

// TestAuditFollow shows CR-13: tail -f prints what is written after it has started.
func TestAuditFollow(t *testing.T) {
	r, dir := auditLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- runAudit(ctx, dir, []string{"tail", "-n", "1", "-f", "-type", "ws.join"}, out, io.Discard)
		_ = out.Close()
	}()
	lines := bufio.NewScanner(in)
	if !lines.Scan() || !strings.Contains(lines.Text(), "ws.join") {
		t.Fatalf("got %q", lines.Text())
	}
	r.Record(audit.Event{Type: "ws.leave"})
	r.Record(audit.Event{Type: "ws.join", Reason: "later"})
	if !lines.Scan() || !strings.Contains(lines.Text(), "later") {
		t.Fatalf("got %q", lines.Text())
	}
	cancel()
	if lines.Scan() {
		t.Errorf("more: %q", lines.Text())
	}
	if status := <-ended; status != 0 {
		t.Errorf("status %d", status)
	}
}

// TestAuditUsage shows that a wrong command line is status 2.
func TestAuditUsage(t *testing.T) {
	for _, args := range [][]string{
		nil, {"forge"}, {"verify", "extra"}, {"tail", "-n", "x"}, {"tail", "-outcome", "3"}, {"verify", "-nope"},
	} {
		if status, _, errs := auditRun(t, t.TempDir(), args...); status != 2 || errs == "" {
			t.Errorf("%q: status %d, %q", args, status, errs)
		}
	}
	if status, _, _ := auditRun(t, t.TempDir(), "tail", "-h"); status != 0 {
		t.Errorf("-h: status %d", status)
	}
}
