// Package ws serves the WebSockets of backends: it hands their messages to the calls and carries
// the calls' messages back to whichever connection serves a session now.
//
// Each connection has a read pump and a write pump. What a session has to say is queued on the
// connection its route names; when that connection dies, what its peer's TCP did not acknowledge
// goes out again, in order and before anything newer, on another connection of the same client,
// or is parked until the client is back. A client that stalls or floods delays nobody else.
package ws

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/internal/quietlog"
	"rtcd/service/api/wire"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

// Calls is what the server needs of the calls. All methods return at once and are safe for
// concurrent use. A session is always named by its group, which is the client's id, and its own
// id: what belongs to another client looks like what does not exist. The close of an ended
// session is handed to Send before Exists says no and before its id can be joined anew.
type Calls interface {
	// Join starts a session; it exists when Join returns. Joining again in the same call while
	// the session lives changes nothing and is no error. Any other refusal is an error. The group
	// is the peer's ClientID.
	Join(p Peer, j wire.Join) error
	// Leave ends a session, if there is one.
	Leave(groupID, sessionID string)
	// Signal hands one signalling message to a session.
	Signal(groupID, sessionID string, s wire.Signal) error
	// Exists reports whether the session lives.
	Exists(groupID, sessionID string) bool
	// Moderate does what a moderator wants in a call of the peer's, or says why not. What the
	// moderation lacks has been checked.
	Moderate(p Peer, m wire.Moderate) error
}

// A Peer is the client at the other end of a connection, as it was authenticated.
type Peer struct {
	ClientID string
	Epoch    uint64       // of its credentials; see CutBefore
	Roles    policy.Roles // see SetRoles
	Remote   netip.Addr   // where it comes from; that of the socket if not valid
}

// Policy is what the server asks about roles. A *policy.Table is one.
type Policy interface {
	In(r policy.Roles, msgType string) bool
	Out(r policy.Roles, msgType string) bool
	Allows(r policy.Roles, route string) bool
}

// route is what a connection itself asks for.
const openRoute = "GET /ws"

// Limits of a Server by name, as counted in rtcd_limit_hits_total.
const (
	LimitConnections metrics.Limit = "ws_connections_per_client"
	LimitInboundRate metrics.Limit = "ws_inbound_rate"
	LimitQueue       metrics.Limit = "ws_outbound_queue"
	LimitStall       metrics.Limit = "ws_stall"
	LimitParked      metrics.Limit = "ws_parked_messages"
	LimitMessage     metrics.Limit = "ws_message_bytes"
)

// Config holds the settings of a Server. Zero values mean the defaults named with each field.
type Config struct {
	PingInterval time.Duration // 10 s
	PongTimeout  time.Duration // 20 s without a pong: the peer is dead
	WriteTimeout time.Duration // 10 s for one message: the peer has stalled

	MaxMessageBytes  int64   // 1 MiB from a client
	MaxConnections   int     // 64 per client
	InboundPerSecond float64 // 5,000 messages per second and connection; beyond it, reading waits
	InboundBurst     int     // 20,000

	QueueMessages int // 4,096 messages waiting for one connection
	QueueBytes    int // 8 MiB

	// Messages kept for a session while its client has no connection.
	ParkedMessages int           // 64
	ParkedBytes    int           // 256 KiB
	ParkedFor      time.Duration // 90 s
	// The same for all sessions of a client together. Closes do not count, but there are no
	// more than ParkedClientMessages of them either.
	ParkedClientMessages int // 16,384
	ParkedClientBytes    int // 16 MiB

	// MoveTimeout is how long a session that a client moves to another connection waits for
	// messages still under way on the old one. After it the old connection is closed.
	MoveTimeout time.Duration // 2 s

	// Current, if set, says whether the credentials of a peer are still good, and which roles it
	// has now. It is asked once a new connection is in the table, so that a client that was
	// dropped, or whose rights changed, while it connected does not stay as it was.
	Current func(p Peer) (policy.Roles, bool)
	// Orphaned is called for each client that has had sessions and no connection for OrphanedAfter, and
	// again as often. It may block for a while. Without a time it is not called.
	OrphanedAfter time.Duration
	Orphaned      func(clientID string)
	// Policy says what may be sent by, and to, whom; nil: every message there is.
	Policy Policy
	// Record takes one event for each connection that opens and closes, and one for each message
	// that comes; nil: none. It is called from the pumps of connections and must not wait for long.
	Record func(Event)
}

