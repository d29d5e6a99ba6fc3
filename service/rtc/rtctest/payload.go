package rtctest

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/pion/webrtc/v4"
)

// newPacketizer returns what knows a codec's payloads.
func newPacketizer(mime string) (packetizer, error) {
	switch {
	case strings.EqualFold(mime, webrtc.MimeTypeVP8):
		return vp8{}, nil
	default:
		return nil, fmt.Errorf("make payloads of %s: not known", mime)
	}
}

// vp8 makes payloads of RFC 7741.
type vp8 struct{}

func (vp8) payload(b []byte, f *coded, i, _ int) ([]byte, int) {
	descriptor := byte(0x80) // X
	if i == 0 {
		descriptor |= 0x10 // S
	}
	tid := f.temporal << 6
	if f.sync {
		tid |= 0x20
	}
	b = append(b, descriptor, 0xe0) // I, L, T
	b = binary.BigEndian.AppendUint16(b, 0x8000|f.pictureID)
	b = append(b, f.tl0, tid)
	unchecked := len(b)
	if i == 0 && !f.opaque {
		b = appendVP8Header(b, f.key)
	}
	return b, unchecked
}

func (vp8) dependency(*coded, int, int) []byte { return nil }

// appendVP8Header appends the beginning of a frame (RFC 6386 section 9.1).
func appendVP8Header(b []byte, key bool) []byte {
	if !key {
		return append(b, 0x11, 0x02, 0x00)
	}
	b = append(b, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a)
	b = binary.LittleEndian.AppendUint16(b, 1280)
	return binary.LittleEndian.AppendUint16(b, 720)
}
