package rtc_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/msgpack"
	"rtcd/service/rtc"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/rtctest"
)

// offerOfNobody is a valid first offer; no endpoint is behind it.
func offerOfNobody(t testing.TB) string {
	t.Helper()
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.GracefulClose() }()
	if _, err := pc.CreateDataChannel("calls-dc", nil); err != nil {
		t.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.Description{Type: "offer", SDP: offer.SDP}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSessionsThatComeToNothing (S18): each ends with a close event, once, that says why.
func TestSessionsThatComeToNothing(t *testing.T) {
	t.Parallel()
	const (
		garbage    = `{"type":"offer","sdp":"v=0\r\nnonsense"}`
		notJSON    = `v=0`
		stray      = `{"type":"answer","sdp":"v=0\r\n"}`
		provisonal = `{"type":"pranswer","sdp":"v=0\r\n"}`
		candidate  = `{"candidate":"candidate:1 1 udp 1 10.0.0.9 9 typ host","sdpMid":"0","sdpMLineIndex":0}`
	)
	first, setup := 600*time.Millisecond, 900*time.Millisecond
	for _, c := range []struct {
		name   string
		send   []wire.Signal
		reason rtc.CloseReason
		after  time.Duration // at the earliest
	}{
		{"no offer", nil, rtc.CloseNoOffer, first},
		{"candidates alone", []wire.Signal{{Type: wire.SignalICE, Data: []byte(candidate)}}, rtc.CloseNoOffer, first},
		{"not JSON", []wire.Signal{{Type: wire.SignalSDP, Data: []byte(notJSON)}}, rtc.CloseNoOffer, first},
		{"nothing", []wire.Signal{{Type: wire.SignalSDP}}, rtc.CloseNoOffer, first},
		{"neither offer nor answer", []wire.Signal{{Type: wire.SignalSDP, Data: []byte(provisonal)}}, rtc.CloseNoOffer, first},
		{"an answer", []wire.Signal{{Type: wire.SignalSDP, Data: []byte(stray)}}, rtc.CloseNoOffer, first},
		{"all signals but an offer", []wire.Signal{
			{Type: wire.SignalMute}, {Type: wire.SignalUnmute}, {Type: wire.SignalScreenOn}, {Type: wire.SignalScreenOff},
			{Type: wire.SignalVideoOn, Data: []byte(`{"videoStreamID":"v"}`)}, {Type: wire.SignalICE, Data: []byte("x")}, {Type: 200},
		}, rtc.CloseNoOffer, first},
		{"bad first offer", []wire.Signal{{Type: wire.SignalSDP, Data: []byte(garbage)}}, rtc.CloseBadOffer, 0},
		{"an offer and nobody behind it", []wire.Signal{{Type: wire.SignalSDP, Data: []byte(offerOfNobody(t))}}, rtc.CloseSetup, setup},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 30*time.Second)
			b := rtctest.NewBackend(t, func(cfg *rtc.Config) { rtc.SetTimes(cfg, first, setup, negotiate.Config{}) })
			start := time.Now()
			if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "u", SessionID: "s"}); err != nil {
				t.Fatal(err)
			}
			if list, ok := b.Server.Sessions("g", "call"); !ok || len(list) != 1 {
				t.Errorf("the session is not listed: %v", list)
			}
			for _, m := range c.send {
				if err := b.Server.Signal("g", "s", m); err != nil {
					t.Fatal(err)
				}
			}
			closed := func(events []rtc.Event) (n int) {
				for _, e := range events {
					if e.Kind == rtc.Closed {
						n++
					}
				}
				return n
			}
			if err := b.Await(ctx, "s", func(events []rtc.Event) bool { return closed(events) > 0 }); err != nil {
				t.Fatalf("the session did not end: %v", b.Events("s"))
			}
			events := b.Events("s")
			last := events[len(events)-1]
			if last.Kind != rtc.Closed || last.Reason != c.reason || closed(events) != 1 {
				t.Errorf("events %v, want one close at the end: %v", events, c.reason)
			}
			if took := time.Since(start); took < c.after {
				t.Errorf("ended after %v, want %v at least", took, c.after)
			}
			// The call is gone with its last session.
			end := time.Now().Add(5 * time.Second)
			for b.Server.Count() > 0 && time.Now().Before(end) {
				runtime.Gosched()
			}
			if _, ok := b.Server.Sessions("g", "call"); ok || b.Server.Count() != 0 {
				t.Error("the call outlived its last session")
			}
			if err := b.Server.Signal("g", "s", wire.Signal{Type: wire.SignalMute}); !errors.Is(err, rtc.ErrNoSession) {
				t.Errorf("signal after the end: %v, want %v", err, rtc.ErrNoSession)
			}
			if got := metric(t, b.Metrics, "rtcd_rtc_sessions_total"); got != 0 {
				t.Errorf("session gauge is %v", got)
			}
		})
	}
}

