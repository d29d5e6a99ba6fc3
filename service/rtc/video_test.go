package rtc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// stream sends packets of a picture every 20 ms until the test ends.
func stream(t *testing.T, e *rtctest.Endpoint, mime, streamID, source string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			if err := e.SendVideo(mime, streamID, source, n); err != nil {
				t.Errorf("send: %v", err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func announce(t *testing.T, b *rtctest.Backend, session string, st wire.SignalType, json string) {
	t.Helper()
	if err := b.Server.Signal("g", session, wire.Signal{SessionID: session, Type: st, Data: []byte(json)}); err != nil {
		t.Fatal(err)
	}
}

func sees(ctx context.Context, t *testing.T, e *rtctest.Endpoint, source, mime string, packets int) {
	t.Helper()
	err := e.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard(source).Packets >= packets })
	h := e.Heard(source)
	if err != nil || h.Bad > 0 || !strings.EqualFold(h.Codec, mime) {
		t.Fatalf("%s: %d packets, %d bad, codec %s, want %d of %s: %v", source, h.Packets, h.Bad, h.Codec, packets, mime, err)
	}
}

func TestScreenAndCamera(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	sender := b.Join(t, "g", "call", "s0", rtctest.EndpointConfig{})
	first := b.Join(t, "g", "call", "s1", rtctest.EndpointConfig{ChannelSignalling: true})
	for name, e := range map[string]*rtctest.Endpoint{"s0": sender, "s1": first} {
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}

	// A screen is announced before its packets come, a camera after (M5).
	announce(t, b, "s0", wire.SignalScreenOn, `{"screenStreamID":"screen-stream"}`)
	if err := sender.PublishVideo(ctx, webrtc.MimeTypeVP8, "screen-stream"); err != nil {
		t.Fatal(err)
	}
	stream(t, sender, webrtc.MimeTypeVP8, "screen-stream", "s0/screen")
	sees(ctx, t, first, "s0/screen", webrtc.MimeTypeVP8, 20)
	if err := sender.PublishVideo(ctx, webrtc.MimeTypeVP8, "camera-stream"); err != nil {
		t.Fatal(err)
	}
	stream(t, sender, webrtc.MimeTypeVP8, "camera-stream", "s0/video")
	announce(t, b, "s0", wire.SignalVideoOn, `{"videoStreamID":"camera-stream"}`)
	sees(ctx, t, first, "s0/video", webrtc.MimeTypeVP8, 20)

	// Who comes late gets what goes on, and is told in the media map.
	late := b.Join(t, "g", "call", "s2", rtctest.EndpointConfig{})
	if err := late.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	sees(ctx, t, late, "s0/screen", webrtc.MimeTypeVP8, 20)
	sees(ctx, t, late, "s0/video", webrtc.MimeTypeVP8, 20)
	types := map[string]int{}
	for _, m := range late.MediaMap() {
		types[m.Type+" of "+m.SenderID]++
	}
	if types["screen of s0"] != 1 || types["video of s0"] != 1 || len(types) != 2 {
		t.Errorf("media map %v", types)
	}

	// The end of the share takes the screen away, with an offer, and leaves the camera. The map
	// takes the data channel and the offer the WebSocket, so either may be first.
	offers := late.Offers()
	announce(t, b, "s0", wire.SignalScreenOff, ``)
	err := late.Await(ctx, func(func(string) rtctest.Heard) bool {
		return late.Offers() > offers && len(late.MediaMap()) == 1
	})
	if err != nil {
		t.Fatalf("after screen-off %d offers more, media map %v: %v", late.Offers()-offers, late.MediaMap(), err)
	}
	n := late.Heard("s0/video").Packets
	sees(ctx, t, late, "s0/video", webrtc.MimeTypeVP8, n+20)
	for _, e := range []*rtctest.Endpoint{sender, first, late} {
		if err := e.Err(); err != nil {
			t.Error(err)
		}
	}
}

// M2, 14.1: each receiver gets the codec that it takes, and what there is.
func TestCodecForReceiver(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	yes := true
	join := func(session string, av1 *bool) *rtctest.Endpoint {
		e := b.JoinWith(t, "g", wire.Join{CallID: "call", UserID: "u", SessionID: session, AV1Support: av1}, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", session, err)
		}
		return e
	}
	both, one := join("s0", &yes), join("s1", &yes)
	modern, old := join("s2", &yes), join("s3", nil)

	announce(t, b, "s0", wire.SignalScreenOn, `{"screenStreamID":"screen-stream"}`)
	for _, mime := range []string{webrtc.MimeTypeVP8, webrtc.MimeTypeAV1} {
		if err := both.PublishVideo(ctx, mime, "screen-stream"); err != nil {
			t.Fatal(err)
		}
		stream(t, both, mime, "screen-stream", "s0/screen")
	}
	announce(t, b, "s1", wire.SignalVideoOn, `{"videoStreamID":"camera-stream"}`)
	if err := one.PublishVideo(ctx, webrtc.MimeTypeVP8, "camera-stream"); err != nil {
		t.Fatal(err)
	}
	stream(t, one, webrtc.MimeTypeVP8, "camera-stream", "s1/video")

	sees(ctx, t, old, "s0/screen", webrtc.MimeTypeVP8, 30)
	sees(ctx, t, old, "s1/video", webrtc.MimeTypeVP8, 30)
	sees(ctx, t, modern, "s1/video", webrtc.MimeTypeVP8, 30) // says it can AV1, and there is none
	err := modern.Await(ctx, func(heard func(string) rtctest.Heard) bool {
		h := heard("s0/screen")
		return h.Codec == webrtc.MimeTypeAV1 && h.Packets > 30
	})
	if err != nil {
		t.Fatalf("AV1 receiver got %+v", modern.Heard("s0/screen").Codec)
	}
}

// Messages of one connection count in their order, also across sessions: a screen-off makes way
// for the screen-on behind it, whichever loop is quicker.
func TestShareIsHandedOver(t *testing.T) {
	b := rtctest.NewBackend(t, nil)
	names := []string{"s0", "s1"}
	for _, name := range names {
		if err := b.Server.Join("g", wire.Join{CallID: "call", UserID: "u", SessionID: name}); err != nil {
			t.Fatal(err)
		}
	}
	announce(t, b, "s0", wire.SignalScreenOn, `{"screenStreamID":"stream"}`)
	announce(t, b, "s1", wire.SignalScreenOn, `{"screenStreamID":"stream"}`)
	if got := b.Server.Sharer("g", "call"); got != "s0" {
		t.Fatalf("a second screen-on made %q the sharer", got)
	}
	for i := range 500 {
		off, on := names[i%2], names[(i+1)%2]
		announce(t, b, off, wire.SignalScreenOff, ``)
		announce(t, b, on, wire.SignalScreenOn, `{"screenStreamID":"stream"}`)
		if got := b.Server.Sharer("g", "call"); got != on {
			t.Fatalf("round %d: %q shares, want %s", i, got, on)
		}
	}
	// An announcement that names nothing has no effect.
	announce(t, b, "s0", wire.SignalScreenOff, ``)
	announce(t, b, "s1", wire.SignalScreenOff, ``)
	for _, bad := range []string{``, `{}`, `{"screenStreamID":""}`, `{"screenStreamID":null}`, `[]`} {
		announce(t, b, "s0", wire.SignalScreenOn, bad)
		if got := b.Server.Sharer("g", "call"); got != "" {
			t.Errorf("screen-on %q made %s the sharer", bad, got)
		}
	}
}
