package rtc_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// simulcast is what browsers send of a camera, less so that these machines keep up.
var simulcast = []rtctest.Layer{
	{RID: "l", Bitrate: 120_000, FPS: 15, Temporals: 1},
	{RID: "m", Bitrate: 400_000, FPS: 20, Temporals: 1},
	{RID: "h", Bitrate: 1_500_000, FPS: 25, Temporals: 1},
}

// stage is a sender and a viewer of one camera on a virtual network.
type stage struct {
	backend        *rtctest.Backend
	sender, viewer *rtctest.Endpoint
	up, down       *rtctest.Link // of the sender and of the viewer
	camera         *rtctest.Camera
	blind          bool // nothing of its payloads can be read
}

func newStage(ctx context.Context, t *testing.T, camera rtctest.CameraConfig) *stage {
	t.Helper()
	n := rtctest.NewNetwork(t)
	s := &stage{backend: rtctest.NewBackend(t, n.Serve(t))}
	join := func(name string) (*rtctest.Endpoint, *rtctest.Link) {
		host, _, link := n.ImpairedHost(t)
		e := s.backend.JoinWith(t, "g", wire.Join{
			CallID: "call", UserID: "user-" + name, SessionID: name, AV1Support: new(camera.Mime == "video/AV1"),
		}, rtctest.EndpointConfig{Net: host, Dependency: camera.Dependency})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: connect: %v", name, err)
		}
		return e, link
	}
	s.sender, s.up = join("s0")
	s.viewer, s.down = join("s1")
	t.Cleanup(func() { // see conversation.part
		s.up.Set(rtctest.Impairment{Loss: 1})
		s.down.Set(rtctest.Impairment{Loss: 1})
	})
	camera.StreamID = "cam"
	s.blind = camera.Opaque && !camera.Dependency
	signal(t, s.backend, "s0", wire.SignalVideoOn, fmt.Sprintf(`{"videoStreamID":%q}`, camera.StreamID))
	var err error
	if s.camera, err = s.sender.PublishCamera(ctx, camera); err != nil {
		t.Fatalf("publish a camera: %v", err)
	}
	return s
}

func (s *stage) await(ctx context.Context, t *testing.T, what string, ok func(rtctest.View) bool) rtctest.View {
	t.Helper()
	start := time.Now()
	if err := s.viewer.AwaitView(ctx, "s0", "video", ok); err != nil {
		t.Fatalf("%s: %v: %+v", what, err, s.viewer.Viewed("s0", "video"))
	}
	t.Logf("%s after %v", what, time.Since(start).Round(10*time.Millisecond))
	return s.viewer.Viewed("s0", "video")
}

// sound checks what holds of a view also if the link lost packets.
func (s *stage) sound(t *testing.T, v rtctest.View) {
	t.Helper()
	if s.blind { // nothing says where a keyframe begins
		v.SwitchFaults = 0
	}
	if v.Bad+v.Foreign+v.Jumps+v.SwitchFaults > 0 {
		t.Errorf("faults in what is seen: %+v", v)
	}
	if v.Tracks != 1 {
		t.Errorf("%d tracks, want one", v.Tracks)
	}
	if closed := s.backend.Events("s1"); slices.ContainsFunc(closed, func(e rtc.Event) bool { return e.Kind == rtc.Closed }) {
		t.Error("the viewer's session has ended")
	}
}

// The layer that is sent follows what the receiver's link carries, down within 2 s and up again
// within 10 s, in one track and without another offer. Times are those of a bubble.
func TestLayersFollowTheLink(t *testing.T) {
	h264 := "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	svc := []rtctest.Layer{{Bitrate: 1_500_000, FPS: 24, Spatials: 3, Temporals: 3}}
	for name, c := range map[string]struct {
		camera    rtctest.CameraConfig
		low, high func(rtctest.View) bool
	}{
		"VP8":                   {camera: rtctest.CameraConfig{Mime: "video/VP8", Layers: simulcast}},
		"VP8 opaque":            {camera: rtctest.CameraConfig{Mime: "video/VP8", Layers: simulcast, Opaque: true}},
		"VP8 opaque, described": {camera: rtctest.CameraConfig{Mime: "video/VP8", Layers: simulcast, Opaque: true, Dependency: true}},
		"VP9":                   {camera: rtctest.CameraConfig{Mime: "video/VP9", Layers: simulcast}},
		"H264":                  {camera: rtctest.CameraConfig{Mime: "video/H264", Fmtp: h264, Layers: simulcast}},
		"AV1":                   {camera: rtctest.CameraConfig{Mime: "video/AV1", Layers: simulcast, Dependency: true}},
		"AV1 opaque":            {camera: rtctest.CameraConfig{Mime: "video/AV1", Layers: simulcast, Dependency: true, Opaque: true}},
		"VP9 SVC": {camera: rtctest.CameraConfig{Mime: "video/VP9", Layers: svc},
			low: func(v rtctest.View) bool { return v.Spatial < 2 }, high: func(v rtctest.View) bool { return v.Spatial == 2 && v.Temporal == 2 }},
		"AV1 SVC": {camera: rtctest.CameraConfig{Mime: "video/AV1", Layers: svc, Dependency: true},
			low: func(v rtctest.View) bool { return v.Spatial < 2 }, high: func(v rtctest.View) bool { return v.Spatial == 2 && v.Temporal == 2 }},
		"VP8 temporal": {camera: rtctest.CameraConfig{Mime: "video/VP8", Layers: []rtctest.Layer{{Bitrate: 400_000, FPS: 24, Temporals: 3}}},
			low: func(v rtctest.View) bool { return v.Temporal < 2 }, high: func(v rtctest.View) bool { return v.Temporal == 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := deadline(t, 60*time.Second)
				if c.low == nil {
					c.low = func(v rtctest.View) bool { return v.Layer == 0 }
					c.high = func(v rtctest.View) bool { return v.Layer == 2 }
				}
				s := newStage(ctx, t, c.camera)
				s.await(ctx, t, "the best layer", c.high)
				offers := s.viewer.Offers()
				s.down.Set(rtctest.Impairment{Rate: 300_000, Queue: 300 * time.Millisecond})
				limited := time.Now()
				s.await(ctx, t, "the lowest layer", c.low)
				if d := time.Since(limited); d > 2*time.Second {
					t.Errorf("down after %v, want 2 s at most", d)
				}
				// It is worth something only if it stays.
				v := s.viewer.Viewed("s0", "video")
				s.await(ctx, t, "pictures of it", func(now rtctest.View) bool { return c.low(now) && now.Pictures > v.Pictures+15 })
				s.down.Set(rtctest.Impairment{})
				free := time.Now()
				v = s.await(ctx, t, "the best layer again", c.high)
				if d := time.Since(free); d > 10*time.Second {
					t.Errorf("up after %v, want 10 s at most", d)
				}
				s.sound(t, v)
				if n := s.viewer.Offers(); n != offers {
					t.Errorf("%d offers for changes of the layer", n-offers)
				}
			})
		})
	}
}
