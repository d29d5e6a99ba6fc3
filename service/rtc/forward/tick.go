package forward

import (
	"encoding/binary"
	"time"

	"rtcd/service/rtc/netio"
)

// ownName is our CNAME in what we report as a receiver.
const ownName = "rtcd"

// maxReports is how many sender reports go into one RTCP packet. With a CNAME of 26 bytes each
// that makes 1,000 bytes.
const (
	maxReports   = 16
	maxCompound  = 1200 // bytes of plain RTCP
	maxFeedbacks = 4    // TWCC packets to one sender at a tick
)

// tick is the working memory of Plane.Tick.
type tick struct {
	n      uint64
	peers  []*Peer
	pubs   []*Publication
	rtcp   []byte
	names  []byte
	counts counts
	share  share
	writer reader // of padding
}

// Tick does what is due by the clock: RTCP reports about once a second to each peer, transport
// feedback and requests to senders, and the end of voices that have stopped. It is to be called
// every TickInterval by one goroutine, with a batch of its own, which it flushes. It holds no
// lock for longer than a packet does.
func (p *Plane) Tick(now time.Time, out *netio.Batch) {
	t := &p.ticking
	since := max(1, now.Sub(p.start))
	p.mu.Lock()
	for peer := range p.peers {
		t.peers = append(t.peers, peer)
	}
	p.mu.Unlock()
	for _, peer := range t.peers {
		t.feedback(peer, out)
		t.publications(peer, out, since)
	}
	var sums pathSums
	for _, peer := range t.peers {
		if d := peer.down.Load(); d != nil {
			t.allocate(peer, d, out)
			sums.add(d)
		}
		if (t.n+peer.phase)%reportTicks == 0 {
			t.receiverReport(peer, out, since)
			t.senderReports(peer, out, since)
		}
	}
	if p.holds {
		for _, peer := range t.peers { // what all others are to be sent is known now
			t.hold(peer, out, since)
		}
	}
	out.Flush()
	p.totals.set(sums)
	p.counts.add(&t.counts)
	p.counts.add(&t.writer.counts)
	clear(t.peers)
	clear(t.pubs[:cap(t.pubs)])
	t.peers = t.peers[:0]
	t.n++
}

// feedback tells the sender when its packets arrived.
func (t *tick) feedback(peer *Peer, out *netio.Batch) {
	for range maxFeedbacks {
		peer.mu.Lock()
		a := peer.in.arrivals
		if a == nil || !a.pending() {
			peer.mu.Unlock()
			return
		}
		t.rtcp = a.appendFeedback(t.rtcp[:0], peer.ssrc)
		peer.mu.Unlock()
		peer.writeRTCP(out, t.rtcp, &t.counts)
	}
}

// publications ends the voices that have stopped, and asks for what is missing of videos.
func (t *tick) publications(peer *Peer, out *netio.Batch, now time.Duration) {
	peer.mu.Lock()
	t.pubs = append(t.pubs[:0], peer.pubs...)
	peer.mu.Unlock()
	for _, pub := range t.pubs {
		if pub.voice.Load() {
			peer.spoke = now
			pub.expireVoice(now)
		}
		if pub.cfg.Source.video() {
			pub.rungs.measure(pub)
		}
		pub.askKeyframe(out, now, &t.counts)
		t.rtcp = pub.askMissing(out, now, t.rtcp, &t.counts)
	}
}

// receiverReport tells the sender how its streams arrive (RFC 3550 section 6.4.2).
func (t *tick) receiverReport(peer *Peer, out *netio.Batch, now time.Duration) {
	b := append(t.rtcp[:0], 0x80, typeRR, 0, 0)
	b = binary.BigEndian.AppendUint32(b, peer.ssrc)
	n := 0
	peer.mu.Lock()
	for _, st := range peer.in.streams[:peer.in.n] {
		if st.started && st.received != st.receivedPrior {
			due, lost := st.loss()
			t.counts.Uplink.add(due, lost)
			t.counts.dirty = true
			b = st.appendReport(b, st.ssrc, now)
			n++
		}
	}
	peer.mu.Unlock()
	t.rtcp = b
	if n == 0 {
		return
	}
	b[0] |= byte(n)
	setLength(b)
	at := len(b)
	b = appendName(append(b, 0x80|1, typeSDES, 0, 0), peer.ssrc, ownName)
	setLength(b[at:])
	t.rtcp = b
	peer.writeRTCP(out, b, &t.counts)
}

// senderReports tells a receiver what time the timestamps of its subscriptions mean (RFC 3550
// section 6.4.1), for those that were sent something since the last time.
func (t *tick) senderReports(peer *Peer, out *netio.Batch, now time.Duration) {
	ntp := peer.plane.ntp(now)
	reports, names, n := t.rtcp[:0], t.names[:0], 0
	flush := func() {
		if n == 0 {
			return
		}
		at := len(reports)
		reports = append(reports, 0x80|byte(n), typeSDES, 0, 0)
		reports = append(reports, names...)
		setLength(reports[at:])
		peer.writeRTCP(out, reports, &t.counts)
		reports, names, n = reports[:0], names[:0], 0
	}
	for _, sub := range *peer.sublist.Load() {
		packets := sub.packets.Load()
		if packets == sub.reported {
			continue
		}
		sender, layer, shift := sub.pub.peer, 0, uint32(0)
		if sub.view != nil {
			if layer, shift = unpackClock(sub.clock.Load()); layer < 0 {
				continue
			}
		}
		sender.mu.Lock()
		timestamp, ok := sub.pub.layers[layer].timestampAt(now)
		sender.mu.Unlock()
		if !ok {
			continue
		}
		timestamp += shift
		sub.reported = packets
		if n == maxReports || len(reports)+len(names)+rtcpHeader+senderBlock+len(sender.cname)+16 > maxCompound {
			flush()
		}
		at := len(reports)
		reports = append(reports, 0x80, typeSR, 0, 0)
		reports = binary.BigEndian.AppendUint32(reports, sub.ssrc)
		reports = binary.BigEndian.AppendUint64(reports, ntp)
		reports = binary.BigEndian.AppendUint32(reports, timestamp)
		reports = binary.BigEndian.AppendUint32(reports, uint32(packets))
		reports = binary.BigEndian.AppendUint32(reports, uint32(sub.octets.Load()))
		setLength(reports[at:])
		names = appendName(names, sub.ssrc, sender.cname)
		n++
	}
	flush()
	t.rtcp, t.names = reports[:0], names[:0]
}

// setLength writes the length of the RTCP packet b into its header.
func setLength(b []byte) { binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1)) }

// appendName appends a chunk of a source description: the CNAME of an SSRC (RFC 3550 section
// 6.5).
func appendName(b []byte, ssrc uint32, cname string) []byte {
	const itemCNAME = 1
	b = binary.BigEndian.AppendUint32(b, ssrc)
	b = append(b, itemCNAME, byte(len(cname)))
	b = append(b, cname...)
	end := [4]byte{} // of the items: one zero at least, to a whole word
	return append(b, end[:4-(len(cname)+2)%4]...)
}
