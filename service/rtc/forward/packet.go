package forward

import (
	"time"

	"rtcd/service/rtc/codec"
)

// packet is a decrypted packet that waits for the end of its batch, or is kept in a history.
type packet struct {
	// bytes end with the payload. What is before it is room for the header of each receiver.
	bytes []byte
	head  int // where the payload begins

	elements  []byte        // header extensions for receivers: kind, length and value of each
	number    uint64        // extended sequence number, in its layer
	timestamp uint32        // in its layer
	captured  time.Duration // of a video: when its frame was, by the clocks of the sender's reports
	desc      codec.Descriptor
	start     bool  // of a video: it begins a frame
	layer     uint8 // that it is of
	source    uint8 // which of the sources of the layer, counted
	flags     uint8 // first byte of the header: the padding bit
	marker    uint8 // second byte of the header: the marker bit
	redundant bool  // its payload is RED (RFC 2198)
	next      int   // index of the next packet of the run; 0: none
}

func (p *packet) payload() []byte { return p.bytes[p.head:] }

// media returns the payload without padding, which was checked: what says what is in a packet does not
// lie in its padding, nor is padding written over.
func (p *packet) media() []byte {
	b := p.payload()
	if p.flags&0x20 == 0 || len(b) == 0 {
		return b
	}
	return b[:max(0, len(b)-int(b[len(b)-1]))]
}

// octets returns the length of the payload.
func (p *packet) octets() int { return len(p.bytes) - p.head }

// Kinds of header extensions that are passed on, under the number that each receiver agreed on.
const (
	kindAudioLevel = iota
	kindRotation
	kindDelay
	kindCapture
	kindDependency
	numKinds
)

// Room before the payload for what we write into a header ourselves.
const (
	transportRoom = 3 // transport-wide-cc, one-byte header included
	sendTimeRoom  = 4 // abs-send-time
	maxMID        = 8 // bytes; of a longer MID receivers are not told
	repairRoom    = 2 // number of the packet that is repaired (RFC 4588 section 4)
	maxElements   = 224
)

// passed lists the ids of the extensions that are passed on, by kind.
func (e *Extensions) passed() [numKinds]uint8 {
	return [numKinds]uint8{
		kindAudioLevel: e.AudioLevel,
		kindRotation:   e.Rotation,
		kindDelay:      e.Delay,
		kindCapture:    e.Capture,
		kindDependency: e.Dependency,
	}
}

// element returns the value of a header extension of that kind, nil if there is none.
func (p *packet) element(kind uint8) []byte {
	for e := p.elements; len(e) > 0; e = e[2+int(e[1]):] {
		if e[0] == kind {
			return e[2 : 2+int(e[1])]
		}
	}
	return nil
}

// kindOf returns the kind of the extension with that id in a sender's section.
func kindOf(ids *[numKinds]uint8, id uint8) (kind uint8, ok bool) {
	for k, have := range ids {
		if have == id {
			return uint8(k), true
		}
	}
	return 0, false
}

// place makes room before the payload of the decrypted packet b. Of a sender's header that is too
// short the payload moves into the place of the tag, or, if that is too short as well, all moves to
// spill.
func (r *reader) place(plain []byte, tag, payload, room int) (bytes []byte, head int) {
	if payload >= room {
		return plain[payload-room:], room
	}
	if n := room - payload; n <= tag {
		end := len(plain) + n
		copy(plain[room:end], plain[payload:])
		return plain[:end], room
	}
	at := len(r.spill)
	n := room + len(plain) - payload
	if cap(r.spill)-at < n {
		// What is in the old one stays there until the batch is sent.
		r.spill, at = make([]byte, 0, max(2*cap(r.spill), 16<<10)), 0
	}
	r.spill = r.spill[:at+n]
	bytes = r.spill[at : at+n : at+n]
	copy(bytes[room:], plain[payload:])
	return bytes, room
}
