package forward

import (
	"time"

	"rtcd/service/rtc/rewrite"
)

const (
	// blindAfter is how long a keyframe of another layer is waited for where payloads cannot be
	// read: then any frame has to do, and the receiver asks for what it misses.
	blindAfter = 600 * time.Millisecond
	// startAfter is how long a receiver that has nothing yet waits for a keyframe.
	startAfter = 3 * time.Second
)

// target is what a subscription is to be sent.
type target struct {
	layer             int8 // -1: nothing
	spatial, temporal uint8
}

// everything is the lowest stream of a publication, with all that is in it.
var everything = target{layer: 0, spatial: maxSpatials - 1, temporal: maxTemporals - 1}

// Targets are kept in atomics.
func (t target) pack() uint32 {
	return uint32(uint8(t.layer)) | uint32(t.spatial)<<8 | uint32(t.temporal)<<16
}

func unpackTarget(n uint32) target {
	return target{layer: int8(uint8(n)), spatial: uint8(n >> 8), temporal: uint8(n >> 16)}
}

// view is how a receiver sees a video: which of its layers, and as what numbers. It is guarded by
// the publication's fanning.
type view struct {
	now      target        // what is being sent; before the first packet no layer
	want     target        // that is waited for
	since    time.Duration // when that began
	started  bool          // a packet was sent
	numbers  rewrite.Stream
	pictures rewrite.Stream // picture ids of VP8 and VP9
	unwrap   rewrite.Unwrapper
	bases    rewrite.Offset // TL0PICIDX of VP8
	frames   rewrite.Offset // frame numbers of dependency descriptors

	shift     uint32 // added to the layer's timestamps
	timestamp uint32 // newest one sent
	reference uint32 // what the timestamp of a frame is that was captured then
	captured  time.Duration
	newest    uint64 // of the layer, sent or left out
	source    uint8  // that it was of
	vp8       bool

	ended  bool          // the packet sent last was the last one of its frame
	caught bool          // catchUp was tried
	padded time.Duration // when padding was sent last
}

// clock returns whose timestamps are sent and what is added to them, in one word: for sender reports
// both have to be of the same moment.
func (v *view) clock() uint64 { return uint64(v.now.layer+1)<<32 | uint64(v.shift) }

// unpackClock returns what clock says; no layer is -1.
func unpackClock(clock uint64) (layer int, shift uint32) { return int(clock>>32) - 1, uint32(clock) }

// verdict is what becomes of a packet.
type verdict uint8

const (
	skip    verdict = iota // nothing: it is of a layer that is not sent
	leave                  // left out of the layer that is sent
	forward                // sent
)

// choose says what becomes of packet p while the subscription is to be sent want, and moves to
// another layer if p is where that can be done.
func (v *view) choose(p *packet, want target, now time.Duration) verdict {
	if want != v.want {
		v.want, v.since = want, now
	}
	if int8(p.layer) != v.now.layer {
		if int8(p.layer) != want.layer || !v.enters(p, now) {
			return skip
		}
		v.enter(p, want)
		return forward
	}
	if p.number < v.newest { // late: as the others of its time, as far as that is known
		return v.fits(p)
	}
	if p.source != v.source {
		v.exchange(p)
	}
	if p.start {
		if want.layer < 0 {
			v.now.layer = -1
			return skip
		}
		if want.layer == v.now.layer {
			v.adapt(p, want)
		}
	}
	return v.fits(p)
}

// enters reports whether a receiver can go on with packet p of another layer.
func (v *view) enters(p *packet, now time.Duration) bool {
	switch waited := now - v.since; {
	case p.desc.Keyframe:
		return true
	case !p.start || p.desc.Spatial > 0:
		return false
	case !p.desc.Known && !p.desc.HasFrame: // with a descriptor it is known soon
		return !v.started || waited >= blindAfter
	default:
		return v.now.layer < 0 && waited >= startAfter
	}
}

