package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rtcd/cmd/rtcd-load/internal/load"
	"rtcd/cmd/rtcd-load/internal/report"
)

func TestProgress(t *testing.T) {
	now := load.Progress{
		Phase: "measuring", Left: 15 * time.Second, Planned: 420,
		Second: report.Second{At: 12, People: 400, Received: 12_345, Loss: 0.0123, P99: 123, ServerCores: 0.5, OwnCores: 1.5},
	}
	var terminal, plain, quiet bytes.Buffer
	one := &progress{w: &terminal, terminal: true}
	lines := newProgress(&plain, false)
	none := newProgress(&quiet, true)
	for range 3 {
		for _, p := range []*progress{one, lines, none} {
			p.show(now)
		}
	}
	now.Phase, now.Failed = "draining", 2
	for _, p := range []*progress{one, lines, none} {
		p.show(now)
		p.end()
	}
	if got := strings.Split(strings.TrimSpace(terminal.String()), "\r"); len(got) != 4 || strings.Count(terminal.String(), "\n") != 1 {
		t.Errorf("a terminal got %q, want four lines in place of each other", got)
	} else if last := strings.TrimPrefix(got[0], "\x1b[K"); len(last) > 80 {
		t.Errorf("%d columns: %q", len(last), last)
	}
	// Not a terminal: a line for each phase, and else now and then.
	if got := plain.String(); strings.Count(got, "\n") != 2 || strings.Contains(got, "\r") || !strings.Contains(got, "2 failed") {
		t.Errorf("a file got %q, want two lines", got)
	}
	if quiet.Len() > 0 {
		t.Errorf("got %q, want nothing", quiet.String())
	}
}
