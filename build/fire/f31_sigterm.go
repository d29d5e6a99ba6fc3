//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"rtcd/build/fire/load"
)

var terminate = scenario{
	id: "F31", title: "SIGTERM under load, and a second one", promises: []string{"P13"},
	criterion: "no new calls, no call cut before the deadline, end within 5 s of it; the second SIGTERM ends at once",
	run: func(ctx context.Context, t *trial) error {
		if _, err := t.ground(steadyHosts()...); err != nil {
			return err
		}
		kept, runs := true, t.of(3, 100)
		var ends []time.Duration
		cut := 0
		for i := range runs {
			second := i%3 == 2
			took, broken, err := terminateOnce(ctx, t, i, second)
			if err != nil {
				return fmt.Errorf("run %d: %w", i, err)
			}
			t.result.Count++
			cut += broken
			if !second {
				ends = append(ends, took)
			}
			most := drainFor + 5*time.Second
			if second {
				most = 3 * time.Second
			}
			kept = t.within(took, most, "run %d: ends after %v", i, took) && kept
		}
		kept = t.expect(cut == 0, "%d calls cut before the deadline", cut) && kept && len(t.result.Shortfalls) == 0
		t.promise("P13", kept, runs, "SIGTERMs", "%d calls cut before the deadline of %v, ended at most %.1f s after it", cut, drainFor,
			max(0, percentile(ends, 100)-drainFor).Seconds())
		return nil
	},
}

const drainFor = 4 * time.Second

// terminateOnce starts a server with a call, ends it, and returns how long that took and whether the
// call broke before its time.
func terminateOnce(ctx context.Context, t *trial, i int, second bool) (took time.Duration, broken int, err error) {
	p, err := t.steady(ctx, func(c *load.ServerConfig) {
		c.Dir = filepath.Join(t.field.Dir, fmt.Sprintf("rtcd-%d", i))
		c.Config = append(c.Config, fmt.Sprintf("shutdown.drain_deadline = %q", drainFor))
	}, func(c *load.PartyConfig) {
		c.Calls, c.People, c.Screen = 1, 2, load.Screen{}
		c.Backends = c.Backends[:1]
	})
	if err != nil {
		return 0, 0, err
	}
	defer p.Close()
	w, err := p.Mark(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := p.Server.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := t.wait(ctx, time.Second); err != nil {
		return 0, 0, err
	}
	late, err := load.NewPerson(p.Backends[0], t.field.Host("cli2"), "new-call", "late", nil)
	if err != nil {
		return 0, 0, err
	}
	within, cancel := context.WithTimeout(ctx, 2*time.Second)
	if err := late.Connect(within); err == nil {
		t.shortfall("run %d: a new call began while the server was to end", i)
	}
	cancel()
	late.Close()
	w.Left("late")
	if second {
		began = time.Now()
		if err := p.Server.Signal(syscall.SIGTERM); err != nil {
			return 0, 0, err
		}
	} else {
		figures, err := w.Measure(ctx, 500*time.Millisecond)
		if err != nil {
			return 0, 0, err
		}
		// It is over before the deadline.
		broken = figures.CallsBroken + figures.SessionsClosed
		figures.CallsBroken, figures.SessionsClosed = 0, 0
		t.worst(figures)
		t.lossless(figures, 0)
	}
	select {
	case <-p.Server.Exited():
	case <-time.After(drainFor + 20*time.Second):
		p.Server.Kill()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	took = time.Since(began)
	if code := p.Server.ExitCode(); code != 0 && !second {
		t.shortfall("run %d: ends with status %d", i, code)
	}
	return took, broken, nil
}
