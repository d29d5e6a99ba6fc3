// Package stats counts what a load run measures: durations in histograms, the packets of streams.
package stats

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	subBuckets = 32 // of each power of two: values are kept to 3 %
	octaves    = 32 // up to 2^37 µs
	numBuckets = (octaves + 1) * subBuckets
)

// A Histogram counts durations from 1 µs to a day. Its zero value is empty; it is safe for
// concurrent use.
type Histogram struct {
	buckets [numBuckets]atomic.Uint64
	sum     atomic.Int64 // µs
	max     atomic.Int64 // µs
}

// Add counts a duration. A negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	us := max(d.Microseconds(), 0)
	h.buckets[bucketOf(us)].Add(1)
	h.sum.Add(us)
	for {
		old := h.max.Load()
		if us <= old || h.max.CompareAndSwap(old, us) {
			return
		}
	}
}

// Snapshot returns what was counted so far.
func (h *Histogram) Snapshot() *Snapshot {
	s := &Snapshot{sum: h.sum.Load(), max: h.max.Load()}
	for i := range h.buckets {
		n := h.buckets[i].Load()
		s.buckets[i] = n
		s.Count += n
	}
	return s
}

// A Snapshot is a histogram at one time.
type Snapshot struct {
	Count   uint64
	buckets [numBuckets]uint64
	sum     int64
	max     int64
}

// Sub returns what was counted since an earlier snapshot. Its maximum is to a bucket's width.
func (s *Snapshot) Sub(earlier *Snapshot) *Snapshot {
	if earlier == nil {
		return s
	}
	d := &Snapshot{sum: s.sum - earlier.sum}
	for i := range s.buckets {
		n := s.buckets[i] - earlier.buckets[i]
		d.buckets[i] = n
		d.Count += n
		if n > 0 {
			d.max = min(valueOf(i), s.max)
		}
	}
	return d
}

// Quantile returns the value that a share q of the durations, 0 to 1, does not exceed; 0 if there
// are none.
func (s *Snapshot) Quantile(q float64) time.Duration {
	if s.Count == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(s.Count)))
	rank = min(max(rank, 1), s.Count)
	var seen uint64
	for i, n := range s.buckets {
		if seen += n; seen >= rank {
			return time.Duration(min(valueOf(i), s.max)) * time.Microsecond
		}
	}
	return s.Max()
}

// Max returns the longest duration.
func (s *Snapshot) Max() time.Duration { return time.Duration(s.max) * time.Microsecond }

// Mean returns the average, 0 of nothing.
func (s *Snapshot) Mean() time.Duration {
	if s.Count == 0 {
		return 0
	}
	return time.Duration(float64(s.sum)/float64(s.Count)) * time.Microsecond
}

// bucketOf returns the bucket of a number of µs: each below 64 has its own, from there on each power
// of two has 32.
func bucketOf(us int64) int {
	if us < 2*subBuckets {
		return int(us)
	}
	e := bits.Len64(uint64(us)) - 6
	return min(e*subBuckets+int(us>>e), numBuckets-1)
}

// valueOf returns the middle of a bucket in µs.
func valueOf(bucket int) int64 {
	if bucket < 2*subBuckets {
		return int64(bucket)
	}
	e := bucket/subBuckets - 1
	return int64(bucket-e*subBuckets)<<e + int64(1)<<e/2
}

// Merge returns what both snapshots counted.
func (s *Snapshot) Merge(other *Snapshot) *Snapshot {
	m := &Snapshot{Count: s.Count + other.Count, sum: s.sum + other.sum, max: max(s.max, other.max)}
	for i := range s.buckets {
		m.buckets[i] = s.buckets[i] + other.buckets[i]
	}
	return m
}
