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
	"time"

	"golang.org/x/time/rate"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/negotiate"
	"rtcd/service/rtc/netio"
)

// Errors of Join and Signal.
var (
	ErrNoSession = errors.New("no such session")
	ErrDraining  = errors.New("server takes no new calls")
	ErrLimit     = errors.New("limit reached")
	ErrOtherCall = errors.New("session is in another call")
	ErrStopped   = errors.New("server stopped")
)

// Limits by name, as counted in rtcd_limit_hits_total.
const (
	LimitCallSessions   metrics.Limit = "sessions_per_call"
	LimitClientSessions metrics.Limit = "sessions_per_client"
	LimitClientCalls    metrics.Limit = "calls_per_client"
	LimitJoins          metrics.Limit = "joins_per_second"
	LimitCandidates     metrics.Limit = "remote_candidates"
	LimitSections       metrics.Limit = "media_sections"
	LimitMailbox        metrics.Limit = "session_messages"
	LimitChannels       metrics.Limit = "data_channels"
	LimitChannelQueue   metrics.Limit = "data_channel_queue"
)

// Limits bounds what clients may make. Zero means no limit but for those with a default.
type Limits struct {
	SessionsPerCall   int
	SessionsPerClient int
	CallsPerClient    int
	JoinsPerSecond    int // and client
	JoinsBurst        int // of which at once; default ten times as many
	RemoteCandidates  int // of one session, for a full ICE agent; default 64
	MediaSections     int // sent to one session; default 1,024
}

// Config is what a Server is made of.
type Config struct {
	UDPAddrs, TCPAddrs []netip.AddrPort
	SocketsPerAddr     int
	TCPConns           int // and TCPConnsPerIP: see netio.Config
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

	Limits  Limits
	Emit    func(Event) // takes the sessions' events; must not block
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
	cfg    Config
	log    *slog.Logger
	plane  *forward.Plane
	mux    *netio.Mux
	engine *engine.Engine
	loops  sync.WaitGroup // of sessions
	ticker sync.WaitGroup
	stop   chan struct{}

	mu       sync.Mutex
	groups   map[string]*group
	sessions map[key]*session
	draining bool
	stopped  bool
	idle     chan struct{} // closed while draining and without sessions

	writeMu sync.Mutex
	writes  map[writeKey]*forward.Histogram
}

// group is what one client has.
type group struct {
	calls    map[string]*call
	members  map[string]int // sessions by call id
	sessions int
	joins    *rate.Limiter
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
		idle:     make(chan struct{}),
		writes:   make(map[writeKey]*forward.Histogram),
	}
	mux, err := netio.Listen(netio.Config{
		UDPAddrs: cfg.UDPAddrs, TCPAddrs: cfg.TCPAddrs, SocketsPerAddr: cfg.SocketsPerAddr,
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
	}
	if s.engine, err = engine.New(ecfg); err != nil {
		return nil, errors.Join(fmt.Errorf("set up ice: %w", err), mux.Close())
	}
	cfg.Metrics.SetWriteTimes(s.writeTimes)
	cfg.Metrics.SetMedia(s.mediaSamples)
	s.ticker.Go(s.tick)
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
	for {
		select {
		case now := <-t.C:
			s.plane.Tick(now, out)
		case <-s.stop:
			return
		}
	}
}

// Join starts a session; it exists when Join returns. A join of a session that lives in the same
// call changes nothing.
func (s *Server) Join(groupID string, j wire.Join) error {
	info := SessionInfo{
		GroupID: groupID, CallID: j.CallID, UserID: j.UserID, SessionID: j.SessionID,
		ChannelID: j.ChannelID, AV1Support: j.AV1Support, DCSignaling: j.DCSignaling,
	}
	for {
		s.mu.Lock()
		old := s.sessions[key{groupID, j.SessionID}]
		if old == nil {
			ses, err := s.addLocked(info)
			s.mu.Unlock()
			if err != nil {
				return err
			}
			ses.tenant.SessionStarted()
			ses.log.Info("session joined", "userID", info.UserID)
			return nil
		}
		s.mu.Unlock()
		if !old.ending.Load() {
			if old.info.CallID != j.CallID {
				return ErrOtherCall
			}
			return nil
		}
		<-old.gone // a matter of moments: it is telling the backend
	}
}

