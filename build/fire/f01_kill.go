//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
)

var killDuringRegistrations = scenario{
	id: "F1", title: "kill -9 during registrations", promises: []string{"P1"},
	criterion: "every registration that was acknowledged is there after a restart; ready (p99) within 1 s",
	run: func(ctx context.Context, t *trial) error {
		f, err := t.ground("srv", "be1")
		if err != nil {
			return err
		}
		s, err := t.server(nil)
		if err != nil {
			return err
		}
		var acked, lost int
		var ready []time.Duration
		runs := t.least(6, 20, 1000)
		if err := s.Run(ctx); err != nil {
			return err
		}
		for i := range runs {
			registered := registerUntilKilled(ctx, t, s, f.Host("be1"), i)
			began := time.Now()
			if err := s.Run(ctx); err != nil {
				return fmt.Errorf("restart %d: %w", i, err)
			}
			ready = append(ready, time.Since(began))
			missing, err := missingOf(ctx, s, f.Host("be1"), registered)
			if err != nil {
				return fmt.Errorf("restart %d: %w", i, err)
			}
			acked, lost = acked+len(registered), lost+missing
			t.result.Count++
			if (i+1)%50 == 0 {
				t.say("%d kills, %d acknowledged, %d lost", i+1, acked, lost)
			}
		}
		p99 := percentile(ready, 99)
		t.result.More["acknowledged"], t.result.More["lost"] = acked, lost
		t.result.More["ready_ms_p50"], t.result.More["ready_ms_p99"] = percentile(ready, 50).Milliseconds(), p99.Milliseconds()
		t.expect(acked > 0, "nothing was acknowledged, so nothing was shown")
		kept := t.expect(lost == 0, "%d of %d acknowledged registrations were lost", lost, acked)
		kept = t.within(p99, time.Second, "ready again (p99) after %v", p99) && kept
		t.promise("P1", kept && acked > 0, runs, "kills", "%d of %d registrations lost, ready p99 %d ms", lost, acked, p99.Milliseconds())
		return nil
	},
}

// registration is a backend that the server said it knows.
type registration struct{ id, key string }

// registerUntilKilled has 8 clients register until the server is killed within 1.5 s, and returns what
// was acknowledged.
func registerUntilKilled(ctx context.Context, t *trial, s *load.Server, host *field.Namespace, run int) []registration {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var acked []registration
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r := registration{fmt.Sprintf("r%d-%d-%d", run, c, n), strings.Repeat("k", 20) + fmt.Sprintf("%020d", n)}
				client, err := plainClient(s, host, r)
				if err == nil {
					err = client.Register(ctx)
					client.CloseIdleConnections()
				}
				if err != nil {
					return // it is dead
				}
				mu.Lock()
				acked = append(acked, r)
				mu.Unlock()
			}
		})
	}
	_ = t.wait(ctx, time.Duration(t.rand.Int64N(int64(1500*time.Millisecond))))
	s.Kill()
	cancel()
	wg.Wait()
	return acked
}

// missingOf counts the registrations that are not there. That the others are is shown by their being
// taken, and of the last one by a login.
func missingOf(ctx context.Context, s *load.Server, host *field.Namespace, acked []registration) (missing int, err error) {
	for i, r := range acked {
		c, err := plainClient(s, host, r)
		if err != nil {
			return 0, err
		}
		if i == len(acked)-1 {
			if _, err := c.Login(ctx); err != nil {
				missing++
				c.CloseIdleConnections()
				continue
			}
		}
		err = c.Register(ctx)
		c.CloseIdleConnections()
		if err == nil {
			missing++
		} else if !errors.Is(err, client.ErrAlreadyRegistered) {
			return 0, err
		}
	}
	return missing, nil
}

// plainClient is a client of the server from a host.
func plainClient(s *load.Server, host *field.Namespace, r registration) (*client.Client, error) {
	return client.New(client.Config{
		URL: s.URL(), ClientID: r.id, AuthKey: r.key, DialContext: host.DialContext,
		HTTPClient: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: host.DialContext}},
	})
}
