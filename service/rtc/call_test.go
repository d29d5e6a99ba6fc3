package rtc_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// talk sends packets of all endpoints until each has heard enough of every other, and checks every payload.
func talk(ctx context.Context, t *testing.T, names []string, all map[string]*rtctest.Endpoint, packets int) {
	t.Helper()
	talkEvery(ctx, t, 20*time.Millisecond, names, all, packets)
}

// talkEvery is talk with a packet of everybody every period.
func talkEvery(ctx context.Context, t *testing.T, period time.Duration, names []string,
	all map[string]*rtctest.Endpoint, packets int,
) {
	t.Helper()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(period)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			for _, name := range names {
				if err := all[name].SendVoice(name, n, 30); err != nil {
					t.Errorf("%s: send: %v", name, err)
					return
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	for _, name := range names {
		err := all[name].Await(ctx, func(heard func(string) rtctest.Heard) bool {
			for _, other := range names {
				if other != name && heard(other).Packets < packets {
					return false
				}
			}
			return true
		})
		if err != nil {
			for _, other := range names {
				h := all[name].Heard(other)
				t.Logf("%s heard %d packets of %s (bad %d)", name, h.Packets, other, h.Bad)
			}
			t.Fatalf("%s did not hear everybody: %v", name, err)
		}
	}
	close(stop)
	<-done
	for _, name := range names {
		if err := all[name].Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, other := range names {
			h := all[name].Heard(other)
			if other == name && h.Packets > 0 {
				t.Errorf("%s heard itself", name)
			}
			if h.Bad > 0 {
				t.Errorf("%s: %d of %d packets of %s were changed on the way", name, h.Bad, h.Packets, other)
			}
		}
	}
}

func connectAndPublish(ctx context.Context, t *testing.T, e *rtctest.Endpoint, name string) {
	t.Helper()
	if err := e.Connect(ctx); err != nil {
		t.Fatalf("%s: connect: %v", name, err)
	}
	if err := e.Publish(ctx, "voice_"+name); err != nil {
		t.Fatalf("%s: publish: %v", name, err)
	}
}

func TestCallOnLoopback(t *testing.T) {
	for _, size := range []int{2, 5} {
		for _, overChannel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d people, data channel signalling %v", size, overChannel), func(t *testing.T) {
				ctx := deadline(t, 40*time.Second)
				b := rtctest.NewBackend(t, nil)
				all := make(map[string]*rtctest.Endpoint)
				var names []string
				for i := range size {
					name := fmt.Sprintf("s%d", i)
					names = append(names, name)
					all[name] = b.Join(t, "g", "call", name, rtctest.EndpointConfig{ChannelSignalling: overChannel})
					connectAndPublish(ctx, t, all[name], name)
				}
				talk(ctx, t, names, all, 20)
				for _, name := range names {
					b.Server.Leave("g", name)
					if err := b.Await(ctx, name, func(events []rtc.Event) bool {
						return len(events) > 0 && events[len(events)-1].Kind == rtc.Closed
					}); err != nil {
						t.Errorf("%s: no close event: %v", name, err)
					}
				}
				if n := b.Server.Count(); n != 0 {
					t.Errorf("%d sessions left", n)
				}
			})
		}
	}
}
