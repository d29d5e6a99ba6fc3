package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A Sample is one value of the data plane, which counts by itself.
type Sample struct {
	Name         string // without the namespace: media_sent_packets_total
	Help         string
	Gauge        bool     // else a counter
	Label, Value string   // "" for a sample without a label
	More         []string // further labels: names and values by turns
	N            float64

	Histogram *Histogram // if it is one; N does not count then
}

// A Histogram is what a histogram has counted.
type Histogram struct {
	Count   uint64
	Sum     float64            // seconds
	Buckets map[float64]uint64 // cumulative counts by upper bound in seconds, without +Inf
}

// A mediaSamples collector shows what the data plane tells at each scrape.
type mediaSamples struct {
	snapshot atomic.Pointer[func() []Sample]
}

// SetMedia plugs in where the samples of the data plane come from. The function is called at each
// scrape, perhaps by several at once, and must not block. Samples of one name differ in the values
// of their labels alone.
func (m *Metrics) SetMedia(snapshot func() []Sample) { m.media.snapshot.Store(&snapshot) }

// AddSamples plugs in one more source of samples, under the rules of SetMedia. No two sources have a
// sample of the same name and labels.
func (m *Metrics) AddSamples(snapshot func() []Sample) {
	c := new(mediaSamples)
	c.snapshot.Store(&snapshot)
	m.registry.MustRegister(c)
}

// Describe implements prometheus.Collector. What there is shows at each scrape.
func (*mediaSamples) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *mediaSamples) Collect(ch chan<- prometheus.Metric) {
	snapshot := m.snapshot.Load()
	if snapshot == nil || *snapshot == nil {
		return
	}
	for _, s := range (*snapshot)() {
		var labels, values []string
		if s.Label != "" {
			labels, values = []string{s.Label}, []string{s.Value}
		}
		for i := 0; i+1 < len(s.More); i += 2 {
			labels, values = append(labels, s.More[i]), append(values, s.More[i+1])
		}
		desc := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", s.Name), s.Help, labels, nil)
		if metric, err := s.metric(desc, values); err == nil {
			ch <- metric
		}
	}
}

func (s *Sample) metric(desc *prometheus.Desc, values []string) (prometheus.Metric, error) {
	switch {
	case s.Histogram != nil:
		return prometheus.NewConstHistogram(desc, s.Histogram.Count, s.Histogram.Sum, s.Histogram.Buckets, values...)
	case s.Gauge:
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, s.N, values...)
	default:
		return prometheus.NewConstMetric(desc, prometheus.CounterValue, s.N, values...)
	}
}
