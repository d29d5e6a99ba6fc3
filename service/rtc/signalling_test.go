package rtc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/msgpack"
	"rtcd/service/rtc"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/rtctest"
)

// pair makes a call of one who speaks and one who listens, whose endpoints are set up as told.
func pair(ctx context.Context, t *testing.T, n negotiate.Config, listener rtctest.EndpointConfig) (
	b *rtctest.Backend, speaker *speaker, l *rtctest.Endpoint,
) {
	t.Helper()
	network := rtctest.NewNetwork(t)
	serve := network.Serve(t)
	b = rtctest.NewBackend(t, func(cfg *rtc.Config) {
		serve(cfg)
		rtc.SetTimes(cfg, 0, 0, n)
	})
	host, _ := network.Host(t)
	a := b.Join(t, "g", "call", "a", rtctest.EndpointConfig{Net: host})
	connectAndPublish(ctx, t, a, "a")
	listener.Net, _ = network.Host(t)
	l = b.Join(t, "g", "call", "listener", listener)
	if err := l.Connect(ctx); err != nil {
		t.Fatalf("listener: connect: %v", err)
	}
	return b, newSpeaker(t, "a", a), l
}

// roundTrip returns when the server has handled all that the endpoint has sent on its channel.
// Signalling goes through the loop of the session, so it covers that of the backend, too.
func roundTrip(ctx context.Context, t *testing.T, pongs <-chan struct{}, e *rtctest.Endpoint) {
	t.Helper()
	if err := e.Channel(channel.AppendPing(nil)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-pongs:
	case <-ctx.Done():
		t.Fatalf("no pong: %v", ctx.Err())
	}
}

// countPongs is an OnMessage that tells of pongs.
func countPongs() (func(webrtc.DataChannelMessage), <-chan struct{}) {
	pongs := make(chan struct{}, 64)
	return func(m webrtc.DataChannelMessage) {
		if msg, err := channel.Decode(m.Data); err == nil && msg.Type == channel.Pong {
			pongs <- struct{}{}
		}
	}, pongs
}

// TestStrayAnswers (S4): answers that nobody asked for, before and after those that somebody did,
// do no harm on either route.
func TestStrayAnswers(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	onMessage, pongs := countPongs()
	b, a, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{OnMessage: onMessage})
	stray := func() {
		answer := `{"type":"answer","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"}`
		texts := []string{answer}
		if d := listener.PC().CurrentLocalDescription(); d != nil { // the last one it made, again
			again, err := wire.Description{Type: "answer", SDP: d.SDP}.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(again))
		}
		for _, text := range texts {
			signal(t, b, "listener", wire.SignalSDP, text)
			msg, err := channel.AppendSDP(nil, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := listener.Channel(msg); err != nil {
				t.Fatal(err)
			}
		}
		roundTrip(ctx, t, pongs, listener)
	}
	stray()
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	stray()
	if err := listener.Publish(ctx, "voice_listener"); err != nil {
		t.Fatalf("publish after stray answers: %v", err)
	}
	stray()
	l := newSpeaker(t, "listener", listener)
	hearer := a.source.(mic).Endpoint
	l.until(ctx, func() bool { return hearer.Heard("listener").Packets > 5 })
	if err := listener.Err(); err != nil {
		t.Error(err)
	}
}

// TestLockOfServer (S7): while the server's offer is open the endpoint does not get the lock, and
// its unlock does not free it. When nobody answers, the lock is free in the end.
func TestLockOfServer(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	var ignore atomic.Bool
	ignore.Store(true)
	offered := make(chan struct{}, 64)
	_, a, listener := pair(ctx, t, negotiate.Config{AnswerTimeout: time.Second, RetryMin: time.Hour, RetryMax: time.Hour},
		rtctest.EndpointConfig{IgnoreOffers: func() bool {
			offered <- struct{}{}
			return ignore.Load()
		}})
	a.say(ctx, 5, 30)
	select {
	case <-offered:
	case <-ctx.Done():
		t.Fatal("no offer")
	}
	start := time.Now()
	for range 3 {
		granted, err := listener.TryLock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if granted && time.Since(start) < time.Second {
			t.Fatal("the endpoint got the lock that the server holds")
		}
		if err := listener.Unlock(); err != nil {
			t.Fatal(err)
		}
	}
	if err := listener.Lock(ctx); err != nil {
		t.Fatalf("the lock is not free after an offer that was not answered: %v", err)
	}
}

// TestLockOfEndpoint (S5): while the endpoint holds the lock it is not offered anything, and gets
// all of it afterwards. A second request is refused.
func TestLockOfEndpoint(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	onMessage, pongs := countPongs()
	_, a, listener := pair(ctx, t, negotiate.Config{LockLease: time.Hour}, rtctest.EndpointConfig{OnMessage: onMessage})
	if err := listener.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if granted, err := listener.TryLock(ctx); err != nil || granted {
		t.Errorf("the lock was granted twice: %v, %v", granted, err)
	}
	a.say(ctx, 100, 30) // more than enough for an offer
	roundTrip(ctx, t, pongs, listener)
	if n := listener.Offers(); n != 0 {
		t.Errorf("%d offers while the endpoint held the lock", n)
	}
	if err := listener.Unlock(); err != nil {
		t.Fatal(err)
	}
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
}

