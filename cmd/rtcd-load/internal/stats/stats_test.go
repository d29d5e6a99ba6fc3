package stats_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"rtcd/cmd/rtcd-load/internal/stats"
)

func TestHistogramQuantiles(t *testing.T) {
	var h stats.Histogram
	random := rand.New(rand.NewPCG(1, 2))
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(random.ExpFloat64()*20_000) * time.Microsecond
		h.Add(values[i])
	}
	slices.Sort(values)
	s := h.Snapshot()
	for _, q := range []float64{0.01, 0.5, 0.95, 0.99} {
		got, want := s.Quantile(q), values[int(q*float64(len(values)))-1]
		if diff := (got - want).Abs(); float64(diff) > 0.035*float64(want)+float64(2*time.Microsecond) {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if got, want := s.Max(), values[len(values)-1]; got != want {
		t.Errorf("max: got %v, want %v", got, want)
	}
	if got := s.Quantile(1); got > s.Max() {
		t.Errorf("quantile 1 is %v, above the maximum %v", got, s.Max())
	}
}

func TestHistogramBounds(t *testing.T) {
	var h stats.Histogram
	if s := h.Snapshot(); s.Quantile(0.5) != 0 || s.Mean() != 0 || s.Count != 0 {
		t.Errorf("an empty histogram has values: %v, %v", s.Quantile(0.5), s.Mean())
	}
	h.Add(-time.Second)
	h.Add(1000 * time.Hour)
	s := h.Snapshot()
	if s.Count != 2 || s.Quantile(0.5) != 0 {
		t.Errorf("got count %d, median %v, want 2 and 0", s.Count, s.Quantile(0.5))
	}
}

func TestSnapshotSub(t *testing.T) {
	var h stats.Histogram
	h.Add(time.Second)
	before := h.Snapshot()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				h.Add(2 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	d := h.Snapshot().Sub(before)
	if d.Count != 4000 {
		t.Errorf("count: got %d, want 4000", d.Count)
	}
	for _, v := range []time.Duration{d.Quantile(0.01), d.Max(), d.Mean()} {
		if v < 1900*time.Microsecond || v > 2100*time.Microsecond {
			t.Errorf("got %v, want 2ms", v)
		}
	}
}

func TestSequence(t *testing.T) {
	for _, c := range []struct {
		name                string
		numbers             []uint32
		expected, unique    uint64
		duplicates, reorder int
		late                int
	}{
		{name: "nothing"},
		{name: "in order", numbers: []uint32{5, 6, 7}, expected: 3, unique: 3},
		{name: "a gap", numbers: []uint32{0, 3}, expected: 4, unique: 2},
		{name: "a gap that is filled", numbers: []uint32{0, 2, 1}, expected: 3, unique: 3, reorder: 1},
		{name: "twice", numbers: []uint32{0, 1, 1, 0}, expected: 2, unique: 2, duplicates: 2},
		{name: "the first overtaken", numbers: []uint32{7, 5, 6, 7}, expected: 3, unique: 3, reorder: 2, duplicates: 1},
		{name: "a long gap", numbers: []uint32{0, 10_000, 1, 9_999}, expected: 10_001, unique: 3, late: 1, reorder: 1},
		{name: "wrapped window", numbers: []uint32{0, 4095, 4096, 4097, 1}, expected: 4098, unique: 4, late: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s stats.Sequence
			var duplicates, reorder, late, advanced int
			for _, n := range c.numbers {
				a := s.Add(n)
				advanced += a.Advanced
				if a.Duplicate {
					duplicates++
				}
				if a.Reordered {
					reorder++
				}
				if a.Late {
					late++
				}
			}
			if s.Expected() != c.expected || s.Unique() != c.unique || uint64(advanced) != c.expected {
				t.Errorf("got %d of %d (advanced by %d), want %d of %d", s.Unique(), s.Expected(), advanced, c.unique, c.expected)
			}
			if duplicates != c.duplicates || reorder != c.reorder || late != c.late {
				t.Errorf("got %d duplicates, %d reordered, %d late, want %d, %d, %d",
					duplicates, reorder, late, c.duplicates, c.reorder, c.late)
			}
		})
	}
}

// Whatever the order in which packets come within the window, none is counted twice or forgotten.
func TestSequenceShuffled(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var s stats.Sequence
	numbers := make([]uint32, 20_000)
	for i := range numbers {
		numbers[i] = uint32(i) + 100
	}
	for i := 0; i+50 <= len(numbers); i += 50 {
		random.Shuffle(50, func(a, b int) { numbers[i+a], numbers[i+b] = numbers[i+b], numbers[i+a] })
	}
	for _, n := range numbers {
		if a := s.Add(n); !a.Fresh {
			t.Fatalf("packet %d is not fresh: %+v", n, a)
		}
	}
	if s.Expected() != 20_000 || s.Unique() != 20_000 {
		t.Errorf("got %d of %d, want 20000 of 20000", s.Unique(), s.Expected())
	}
}

func TestSequenceBreak(t *testing.T) {
	var s stats.Sequence
	s.Add(1)
	s.Add(3)
	s.Break()
	if _, ok := s.Newest(); ok {
		t.Error("a broken sequence has a newest packet")
	}
	if a := s.Add(500); a.Advanced != 1 {
		t.Errorf("after a break %d packets are expected, want 1", a.Advanced)
	}
	if s.Expected() != 4 || s.Unique() != 3 {
		t.Errorf("got %d of %d, want 3 of 4", s.Unique(), s.Expected())
	}
}
