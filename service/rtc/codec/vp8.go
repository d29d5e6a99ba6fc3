package codec

import "encoding/binary"

// Bits of the VP8 payload descriptor (RFC 7741 section 4.2).
const (
	vp8X = 0x80 // extension follows
	vp8S = 0x10 // start of a partition
	vp8I = 0x80 // picture ID follows
	vp8L = 0x40 // TL0PICIDX follows
	vp8T = 0x20 // TID counts
	vp8K = 0x10 // KEYIDX counts
	vp8M = 0x80 // picture ID has 15 bits
	vp8Y = 0x20 // layer sync
)

// parseVP8 reads a payload of VP8.
func (p *Parser) parseVP8(payload []byte, d *Descriptor) {
	if len(payload) == 0 {
		return
	}
	head := payload[0]
	start := head&vp8S != 0 && head&7 == 0 // of partition 0
	sync := false
	var pic Picture
	n := 1
	if head&vp8X != 0 {
		var ok bool
		if pic, sync, n, ok = vp8Extension(payload, d); !ok {
			*d = Descriptor{}
			return
		}
	}
	if start {
		frame := payload[n:]
		if len(frame) == 0 {
			*d = Descriptor{}
			return
		}
		if frame[0]&1 == 0 { // a keyframe, or no VP8 at all
			if !vp8Keyframe(frame) {
				p.unprove()
			} else {
				p.proven = true
				d.Keyframe = true
			}
		}
	}
	if !p.proven {
		*d = Descriptor{}
		return
	}
	d.Start, d.Picture = start, pic
	switch {
	case d.Keyframe:
		d.Switch = everything
	case start && sync:
		for t := uint8(1); t <= d.Temporal; t++ {
			d.Switch |= bit(0, t)
		}
	}
	p.understood(d)
}

// vp8Extension reads the extended descriptor: the temporal layer into d, the picture ID, the layer
// sync bit, and how long all of the descriptor is.
func vp8Extension(payload []byte, d *Descriptor) (pic Picture, sync bool, n int, ok bool) {
	if len(payload) < 2 {
		return
	}
	has := payload[1]
	n = 2
	if has&vp8I != 0 {
		var size int
		if pic, size = picture(payload, n); size == 0 {
			return
		}
		n += size
	}
	if has&vp8L != 0 {
		if n >= len(payload) {
			return
		}
		pic.TL0, pic.TL0At = payload[n], uint8(n)
		n++
	}
	if has&(vp8T|vp8K) != 0 {
		if n >= len(payload) {
			return
		}
		if has&vp8T != 0 {
			d.Temporal = payload[n] >> 6
			sync = payload[n]&vp8Y != 0
		}
		n++
	}
	return pic, sync, n, n <= len(payload)
}

// picture reads the picture ID at an offset, which has the same form in VP8 and VP9. size is 0 if
// it is cut off.
func picture(payload []byte, at int) (pic Picture, size int) {
	switch {
	case at >= len(payload):
		return pic, 0
	case payload[at]&vp8M == 0:
		return Picture{ID: uint16(payload[at]), At: uint8(at)}, 1
	case at+1 >= len(payload):
		return pic, 0
	}
	return Picture{ID: binary.BigEndian.Uint16(payload[at:]) & 0x7fff, At: uint8(at), Wide: true}, 2
}

// vp8Keyframe reports whether frame begins as a keyframe does (RFC 6386 section 9.1).
func vp8Keyframe(frame []byte) bool {
	if len(frame) < 10 || frame[0]&1 != 0 {
		return false
	}
	version := frame[0] >> 1 & 7
	firstPartition := int(frame[0])>>5 | int(frame[1])<<3 | int(frame[2])<<11
	width := binary.LittleEndian.Uint16(frame[6:]) & 0x3fff
	height := binary.LittleEndian.Uint16(frame[8:]) & 0x3fff
	return version <= 3 && firstPartition > 0 && width > 0 && height > 0 &&
		frame[3] == 0x9d && frame[4] == 0x01 && frame[5] == 0x2a
}