// enter goes over to the layer of p, which is the first packet of it that is sent. Time goes on
// as it did for the sender.
func (v *view) enter(p *packet, want target) {
	v.now = want
	if v.started {
		clock := toClock(p.captured-v.captured, videoClock)
		ts := v.reference + clock
		if int32(ts-v.timestamp) <= 0 {
			ts = v.timestamp + 1
		}
		v.shift = ts - p.timestamp
		v.numbers.Switch()
		v.exchange(p)
	} else {
		v.started = true
		v.reference, v.captured = p.timestamp, p.captured
		if uint16(p.number) >= 1<<16-rollOverGuard {
			v.numbers.Begin((p.number | 0xffff) + 1)
		}
	}
	v.newest, v.source = p.number, p.source
}

// exchange makes the numbers of pictures go on with those of another encoder.
func (v *view) exchange(p *packet) {
	v.source = p.source
	v.pictures.Switch()
	v.bases.Switch()
	v.frames.Switch()
	v.unwrap = rewrite.Unwrapper{}
}

// videoClock is the rate of the clock of all videos, in Hz.
const videoClock = 90_000

// adapt moves to other spatial and temporal layers of the stream that is sent, at the beginning of
// a frame: down at once, up where nothing refers to what the receiver did not get. Temporal layers
// change with whole pictures, in all their spatial layers, so it is the lowest that tells.
func (v *view) adapt(p *packet, want target) {
	if p.desc.Spatial == 0 {
		v.now.spatial = min(v.now.spatial, want.spatial)
		v.now.temporal = min(v.now.temporal, want.temporal)
		for t := want.temporal; t > v.now.temporal; t-- {
			if p.desc.CanSwitch(0, t) {
				v.now.temporal = t
			}
		}
	}
	v.now.spatial, _ = p.desc.Rise(v.now.spatial, v.now.temporal, want.spatial, v.now.temporal)
}

// fits says whether p is of the spatial and temporal layers that are sent.
func (v *view) fits(p *packet) verdict {
	if p.desc.Spatial > v.now.spatial || p.desc.Temporal > v.now.temporal {
		return leave
	}
	return forward
}

// number fills s with the numbers that p, which is forwarded, is sent under. It reports false if
// there is no place for it any more.
func (v *view) number(p *packet, s *sent) bool {
	number, ok := v.numbers.Map(p.number)
	if !ok {
		return false
	}
	newest := p.number >= v.newest
	*s = sent{
		number: uint32(number), source: uint32(p.number), timestamp: p.timestamp + v.shift,
		layer: p.layer, marker: p.marker,
	}
	if p.desc.End && p.desc.Spatial == v.now.spatial && v.now.spatial+1 < p.desc.Spatials {
		s.marker = 0x80 // the layers after it are left out: this ends the picture
	}
	if pic := &p.desc.Picture; pic.At != 0 {
		if id, ok := v.pictures.Map(v.picture(p)); ok {
			s.picture = uint16(id)
		}
		s.base = uint8(v.bases.Map(uint16(pic.TL0), newest))
	}
	if p.desc.HasFrame {
		s.frame = v.frames.Map(p.desc.Frame, newest)
	}
	v.newest = max(v.newest, p.number)
	if int32(s.timestamp-v.timestamp) > 0 || v.timestamp == 0 {
		v.timestamp = s.timestamp
		// The clocks of timestamps and of captures drift apart: the reference follows slowly, so
		// that jitter does not move it.
		v.reference += uint32(int32(s.timestamp-v.reference-toClock(p.captured-v.captured, videoClock)) / 64)
	}
	return true
}

// picture returns the extended picture id of p.
func (v *view) picture(p *packet) uint64 {
	bits := uint(7)
	if p.desc.Picture.Wide {
		bits = 15
	}
	return v.unwrap.Unwrap(p.desc.Picture.ID, bits)
}

// omit notes that p is left out. If its number was kept free for it, that is returned.
func (v *view) omit(p *packet) (number uint64, hole bool) {
	if v.vp8 && p.desc.Picture.At != 0 {
		// VP8 counts the pictures that are there, VP9 those that were coded.
		v.pictures.Drop(v.picture(p))
	}
	number, hole = v.numbers.Drop(p.number)
	v.newest = max(v.newest, p.number)
	return number, hole
}
