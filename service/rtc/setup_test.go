package rtc_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/rtctest"
)

// slowResolver answers at once, but for the first look-up, which waits for its time to run out.
type slowResolver struct {
	calls atomic.Int32
	asked chan struct{}
}

func (r *slowResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	if r.calls.Add(1) > 1 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	close(r.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// S16: a name that is slow to look up holds up the session it is looked up for, and no other.
func TestSlowNameHoldsUpOneSessionOnly(t *testing.T) {
	ctx := deadline(t, 30*time.Second)
	resolver := &slowResolver{asked: make(chan struct{})}
	b := rtctest.NewBackend(t, func(c *rtc.Config) {
		c.Engine.Override = engine.Override{Name: "media.example"}
		c.Engine.Resolver = resolver
	})
	slow := b.Join(t, "g", "call", "slow", rtctest.EndpointConfig{})
	connected := make(chan error, 1)
	slowCtx, cancel := context.WithCancel(ctx)
	go func() { connected <- slow.Connect(slowCtx) }()
	<-resolver.asked

	start := time.Now()
	quick := b.Join(t, "g", "call", "quick", rtctest.EndpointConfig{})
	b.Join(t, "g", "other call", "leaver", rtctest.EndpointConfig{})
	b.Server.Leave("g", "leaver")
	if b.Server.Exists("g", "leaver") {
		t.Error("a session that left is still there")
	}
	if d := time.Since(start); d > 500*time.Millisecond {
		t.Errorf("joins and a leave took %v beside a slow look-up", d)
	}
	if err := quick.Connect(ctx); err != nil {
		t.Errorf("session beside the slow one: %v", err)
	}
	// The failed look-up fails the join it was for.
	err := b.Await(ctx, "slow", func(events []rtc.Event) bool {
		return len(events) == 1 && events[0].Kind == rtc.Closed && events[0].Reason == rtc.CloseAddress
	})
	if err != nil {
		t.Errorf("the session whose look-up failed did not end: %v", b.Events("slow"))
	}
	cancel()
	if err := <-connected; err == nil {
		t.Error("the session whose look-up failed connected")
	}
}

// M18: candidates are in the answer, so the first check finds them: no join waits for a second
// round of checks, which comes after a second. Of twenty joins two may be slow for other reasons.
func TestJoinDoesNotWaitForASecondRoundOfChecks(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	var times []time.Duration
	for i := range 20 {
		name := fmt.Sprintf("s%d", i)
		e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{})
		start := time.Now()
		if err := e.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
		b.Server.Leave("g", name)
		e.Close()
	}
	slices.Sort(times)
	if times[17] > 900*time.Millisecond {
		t.Errorf("join to open data channel: %v", times)
	}
}

// S19: codecs stand in the same order in every description.
func TestCodecOrder(t *testing.T) {
	ctx := deadline(t, 30*time.Second)
	b := rtctest.NewBackend(t, nil)
	section := regexp.MustCompile(`(?m)^m=(audio|video) .*$`)
	want := []string{"m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 96 97 45 46 98 99 106 107 112 113"}
	for i := range 10 {
		name := fmt.Sprintf("s%d", i)
		pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if _, err := pc.AddTransceiverFromKind(kind); err != nil {
				t.Fatal(err)
			}
		}
		offer, err := pc.CreateOffer(nil)
		if err != nil {
			t.Fatal(err)
		}
		data, err := wire.Description{Type: "offer", SDP: offer.SDP}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Server.Join("g", wire.Join{CallID: "c", UserID: "u", SessionID: name}); err != nil {
			t.Fatal(err)
		}
		if err := b.Server.Signal("g", name, wire.Signal{Type: wire.SignalSDP, Data: data}); err != nil {
			t.Fatal(err)
		}
		var got []string
		err = b.Await(ctx, name, func(events []rtc.Event) bool {
			for _, e := range events {
				if e.Type == wire.SignalSDP {
					d, err := wire.ParseDescription(e.Data)
					if err != nil {
						t.Errorf("answer: %v", err)
					}
					for _, line := range section.FindAllString(d.SDP, -1) {
						got = append(got, regexp.MustCompile(`\r`).ReplaceAllString(line, ""))
					}
					return true
				}
			}
			return false
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("answer %d has %q, want %q", i, got, want)
		}
	}
}
