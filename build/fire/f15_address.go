//go:build linux

package main

import (
	"context"
	"sync"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var addressChange = scenario{
	id: "F15", title: "the address of end users changes: a NAT makes new mappings", promises: []string{"P17"},
	criterion: "calls go on within 300 ms (p95) of the first check from the new address, with the same credentials",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		if err := f.Translate("cli1", "srv", 1, 20000); err != nil {
			return err
		}
		checks, err := watchChecks(f, "cli1", t.seed)
		if err != nil {
			return err
		}
		p, err := t.steady(ctx, nil, nil)
		if err != nil {
			return err
		}
		w, moved, err := excused(ctx, p, "cli1")
		if err != nil {
			return err
		}
		var gaps, afterCheck []time.Duration
		runs := t.of(5, 100)
		for i := range runs {
			began := time.Now()
			checks.reset()
			if err := f.Translate("cli1", "srv", uint16(2+i), uint16(20000+1000*(i%20))); err != nil {
				return err
			}
			t.result.Count++
			// What was under way may still arrive for a moment.
			since, silent := began.Add(50*time.Millisecond), 0
			for _, q := range moved {
				took, still := p.Recovery(ctx, since, max(time.Second, time.Until(began.Add(15*time.Second))), pairsOf(p, q))
				silent += len(still)
				if first, ok := checks.first(q); ok && len(still) == 0 {
					afterCheck = append(afterCheck, max(0, since.Add(took).Sub(first)))
				}
				if len(still) == 0 {
					gaps = append(gaps, time.Since(began)-time.Since(since)+took)
				}
			}
			if !t.expect(silent == 0, "%d pairs of %d people are silent 15 s after change %d", silent, len(moved), i+1) {
				break
			}
			if err := t.wait(ctx, 500*time.Millisecond); err != nil {
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
		p95, p95check := percentile(gaps, 95), percentile(afterCheck, 95)
		t.result.More["gap_ms_p50"], t.result.More["gap_ms_p95"] = percentile(gaps, 50).Milliseconds(), p95.Milliseconds()
		t.result.More["after_check_ms_p50"], t.result.More["after_check_ms_p95"] = percentile(afterCheck, 50).Milliseconds(), p95check.Milliseconds()
		t.say("gap p95 %v; after the first check p95 %v (%d)", p95, p95check, len(afterCheck))
		kept := len(afterCheck) > 0 && t.within(p95check, 300*time.Millisecond, "back %v (p95) after the first check from the new address", p95check)
		t.promise("P17", kept && figures.CallsBroken+figures.SessionsClosed == 0, runs, "new mappings",
			"gap p95 %d ms, of which %d ms after the endpoint's first check from there", p95.Milliseconds(), p95check.Milliseconds())
		return t.leaveIdle(ctx, p)
	},
}

// excused begins to measure without the people of a host, who are about to move, and returns them.
func excused(ctx context.Context, p *load.Party, host string) (w *load.Window, moved []*load.Person, err error) {
	if w, err = p.Mark(ctx); err != nil {
		return nil, nil, err
	}
	for _, q := range p.People {
		if q.Host.Name == host {
			moved = append(moved, q)
		}
	}
	w.Excuse(moved...)
	return w, moved, nil
}

// pairsOf are the pairs that a person is part of.
func pairsOf(p *load.Party, q *load.Person) (out []load.Pair) {
	for _, pair := range p.Pairs() {
		if pair.From == q || pair.To == q {
			out = append(out, pair)
		}
	}
	return out
}

// checkWatch remembers when each socket of a host first sent a check.
type checkWatch struct {
	mu sync.Mutex
	at map[uint16]time.Time // by local port
}

func watchChecks(f *field.Field, host string, seed uint64) (*checkWatch, error) {
	c := &checkWatch{at: make(map[uint16]time.Time)}
	i, err := f.Impair(host, field.From, seed)
	if err != nil {
		return nil, err
	}
	i.Set(field.Impairment{Tamper: func(b []byte) [][]byte {
		header := int(b[0]&15) * 4
		if len(b) < header+10 || b[header+8] != 0 || b[header+9] != 1 { // no binding request (RFC 8489)
			return nil
		}
		port := uint16(b[header])<<8 | uint16(b[header+1])
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, known := c.at[port]; !known {
			c.at[port] = time.Now()
		}
		return nil
	}})
	return c, nil
}

func (c *checkWatch) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.at)
}

// first returns when a person's socket first sent a check since the reset.
func (c *checkWatch) first(q *load.Person) (time.Time, bool) {
	port, ok := q.LocalPort()
	if !ok {
		return time.Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.at[port]
	return at, ok
}
