package forward

import (
	"encoding/binary"
	"time"
)

// Packet types of RTCP (RFC 3550 section 12.1, RFC 4585 section 6.1) and formats of feedback.
const (
	typeSR    = 200
	typeRR    = 201
	typeSDES  = 202
	typeBye   = 203
	typeRTPFB = 205
	typePSFB  = 206

	formatNACK = 1
	formatTWCC = 15
	formatPLI  = 1
	formatFIR  = 4
	formatREMB = 15
)

const (
	rtcpHeader  = 8 // with the SSRC of the sender
	reportBlock = 24
	senderBlock = 20 // of a sender report
	rtcpIndex   = 4  // of SRTCP, with the bit that says encrypted (RFC 3711 section 3.4)
)

// receiveRTCP decrypts a compound RTCP packet and acts on its parts.
func (r *reader) receiveRTCP(peer *Peer, b []byte) {
	if len(b) < rtcpHeader || b[0]>>6 != 2 {
		r.counts.drop(DropMalformed)
		return
	}
	peer.mu.Lock()
	plain, why := r.acceptRTCP(&peer.in, b)
	peer.mu.Unlock()
	if plain == nil {
		r.counts.drop(why)
		return
	}
	r.asked = 0
	for len(plain) > 0 {
		part, rest, ok := cutRTCP(plain)
		if !ok {
			r.counts.drop(DropMalformed)
			return
		}
		r.receivePart(peer, part)
		plain = rest
	}
}

// acceptRTCP verifies and decrypts b in place; the result is nil for a packet that is to be
// dropped. It is called with the peer's mu held.
func (r *reader) acceptRTCP(in *inbound, b []byte) (plain []byte, why Drop) {
	sender := binary.BigEndian.Uint32(b[4:])
	switch {
	case in.srtp == nil:
		return nil, DropUnknownPath
	case len(b) < rtcpHeader+in.tag+rtcpIndex:
		return nil, DropMalformed
	case !in.admitsReport(sender):
		r.counts.TooMany++
		return nil, DropUnknownSSRC
	}
	plain, err := in.srtp.DecryptRTCP(b, b, &r.scratchRTCP)
	if err != nil {
		return nil, refusal(err)
	}
	if !in.reports.take(1, maxRTCP, r.now) {
		r.counts.RateLimited++
		return nil, DropRate
	}
	in.admitReport(sender)
	in.sampled.heard(r.now)
	return plain, 0
}

// cutRTCP cuts the first part off a compound packet, without its padding.
func cutRTCP(b []byte) (part, rest []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 2 {
		return nil, nil, false
	}
	length := (int(binary.BigEndian.Uint16(b[2:])) + 1) * 4
	if length > len(b) {
		return nil, nil, false
	}
	part, rest = b[:length], b[length:]
	if b[0]&0x20 != 0 {
		padding := int(part[length-1])
		if padding == 0 || padding > length-4 {
			return nil, nil, false
		}
		part = part[:length-padding]
	}
	return part, rest, true
}

// receivePart acts on one part of a compound packet.
func (r *reader) receivePart(peer *Peer, b []byte) {
	kind := FeedbackOther
	count := int(b[0] & 0x1f)
	switch b[1] {
	case typeSR:
		kind = FeedbackSR
		if len(b) >= rtcpHeader+senderBlock {
			peer.senderReport(b, r.now)
			r.reports(peer, b[rtcpHeader+senderBlock:], count)
		}
	case typeRR:
		kind = FeedbackRR
		if len(b) >= rtcpHeader {
			r.reports(peer, b[rtcpHeader:], count)
		}
	case typeBye:
		kind = FeedbackBye
	case typeRTPFB:
		switch count {
		case formatNACK:
			kind = FeedbackNACK
			r.nack(peer, b)
		case formatTWCC:
			kind = FeedbackTWCC
			if d := peer.down.Load(); d != nil {
				d.feedback(b, r.now)
			}
		}
	case typePSFB:
		kind = r.payloadFeedback(peer, b, count)
	}
	r.counts.Feedbacks[kind]++
	r.counts.dirty = true
}

