package rewrite

// keptEpochs is how many changes of the offset are remembered for packets that come late.
const keptEpochs = 32

// Stream maps the numbers of packets, or of pictures, of a source of which parts are left out, put
// in or exchanged for those of another source, to numbers without gaps of our making. Gaps that
// the network made stay: packets that come late find their place, also if others were left out
// meanwhile. No number is given to two packets, provided that none is mapped twice.
//
// Numbers are extended to 64 bits by the caller. The zero Stream is ready for use.
type Stream struct {
	started, renew bool
	newest         uint64 // of the source, mapped or left out
	next           uint64 // that the source's number after newest becomes

	// epochs[(n-1)%keptEpochs] is the current one; those before it reach up to where the next begins.
	epochs [keptEpochs]epoch
	n      int
}

// epoch is a range of the source's numbers with one offset.
type epoch struct {
	from   uint64
	offset uint64 // modulo 2^64
}

// Begin makes the first packet mapped get that number, instead of the one it has.
func (s *Stream) Begin(number uint64) {
	if !s.started {
		s.started, s.renew, s.next = true, true, number
	}
}

// Map returns the number that packet number n of the source is sent under. It reports false for a
// packet from before the source was taken, or so late that its place is forgotten.
func (s *Stream) Map(n uint64) (number uint64, ok bool) {
	if !s.started || s.renew {
		if !s.started {
			s.next = n
		}
		s.started, s.renew = true, false
		s.newest, s.n = n, 0
		s.push(n, s.next-n)
		s.next++
		return s.next - 1, true
	}
	number, ok = s.lookup(n)
	if ok && n > s.newest {
		s.newest, s.next = n, number+1
	}
	return number, ok
}

// Drop notes that packet number n of the source is left out. If others after it were sent already,
// its number was kept free for it: then it is returned as a hole, which something else should
// fill so that the receiver does not wait for it.
func (s *Stream) Drop(n uint64) (number uint64, hole bool) {
	if !s.started || s.renew {
		return 0, false
	}
	if n <= s.newest {
		return s.lookup(n)
	}
	number, _ = s.lookup(n) // the number that the packet after it gets
	s.newest, s.next = n, number
	s.push(n+1, number-(n+1))
	return 0, false
}

// Insert returns a number for something that is put in after the newest packet. It reports false
// before the first packet, and when the source was just exchanged.
func (s *Stream) Insert() (number uint64, ok bool) {
	if !s.started || s.renew {
		return 0, false
	}
	number = s.next
	s.next++
	s.push(s.newest+1, s.next-(s.newest+1))
	return number, true
}

// Switch says that the next packet mapped is of another source: it gets the number after the
// highest one given, and packets before it are not mapped.
func (s *Stream) Switch() { s.renew = s.started }

// lookup returns the number of n by the epoch it is in.
func (s *Stream) lookup(n uint64) (number uint64, ok bool) {
	for i := s.n - 1; i >= 0 && i >= s.n-keptEpochs; i-- {
		if e := &s.epochs[i%keptEpochs]; n >= e.from {
			return n + e.offset, true
		}
	}
	return 0, false
}

// push begins an epoch, in the place of the current one if that has no packets.
func (s *Stream) push(from, offset uint64) {
	if s.n > 0 {
		if e := &s.epochs[(s.n-1)%keptEpochs]; e.from+1 == from && e.from == s.newest || e.from == from {
			*e = epoch{from, offset}
			return
		}
	}
	s.epochs[s.n%keptEpochs] = epoch{from, offset}
	s.n++
}

// Unwrapper extends numbers of few bits to 64, each to what is closest to the newest one (RFC 3550
// appendix A.1). The zero Unwrapper is ready for use.
type Unwrapper struct {
	started bool
	newest  uint64
}

// Unwrap returns the extension of n, which has that many bits.
func (u *Unwrapper) Unwrap(n uint16, bits uint) uint64 {
	if !u.started {
		u.started = true
		u.newest = first | uint64(n)
		return u.newest
	}
	size := uint64(1) << bits
	diff := (uint64(n) - u.newest) & (size - 1)
	out := u.newest + diff
	if diff >= size/2 {
		out -= size
	}
	u.newest = max(u.newest, out)
	return out
}

// Offset maps counters of few bits that only change by an exchange of the source, modulo their size.
// The zero Offset is ready for use.
type Offset struct {
	started, renew bool
	offset, last   uint16
}

// Map returns what n becomes; newest says that it is of the newest picture so far.
func (o *Offset) Map(n uint16, newest bool) uint16 {
	if o.renew {
		o.offset, o.renew = o.last+1-n, false
	}
	if out := n + o.offset; newest || !o.started {
		o.started, o.last = true, out
	}
	return n + o.offset
}

// Switch says that the next number is of another source: it follows the last one.
func (o *Offset) Switch() { o.renew = o.started }
