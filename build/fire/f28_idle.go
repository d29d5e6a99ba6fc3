//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"rtcd/build/fire/load"
	"rtcd/client"
)

var joinFlood = scenario{
	id: "F28", title: "2,000 joins at once that never connect", promises: nil,
	criterion: "at most 40 KiB and 4 goroutines for each; they end by themselves; calls lose nothing",
	run: func(ctx context.Context, t *trial) error {
		if _, err := t.ground(steadyHosts()...); err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) {
			c.Config = append(c.Config, "rtc.limits.joins_per_second = 1000000", "rtc.limits.joins_burst = 1000000")
		}, nil)
		if err != nil {
			return err
		}
		before, err := p.Server.Collected(ctx)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		const n = 2000
		for i := range n {
			j := client.Join{CallID: fmt.Sprintf("idle%d", i%20), UserID: "u", SessionID: fmt.Sprintf("idle-%d", i)}
			if err := p.Backends[0].Conn.Join(j); err != nil {
				return err
			}
		}
		if err := awaitSessions(ctx, p, len(p.People)+n); err != nil {
			return err
		}
		during, err := p.Server.Collected(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := awaitSessions(ctx, p, len(p.People)); err != nil {
			return err
		}
		t.say("they ended within %v", time.Since(began).Round(time.Second))
		w.OnlyCalls()
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.result.Count = n
		heap, goroutines := float64(during.Heap-before.Heap)/n/1024, float64(during.Goroutines-before.Goroutines)/n
		t.result.More["heap_kib_each"], t.result.More["goroutines_each"] = heap, goroutines
		t.say("%.1f KiB and %.2f goroutines each", heap, goroutines)
		t.expect(heap <= 40, "%.1f KiB of heap for each", heap)
		t.expect(goroutines <= 4, "%.2f goroutines for each", goroutines)
		t.unbroken(figures)
		t.lossless(figures, 0)
		return t.leaveIdle(ctx, p)
	},
}