// addLocked makes the session, and the call if it is the first, unless a limit forbids it.
func (s *Server) addLocked(info SessionInfo) (*session, error) {
	if s.stopped {
		return nil, ErrStopped
	}
	g := s.groups[info.GroupID]
	if g == nil {
		g = &group{calls: make(map[string]*call), members: make(map[string]int), joins: s.joinLimiter()}
	}
	c := g.calls[info.CallID]
	l := s.cfg.Limits
	switch {
	case c == nil && s.draining:
		return nil, ErrDraining
	case over(g.sessions, l.SessionsPerClient):
		return nil, s.limited(LimitClientSessions)
	case over(g.members[info.CallID], l.SessionsPerCall):
		return nil, s.limited(LimitCallSessions)
	case c == nil && over(len(g.calls), l.CallsPerClient):
		return nil, s.limited(LimitClientCalls)
	case !g.joins.Allow():
		return nil, s.limited(LimitJoins)
	}
	if c == nil {
		c = newCall(info.GroupID, info.CallID, s.cfg.Screens, s.cfg.Voices)
		g.calls[info.CallID] = c
	}
	s.groups[info.GroupID] = g
	g.members[info.CallID]++
	g.sessions++
	ses := newSession(s, c, info)
	s.sessions[key{info.GroupID, info.SessionID}] = ses
	c.enter(ses)
	s.loops.Go(ses.run)
	return ses, nil
}

func (s *Server) joinLimiter() *rate.Limiter {
	n := s.cfg.Limits.JoinsPerSecond
	if n == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	burst := s.cfg.Limits.JoinsBurst
	if burst == 0 {
		burst = 10 * n
	}
	return rate.NewLimiter(rate.Limit(n), burst)
}

func over(n, limit int) bool { return limit > 0 && n >= limit }

func (s *Server) limited(l metrics.Limit) error {
	s.cfg.Metrics.LimitHit(l)
	return fmt.Errorf("%w: %s", ErrLimit, string(l))
}

// remove takes an ended session out of the tables, and its call with the last.
func (s *Server) remove(ses *session, _ CloseReason) {
	g := ses.info.GroupID
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, key{g, ses.info.SessionID})
	ses.tenant.SessionEnded()
	grp := s.groups[g]
	grp.sessions--
	if grp.members[ses.info.CallID]--; grp.members[ses.info.CallID] == 0 {
		delete(grp.members, ses.info.CallID)
		delete(grp.calls, ses.info.CallID)
	}
	// The group stays while its join budget is not full again, or leaving would refill it.
	if grp.sessions == 0 && (s.cfg.Limits.JoinsPerSecond == 0 ||
		grp.joins.Tokens() >= float64(grp.joins.Burst())-1) {
		delete(s.groups, g)
	}
	if s.draining && len(s.sessions) == 0 {
		s.closeIdle()
	}
}

func (s *Server) closeIdle() {
	select {
	case <-s.idle:
	default:
		close(s.idle)
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
	g := s.groups[groupID]
	if g == nil || g.calls[callID] == nil {
		return nil, false
	}
	c := g.calls[callID]
	var out []SessionInfo
	for k, ses := range s.sessions {
		if k.group == groupID && ses.call == c {
			out = append(out, ses.info)
		}
	}
	return out, true
}

// EndGroup ends all sessions of a client.
func (s *Server) EndGroup(groupID string) {
	for _, ses := range s.list(func(k key) bool { return k.group == groupID }) {
		ses.end(CloseUnregister)
	}
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

// Drain refuses new calls from now on; joins to running calls go on. The channel is closed when
// the last session has ended.
func (s *Server) Drain() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if len(s.sessions) == 0 {
		s.closeIdle()
	}
	return s.idle
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
	for _, ses := range s.list(func(key) bool { return true }) {
		ses.end(CloseShutdown)
	}
	s.loops.Wait()
	close(s.stop)
	s.ticker.Wait()
	return errors.Join(s.engine.Close(), s.mux.Close())
}