func (c Config) withDefaults() Config {
	orDefault(&c.PingInterval, 10*time.Second)
	orDefault(&c.PongTimeout, 20*time.Second)
	orDefault(&c.WriteTimeout, 10*time.Second)
	orDefault(&c.MaxMessageBytes, 1<<20)
	orDefault(&c.MaxConnections, 64)
	orDefault(&c.InboundPerSecond, 5000)
	orDefault(&c.InboundBurst, 20_000)
	orDefault(&c.QueueMessages, 4096)
	orDefault(&c.QueueBytes, 8<<20)
	orDefault(&c.ParkedMessages, 64)
	orDefault(&c.ParkedBytes, 256<<10)
	orDefault(&c.ParkedFor, 90*time.Second)
	orDefault(&c.ParkedClientMessages, 16_384)
	orDefault(&c.ParkedClientBytes, 16<<20)
	orDefault(&c.MoveTimeout, 2*time.Second)
	return c
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// A Server serves the connections of all clients.
type Server struct {
	cfg      Config
	calls    Calls
	metrics  *metrics.Metrics
	log      *slog.Logger
	quiet    *quietlog.Logger
	upgrader websocket.Upgrader

	stop    chan struct{} // closed by Close: the janitor ends
	janitor sync.WaitGroup
	serving sync.WaitGroup

	// One lock for all routing: what is done under it is short, and a message that changes
	// connections is in exactly one place at any time.
	mu      sync.Mutex
	clients map[string]*client
	moving  map[*route]struct{} // routes that wait for an old connection
	away    map[*route]struct{} // routes with parked messages
	doomed  []*conn             // to be aborted once mu is released
	closing bool
	handing bool // closing, for another server to go on
}

// New returns a Server that hands messages to calls. Close must be called in the end. A nil m
// or log discards.
func New(cfg Config, calls Calls, m *metrics.Metrics, log *slog.Logger) *Server {
	if m == nil {
		m = metrics.New()
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:     cfg.withDefaults(),
		calls:   calls,
		metrics: m,
		log:     logging.Quiet(log, "clientID"),
		quiet:   quietlog.New(log),
		stop:    make(chan struct{}),
		clients: make(map[string]*client),
		moving:  make(map[*route]struct{}),
		away:    make(map[*route]struct{}),
		upgrader: websocket.Upgrader{
			HandshakeTimeout: 5 * time.Second,
			ReadBufferSize:   4096,
			WriteBufferSize:  4096,
			WriteBufferPool:  &sync.Pool{},
			Subprotocols:     []string{wire.SubprotocolV2},
		},
	}
	s.janitor.Go(s.tidy)
	return s
}

// Serve upgrades the request of an authenticated client and serves the connection until it
// ends. What is refused is answered with 400 (no WebSocket request), 403 (foreign origin), 429
// (too many connections of the client) or 503 (shutting down).
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, p Peer) {
	clientID := p.ClientID
	cl, err := s.reserve(clientID)
	switch {
	case errors.Is(err, errShuttingDown):
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	case err != nil:
		s.metrics.LimitHit(LimitConnections)
		s.quiet.Warn("websocket refused: too many connections", "clientID", clientID, "limit", LimitConnections)
		w.Header().Set("Retry-After", "5")
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	defer s.serving.Done()
	socket, err := s.upgrader.Upgrade(w, r, nil)
	if err != nil {
		s.release(cl) // the upgrader has answered
		s.quiet.Warn("websocket refused: bad upgrade", "clientID", clientID, "err", err)
		var unanswered websocket.HandshakeError
		if !errors.As(err, &unanswered) { // the connection was taken over before it broke
			s.record(Event{Type: EventOpen, ClientID: clientID, Remote: p.Remote.String(), Outcome: OutcomeRefused, Reason: "bad_upgrade"})
		}
		return
	}
	newConn(s, cl, p, socket).run()
}

// Send queues a message of a session for its client. It never blocks and may be called at any
// time; after Close, or for a client that was dropped, it does nothing.
func (s *Server) Send(clientID, sessionID string, msg Outbound) {
	if msg.Kind > Close {
		s.metrics.Discarded(metrics.BlockedOut)
		s.quiet.Error("message of a kind that no session has was not sent", "clientID", clientID, "kind", msg.Kind)
		return
	}
	data := msg.encode(sessionID)
	s.mu.Lock()
	defer s.unlock()
	cl := s.clients[clientID]
	if cl == nil {
		return
	}
	r := cl.routes[sessionID]
	if r == nil {
		if msg.Kind != Close { // every session that lives has a route
			s.metrics.Discarded(metrics.NoSession)
			return
		}
		r = cl.newRoute(sessionID, cl.live())
	}
	s.post(r, item{data: data, kind: msg.Kind, route: r})
}

// Close refuses new connections, gives the open ones until ctx is done to take what is queued
// for them, then closes them all. When it returns nothing of the server is running. The error is
// that of ctx, if it ended before the queues were empty.
func (s *Server) Close(ctx context.Context) error {
	err := s.finish(ctx, false)
	s.mu.Lock()
	defer s.unlock()
	s.forgetAll()
	return err
}

// forgetAll forgets all clients and their sessions.
func (s *Server) forgetAll() {
	for id, cl := range s.clients {
		for _, r := range cl.routes {
			s.forget(r)
		}
		delete(s.clients, id)
	}
}

// finish ends all connections and everything that runs. Peers are asked to close theirs if the sessions
// go on elsewhere, so that what they have sent is read to its end.
func (s *Server) finish(ctx context.Context, handing bool) error {
	s.mu.Lock()
	s.handing = handing
	first := !s.closing
	s.closing = true
	for _, cl := range s.clients {
		for _, c := range cl.conns {
			c.finishing = true
			c.notify()
		}
	}
	s.unlock()
	if first {
		close(s.stop)
	}

	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.failAll()
		<-done
	}
	s.janitor.Wait()
	return err
}

