package rtc_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/rtctest"
)

var fingerprintLine = regexp.MustCompile(`a=fingerprint:sha-256 ([0-9A-F:]+)`)

// TestFingerprints shows RT-09: two calls show different certificates, two sessions of a call the same
// one, and an endpoint whose certificate is not what its description says gets no further than DTLS.
func TestFingerprints(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) { rtc.SetTimes(cfg, 0, 5*time.Second, negotiate.Config{}) })
	shown := func(call, session string) string {
		e := b.Join(t, "g", call, session, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: connect: %v", session, err)
		}
		m := fingerprintLine.FindStringSubmatch(e.PC().RemoteDescription().SDP)
		if m == nil {
			t.Fatalf("%s: the answer has no fingerprint", session)
		}
		return m[1]
	}
	one, same, other := shown("one", "a"), shown("one", "b"), shown("two", "c")
	if one != same || one == other {
		t.Errorf("calls one and two show %s, %s and %s", one, same, other)
	}

	lie := "a=fingerprint:sha-256 " + strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	liar := b.Join(t, "g", "one", "liar", rtctest.EndpointConfig{
		BendOffer: func(sdp string) string { return fingerprintLine.ReplaceAllString(sdp, lie) },
	})
	hopeless, cancel := context.WithCancel(ctx)
	connected := make(chan error, 1)
	go func() { connected <- liar.Connect(hopeless) }()
	err := b.Await(ctx, "liar", func(events []rtc.Event) bool {
		return len(events) > 0 && events[len(events)-1].Kind == rtc.Closed
	})
	if err != nil {
		t.Fatalf("the session was not closed: %v", err)
	}
	cancel()
	if err := <-connected; err == nil {
		t.Error("an endpoint with a false fingerprint connected")
	}
	events := b.Events("liar")
	if r := events[len(events)-1].Reason; r != rtc.CloseICE && r != rtc.ClosePeer && r != rtc.CloseSetup {
		t.Errorf("closed with %q, want that the connection failed", r)
	}
}
