package forward

import (
	"encoding/binary"
	"time"
)

const (
	twccWindow    = 512 // packets whose arrival is kept, a power of two
	twccUnit      = 250 * time.Microsecond
	twccReference = 64 * time.Millisecond / twccUnit // units of the reference time
	twccHeader    = 20
	twccMaxStatus = 400 // packets told of in one feedback packet, so that it fits a slot
)

// arrivals remembers when the packets of one transport arrived, by their transport-wide sequence
// numbers, and tells the sender (draft-holmer-rmcat-transport-wide-cc-extensions-01).
type arrivals struct {
	started bool
	newest  uint64 // extended number
	next    uint64 // the first one the next feedback tells of
	seq     [twccWindow]uint64
	at      [twccWindow]int64 // in twccUnit
	count   uint8             // of feedback packets
	media   uint32            // SSRC of the last packet
}

// record notes that packet seq of the SSRC arrived.
func (a *arrivals) record(seq uint16, ssrc uint32, now time.Duration) {
	a.media = ssrc
	if !a.started {
		a.started = true
		a.newest = 1<<32 | uint64(seq)
		a.next = a.newest
	}
	ext := a.newest + uint64(int64(int16(seq-uint16(a.newest))))
	if ext+twccWindow <= a.newest {
		return
	}
	a.newest = max(a.newest, ext)
	a.next = min(a.next, ext) // told to be missing before, now it is here
	if a.newest-a.next >= twccWindow {
		a.next = a.newest - twccWindow + 1
	}
	if slot := &a.seq[ext%twccWindow]; *slot != ext {
		*slot = ext
		a.at[ext%twccWindow] = int64(now / twccUnit)
	}
}

// arrival returns when packet ext arrived.
func (a *arrivals) arrival(ext uint64) (at int64, ok bool) {
	return a.at[ext%twccWindow], a.seq[ext%twccWindow] == ext
}

// pending reports whether there is something to tell.
func (a *arrivals) pending() bool { return a.started && a.next <= a.newest }

// Symbols of packet statuses (section 3.1.1).
const (
	notReceived = 0
	smallDelta  = 1 // one byte: 0 to 63.75 ms
	largeDelta  = 2 // two bytes, signed
)

// appendFeedback appends one feedback packet from the given sender to b. There may be more to
// tell after it. It must be pending.
func (a *arrivals) appendFeedback(b []byte, sender uint32) []byte {
	first := a.next
	base, ok := a.arrival(first)
	for ext := first; !ok; { // the newest has arrived, so this ends
		ext++
		base, ok = a.arrival(ext)
	}
	reference := base / int64(twccReference)

	var symbols [twccMaxStatus]uint8
	var deltas [2 * twccMaxStatus]byte
	n, used := 0, 0
	last := reference * int64(twccReference)
	for ext := first; ext <= a.newest && n < twccMaxStatus; ext++ {
		at, ok := a.arrival(ext)
		delta := at - last
		switch {
		case !ok:
			symbols[n] = notReceived
		case delta >= 0 && delta <= 0xff:
			symbols[n] = smallDelta
			deltas[used] = byte(delta)
			used++
		case delta >= -1<<15 && delta < 1<<15:
			symbols[n] = largeDelta
			binary.BigEndian.PutUint16(deltas[used:], uint16(delta))
			used += 2
		default: // further than a delta reaches: the next packet, with its own reference
			return a.finishFeedback(b, sender, reference, symbols[:n], deltas[:used])
		}
		if ok {
			last = at
		}
		n++
	}
	return a.finishFeedback(b, sender, reference, symbols[:n], deltas[:used])
}

// finishFeedback appends the packet with the given content and advances.
func (a *arrivals) finishFeedback(b []byte, sender uint32, reference int64, symbols []uint8, deltas []byte) []byte {
	start := len(b)
	b = append(b, 0x80|15, 205, 0, 0)
	b = binary.BigEndian.AppendUint32(b, sender)
	b = binary.BigEndian.AppendUint32(b, a.media)
	b = binary.BigEndian.AppendUint16(b, uint16(a.next))
	b = binary.BigEndian.AppendUint16(b, uint16(len(symbols)))
	b = binary.BigEndian.AppendUint32(b, uint32(reference)<<8|uint32(a.count))
	b = appendChunks(b, symbols)
	b = append(b, deltas...)
	if pad := -(len(b) - start) & 3; pad > 0 {
		b[start] |= 0x20
		b = append(b, make([]byte, pad)...)
		b[len(b)-1] = byte(pad)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16((len(b)-start)/4-1))
	a.count++
	a.next += uint64(len(symbols))
	return b
}

// appendChunks appends the symbols as packet status chunks (sections 3.1.3 and 3.1.4): runs
// where they are long, else vectors of seven.
func appendChunks(b []byte, symbols []uint8) []byte {
	const vector = 7
	for len(symbols) > 0 {
		run := 1
		for run < len(symbols) && symbols[run] == symbols[0] {
			run++
		}
		if run >= vector || run == len(symbols) {
			b = binary.BigEndian.AppendUint16(b, uint16(symbols[0])<<13|uint16(run))
			symbols = symbols[run:]
			continue
		}
		chunk := uint16(3) << 14
		n := min(vector, len(symbols))
		for i, s := range symbols[:n] {
			chunk |= uint16(s) << (12 - 2*i)
		}
		b = binary.BigEndian.AppendUint16(b, chunk)
		symbols = symbols[n:]
	}
	return b
}
