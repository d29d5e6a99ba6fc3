package metrics

import "github.com/prometheus/client_golang/prometheus"

// RestartOutcome says how an ICE restart that the server offered has ended.
type RestartOutcome string

// The outcomes.
const (
	RestartCompleted RestartOutcome = "completed" // the endpoint came back by another path
	RestartNeedless  RestartOutcome = "needless"  // the old path came back by itself
	RestartFailed    RestartOutcome = "failed"    // the session ended
)

// restarts counts them; all outcomes show from the start.
type restarts struct {
	vec *prometheus.CounterVec
	of  map[RestartOutcome]prometheus.Counter
}

func newRestarts() *restarts {
	r := &restarts{
		vec: counterVec("rtc", "ice_restarts_total", "ICE restarts that the server offered, by how they ended.", "outcome"),
		of:  make(map[RestartOutcome]prometheus.Counter),
	}
	for _, o := range []RestartOutcome{RestartCompleted, RestartNeedless, RestartFailed} {
		r.of[o] = r.vec.WithLabelValues(string(o))
	}
	return r
}

// Restarted counts one that has ended. It takes no lock.
func (m *Metrics) Restarted(o RestartOutcome) {
	if c := m.restarts.of[o]; c != nil {
		c.Inc()
	}
}
