//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
)

var reconnectHerd = scenario{
	id: "F13", title: "200 backends connect again at once", promises: []string{"P6"},
	criterion: "all are back within 2 s, after their connections broke and after a restart of the server",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground("srv", "be1", "be2")
		if err != nil {
			return err
		}
		s, err := t.server(nil)
		if err != nil {
			return err
		}
		if err := s.Run(ctx); err != nil {
			return err
		}
		const herd = 200
		var all []*client.Conn
		defer func() {
			for _, c := range all {
				_ = c.Close()
			}
		}()
		for i := range herd {
			c, err := herdMember(ctx, s, f.Host([]string{"be1", "be2"}[i%2]), i)
			if err != nil {
				return fmt.Errorf("backend %d: %w", i, err)
			}
			all = append(all, c)
		}
		t.say("%d backends are connected", herd)
		var broken, restarted []time.Duration
		for range t.of(2, 10) {
			d, err := stampede(ctx, s, all, false)
			if err != nil {
				return err
			}
			broken = append(broken, d)
			if d, err = stampede(ctx, s, all, true); err != nil {
				return err
			}
			restarted = append(restarted, d)
			t.result.Count += 2
		}
		b, r := percentile(broken, 100), percentile(restarted, 100)
		t.result.More["broken_ms_max"], t.result.More["restarted_ms_max"] = b.Milliseconds(), r.Milliseconds()
		t.say("back after at most %v; after a restart %v", b, r)
		kept := t.within(b, 2*time.Second, "all are back %v after their connections broke", b)
		kept = t.within(r, 2*time.Second, "all are back %v after the server could be reached again", r) && kept
		t.promise("P6", kept, t.result.Count, "stampedes of 200 backends", "all back within %d ms, after a restart %d ms", b.Milliseconds(), r.Milliseconds())
		return nil
	},
}

// herdMember is a backend of many.
func herdMember(ctx context.Context, s *load.Server, host *field.Namespace, i int) (*client.Conn, error) {
	c, err := client.New(client.Config{
		URL: s.URL(), ClientID: fmt.Sprintf("herd%03d", i), AuthKey: strings.Repeat("h", 37) + fmt.Sprintf("%03d", i),
		AutoRegister: true, DialContext: host.DialContext,
		MinBackoff: 50 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	conn, err := c.Connect(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	go func() {
		for range conn.Events() { // they have to be read
		}
	}()
	return conn, nil
}

// stampede kills the server and starts it again, or pauses it until all have noticed that their
// connections are broken, and returns how long after its being there again all are back.
func stampede(ctx context.Context, s *load.Server, all []*client.Conn, restart bool) (time.Duration, error) {
	before := make([]uint64, len(all))
	for i, c := range all {
		before[i] = uint64(c.Stats().Reconnects)
	}
	if restart {
		s.Kill()
		if err := s.Run(ctx); err != nil {
			return 0, err
		}
	} else if err := s.BreakConnections(); err != nil {
		return 0, err
	}
	began := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, len(all))
	for i, c := range all {
		wg.Go(func() {
			for uint64(c.Stats().Reconnects) == before[i] {
				select {
				case <-time.After(5 * time.Millisecond):
				case <-c.Done():
					errs <- fmt.Errorf("backend %d gave up: %w", i, c.Err())
					return
				case <-ctx.Done():
					errs <- ctx.Err()
					return
				}
				if time.Since(began) > time.Minute {
					errs <- fmt.Errorf("backend %d is not back after a minute", i)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return time.Since(began), nil
	}
}
