package rtc

import (
	"errors"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/negotiate"
)

// maxEarlyCandidates bounds the candidates that are kept until there is an offer.
const maxEarlyCandidates = 64

// signal handles one message of the backend for this session, on the loop. What cannot be used
// is dropped and counted; only a first offer that does not apply ends the session.
func (s *session) signal(m wire.Signal) {
	switch m.Type {
	case wire.SignalMute, wire.SignalUnmute, wire.SignalScreenOn, wire.SignalScreenOff, wire.SignalVideoOn, wire.SignalVideoOff:
		s.watch.relaxed.Store(true) // what is usual for it is going to change
	}
	switch m.Type {
	case wire.SignalSDP:
		s.description(m.Data, negotiate.WebSocket)
	case wire.SignalICE:
		s.candidate(m.Data)
	case wire.SignalMute:
		s.setMuted(true)
	case wire.SignalUnmute:
		s.setMuted(false)
	case wire.SignalScreenOn:
		s.publishStreams() // share has said whose screen it is
	case wire.SignalVideoOn:
		id, err := s.announced(m.Data, "videoStreamID")
		if err != nil {
			s.refused("video-on", err)
			return
		}
		s.videoStream = id
		s.call.allowAgain(s, id)
		s.publishStreams()
	}
}

// share keeps account of who shares the screen. It runs where the message arrives and not on the
// loop: messages of one connection count in their order, also those of different sessions, and
// one's screen-off makes way for the next one's screen-on.
func (s *session) share(m wire.Signal) {
	switch m.Type {
	case wire.SignalScreenOn:
		id, err := s.announced(m.Data, "screenStreamID")
		if err != nil {
			s.refused("screen-on", err)
			return
		}
		s.call.shareScreen(s, id)
	case wire.SignalScreenOff:
		s.call.stopScreen(s)
	}
}

var (
	errNoStream = errors.New("stream id is empty")
	errMayNot   = errors.New("session may publish nothing")
)

// announced returns the stream that an announcement names.
func (s *session) announced(data []byte, key string) (string, error) {
	if !s.grant.mayPublish() {
		return "", errMayNot
	}
	id, err := wire.ParseStreamID(data, key)
	if err == nil && id == "" {
		err = errNoStream
	}
	return id, err
}

// refused counts and tells of signalling that had no effect.
func (s *session) refused(what string, err error) {
	s.tenant.Errored(metrics.SignalingError)
	s.log.Debug("signalling refused", "what", what, "err", err)
}

// description takes an offer or an answer of the endpoint.
func (s *session) description(data []byte, route negotiate.Route) {
	d, err := wire.ParseDescription(data)
	if err != nil {
		s.refused("description", err)
		return
	}
	now := time.Now()
	if d.Type == "answer" {
		s.perform(s.machine.Answer(now, d.SDP))
		return
	}
	if s.peer == nil {
		if err := s.connect(); err != nil {
			s.log.Error("make the peer connection", "err", err)
			s.end(CloseAddress)
			return
		}
	}
	if s.offers[metrics.In].IsZero() {
		s.offers[metrics.In] = now
	}
	actions := s.machine.Offer(now, d.SDP, route)
	if s.machine.Throttled() {
		s.server.cfg.Metrics.LimitHit(LimitOffers)
	}
	s.perform(actions)
}

// candidate takes a candidate of the endpoint. An ICE-lite agent never sends a check, so it has
// no use for them and learns addresses from the endpoint's checks alone.
func (s *session) candidate(data []byte) {
	c, err := wire.ParseCandidate(data)
	if err != nil {
		s.refused("candidate", err)
		return
	}
	if c.Candidate == "" || s.server.cfg.Lite {
		return
	}
	init := webrtc.ICECandidateInit{Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex}
	if s.answered.IsZero() {
		if len(s.early) < maxEarlyCandidates {
			s.early = append(s.early, init)
		} else {
			s.server.cfg.Metrics.LimitHit(LimitCandidates)
		}
		return
	}
	s.addCandidate(init)
}

func (s *session) addCandidate(c webrtc.ICECandidateInit) {
	if s.candidates >= s.server.cfg.Limits.RemoteCandidates {
		s.server.cfg.Metrics.LimitHit(LimitCandidates)
		return
	}
	s.candidates++
	if err := s.peer.AddICECandidate(c); err != nil {
		s.refused("candidate", err)
	}
}

// perform carries out what the negotiation machine says.
func (s *session) perform(actions []negotiate.Action) {
	for len(actions) > 0 && !s.ending.Load() {
		a := actions[0]
		actions = append(actions[1:], s.act(a)...)
	}
}

