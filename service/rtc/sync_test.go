package rtc_test

import (
	"fmt"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
)

// offset is how far the time that the last sender report gives for the newest packet of a voice is
// from the true one. Known is false before a report came.
func (v *voice50) offset(h rtctest.Heard) (d time.Duration, known bool) {
	if h.Reported.IsZero() || len(h.Numbers) == 0 {
		return 0, false
	}
	reported := h.Reported.Add(time.Duration(int32(h.Timestamp-h.ReportedTimestamp)) * time.Second / 48000)
	return reported.Sub(v.when(h.Numbers[len(h.Numbers)-1])), true
}

// What a receiver is told of the time of a voice and of a camera of one sender differs by less than
// 40 ms, whatever layer it sees and however the packets came.
func TestVoiceAndCameraStayInSync(t *testing.T) {
	// Each picture is one packet: pion's reports take the time when the last one was sent for that
	// of its capture.
	layers := []rtctest.Layer{{RID: "l", Bitrate: 60_000, FPS: 12}, {RID: "m", Bitrate: 120_000, FPS: 20}, {RID: "h", Bitrate: 250_000, FPS: 30}}
	for _, c := range []struct {
		name string
		up   rtctest.Impairment
	}{
		{"near", rtctest.Impairment{}},
		{"far", rtctest.Impairment{Delay: 150 * time.Millisecond}},
		{"unsteady", rtctest.Impairment{Delay: 50 * time.Millisecond, Jitter: 40 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				sender, viewer := r.enter("s0", false, rtctest.EndpointConfig{}), r.enter("s1", false, rtctest.EndpointConfig{})
				sender.link.Up.Set(c.up)
				voice := r.publishVoice(sender)
				voice.set(20, 60)
				sender.videoOn("cam")
				sender.shows(rtctest.CameraConfig{StreamID: "cam", Layers: layers})
				var worst time.Duration
				looked := 0
				look := func(v rtctest.View) {
					heard, ok := voice.offset(viewer.Heard("s0"))
					if !ok || !v.OffsetKnown {
						return
					}
					looked++
					if d := (v.Offset - heard).Abs(); d > worst {
						worst = d
						if d > 40*time.Millisecond {
							t.Errorf("layer %d: camera %v, voice %v", v.Layer, v.Offset, heard)
						}
					}
				}
				shows := func(what string, ok func(rtctest.View) bool) {
					viewer.awaits("s0", "video", what, func(v rtctest.View) bool { look(v); return ok(v) })
				}
				watch := func(d time.Duration) {
					end := time.Now().Add(d)
					shows("time to pass", func(rtctest.View) bool { return time.Now().After(end) })
				}
				shows("the best layer", func(v rtctest.View) bool { return v.Layer == 2 })
				watch(3 * time.Second)
				for round := range 3 {
					viewer.link.Down.Set(rtctest.Impairment{Rate: 220_000, Queue: 300 * time.Millisecond})
					shows(fmt.Sprintf("a lower layer in round %d", round), func(v rtctest.View) bool { return v.Layer < 2 })
					watch(1500 * time.Millisecond)
					viewer.link.Down.Set(rtctest.Impairment{})
					shows(fmt.Sprintf("the best layer in round %d", round), func(v rtctest.View) bool { return v.Layer == 2 })
					watch(1500 * time.Millisecond)
				}
				v := viewer.Viewed("s0", "video")
				if v.Switches < 6 || looked < 100 {
					t.Errorf("%d switches, looked %d times", v.Switches, looked)
				}
				if v.TimestampFaults > 0 {
					t.Errorf("%d faults of timestamps", v.TimestampFaults)
				}
				t.Logf("at most %v apart, %d switches, timestamps at most %v off", worst, v.Switches, v.TimestampError)
			})
		})
	}
}
