package rtc_test

import (
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// addTrack takes a section in which nothing has been sent yet, also one that the other side made to
// send in (RFC 9429 section 5.2.2). Endpoints that use it for their cameras and screens see and are
// seen all the same, in whichever order they begin.
func TestAddTrackWhereWeSend(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	names := []string{"s0", "s1", "s2"}
	var people []*rtctest.Endpoint
	for _, name := range names {
		e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		people = append(people, e)
	}
	publish := func(i int, source string) {
		t.Helper()
		stream := source + "-" + names[i]
		_, err := people[i].PublishCamera(ctx, rtctest.CameraConfig{
			StreamID: stream, Mime: webrtc.MimeTypeVP8, Layers: []rtctest.Layer{{Bitrate: 200_000, FPS: 15}},
		})
		if err != nil {
			t.Fatalf("%s of %s: %v", source, names[i], err)
		}
	}
	seen := func(i, j int, source string, more int) {
		t.Helper()
		before := people[j].Viewed(names[i], source).Frames
		err := people[j].AwaitView(ctx, names[i], source, func(v rtctest.View) bool { return v.Frames >= before+more })
		if v := people[j].Viewed(names[i], source); err != nil || v.Bad > 0 {
			t.Fatalf("%s sees the %s of %s: %v: %+v", names[j], source, names[i], err, v)
		}
	}
	everybody := func(more int) {
		t.Helper()
		for i := range people {
			for j := range people {
				if j != i {
					seen(i, j, "video", more)
				}
			}
		}
	}
	for i, name := range names {
		announce(t, b, name, wire.SignalVideoOn, `{"videoStreamID":"video-`+name+`"}`)
		publish(i, "video")
	}
	everybody(10)
	announce(t, b, "s2", wire.SignalScreenOn, `{"screenStreamID":"screen-s2"}`)
	publish(2, "screen")
	for j := range 2 {
		seen(2, j, "screen", 10)
	}
	everybody(10)
	// Somebody sends where we sent: that is what this is about.
	reused := 0
	for _, e := range people {
		for _, s := range e.PC().GetTransceivers() {
			if s.Kind() == webrtc.RTPCodecTypeVideo && s.Sender() != nil && s.Sender().Track() != nil && s.Receiver() != nil && s.Receiver().Track() != nil {
				reused++
			}
		}
		if err := e.Err(); err != nil {
			t.Error(err)
		}
	}
	if reused == 0 {
		t.Error("no section is sent in by both sides")
	}
}
