package rtctest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/codec/codectest"
)

// newPacketizer returns what knows a codec's payloads.
func newPacketizer(mime string) (packetizer, error) {
	for known, p := range map[string]packetizer{
		webrtc.MimeTypeVP8: vp8{}, webrtc.MimeTypeVP9: vp9{}, webrtc.MimeTypeH264: h264{}, webrtc.MimeTypeAV1: av1{},
	} {
		if strings.EqualFold(mime, known) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("make payloads of %s: not known", mime)
}

// vp8 makes payloads of RFC 7741.
type vp8 struct{}

func (vp8) payload(f *coded, i, _, body int) ([]byte, int) {
	frame := codectest.Frame{
		Keyframe: f.key, Picture: f.pictureID, Layers: true, TL0: f.tl0, Temporal: f.temporal, Sync: f.sync, First: i == 0,
	}
	b := codectest.VP8(frame)
	header := 0
	if i == 0 {
		header = len(codectest.VP8Frame(f.key, body))
		copy(b[len(b)-header:], codectest.VP8Frame(f.key, body))
	}
	return headed(b, header, f.opaque)
}

// vp9 makes payloads of RFC 9628, in non-flexible mode.
type vp9 struct{}

func (vp9) payload(f *coded, i, n, _ int) ([]byte, int) {
	frame := codectest.Frame{
		Keyframe: f.key && f.spatial == 0, Predicted: !f.key, Picture: f.pictureID, Layers: true, TL0: f.tl0,
		Temporal: f.temporal, Sync: f.sync, Spatial: f.spatial, Inter: f.below, Spatials: f.spatials,
		First: i == 0, Last: i == n-1,
	}
	header := 0
	if i == 0 {
		header = len(codectest.VP9Frame(frame.Keyframe))
	}
	return headed(codectest.VP9(frame), header, f.opaque)
}

// headed cuts a payload into descriptor, which a forwarder may rewrite, and the header of the frame.
// Nobody sees that in an opaque one, and then nobody may rewrite anything.
func headed(b []byte, header int, opaque bool) ([]byte, int) {
	descriptor := len(b) - header
	if opaque {
		return b[:descriptor], 0
	}
	return b, descriptor
}

// h264 makes payloads of RFC 6184 with packetization mode 1. The parameter sets of a keyframe of
// several packets are alone in the first, with an SEI message that has the body.
type h264 struct{}

// sliceHeader begins that of a slice with the first macroblock of a picture.
var sliceHeader = []byte{0x88, 0x84}

func (h264) payload(f *coded, i, n, body int) ([]byte, int) {
	const sei, idr, slice, fragment = 6, 5, 1, 28
	reference, kind := byte(0x60), byte(idr)
	if !f.key {
		kind = slice
		if reference = 0x40; f.top {
			reference = 0
		}
	}
	switch {
	case f.opaque:
		return opaquePrefix(), 0
	case f.key && i == 0:
		last := append([]byte{reference | idr}, sliceHeader...)
		if n > 1 {
			last = []byte{sei}
		}
		b := codectest.H264STAP(codectest.H264SPS, codectest.H264PPS)
		b = binary.BigEndian.AppendUint16(b, uint16(len(last)+body))
		return append(b, last...), 0
	case f.key:
		i, n = i-1, n-1
	}
	switch {
	case n == 1:
		return append([]byte{reference | kind}, sliceHeader...), 0
	case i == 0:
		return append([]byte{reference | fragment, 0x80 | kind}, sliceHeader...), 0
	case i == n-1:
		kind |= 0x40
	}
	return []byte{reference | fragment, kind}, 0
}

// av1 makes payloads of the AV1 RTP payload format, section 4.
type av1 struct{}

func (av1) payload(f *coded, i, n, _ int) ([]byte, int) {
	if f.opaque {
		return opaquePrefix(), 0
	}
	const before, after, one, two, sequence = 0x80, 0x40, 0x10, 0x20, 0x08
	aggregation := byte(one)
	if i > 0 {
		aggregation |= before
	}
	if i < n-1 {
		aggregation |= after
	}
	if i > 0 {
		return []byte{aggregation}, 0
	}
	b := []byte{aggregation}
	if f.key && f.spatial == 0 {
		b[0] = aggregation&^one | two | sequence
		b = append(b, byte(len(codectest.AV1SequenceHeader)))
		b = append(b, codectest.AV1SequenceHeader...)
	}
	const frame, extension, key, inter = 0x30, 0x04, 0x10, 0x30
	if f.spatials > 1 || f.temporal > 0 {
		b = append(b, frame|extension, f.temporal<<5|f.spatial<<3)
	} else {
		b = append(b, frame)
	}
	if f.key && f.spatial == 0 {
		return append(b, key), 0
	}
	return append(b, inter), 0
}

// opaquePrefix is what a payload begins with that shows nothing at all.
func opaquePrefix() []byte {
	return binary.BigEndian.AppendUint64(nil, rand.Uint64())
}
