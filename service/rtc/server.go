// Package rtc is the control plane: calls, their sessions, and who receives what.
//
// A Server holds the sessions by group and id. Each session has a loop that owns its peer
// connection; pion's callbacks, the data plane's hooks and the backend's messages post to it and
// return. What a session publishes is listed by its call, and every other member brings its
// subscriptions in line with the list. Packets never come here: see package forward.
package rtc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/report"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/netio"
)

// Limits by name, as counted in rtcd_limit_hits_total.
const (
	LimitSessions       metrics.Limit = "sessions"
	LimitCalls          metrics.Limit = "calls"
	LimitParticipants   metrics.Limit = "max_participants"
	LimitCallSessions   metrics.Limit = "sessions_per_call"
	LimitClientSessions metrics.Limit = "sessions_per_client"
	LimitClientCalls    metrics.Limit = "calls_per_client"
	LimitJoins          metrics.Limit = "joins_per_second"
	LimitCandidates     metrics.Limit = "remote_candidates"
	LimitSections       metrics.Limit = "media_sections"
	LimitMailbox        metrics.Limit = "session_messages"
	LimitChannels       metrics.Limit = "data_channels"
	LimitChannelQueue   metrics.Limit = "data_channel_queue"
	LimitChannelRate    metrics.Limit = "data_channel_rate"
	LimitOffers         metrics.Limit = "offers_per_second"
	LimitSetup          metrics.Limit = "setup_time"
)

// Limits bounds what clients may make. Zero means no limit but for those with a default.
type Limits struct {
	Sessions          int // of the server, as are Calls
	Calls             int
	SessionsPerCall   int
	SessionsPerClient int
	CallsPerClient    int
	JoinsPerSecond    int   // and client
	JoinsBurst        int   // of which at once; default ten times as many
	RemoteCandidates  int   // of one session, for a full ICE agent; default 64
	MediaSections     int   // sent to one session; default 1,024
	BitratePerClient  int64 // bits per second received of all its sessions
}

// Config is what a Server is made of.
type Config struct {
	UDPAddrs, TCPAddrs []netip.AddrPort
	SocketsPerAddr     int
	Inherit            *netio.Sockets // listening sockets of a former process; see netio.Config
	TCPConns           int            // and TCPConnsPerIP: see netio.Config
	TCPConnsPerIP      int

	// Engine needs no Mux; see engine.Config for the rest. Lite is set from below.
	Engine engine.Config
	Lite   bool
	// Discover is the STUN server asked for our external addresses at start, host and port.
	Discover string

	// Screens is how many screens may be shared in a call at a time. 0 means one, as clients of the
	// wire expect; less than that any number.
	Screens int
	// Voices is how many voices of a call are forwarded, the loudest ones; 0: all.
	Voices int
	// Cameras is how many cameras a session is sent, those of the most recent speakers; 0: all.
	Cameras int
	// PauseLayers tells senders of layers that nobody is to be sent; see forward.Config.HoldLayers.
	PauseLayers bool
	// History is how many packets of a video are kept for those who miss them; see forward.Config.
	History int

	// RestartAfter is for how long nothing must have come from an endpoint that usually sends more often
	// before it is offered to restart ICE. 0: DefaultRestartAfter; less: it never is.
	RestartAfter time.Duration

	// MaxParticipants is how many sessions a call may have; 0: any number. A Grant may say less.
	MaxParticipants int

	Limits Limits
	Emit   func(Event) // takes the sessions' events; must not block

	// CallEnded is called once for each call that is over, after its last session's last event, and
	// before there can be another call of that id. It must not wait for joins. nil: not called.
	CallEnded func(groupID, callID string)

	// CallChanged is called when a call has changed, and once after its end, then with nothing in it:
	// of each call at most once a second, with what it is then. It may block for a while. nil: not
	// called.
	CallChanged func(groupID string, info CallInfo)

	// CallRecord takes what was measured of each call that is over. It must not block. nil: nothing is
	// recorded. RecordAddresses records whole addresses of endpoints, not just their networks.
	CallRecord      func(groupID string, r *report.Record)
	RecordAddresses bool

	// CallEvent takes what takes place in calls, in that order. It may block for a
	// while. nil: not called.
	CallEvent func(CallEvent)

	Metrics *metrics.Metrics
	Log     *slog.Logger // nil: discard

	times times // zero but in tests
}

