package forward

import (
	"encoding/binary"

	"github.com/pion/rtp"

	"rtcd/service/rtc/netio"
)

const (
	historySize  = 512 // packets of a video kept for those who miss them, a power of two
	historyChunk = 16  // packets whose memory is allocated at a time, when first used

	maxResends  = 3         // of one packet to one receiver
	resendShare = 4         // one byte may be sent again for so many sent
	resendBurst = 512 << 10 // bytes sent that count: a quarter may be sent again at a time
	longestTag  = 16        // of the profiles that are for use

	// maxAsked is how many entries of NACKs in one RTCP packet are looked at. Each asks for up to
	// 17 packets.
	maxAsked = 16
)

// history keeps the last packets of a publication, once for all its receivers. It is guarded by
// the publication's fanning.
type history struct {
	newest  uint64 // extended number
	packets [historySize]packet
	chunks  [historySize / historyChunk][]byte
}

// keep copies p into the history, in the place of what is too old by now.
func (h *history) keep(p *packet) {
	i := int(p.number % historySize)
	slot := &h.packets[i]
	if slot.number > p.number {
		return // p is so late that its place is taken
	}
	chunk := &h.chunks[i/historyChunk]
	if *chunk == nil {
		*chunk = make([]byte, historyChunk*maxPacket)
	}
	at := i % historyChunk * maxPacket
	*slot = *p
	slot.bytes = append((*chunk)[at:at:at+maxPacket], p.bytes...)
	h.newest = max(h.newest, p.number)
}

// find returns the packet that was sent as seq, nil if it is not there any more.
func (h *history) find(seq uint16) *packet {
	p := &h.packets[seq%historySize]
	if p.bytes == nil || uint16(p.number) != seq || h.newest-p.number >= historySize {
		return nil
	}
	return p
}

// sendLog is what a subscription remembers of the last packets it sent, so that it can send them
// again: the same bytes, since two packets under one number would share a nonce. It is guarded by
// the publication's fanning.
type sendLog struct {
	credit  int // bytes sent, less resendShare times those sent again
	entries [historySize]sent
}

// sent is a packet that was sent.
type sent struct {
	number    uint32 // low half of the extended number
	transport uint16 // its transport-wide number
	times     uint8  // 0: never
}

// add notes a packet of n bytes that was sent for the first time.
func (l *sendLog) add(p *packet, transport uint16, n int) {
	l.credit = min(resendBurst, l.credit+n)
	l.entries[p.number%historySize] = sent{number: uint32(p.number), transport: transport, times: 1}
}

// resend sends the packet that the receiver knows as seq once more, if it was sent and there is
// room in the budget. It returns how many bytes that was, 0 for none.
func (sub *Subscription) resend(out *netio.Batch, path netio.Path, seq uint16, scratch *rtp.Header) (n int) {
	h, l := sub.pub.history, sub.log
	if h == nil || sub.closed.Load() {
		return 0
	}
	p, s := h.find(seq), &l.entries[seq%historySize]
	if p == nil || s.times == 0 || s.times > maxResends || s.number != uint32(p.number) ||
		l.credit < resendShare*(len(p.bytes)+longestTag) {
		return 0
	}
	n = sub.write(out, path, p, s.transport, scratch)
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
	if sub == nil || sub.log == nil || path == nil {
		return
	}
	for entries := b[fci:]; len(entries) >= 4 && r.asked < maxAsked; entries = entries[4:] {
		r.asked++
		seq, following := binary.BigEndian.Uint16(entries), binary.BigEndian.Uint16(entries[2:])
		sub.pub.fanning.Lock()
		for asked := uint32(following)<<1 | 1; asked != 0; asked >>= 1 {
			if asked&1 != 0 {
				r.resent(sub.resend(r.out, *path, seq, &r.scratch))
			}
			seq++
		}
		sub.pub.fanning.Unlock()
	}
}

// resent counts n bytes that were sent again.
func (r *reader) resent(n int) {
	if n > 0 {
		r.counts.PacketsOut++
		r.counts.BytesOut += uint64(n)
		r.counts.Resent++
	}
}
