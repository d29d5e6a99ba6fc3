package rtc_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// restarts returns the credentials that offers to a session over the relay had, in their order.
func restarts(t *testing.T, b *rtctest.Backend, session string) (ufrags []string) {
	t.Helper()
	for _, e := range b.Events(session) {
		if e.Type != wire.SignalSDP {
			continue
		}
		if d, err := wire.ParseDescription(e.Data); err == nil && d.Type == "offer" {
			_, rest, _ := strings.Cut(d.SDP, "a=ice-ufrag:")
			ufrag, _, _ := strings.Cut(rest, "\r\n")
			ufrags = append(ufrags, ufrag)
		}
	}
	return ufrags
}

func remoteUfrag(t *testing.T, e *rtctest.Endpoint) string {
	t.Helper()
	p, err := e.PC().SCTP().Transport().ICETransport().GetRemoteParameters()
	if err != nil {
		t.Fatal(err)
	}
	return p.UsernameFragment
}

// pair is a call of two on loopback who talk.
func restartPair(t *testing.T, cfg rtctest.EndpointConfig, change func(*rtc.Config)) (b *rtctest.Backend, ann, ben *rtctest.Endpoint) {
	t.Helper()
	ctx := deadline(t, 60*time.Second)
	b = rtctest.NewBackend(t, change)
	ann = b.Join(t, "g", "call", "ann", cfg)
	ben = b.Join(t, "g", "call", "ben", rtctest.EndpointConfig{})
	connectAndPublish(ctx, t, ann, "ann")
	connectAndPublish(ctx, t, ben, "ben")
	rtctest.Talk(t, map[string]*rtctest.Endpoint{"ann": ann, "ben": ben})
	hearBoth(t, ann, ben)
	return b, ann, ben
}

func hearBoth(t *testing.T, ann, ben *rtctest.Endpoint) {
	t.Helper()
	ctx := deadline(t, 30*time.Second)
	for e, from := range map[*rtctest.Endpoint]string{ann: "ben", ben: "ann"} {
		n := e.Heard(from).Packets + 30
		if err := e.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard(from).Packets >= n }); err != nil {
			t.Fatalf("packets of %s: %v", from, err)
		}
	}
}

// await waits for something without an event of its own.
func awaitThat(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Restarts again and again, over UDP, over TCP, lite and full, with offers of the endpoint between them.
func TestRestartTransports(t *testing.T) {
	for name, c := range map[string]struct{ tcp, full bool }{
		"udp, lite": {}, "udp, full": {full: true}, "tcp, lite": {tcp: true}, "tcp, full": {tcp: true, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, ann, ben := restartPair(t, rtctest.EndpointConfig{TCPOnly: c.tcp}, func(cfg *rtc.Config) { cfg.Lite = !c.full })
			before := len(restarts(t, b, "ann"))
			for i := range 2 {
				old := remoteUfrag(t, ann)
				b.Server.Silence("g", "ann", time.Second)
				awaitThat(t, "the restart", func() bool { return remoteUfrag(t, ann) != old })
				hearBoth(t, ann, ben)
				now := remoteUfrag(t, ann)
				// Ordinary exchanges, from both sides, have the credentials that are in force.
				if err := ann.PublishVideo(t.Context(), webrtc.MimeTypeVP8, "video_ann_"+string(rune('a'+i))); err != nil {
					t.Fatal(err)
				}
				if got := remoteUfrag(t, ann); got != now {
					t.Errorf("an answer changes the credentials from %q to %q", now, got)
				}
				hearBoth(t, ann, ben)
				b.Server.HearAgain("g", "ann") // and the next outage may come at once
			}
			if err := ann.Err(); err != nil {
				t.Error(err)
			}
			if n := len(restarts(t, b, "ann")) - before; n < 2 {
				t.Errorf("%d offers", n)
			}
			for _, e := range b.Events("ann") {
				if e.Kind == rtc.Closed {
					t.Errorf("closed: %v", e.Reason)
				}
			}
		})
	}
}

// The offer does not arrive: it is sent again word for word, and the path stays as it is.
func TestRestartOfferLost(t *testing.T) {
	var deaf atomic.Bool
	b, ann, ben := restartPair(t, rtctest.EndpointConfig{IgnoreOffers: deaf.Load}, nil)
	deaf.Store(true)
	before, old := len(restarts(t, b, "ann")), remoteUfrag(t, ann)
	b.Server.Silence("g", "ann", time.Second)
	awaitThat(t, "the second copy", func() bool { return len(restarts(t, b, "ann")) >= before+2 })
	hearBoth(t, ann, ben)
	deaf.Store(false)
	awaitThat(t, "the restart", func() bool { return remoteUfrag(t, ann) != old })
	hearBoth(t, ann, ben)
	sent := restarts(t, b, "ann")[before:]
	for _, ufrag := range sent {
		if ufrag != sent[0] || ufrag == old {
			t.Errorf("offers have the credentials %q, before them %q", sent, old)
		}
	}
	if len(sent) > 4 {
		t.Errorf("%d copies", len(sent))
	}
}

// The old path comes back: nothing is sent again, and nobody restarts.
func TestRestartNeedless(t *testing.T) {
	var deaf atomic.Bool
	b, ann, ben := restartPair(t, rtctest.EndpointConfig{IgnoreOffers: deaf.Load}, nil)
	deaf.Store(true)
	before, old := len(restarts(t, b, "ann")), remoteUfrag(t, ann)
	b.Server.Silence("g", "ann", time.Second)
	awaitThat(t, "the offer", func() bool { return len(restarts(t, b, "ann")) == before+1 })
	b.Server.HearAgain("g", "ann")
	start := time.Now()
	for time.Since(start) < 2*time.Second {
		hearBoth(t, ann, ben)
	}
	if got := restarts(t, b, "ann")[before:]; len(got) != 1 {
		t.Errorf("%d copies of an offer for a path that is alive", len(got))
	}
	if remoteUfrag(t, ann) != old || !b.Server.Exists("g", "ann") {
		t.Error("restarted, or ended")
	}
}

// Glare: the endpoint offers, or restarts ICE itself, while the server's offer is out.
func TestRestartGlare(t *testing.T) {
	var deaf atomic.Bool
	b, ann, ben := restartPair(t, rtctest.EndpointConfig{IgnoreOffers: deaf.Load}, nil)
	deaf.Store(true)
	before := len(restarts(t, b, "ann"))
	b.Server.Silence("g", "ann", time.Second)
	awaitThat(t, "the offer", func() bool { return len(restarts(t, b, "ann")) == before+1 })
	b.Server.HearAgain("g", "ann")
	// It does not know of the server's offer. Its own is held until that is given up.
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := ann.RestartICE(t.Context()); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	deaf.Store(false)
	hearBoth(t, ann, ben)
	if got := remoteUfrag(t, ann); got == restarts(t, b, "ann")[before] {
		t.Error("the answer has the credentials of the offer that was given up")
	}
	hearBoth(t, ann, ben)
	if err := ann.Err(); err != nil {
		t.Error(err)
	}
}
