//go:build linux

package main

import (
	"context"
	"fmt"

	"rtcd/build/fire/load"
	"rtcd/client"
)

var littleMemory = scenario{
	id: "F8", title: "300 MiB of memory and a storm of joins", promises: nil,
	criterion: "the kernel kills nothing, calls go on",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		group, err := f.Group()
		if err != nil {
			return err
		}
		if err := group.Memory(300 << 20); err != nil {
			return err
		}
		p, err := t.steady(ctx, func(c *load.ServerConfig) {
			c.Group = group
			c.Config = append(c.Config, "rtc.limits.joins_per_second = 1000000", "rtc.limits.joins_burst = 1000000")
		}, nil)
		if err != nil {
			return err
		}
		offer, err := anOffer(t)
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		for i := range t.of(1500, 5000) {
			session := fmt.Sprintf("storm-%d", i)
			b := p.Backends[i%2]
			if err := b.Conn.Join(client.Join{CallID: fmt.Sprintf("storm%d", i%40), UserID: "u", SessionID: session}); err != nil {
				return err
			}
			if err := b.Conn.SendDescription(session, offer); err != nil {
				return err
			}
			t.result.Count++
		}
		for _, b := range p.Backends {
			if err := b.Conn.Flush(ctx); err != nil {
				return err
			}
		}
		if err := awaitSessions(ctx, p, len(p.People)); err != nil {
			t.say("%v", err)
		}
		w.OnlyCalls()
		if !t.expect(p.Server.Alive(), "the server has ended: %s", p.Server.LogTail(200)) {
			return nil
		}
		figures, err := w.Measure(ctx, t.lasting(5e9, 10e9))
		if err != nil {
			return err
		}
		t.worst(figures)
		killed, err := group.Killed()
		if err != nil {
			return err
		}
		t.result.More["oom_kills"] = killed
		t.say("%d joins, %d killed, memory %+d MiB", t.result.Count, killed, figures.ResidentDelta>>20)
		t.expect(killed == 0, "the kernel killed %d times", killed)
		t.unbroken(figures)
		return t.leaveIdle(ctx, p)
	},
}
