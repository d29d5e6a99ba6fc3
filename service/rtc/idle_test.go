package rtc_test

import (
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// A session on UDP gives up its candidates of TCP, and one on TCP does not.
func TestSettledSessions(t *testing.T) {
	ctx := deadline(t, 30*time.Second)
	b := rtctest.NewBackend(t, func(c *rtc.Config) { rtc.SetSettle(c, time.Millisecond) })
	endpoints := []*rtctest.Endpoint{
		b.Join(t, "g", "call", "udp", rtctest.EndpointConfig{}),
		b.Join(t, "g", "call", "tcp", rtctest.EndpointConfig{TCPOnly: true}),
	}
	for _, e := range endpoints {
		if err := e.Connect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Checks go on meanwhile; what was given up has long been when the last lock is asked for.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		for _, e := range endpoints {
			if err := e.Lock(ctx); err != nil {
				t.Fatal(err)
			}
			if err := e.Unlock(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Messages of all sizes are read, whatever memory there was for one.
func TestChannelReadsLargeMessages(t *testing.T) {
	ctx := deadline(t, 30*time.Second)
	b := rtctest.NewBackend(t, nil)
	e := b.Join(t, "g", "call", "s", rtctest.EndpointConfig{})
	if err := e.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1 << 10, 1<<10 + 1, 5000, 64 << 10, 100} {
		if err := e.Channel(make([]byte, size)); err != nil { // not understood, and no harm
			t.Fatalf("send %d bytes: %v", size, err)
		}
		if granted, err := e.TryLock(ctx); err != nil || !granted {
			t.Fatalf("lock after a message of %d bytes: %v, %v", size, granted, err)
		}
		if err := e.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
}
