package rtc

import (
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/report"
	"rtcd/service/rtc/negotiate"
)

// Times of a restart of ICE that the server offers.
const (
	DefaultRestartAfter = time.Second // of silence

	resendAfter  = 1500 * time.Millisecond // without a sign that the offer has arrived; doubling
	arriveTime   = 4 * time.Second         // for the endpoint to arrive, once it has answered
	busyPause    = 500 * time.Millisecond  // while another offer is in flight
	maxRestarts  = 5                       // offered in one outage
	outageTime   = 29 * time.Second        // until the end: consent lasts 30 s (RFC 7675 section 5.1)
	restartPause = time.Second             // before the next outage is acted upon, doubling after false alarms
	maxPause     = 30 * time.Second
)

// restart is what a session does about a path that is dead. It offers to restart ICE over the relay:
// the data channel is on the path. The offer is sent again while nothing tells that it has arrived,
// word for word, so that the answer to any of them is one to all.
//
// The endpoint has taken it with its first check with the new credentials, or with its answer, and
// arrives with the pair that it then asks for.
type restart struct {
	since     time.Time // when the outage began; zero: there is none
	heard     bool      // over the old path after all
	offers    int       // made
	sent      wire.Description
	resend    time.Duration // the pause before it is sent once more
	taken     bool          // or answered
	next      time.Time     // when there is something to do
	notBefore time.Time     // for the next outage
	pause     time.Duration // after that one
}

// deadline is when the restart has something to do; zero: never.
func (r *restart) deadline() time.Time {
	if r.since.IsZero() || r.heard {
		return time.Time{}
	}
	end := r.since.Add(outageTime)
	if !r.next.IsZero() && r.next.Before(end) {
		return r.next
	}
	return end
}

// fellSilent acts upon a path over which nothing has come for longer than usual.
func (s *session) fellSilent(quiet time.Duration) {
	r := &s.restart
	now := time.Now()
	if !s.channelOpen {
		return // still setting up, for which there is a time
	}
	if !r.since.IsZero() { // silent once more, before what was offered has ended
		if r.heard { // so it is another outage, which has all of its time
			r.since = now.Add(-quiet)
		}
		r.heard = false
		r.next = now
		return
	}
	r.since, r.heard, r.offers, r.taken = now.Add(-quiet), false, 0, false
	s.offerRestart(now)
}

// offerRestart offers a restart, or puts it off.
func (s *session) offerRestart(now time.Time) {
	r := &s.restart
	switch {
	case r.offers >= maxRestarts:
		r.next = time.Time{}
		return
	case now.Before(r.notBefore):
		r.next = r.notBefore
		return
	case s.machine.Open() && s.offerRoute != negotiate.DataChannel && !s.peer.Restarting():
		r.next = now.Add(busyPause) // one that the relay carries may be answered
		return
	}
	if err := s.peer.OfferRestart(func() { s.post(s.restartTaken) }); err != nil {
		s.log.Error("offer to restart ice", "err", err)
		r.next = time.Time{}
		return
	}
	r.offers++
	r.taken, r.resend, r.next = false, resendAfter, time.Time{}
	s.log.Info("session silent, ice restart offered", "silent", now.Sub(r.since).Round(time.Millisecond), "offer", r.offers)
	if s.machine.Open() { // and may be lost with the data channel
		s.perform(s.machine.Withdraw(now))
		return
	}
	s.perform(s.machine.Urge(now))
}

// restartOffered notes the offer, to send it again.
func (s *session) restartOffered(d wire.Description) {
	s.restart.sent = d
	s.restart.next = time.Now().Add(s.restart.resend)
}

