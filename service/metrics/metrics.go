// Package metrics holds every Prometheus series of the server, by name.
//
// Callers use typed methods and handles, never label strings. A label value that comes from
// outside is valid UTF-8 and bounded in length and number, so that no input can break the
// exposition or make it grow without end.
package metrics

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	namespace = "rtcd"

	// maxIDBytes bounds a client id used as a label value; ids of clients are at most 64 bytes.
	maxIDBytes = 128
	// maxTenants bounds how many client ids get series of their own. It is above the number of
	// clients that can be registered; whoever comes later shares the label value overflowID.
	maxTenants = 20_000
	overflowID = "other"

	// limitHitsHelp is the help of limitHits, also where limits are counted elsewhere.
	limitHitsHelp = "How often a limit refused or delayed something."
)

// Bucket boundaries of the histograms, in the unit of the series (seconds, or a ratio).
var (
	bucketsA = []float64{.001, .005, .0075, .01, .025, .05, .075, .1, .25, .3, .4, .5, .75, 1}
	bucketsB = []float64{.001, .005, .0075, .01, .025, .05, .075, .1, .25, .5, .75, 1}
	bucketsD = prometheus.DefBuckets
)

// Metrics is one set of series on a registry of its own. It is safe for concurrent use.
type Metrics struct {
	registry    *prometheus.Registry
	writes      *writeTimes
	media       mediaSamples
	certs       certExpiry
	negotiation *negotiation
	restarts    *restarts

	sessions    *liveGauge
	tracks      *liveGauge
	connections *liveGauge

	connStates    *prometheus.CounterVec
	errors        *prometheus.CounterVec
	connection    *prometheus.HistogramVec
	channelOpen   *prometheus.HistogramVec
	lockGrab      *prometheus.HistogramVec
	lockHeld      *prometheus.HistogramVec
	clientLoss    *prometheus.HistogramVec
	clientRTT     *prometheus.HistogramVec
	clientJitter  *prometheus.HistogramVec
	messages      *prometheus.CounterVec
	discards      *prometheus.CounterVec
	limitHits     *prometheus.CounterVec
	handlerPanics prometheus.Counter

	// Children resolved once: these are counted under other packages' locks.
	discarded [numDiscardReasons]prometheus.Counter
	limits    sync.Map // Limit to prometheus.Counter

	mu      sync.Mutex
	tenants map[string]*Tenant
	shared  *Tenant // of everybody beyond maxTenants
}

// New returns a fresh set of series, with the process and Go collectors registered.
func New() *Metrics {
	m := &Metrics{
		registry:    prometheus.NewRegistry(),
		writes:      newWriteTimes(),
		negotiation: newNegotiation(),
		restarts:    newRestarts(),
		tenants:     make(map[string]*Tenant),

		sessions:    newLiveGauge("rtc", "sessions_total", "Live sessions.", "groupID"),
		tracks:      newLiveGauge("rtc", "rtp_tracks_total", "Live RTP tracks.", "groupID", "direction", "type"),
		connections: newLiveGauge("ws", "connections_total", "Live WebSocket connections.", "clientID"),

		connStates:   counterVec("rtc", "conn_states_total", "Peer connection state changes.", "type"),
		errors:       counterVec("rtc", "errors_total", "Errors of sessions.", "groupID", "type"),
		connection:   histogramVec("connection_time", "Seconds from join to connected.", bucketsD),
		channelOpen:  histogramVec("dc_open_time", "Seconds from the first answer to the open data channel.", bucketsD),
		lockGrab:     histogramVec("signaling_lock_grab_time", "Seconds the server waited for the signaling lock.", bucketsD),
		lockHeld:     histogramVec("signaling_lock_locked_time", "Seconds the signaling lock was held.", bucketsD),
		clientLoss:   histogramVec("client_loss_rate", "Loss rate as reported by end users, 0 to 1.", bucketsB),
		clientRTT:    histogramVec("client_rtt", "Round-trip time as reported by end users, in seconds.", bucketsA),
		clientJitter: histogramVec("client_jitter", "Jitter as reported by end users, in seconds.", bucketsA),
		messages:     counterVec("ws", "messages_total", "WebSocket messages.", "clientID", "type", "direction"),
		discards:     counterVec("ws", "discarded_total", "WebSocket input and output that had no effect, by reason.", "reason"),
		limitHits:    counterVec("", "limit_hits_total", "How often a limit refused or delayed something.", "limit"),
		handlerPanics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "api", Name: "panics_total", Help: "Recovered panics of HTTP requests.",
		}),
	}
	for r := range numDiscardReasons {
		m.discarded[r] = m.discards.WithLabelValues(r.String())
	}
	for _, l := range limitTable { // a rise from nothing is none to who watches
		if !l.packets {
			m.LimitHits(l.Name, 0)
		}
	}
	m.shared = &Tenant{m: m, id: overflowID}
	m.shared.resolve()
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: namespace}),
		m.writes, &m.media, &m.certs, m.negotiation.vec, m.restarts.vec, m.sessions.vec, m.tracks.vec, m.connections.vec,
		m.connStates, m.errors, m.connection, m.channelOpen, m.lockGrab, m.lockHeld,
		m.clientLoss, m.clientRTT, m.clientJitter, m.messages, m.discards, m.limitHits, m.handlerPanics,
	)
	return m
}

