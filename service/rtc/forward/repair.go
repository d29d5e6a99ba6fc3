package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"rtcd/service/rtc/netio"
)

// writeRepair sends packet p, which was sent as s says, on the repair stream (RFC 4588 section 4).
func (sub *Subscription) writeRepair(r *reader, path netio.Path, p *packet, s *sent) (n int) {
	b := p.bytes
	if p.head < repairRoom+fixedHeader {
		return 0
	}
	if pic := &p.desc.Picture; pic.At != 0 {
		pic.Put(b[p.head:], s.picture, s.base)
	}
	binary.BigEndian.PutUint16(b[p.head-repairRoom:], uint16(s.number))
	now := *s
	sub.stamp(&now, r.now)
	plain := sub.header(b, p.head-repairRoom, p.elements, &now, p.desc.HasFrame)
	plain[0] |= p.flags
	plain[1] = sub.repairType | s.marker
	sub.repairHeader(plain, s.timestamp)
	n = sub.encrypt(r.out, path, plain, &r.scratch)
	sub.noteSent(now.transport, n, r.now, false)
	return n
}

// repairHeader writes what is left of the header of a packet of the repair stream.
func (sub *Subscription) repairHeader(plain []byte, timestamp uint32) {
	binary.BigEndian.PutUint16(plain[2:], sub.repairSeq)
	binary.BigEndian.PutUint32(plain[4:], timestamp)
	binary.BigEndian.PutUint32(plain[8:], sub.repair)
	sub.repairSeq++
}

const (
	paddingSize     = 255                    // the most that one packet can have
	paddingInterval = 120 * time.Millisecond // that one burst makes up for, at most
	maxPadding      = 256                    // packets in one burst
)

// pad sends padding at the rate that the receiver's path is being probed with. It goes on the
// repair stream, or else between two frames.
func (r *reader) pad(sub *Subscription, path netio.Path, bps int64) {
	v := sub.view
	since := min(r.now-v.padded, paddingInterval)
	if sub.repair == 0 && (!v.started || !v.ended) {
		return
	}
	const size = paddingSize + fixedHeader + longestTag + packetOverhead
	count := int(bps * int64(since) / int64(time.Second) / (8 * size))
	if count == 0 {
		return
	}
	v.padded = r.now
	r.counts.dirty = true
	for range min(count, maxPadding) {
		n := r.writePadding(sub, path)
		if n == 0 {
			return
		}
		r.counts.PacketsOut++
		r.counts.BytesOut += uint64(n)
		r.counts.Padding++
	}
}

// writePadding sends one packet of nothing but padding. It returns its length, 0 for none.
func (r *reader) writePadding(sub *Subscription, path netio.Path) (n int) {
	s := sent{timestamp: sub.view.timestamp, empty: true}
	if sub.repair == 0 {
		number, ok := sub.view.numbers.Insert()
		if !ok {
			return 0
		}
		s.number = uint32(number)
	}
	return r.sendEmpty(sub, path, &s, true)
}

// fill sends a packet without payload in the place of p, which is left out though its number was
// kept free for it.
func (r *reader) fill(sub *Subscription, path netio.Path, p *packet, number uint64) {
	s := sent{number: uint32(number), timestamp: p.timestamp + sub.view.shift, empty: true}
	if n := r.sendEmpty(sub, path, &s, false); n > 0 {
		r.counts.PacketsOut++
		r.counts.BytesOut += uint64(n)
	}
}

// sendEmpty sends a packet without payload for the first time, as s says. What only probes the
// path goes on the repair stream, if there is one; else the receiver may ask for it again, because
// it cannot know that it misses nothing.
func (r *reader) sendEmpty(sub *Subscription, path netio.Path, s *sent, probe bool) (n int) {
	sub.stamp(s, r.now)
	onRepair := probe && sub.repair != 0
	if n = r.writeEmpty(sub, path, s, onRepair); n == 0 {
		return 0
	}
	sub.noteSent(s.transport, n, r.now, probe)
	if !onRepair {
		sub.logged().note(s)
	}
	return n
}

// writeEmpty encrypts a packet without payload, as s says.
func (r *reader) writeEmpty(sub *Subscription, path netio.Path, s *sent, onRepair bool) (n int) {
	if r.padding == nil {
		r.padding = make([]byte, maxHeader+paddingSize)
	}
	b := r.padding
	b[len(b)-1] = paddingSize
	plain := sub.header(b, maxHeader, nil, s, false)
	plain[0] |= 0x20
	if onRepair {
		plain[1] = sub.repairType
		sub.repairHeader(plain, s.timestamp)
	} else {
		plain[1] = sub.payloadType
		binary.BigEndian.PutUint16(plain[2:], uint16(s.number))
		binary.BigEndian.PutUint32(plain[4:], s.timestamp)
		binary.BigEndian.PutUint32(plain[8:], sub.ssrc)
	}
	return sub.encrypt(r.out, path, plain, &r.scratch)
}

// maxHeader is room for a header with all that we put into it.
const maxHeader = 64

// repaired turns packet b of a repair stream, decrypted, into the packet that it repairs, in place.
// It returns nil if that is not a packet that is missing. It is called with the peer's mu held.
func (in *inbound) repaired(repair *stream, h *header, b []byte) (st *stream, plain []byte) {
	if len(b) < h.payload+repairRoom || h.padding && int(b[len(b)-1]) > len(b)-h.payload-repairRoom {
		return nil, nil // it repairs nothing: the sender tries what the path can carry
	}
	pt := repair.section.formats[h.pt].repairs
	if f := &repair.section.formats[pt]; f.clockRate == 0 || f.repairs != 0 {
		return nil, nil
	}
	if st = in.primary(repair); st == nil || st.losses == nil {
		return nil, nil
	}
	seq := binary.BigEndian.Uint16(b[h.payload:])
	if !st.losses.misses(seq) {
		return nil, nil
	}
	// The payload moves down over the number, so that the header stays where it is.
	plain = b[:h.payload+copy(b[h.payload:], b[h.payload+repairRoom:])]
	h.seq, h.ssrc, h.pt = seq, st.ssrc, pt
	return st, plain
}

// primary returns the stream that a repair stream belongs to, by its group (RFC 5576 section 4.2)
// or its RID (RFC 8852 section 3.2); nil if it is not known.
func (in *inbound) primary(repair *stream) *stream {
	if ssrc, ok := repair.section.Repairs[repair.ssrc]; ok {
		return in.find(ssrc)
	}
	var found *stream
	n := 0
	for _, st := range in.streams[:in.n] {
		if st.section != repair.section || st.repair || repair.rid != "" && st.rid != repair.rid {
			continue
		}
		if n++; found == nil || st.arrived > found.arrived {
			found = st
		}
	}
	if repair.rid == "" && (n > 1 || len(repair.section.RIDs) > 1) {
		return nil
	}
	return found // what came last: an SSRC may take the place of another one
}

// firstRepair returns a number to begin a repair stream with, far from a roll-over.
func firstRepair() uint16 { return uint16(rand.Uint32N(1 << 15)) }
