// Package codectest builds payloads and dependency descriptors of synthetic video frames, for
// tests. Their headers are what a sender would write; no decoder could make a picture of them.
package codectest

import "encoding/binary"

// Frame describes a frame, or with VP9 the frame of one layer, to be sent in one packet. What a
// codec has no place for is ignored.
type Frame struct {
	Keyframe bool

	Picture  uint16 // VP8, VP9: picture ID, of 15 bits
	NoID     bool   // VP8, VP9: without picture ID
	ShortID  bool   // VP8, VP9: of 7 bits
	Layers   bool   // VP8: with TL0 and TID; VP9: with TID, SID and, unless Flexible, TL0
	TL0      uint8  // VP8, VP9
	Temporal uint8  // VP8, VP9
	Sync     bool   // VP8: Y, VP9: U
	Spatial  uint8  // VP9
	Inter    bool   // VP9: D, predicted from the spatial layer below
	Flexible bool   // VP9: F
	Diffs    []byte // VP9, if Flexible: distances to the pictures this one refers to
	Spatials uint8  // VP9: not 0 to add a scalability structure with so many layers, to keyframes

	// VP9: P of a frame that is none of Keyframe. It is also wanted for upper layers of a
	// keyframe's picture, where it is false.
	Predicted bool

	// First and Last packet of the frame; VP8 and VP9 only, with others a packet is a frame.
	// Parts after the first begin right with Body.
	First, Last bool

	Body []byte // of the frame, after what its header needs
}

// VP8 returns the payload of a packet (RFC 7741).
func VP8(f Frame) []byte {
	b := []byte{0}
	if f.First {
		b[0] |= 0x10
	}
	if !f.NoID || f.Layers {
		b[0] |= 0x80
		b = append(b, 0)
	}
	if !f.NoID {
		b[1] |= 0x80
		b = appendID(b, f)
	}
	if f.Layers {
		b[1] |= 0x60
		last := f.Temporal << 6
		if f.Sync {
			last |= 0x20
		}
		b = append(b, f.TL0, last)
	}
	if f.First {
		b = append(b, VP8Frame(f.Keyframe, len(f.Body))...)
	}
	return append(b, f.Body...)
}

// VP8Frame returns how a VP8 frame of 640×360 begins whose first partition has size bytes
// (RFC 6386 section 9.1).
func VP8Frame(keyframe bool, size int) []byte {
	tag := uint32(size+1)<<5 | 1<<4 // shown
	if !keyframe {
		tag |= 1
	}
	b := []byte{byte(tag), byte(tag >> 8), byte(tag >> 16)}
	if keyframe {
		b = append(b, 0x9d, 0x01, 0x2a, 640&0xff, 640>>8, 360&0xff, 360>>8)
	}
	return b
}

func appendID(b []byte, f Frame) []byte {
	if f.ShortID {
		return append(b, byte(f.Picture)&0x7f)
	}
	return binary.BigEndian.AppendUint16(b, 0x8000|f.Picture)
}

// VP9 returns the payload of a packet (RFC 9628).
func VP9(f Frame) []byte {
	b := []byte{0}
	flag := func(set bool, bit byte) {
		if set {
			b[0] |= bit
		}
	}
	predicted := f.Predicted && !f.Keyframe
	structure := f.Keyframe && f.Spatials > 0 && f.First
	flag(!f.NoID, 0x80)
	flag(predicted, 0x40)
	flag(f.Layers, 0x20)
	flag(f.Flexible, 0x10)
	flag(f.First, 0x08)
	flag(f.Last, 0x04)
	flag(structure, 0x02)
	if !f.NoID {
		b = appendID(b, f)
	}
	if f.Layers {
		layer := f.Temporal<<5 | f.Spatial<<1
		if f.Sync {
			layer |= 0x10
		}
		if f.Inter {
			layer |= 0x01
		}
		b = append(b, layer)
		if !f.Flexible {
			b = append(b, f.TL0)
		}
	}
	if f.Flexible && predicted {
		for i, diff := range f.Diffs {
			diff <<= 1
			if i < len(f.Diffs)-1 {
				diff |= 1
			}
			b = append(b, diff)
		}
	}
	if structure {
		b = append(b, (f.Spatials-1)<<5|0x10)
		for s := range f.Spatials {
			b = binary.BigEndian.AppendUint16(b, 160<<s)
			b = binary.BigEndian.AppendUint16(b, 90<<s)
		}
	}
	if f.First {
		b = append(b, VP9Frame(f.Keyframe)...)
	}
	return append(b, f.Body...)
}

// VP9Frame returns how the uncompressed header of a VP9 frame of profile 0 begins.
func VP9Frame(keyframe bool) []byte {
	if keyframe {
		return []byte{0x82, 0x49, 0x83, 0x42, 0x00, 0x27, 0xf0, 0x16, 0x70}
	}
	return []byte{0x86, 0x00}
}

// H264 parameter sets of constrained baseline, level 3.1, 640×360.
var (
	H264SPS = []byte{0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xf0, 0x3c, 0x60, 0xca, 0x80}
	H264PPS = []byte{0x68, 0xce, 0x0f, 0xc8}
)

// H264 returns the payload of a packet with a whole frame (RFC 6184): a STAP-A of parameter sets
// and an IDR slice for a keyframe, else a slice in a single NAL unit.
func H264(keyframe bool, body []byte) []byte {
	if !keyframe {
		return append([]byte{0x41, 0x9a}, body...)
	}
	idr := append([]byte{0x65, 0x88, 0x84}, body...)
	return H264STAP(H264SPS, H264PPS, idr)
}

// H264STAP returns a STAP-A of these NAL units.
func H264STAP(nals ...[]byte) []byte {
	b := []byte{0x78}
	for _, nal := range nals {
		b = binary.BigEndian.AppendUint16(b, uint16(len(nal)))
		b = append(b, nal...)
	}
	return b
}

// AV1SequenceHeader is an OBU without size, of main profile, 640×360, with one operating point.
var AV1SequenceHeader = []byte{0x08, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10}

// AV1 returns the payload of a packet with a whole temporal unit: an OBU element with a sequence
// header, if it is a keyframe, and one with a frame.
func AV1(keyframe bool, body []byte) []byte {
	if !keyframe {
		return append([]byte{0x10, 0x30, 0x30}, body...)
	}
	b := []byte{0x28, byte(len(AV1SequenceHeader))}
	b = append(b, AV1SequenceHeader...)
	return append(append(b, 0x30, 0x10), body...)
}
