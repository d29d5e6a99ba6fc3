//go:build linux

package main

import (
	"context"
	"time"

	"rtcd/build/fire/field"
)

var publisherVanishes = scenario{
	id: "F16", title: "an end user vanishes without a word", promises: nil,
	criterion: "the backend is told within 30 s (RFC 7675), the others lose nothing",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := f.Cut("cli1", field.Both); err != nil {
			return err
		}
		var longest time.Duration
		for _, q := range p.People {
			if q.Host.Name != "cli1" {
				continue
			}
			w.Excuse(q)
			w.Left(q.Name)
			within, cancel := context.WithTimeout(ctx, time.Until(began.Add(60*time.Second)))
			err := q.Backend.Await(within, func() bool { return q.Backend.HasClosed(q.Name) })
			cancel()
			t.result.Count++
			t.expect(err == nil, "the end of %s is not told within 60 s", q.Name)
			longest = max(longest, time.Since(began))
		}
		t.result.More["told_ms_max"] = longest.Milliseconds()
		t.say("told after at most %v", longest)
		t.expect(longest <= 30*time.Second, "told after %v", longest)
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.unbroken(figures)
		t.lossless(figures, 0)
		if err := f.Mend("cli1", field.Both); err != nil {
			return err
		}
		return t.leaveIdle(ctx, p)
	},
}
