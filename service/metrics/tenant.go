package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Tenant is the handle for the series of one client. Its children are resolved once; counters
// show up with their first increment, so that an idle client has no series.
type Tenant struct {
	m  *Metrics
	id string

	in, out [numMessages]atomic.Pointer[prometheus.Counter]
	errors  [numErrorKinds]atomic.Pointer[prometheus.Counter]

	connection, channelOpen, lockGrab, lockHeld observer
	clientLoss, clientRTT, clientJitter         observer
}

// An observer is a child of a histogram that is resolved at its first use.
type observer struct {
	vec   *prometheus.HistogramVec
	child atomic.Pointer[prometheus.Observer]
}

func (o *observer) observe(id string, v float64) {
	child := o.child.Load()
	if child == nil {
		c := o.vec.WithLabelValues(id)
		child = &c
		o.child.Store(child)
	}
	(*child).Observe(v)
}

func (t *Tenant) resolve() {
	m := t.m
	t.connection.vec, t.channelOpen.vec = m.connection, m.channelOpen
	t.lockGrab.vec, t.lockHeld.vec = m.lockGrab, m.lockHeld
	t.clientLoss.vec, t.clientRTT.vec, t.clientJitter.vec = m.clientLoss, m.clientRTT, m.clientJitter
}

// increment adds one to the counter behind p, resolving it at its first use.
func increment(p *atomic.Pointer[prometheus.Counter], vec *prometheus.CounterVec, values ...string) {
	child := p.Load()
	if child == nil {
		c := vec.WithLabelValues(values...)
		child = &c
		p.Store(child)
	}
	(*child).Inc()
}

// ConnectionOpened counts a new WebSocket connection of the client.
func (t *Tenant) ConnectionOpened() { t.m.connections.add(1, [3]string{t.id}) }

// ConnectionClosed takes back one ConnectionOpened.
func (t *Tenant) ConnectionClosed() { t.m.connections.add(-1, [3]string{t.id}) }

// Received counts a decoded message from the client.
func (t *Tenant) Received(k Message) {
	if k >= numMessages {
		k = UnknownMessage
	}
	increment(&t.in[k], t.m.messages, t.id, k.label(), "in")
}

// Sent counts a message for the client. Only rtc and vad have a series; others are not counted.
func (t *Tenant) Sent(k Message) {
	if k == RTCMessage || k == VADMessage {
		increment(&t.out[k], t.m.messages, t.id, k.label(), "out")
	}
}

// SessionStarted counts a new session.
func (t *Tenant) SessionStarted() { t.m.sessions.add(1, [3]string{t.id}) }

// SessionEnded takes back one SessionStarted.
func (t *Tenant) SessionEnded() { t.m.sessions.add(-1, [3]string{t.id}) }

// TrackStarted counts a new track.
func (t *Tenant) TrackStarted(d Direction, c Codec) {
	t.m.tracks.add(1, [3]string{t.id, d.label(), c.label()})
}

// TrackEnded takes back one TrackStarted of the same direction and codec.
func (t *Tenant) TrackEnded(d Direction, c Codec) {
	t.m.tracks.add(-1, [3]string{t.id, d.label(), c.label()})
}

// Errored counts an error of one of the client's sessions.
func (t *Tenant) Errored(k ErrorKind) {
	if k < numErrorKinds {
		increment(&t.errors[k], t.m.errors, t.id, k.label())
	}
}

// ObserveConnection records the time from join to connected.
func (t *Tenant) ObserveConnection(d time.Duration) { t.connection.observe(t.id, seconds(d)) }

// ObserveChannelOpen records the time from the first answer to the open data channel.
func (t *Tenant) ObserveChannelOpen(d time.Duration) { t.channelOpen.observe(t.id, seconds(d)) }

// ObserveLockGrab records the server's wait for the signaling lock.
func (t *Tenant) ObserveLockGrab(d time.Duration) { t.lockGrab.observe(t.id, seconds(d)) }

// ObserveLockHeld records how long the signaling lock was held.
func (t *Tenant) ObserveLockHeld(d time.Duration) { t.lockHeld.observe(t.id, seconds(d)) }

// ObserveClientLoss records a loss rate reported by an end user. A value that is not a ratio
// between 0 and 1 is dropped: it would poison the sum for ever.
func (t *Tenant) ObserveClientLoss(ratio float64) {
	if ratio >= 0 && ratio <= 1 {
		t.clientLoss.observe(t.id, ratio)
	}
}

// maxReported bounds times reported by end users, in seconds; what is beyond, negative or not
// a number is dropped.
const maxReported = 3600

// ObserveClientRTT records a round-trip time in seconds reported by an end user.
func (t *Tenant) ObserveClientRTT(s float64) {
	if s >= 0 && s <= maxReported {
		t.clientRTT.observe(t.id, s)
	}
}

// ObserveClientJitter records a jitter in seconds reported by an end user.
func (t *Tenant) ObserveClientJitter(s float64) {
	if s >= 0 && s <= maxReported {
		t.clientJitter.observe(t.id, s)
	}
}