// expireRestart does what is due.
func (s *session) expireRestart(now time.Time) {
	r := &s.restart
	d := r.deadline()
	if d.IsZero() || now.Before(d) {
		return
	}
	r.next = time.Time{}
	switch {
	case !now.Before(r.since.Add(outageTime)):
		s.tenant.Errored(metrics.ICEError)
		s.end(CloseICE)
	case r.taken, r.offers == 0:
		s.offerRestart(now) // it has not arrived
	case s.machine.Open() && s.peer.Restarting():
		if err := s.sendDescription(r.sent, negotiate.WebSocket); err != nil {
			s.log.Error("send offer again", "err", err)
		}
		r.resend *= 2
		r.next = now.Add(r.resend)
	default: // it waits for its turn
		r.next = now.Add(r.resend)
	}
}

// heardAgain: the path was not dead after all. An offer that is out may still be answered.
func (s *session) heardAgain() {
	r := &s.restart
	if r.since.IsZero() || r.taken {
		return
	}
	r.heard = true
	if r.offers == 0 || !s.machine.Open() { // what is open has nothing to do with it
		s.restartEnded(metrics.RestartNeedless)
	}
}

// restartTaken: the endpoint has shown that it restarts.
func (s *session) restartTaken() {
	r := &s.restart
	s.settled, s.candidates = time.Time{}, 0 // those of TCP are new
	if err := s.peer.Restart(); err != nil {
		s.log.Error("restart ice", "err", err)
		s.end(CloseICE)
		return
	}
	if r.since.IsZero() { // given up
		r.since, r.offers = time.Now(), 1
	}
	r.taken, r.next = true, time.Now().Add(arriveTime)
}

// restartedByEndpoint: an offer of the endpoint has restarted ICE, which may serve us, too.
func (s *session) restartedByEndpoint() {
	r := &s.restart
	now := time.Now()
	s.settled, s.candidates = time.Time{}, 0
	if r.since.IsZero() {
		if t := now.Add(arriveTime); r.notBefore.Before(t) {
			r.notBefore = t
		}
		return
	}
	r.taken, r.next = true, now.Add(arriveTime)
}

// restartAnswered: the answer is in force.
func (s *session) restartAnswered() {
	r := &s.restart
	if r.since.IsZero() || r.taken {
		return
	}
	s.settled, s.candidates = time.Time{}, 0
	r.taken, r.next = true, time.Now().Add(arriveTime)
}

// restartArrived: ICE has selected a pair.
func (s *session) restartArrived() {
	r := &s.restart
	switch {
	case r.since.IsZero():
	case r.taken && r.heard:
		s.restartEnded(metrics.RestartNeedless)
	case r.taken:
		s.restartEnded(metrics.RestartCompleted)
	case r.offers == 0: // it has come by another path
		s.restartEnded("")
	}
}

// restartRolledBack: nobody has answered in time.
func (s *session) restartRolledBack() {
	if r := &s.restart; !r.since.IsZero() && r.heard {
		s.restartEnded(metrics.RestartNeedless)
	}
}

// restartEnded tells how it has ended. The endpoint may still take what it was offered.
func (s *session) restartEnded(outcome metrics.RestartOutcome) {
	r := &s.restart
	now := time.Now()
	s.peer.CancelRestart()
	if r.offers > 0 && outcome != "" {
		s.server.cfg.Metrics.Restarted(outcome)
		s.log.Info("ice restart over", "outcome", string(outcome), "took", now.Sub(r.since).Round(time.Millisecond), "offers", r.offers)
	}
	if outcome == metrics.RestartCompleted {
		s.quality.record(report.Event{Kind: report.Restarted, Detail: "after " + now.Sub(r.since).Round(time.Millisecond).String()})
	}
	if outcome == metrics.RestartNeedless {
		s.watch.alarmed.Store(true)
		r.pause = min(2*r.pause, maxPause)
	} else {
		r.pause = restartPause
	}
	r.pause = max(r.pause, restartPause)
	r.notBefore = now.Add(r.pause)
	r.since, r.next, r.heard, r.taken, r.offers, r.sent = time.Time{}, time.Time{}, false, false, 0, wire.Description{}
}

// restartFailed: the session ends in an outage.
func (s *session) restartFailed() {
	if s.restart.offers > 0 {
		s.server.cfg.Metrics.Restarted(metrics.RestartFailed)
	}
}
