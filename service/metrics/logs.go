package metrics

import "github.com/prometheus/client_golang/prometheus"

// AddLogTarget shows how many log lines a target ("console", "file") has not taken, ever, as
// rtcd_log_lines_lost_total. It is called once per target.
func (m *Metrics) AddLogTarget(target string, lost func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: namespace, Name: "log_lines_lost_total",
		Help:        "Log lines lost because their target did not take them fast enough, or at all.",
		ConstLabels: prometheus.Labels{"target": target},
	}, func() float64 { return float64(lost()) }))
}
