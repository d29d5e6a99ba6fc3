package rtc_test

import (
	"testing"

	"rtcd/service/metrics"
)

// metric sums a metric over its labels: values of gauges and counters, observations of histograms.
func metric(t testing.TB, m *metrics.Metrics, name string) float64 {
	t.Helper()
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatalf("gather metrics: %v", err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, v := range f.GetMetric() {
			sum += v.GetGauge().GetValue() + v.GetCounter().GetValue() + float64(v.GetHistogram().GetSampleCount())
		}
	}
	return sum
}
