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
	err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool { return v.Frames >= 60 && v.OffsetKnown })
	if err != nil {
		t.Fatal(err)
	}
	v := viewer.Viewed("cam", "video")
	faultless(t, v)
	if v.Duplicates > 0 || v.Tracks != 1 || v.Source != "cam" || v.Codec != webrtc.MimeTypeVP8 ||
		v.Layer != 0 || v.Temporal != 2 || v.Spatial != 0 || v.SSRC != camera.SSRC(0) {
		t.Errorf("view %+v", v)
	}
	if v.Bitrate < 400_000 || v.Bitrate > 700_000 {
		t.Errorf("%d bit/s came of 500000", v.Bitrate)
	}
	if v.TimestampError > time.Millisecond || v.Offset.Abs() > 40*time.Millisecond {
		t.Errorf("timestamps are %v wrong, reports %v", v.TimestampError, v.Offset)
	}

	// A keyframe comes when it is asked for, and not otherwise.
	was := camera.Sent(0)
	if was.Keyframes != 1+was.Asked && was.Keyframes != 2+was.Asked-1 {
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
		err := viewer.AwaitView(ctx, "cam", source, func(v rtctest.View) bool { return v.Frames >= 30 })
		if err != nil {
			t.Fatal(err)
		}
		v := viewer.Viewed("cam", source)
		faultless(t, v)
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
			err = viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool { return v.Frames >= 160 })
			if err != nil {
				t.Fatal(err)
			}
			v := viewer.Viewed("cam", "video")
			faultless(t, v)
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
			err := viewer.AwaitView(ctx, "cam", "video", func(v rtctest.View) bool { return v.Frames >= 40*max(layer.Spatials, 1) })
			if err != nil {
				t.Fatal(err)
			}
			v := viewer.Viewed("cam", "video")
			faultless(t, v)
			if v.Codec != cfg.Mime || v.Spatial != max(layer.Spatials, 1)-1 || v.Temporal != max(layer.Temporals, 1)-1 ||
				(v.Described >= v.Frames) != cfg.Dependency {
				t.Errorf("view %+v", v)
			}
		})
	}
}
