package forward

import (
	"time"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/rewrite"
)

const (
	maxLayers    = 4 // streams of one publication
	maxSpatials  = 4 // in one stream
	maxTemporals = 4 // likewise, that are told apart
)

// layer is one stream of a publication: the only one, or one of a simulcast. What several SSRCs
// send of it, one after the other, is one sequence of packets.
type layer struct {
	pub *Publication
	rid string

	keyframe keyframeRequest

	// Guarded by peer.mu.
	source    *stream // that feeds it; nil before the first packet
	sources   uint8   // how many did
	parser    *codec.Parser
	sequence  rewrite.Sequence
	given     given
	frame     uint32        // timestamp of the newest packet
	shift     uint32        // added to timestamps
	timestamp uint32        // newest one given
	arrived   time.Duration // of the packet with it; 0: none came
	meter     meter
	kept      int    // its rate when it came last, bits per second
	keys      uint32 // keyframes that came
	keyTS     uint32 // timestamp of the last

	// Guarded by pub.fanning.
	history *history      // nil until somebody may want packets again
	begin   uint64        // number of the packet that began the last keyframe; 0: none
	began   time.Duration // when it came
	beginTS uint32
}

// take gives a packet of st its number and timestamp. It is called with peer.mu held, for packets
// in the order they came. withheld is why it is not to be forwarded; numDrops: it is.
func (l *layer) take(st *stream, fresh bool, h *header, withheld Drop, now time.Duration) (number uint64, ts uint32, why Drop) {
	if l.source != st {
		// A section that was away for a description or two comes back as another stream, with
		// the same SSRC.
		if l.source != nil && l.source.ssrc != st.ssrc {
			// An SSRC that is new is what the endpoint means to send from now on. The one before
			// it only comes back if that was a mistake: it must not alternate with the new one.
			if !fresh && now-l.source.arrived < sourceTimeout {
				return 0, 0, DropLate
			}
			l.sequence.Switch()
			if l.arrived != 0 {
				l.shift = l.timestamp + max(1, toClock(now-l.arrived, st.clockRate)) - h.timestamp
			}
		}
		l.source = st
		l.sources++
		l.parser = nil
		if st.losses != nil {
			*st.losses = losses{} // nobody misses what it sent while it fed nothing
		}
		l.request()
	}
	if st.losses != nil {
		st.losses.note(h.seq, now)
	}
	if withheld != numDrops {
		l.sequence.Drop(h.seq)
		return 0, 0, withheld
	}
	number, ok := l.sequence.Map(h.seq)
	if !ok {
		return 0, 0, DropLate
	}
	if !l.given.add(number) {
		return 0, 0, DropReplay
	}
	ts = h.timestamp + l.shift
	if int32(ts-l.timestamp) > 0 || l.arrived == 0 {
		l.timestamp, l.arrived = ts, now
	}
	return number, ts, numDrops
}

// given remembers which of a layer's last numbers were given to packets. One that is repaired may
// come again, late, under its own SSRC, where it was not seen before: forwarded twice it would repeat
// nonces.
type given struct {
	newest uint64
	bits   [maxGiven / 64]uint64
}

// maxGiven is how many numbers are remembered: more than a packet can be late.
const maxGiven = 2 << 10

// add adds number n and reports whether it is new.
func (g *given) add(n uint64) bool {
	if n > g.newest {
		if n-g.newest >= maxGiven {
			clear(g.bits[:])
		} else {
			for i := g.newest + 1; i <= n; i++ {
				g.bits[i%maxGiven/64] &^= 1 << (i % 64)
			}
		}
		g.newest = n
	}
	word, bit := &g.bits[n%maxGiven/64], uint64(1)<<(n%64)
	if *word&bit != 0 || g.newest-n >= maxGiven {
		return false
	}
	*word |= bit
	return true
}

// look reads what a packet of a video tells of itself. It is called with peer.mu held.
func (l *layer) look(p *packet, c codec.Codec, now time.Duration) {
	if l.parser == nil {
		l.parser = codec.NewParser(c)
	}
	l.parser.Parse(p.media(), p.element(kindDependency), &p.desc)
	p.start = p.desc.Start
	if p.desc.Keyframe && (l.keys == 0 || p.timestamp != l.keyTS) {
		l.keys++
		l.keyTS = p.timestamp
	}
	if !p.desc.Known && !p.desc.HasFrame {
		// Frames have timestamps of their own.
		p.start = p.timestamp != l.frame && p.number == l.given.newest
	}
	if int32(p.timestamp-l.frame) > 0 || p.number == 0 || l.frame == 0 {
		l.frame = p.timestamp
	}
	p.captured = l.pub.peer.captured(l.source, p.timestamp-l.shift, now)
	l.meter.add(&p.desc, len(p.bytes), now)
}

// captured returns when the frame with that timestamp was, as far as reports tell, or else when it
// came. All streams of a sender are on one clock. It is called with mu held.
func (peer *Peer) captured(st *stream, timestamp uint32, now time.Duration) time.Duration {
	if !st.report.valid || !peer.in.clockKnown || st.clockRate == 0 {
		return now
	}
	report := ntpDuration(int64(st.report.ntp) + peer.in.clockOffset - int64(peer.plane.ntp(0)))
	at := report + time.Duration(int32(timestamp-st.report.timestamp))*time.Second/time.Duration(st.clockRate)
	if d := at - now; d > believed || d < -believed {
		return now
	}
	return at
}

// believed is how far a sender's reports may be from what its packets say.
const believed = 2 * time.Second

// timestampAt returns the timestamp that the layer has at now. It is called with peer.mu held.
//
// The sender's reports tell best, because they keep its streams in step; how far the sender is
// believed is bounded by what its packets say.
func (l *layer) timestampAt(now time.Duration) (ts uint32, ok bool) {
	src := l.source
	if src == nil || src.clockRate == 0 || !src.started {
		return 0, false
	}
	byPackets := src.timestamp + toClock(now-src.arrived, src.clockRate) + l.shift
	in := &l.pub.peer.in
	if !src.report.valid || !in.clockKnown {
		return byPackets, true
	}
	since := ntpDuration(int64(l.pub.peer.plane.ntp(now)) - in.clockOffset - int64(src.report.ntp))
	byReports := src.report.timestamp + toClock(since, src.clockRate) + l.shift
	limit := int64(believed/time.Second) * int64(src.clockRate)
	if d := int64(int32(byReports - byPackets)); d > limit || -d > limit {
		return byPackets, true
	}
	return byReports, true
}
