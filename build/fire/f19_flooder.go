//go:build linux

package main

import (
	"context"
	"time"

	"rtcd/build/fire/load"
)

var mediaFlooder = scenario{
	id: "F19", title: "somebody in a call floods it with media",
	criterion: "what is beyond the limit of a session is dropped and counted, others lose at most 0.1 %",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		// In a call with one listener: endpoints of the harness could not read it all in many places.
		var pair [2]*load.Person
		for i, name := range []string{"flooder", "listener"} {
			if pair[i], err = load.NewPerson(p.Backends[0], f.Host("atk"), "flood", name, nil); err != nil {
				return err
			}
			defer pair[i].Close()
			if err := pair[i].Connect(ctx); err != nil {
				return err
			}
			pair[i].Quiet()
		}
		flooder := pair[0]
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		before, err := p.Server.Metrics(ctx)
		if err != nil {
			return err
		}
		const rate = 10_000
		length, began := t.lasting(6*time.Second, 60*time.Second), time.Now()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for sent := 0; time.Since(began) < length; <-tick.C {
			for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
				if err := flooder.Endpoint().SendVoice("flooder", uint32(sent), 10); err != nil {
					return err
				}
			}
			t.result.Count = sent
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		after, err := p.Server.Metrics(ctx)
		if err != nil {
			return err
		}
		t.worst(figures)
		const hits = `rtcd_limit_hits_total{limit="session_rate"}`
		dropped, pps := after[hits]-before[hits], float64(t.result.Count)/length.Seconds()
		t.say("%.0f packets a second: %.0f of %d dropped; %d of %d packets of others lost", pps, dropped, t.result.Count, figures.PacketsLost, figures.PacketsOwed)
		t.result.More["flood_pps"], t.result.More["dropped"] = int(pps), dropped
		if pps > 4000 {
			t.expect(dropped > 0, "nothing of the flood was dropped")
		} else {
			t.notJudged("only %.0f packets a second were sent", pps)
		}
		t.unbroken(figures)
		t.lossless(figures, 0.001)
		for _, q := range pair {
			if err := q.Leave(); err != nil {
				return err
			}
		}
		return t.leaveIdle(ctx, p)
	},
}