func (s *session) act(a negotiate.Action) []negotiate.Action {
	switch a.Verb {
	case negotiate.AcceptOffer:
		return s.acceptOffer(a)
	case negotiate.MakeOffer:
		s.tenant.ObserveLockGrab(a.Waited)
		return s.makeOffer()
	case negotiate.ApplyAnswer:
		return s.applyAnswer(a.SDP)
	case negotiate.Rollback:
		s.peer.ForgetOffer()
		s.restartRolledBack()
		if a.Late {
			s.tenant.Errored(metrics.SignalingError)
			s.log.Warn("offer not answered in time, it will be made again")
		}
	case negotiate.LockReleased:
		s.tenant.ObserveLockHeld(a.Held)
	}
	return nil
}

func (s *session) acceptOffer(a negotiate.Action) []negotiate.Action {
	first := s.answered.IsZero()
	answer, err := s.peer.AcceptOffer(a.SDP)
	if err != nil {
		s.refused("offer", err)
		if first {
			s.end(CloseBadOffer)
			return nil
		}
		if err := s.peer.Recover(); err != nil {
			s.log.Error("recover from a bad offer", "err", err)
			s.end(CloseBadOffer)
			return nil
		}
		return s.machine.OfferAccepted(time.Now())
	}
	if first {
		s.answered = time.Now()
	}
	s.watch.relaxed.Store(true) // it may send less
	if s.peer.Restarted() {
		s.restartedByEndpoint()
	}
	// Before the answer is out: with it the endpoint begins to send, and packets of a section that
	// the data plane does not know yet could pass for those of another.
	s.applySections()
	if err := s.sendDescription(wire.Description{Type: "answer", SDP: answer}, a.Route); err != nil {
		s.log.Error("send answer", "err", err)
	}
	s.negotiated(metrics.In)
	for _, c := range s.early {
		s.addCandidate(c)
	}
	s.early = nil
	return s.machine.OfferAccepted(time.Now())
}

// makeOffer offers everything that is to be told, if there is anything.
func (s *session) makeOffer() []negotiate.Action {
	if err := s.updateTracks(); err != nil {
		if !hasLeft(err) {
			s.tenant.Errored(metrics.TrackError)
			s.log.Error("change tracks", "err", err)
		}
		return s.machine.OfferFailed(time.Now())
	}
	restarts := s.peer.Restarting()
	if !s.unsent && !restarts {
		return s.machine.OfferSkipped(time.Now())
	}
	offer, err := s.peer.MakeOffer()
	if err == nil && s.unsent {
		err = s.sendMediaMap() // always before its offer
	}
	if err == nil {
		s.offerRoute = negotiate.WebSocket
		if s.info.DCSignaling != nil && *s.info.DCSignaling && !restarts { // the channel is on the path
			s.offerRoute = negotiate.DataChannel
		}
		d := wire.Description{Type: "offer", SDP: offer}
		if err = s.sendDescription(d, s.offerRoute); err == nil && restarts {
			s.restartOffered(d)
		}
	}
	if err != nil {
		s.peer.ForgetOffer()
		if !hasLeft(err) {
			s.tenant.Errored(metrics.SignalingError)
			s.log.Error("make offer", "err", err)
		}
		return s.machine.OfferFailed(time.Now())
	}
	s.offers[metrics.Out] = time.Now()
	s.machine.OfferSent(s.offers[metrics.Out])
	return nil
}

// hasLeft reports whether something failed because the endpoint has closed the connection, as will be told next.
func hasLeft(err error) bool { return errors.Is(err, webrtc.ErrConnectionClosed) }

func (s *session) applyAnswer(sdp string) []negotiate.Action {
	restarts := s.peer.Restarting()
	if err := s.peer.ApplyAnswer(sdp); err != nil {
		s.refused("answer", err)
		return s.machine.AnswerFailed(time.Now())
	}
	s.negotiated(metrics.Out)
	if restarts {
		s.restartAnswered()
	}
	s.unsent = false
	s.applySections()
	return s.machine.AnswerApplied(time.Now())
}

// negotiated records how long an offer has waited for its answer.
func (s *session) negotiated(offer metrics.Direction) {
	if since := s.offers[offer]; !since.IsZero() {
		s.server.cfg.Metrics.ObserveNegotiation(offer, time.Since(since))
		s.offers[offer] = time.Time{}
	}
}

// setMuted mutes or unmutes the voice, as its endpoint says; without a voice it does nothing, and a new
// one starts unmuted. Muting says voice off, also of a voice that is not on. Unmuting takes a
// moderator's mute back, too, if there is one.
func (s *session) setMuted(muted bool) {
	if !muted {
		s.call.unsilence(s)
	}
	defer s.call.touch()
	for _, p := range *s.call.publications.Load() {
		if p.owner != s || p.source != forward.Voice {
			continue
		}
		off := muted && !p.media.Speaking()
		p.media.SetMuted(muted)
		if off {
			s.voiceChanged(false)
		}
	}
}