// payloadFeedback acts on feedback about a payload (RFC 4585 section 6.3, RFC 5104 section 4.3).
func (r *reader) payloadFeedback(peer *Peer, b []byte, format int) Feedback {
	const fci = 12 // offset: after the SSRCs of sender and media
	switch {
	case format == formatPLI && len(b) >= fci:
		r.keyframe(peer, binary.BigEndian.Uint32(b[8:]))
		return FeedbackPLI
	case format == formatFIR && len(b) >= fci:
		for entries := b[fci:]; len(entries) >= 8; entries = entries[8:] {
			r.keyframe(peer, binary.BigEndian.Uint32(entries))
		}
		return FeedbackFIR
	case format == formatREMB:
		if d := peer.down.Load(); d != nil {
			if bps, ok := readREMB(b); ok {
				d.remb(bps, r.now)
			}
		}
		return FeedbackREMB
	}
	return FeedbackOther
}

// keyframe passes a request for a keyframe of the peer's subscription on.
func (r *reader) keyframe(peer *Peer, ssrc uint32) {
	sub := peer.subscription(ssrc)
	if sub == nil || sub.view == nil {
		return
	}
	sub.keyframesAsked.Add(1)
	// Of what it is being sent, and of what it is to be.
	for _, t := range [2]uint32{sub.current.Load(), sub.target.Load()} {
		if i := unpackTarget(t).layer; i >= 0 {
			sub.pub.layers[i].request()
		}
	}
	sub.pub.askKeyframe(r.out, r.now, &r.counts)
}

// readREMB returns the bitrate of a REMB (draft-alvestrand-rmcat-remb-03 section 2.2).
func readREMB(b []byte) (bps int, ok bool) {
	const fci = 12
	if len(b) < fci+8 || string(b[fci:fci+4]) != "REMB" {
		return 0, false
	}
	exponent, mantissa := b[fci+5]>>2, binary.BigEndian.Uint32(b[fci+4:])&(1<<18-1)
	return int(min(uint64(mantissa)<<min(exponent, 32), 1<<40)), true
}

// reports notes what the receiver reports of its subscriptions.
func (r *reader) reports(peer *Peer, blocks []byte, count int) {
	ntp := uint32(peer.plane.ntp(r.now) >> 16)
	for ; count > 0 && len(blocks) >= reportBlock; count, blocks = count-1, blocks[reportBlock:] {
		sub := peer.subscription(binary.BigEndian.Uint32(blocks))
		if sub == nil {
			continue
		}
		sub.report(blocks, ntp)
		if due, lost := sub.told(sub.lost.Load()); due > 0 {
			r.counts.Downlink.add(due, lost)
			r.counts.dirty = true
		}
		if d := peer.down.Load(); d != nil && sub.view != nil {
			d.report(float64(blocks[4])/256, time.Duration(sub.roundTrip.Load()), r.now)
		}
	}
}

// report notes a report block that arrived at ntp, the middle 32 bits of an NTP timestamp.
func (sub *Subscription) report(block []byte, ntp uint32) {
	sub.fractionLost.Store(uint32(block[4]))
	sub.lost.Store(int32(binary.BigEndian.Uint32(block[4:])<<8) >> 8)
	sub.jitter.Store(binary.BigEndian.Uint32(block[12:]))
	sub.highest.Store(binary.BigEndian.Uint32(block[8:]))
	sub.reports.Add(1)
	lsr, dlsr := binary.BigEndian.Uint32(block[16:]), binary.BigEndian.Uint32(block[20:])
	if lsr == 0 {
		return
	}
	if trip := int32(ntp - lsr - dlsr); trip >= 0 { // RFC 3550 section 6.4.1
		sub.roundTrip.Store(int64(trip) * int64(time.Second) >> 16)
	}
}

// subscription returns the peer's subscription with that SSRC, nil if there is none.
func (peer *Peer) subscription(ssrc uint32) *Subscription {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	return peer.subs[ssrc]
}

// senderReport notes the sender report b of one of the peer's streams.
func (peer *Peer) senderReport(b []byte, now time.Duration) {
	peer.mu.Lock()
	defer peer.mu.Unlock()
	st := peer.in.find(binary.BigEndian.Uint32(b[4:]))
	if st == nil {
		return
	}
	info := senderInfo{
		valid:     true,
		ntp:       binary.BigEndian.Uint64(b[8:]),
		timestamp: binary.BigEndian.Uint32(b[16:]),
		arrived:   now,
	}
	st.report = info

	// The report that was fastest tells the clocks' difference best. Slower ones move it a
	// little, so that it follows clocks that drift apart.
	switch offset := int64(peer.plane.ntp(now) - info.ntp); {
	case !peer.in.clockKnown || offset < peer.in.clockOffset:
		peer.in.clockOffset, peer.in.clockKnown = offset, true
	default:
		peer.in.clockOffset += (offset - peer.in.clockOffset) / 64
	}
}
