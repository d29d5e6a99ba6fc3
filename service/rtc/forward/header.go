package forward

import "encoding/binary"

const (
	fixedHeader = 12 // RTP header without CSRCs and extension (RFC 3550 section 5.1)

	// twccBlock is what we add to it: a one-byte extension block (RFC 8285 section 4.2) with the
	// transport-wide sequence number alone.
	twccBlock = 8

	maxExtension = 256  // bytes of an extension block that are looked at; longer is refused
	maxPacket    = 1500 // bytes of an SRTP packet; what we add to it still fits a slot
	maxOneByteID = 14

	profileOneByte = 0xBEDE
	profileTwoByte = 0x1000 // the low four bits are for the application
)

// header is an RTP header, read in place.
type header struct {
	pt        uint8
	marker    bool
	padding   bool
	seq       uint16
	timestamp uint32
	ssrc      uint32
	profile   uint16 // of the extension block; 0 if there is none
	extension int    // offset of the elements
	payload   int    // offset of the payload, also the end of the elements
}

// parse reads the header of b. It refuses CSRCs, which no endpoint sends, and long extensions.
func (h *header) parse(b []byte) bool {
	if len(b) < fixedHeader || b[0]>>6 != 2 || b[0]&0x0f != 0 {
		return false
	}
	h.padding = b[0]&0x20 != 0
	h.marker = b[1]&0x80 != 0
	h.pt = b[1] & 0x7f
	h.seq = binary.BigEndian.Uint16(b[2:])
	h.timestamp = binary.BigEndian.Uint32(b[4:])
	h.ssrc = binary.BigEndian.Uint32(b[8:])
	h.profile, h.extension, h.payload = 0, fixedHeader, fixedHeader
	if b[0]&0x10 == 0 {
		return true
	}
	if len(b) < fixedHeader+4 {
		return false
	}
	h.profile = binary.BigEndian.Uint16(b[12:])
	length := int(binary.BigEndian.Uint16(b[14:])) * 4
	h.extension = fixedHeader + 4
	h.payload = h.extension + length
	return length <= maxExtension && h.payload <= len(b)
}

// element returns the extension element with the given id, nil if there is none. The last of
// several is as good as any.
func (h *header) element(b []byte, id uint8) []byte {
	var found []byte
	if id != 0 {
		h.elements(b, func(have uint8, value []byte) {
			if have == id {
				found = value
			}
		})
	}
	return found
}

// elements calls visit with each extension element of b, up to the first malformed one.
func (h *header) elements(b []byte, visit func(id uint8, value []byte)) {
	oneByte := h.profile == profileOneByte
	if !oneByte && h.profile&0xfff0 != profileTwoByte {
		return
	}
	for rest := b[h.extension:h.payload]; len(rest) > 0; {
		if rest[0] == 0 { // padding
			rest = rest[1:]
			continue
		}
		id, length, start := rest[0], 0, 2
		switch {
		case oneByte:
			id, length, start = rest[0]>>4, int(rest[0]&0x0f)+1, 1
			if id == 0 || id > maxOneByteID {
				return
			}
		case len(rest) < 2:
			return
		default:
			length = int(rest[1])
		}
		if len(rest) < start+length {
			return
		}
		visit(id, rest[start:start+length])
		rest = rest[start+length:]
	}
}

// paddingFits reports whether the padding count in the last byte of the decrypted packet b is
// possible (RFC 3550 section 5.1).
func (h *header) paddingFits(b []byte) bool {
	if !h.padding {
		return true
	}
	if len(b) <= h.payload {
		return false
	}
	count := int(b[len(b)-1])
	return count > 0 && count <= len(b)-h.payload
}

// isRTCP tells RTCP from RTP on one port (RFC 5761 section 4).
func isRTCP(b []byte) bool { return len(b) > 1 && b[1] >= 192 && b[1] <= 223 }
