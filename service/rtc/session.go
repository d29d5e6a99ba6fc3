package rtc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/report"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/netio"
)

// Times of a session's set-up.
const (
	firstOfferTime = 10 * time.Second // from the join
	setupTime      = 20 * time.Second // from the first offer to an open data channel
	settleTime     = 3 * time.Second  // on a path, until others are given up (RFC 8445 section 8.3.1)
)

// A session is one endpoint's attachment to a call. Its loop owns the peer connection; everybody
// else posts.
type session struct {
	// Fixed at creation.
	server *Server
	call   *call
	info   SessionInfo
	grant  Grant
	budget *forward.Budget // of its client; nil: none
	joined time.Time
	tenant *metrics.Tenant
	log    *slog.Logger

	// For any goroutine.
	inbox    mailbox
	changed  atomic.Bool // publications of the call changed
	ending   atomic.Bool
	silenced atomic.Bool // a moderator has muted it; set and cleared with the call's mu held
	quality  quality
	gone     chan struct{} // closed when the session is out of all tables
	done     chan struct{} // closed when its loop has ended and its transport is closed
	watch    watch
	ctx      context.Context
	cancel   context.CancelFunc // when it begins to end

	// Owned by the loop.
	peer        *engine.Peer  // nil before the first offer
	media       *forward.Peer // likewise
	machine     *negotiate.Machine
	answered    time.Time       // when the first offer was answered
	offers      [2]time.Time    // when what waits for its answer was offered: by the endpoint, by us
	offerRoute  negotiate.Route // of our latest offer
	restart     restart
	connected   bool
	away        bool                // disconnected since
	path        netio.Path          // of its media
	settled     time.Time           // when candidates of TCP are to be given up, if ever
	channel     *webrtc.DataChannel // the first that was offered
	channelOpen bool
	reading     sync.WaitGroup // of the channel
	early       []webrtc.ICECandidateInit
	candidates  int // of the endpoint, taken
	sections    map[string]engine.Section
	streams     map[string]forward.Stream // sections that have sent a packet, by mid
	downlinks   map[*publication]*downlink
	leaving     []*webrtc.RTPTransceiver // sections of downlinks that are no more
	unsent      bool                     // the peer connection has changes that no answered offer contains
	videoStream string                   // named by the last video-on
	untaken     map[codecName]bool       // codecs that answers left out
	unsupported []*publication           // videos of others that it takes in no codec
	untold      bool                     // the endpoint has not been told of a change of those
}

func newSession(srv *Server, c *call, info SessionInfo, grant Grant, budget *forward.Budget) *session {
	s := &session{
		server:    srv,
		call:      c,
		info:      info,
		grant:     grant,
		budget:    budget,
		joined:    time.Now(),
		tenant:    srv.cfg.Metrics.Tenant(info.GroupID),
		log:       logging.Quiet(srv.log.With("groupID", info.GroupID, "callID", info.CallID, "sessionID", info.SessionID), "source", "what"),
		inbox:     newMailbox(),
		gone:      make(chan struct{}),
		done:      make(chan struct{}),
		machine:   negotiate.New(srv.cfg.times.negotiate),
		streams:   make(map[string]forward.Stream),
		downlinks: make(map[*publication]*downlink),
		untaken:   make(map[codecName]bool),
	}
	if srv.cfg.CallRecord != nil {
		s.quality.recorder = new(report.Recorder)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// post hands f to the loop. A session that cannot keep up is closed.
func (s *session) post(f func()) {
	if !s.inbox.post(f) {
		s.server.cfg.Metrics.LimitHit(LimitMailbox)
		s.end(CloseOverrun)
	}
}

// publicationsChanged makes the loop bring the subscriptions in line.
func (s *session) publicationsChanged() {
	s.changed.Store(true)
	s.inbox.nudge()
}

// emit tells the backend.
func (s *session) emit(e Event) {
	e.GroupID, e.CallID = s.info.GroupID, s.info.CallID
	e.UserID, e.SessionID = s.info.UserID, s.info.SessionID
	s.server.cfg.Emit(e)
}

// end takes the session out of everything, tells the backend once, and lets the loop close the
// transport. It may be called by anybody, any number of times.
func (s *session) end(reason CloseReason) {
	if !s.ending.CompareAndSwap(false, true) {
		return
	}
	s.cancel()
	s.inbox.close()
	s.call.leave(s, reason)
	s.log.Info("session ended", "reason", string(reason), "duration", time.Since(s.joined).Round(time.Millisecond))
	s.emit(Event{Kind: Closed, Reason: reason})
	s.server.remove(s)
	close(s.gone)
}

// run is the session's goroutine.
func (s *session) run() {
	defer close(s.done)
	defer s.closeTransport()
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("session panicked", "panic", r, "stack", string(debug.Stack()))
			s.server.cfg.Metrics.HandlerPanicked()
			s.end(CloseInternal)
		}
	}()
	timer := time.NewTimer(s.server.cfg.times.firstOffer)
	defer timer.Stop()
	for !s.ending.Load() {
		select {
		case <-s.inbox.wake:
			for _, f := range s.inbox.take() {
				if s.ending.Load() {
					return
				}
				f()
			}
			if s.changed.Swap(false) {
				s.reconcile()
			}
		case <-timer.C:
			s.expire(time.Now())
		}
		timer.Reset(time.Until(s.deadline()))
	}
}

