package rtc_test

import (
	"fmt"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
)

// Payloads that show nothing, as those of end-to-end encryption, pass as they are: not a bit is
// changed, the payload descriptors of VP8 and VP9 included, also where the layer is switched. With
// dependency descriptors each switch begins at a keyframe; without them it is blind, and what is
// missing is asked for.
func TestOpaquePayloads(t *testing.T) {
	svc := []rtctest.Layer{{Bitrate: 1_500_000, FPS: 24, Spatials: 3, Temporals: 3}}
	for _, c := range []struct {
		name       string
		mime       string
		layers     []rtctest.Layer
		dependency bool
	}{
		{"VP8", vp8Mime, simulcast, false},
		{"VP8 described", vp8Mime, simulcast, true},
		{"VP9", vp9Mime, simulcast, false},
		{"VP9 described", vp9Mime, simulcast, true},
		{"H264", h264Mime, simulcast, false},
		{"H264 described", h264Mime, simulcast, true},
		{"AV1", av1Mime, simulcast, false},
		{"AV1 described", av1Mime, simulcast, true},
		{"VP9 SVC described", vp9Mime, svc, true},
		{"AV1 SVC described", av1Mime, svc, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				cfg := rtctest.EndpointConfig{Dependency: c.dependency}
				sender, viewer := r.enter("s0", true, cfg), r.enter("s1", true, cfg)
				sender.videoOn("cam")
				sender.shows(rtctest.CameraConfig{
					StreamID: "cam", Mime: c.mime, Layers: c.layers, Opaque: true, Dependency: c.dependency,
				})
				best := func(v rtctest.View) bool { return v.Layer == 2 || v.Spatial == 2 && v.Temporal == 2 }
				low := func(v rtctest.View) bool { return !best(v) && v.Layer < 2 && v.Spatial < 2 }
				v := viewer.awaits("s0", "video", "the best layer", best)
				offers := viewer.Offers()
				for round := range 3 {
					viewer.link.Down.Set(rtctest.Impairment{Rate: 300_000, Queue: 300 * time.Millisecond})
					viewer.awaits("s0", "video", fmt.Sprintf("a lower layer in round %d", round), low)
					viewer.link.Down.Set(rtctest.Impairment{})
					v = viewer.awaits("s0", "video", fmt.Sprintf("the best layer in round %d", round), best)
				}
				v = viewer.awaits("s0", "video", "more pictures", func(now rtctest.View) bool { return now.Pictures > v.Pictures+50 })
				if v.Bad+v.Foreign+v.Jumps > 0 {
					t.Errorf("of %d packets %d were changed, %d are of another source; %d jumps", v.Packets, v.Bad, v.Foreign, v.Jumps)
				}
				if len(c.layers) > 1 && v.Switches < 6 {
					t.Errorf("%d switches", v.Switches)
				}
				if c.dependency && v.SwitchFaults+v.DependencyFaults > 0 {
					t.Errorf("%d switches without a keyframe, %d frame numbers that do not rise", v.SwitchFaults, v.DependencyFaults)
				}
				if n := viewer.Offers() - offers; n > 0 || v.Tracks > 1 {
					t.Errorf("%d offers, %d tracks", n, v.Tracks)
				}
				// What was lost in between apart, nothing stays undecodable.
				calm := viewer.Viewed("s0", "video")
				r.wait(3 * time.Second)
				v = viewer.Viewed("s0", "video")
				if all, ok := v.Frames-calm.Frames, v.Decodable-calm.Decodable; ok < all*9/10 || all == 0 {
					t.Errorf("%d of %d frames are decodable afterwards", ok, all)
				}
				if v.Bad > 0 {
					t.Errorf("%d packets were changed", v.Bad)
				}
				t.Logf("%d switches, %d without a keyframe, asked for %d keyframes", v.Switches, v.SwitchFaults, v.Asked)
			})
		})
	}
}
