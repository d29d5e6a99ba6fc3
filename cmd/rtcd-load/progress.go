package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"rtcd/cmd/rtcd-load/internal/load"
)

// plainEvery is the time between two lines where they cannot be written over.
const plainEvery = 5 * time.Second

// A progress shows how far a run is: in one line that is written over on a terminal, else in a line
// now and then.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool

	mu    sync.Mutex
	wrote bool // a line that is not ended
	last  time.Time
	phase string
}

func newProgress(w io.Writer, quiet bool) *progress {
	p := &progress{w: w, quiet: quiet}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return p
}

func (p *progress) show(now load.Progress) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal && now.Phase == p.phase && time.Since(p.last) < plainEvery {
		return
	}
	p.last, p.phase = time.Now(), now.Phase
	s := &now.Second
	// Short enough for 80 columns: a line that wraps cannot be written over.
	line := fmt.Sprintf("%3.0fs %s", s.At, now.Phase)
	if left := now.Left.Round(time.Second); left > 0 {
		line += fmt.Sprintf(" -%s", left)
	}
	line += fmt.Sprintf(" %d/%d %d/s lost %.2f%% p99 %s", s.People, now.Planned, s.Received, s.Loss*100, s.P99)
	if s.ServerCores >= 0 {
		line += fmt.Sprintf(" server %.0f%%", s.ServerCores*100)
	}
	line += fmt.Sprintf(" own %.0f%%", s.OwnCores*100)
	if now.Failed > 0 {
		line += fmt.Sprintf(" %d failed", now.Failed)
	}
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.wrote = true
		return
	}
	_, _ = fmt.Fprintln(p.w, line)
}

// end ends the line that is written over.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wrote {
		_, _ = fmt.Fprintln(p.w)
		p.wrote = false
	}
}
