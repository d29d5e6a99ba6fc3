//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"rtcd/build/fire/load"
	"rtcd/client"
)

var churn = scenario{
	id: "F14", title: "joins, leaves, doubles and aborts, in any order", promises: []string{"P12"},
	criterion: "goroutines, descriptors and sessions are as before, the heap within 5 MiB; calls beside it lose nothing",
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
		offer, err := anOffer(t)
		if err != nil {
			return err
		}
		// What a server keeps for later, such as buffers, is there after the first cycles.
		b := p.Backends[0]
		if err := cycles(ctx, t, b, offer, 200); err != nil {
			return err
		}
		if err := awaitSessions(ctx, p, len(p.People)); err != nil {
			return err
		}
		before, err := p.Server.Collected(ctx)
		if err != nil {
			return err
		}
		if err := t.keepHeap(ctx, p.Server, "before"); err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		n := t.of(2000, 10_000)
		if err := cycles(ctx, t, b, offer, n); err != nil {
			return err
		}
		if err := awaitSessions(ctx, p, len(p.People)); err != nil {
			return err
		}
		if err := t.wait(ctx, 3*time.Second); err != nil {
			return err
		}
		after, err := p.Server.Collected(ctx)
		if err != nil {
			return err
		}
		if err := t.keepHeap(ctx, p.Server, "after"); err != nil {
			return err
		}
		w.OnlyCalls() // the ends of the cycles are meant
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.result.Count = n
		goroutines, files, heap := after.Goroutines-before.Goroutines, after.Files-before.Files, after.Heap-before.Heap
		t.result.More["heap_delta"], t.result.More["cycle_goroutines"], t.result.More["cycle_files"] = heap, goroutines, files
		t.say("%d cycles: %+d goroutines, %+d descriptors, %+.1f MiB of heap", n, goroutines, files, float64(heap)/(1<<20))
		kept := t.unbroken(figures)
		kept = t.lossless(figures, 0) && kept
		kept = t.expect(goroutines <= 2, "%d goroutines more", goroutines) && kept
		kept = t.expect(files <= 2, "%d descriptors more", files) && kept
		kept = t.expect(heap <= 5<<20, "%.1f MiB of heap more", float64(heap)/(1<<20)) && kept
		t.promise("P12", kept, n, "cycles", "%+d goroutines, %+d descriptors, %+.1f MiB of heap", goroutines, files, float64(heap)/(1<<20))
		return t.leaveIdle(ctx, p)
	},
}

// cycles are joins with whatever may come before, after and instead of a leave.
func cycles(ctx context.Context, t *trial, b *load.Backend, offer client.SDP, n int) error {
	for i := range n {
		session := fmt.Sprintf("cycle-%d-%d", time.Now().UnixNano(), i)
		j := client.Join{CallID: fmt.Sprintf("cycles%d", i%50), UserID: "u", SessionID: session}
		kind := t.rand.IntN(7)
		var err error
		send := func(f func() error) {
			if err == nil {
				err = f()
			}
		}
		join := func() error { return b.Conn.Join(j) }
		leave := func() error { return b.Conn.Leave(session) }
		describe := func() error { return b.Conn.SendDescription(session, offer) }
		switch kind {
		case 0:
			send(join)
			send(leave)
		case 1: // twice
			send(join)
			send(join)
			send(leave)
			send(leave)
		case 2: // with a peer connection
			send(join)
			send(describe)
			send(leave)
		case 3: // leave before join
			send(leave)
			send(join)
			send(leave)
		case 4: // offer without a join
			send(describe)
		case 5: // answer without an offer, twice an offer
			send(join)
			send(func() error { return b.Conn.SendDescription(session, client.SDP{Type: "answer", SDP: offer.SDP}) })
			send(describe)
			send(describe)
			send(leave)
		case 6: // the server has to end it itself, from time to time
			send(join)
			send(describe)
			if i%50 != 0 {
				send(leave)
			}
		}
		if err != nil {
			return err
		}
		if i%20 == 19 {
			if err := b.Conn.Flush(ctx); err != nil {
				return err
			}
			if err := t.wait(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return b.Conn.Flush(ctx)
}

// anOffer is one that an endpoint made that is gone.
func anOffer(t *trial) (client.SDP, error) {
	sdp, err := load.OfferOf(t.field.Host("cli1"))
	return client.SDP{Type: "offer", SDP: sdp}, err
}

// awaitSessions waits until there are so many sessions for a while: what was sent last may still be
// under way, and sessions that were not left have to end by themselves.
func awaitSessions(ctx context.Context, p *load.Party, want int) error {
	steady := 0
	for end := time.Now().Add(90 * time.Second); ; {
		n, err := p.Server.Sessions(ctx)
		if err != nil {
			return err
		}
		if steady++; n != want {
			steady = 0
		}
		if steady == 10 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("there are %d sessions, want %d", n, want)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
