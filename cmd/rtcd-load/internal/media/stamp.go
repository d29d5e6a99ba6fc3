// Package media makes the synthetic media of a load run and checks what came of it.
//
// Each payload ends with a Stamp: who sent it, its number, when, which part of which picture it is,
// and a checksum. So a receiver knows of each packet whether it is intact, meant for it, and how long
// it took, whatever a server makes of headers and payload descriptors. Times are of the clock of this
// process, which sends and receives.
package media

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// StampSize is how long a stamp is, in bytes.
const StampSize = 4 + 4 + 4 + 4 + 8 + 4 + 2 + 2 + 1 + 1 + 2 + 4

const stampMagic = 0x6c6f6164 // "load"

// A Stamp stands at the end of each payload.
type Stamp struct {
	Run     uint32        // of the load run, so that those of two are told apart
	Source  uint32        // what sent it, by its number in the ledger
	Number  uint32        // of the packet, counted per layer from 0
	Sent    time.Duration // by Now
	Frame   uint32        // of the picture, counted per layer from 0
	Packet  uint16        // of the picture
	Packets uint16        // that the picture has
	Layer   uint8         // of the simulcast, the cheapest is 0
	Key     bool          // of a keyframe
}

// Why a payload is not one of ours, or not any more.
var (
	ErrNoStamp = errors.New("payload has no stamp")
	ErrChanged = errors.New("payload was changed")
)

var (
	epoch = time.Now()
	table = crc32.MakeTable(crc32.Castagnoli) // has an instruction of its own
)

// Now returns the time since the process began.
func Now() time.Duration { return time.Since(epoch) }

// Append appends the stamp to a payload. The checksum is over all from offset from: a server may
// rewrite what is before.
func (s *Stamp) Append(payload []byte, from int) []byte {
	checked := len(payload) - from
	b := binary.BigEndian.AppendUint32(payload, stampMagic)
	b = binary.BigEndian.AppendUint32(b, s.Run)
	b = binary.BigEndian.AppendUint32(b, s.Source)
	b = binary.BigEndian.AppendUint32(b, s.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Sent))
	b = binary.BigEndian.AppendUint32(b, s.Frame)
	b = binary.BigEndian.AppendUint16(b, s.Packet)
	b = binary.BigEndian.AppendUint16(b, s.Packets)
	key := byte(0)
	if s.Key {
		key = 1
	}
	b = append(b, s.Layer, key)
	b = binary.BigEndian.AppendUint16(b, uint16(checked))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[from:], table))
}

// ParseStamp reads the stamp of a payload and checks it.
func ParseStamp(payload []byte) (Stamp, error) {
	at := len(payload) - StampSize
	if at < 0 || binary.BigEndian.Uint32(payload[at:]) != stampMagic {
		return Stamp{}, ErrNoStamp
	}
	b := payload[at+4:]
	s := Stamp{
		Run:     binary.BigEndian.Uint32(b),
		Source:  binary.BigEndian.Uint32(b[4:]),
		Number:  binary.BigEndian.Uint32(b[8:]),
		Sent:    time.Duration(binary.BigEndian.Uint64(b[12:])),
		Frame:   binary.BigEndian.Uint32(b[20:]),
		Packet:  binary.BigEndian.Uint16(b[24:]),
		Packets: binary.BigEndian.Uint16(b[26:]),
		Layer:   b[28],
		Key:     b[29] == 1,
	}
	checked := int(binary.BigEndian.Uint16(b[30:]))
	sum := len(payload) - 4
	if checked > at || crc32.Checksum(payload[at-checked:sum], table) != binary.BigEndian.Uint32(payload[sum:]) {
		return Stamp{}, ErrChanged
	}
	if s.Layer >= MaxLayers || s.Packet >= s.Packets {
		return Stamp{}, ErrChanged
	}
	return s, nil
}
