//go:build linux

package main

import (
	"context"
	"slices"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
)

var badNetworks = scenario{
	id: "F17", title: "bad networks: loss, bursts, delay, reordering, doubles, little bandwidth", promises: nil,
	criterion: "nobody is disconnected, the server loses and doubles no voice packet, others lose nothing, the screen comes back",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground(steadyHosts()...)
		if err != nil {
			return err
		}
		var both [2]*field.Impairer
		for i, w := range []field.Way{field.From, field.To} {
			if both[i], err = f.Impair("cli1", w, t.seed+uint64(i)); err != nil {
				return err
			}
		}
		p, err := t.steady(ctx, nil, nil)
		if err != nil {
			return err
		}
		lossless := 0
		tried := networks
		if t.quick {
			tried = slices.DeleteFunc(slices.Clone(networks), func(n network) bool { return n.mild })
		}
		for _, n := range tried {
			w, err := p.Mark(ctx, both[:]...)
			if err != nil {
				return err
			}
			if err := underNetwork(ctx, t, f, both, n); err != nil {
				return err
			}
			figures, err := w.Measure(ctx, 10*time.Second)
			if err != nil {
				return err
			}
			for _, i := range both {
				if err := i.Err(); err != nil {
					return err
				}
			}
			t.result.Count++
			t.say("%s: %d of %d packets lost by the server, gap %d ms, %d frames lost, frozen %d ms", n.name,
				figures.PacketsLost, figures.PacketsOwed, figures.GapMsMax, figures.FramesLost, figures.FrozenMs)
			t.result.More[n.name+"_frozen_ms"], t.result.More[n.name+"_frames_lost"] = figures.FrozenMs, figures.FramesLost
			if n.rate > 0 {
				figures.PacketsLost = 0 // the queue before the narrow link overflows, which is not counted
			}
			t.worst(figures)
			t.unbroken(figures)
			// An impairer is read a moment before or after the numbers of the packets.
			t.expect(figures.PacketsLost <= lossless+figures.PacketsOwed/2000, "%s: the server lost %d of %d packets", n.name, figures.PacketsLost, figures.PacketsOwed)
			t.expect(figures.PacketsTwice == 0 || n.what.Duplicate > 0, "%s: %d packets came twice", n.name, figures.PacketsTwice)
		}
		if err := recoverScreens(ctx, t, p); err != nil {
			return err
		}
		return t.leaveIdle(ctx, p)
	},
}

// network is a bad one.
type network struct {
	name string
	what field.Impairment
	rate int  // bit/s towards the end users; 0: no bound
	mild bool // a worse one shows more; left out of quick runs
}

var networks = []network{
	{name: "loss_1", mild: true, what: field.Impairment{Loss: 0.01}},
	{name: "loss_5", mild: true, what: field.Impairment{Loss: 0.05}},
	{name: "loss_10", mild: true, what: field.Impairment{Loss: 0.10}},
	{name: "loss_20", what: field.Impairment{Loss: 0.20}},
	{name: "bursts", what: field.Impairment{TurnBad: 0.005, TurnGood: 0.1}},
	{name: "rtt_200", what: field.Impairment{Delay: 100 * time.Millisecond}},
	{name: "reorder_20", what: field.Impairment{Delay: 40 * time.Millisecond, Reorder: 0.2}},
	{name: "jitter", mild: true, what: field.Impairment{Delay: 60 * time.Millisecond, Jitter: 40 * time.Millisecond}},
	{name: "double_10", what: field.Impairment{Duplicate: 0.1}},
	{name: "300_kbit", rate: 300_000},
}

// underNetwork makes the network of one host bad for a while.
func underNetwork(ctx context.Context, t *trial, f *field.Field, both [2]*field.Impairer, n network) error {
	for _, i := range both {
		i.Set(n.what)
	}
	if n.rate > 0 {
		if err := f.Rate("cli1", n.rate, 30_000); err != nil {
			return err
		}
	}
	err := t.wait(ctx, t.lasting(3*time.Second, 30*time.Second))
	for _, i := range both {
		i.Set(field.Impairment{})
	}
	if n.rate > 0 {
		if err2 := f.Unrate("cli1"); err2 != nil {
			return err2
		}
	}
	return err
}

// recoverScreens expects that all see screens again.
func recoverScreens(ctx context.Context, t *trial, p *load.Party) error {
	began := time.Now()
	blind := p.AwaitSeeing(ctx, 15*time.Second)
	t.result.More["screens_back_ms"] = time.Since(began).Milliseconds()
	t.expect(len(blind) == 0, "%d people do not see the screen of their call again: %v", len(blind), blind)
	return ctx.Err()
}
