package metrics

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// WriteBuckets returns the upper bounds, in seconds, of the histogram of write times.
func WriteBuckets() []float64 { return slices.Clone(bucketsA) }

// WriteTimes is what the data plane counted for one group and source since the process began.
type WriteTimes struct {
	GroupID string
	Source  Source
	// Counts holds for each of WriteBuckets how many writes fell into it (not into those below
	// it), and in one more element how many were beyond the last bound.
	Counts []uint64
	// Sum is the time of all writes, in seconds.
	Sum float64
}

// A writeTimes collector shows rtcd_rtc_rtp_tracks_writes_time from numbers that the data plane
// keeps itself, so that a packet costs it an atomic addition and no Prometheus call.
type writeTimes struct {
	desc     *prometheus.Desc
	snapshot atomic.Pointer[func() []WriteTimes]
}

func newWriteTimes() *writeTimes {
	return &writeTimes{desc: prometheus.NewDesc(
		prometheus.BuildFQName(namespace, "rtc", "rtp_tracks_writes_time"),
		"Seconds to write one packet to all receivers.", []string{"groupID", "type"}, nil)}
}

// SetWriteTimes plugs in where write times come from. The function is called at each scrape,
// perhaps by several at once, and must not block. Elements of the same group and source are
// added up.
func (m *Metrics) SetWriteTimes(snapshot func() []WriteTimes) { m.writes.snapshot.Store(&snapshot) }

// Describe implements prometheus.Collector.
func (w *writeTimes) Describe(ch chan<- *prometheus.Desc) { ch <- w.desc }

// Collect implements prometheus.Collector.
func (w *writeTimes) Collect(ch chan<- prometheus.Metric) {
	snapshot := w.snapshot.Load()
	if snapshot == nil || *snapshot == nil {
		return
	}
	type key struct {
		group  string
		source Source
	}
	type total struct {
		counts []uint64
		sum    float64
	}
	totals := make(map[key]*total)
	for _, t := range (*snapshot)() {
		if t.Source >= numSources || len(t.Counts) != len(bucketsA)+1 {
			continue
		}
		k := key{cleanID(t.GroupID), t.Source}
		sum := totals[k]
		if sum == nil {
			sum = &total{counts: make([]uint64, len(bucketsA)+1)}
			totals[k] = sum
		}
		for i, n := range t.Counts {
			sum.counts[i] += n
		}
		sum.sum += t.Sum
	}
	for k, t := range totals {
		cumulative := make(map[float64]uint64, len(bucketsA))
		var n uint64
		for i, bound := range bucketsA {
			n += t.counts[i]
			cumulative[bound] = n
		}
		n += t.counts[len(bucketsA)]
		if n == 0 {
			continue
		}
		m, err := prometheus.NewConstHistogram(w.desc, n, t.sum, cumulative, k.group, k.source.label())
		if err != nil {
			m = prometheus.NewInvalidMetric(w.desc, err)
		}
		ch <- m
	}
}
