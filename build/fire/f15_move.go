//go:build linux

package main

import (
	"context"
	"time"

	"rtcd/build/fire/load"
)

var networkChange = scenario{
	id: "F15b", title: "end users go to another network: their old address is dead", promises: []string{"P17"},
	criterion: "calls go on within 1.5 s (p95), by ICE restart; others lose nothing",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx)
		if err != nil {
			return err
		}
		w, moved, err := excused(ctx, p, "cli1")
		if err != nil {
			return err
		}
		var gaps []time.Duration
		runs := t.of(5, 100)
		for i := range runs {
			began := time.Now()
			if err := f.Move("cli1"); err != nil {
				return err
			}
			t.result.Count++
			// Moving takes a moment, in which packets are still under way.
			since, silent := time.Now().Add(50*time.Millisecond), 0
			for _, q := range moved {
				took, still := p.Recovery(ctx, since, max(time.Second, time.Until(began.Add(15*time.Second))), pairsOf(p, q))
				silent += len(still)
				up, down := directions(p, q, since)
				t.say("move %d, %s: hears others after %v, is heard after %v", i+1, q.Name, down, up)
				if len(still) == 0 {
					gaps = append(gaps, since.Sub(began)+took)
				}
			}
			if !t.expect(silent == 0, "%d pairs of %d people are silent 15 s after move %d", silent, len(moved), i+1) {
				break
			}
			if err := t.wait(ctx, 3*time.Second); err != nil {
				return err
			}
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.unbroken(figures)
		t.lossless(figures, 0)
		p95 := percentile(gaps, 95)
		t.result.More["gap_ms_p50"], t.result.More["gap_ms_p95"] = percentile(gaps, 50).Milliseconds(), p95.Milliseconds()
		t.say("gap p50 %v, p95 %v (%d)", percentile(gaps, 50), p95, len(gaps))
		kept := len(gaps) > 0 && t.within(p95, 1500*time.Millisecond, "gap p95 %v", p95)
		t.promise("P17", kept && len(t.result.Shortfalls) == 0, t.result.Count, "moves to another network", "gap p50 %d ms, p95 %d ms with ICE restart",
			percentile(gaps, 50).Milliseconds(), p95.Milliseconds())
		return t.leaveIdle(ctx, p)
	},
}

// directions returns how long after a moment others heard somebody again, and how long after it they
// heard others, as far as both have happened.
func directions(p *load.Party, q *load.Person, since time.Time) (up, down time.Duration) {
	for _, pair := range pairsOf(p, q) {
		took := pair.Back(since)
		if pair.From == q {
			up = max(up, took)
		} else {
			down = max(down, took)
		}
	}
	return up, down
}
