// Package negotiate decides who may offer when.
//
// A Machine is the offer/answer state of one peer connection together with the signalling lock
// that an endpoint may take before it offers (RFC 9429 section 4.1.8 for the states; the lock is
// part of our wire). It is pure: no goroutine, no clock, no peer connection. The caller feeds it
// what happened and when, carries out the actions it returns in their order, and calls Expire
// when Deadline has come.
//
// Both sides may offer, so offers can cross (glare). The server is the impolite peer: an offer
// that arrives while ours is open is held back. If our answer comes, the endpoint has rolled its
// offer back and will make it anew, so the held one is forgotten; if the answer stays away, we
// roll back and take the held offer instead.
package negotiate

import "time"

// Route is the way a description travels between server and endpoint.
type Route uint8

// The two routes of the wire.
const (
	WebSocket   Route = iota // relayed by the backend
	DataChannel              // directly, on the endpoint's data channel
)

// Verb says what the caller has to do.
type Verb uint8

// The actions of a Machine.
const (
	// AcceptOffer: apply SDP as the remote offer, answer it on Route, then call OfferAccepted.
	AcceptOffer Verb = iota + 1
	// MakeOffer: put all pending changes into one offer and send it, then call OfferSent, or
	// OfferSkipped if there was nothing to offer, or OfferFailed. Waited is how long the
	// changes waited for their turn.
	MakeOffer
	// ApplyAnswer: apply SDP as the answer to our offer, then call AnswerApplied or, after
	// rolling back, AnswerFailed.
	ApplyAnswer
	// Rollback: roll our offer back, it will be made again later. Late says that its answer is overdue;
	// otherwise it makes way for another one.
	Rollback
	// LockReleased reports that the lock was given back or taken away after Held.
	LockReleased
)

// Action is one thing to do. Only the fields its verb names are set.
type Action struct {
	Verb   Verb
	SDP    string
	Route  Route
	Waited time.Duration
	Held   time.Duration
	Late   bool
}

// Config sets the times of a Machine. Zero fields take the defaults named here.
type Config struct {
	AnswerTimeout time.Duration // how long our offer stays open; 10 s
	LockLease     time.Duration // how long the endpoint may keep the lock; 10 s
	RetryMin      time.Duration // pause before an unanswered offer is made again; 500 ms, doubling
	RetryMax      time.Duration // the longest such pause; 30 s
	OffersPerSec  float64       // endpoint offers accepted per second; 5
	OfferBurst    int           // of which at once; 20
}

func (c Config) withDefaults() Config {
	if c.AnswerTimeout == 0 {
		c.AnswerTimeout = 10 * time.Second
	}
	if c.LockLease == 0 {
		c.LockLease = 10 * time.Second
	}
	if c.RetryMin == 0 {
		c.RetryMin = 500 * time.Millisecond
	}
	if c.RetryMax == 0 {
		c.RetryMax = 30 * time.Second
	}
	if c.OffersPerSec == 0 {
		c.OffersPerSec = 5
	}
	if c.OfferBurst == 0 {
		c.OfferBurst = 20
	}
	return c
}

type owner uint8

const (
	nobody owner = iota
	endpoint
	server
)

type description struct {
	sdp   string
	route Route
}

// Machine is the negotiation state of one peer connection. Its zero value is not usable; see New.
type Machine struct {
	cfg Config

	ready   bool // the first exchange is done and the endpoint may be offered to
	open    bool // our offer is out
	lock    owner
	lockAt  time.Time // when lock was taken
	want    bool      // changes wait for an offer
	wantAt  time.Time // since when
	retryAt time.Time // not before
	pause   time.Duration
	openEnd time.Time // when our open offer expires

	held *description // the endpoint's offer that waits, the newest only

	tokens   float64 // offers the endpoint may make now
	tokensAt time.Time
}

// New returns a machine in stable state, lock free.
func New(cfg Config) *Machine {
	cfg = cfg.withDefaults()
	return &Machine{cfg: cfg, tokens: float64(cfg.OfferBurst)}
}

// Deadline is when Expire wants to be called; zero if no time matters now.
func (m *Machine) Deadline() time.Time {
	var t time.Time
	earlier := func(c time.Time) {
		if t.IsZero() || c.Before(t) {
			t = c
		}
	}
	if m.open {
		earlier(m.openEnd)
	}
	if m.lock == endpoint {
		earlier(m.lockAt.Add(m.cfg.LockLease))
	}
	if m.held != nil && !m.open {
		earlier(m.tokenTime())
	}
	if m.want && m.ready && !m.open && m.lock == nobody && !m.retryAt.IsZero() {
		earlier(m.retryAt)
	}
	return t
}

// Expire moves time on to now.
func (m *Machine) Expire(now time.Time) []Action {
	var out []Action
	if m.open && !now.Before(m.openEnd) {
		out = append(out, Action{Verb: Rollback, Late: true})
		out = append(out, m.close(now)...)
		m.retryLater(now)
	}
	if m.lock == endpoint && !now.Before(m.lockAt.Add(m.cfg.LockLease)) {
		out = append(out, m.unlock(now))
	}
	return append(out, m.next(now)...)
}

// Offer takes an offer of the endpoint.
func (m *Machine) Offer(now time.Time, sdp string, route Route) []Action {
	m.held = &description{sdp, route}
	return m.next(now)
}

// Throttled reports whether an offer of the endpoint waits only because it offers too often.
func (m *Machine) Throttled() bool { return m.held != nil && !m.open }

