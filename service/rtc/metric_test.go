package rtc_test

import (
	"testing"

	"rtcd/service/metrics"
)

// metric sums a metric over its labels: values of gauges and counters, observations of histograms.
func metric(t testing.TB, m *metrics.Metrics, name string) float64 {
	t.Helper()
	return metricOf(t, m, name, "")
}

// metricOf is metric of those series alone in which a label has that value; "": of all.
func metricOf(t testing.TB, m *metrics.Metrics, name, value string) float64 {
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
			wanted := value == ""
			for _, l := range v.GetLabel() {
				wanted = wanted || l.GetValue() == value
			}
			if wanted {
				sum += v.GetGauge().GetValue() + v.GetCounter().GetValue() + float64(v.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
