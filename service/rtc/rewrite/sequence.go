// Package rewrite numbers the packets of a stream so that a receiver sees neither what was left
// out on purpose nor a change of source.
//
// It is pure: no goroutine, no lock, no clock.
package rewrite

// restartDistance is how far a number must lie behind the newest one to mean that the source
// started its numbering afresh. A packet that is merely late is never that late: the replay
// window of SRTP is 512 packets (RFC 3711 section 3.3.2).
const restartDistance = 1 << 10

// Sequence maps the sequence numbers of a source to those that are sent. Numbers pass as they
// come until packets are dropped on purpose; from then on they are lowered so that the gap is
// closed, while gaps that the network made stay. No number is ever given to two packets,
// provided that no packet is mapped twice.
//
// Numbers are extended to 64 bits, so that they can be compared across roll-overs (RFC 3550
// appendix A.1). The low 16 bits are those of the packet. The zero Sequence is ready for use.
type Sequence struct {
	started bool
	renew   bool   // the next packet mapped is the first of a new numbering
	dropped bool   // packets were dropped since the last one mapped in order
	newest  uint64 // newest source number seen, mapped or dropped
	floor   uint64 // source numbers below it are not mapped any more
	last    uint64 // highest number given
	offset  uint64 // what to add to a source number, modulo 2^64
}

// first is the extension of the first number. It leaves room below for packets that are older
// than the first one seen.
const first = 1 << 32

// Map returns the number under which packet seq of the source is to be sent. It reports false if
// the packet may not be sent: it is older than packets that were dropped, or than a change of
// source, and its number may have been given away.
func (s *Sequence) Map(seq uint16) (number uint64, ok bool) {
	switch {
	case !s.started:
		s.started = true
		s.newest = first | uint64(seq)
		s.last = s.newest
		s.floor = s.newest - restartDistance
		if s.renew || s.dropped {
			s.floor = s.newest
		}
		s.renew, s.dropped = false, false
		return s.last, true
	case s.renew:
		return s.rebase(seq), true
	}
	in, restarted := s.extend(seq)
	if restarted {
		return s.rebase(seq), true
	}
	if in < s.floor {
		return 0, false
	}
	if in > s.newest {
		if s.dropped {
			// The dropped ones end at newest: what follows it follows the last number given.
			s.dropped = false
			s.floor = s.newest + 1
			s.offset = s.last - s.newest
		}
		s.newest = in
	}
	number = in + s.offset
	s.last = max(s.last, number)
	return number, true
}

// Drop notes that packet seq of the source is left out on purpose: the packets after it close
// up. Packets older than it that come later are not mapped.
func (s *Sequence) Drop(seq uint16) {
	if !s.started || s.renew {
		s.dropped = true
		return
	}
	in, restarted := s.extend(seq)
	switch {
	case restarted:
		s.renew = true
	case in > s.newest:
		s.newest = in
		s.floor = in + 1
		s.dropped = true
	}
}

// Switch says that the next packet comes from another source, or from the same one numbered
// afresh. It gets the number after the highest one given.
func (s *Sequence) Switch() { s.renew = true }

// rebase gives seq the number after the last one and maps from there on.
func (s *Sequence) rebase(seq uint16) uint64 {
	s.renew, s.dropped = false, false
	s.newest = first | uint64(seq)
	s.floor = s.newest
	s.last++
	s.offset = s.last - s.newest
	return s.last
}

// extend returns the 64-bit number of seq: the one closest to the newest. It reports true if seq
// is so far behind that the source must have started afresh.
func (s *Sequence) extend(seq uint16) (in uint64, restarted bool) {
	diff := int16(seq - uint16(s.newest))
	return s.newest + uint64(int64(diff)), diff < -restartDistance
}