// OfferAccepted says that an AcceptOffer has been carried out, applied or not.
func (m *Machine) OfferAccepted(now time.Time) []Action { return m.next(now) }

// Answer takes an answer of the endpoint. One that nobody asked for does nothing.
func (m *Machine) Answer(_ time.Time, sdp string) []Action {
	if !m.open {
		return nil
	}
	return []Action{{Verb: ApplyAnswer, SDP: sdp}}
}

// AnswerApplied says that the answer to our offer is in force.
func (m *Machine) AnswerApplied(now time.Time) []Action {
	if !m.open {
		return nil
	}
	m.held = nil // rolled back by the endpoint before it answered
	m.pause = 0
	m.retryAt = time.Time{}
	out := m.close(now)
	return append(out, m.next(now)...)
}

// AnswerFailed says that the answer could not be applied and our offer was rolled back.
func (m *Machine) AnswerFailed(now time.Time) []Action {
	if !m.open {
		return nil
	}
	out := m.close(now)
	m.retryLater(now)
	return append(out, m.next(now)...)
}

// Ready says that the first exchange is over and the endpoint can take our offers.
func (m *Machine) Ready(now time.Time) []Action {
	m.ready = true
	return m.next(now)
}

// Want says that there is something to offer. Wants that come before the offer are one.
func (m *Machine) Want(now time.Time) []Action {
	if !m.want {
		m.want, m.wantAt = true, now
	}
	return m.next(now)
}

// Urge is Want for what must not wait for the pause after an offer that failed.
func (m *Machine) Urge(now time.Time) []Action {
	m.retryAt = time.Time{}
	return m.Want(now)
}

// Withdraw takes our open offer back, for one that is to be made in its place.
func (m *Machine) Withdraw(now time.Time) []Action {
	if !m.open {
		return nil
	}
	out := append([]Action{{Verb: Rollback}}, m.close(now)...)
	return append(out, m.Urge(now)...)
}

// Open reports whether an offer of ours waits for its answer.
func (m *Machine) Open() bool { return m.open }

// OfferSent says that the offer of the last MakeOffer is out.
func (m *Machine) OfferSent(now time.Time) {
	m.openEnd = now.Add(m.cfg.AnswerTimeout)
}

// OfferSkipped says that there was nothing to offer after all.
func (m *Machine) OfferSkipped(now time.Time) []Action {
	out := m.close(now)
	return append(out, m.next(now)...)
}

// OfferFailed says that the offer could not be made; it is tried again later.
func (m *Machine) OfferFailed(now time.Time) []Action {
	out := m.close(now)
	m.retryLater(now)
	return append(out, m.next(now)...)
}

// Lock is the endpoint's request for the lock; it reports whether it was granted.
func (m *Machine) Lock(now time.Time) bool {
	if m.lock != nobody {
		return false
	}
	m.lock, m.lockAt = endpoint, now
	return true
}

// Unlock is the endpoint's release of the lock. It frees only a lock that the endpoint holds.
func (m *Machine) Unlock(now time.Time) []Action {
	if m.lock != endpoint {
		return nil
	}
	out := []Action{m.unlock(now)}
	return append(out, m.next(now)...)
}

// next returns what may start now: the endpoint's held offer first, else ours.
func (m *Machine) next(now time.Time) []Action {
	if m.open {
		return nil
	}
	if m.held != nil && m.takeToken(now) {
		d := m.held
		m.held = nil
		return []Action{{Verb: AcceptOffer, SDP: d.sdp, Route: d.route}}
	}
	if m.want && m.ready && m.lock == nobody && m.held == nil && !now.Before(m.retryAt) {
		m.want, m.open = false, true
		m.lock, m.lockAt = server, now
		m.openEnd = now.Add(m.cfg.AnswerTimeout)
		return []Action{{Verb: MakeOffer, Waited: now.Sub(m.wantAt)}}
	}
	return nil
}

// close ends our open offer and gives the lock back.
func (m *Machine) close(now time.Time) []Action {
	m.open = false
	if m.lock != server {
		return nil
	}
	return []Action{m.unlock(now)}
}

func (m *Machine) unlock(now time.Time) Action {
	held := now.Sub(m.lockAt)
	m.lock = nobody
	return Action{Verb: LockReleased, Held: held}
}

func (m *Machine) retryLater(now time.Time) {
	if !m.want {
		m.want, m.wantAt = true, now
	}
	m.pause = min(max(2*m.pause, m.cfg.RetryMin), m.cfg.RetryMax)
	m.retryAt = now.Add(m.pause)
}

// takeToken is a token bucket over the endpoint's offers: beyond its rate they are taken late,
// the newest only, and never cost more than their share.
func (m *Machine) takeToken(now time.Time) bool {
	if !m.tokensAt.IsZero() {
		m.tokens = min(m.tokens+now.Sub(m.tokensAt).Seconds()*m.cfg.OffersPerSec, float64(m.cfg.OfferBurst))
	}
	m.tokensAt = now
	if m.tokens < 1 {
		return false
	}
	m.tokens--
	return true
}

func (m *Machine) tokenTime() time.Time {
	if m.tokens >= 1 {
		return m.tokensAt
	}
	wait := (1 - m.tokens) / m.cfg.OffersPerSec
	return m.tokensAt.Add(time.Duration(wait*float64(time.Second)) + time.Millisecond)
}