// deadline is when the loop has to look at the clock next.
func (s *session) deadline() time.Time {
	t := s.machine.Deadline()
	if d := s.setupEnd(); !d.IsZero() && (t.IsZero() || d.Before(t)) {
		t = d
	}
	if d := s.settled; !d.IsZero() && (t.IsZero() || d.Before(t)) {
		t = d
	}
	if d := s.restart.deadline(); !d.IsZero() && (t.IsZero() || d.Before(t)) {
		t = d
	}
	if t.IsZero() {
		t = time.Now().Add(time.Hour)
	}
	return t
}

// setupEnd is when the set-up has taken too long; zero once it is over.
func (s *session) setupEnd() time.Time {
	switch {
	case s.channelOpen:
		return time.Time{}
	case s.answered.IsZero():
		return s.joined.Add(s.server.cfg.times.firstOffer)
	default:
		return s.answered.Add(s.server.cfg.times.setup)
	}
}

func (s *session) expire(now time.Time) {
	if d := s.setupEnd(); !d.IsZero() && !now.Before(d) {
		s.server.cfg.Metrics.LimitHit(LimitSetup)
		if s.answered.IsZero() {
			s.end(CloseNoOffer)
		} else {
			s.end(CloseSetup)
		}
		return
	}
	if !s.settled.IsZero() && !now.Before(s.settled) {
		s.settled = time.Time{}
		if err := s.peer.FreeTCP(); err != nil {
			s.log.Debug("free candidates", "err", err)
		}
	}
	s.perform(s.machine.Expire(now))
	if !s.ending.Load() {
		s.expireRestart(now)
	}
}

// settle notes the path that the session is on. Once it has been on UDP for a while it is not
// expected to go over to TCP without a restart of ICE.
func (s *session) settle(path netio.Path) {
	s.settled, s.path = time.Time{}, path
	if !path.TCP() {
		s.settled = time.Now().Add(s.server.cfg.times.settle)
	}
	s.quality.on(path, s.server.cfg.RecordAddresses)
}

// closeTransport gives everything back that the loop owns.
func (s *session) closeTransport() {
	s.server.watcher.remove(s)
	s.restartFailed()
	for _, d := range s.downlinks {
		d.close()
	}
	s.call.touch() // of what it is not sent any more
	if s.media != nil {
		s.media.Close()
	}
	if s.peer != nil {
		if err := s.peer.GracefulClose(); err != nil {
			s.log.Debug("close peer connection", "err", err)
		}
		s.server.cfg.Metrics.ConnStateChanged(metrics.Closed)
	}
	s.reading.Wait()
}

