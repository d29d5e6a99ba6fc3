package forward

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/netio"
)

// keyframeEvery is the least time between two requests to a sender for a keyframe of one layer.
const keyframeEvery = time.Second

// keyframeRequest joins the requests for a keyframe of one layer.
type keyframeRequest struct {
	wanted atomic.Bool
	asked  atomic.Int64 // when the sender was asked last; 0: never
	sent   atomic.Uint32
}

// RequestKeyframe asks the sender of a video for a keyframe of each layer that somebody is sent:
// within TickInterval, but not before a second has passed since it was asked last. However many
// ask meanwhile, it is asked once.
func (pub *Publication) RequestKeyframe() {
	if !pub.cfg.Source.video() {
		return
	}
	for _, l := range pub.layers {
		l.request()
	}
}

// request is RequestKeyframe for one layer.
func (l *layer) request() {
	if l.pub.cfg.Source.video() {
		l.keyframe.wanted.Store(true)
	}
}

// watched lists the layers that somebody is sent or waits for, as bits.
func (pub *Publication) watched() (mask uint8) {
	for _, sub := range *pub.subs.Load() {
		for _, t := range [2]uint32{sub.target.Load(), sub.current.Load()} {
			if i := unpackTarget(t).layer; i >= 0 {
				mask |= 1 << i
			}
		}
	}
	return mask
}

// askKeyframe sends PLIs for the streams that feed the publication (RFC 4585 section 6.3.1), as
// far as keyframes are wanted and somebody is there to see them, and it is time.
func (pub *Publication) askKeyframe(out *netio.Batch, now time.Duration, c *counts) {
	for i, l := range pub.layers {
		if l.keyframe.wanted.Load() {
			l.askKeyframe(out, now, c, i)
		}
	}
}

func (l *layer) askKeyframe(out *netio.Batch, now time.Duration, c *counts, index int) {
	k, pub := &l.keyframe, l.pub
	last := k.asked.Load()
	if last != 0 && now-time.Duration(last) < keyframeEvery {
		return
	}
	// Who subscribes asks after that, so clearing it first loses no request.
	k.wanted.Store(false)
	if pub.watched()&(1<<index) == 0 {
		return
	}
	pub.peer.mu.Lock()
	src := l.source
	pub.peer.mu.Unlock()
	if src == nil {
		return // its first packet will ask
	}
	if !k.asked.CompareAndSwap(last, max(1, int64(now))) {
		return // another reader asks at this moment
	}
	k.sent.Add(1)
	b := []byte{0x80 | formatPLI, typePSFB, 0, 2}
	b = binary.BigEndian.AppendUint32(b, pub.peer.ssrc)
	b = binary.BigEndian.AppendUint32(b, src.ssrc)
	pub.peer.writeRTCP(out, b, c)
	c.Keyframes++
	c.dirty = true
}
