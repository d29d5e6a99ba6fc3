package rewrite

import (
	"testing"

	"pgregory.net/rapid"
)

// step is something that happens to a source's packet.
type step struct {
	op  byte // 'm' map, 'd' drop, 's' switch
	seq uint16
	out int // expected low 16 bits; -1: not to be sent
}

func TestSequence(t *testing.T) {
	m := func(seq uint16, out int) step { return step{'m', seq, out} }
	d := func(seq uint16) step { return step{'d', seq, 0} }
	s := step{op: 's'}
	tests := map[string][]step{
		"passes as it comes":           {m(7, 7), m(8, 8), m(10, 10), m(9, 9)},
		"older than the first":         {m(7, 7), m(6, 6)},
		"roll-over":                    {m(65534, 65534), m(65535, 65535), m(0, 0), m(65533, 65533), m(1, 1)},
		"mute closes the gap":          {m(1, 1), d(2), d(3), m(4, 2), m(5, 3)},
		"mute across roll-over":        {m(65534, 65534), d(65535), d(0), m(1, 65535), m(2, 0)},
		"loss before unmute stays":     {m(1, 1), d(2), m(5, 4), m(3, 2), m(4, 3)},
		"loss while muted closes":      {m(1, 1), d(2), d(9), m(10, 2)},
		"late from before the mute":    {m(1, 1), m(3, 3), d(4), m(5, 4), m(2, -1)},
		"late while muted":             {m(1, 1), m(3, 3), d(2), m(4, 4), m(5, 5)},
		"dropped one comes late":       {m(1, 1), d(3), d(2), m(4, 2), m(2, -1), m(3, -1)},
		"muted twice":                  {m(1, 1), d(2), m(3, 2), d(4), m(5, 3), m(6, 4)},
		"muted before the first":       {d(1), d(2), m(3, 3), m(2, -1), m(4, 4)},
		"switch":                       {m(100, 100), s, m(5000, 101), m(5001, 102), m(4999, -1)},
		"switch before the first":      {s, m(9, 9), m(8, -1), m(10, 10)},
		"switch while muted":           {m(100, 100), d(101), s, d(7), m(8, 101), m(9, 102)},
		"source starts afresh":         {m(60000, 60000), m(10, 10), m(8000, 8000), m(3, 8001), m(4, 8002)},
		"source starts afresh, muted":  {m(8000, 8000), d(3), m(4, 8001), m(5, 8002)},
		"late to the utmost":           {m(2000, 2000), m(976, 976)},
		"late beyond the utmost":       {m(2000, 2000), m(975, 2001), m(976, 2002)},
		"forward to the utmost":        {m(0, 0), m(32767, 32767), m(65534, 65534)},
		"mute right after the restart": {m(2000, 2000), m(5, 2001), d(6), m(7, 2002)},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			var q Sequence
			for i, st := range steps {
				switch st.op {
				case 'd':
					q.Drop(st.seq)
				case 's':
					q.Switch()
				case 'm':
					got, ok := q.Map(st.seq)
					if ok != (st.out >= 0) || ok && int(uint16(got)) != st.out {
						t.Fatalf("step %d: Map(%d) = %d, %v, want %d", i, st.seq, uint16(got), ok, st.out)
					}
				}
			}
		})
	}
}

// Whatever is lost, late, dropped or switched: no number is given twice, and packets that come
// in order get rising numbers.
func TestSequenceGivesNoNumberTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Sequence
		given := make(map[uint64]bool)
		next := uint64(rapid.Uint16().Draw(t, "start"))
		seen := make(map[uint64]bool) // of this source
		var newest, last uint64
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 19).Draw(t, "op"); {
			case op == 0:
				q.Switch()
				next = uint64(rapid.Uint16().Draw(t, "restart"))
				clear(seen)
				newest = 0
				continue
			case op < 3:
				next += uint64(rapid.IntRange(0, 400).Draw(t, "gap"))
			}
			seq := next
			if back := rapid.IntRange(0, 100).Draw(t, "late"); back < 30 && uint64(back) < seq {
				seq -= uint64(back)
			} else {
				next++
			}
			if seen[seq] {
				continue
			}
			seen[seq] = true
			if rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
				q.Drop(uint16(seq))
				newest = max(newest, seq)
				continue
			}
			number, ok := q.Map(uint16(seq))
			if !ok {
				if seq > newest {
					t.Fatalf("packet %d, the newest of its source, is refused", seq)
				}
				continue
			}
			if given[number] {
				t.Fatalf("number %d given twice", number)
			}
			given[number] = true
			if seq > newest && number < last {
				t.Fatalf("packet %d, the newest of its source, got %d after %d", seq, number, last)
			}
			newest, last = max(newest, seq), max(last, number)
		}
	})
}

// With drops alone, and nothing lost or late, there is no gap at all.
func TestSequenceClosesEveryGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Sequence
		seq := rapid.Uint16().Draw(t, "start")
		var want uint64
		for _, drop := range rapid.SliceOfN(rapid.Bool(), 1, 200).Draw(t, "drops") {
			if drop {
				q.Drop(seq)
			} else {
				got, ok := q.Map(seq)
				if want == 0 {
					want = got
				}
				if !ok || got != want {
					t.Fatalf("Map(%d) = %d, %v, want %d", seq, got, ok, want)
				}
				want++
			}
			seq++
		}
	})
}

func TestSequenceAllocatesNothing(t *testing.T) {
	var q Sequence
	seq := uint16(0)
	if n := testing.AllocsPerRun(100, func() { q.Map(seq); q.Drop(seq + 1); seq += 2 }); n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}
