package rtc_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
)

// joinAll makes people join, connect and publish all at once.
func joinAll(ctx context.Context, t *testing.T, b *rtctest.Backend, n *rtctest.Network, size int) (
	names []string, all map[string]*rtctest.Endpoint,
) {
	t.Helper()
	all = make(map[string]*rtctest.Endpoint)
	for i := range size {
		name := fmt.Sprintf("s%d", i)
		host, _ := n.Host(t)
		names = append(names, name)
		all[name] = b.Join(t, "g", "call", name, rtctest.EndpointConfig{Net: host, ChannelSignalling: i%2 == 1})
	}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			if err := all[name].Connect(ctx); err != nil {
				t.Errorf("%s: connect: %v", name, err)
			} else if err := all[name].Publish(ctx, "voice_"+name); err != nil {
				t.Errorf("%s: publish: %v", name, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return names, all
}

// TestCallOnVirtualNetwork: everybody hears everybody, unchanged, when all join at once.
func TestCallOnVirtualNetwork(t *testing.T) {
	for _, c := range []struct {
		size, packets int
		period        time.Duration
	}{{2, 20, 20 * time.Millisecond}, {5, 20, 20 * time.Millisecond}} {
		t.Run(fmt.Sprintf("%d people", c.size), func(t *testing.T) {
			ctx := deadline(t, 40*time.Second)
			n := rtctest.NewNetwork(t)
			b := rtctest.NewBackend(t, n.Serve(t))
			names, all := joinAll(ctx, t, b, n, c.size)
			talkEvery(ctx, t, c.period, names, all, c.packets)
		})
	}
}

// TestLargeCall (S12): 19 people who all talk at once, and the 20th, who needs a handful of
// negotiations to hear them.
func TestLargeCall(t *testing.T) {
	const size = 20
	ctx := deadline(t, 60*time.Second)
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	names, all := joinAll(ctx, t, b, n, size-1)
	talkEvery(ctx, t, 100*time.Millisecond, names, all, 5)

	host, _ := n.Host(t)
	last := b.Join(t, "g", "call", "last", rtctest.EndpointConfig{Net: host})
	connectAndPublish(ctx, t, last, "last")
	names, all["last"] = append(names, "last"), last
	talkEvery(ctx, t, 100*time.Millisecond, names, all, 10)
	if got := last.Offers(); got > 6 {
		t.Errorf("the last to join answered %d offers for %d voices, want at most 6", got, size-1)
	}
}
