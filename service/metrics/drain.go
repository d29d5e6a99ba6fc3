package metrics

import "github.com/prometheus/client_golang/prometheus"

// SetDrain makes the state of draining be asked for at each scrape: rtcd_draining is 1 while new calls
// are refused, and rtcd_drain_sessions the number of sessions that are waited for. It is called once.
func (m *Metrics) SetDrain(state func() (draining bool, sessions int)) {
	gauge := func(name, help string, value func(sessions int) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 {
			draining, sessions := state()
			if !draining {
				return 0
			}
			return value(sessions)
		})
	}
	m.registry.MustRegister(
		gauge("draining", "1 while new calls are refused, else 0.", func(int) float64 { return 1 }),
		gauge("drain_sessions", "Sessions that are left while draining, else 0.", func(n int) float64 { return float64(n) }),
	)
}
