package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// negotiationBounds are in seconds. An answer of ours takes milliseconds, one of an endpoint a round
// trip over its backend, and 10 s are all it has.
var negotiationBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// negotiation is how long offers wait for their answers, by who offers. Its children are resolved at
// once, for the sake of dashboards: both directions show from the start.
type negotiation struct {
	vec *prometheus.HistogramVec
	of  [numDirections]prometheus.Observer
}

func newNegotiation() *negotiation {
	n := &negotiation{vec: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: "rtc", Name: "negotiation_seconds",
		Help:    "Seconds from an offer to its answer: of endpoints (in) until ours is out, of ours (out) until theirs is in force.",
		Buckets: negotiationBounds,
	}, []string{"direction"})}
	for d := range numDirections {
		n.of[d] = n.vec.WithLabelValues(d.label())
	}
	return n
}

// ObserveNegotiation records the time from an offer to its answer. In is an offer of an endpoint, Out
// one of ours. It takes no lock.
func (m *Metrics) ObserveNegotiation(offer Direction, d time.Duration) {
	if offer < numDirections {
		m.negotiation.of[offer].Observe(seconds(d))
	}
}

// SetBuild shows what runs as rtcd_build_info. It is called once.
func (m *Metrics) SetBuild(version, hash string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "What runs: always 1.",
		ConstLabels: prometheus.Labels{"version": cleanID(version), "revision": cleanID(hash), "goversion": runtime.Version()},
	}, func() float64 { return 1 }))
}

// SetLimits plugs in where hits of limits come from that their owners count themselves, for packets
// most of all. It is called once, under the rules of SetMedia; limits that LimitHit counts are not
// among them.
func (m *Metrics) SetLimits(snapshot func() map[Limit]uint64) {
	m.AddSamples(func() []Sample {
		var out []Sample
		for limit, n := range snapshot() {
			out = append(out, Sample{Name: "limit_hits_total", Help: limitHitsHelp, Label: "limit", Value: string(limit), N: float64(n)})
		}
		return out
	})
}
