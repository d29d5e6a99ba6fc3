package netio

import (
	"encoding/binary"
	"time"
)

// kind is what a datagram claims to be (RFC 7983, updated by RFC 9443).
type kind uint8

const (
	kindOther kind = iota // none of the below, or of a wrong length
	kindMedia             // SRTP or SRTCP
	kindSTUN
	kindDTLS
	kindAlert // DTLS with a plaintext alert in it
)

const (
	stunHeader   = 20
	stunCookie   = 0x2112A442
	minMedia     = 12 // an RTP header; an SRTCP packet with its index and tag is longer
	recordHeader = 13 // of DTLS 1.2
	recordAlert  = 21
)

// classify says what b is, by its first byte and by lengths that must agree with each other. It
// looks at nothing that would take state or keys to judge.
func classify(b []byte) kind {
	if len(b) < minMedia {
		return kindOther
	}
	switch first := b[0]; {
	case first >= 128 && first <= 191:
		return kindMedia
	case first <= 3:
		if isSTUN(b) {
			return kindSTUN
		}
	case first >= 20 && first <= 63:
		return classifyDTLS(b)
	}
	return kindOther
}

// isSTUN checks the header of RFC 8489 section 5: the cookie, and a length that covers the rest
// of the datagram in whole words.
func isSTUN(b []byte) bool {
	return len(b) >= stunHeader && b[0] <= 3 &&
		binary.BigEndian.Uint32(b[4:]) == stunCookie &&
		int(binary.BigEndian.Uint16(b[2:])) == len(b)-stunHeader && len(b)%4 == 0
}

// classifyDTLS walks the records of RFC 6347 section 4.1. They must fill the datagram to its last
// byte. The short headers of DTLS 1.3 (first byte 32 to 63) are refused: we speak DTLS 1.2.
func classifyDTLS(b []byte) kind {
	result := kindDTLS
	for len(b) > 0 {
		if len(b) < recordHeader || b[0] < 20 || b[0] > 31 || b[1] != 0xfe {
			return kindOther
		}
		length := int(binary.BigEndian.Uint16(b[11:]))
		if length == 0 || length > len(b)-recordHeader {
			return kindOther
		}
		if epoch := binary.BigEndian.Uint16(b[3:]); b[0] == recordAlert && epoch == 0 {
			result = kindAlert
		}
		b = b[recordHeader+length:]
	}
	return result
}

// A receiver sorts the datagrams that one goroutine reads from a UDP socket.
type receiver struct {
	mux    *Mux
	queue  *controlQueue
	conn   *packetConn // nil: nobody says which agents there are
	local  uint16      // of the paths
	reader Reader
	out    *Batch
	counts rxCounts

	now time.Duration // of this batch; 0: not asked for yet

	own      Path // that the socket is connected to, if it is
	released bool // what is not of own belongs to another process
	foreign  bool // what comes was passed on already
}

// datagram takes one datagram. b must stay valid until flush returns.
func (r *receiver) datagram(b []byte, from Path) {
	if r.released && from != r.own && !r.foreign {
		r.mux.strayed(b, from)
		return
	}
	r.counts.packets++
	r.counts.bytes += uint64(len(b))
	k := classify(b)
	if k == kindOther {
		r.counts.drop(DropMalformed)
		return
	}
	known := r.reader.Known(from)
	switch {
	case k == kindMedia && known:
		r.counts.media++
		r.reader.Receive(b, from)
	case k == kindMedia:
		r.counts.drop(DropUnknownMedia)
	case k == kindAlert:
		// A plaintext alert can come from anybody who sends with the endpoint's address, and would end
		// the handshake, or later the association. The honest end of a handshake is missed with it:
		// then the deadline of connecting ends the session.
		r.counts.drop(DropAlert)
	case !known && !r.allow(k, b, from):
	case !r.queue.push(b, from):
		r.counts.drop(DropControlQueue)
	default:
		r.counts.control++
	}
}

func (r *receiver) allow(k kind, b []byte, from Path) bool {
	if r.now == 0 {
		r.now = r.mux.now()
	}
	var name []byte
	if k == kindSTUN && r.conn != nil {
		name = r.conn.agent(b)
	}
	why, ok := r.mux.budgets.allow(from, name, r.now)
	if !ok {
		r.counts.drop(why)
		return false
	}
	if name == nil && isCheck(k, b) && !r.foreign && r.conn != nil {
		r.mux.strayed(b, from) // it may name an agent of another process
	}
	return true
}

// isCheck reports whether b is a binding request: what ICE's checks are.
func isCheck(k kind, b []byte) bool { return k == kindSTUN && b[0] == 0 && b[1] == 1 }

// flush ends a batch of datagrams.
func (r *receiver) flush() {
	r.reader.Flush()
	r.out.Flush()
	r.mux.counters.addRx(&r.counts)
	r.now = 0
}
