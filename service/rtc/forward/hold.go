package forward

import (
	"encoding/binary"
	"time"

	"rtcd/service/rtc/allocate"
	"rtcd/service/rtc/netio"
)

const (
	holdAfter    = 5 * time.Second  // that nobody is to be sent a layer before its sender is told
	holdTime     = 10 * time.Second // that a layer has to come back in
	holdLeast    = 150_000          // bits per second that a sender is left at least
	unlimited    = 1_000_000_000    // bits per second, to a sender that may send all again
	releaseTimes = 5                // that it is told so: the message may be lost
)

// hold keeps a sender from sending the upper layers of a simulcast that nobody is to be sent. It is
// told how much it may send in all, by REMB, which makes it leave out the layers that do not fit.
// It belongs to Tick.
type hold struct {
	held    bool
	idle    time.Duration // since when there is something that it need not send; 0: there is not
	release int           // how often it is still to be told that it may send all
	free    time.Duration // when it was told first
}

// rung returns the layer as one that would come if it were asked for, if it is held back or has
// been until now.
func (h *hold) rung(i int, l *layer, now time.Duration) (r allocate.Rung, ok bool) {
	ok = l.kept > 0 && (h.held || h.release > 0 || h.free != 0 && now-h.free < holdTime)
	return allocate.Rung{Layer: uint8(i), Bitrate: l.kept}, ok
}

// hold tells the peer what it need not send, or that it may send all again.
func (t *tick) hold(peer *Peer, out *netio.Batch, now time.Duration) {
	h := &peer.hold
	need, spare := t.needed(peer, now)
	if !spare {
		h.idle = 0
		if h.held {
			h.held, h.release, h.free = false, releaseTimes, now
			t.limit(peer, out, unlimited)
		} else if h.release > 0 && (t.n+peer.phase)%reportTicks == 0 {
			h.release--
			t.limit(peer, out, unlimited)
		}
		return
	}
	if h.idle == 0 {
		h.idle = now
	}
	if now-h.idle >= holdAfter && (t.n+peer.phase)%reportTicks == 0 {
		h.held, h.release = true, 0
		t.limit(peer, out, max(holdLeast, need+need/2))
	}
}

// needed returns what the peer has to send for those who receive it, in bits per second, and
// whether it sends more than that or would.
func (t *tick) needed(peer *Peer, now time.Duration) (bps int, spare bool) {
	peer.mu.Lock()
	t.pubs = append(t.pubs[:0], peer.pubs...)
	peer.mu.Unlock()
	for _, pub := range t.pubs {
		watched := pub.watched() | 1
		peer.mu.Lock()
		remb := false
		for i, l := range pub.layers {
			if l.source == nil {
				continue
			}
			remb = remb || l.source.section.REMB
			above := watched>>i == 0 // nobody is to be sent this one or a better one
			switch alive := l.alive(now); {
			case above:
				spare = spare || remb && (alive || peer.hold.held)
			case pub.cfg.Source.video():
				bps += l.kept
			default:
				bps += voiceRate
			}
		}
		peer.mu.Unlock()
	}
	return bps, spare
}

// voiceRate is what a sound takes, headers included.
const voiceRate = 80_000

// limit sends the peer a REMB (draft-alvestrand-rmcat-remb-03 section 2.2) for what feeds its
// videos.
func (t *tick) limit(peer *Peer, out *netio.Batch, bps int) {
	b := append(t.rtcp[:0], 0x80|formatREMB, typePSFB, 0, 0)
	b = binary.BigEndian.AppendUint32(b, peer.ssrc)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, "REMB"...)
	exponent := 0
	for bps>>exponent >= 1<<18 {
		exponent++
	}
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(exponent)<<18|uint32(bps>>exponent))
	peer.mu.Lock()
	for _, st := range peer.in.streams[:peer.in.n] {
		if !st.section.Audio && !st.repair {
			b = binary.BigEndian.AppendUint32(b, st.ssrc)
			b[at]++
		}
	}
	peer.mu.Unlock()
	setLength(b)
	t.rtcp = b
	peer.writeRTCP(out, b, &t.counts)
}
