package rtctest

import (
	"encoding/binary"
	"hash/crc32"
)

// A stamp stands at the end of each payload of a camera and tells what the packet is, so that a
// receiver can check what came, whatever became of headers and payload descriptors:
//
//	checked bytes | stamp | CRC-32 of both
//
// The checked bytes are all of the payload but what a forwarder may rewrite.
type stamp struct {
	checked int // bytes before the stamp that the checksum is over

	source   string // at most stampSource bytes
	layer    uint8  // of the simulcast, 0 first
	spatial  uint8
	temporal uint8
	keyframe bool // belongs to a frame that refers to none before it

	picture  uint32 // counted per layer; the frames of one picture's spatial layers share it
	frame    uint32 // counted per layer over all spatial layers
	packet   uint16 // of the frame
	packets  uint16 // that the frame has
	captured int64  // microseconds since 1970

	refs [2]uint16 // how many frames before this the ones are that it refers to; 0: none
	salt uint16    // tells apart what begins anew with the same numbers
}

const (
	stampMagic  = 0xc7a9e15d
	stampSource = 20
	stampSize   = 4 + 2 + 4 + 4 + 4 + 2 + 2 + 8 + 4 + 2 + 1 + stampSource + 4
)

// append appends the stamp and the checksum to a payload. s.checked need not be set: the checksum is
// over all from offset from.
func (s *stamp) append(payload []byte, from int) []byte {
	s.checked = len(payload) - from
	b := binary.BigEndian.AppendUint32(payload, stampMagic)
	b = binary.BigEndian.AppendUint16(b, uint16(s.checked))
	key := byte(0)
	if s.keyframe {
		key = 1
	}
	b = append(b, s.layer, s.spatial, s.temporal, key)
	b = binary.BigEndian.AppendUint32(b, s.picture)
	b = binary.BigEndian.AppendUint32(b, s.frame)
	b = binary.BigEndian.AppendUint16(b, s.packet)
	b = binary.BigEndian.AppendUint16(b, s.packets)
	b = binary.BigEndian.AppendUint64(b, uint64(s.captured))
	b = binary.BigEndian.AppendUint16(b, s.refs[0])
	b = binary.BigEndian.AppendUint16(b, s.refs[1])
	b = binary.BigEndian.AppendUint16(b, s.salt)
	var name [stampSource]byte
	b = append(b, byte(copy(name[:], s.source)))
	b = append(b, name[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
}

// parse reads the stamp of a payload. stamped says that there is one, intact that the payload is
// as it was sent.
func (s *stamp) parse(payload []byte) (stamped, intact bool) {
	at := len(payload) - stampSize
	if at < 0 || binary.BigEndian.Uint32(payload[at:]) != stampMagic {
		return false, false
	}
	b := payload[at+4:]
	s.checked = int(binary.BigEndian.Uint16(b))
	s.layer, s.spatial, s.temporal, s.keyframe = b[2], b[3], b[4], b[5] == 1
	s.picture = binary.BigEndian.Uint32(b[6:])
	s.frame = binary.BigEndian.Uint32(b[10:])
	s.packet = binary.BigEndian.Uint16(b[14:])
	s.packets = binary.BigEndian.Uint16(b[16:])
	s.captured = int64(binary.BigEndian.Uint64(b[18:]))
	s.refs = [2]uint16{binary.BigEndian.Uint16(b[26:]), binary.BigEndian.Uint16(b[28:])}
	s.salt = binary.BigEndian.Uint16(b[30:])
	name := b[33 : 33+stampSource]
	if s.checked > at || int(b[32]) > stampSource {
		return true, false
	}
	if string(name[:b[32]]) != s.source {
		s.source = string(name[:b[32]])
	}
	sum := len(payload) - 4
	return true, crc32.ChecksumIEEE(payload[at-s.checked:sum]) == binary.BigEndian.Uint32(payload[sum:])
}