// times of a session's set-up and negotiation.
type times struct {
	firstOffer time.Duration // default firstOfferTime
	setup      time.Duration // default setupTime
	settle     time.Duration // default settleTime
	negotiate  negotiate.Config
}

// SessionInfo is what a join said.
type SessionInfo struct {
	GroupID, CallID, UserID, SessionID string
	ChannelID                          *string
	AV1Support, DCSignaling            *bool
}

type key struct{ group, id string }

// Server holds all calls. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	plane   *forward.Plane
	mux     *netio.Mux
	engine  *engine.Engine
	loops   sync.WaitGroup // of sessions
	probes  probes
	ticker  sync.WaitGroup
	changes *changes
	watcher *watcher
	events  *callEvents
	stop    chan struct{}
	history history
	late    atomic.Int64 // the most that a tick was late since the last sample, nanoseconds

	mu       sync.Mutex
	groups   map[string]*group
	sessions map[key]*session
	calls    int // of all groups
	draining bool
	retired  bool          // a successor takes what is new
	over     chan struct{} // closed once retired and without calls; nil: nobody waits
	stopped  bool
	idle     chan struct{} // of the present drain; closed once there are no calls

	writeMu sync.Mutex
	writes  map[writeKey]*forward.Histogram
}

// NewServer opens the media sockets and starts. The caller closes it.
func NewServer(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.New()
	}
	if cfg.Emit == nil {
		cfg.Emit = func(Event) {}
	}
	if cfg.Limits.RemoteCandidates == 0 {
		cfg.Limits.RemoteCandidates = 64
	}
	if cfg.Limits.MediaSections == 0 {
		cfg.Limits.MediaSections = 1024
	}
	if cfg.Screens == 0 {
		cfg.Screens = 1
	}
	if cfg.RestartAfter == 0 {
		cfg.RestartAfter = DefaultRestartAfter
	}
	if cfg.times.firstOffer == 0 {
		cfg.times.firstOffer = firstOfferTime
	}
	if cfg.times.setup == 0 {
		cfg.times.setup = setupTime
	}
	if cfg.times.settle == 0 {
		cfg.times.settle = settleTime
	}
	s := &Server{
		cfg: cfg, log: cfg.Log,
		plane:    forward.NewPlane(forward.Config{History: cfg.History, LastCameras: cfg.Cameras, HoldLayers: cfg.PauseLayers}),
		stop:     make(chan struct{}),
		groups:   make(map[string]*group),
		sessions: make(map[key]*session),
		watcher:  newWatcher(cfg.RestartAfter),
		events:   newCallEvents(cfg.CallEvent, func() { cfg.Metrics.LimitHit(LimitCallEvents) }),
		writes:   make(map[writeKey]*forward.Histogram),
	}
	mux, err := netio.Listen(netio.Config{
		UDPAddrs: cfg.UDPAddrs, TCPAddrs: cfg.TCPAddrs, SocketsPerAddr: cfg.SocketsPerAddr, Inherit: cfg.Inherit,
		StreamConns: cfg.TCPConns, StreamConnsSource: cfg.TCPConnsPerIP,
		Net: cfg.Engine.Net, Media: s.plane, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open media sockets: %w", err)
	}
	s.mux = mux
	ecfg := cfg.Engine
	ecfg.Mux, ecfg.Lite, ecfg.Log = mux, cfg.Lite, cfg.Log
	ecfg.RemoteCandidates = cfg.Limits.RemoteCandidates
	if cfg.Discover != "" {
		ecfg.Override.Found = s.discover(ctx)
		s.cfg.Engine.Override.Found = ecfg.Override.Found
	}
	if s.engine, err = engine.New(ecfg); err != nil {
		return nil, errors.Join(fmt.Errorf("set up ice: %w", err), mux.Close())
	}
	cfg.Metrics.SetWriteTimes(s.writeTimes)
	cfg.Metrics.SetMedia(s.mediaSamples)
	cfg.Metrics.SetLimits(s.limitHits)
	s.ticker.Go(s.tick)
	s.ticker.Go(func() { s.watcher.run(s.stop) })
	s.ticker.Go(s.sampleAll)
	s.ticker.Go(func() { s.events.run(s.stop) })
	if cfg.CallChanged != nil {
		s.changes = newChanges(s.callChanged)
		s.ticker.Go(func() { s.changes.run(s.stop) })
	}
	if cfg.Limits.BitratePerClient > 0 {
		s.ticker.Go(s.watchBudgets)
	}
	return s, nil
}

