//go:build linux

package main

import (
	"context"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var backendAway = scenario{
	id: "F12", title: "a backend never comes back",
	criterion: "its calls go on while end users are there; sessions whose end users go end by themselves; nothing stays behind",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx)
		if err != nil {
			return err
		}
		lost := p.Backends[1]
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		if err := f.Cut(lost.Host.Name, field.Both); err != nil {
			return err
		}
		// In full runs beyond the 20 s after which the connection is given up, and the 90 s for which messages wait.
		if err := t.wait(ctx, t.lasting(10*time.Second, 2*time.Minute)); err != nil {
			return err
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.result.Count = 1
		t.worst(figures)
		t.unbroken(figures)
		t.lossless(figures, 0)
		var stay, gone []*load.Person
		for _, q := range p.People {
			if q.Backend == lost {
				gone = append(gone, q)
			} else {
				stay = append(stay, q)
			}
		}
		for _, q := range gone {
			q.Close()
		}
		began := time.Now()
		p.People = stay
		if err := awaitSessions(ctx, p, len(stay)); err != nil {
			t.shortfall("sessions of a backend that is away do not end with their end users: %v", err)
		}
		took := time.Since(began)
		t.result.More["ended_after_ms"] = took.Milliseconds()
		t.result.More["policy"] = "api.limits.orphaned_after, which a test of package service shows"
		t.say("sessions of end users that went ended within %v", took.Round(time.Second))
		t.within(took, 40*time.Second, "sessions of end users that went end after %v", took)
		if err := f.Mend(lost.Host.Name, field.Both); err != nil {
			return err
		}
		return t.leaveIdle(ctx, p)
	},
}
