package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// At the deadline nobody who reads nothing delays the end: neither backends whose receive windows are
// full, nor endpoints that are stopped.
func TestStalledPeersDoNotDelayTheDeadline(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	ctx := within(t, 90*time.Second)
	c := start(t, t.TempDir(), fmt.Sprintf("RTCD_SHUTDOWN_DRAINDEADLINE=%v", limit))
	for i := range 3 {
		id := fmt.Sprint("c", i)
		b := servicetest.NewBackend(t, fmt.Sprintf("127.0.0.1:%d", c.api), id)
		b.Register(t)
		l := b.Dial(t)
		for j := range 2 {
			e := b.Person(ctx, t, "call", fmt.Sprint("s", j), rtctest.EndpointConfig{})
			if j == 1 {
				e.Close() // without a word to the backend: nobody answers any more
			}
		}
		l.Deafen(t)
	}
	began := time.Now()
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, limit+20*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	took := time.Since(began)
	t.Logf("ended after %v, with a deadline of %v", took, limit)
	if took < limit || took > limit+5*time.Second {
		t.Errorf("ended after %v, with a deadline of %v", took, limit)
	}
}

// An operator drains a server from the command line, looks, takes it back, and lets it end.
func TestDrainCommand(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	s, o := operate(t)
	r := s.connect(t, "c1")
	call(ctx, t, r)
	says := func(args []string, parts ...string) {
		t.Helper()
		out := o.ok("", o.online(append([]string{"drain"}, args...)...)...)
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("drain %v lacks %q: %s", args, part, out)
			}
		}
	}
	says([]string{"-state"}, "not draining", "2 sessions in 1 calls")
	says([]string{"-stay", "-deadline", "1h"}, "draining: no new calls", "2 sessions in 1 calls are left", "calls are ended at", "the server stays")
	says([]string{"-state"}, "draining: no new calls", "the server stays")
	says([]string{"-undo"}, "not draining")
	says([]string{"-state"}, "not draining")
	select {
	case <-s.exited:
		t.Fatalf("it has ended\n%s", s.out)
	default:
	}
	o.fails(2, "usage", "", o.online("drain", "-undo", "-state")...)
	says([]string{"-deadline", "1s"}, "draining: no new calls", "the server ends with the last call")
	for _, name := range []string{"s1", "s2"} {
		if err := r.AwaitClosed(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if status := s.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, s.out)
	}
}