// connect makes the peer connection, at the first offer.
func (s *session) connect() error {
	cert, err := s.call.certificate()
	if err != nil {
		return err
	}
	peer, err := s.server.engine.NewPeer(s.ctx, cert)
	if err != nil {
		return err
	}
	s.peer = peer
	if !s.grant.mayPublish() {
		peer.ReceiveNothing()
	}
	s.media = s.server.plane.NewPeer(forward.PeerConfig{
		CNAME:        s.info.SessionID,
		OnStream:     func(st forward.Stream) { s.post(func() { s.streamStarted(st) }) },
		SendsNothing: !s.grant.mayPublish(),
		Silenced:     &s.silenced,
		Budget:       s.budget,
	})
	s.quality.media.Store(s.media)
	peer.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			s.post(func() { s.sendCandidate(c) })
		}
	})
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		s.post(func() { s.connectionChanged(state) })
	})
	peer.OnPairChange(func() { s.post(s.pairChanged) })
	peer.OnCheck(func(c engine.Check) bool { return s.watch.checked(c, s.server.cfg.Lite) })
	peer.OnDataChannel(s.channelOffered)
	return nil
}

// connectionChanged follows the state of ICE and DTLS together.
func (s *session) connectionChanged(state webrtc.PeerConnectionState) {
	switch state {
	case webrtc.PeerConnectionStateConnected:
		s.server.cfg.Metrics.ConnStateChanged(metrics.Connected)
		s.quality.connected.Store(true)
		if !s.connected {
			s.attach()
		} else if s.away { // otherwise a restart has come in time
			s.note(ParticipantReconnected, "")
		}
		s.away = false
	case webrtc.PeerConnectionStateDisconnected:
		s.server.cfg.Metrics.ConnStateChanged(metrics.Disconnected)
		s.log.Warn("session disconnected")
		s.away = true
		s.note(ParticipantDisconnected, "")
		s.quality.connected.Store(false)
	case webrtc.PeerConnectionStateFailed:
		s.server.cfg.Metrics.ConnStateChanged(metrics.Failed)
		s.tenant.Errored(metrics.ICEError)
		s.end(CloseICE)
	case webrtc.PeerConnectionStateClosed:
		s.end(ClosePeer)
	}
}

// attach gives the data plane the keys and the path.
func (s *session) attach() {
	keys, err := s.peer.Keys()
	if err != nil {
		s.log.Error("take srtp keys", "err", err)
		s.end(CloseInternal)
		return
	}
	path, err := s.peer.Path()
	if err == nil {
		err = s.media.Attach(path, keys)
	}
	if err != nil {
		s.log.Error("attach to the data plane", "err", err)
		s.end(CloseInternal)
		return
	}
	s.connected = true
	s.settle(path)
	s.tenant.ObserveConnection(time.Since(s.joined))
	s.note(ParticipantConnected, path.String())
	s.log.Info("session connected", "path", path.String(), "profile", uint16(keys.Profile))
	s.server.watcher.add(s)
	for _, d := range s.downlinks {
		s.subscribe(d)
	}
}

// pairChanged moves the media to the pair that ICE has selected.
func (s *session) pairChanged() {
	if !s.connected {
		return
	}
	path, err := s.peer.Path()
	if err == nil {
		err = s.media.Move(path)
	}
	if err != nil {
		s.log.Warn("move media", "err", err)
		return
	}
	moved := path != s.path
	s.settle(path)
	if moved { // and not back to where it was, as after a restart that was needless
		s.log.Info("session moved", "path", path.String())
		s.note(ParticipantMoved, path.String())
	}
	s.restartArrived()
}

// sendDescription tells the endpoint a description, over the given route.
func (s *session) sendDescription(d wire.Description, route negotiate.Route) error {
	data, err := d.Marshal()
	if err != nil {
		return err
	}
	if route == negotiate.DataChannel && s.channelOpen {
		packed, err := channel.AppendSDP(nil, data)
		if err != nil {
			return err
		}
		if len(packed) <= channel.MaxMessage {
			s.sendChannel(packed)
			return nil
		}
		// Too large for the channel; endpoints take it either way.
	}
	s.emit(Event{Kind: Signal, Type: wire.SignalSDP, Data: data})
	return nil
}

// sendCandidate tells the endpoint a candidate of ours.
func (s *session) sendCandidate(c *webrtc.ICECandidate) {
	init := c.ToJSON()
	data, err := wire.MarshalCandidate(wire.Candidate{
		Candidate:     s.peer.CandidateText(init),
		SDPMid:        init.SDPMid,
		SDPMLineIndex: init.SDPMLineIndex,
	})
	if err != nil {
		s.log.Error("encode candidate", "err", err)
		return
	}
	s.emit(Event{Kind: Signal, Type: wire.SignalICE, Data: data})
}
