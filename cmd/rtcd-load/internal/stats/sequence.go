package stats

// window is how many packets behind the newest one still counts when it comes.
const window = 4096

// A Sequence follows the packets of one stream by the numbers that their sender counted them with,
// each number once and without end. It is not for concurrent use.
type Sequence struct {
	seen    [window / 64]uint64
	started bool
	first   uint32
	newest  uint32
	unique  uint64
	closed  uint64 // packets expected of runs that are over
	skipped uint64 // packets that are not expected although others before and after them are
}

// An Arrival is what a packet is to its stream.
type Arrival struct {
	Fresh     bool // it had not come before
	Duplicate bool // it had
	Late      bool // it is too old to tell
	Reordered bool // fresh, but a later one came first
	Advanced  int  // how many packets more than before are expected to have come
}

// Add takes a packet's number.
func (s *Sequence) Add(n uint32) Arrival {
	switch {
	case !s.started:
		s.started, s.first, s.newest = true, n, n
		s.mark(n)
		return Arrival{Fresh: true, Advanced: 1}
	case n > s.newest:
		step := n - s.newest
		if step >= window {
			s.seen = [window / 64]uint64{}
		} else {
			for i := s.newest + 1; i != n; i++ {
				s.seen[i%window/64] &^= 1 << (i % 64)
			}
		}
		s.newest = n
		s.mark(n)
		return Arrival{Fresh: true, Advanced: int(step)}
	case s.newest-n >= window:
		return Arrival{Late: true}
	case n >= s.first && s.seen[n%window/64]&(1<<(n%64)) != 0:
		return Arrival{Duplicate: true}
	}
	a := Arrival{Fresh: true, Reordered: true}
	if n < s.first { // the first ones overtook each other
		a.Advanced = int(s.first - n)
		for i := n + 1; i != s.first; i++ {
			s.seen[i%window/64] &^= 1 << (i % 64)
		}
		s.first = n
	}
	s.mark(n)
	return a
}

func (s *Sequence) mark(n uint32) {
	s.seen[n%window/64] |= 1 << (n % 64)
	s.unique++
}

// Break says that the stream goes on with a number that nothing is expected before: what came so
// far is a run of its own.
func (s *Sequence) Break() {
	s.closed, s.skipped = s.Expected(), 0
	s.started = false
	s.seen = [window / 64]uint64{}
}

// Skip says that of the packets that did not come some will not, and that this is right.
func (s *Sequence) Skip(packets int) { s.skipped += uint64(packets) }

// Expected returns how many packets were sent from the first that came to the newest, without those
// skipped.
func (s *Sequence) Expected() uint64 {
	n := s.closed
	if s.started {
		n += uint64(s.newest-s.first) + 1
	}
	return n - min(s.skipped, n)
}

// Unique returns how many of them came.
func (s *Sequence) Unique() uint64 { return s.unique }

// Newest returns the highest number that came; ok is false if none did, or none since Break.
func (s *Sequence) Newest() (n uint32, ok bool) { return s.newest, s.started }