// discover asks the STUN server from all sockets at once. Without an answer the addresses stay
// as they are: a warning, no reason not to start.
func (s *Server) discover(ctx context.Context) map[netip.Addr]netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, engine.DiscoverTime)
	defer cancel()
	var r net.Resolver
	host, port, err := net.SplitHostPort(s.cfg.Discover)
	if err == nil {
		var addrs []netip.Addr
		var n int
		if addrs, err = r.LookupNetIP(ctx, "ip4", host); err == nil && len(addrs) > 0 {
			if n, err = r.LookupPort(ctx, "udp", port); err == nil {
				server := net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrs[0].Unmap(), uint16(n)))
				found, ferr := engine.Discover(ctx, s.mux.UDPConns(), server)
				if ferr != nil {
					s.log.Warn("stun discovery incomplete", "address", s.cfg.Discover, "found", len(found), "err", ferr)
				}
				return found
			}
		}
	}
	s.log.Warn("stun discovery failed", "address", s.cfg.Discover, "err", err)
	return nil
}

// tick drives what the data plane does by the clock.
func (s *Server) tick() {
	out := s.mux.NewBatch()
	t := time.NewTicker(forward.TickInterval)
	defer t.Stop()
	var last time.Time
	for {
		select {
		case now := <-t.C:
			s.lateness(now, last)
			last = now
			s.plane.Tick(now, out)
		case <-s.stop:
			return
		}
	}
}

// find returns the session, or nil for one that is not there or is another group's.
func (s *Server) find(groupID, sessionID string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[key{groupID, sessionID}]
}

// Leave ends a session, if there is one.
func (s *Server) Leave(groupID, sessionID string) {
	if ses := s.find(groupID, sessionID); ses != nil {
		ses.end(CloseLeft)
	}
}

// Signal hands one message of the backend to a session.
func (s *Server) Signal(groupID, sessionID string, m wire.Signal) error {
	ses := s.find(groupID, sessionID)
	if ses == nil {
		return ErrNoSession
	}
	ses.share(m)
	ses.post(func() { ses.signal(m) })
	return nil
}

// Exists reports whether the session lives.
func (s *Server) Exists(groupID, sessionID string) bool { return s.find(groupID, sessionID) != nil }

// Sessions lists the sessions of a call and reports whether there is such a call.
func (s *Server) Sessions(groupID, callID string) ([]SessionInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callLocked(groupID, callID)
	if c == nil || s.groups[groupID].members[callID] == 0 { // it may linger
		return nil, false
	}
	var out []SessionInfo
	for k, ses := range s.sessions {
		if k.group == groupID && ses.call == c {
			out = append(out, ses.info)
		}
	}
	return out, true
}

// EndOrphans ends all sessions of a client that has been away for long.
func (s *Server) EndOrphans(groupID string) {
	for _, ses := range s.list(func(k key) bool { return k.group == groupID }) {
		ses.end(CloseOrphaned)
	}
}

// EndGroup ends all sessions of a client that is none any more.
func (s *Server) EndGroup(groupID string) {
	for _, ses := range s.list(func(k key) bool { return k.group == groupID }) {
		ses.end(CloseUnregister)
	}
	s.endIdle(func(c *call) bool { return c.group == groupID })
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	for k := range s.writes {
		if k.group == groupID {
			delete(s.writes, k)
		}
	}
}

func (s *Server) list(match func(key) bool) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*session
	for k, ses := range s.sessions {
		if match(k) {
			out = append(out, ses)
		}
	}
	return out
}

// Count returns the number of live sessions.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Close ends all sessions, telling their backends, and closes the sockets.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped = true
	s.mu.Unlock()
	s.EndAll()
	for _, c := range s.ending() {
		<-c.gone
	}
	s.probes.close()
	s.loops.Wait()
	close(s.stop)
	s.ticker.Wait()
	return errors.Join(s.engine.Close(), s.mux.Close())
}
