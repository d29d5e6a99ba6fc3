package rtctest_test

import (
	"context"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// pair connects two endpoints without a server between them. The second is behind the link, if
// there is to be one.
func pair(ctx context.Context, t *testing.T, cfg rtctest.EndpointConfig, impaired bool) (
	sender, viewer *rtctest.Endpoint, link *rtctest.Link,
) {
	t.Helper()
	n := rtctest.NewNetwork(t)
	first, second := cfg, cfg
	first.NoLock = true // there is no server to give it
	first.Net, _ = n.Host(t)
	if impaired {
		second.Net, _, link = n.ImpairedHost(t)
	} else {
		second.Net, _ = n.Host(t)
	}
	first.Send = func(st wire.SignalType, data []byte) { viewer.Signal(st, data) }
	second.Send = func(st wire.SignalType, data []byte) { sender.Signal(st, data) }
	for _, e := range []struct {
		to  **rtctest.Endpoint
		cfg rtctest.EndpointConfig
	}{{&sender, first}, {&viewer, second}} {
		endpoint, err := rtctest.NewEndpoint(e.cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(endpoint.Close)
		*e.to = endpoint
	}
	if err := sender.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	return sender, viewer, link
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// faultless fails the test if a view has faults that must not happen without loss.
func faultless(t *testing.T, v rtctest.View) {
	t.Helper()
	if v.Missing+v.Jumps+v.Bad+v.Foreign+v.TimestampFaults+v.PictureFaults+v.LevelFaults+v.DependencyFaults+
		v.SwitchFaults > 0 || v.Complete < v.Frames || v.Decodable < v.Frames {
		t.Errorf("faults in %+v", v)
	}
}

// settled waits for that many frames and for all of them to be complete, however late the machine
// is, and returns the view, which has to be faultless.
func settled(ctx context.Context, t *testing.T, viewer *rtctest.Endpoint, sender, source string, frames int) rtctest.View {
	t.Helper()
	var v rtctest.View
	err := viewer.AwaitView(ctx, sender, source, func(now rtctest.View) bool {
		v = now
		return v.Frames >= frames && v.Missing == 0 && v.Complete == v.Frames && v.Decodable == v.Frames
	})
	if err != nil {
		t.Fatal(err)
	}
	faultless(t, v)
	return v
}

func TestCameraWithoutLoss(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 30*time.Second)
	sender, viewer, _ := pair(ctx, t, rtctest.EndpointConfig{}, false)
	camera, err := sender.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: "cam", Mime: webrtc.MimeTypeVP8,
		Layers: []rtctest.Layer{{Bitrate: 500_000, FPS: 30, Temporals: 3}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The machine may be late, but not all the time.
	err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool {
		return v.Bitrate > 450_000 && v.Bitrate < 650_000 && v.OffsetKnown && v.Offset.Abs() < 40*time.Millisecond
	})
	if err != nil {
		t.Fatal(err)
	}
	v := settled(ctx, t, viewer, "cam", "video", 60)
	if v.Duplicates > 0 || v.Tracks != 1 || v.Source != "cam" || v.Codec != webrtc.MimeTypeVP8 ||
		v.Layer != 0 || v.Temporal != 2 || v.Spatial != 0 || v.SSRC != camera.SSRC(0) {
		t.Errorf("view %+v", v)
	}
	if v.TimestampError > time.Millisecond {
		t.Errorf("timestamps are %v wrong", v.TimestampError)
	}

	// A keyframe comes when it is asked for, and not otherwise.
	was := camera.Sent(0)
	if was.Keyframes < 1 || was.Keyframes > 1+was.Asked {
		t.Errorf("sent %+v", was)
	}
	camera.Enable(0, false)
	err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool { return time.Since(v.LastShow) > 600*time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	v = viewer.Viewed("cam", "video")
	if v.Freezes < 1 || v.Frozen < 600*time.Millisecond {
		t.Errorf("a camera that is off: %d freezes, %v", v.Freezes, v.Frozen)
	}
	camera.Enable(0, true)
	err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool {
		return time.Since(v.LastShow) < 100*time.Millisecond && v.Keyframes > was.Keyframes
	})
	if err != nil {
		t.Error(err)
	}
	camera.Stop()
	for _, e := range []*rtctest.Endpoint{sender, viewer} {
		if err := e.Err(); err != nil {
			t.Error(err)
		}
	}
}

func TestSimulcastOfCamera(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 30*time.Second)
	sender, viewer, _ := pair(ctx, t, rtctest.EndpointConfig{NumberPackets: true}, false)
	_, err := sender.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: "cam", Mime: webrtc.MimeTypeVP8, Source: "me",
		Layers: []rtctest.Layer{
			{RID: "l", Bitrate: 150_000, FPS: 15}, {RID: "m", Bitrate: 400_000, FPS: 30, Temporals: 2},
			{RID: "h", Bitrate: 1_500_000, FPS: 30, Temporals: 2},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for layer, source := range []string{"video/l", "video/m", "video/h"} {
		v := settled(ctx, t, viewer, "cam", source, 30)
		if v.Layer != layer || v.Source != "me" {
			t.Errorf("view %+v", v)
		}
	}
}

func TestCameraWithLoss(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]rtctest.EndpointConfig{
		"repair stream": {Codecs: []string{webrtc.MimeTypeVP8}},
		"same stream":   {NoRepair: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 60*time.Second)
			sender, viewer, link := pair(ctx, t, cfg, true)
			_, err := sender.PublishCamera(ctx, rtctest.CameraConfig{
				StreamID: "cam", Mime: webrtc.MimeTypeVP8,
				Layers: []rtctest.Layer{{Bitrate: 800_000, FPS: 30, Temporals: 2}},
			})
			if err != nil {
				t.Fatal(err)
			}
			err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool { return v.Frames >= 10 })
			if err != nil {
				t.Fatal(err)
			}
			link.Set(rtctest.Impairment{Loss: 0.05, Delay: 20 * time.Millisecond})
			v := settled(ctx, t, viewer, "cam", "video", 160)
			if (v.Repaired > 0) == cfg.NoRepair {
				t.Errorf("%d packets came in a repair stream", v.Repaired)
			}
			if lost := link.Down.Passed().Lost; lost < 10 {
				t.Errorf("only %d datagrams were lost", lost)
			}
			t.Logf("%d frames, %d freezes of %v, %d duplicates, %d keyframes asked for", v.Frames, v.Freezes, v.Frozen, v.Duplicates, v.Asked)
		})
	}
}