// TestLockExpires (S6): an endpoint that never gives the lock back is offered tracks all the same.
func TestLockExpires(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	_, a, listener := pair(ctx, t, negotiate.Config{LockLease: 300 * time.Millisecond}, rtctest.EndpointConfig{})
	if err := listener.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	if err := listener.Unlock(); err != nil { // of a lock that it no longer has
		t.Fatal(err)
	}
	if err := listener.Publish(ctx, "voice_listener"); err != nil {
		t.Errorf("publish after a lock that expired: %v", err)
	}
}

// TestMediaMap (S8, S9): each offer on the data channel follows a map that names the type and the
// sender of every section with a track.
func TestMediaMap(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	var mu sync.Mutex
	var latest map[string]channel.Media
	var faults []string
	offers := 0
	check := func(m webrtc.DataChannelMessage) {
		msg, err := channel.Decode(m.Data)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch msg.Type {
		case channel.MediaMap:
			latest = msg.Media
		case channel.SDP:
			d, err := wire.ParseDescription(msg.SDP)
			if err != nil || d.Type != "offer" {
				return
			}
			offers++
			if latest == nil {
				faults = append(faults, "offer without a map before it")
			}
			faults = append(faults, compareMap(d.SDP, latest)...)
			latest = nil
		}
	}
	b, a, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{ChannelSignalling: true, OnMessage: check})
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	signal(t, b, "a", wire.SignalScreenOn, `{"screenStreamID":"scr"}`)
	source, err := a.source.(mic).AddAudio(ctx, "scr")
	if err != nil {
		t.Fatal(err)
	}
	screen := &speaker{t: t, name: "a", source: source}
	screen.until(ctx, func() bool { return listener.Heard("a/screen-audio").Packets > 5 })
	awaitMedia(ctx, t, listener, "voice a", "screen-audio a")
	signal(t, b, "a", wire.SignalScreenOff, "")
	awaitMedia(ctx, t, listener, "voice a")
	if err := listener.Await(ctx, func(func(string) rtctest.Heard) bool { return listener.Offers() >= 3 }); err != nil {
		t.Fatalf("%d offers answered, want 3: %v", listener.Offers(), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if offers < 3 {
		t.Errorf("%d offers on the data channel, want 3", offers)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
}

// compareMap says in what a media map differs from what an offer says is sent.
func compareMap(offer string, media map[string]channel.Media) []string {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		return []string{fmt.Sprintf("offer does not parse: %v", err)}
	}
	var faults []string
	want := make(map[string]channel.Media)
	for _, m := range d.MediaDescriptions {
		msid, ok := m.Attribute("msid")
		if !ok {
			continue
		}
		mid, _ := m.Attribute("mid")
		stream, track, _ := strings.Cut(msid, " ")
		parts := strings.Split(track, "_")
		if len(parts) != 3 || len(parts[2]) != 8 || parts[1] != stream {
			faults = append(faults, fmt.Sprintf("msid %q is not sender and track id", msid))
			continue
		}
		want[mid] = channel.Media{Type: parts[0], SenderID: stream}
	}
	if fmt.Sprint(want) != fmt.Sprint(media) {
		faults = append(faults, fmt.Sprintf("map %v, but the offer says %v", media, want))
	}
	return faults
}

// TestUnansweredOffers (S10): offers that are not answered are made again, and meanwhile the
// endpoint's own offers are answered, with the lock or without.
func TestUnansweredOffers(t *testing.T) {
	for _, noLock := range []bool{false, true} {
		t.Run(fmt.Sprintf("no lock %v", noLock), func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 40*time.Second)
			var ignore atomic.Bool
			ignore.Store(true)
			offered := make(chan struct{}, 1024)
			_, a, listener := pair(ctx, t,
				negotiate.Config{AnswerTimeout: 250 * time.Millisecond, RetryMin: 100 * time.Millisecond, RetryMax: 200 * time.Millisecond},
				rtctest.EndpointConfig{NoLock: noLock, IgnoreOffers: func() bool {
					offered <- struct{}{}
					return ignore.Load()
				}})
			a.say(ctx, 5, 30)
			for range 3 {
				select {
				case <-offered:
				case <-ctx.Done():
					t.Fatal("the offer was not made again")
				}
			}
			if err := listener.Publish(ctx, "voice_listener"); err != nil {
				t.Fatalf("publish while an offer is open: %v", err)
			}
			l, hearer := newSpeaker(t, "listener", listener), a.source.(mic).Endpoint
			l.until(ctx, func() bool { return hearer.Heard("listener").Packets > 5 })
			if n := listener.Offers(); n != 0 {
				t.Fatalf("%d offers were answered, the test is wrong", n)
			}
			ignore.Store(false)
			a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
			if h := listener.Heard("a"); h.Bad != 0 {
				t.Errorf("%d changed packets", h.Bad)
			}
		})
	}
}

