//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
)

var loginFlood = scenario{
	id: "F27", title: "a flood of logins with wrong keys, 64 at a time", promises: []string{"P6"},
	criterion: "a backend connects within 200 ms (p99); a known and an unknown id take the same time, within 5 ms; calls go on",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		legit := p.Backends[0]
		if known, unknown, err := guessingTimes(ctx, t, p.Server, f.Host("be2"), legit.Name); err != nil {
			return err
		} else {
			d := (known - unknown).Abs()
			t.result.More["known_ms"], t.result.More["unknown_ms"] = ms(known), ms(unknown)
			t.say("a wrong key takes %v for a known id, %v for an unknown one", known, unknown)
			t.expect(d <= 5*time.Millisecond, "a known id and an unknown one differ by %v", d)
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		flooding, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		var tries atomic.Int64
		for i := range 64 {
			wg.Go(func() {
				r := registration{legit.Name, strings.Repeat("w", 40)}
				if i%2 == 1 {
					r.id = fmt.Sprintf("nobody%d", i)
				}
				c, err := plainClient(p.Server, f.Host("atk"), r)
				if err != nil {
					return
				}
				defer c.CloseIdleConnections()
				for flooding.Err() == nil {
					_, _ = c.Login(flooding)
					tries.Add(1)
				}
			})
		}
		took, err := connects(ctx, p.Server, f.Host("be1"), registration{legit.Name, legit.Key()}, t.of(50, 500))
		stop()
		wg.Wait()
		if err != nil {
			return err
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		p99 := percentile(took, 99)
		t.result.Count = int(tries.Load())
		t.result.More["connect_ms_p50"], t.result.More["connect_ms_p99"] = ms(percentile(took, 50)), ms(p99)
		t.say("%d wrong logins; a backend connects in %v (p99)", tries.Load(), p99)
		kept := t.expect(p99 <= 200*time.Millisecond, "a backend connects in %v (p99)", p99)
		kept = t.unbroken(figures) && kept
		kept = t.lossless(figures, 0.001) && kept
		t.promise("P6", kept, len(took), "connects during a flood of logins", "p99 %.0f ms, beside %d wrong logins", ms(p99), tries.Load())
		return t.leaveIdle(ctx, p)
	},
}

// guessingTimes returns how long a wrong key takes (p50) with a known and an unknown id, each tried less
// often than makes the server wait.
func guessingTimes(ctx context.Context, t *trial, s *load.Server, host *field.Namespace, id string) (known, unknown time.Duration, err error) {
	times := make(map[bool][]time.Duration)
	for i := range 6 {
		r := registration{id, strings.Repeat("w", 40)}
		if i%2 == 1 {
			r.id = "nobody-knows"
		}
		c, err := plainClient(s, host, r)
		if err != nil {
			return 0, 0, err
		}
		if _, err := c.Version(ctx); err != nil { // the connection is there already
			return 0, 0, err
		}
		began := time.Now()
		_, err = c.Login(ctx)
		times[i%2 == 0] = append(times[i%2 == 0], time.Since(began))
		c.CloseIdleConnections()
		if err == nil {
			t.shortfall("a wrong key was taken")
		}
	}
	return percentile(times[true], 50), percentile(times[false], 50), nil
}

// connects opens WebSockets, one after the other, and returns how long each took.
func connects(ctx context.Context, s *load.Server, host *field.Namespace, r registration, n int) ([]time.Duration, error) {
	var took []time.Duration
	for range n {
		c, err := client.New(client.Config{URL: s.URL(), ClientID: r.id, AuthKey: r.key, DialContext: host.DialContext})
		if err != nil {
			return nil, err
		}
		began := time.Now()
		conn, err := c.Connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect during a flood: %w", err)
		}
		took = append(took, time.Since(began))
		if err := conn.Close(); err != nil {
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return took, nil
}