func TestCameraOfEachCodec(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg   rtctest.CameraConfig
		layer rtctest.Layer
	}{
		"VP8 with descriptors": {rtctest.CameraConfig{Mime: webrtc.MimeTypeVP8, Dependency: true}, rtctest.Layer{Temporals: 3}},
		"opaque VP8":           {rtctest.CameraConfig{Mime: webrtc.MimeTypeVP8, Opaque: true, Dependency: true}, rtctest.Layer{}},
		"VP9":                  {rtctest.CameraConfig{Mime: webrtc.MimeTypeVP9}, rtctest.Layer{Temporals: 2}},
		"VP9 SVC":              {rtctest.CameraConfig{Mime: webrtc.MimeTypeVP9, Dependency: true}, rtctest.Layer{Temporals: 3, Spatials: 3}},
		"VP9 SVC by keyframes": {rtctest.CameraConfig{Mime: webrtc.MimeTypeVP9, Dependency: true}, rtctest.Layer{Temporals: 3, Spatials: 3, Apart: true}},
		"H264":                 {rtctest.CameraConfig{Mime: webrtc.MimeTypeH264}, rtctest.Layer{}},
		"opaque H264":          {rtctest.CameraConfig{Mime: webrtc.MimeTypeH264, Opaque: true, Dependency: true}, rtctest.Layer{}},
		"AV1":                  {rtctest.CameraConfig{Mime: webrtc.MimeTypeAV1}, rtctest.Layer{}},
		"AV1 SVC":              {rtctest.CameraConfig{Mime: webrtc.MimeTypeAV1, Dependency: true}, rtctest.Layer{Temporals: 3, Spatials: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 30*time.Second)
			sender, viewer, _ := pair(ctx, t, rtctest.EndpointConfig{Dependency: true}, false)
			cfg, layer := c.cfg, c.layer
			layer.Bitrate, layer.FPS = 600_000, 30
			cfg.StreamID, cfg.Layers = "cam", []rtctest.Layer{layer}
			if _, err := sender.PublishCamera(ctx, cfg); err != nil {
				t.Fatal(err)
			}
			v := settled(ctx, t, viewer, "cam", "video", 20*max(layer.Spatials, 1))
			if v.Codec != cfg.Mime || v.Spatial != max(layer.Spatials, 1)-1 || v.Temporal != max(layer.Temporals, 1)-1 ||
				(v.Described >= v.Frames) != cfg.Dependency {
				t.Errorf("view %+v", v)
			}
		})
	}
}

// TestCameraThroughServer: what a server forwards is without faults, for who was there first and
// for who comes late.
func TestCameraThroughServer(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	join := func(name string) *rtctest.Endpoint {
		host, _ := n.Host(t)
		e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{Net: host, NumberPackets: true})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return e
	}
	sender, first := join("s0"), join("s1")
	if err := b.Server.Signal("g", "s0", wire.Signal{
		SessionID: "s0", Type: wire.SignalVideoOn, Data: []byte(`{"videoStreamID":"cam"}`),
	}); err != nil {
		t.Fatal(err)
	}
	camera, err := sender.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: "cam", Mime: webrtc.MimeTypeVP8, Layers: []rtctest.Layer{{Bitrate: 300_000, FPS: 25}},
	})
	if err != nil {
		t.Fatal(err)
	}
	settled(ctx, t, first, "s0", "video", 25)
	asked := camera.KeyframesAsked(0)
	late := join("s2")
	settled(ctx, t, late, "s0", "video", 25)
	if camera.KeyframesAsked(0) == asked {
		t.Error("no keyframe was asked for who came late")
	}
	for _, e := range []*rtctest.Endpoint{first, late} {
		v := settled(ctx, t, e, "s0", "video", 25)
		if wait := v.FirstShow.Sub(v.Since); wait > 2*time.Second {
			t.Errorf("the first picture took %v", wait)
		}
	}
}
