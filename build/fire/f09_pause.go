//go:build linux

package main

import (
	"context"
	"syscall"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var longPauses = scenario{
	id: "F9", title: "long pauses, and too little processor time", promises: []string{"P18"},
	criterion: "no session ends for pauses up to 5 s, nor with 30 % of a processor",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		group, err := f.Group()
		if err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) { c.Group = group }, nil)
		if err != nil {
			return err
		}
		kept := true
		pauses := []time.Duration{time.Second, 3 * time.Second, 5 * time.Second}
		if t.ci {
			pauses = pauses[2:]
		}
		for range t.of(1, 5) {
			for _, d := range pauses {
				ok, err := pause(ctx, t, p, d)
				if err != nil {
					return err
				}
				kept = kept && ok
			}
		}
		starved, err := starve(ctx, t, p, group)
		if err != nil {
			return err
		}
		t.promise("P18", kept && starved, t.result.Count, "pauses up to 5 s and starvations",
			"%d sessions ended, %d calls broken, back after at most %d ms", t.result.SessionsClosed, t.result.CallsBroken, t.result.RecoverMs)
		return t.leaveIdle(ctx, p)
	},
}

// pause stops the server for a while, and looks at what is left after it.
func pause(ctx context.Context, t *trial, p *load.Party, d time.Duration) (bool, error) {
	w, err := p.Mark(ctx)
	if err != nil {
		return false, err
	}
	if err := p.Server.Signal(syscall.SIGSTOP); err != nil {
		return false, err
	}
	err = t.wait(ctx, d)
	if err2 := p.Server.Signal(syscall.SIGCONT); err2 != nil {
		return false, err2
	}
	if err != nil {
		return false, err
	}
	recovered, silent := p.Recovery(ctx, time.Now(), 20*time.Second, w.Pairs())
	if err := t.wait(ctx, 2*time.Second); err != nil {
		return false, err
	}
	figures, err := w.Measure(ctx, 5*time.Second)
	if err != nil {
		return false, err
	}
	figures.RecoverMs = recovered.Milliseconds()
	t.result.Count++
	t.say("paused %v: %d sessions closed, %d pairs silent, back after %v", d, figures.SessionsClosed, len(silent), recovered)
	t.worst(figures)
	ok := t.unbroken(figures)
	return t.expect(figures.ResidentDelta < 64<<20, "memory grew by %d MiB over a pause of %v", figures.ResidentDelta>>20, d) && ok, nil
}

// starve gives the server 30 % of a processor for a while.
func starve(ctx context.Context, t *trial, p *load.Party, group *field.Group) (bool, error) {
	w, err := p.Mark(ctx)
	if err != nil {
		return false, err
	}
	if err := group.CPU(30); err != nil {
		return false, err
	}
	err = t.wait(ctx, t.briefly(4*time.Second, 8*time.Second, 60*time.Second))
	if err2 := group.CPU(0); err2 != nil {
		return false, err2
	}
	if err != nil {
		return false, err
	}
	figures, err := w.Measure(ctx, 10*time.Second)
	if err != nil {
		return false, err
	}
	t.result.Count++
	t.result.More["starved_lost"], t.result.More["starved_owed"] = figures.PacketsLost, figures.PacketsOwed
	t.say("30 %% of a processor: %d sessions closed, %d of %d packets lost, %.2f cores", figures.SessionsClosed, figures.PacketsLost, figures.PacketsOwed, figures.CPU)
	t.worst(figures)
	return t.unbroken(figures), nil
}