// Connections returns the number of live connections of a client.
func (s *Server) Connections(clientID string) int {
	s.mu.Lock()
	defer s.unlock()
	if cl := s.clients[clientID]; cl != nil {
		return len(cl.conns)
	}
	return 0
}

// Connected returns the number of live connections of each client that has any.
func (s *Server) Connected() map[string]int {
	s.mu.Lock()
	defer s.unlock()
	out := make(map[string]int)
	for id, cl := range s.clients {
		if len(cl.conns) > 0 {
			out[id] = len(cl.conns)
		}
	}
	return out
}

// unlock releases mu and then aborts the connections that were given up under it.
func (s *Server) unlock() {
	doomed := s.doomed
	s.doomed = nil
	s.mu.Unlock()
	for _, c := range doomed {
		c.abort()
	}
}

func (s *Server) failAll() {
	s.mu.Lock()
	defer s.unlock()
	for _, cl := range s.clients {
		for _, c := range cl.conns {
			s.fail(c, errShuttingDown)
		}
	}
}

// tidy drops what was parked for too long and ends moves that take too long.
func (s *Server) tidy() {
	tick := time.NewTicker(s.cfg.MoveTimeout / 8)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.mu.Lock()
			for r := range s.moving {
				if now.Sub(r.movingSince) >= s.cfg.MoveTimeout {
					s.fail(r.waiting, errMoveTimeout)
				}
			}
			for r := range s.away {
				s.expire(r, now)
			}
			orphaned := s.orphaned(now)
			s.unlock()
			for _, id := range orphaned {
				s.cfg.Orphaned(id)
			}
		}
	}
}