// TestBadDescriptionsBeforeAndAfter: what is no description is dropped before the first offer, and an
// offer that does not apply after it; the session goes on.
func TestBadDescriptionsBeforeAndAfter(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	host, _ := n.Host(t)
	onMessage, pongs := countPongs()
	e := b.Join(t, "g", "call", "a", rtctest.EndpointConfig{Net: host, OnMessage: onMessage})
	for _, bad := range []string{"", "null", "not json", `{"type":"rollback","sdp":"x"}`, `{"type":"offer","sdp":""}`} {
		signal(t, b, "a", wire.SignalSDP, bad)
	}
	if err := e.Connect(ctx); err != nil {
		t.Fatalf("connect after descriptions that are none: %v", err)
	}
	good := e.PC().CurrentLocalDescription().SDP
	for _, sdp := range []string{
		"nonsense", "v=0\r\n", good[:len(good)/2],
		strings.ReplaceAll(good, "a=mid:0", "a=x:0"),
		strings.ReplaceAll(good, "a=mid:0", "a=mid:7"),
		strings.ReplaceAll(good, "a=fingerprint", "a=x"),
		strings.ReplaceAll(good, "a=ice-ufrag", "a=x"),
		good + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=rtpmap:111 opus\r\n",
		good + "m=video x\r\n",
	} {
		data, err := wire.Description{Type: "offer", SDP: sdp}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		bad := string(data)
		signal(t, b, "a", wire.SignalSDP, bad)
		msg, err := channel.AppendSDP(nil, []byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Channel(msg); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(ctx, t, pongs, e)
	if err := e.Publish(ctx, "voice_a"); err != nil {
		t.Errorf("publish afterwards: %v", err)
	}
	if got := b.Events("a"); got[len(got)-1].Kind == rtc.Closed {
		t.Errorf("a later offer that does not apply ended the session: %v", got[len(got)-1].Reason)
	}
	if !b.Server.Exists("g", "a") {
		t.Error("the session is gone")
	}
}

// TestCandidatesBeforeTheOffer: a full agent keeps them. The endpoint takes none of ours, so it
// is only reached by checks to the candidates that it sent first.
func TestCandidatesBeforeTheOffer(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	n := rtctest.NewNetwork(t)
	serve := n.Serve(t)
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) { serve(cfg); cfg.Lite = false })
	host, _ := n.Host(t)
	e := b.Join(t, "g", "call", "a", rtctest.EndpointConfig{Net: host, CandidatesFirst: true, NoCandidates: true})
	for i := range 40 { // which may be many
		signal(t, b, "a", wire.SignalICE, fmt.Sprintf(
			`{"candidate":"candidate:%d 1 udp 1 10.0.200.%d 9 typ host","sdpMid":"0","sdpMLineIndex":0}`, i, i))
	}
	if err := e.Connect(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestDuplicateJoin (S15): joins of a session that lives change nothing and leave nothing.
func TestDuplicateJoin(t *testing.T) {
	ctx := deadline(t, 40*time.Second)
	b, a, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{})
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	before := runtime.NumGoroutine()
	for range 200 {
		if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "user-a", SessionID: "a"}); err != nil {
			t.Fatal(err)
		}
		if err := b.Server.Join("g", wire.Join{CallID: "other", UserID: "user-a", SessionID: "a"}); !errors.Is(err, rtc.ErrOtherCall) {
			t.Fatalf("join of another call: %v, want %v", err, rtc.ErrOtherCall)
		}
	}
	if after := runtime.NumGoroutine(); after > before+20 {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	if got := metric(t, b.Metrics, "rtcd_rtc_sessions_total"); got != 2 || b.Server.Count() != 2 {
		t.Errorf("session gauge is %v, sessions %d, want 2", got, b.Server.Count())
	}
	if _, ok := b.Server.Sessions("g", "other"); ok {
		t.Error("a refused join made a call")
	}
	n := listener.Heard("a").Packets
	a.until(ctx, func() bool { return listener.Heard("a").Packets > n+5 })

	// Another group may use the same ids: it is another session.
	if err := b.Server.Join("g2", wire.Join{CallID: "call", UserID: "u", SessionID: "a"}); err != nil {
		t.Fatal(err)
	}
	b.Server.Leave("g2", "a")
	if !b.Server.Exists("g", "a") || b.Server.Exists("g2", "a") {
		t.Error("a leave of one group reached another's session")
	}

	// The id of a session that has ended makes a new one.
	b.Server.Leave("g", "a")
	if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "user-a", SessionID: "a"}); err != nil {
		t.Fatal(err)
	}
	if !b.Server.Exists("g", "a") {
		t.Error("no new session under the id of one that ended")
	}
}

