package forward

import (
	"encoding/binary"
	"time"

	"rtcd/service/rtc/netio"
)

const (
	defaultHistory = 512       // packets of a layer kept for those who miss them
	historyChunk   = 16        // packets whose memory is allocated at a time, when first used
	maxSlot        = 1500 + 64 // bytes of a packet as it is kept, with the room before it

	maxResends  = 3         // of one packet to one receiver
	resendShare = 4         // one byte may be sent again for so many sent
	resendBurst = 512 << 10 // bytes sent that count: a quarter may be sent again at a time
	longestTag  = 16        // of the profiles that are for use

	// maxAsked is how many entries of NACKs in one RTCP packet are looked at. Each asks for up to
	// 17 packets.
	maxAsked = 16
)

// history keeps the last packets of a layer, once for all receivers. It is guarded by the
// publication's fanning.
type history struct {
	newest  uint64 // extended number
	packets []packet
	chunks  [][]byte
}

// newHistory returns a history of that many packets, a power of two of at least historyChunk.
func newHistory(size int) *history {
	return &history{packets: make([]packet, size), chunks: make([][]byte, size/historyChunk)}
}

// keep copies p into the history, in the place of what is too old by now.
func (h *history) keep(p *packet) {
	size := uint64(len(h.packets))
	i := int(p.number % size)
	slot := &h.packets[i]
	if slot.number > p.number {
		return // p is so late that its place is taken
	}
	const chunkSize = maxSlot + maxElements
	chunk := &h.chunks[i/historyChunk]
	if *chunk == nil {
		*chunk = make([]byte, historyChunk*chunkSize)
	}
	at := i % historyChunk * chunkSize
	*slot = *p
	slot.next = 0 // which was a place in the reader's batch
	if len(p.bytes) > maxSlot || len(p.elements) > maxElements {
		slot.bytes = nil
		return
	}
	slot.bytes = append((*chunk)[at:at:at+maxSlot], p.bytes...)
	slot.elements = append((*chunk)[at+maxSlot:at+maxSlot:at+chunkSize], p.elements...)
	h.newest = max(h.newest, p.number)
}

// find returns the packet with that number, by its low half; nil if it is not there any more.
func (h *history) find(number uint32) *packet {
	p := &h.packets[int(number)%len(h.packets)]
	if p.bytes == nil || uint32(p.number) != number || h.newest-p.number >= uint64(len(h.packets)) {
		return nil
	}
	return p
}

// sendLog is what a subscription remembers of the last packets it sent, so that it can send them
// again. It is guarded by the publication's fanning.
type sendLog struct {
	credit  int // bytes sent, less resendShare times those sent again
	entries []sent
}

// logged returns the log of what was sent, which is made at the first packet.
func (sub *Subscription) logged() *sendLog {
	if sub.log == nil {
		sub.log = &sendLog{entries: make([]sent, sub.peer.plane.history)}
	}
	return sub.log
}

// add notes a packet of n bytes that was sent for the first time.
func (l *sendLog) add(s *sent, n int) {
	l.credit = min(resendBurst, l.credit+n)
	l.note(s)
}

// note is add for what gives no right to more.
func (l *sendLog) note(s *sent) {
	e := &l.entries[int(s.number)%len(l.entries)]
	*e = *s
	e.times = 1
}

// find returns the packet that was sent as seq, nil if there was none or it is forgotten.
func (l *sendLog) find(seq uint16) *sent {
	s := &l.entries[int(seq)%len(l.entries)]
	if s.times == 0 || uint16(s.number) != seq {
		return nil
	}
	return s
}

// resend sends the packet that the receiver knows as seq once more, if it was sent and there is
// room in the budget. It returns how many bytes that was, 0 for none.
func (sub *Subscription) resend(r *reader, path netio.Path, seq uint16) (n int) {
	l := sub.log
	if sub.closed.Load() {
		return 0
	}
	s := l.find(seq)
	if s == nil || s.times > maxResends {
		return 0
	}
	if s.empty {
		if l.credit < resendShare*(maxHeader+paddingSize+longestTag) {
			return 0
		}
		return l.paid(s, r.writeEmpty(sub, path, s, false))
	}
	if v := sub.view; v != nil && int8(s.layer) != v.now.layer {
		return 0 // since then there was a keyframe of another layer: it does not need it any more
	}
	h := sub.pub.layers[s.layer].history
	if h == nil {
		return 0
	}
	p := h.find(s.source)
	if p == nil || l.credit < resendShare*(len(p.bytes)+longestTag) {
		return 0
	}
	if sub.repair != 0 {
		n = sub.writeRepair(r, path, p, s)
	} else {
		// The same bytes: two packets under one number would share a nonce.
		n = sub.write(r.out, path, p, s, &r.scratch)
	}
	return l.paid(s, n)
}

// paid notes that n bytes were sent again.
func (l *sendLog) paid(s *sent, n int) int {
	l.credit -= resendShare * n
	s.times++
	return n
}

// nack answers a request for packets again (RFC 4585 section 6.2.1).
func (r *reader) nack(peer *Peer, b []byte) {
	const fci = 12 // offset: after the SSRCs of sender and media
	if len(b) < fci {
		return
	}
	sub := peer.subscription(binary.BigEndian.Uint32(b[8:]))
	path := peer.path.Load()
	if sub == nil || path == nil {
		return
	}
	for entries := b[fci:]; len(entries) >= 4 && r.asked < maxAsked; entries = entries[4:] {
		r.asked++
		seq, following := binary.BigEndian.Uint16(entries), binary.BigEndian.Uint16(entries[2:])
		sub.pub.fanning.Lock()
		for asked := uint32(following)<<1 | 1; asked != 0 && sub.log != nil; asked >>= 1 {
			if asked&1 != 0 {
				r.resent(sub, sub.resend(r, *path, seq))
			}
			seq++
		}
		sub.pub.fanning.Unlock()
	}
}

// resent counts n bytes that were sent again.
func (r *reader) resent(sub *Subscription, n int) {
	if n > 0 {
		sub.repaired.Add(1)
		r.counts.PacketsOut++
		r.counts.BytesOut += uint64(n)
		r.counts.Resent++
	}
}

const (
	// A receiver that is new gets what came since the last keyframe at once, if that is not more
	// than this: asking for another keyframe would be refused by its limit anyhow.
	maxCatchUp     = 1200 * time.Millisecond
	maxCatchUpSize = 256 << 10
)

// catchUp sends a receiver that got nothing yet what there is since the last keyframe of the
// layer it is to be sent, if it is all there. The packets of the batch at hand are among it.
func (r *reader) catchUp(sub *Subscription, path netio.Path, want target) bool {
	if want.layer < 0 {
		return false
	}
	l := sub.pub.layers[want.layer]
	h := l.history
	if h == nil || l.begin == 0 || r.now-l.began > maxCatchUp || h.newest-l.begin >= uint64(len(h.packets))/2 {
		return false
	}
	size := 0
	for n := l.begin; n <= h.newest; n++ {
		p := h.find(uint32(n))
		if p == nil {
			return false
		}
		size += len(p.bytes)
	}
	if size > maxCatchUpSize {
		return false
	}
	for n := l.begin; n <= h.newest; n++ {
		r.show(sub, path, h.find(uint32(n)), want)
	}
	return true
}
