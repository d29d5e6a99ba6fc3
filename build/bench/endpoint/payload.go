//go:build linux

package endpoint

import (
	"encoding/binary"
	"hash/crc32"
)

// Kind is a kind of media.
type Kind struct {
	Video bool
	// Every frame is sent as so many packets, of that many bytes of payload on average, so many
	// times a second.
	FramesPerSecond, Packets, Bytes int
}

// PacketsPerSecond is how many packets a sender sends.
func (k Kind) PacketsPerSecond() int { return k.FramesPerSecond * k.Packets }

// sizes returns the lengths of the payloads of frame n: its bytes split about equally, as senders
// do, so that the last ones are one longer. No two frames are of the same size.
func (k Kind) sizes(n uint32, out []int) []int {
	total := k.Packets * k.Bytes
	if k.Video {
		total += total * (int(n*8%21) - 10) / 100
	}
	each, longer := total/k.Packets, total%k.Packets
	out = out[:0]
	for i := range k.Packets {
		size := each
		if i >= k.Packets-longer {
			size++
		}
		out = append(out, size)
	}
	return out
}

// A payload is a descriptor and header of the codec, if it is video, which a server may rewrite; then
// the number of the packet, filler, and a checksum of both.
const (
	vp8Descriptor = 4  // X and S bits, I bit, picture id of 15 bits
	vp8Keyframe   = 10 // frame tag, start code, width, height
	checked       = 8  // number and checksum
)

// appendPayload appends the payload of packet number n, of size bytes.
func appendPayload(b []byte, video bool, n uint32, size int, first, key bool, picture uint16) []byte {
	start := len(b)
	if video {
		descriptor := byte(0x80)
		if first {
			descriptor |= 0x10
		}
		b = append(b, descriptor, 0x80, byte(picture>>8)|0x80, byte(picture))
		switch {
		case first && key:
			b = append(b, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02) // 1280 × 720
		case first:
			b = append(b, 0x11, 0x02, 0x00)
		}
	}
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, n)
	for len(b) < start+size-4 {
		b = append(b, byte(len(b))^byte(n))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[at:]))
}

// packetNumber returns the number of a payload, if its checksum is right.
func packetNumber(b []byte, video bool) (n uint32, ok bool) {
	if video {
		if len(b) < vp8Descriptor+vp8Keyframe {
			return 0, false
		}
		first := b[0]&0x10 != 0
		key := b[vp8Descriptor]&1 == 0
		b = b[vp8Descriptor:]
		switch {
		case first && key:
			b = b[vp8Keyframe:]
		case first:
			b = b[3:]
		}
	}
	if len(b) < checked {
		return 0, false
	}
	end := len(b) - 4
	return binary.BigEndian.Uint32(b), crc32.ChecksumIEEE(b[:end]) == binary.BigEndian.Uint32(b[end:])
}
