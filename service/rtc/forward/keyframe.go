package forward

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/netio"
)

// keyframeEvery is the least time between two requests for a keyframe to a publication's sender.
const keyframeEvery = time.Second

// keyframeRequest joins the requests for a keyframe of one publication.
type keyframeRequest struct {
	wanted atomic.Bool
	asked  atomic.Int64 // when the sender was asked last; 0: never
}

// RequestKeyframe asks the sender of a video for a keyframe: within TickInterval, but not before
// a second has passed since it was asked last. However many ask meanwhile, it is asked once.
func (pub *Publication) RequestKeyframe() {
	if pub.cfg.Source.video() {
		pub.keyframe.wanted.Store(true)
	}
}

// askKeyframe sends a PLI for the stream that feeds the publication (RFC 4585 section 6.3.1), if
// a keyframe is wanted and somebody is there to see it, and it is time.
func (pub *Publication) askKeyframe(out *netio.Batch, now time.Duration, c *counts) {
	k := &pub.keyframe
	last := k.asked.Load()
	if !k.wanted.Load() || last != 0 && now-time.Duration(last) < keyframeEvery {
		return
	}
	// Who subscribes asks after that, so clearing it first loses no request.
	k.wanted.Store(false)
	if len(*pub.subs.Load()) == 0 {
		return
	}
	pub.peer.mu.Lock()
	src := pub.source
	pub.peer.mu.Unlock()
	if src == nil {
		return // its first packet will ask
	}
	if !k.asked.CompareAndSwap(last, max(1, int64(now))) {
		return // another reader asks at this moment
	}
	b := []byte{0x80 | formatPLI, typePSFB, 0, 2}
	b = binary.BigEndian.AppendUint32(b, pub.peer.ssrc)
	b = binary.BigEndian.AppendUint32(b, src.ssrc)
	pub.peer.writeRTCP(out, b, c)
	c.Keyframes++
	c.dirty = true
}