// TestJoinWhileTheLastLeaves (R4): sessions of one call that end by themselves while others join.
func TestJoinWhileTheLastLeaves(t *testing.T) {
	const garbage = `{"type":"offer","sdp":"v=0\r\nnonsense"}`
	b := rtctest.NewBackend(t, nil)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 150 {
				id := fmt.Sprintf("s%d", (worker+i)%6) // each id by several at once
				if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "u", SessionID: id}); err != nil {
					t.Errorf("join: %v", err)
					return
				}
				switch i % 3 {
				case 0:
					_ = b.Server.Signal("g", id, wire.Signal{Type: wire.SignalSDP, Data: []byte(garbage)})
				case 1:
					b.Server.Leave("g", id)
				}
				b.Server.Sessions("g", "call")
			}
		})
	}
	wg.Wait()
	b.Server.EndGroup("g")
	if n := b.Server.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	if _, ok := b.Server.Sessions("g", "call"); ok {
		t.Error("the call is still there")
	}
	if got := metric(t, b.Metrics, "rtcd_rtc_sessions_total"); got != 0 {
		t.Errorf("session gauge is %v", got)
	}
	if got := metric(t, b.Metrics, "rtcd_api_panics_total"); got != 0 {
		t.Errorf("%v panics", got)
	}
	opened, closed := 0, 0
	for i := range 6 {
		for _, e := range b.Events(fmt.Sprintf("s%d", i)) {
			if e.Kind == rtc.Closed {
				closed++
			} else {
				opened++
			}
		}
	}
	if closed == 0 {
		t.Errorf("no close events, %d others", opened)
	}
}

// TestBombs (R6): a description that unpacks to far more than it is, is not unpacked.
func TestBombs(t *testing.T) {
	ctx := deadline(t, 40*time.Second)
	onMessage, pongs := countPongs()
	_, a, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{OnMessage: onMessage})
	var packed bytes.Buffer
	z, err := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 20 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	bomb := msgpack.AppendBytes([]byte{byte(channel.SDP)}, packed.Bytes())
	if len(bomb) > channel.MaxMessage {
		t.Fatalf("the bomb has %d bytes, more than a message may", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const bombs = 10
	for range bombs {
		if err := listener.Channel(bomb); err != nil {
			t.Fatal(err)
		}
		roundTrip(ctx, t, pongs, listener)
	}
	runtime.ReadMemStats(&after)
	if cost := (after.TotalAlloc - before.TotalAlloc) / bombs; cost > 8<<20 {
		t.Errorf("a bomb of %d bytes cost %d bytes of memory", len(bomb), cost)
	}
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
}
