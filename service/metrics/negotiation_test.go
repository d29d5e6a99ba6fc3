package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestNegotiationAndBuild(t *testing.T) {
	m := New()
	m.SetBuild("v1.2.3", "abc")
	m.ObserveNegotiation(In, 3*time.Millisecond)
	m.ObserveNegotiation(Out, 300*time.Millisecond)
	m.ObserveNegotiation(numDirections, time.Second) // not known
	got := scrape(t, m)
	for _, want := range []string{
		`rtcd_rtc_negotiation_seconds_bucket{direction="in",le="0.0025"} 0`,
		`rtcd_rtc_negotiation_seconds_bucket{direction="in",le="0.005"} 1`,
		`rtcd_rtc_negotiation_seconds_count{direction="out"} 1`,
		`revision="abc",version="v1.2.3"} 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.ObserveNegotiation(Out, time.Second) }); n != 0 {
		t.Errorf("%v allocations per observation, want 0", n)
	}
}

// Samples have as many labels as they like, and may be histograms. Limits that the data plane counts
// share a name with those that LimitHit counts.
func TestSamplesWithLabels(t *testing.T) {
	m := New()
	m.LimitHit("sessions")
	m.SetLimits(func() map[Limit]uint64 { return map[Limit]uint64{"session_rate": 7, "tcp_frame": 0} })
	m.AddSamples(func() []Sample {
		return []Sample{
			{Name: "a_items", Help: "A.", Gauge: true, Label: "x", Value: "1", More: []string{"y", "2"}, N: 3},
			{Name: "b_seconds", Help: "B.", Histogram: &Histogram{Count: 3, Sum: 1.5, Buckets: map[float64]uint64{1: 2}}},
		}
	})
	got := scrape(t, m)
	for _, want := range []string{
		`rtcd_a_items{x="1",y="2"} 3`, "# TYPE rtcd_b_seconds histogram", `rtcd_b_seconds_bucket{le="1"} 2`,
		`rtcd_b_seconds_bucket{le="+Inf"} 3`, "rtcd_b_seconds_sum 1.5",
		`rtcd_limit_hits_total{limit="tcp_frame"} 0`, `rtcd_limit_hits_total{limit="calls"} 0`,
		`rtcd_limit_hits_total{limit="sessions"} 1`, `rtcd_limit_hits_total{limit="session_rate"} 7`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	if problems, err := testutil.GatherAndLint(m.Registry()); err != nil {
		t.Errorf("lint: %v %v", problems, err)
	}
}