// TestCrossingOffers (S14): an offer of the endpoint that crosses one of the server's is answered
// when that is out of the way, and both get through.
func TestCrossingOffers(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	offered := make(chan struct{}, 64)
	var first sync.Once
	_, a, listener := pair(ctx, t, negotiate.Config{AnswerTimeout: time.Second, RetryMin: 50 * time.Millisecond},
		rtctest.EndpointConfig{NoLock: true, IgnoreOffers: func() (ignored bool) {
			first.Do(func() { ignored = true })
			offered <- struct{}{}
			return ignored
		}})
	a.say(ctx, 5, 30)
	select {
	case <-offered: // and stays open
	case <-ctx.Done():
		t.Fatal("no offer")
	}
	if err := listener.Publish(ctx, "voice_listener"); err != nil {
		t.Fatalf("publish across the server's offer: %v", err)
	}
	l, hearer := newSpeaker(t, "listener", listener), a.source.(mic).Endpoint
	l.until(ctx, func() bool { return hearer.Heard("listener").Packets > 5 })
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	if err := listener.Err(); err != nil {
		t.Error(err)
	}
}

// TestSecondDataChannel (S11): the second channel is closed, nothing is said on it, and the first
// goes on.
func TestSecondDataChannel(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	_, a, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{ChannelSignalling: true})
	closed := make(chan struct{})
	var got atomic.Int32
	second, err := listener.PC().CreateDataChannel("calls-dc", nil)
	if err != nil {
		t.Fatal(err)
	}
	second.OnOpen(func() {
		_ = second.Send(channel.AppendLockRequest(nil))
		_ = second.Send(channel.AppendPing(nil))
	})
	second.OnMessage(func(webrtc.DataChannelMessage) { got.Add(1) })
	second.OnClose(func() { close(closed) })
	select {
	case <-closed:
	case <-ctx.Done():
		t.Fatal("the second channel was not closed")
	}
	if n := got.Load(); n != 0 {
		t.Errorf("%d messages on the second channel", n)
	}
	if granted, err := listener.TryLock(ctx); err != nil || !granted {
		t.Errorf("the lock request on the second channel counted: %v, %v", granted, err)
	}
	if err := listener.Unlock(); err != nil {
		t.Fatal(err)
	}
	a.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
}

// TestPings: text is answered with text, a message with a message, and what is broken with nothing.
func TestPings(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	got := make(chan string, 16)
	_, _, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{OnMessage: func(m webrtc.DataChannelMessage) {
		got <- fmt.Sprintf("%v %x", m.IsString, m.Data)
	}})
	send := [][]byte{
		nil, {0}, {0xc0}, {0xcc}, {99}, {2}, []byte("pong"), []byte("pingping"), {3, 0xc4, 0xff}, {9, 0xde, 0xff, 0xff}, // nothing
		[]byte("ping"), {1}, {0xcc, 1}, {0xcd, 0, 1}, {0xd3, 0, 0, 0, 0, 0, 0, 0, 1}, {1, 0xff, 0xff},
	}
	for _, b := range send {
		if err := listener.Channel(b); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"true 706f6e67", "false cc02", "false cc02", "false cc02", "false cc02", "false cc02"}
	var have []string
	for range want {
		select {
		case m := <-got:
			have = append(have, m)
		case <-ctx.Done():
			t.Fatalf("got %v, want %v", have, want)
		}
	}
	if !slices.Equal(have, want) {
		t.Errorf("got %v, want %v", have, want)
	}
}

// TestStatistics: what endpoints tell of their connection goes into the histograms, as far as it
// is numbers that make sense.
func TestStatistics(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	onMessage, pongs := countPongs()
	b, _, listener := pair(ctx, t, negotiate.Config{}, rtctest.EndpointConfig{OnMessage: onMessage})
	for _, m := range [][]byte{
		stat(channel.Loss, 0.25),
		{4, 0},    // as JavaScript has it: 0
		{4, 0xc0}, // nil
		stat(channel.RTT, 0.045),
		{5, 0xca, 0x3d, 0x38, 0x51, 0xec}, // float 32
		stat(channel.Jitter, 0.002),
		{6}, {6, 0xa1, 'x'}, // broken
	} {
		if err := listener.Channel(m); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(ctx, t, pongs, listener)
	for name, want := range map[string]float64{
		"rtcd_rtc_client_loss_rate": 3, "rtcd_rtc_client_rtt": 2, "rtcd_rtc_client_jitter": 1,
	} {
		if got := metric(t, b.Metrics, name); got != want {
			t.Errorf("%s has %v observations, want %v", name, got, want)
		}
	}
}

func stat(t channel.Type, v float64) []byte { return msgpack.AppendFloat([]byte{byte(t)}, v) }
