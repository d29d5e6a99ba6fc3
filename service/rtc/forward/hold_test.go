package forward

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// A sender of three layers of which only the lowest is watched is told to send less, and to send
// all again as soon as somebody is to see more: which he then does, from a keyframe on.
func TestLayersNobodyWatchesAreHeldBack(t *testing.T) {
	for _, holds := range []bool{true, false} {
		r := newRig(t)
		r.plane.holds = holds
		rids := []string{"l", "m", "h"}
		speaker := r.endpoint(gcm)
		up := speaker.videoUplink()
		up.SSRCs, up.RIDs, up.REMB = nil, rids, true
		speaker.peer.SetUplinks([]Uplink{up})
		pub := speaker.publish(PublicationConfig{Source: Camera, RIDs: rids})
		viewer := r.endpoint(gcm)
		viewer.subscribe(pub)
		rng := rand.New(rand.NewPCG(1, 2))
		var layers []*encoder
		for i, rid := range rids {
			layers = append(layers, newEncoder("video/VP8", rid, byte(i), 1+3*i, rng))
		}
		limit, start := float32(1e9), r.clock()
		// The sender leaves out what does not fit: these layers take 30, 110 and 190 kbit/s.
		show := func(d time.Duration) (top int, limits []float32) {
			for end := r.clock().Add(d); r.clock().Before(end); {
				sending := 3
				if limit < 350_000 {
					sending = 1
				}
				for _, l := range layers[:sending] {
					for _, p := range l.next(r.clock().Sub(start)) {
						speaker.read.Receive(speaker.seal(p), speaker.path)
					}
				}
				r.flush()
				if r.clock().Sub(start)%TickInterval == 0 {
					r.tick()
				}
				_, told := speaker.sent()
				for _, m := range find[*rtcp.ReceiverEstimatedMaximumBitrate](told) {
					limit = m.Bitrate
					limits = append(limits, limit)
				}
				for _, pli := range find[*rtcp.PictureLossIndication](told) {
					for _, l := range layers {
						l.keyframe = l.keyframe || pli.MediaSSRC == l.ssrc
					}
				}
				for _, p := range viewer.heard() {
					if len(p.Payload) > 98 {
						top = int(p.Payload[len(p.Payload)-98])
					}
				}
				r.advance(20 * time.Millisecond)
			}
			return top, limits
		}
		poor := func(bps float32) {
			viewer.tell(&rtcp.ReceiverEstimatedMaximumBitrate{SenderSSRC: 1, Bitrate: bps, SSRCs: []uint32{9}})
		}
		var limits []float32
		for range 10 { // a viewer whose link is thin
			poor(140_000)
			_, more := show(time.Second)
			limits = append(limits, more...)
		}
		if !holds {
			if len(limits) > 0 {
				t.Fatalf("told %v without being asked to", limits)
			}
			continue
		}
		if len(limits) < 2 || limits[0] < holdLeast || limits[0] > 350_000 {
			t.Fatalf("told %v while only the lowest layer is watched", limits)
		}
		limits = nil
		top := 0
		for range 12 { // it is not thin any more
			poor(5_000_000)
			var more []float32
			top, more = show(time.Second)
			limits = append(limits, more...)
		}
		if top != 2 || limit < unlimited*0.99 {
			t.Errorf("layer %d, told %v, after the link has become good", top, limits)
		}
		if len(limits) > 3+releaseTimes*2 {
			t.Errorf("told %d times: %v", len(limits), limits)
		}
	}
}

// An endpoint that does not take REMB is told nothing, and neither is one without viewers that
// sends one layer.
func TestNothingIsHeldBackInVain(t *testing.T) {
	r := newRig(t)
	r.plane.holds = true
	speaker, _ := r.simulcastOf("video/VP8", "l", "h")
	other, _ := r.camera(gcm)
	rng := rand.New(rand.NewPCG(1, 2))
	layers := []*encoder{newEncoder("video/VP8", "l", 0, 1, rng), newEncoder("video/VP8", "h", 1, 3, rng)}
	for i := range 500 {
		var all []*rtp.Packet
		for _, l := range layers {
			all = append(all, l.next(time.Duration(i)*20*time.Millisecond)...)
		}
		for _, p := range all {
			speaker.push(speaker.seal(p))
		}
		other.show(1)
		r.advance(10 * time.Millisecond)
		if i%5 == 0 {
			r.tick()
		}
		for _, e := range []*endpoint{speaker, other} {
			if _, told := e.sent(); len(find[*rtcp.ReceiverEstimatedMaximumBitrate](told)) > 0 {
				t.Fatalf("told of a limit")
			}
		}
	}
}
