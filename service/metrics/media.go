package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A Sample is one value of the data plane, which counts by itself.
type Sample struct {
	Name         string // without the namespace: media_sent_packets_total
	Help         string
	Gauge        bool   // else a counter
	Label, Value string // "" for a sample without a label
	N            float64
}

// A mediaSamples collector shows what the data plane tells at each scrape.
type mediaSamples struct {
	snapshot atomic.Pointer[func() []Sample]
}

// SetMedia plugs in where the samples of the data plane come from. The function is called at each
// scrape, perhaps by several at once, and must not block. Samples of one name differ in the value
// of their label alone.
func (m *Metrics) SetMedia(snapshot func() []Sample) { m.media.snapshot.Store(&snapshot) }

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
		kind := prometheus.CounterValue
		if s.Gauge {
			kind = prometheus.GaugeValue
		}
		desc := prometheus.NewDesc(prometheus.BuildFQName(namespace, "", s.Name), s.Help, labels, nil)
		if metric, err := prometheus.NewConstMetric(desc, kind, s.N, values...); err == nil {
			ch <- metric
		}
	}
}
