package forward

import (
	"encoding/binary"
	"time"

	"rtcd/service/rtc/netio"
)

const (
	lossWindow     = 512                    // packets behind the newest one that are asked for
	restartedBy    = 1 << 10                // packets behind it that mean that the numbers begin afresh
	maxAsks        = 5                      // for one packet
	reorderPackets = 3                      // newer ones, after which a packet is not merely late
	reorderTime    = 20 * time.Millisecond  // after which it is not either
	askAgain       = 100 * time.Millisecond // after the first time; each time that much later
	askEvery       = 10 * time.Millisecond  // between two NACKs for one stream, at least
)

// losses knows which packets of a stream are missing, so that its sender can be asked for them.
// It is guarded by the peer's mu.
type losses struct {
	started bool
	newest  uint16
	asked   time.Duration // when the last NACK was made
	n       int
	missing [lossWindow]missing // n of them, by number
}

// missing is a packet that has not come.
type missing struct {
	seq   uint16
	asks  uint8
	since time.Duration // when it was found missing, or asked for last
}

// note notes that packet seq came.
func (l *losses) note(seq uint16, now time.Duration) {
	if !l.started {
		l.started, l.newest = true, seq
		return
	}
	ahead := seq - l.newest
	if ahead == 0 || ahead >= 1<<15 {
		if l.found(seq); -ahead > restartedBy {
			l.newest, l.n = seq, 0
		}
		return
	}
	if ahead > lossWindow {
		l.n = 0 // a gap that wide is not filled by asking
	} else {
		l.forget(lossWindow - ahead)
		for missed := l.newest + 1; missed != seq; missed++ {
			l.missing[l.n] = missing{seq: missed, since: now}
			l.n++
		}
	}
	l.newest = seq
}

// found takes seq off the list.
func (l *losses) found(seq uint16) {
	for i, m := range l.missing[:l.n] {
		if m.seq == seq {
			copy(l.missing[i:], l.missing[i+1:l.n])
			l.n--
			return
		}
	}
}

// forget takes those off the list that are further than distance behind the newest packet.
func (l *losses) forget(distance uint16) {
	i := 0
	for i < l.n && l.newest-l.missing[i].seq > distance {
		i++
	}
	l.n = copy(l.missing[:], l.missing[i:l.n])
}

// due reports whether it is time to ask for m, or to give it up.
func (l *losses) due(m *missing, now time.Duration) bool {
	if m.asks == 0 {
		return l.newest-m.seq >= reorderPackets || now-m.since >= reorderTime
	}
	return now-m.since >= time.Duration(m.asks)*askAgain
}

// appendNACK appends a NACK for what is to be asked for now (RFC 4585 section 6.2.1), nothing if
// that is nothing. Packets that were asked for too often are given up.
func (l *losses) appendNACK(b []byte, sender, media uint32, now time.Duration) []byte {
	if l.n == 0 || l.asked != 0 && now-l.asked < askEvery {
		return b
	}
	const span = 16 // packets after the first one that an entry can tell of
	start, kept := len(b), 0
	entries, first, mask := 0, uint16(0), uint16(0) // the last one of them
	for _, m := range l.missing[:l.n] {
		if l.due(&m, now) {
			if m.asks == maxAsks {
				continue
			}
			m.asks++
			m.since = now
			if entries == 0 {
				b = append(b, 0x80|formatNACK, typeRTPFB, 0, 0)
				b = binary.BigEndian.AppendUint32(b, sender)
				b = binary.BigEndian.AppendUint32(b, media)
			}
			if after := m.seq - first; entries > 0 && after <= span {
				mask |= 1 << (after - 1)
				binary.BigEndian.PutUint16(b[len(b)-2:], mask)
			} else {
				first, mask = m.seq, 0
				entries++
				b = binary.BigEndian.AppendUint32(b, uint32(first)<<16)
			}
		}
		l.missing[kept] = m
		kept++
	}
	l.n = kept
	if entries > 0 {
		setLength(b[start:])
		l.asked = max(1, now)
	}
	return b
}

// misses reports whether packet seq is known to be missing.
func (l *losses) misses(seq uint16) bool {
	for _, m := range l.missing[:l.n] {
		if m.seq == seq {
			return true
		}
	}
	return false
}

// askMissing asks the sender for the packets that are missing of the streams that feed the
// publication, if it is time to and somebody is there for them. b is memory for the request; it is
// returned.
func (pub *Publication) askMissing(out *netio.Batch, now time.Duration, b []byte, c *counts) []byte {
	if len(*pub.subs.Load()) == 0 {
		return b
	}
	watched := uint8(1)
	if len(pub.layers) > 1 {
		watched = pub.watched()
	}
	for i, l := range pub.layers {
		b = b[:0]
		pub.peer.mu.Lock()
		if src := l.source; src != nil && src.losses != nil && watched&(1<<i) != 0 {
			b = src.losses.appendNACK(b, pub.peer.ssrc, src.ssrc, now)
		}
		pub.peer.mu.Unlock()
		if len(b) > 0 {
			pub.peer.writeRTCP(out, b, c)
			c.NACKs++
			c.dirty = true
		}
	}
	return b
}
