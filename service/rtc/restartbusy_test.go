package rtc_test

import (
	"sync/atomic"
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// A path that is silent while an ordinary offer is in flight, and is not dead after all, is forgotten: the
// next outage, much later, has all of its time.
func TestRestartPutOffForNothing(t *testing.T) {
	const nearlyOver = 29 * time.Second // of the 30 that an outage may last
	var b *rtctest.Backend
	var armed atomic.Bool
	met := make(chan struct{}, 1)
	b, ann, ben := restartPair(t, rtctest.EndpointConfig{IgnoreOffers: func() bool {
		if armed.Swap(false) {
			b.Server.Silence("g", "ann", nearlyOver)
			b.Server.HearAgain("g", "ann")
			met <- struct{}{}
		}
		return false
	}}, nil)
	armed.Store(true)
	ctx := deadline(t, 60*time.Second)
	cat := b.Join(t, "g", "call", "cat", rtctest.EndpointConfig{})
	connectAndPublish(ctx, t, cat, "cat")
	rtctest.Talk(t, map[string]*rtctest.Endpoint{"cat": cat})
	select {
	case <-met:
	case <-ctx.Done():
		t.Fatal("no offer")
	}
	start := time.Now()
	for time.Since(start) < 32*time.Second-nearlyOver {
		hearBoth(t, ann, ben)
	}
	old := remoteUfrag(t, ann)
	b.Server.Silence("g", "ann", time.Second)
	awaitThat(t, "a restart, or the end", func() bool { return !b.Server.Exists("g", "ann") || remoteUfrag(t, ann) != old })
	for _, e := range b.Events("ann") {
		if e.Kind == rtc.Closed {
			t.Fatalf("closed: %v", e.Reason)
		}
	}
	hearBoth(t, ann, ben)
}