// Handler serves the series in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
}

// Registry is where further collectors of the process go, and what tests gather from.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// ConnStateChanged counts a state change of a peer connection.
func (m *Metrics) ConnStateChanged(s ConnState) { m.connStates.WithLabelValues(s.label()).Inc() }

// Discarded counts one WebSocket message that had no effect. It takes no lock.
func (m *Metrics) Discarded(r DiscardReason) {
	if r < numDiscardReasons {
		m.discarded[r].Inc()
	}
}

// LimitHit counts one hit of a limit. But for the first hit of each limit it takes no lock.
func (m *Metrics) LimitHit(l Limit) { m.LimitHits(l, 1) }

// LimitHits counts n hits of a limit.
func (m *Metrics) LimitHits(l Limit, n uint64) {
	counter, ok := m.limits.Load(l)
	if !ok {
		counter, _ = m.limits.LoadOrStore(l, m.limitHits.WithLabelValues(cleanID(string(l))))
	}
	counter.(prometheus.Counter).Add(float64(n))
}

// HandlerPanicked counts a panic that was recovered while an HTTP request was served.
func (m *Metrics) HandlerPanicked() { m.handlerPanics.Inc() }

// Tenant returns the handle for the series of one client, always the same one for an id that
// fits into the bounds.
func (m *Metrics) Tenant(clientID string) *Tenant {
	id := cleanID(clientID)
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tenants[id]; t != nil {
		return t
	}
	if len(m.tenants) >= maxTenants {
		return m.shared
	}
	t := &Tenant{m: m, id: id}
	t.resolve()
	m.tenants[id] = t
	return t
}

// Forget deletes the counters and histograms of a client that was unregistered. Its gauges go
// by themselves with what they count. Handles still in use go on working, unseen.
func (m *Metrics) Forget(clientID string) {
	id := cleanID(clientID)
	m.mu.Lock()
	delete(m.tenants, id)
	m.mu.Unlock()
	group, client := prometheus.Labels{"groupID": id}, prometheus.Labels{"clientID": id}
	m.errors.DeletePartialMatch(group)
	for _, h := range []*prometheus.HistogramVec{
		m.connection, m.channelOpen, m.lockGrab, m.lockHeld, m.clientLoss, m.clientRTT, m.clientJitter,
	} {
		h.DeletePartialMatch(group)
	}
	m.messages.DeletePartialMatch(client)
}

// cleanID makes s fit for a label: valid UTF-8 and at most maxIDBytes long. Prometheus panics
// on a label value that is not UTF-8.
func cleanID(s string) string {
	if len(s) > maxIDBytes {
		s = s[:maxIDBytes] // a rune cut in two becomes U+FFFD below
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func counterVec(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
	}, labels)
}

func histogramVec(name, help string, buckets []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: "rtc", Name: name, Help: help, Buckets: buckets,
	}, []string{"groupID"})
}

// A liveGauge counts live things per label set. A set whose count returns to zero is deleted:
// an absent gauge says the same as one that shows zero.
type liveGauge struct {
	vec *prometheus.GaugeVec

	mu     sync.Mutex
	counts map[[3]string]int
	labels int
}

func newLiveGauge(subsystem, name, help string, labels ...string) *liveGauge {
	return &liveGauge{
		vec: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
		}, labels),
		counts: make(map[[3]string]int),
		labels: len(labels),
	}
}

// add moves the gauge of one label set by n and never below zero.
func (g *liveGauge) add(n int, values [3]string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	count := max(g.counts[values]+n, 0)
	if count == 0 {
		delete(g.counts, values)
		g.vec.DeleteLabelValues(values[:g.labels]...)
		return
	}
	g.counts[values] = count
	g.vec.WithLabelValues(values[:g.labels]...).Set(float64(count))
}

func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }
