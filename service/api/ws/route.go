package ws

import (
	"errors"
	"time"

	"rtcd/service/metrics"
)

var (
	errShuttingDown = &cause{"shutting_down", "server is shutting down"}
	errTooMany      = errors.New("too many connections")
	errDropped      = &cause{"unregistered", "client was unregistered"}
	errRevoked      = &cause{"revoked", "credentials were replaced or revoked"}
	errNoRole       = &cause{"no_role", "client has no role that may connect"}
	errGarbage      = &cause{"undecodable", "too many messages that cannot be decoded"}
	errOverflow     = &cause{"stalled", "peer does not read: outbound queue is full"}
	errMoveTimeout  = &cause{"stalled", "peer does not read: its session moved to another connection"}
	errStalled      = &cause{"stalled", "peer does not read: write timed out"}
	errDead         = &cause{"dead", "peer is dead: no pong"}
	errPeerClosed   = &cause{"closed_by_peer", "closed by peer"}
	errPeerReset    = &cause{"closed_by_peer", "reset by peer"}
)

// An item is one encoded message on its way to a client.
type item struct {
	data   []byte
	kind   Kind
	route  *route    // nil for the hello of a connection
	parked time.Time // when it was parked, if it was
	end    int64     // offset in the stream at which it ends; -1 while it is being written
}

// A client is everything the server keeps for one clientID while it has a connection, a session
// or parked messages. All fields are guarded by Server.mu.
type client struct {
	id       string
	tenant   *metrics.Tenant
	conns    []*conn // oldest first
	reserved int     // connections being upgraded
	routes   map[string]*route
	dropped  bool
	epoch    uint64 // connections whose credentials are older are cut
	newest   uint64 // epoch that any connection had
	changes  uint64 // of roles

	awaySince time.Time // the janitor saw routes and no connection; zero: it did not

	parkedMessages, parkedBytes, parkedCloses int
}

// A route says which connection serves a session. All fields are guarded by Server.mu.
type route struct {
	client  *client
	session string
	conn    *conn // nil while the client has no connection
	joining bool  // between reserve and the end of Calls.Join

	// waiting is a connection that may still deliver messages of the session: one that the
	// session was moved away from, or one that is ending. What is new is parked until then.
	waiting     *conn
	movingSince time.Time

	parked                     []item
	parkedMessages, parkedSize int // of parked, without closes
}

// live returns the newest connection of the client that works, or nil.
func (cl *client) live() *conn {
	for i := len(cl.conns) - 1; i >= 0; i-- {
		if c := cl.conns[i]; !c.failing {
			return c
		}
	}
	return nil
}

func (cl *client) newRoute(session string, c *conn) *route {
	r := &route{client: cl, session: session, conn: c}
	cl.routes[session] = r
	return r
}

// reserve makes room for a connection of the client.
func (s *Server) reserve(clientID string) (*client, error) {
	tenant := s.metrics.Tenant(clientID)
	s.mu.Lock()
	defer s.unlock()
	if s.closing {
		return nil, errShuttingDown
	}
	cl := s.clients[clientID]
	if cl == nil {
		cl = &client{id: clientID, tenant: tenant, routes: make(map[string]*route)}
		s.clients[clientID] = cl
	}
	if len(cl.conns)+cl.reserved >= s.cfg.MaxConnections {
		return nil, errTooMany
	}
	cl.reserved++
	s.serving.Add(1)
	return cl, nil
}

// release takes back a reservation.
func (s *Server) release(cl *client) {
	s.mu.Lock()
	defer s.unlock()
	cl.reserved--
	s.sweep(cl)
}

// sweep deletes a client for which nothing is left.
func (s *Server) sweep(cl *client) {
	if len(cl.conns) == 0 && cl.reserved == 0 && len(cl.routes) == 0 && s.clients[cl.id] == cl {
		delete(s.clients, cl.id)
	}
}

// attach makes a reserved connection live: it gets its hello, then everything that was parked.
func (s *Server) attach(c *conn, hello []byte) {
	s.mu.Lock()
	defer s.unlock()
	cl := c.client
	cl.reserved--
	cl.conns = append(cl.conns, c)
	c.push(item{data: hello, kind: kindHello})
	switch {
	case cl.dropped:
		s.failWith(c, CloseRevoked, errDropped)
		return
	case c.peer.Epoch < cl.epoch:
		s.failWith(c, CloseRevoked, errRevoked)
		return
	case s.closing:
		s.fail(c, errShuttingDown)
		return
	}
	cl.newest = max(cl.newest, c.peer.Epoch)
	for _, r := range cl.routes {
		if r.conn == nil {
			r.conn = c
			s.flush(r)
		}
	}
}

// post sends an item along its route, or parks it.
func (s *Server) post(r *route, it item) {
	if r.conn != nil && r.waiting == nil && len(r.parked) == 0 {
		if s.deliver(r, it) {
			return
		}
	}
	s.park(r, it)
	s.trim(r)
}

// deliver queues an item on the route's connection. If that cannot take it, the route waits for
// the connection's end.
func (s *Server) deliver(r *route, it item) bool {
	if r.conn.failing {
		s.await(r, r.conn)
		return false
	}
	if !r.conn.push(it) {
		s.metrics.LimitHit(LimitQueue)
		s.fail(r.conn, errOverflow)
		s.await(r, r.conn)
		return false
	}
	if it.kind == Close {
		s.forget(r) // the last message of the session is on its way
	}
	return true
}

// await makes the route wait until c has delivered the session's messages or has ended.
func (s *Server) await(r *route, c *conn) {
	r.waiting = c
	if r.conn != c {
		r.movingSince = time.Now()
		s.moving[r] = struct{}{}
	}
}

func (s *Server) stopWaiting(r *route) {
	r.waiting = nil
	delete(s.moving, r)
}

// flush queues what is parked on the route's connection.
func (s *Server) flush(r *route) {
	if r.waiting != nil || r.conn == nil || len(r.parked) == 0 {
		return
	}
	s.expire(r, time.Now())
	pending := r.parked
	s.unparkAll(r)
	for i, it := range pending {
		if s.deliver(r, it) {
			continue
		}
		for _, it := range pending[i:] {
			s.park(r, it)
		}
		s.trim(r)
		return
	}
}

// forget removes the route and what is parked on it. Items that are queued or written keep it
// alive until they are acknowledged.
func (s *Server) forget(r *route) {
	s.unparkAll(r)
	s.stopWaiting(r)
	if r.client.routes[r.session] == r {
		delete(r.client.routes, r.session)
	}
	s.sweep(r.client)
}

// bind prepares a join that came on c: from now on the session's messages go there. It reports
// false, and changes nothing, if a join of the same session is being handled already. What is
// left of a former session of that id is dropped, since the client has begun anew.
func (s *Server) bind(c *conn, session string) (*route, bool) {
	s.mu.Lock()
	defer s.unlock()
	if c.client.dropped {
		return nil, false
	}
	if old := c.client.routes[session]; old != nil {
		if old.joining {
			return nil, false
		}
		s.forget(old)
	}
	r := c.client.newRoute(session, c)
	r.joining = true
	return r, true
}

// joined ends what bind began. A refused session is answered with a close.
func (s *Server) joined(r *route, err error) {
	refusal := Outbound{Kind: Close}.encode(r.session)
	s.mu.Lock()
	defer s.unlock()
	r.joining = false
	if err != nil && r.client.routes[r.session] == r {
		s.post(r, item{data: refusal, kind: Close, route: r})
	}
}

// adopt routes a session to c if it has no route: it ended and was joined anew in one moment.
func (s *Server) adopt(c *conn, session string) {
	s.mu.Lock()
	defer s.unlock()
	if cl := c.client; !cl.dropped && cl.routes[session] == nil {
		cl.newRoute(session, c)
	}
}

// move makes c the connection of a live session. Messages that still wait on the old connection
// come along; those already written there are waited for.
func (s *Server) move(c *conn, session string) {
	s.mu.Lock()
	defer s.unlock()
	cl := c.client
	if cl.dropped || c.failing {
		return
	}
	r := cl.routes[session]
	if r == nil {
		cl.newRoute(session, c)
		return
	}
	old := r.conn
	if old == c {
		return
	}
	r.conn = c
	switch {
	case r.waiting == c: // it comes back to where it left: the order is that of c's queue
		s.stopWaiting(r)
	case r.waiting != nil:
		s.await(r, r.waiting) // now a move, with its deadline
		return
	case old != nil:
		for _, it := range old.take(r) {
			s.park(r, it)
		}
		if old.carries(r) {
			s.await(r, old)
			old.notify()
			return
		}
	}
	s.flush(r)
}

// settled lets the routes go on whose messages c has delivered. It is called after c's ledger
// became shorter.
func (s *Server) settled(c *conn) {
	if len(s.moving) == 0 {
		return
	}
	for r := range s.moving {
		if r.waiting == c && r.conn != c && !c.carries(r) {
			s.stopWaiting(r)
			s.flush(r)
		}
	}
}

// fail gives a connection up. Its pumps end, and then detach hands on what it leaves behind.
func (s *Server) fail(c *conn, err error) {
	if c.failing {
		return
	}
	c.failing = true
	c.err = err
	s.doomed = append(s.doomed, c)
}

// failWith gives a connection up, and tells its peer with a close frame of the code.
func (s *Server) failWith(c *conn, code int, err error) {
	if !c.failing {
		c.code = code
		s.fail(c, err)
	}
}

// detach takes an ended connection out of the table. What its peer has not acknowledged, up to
// offset acked, goes to another connection or is parked, before anything newer.
func (s *Server) detach(c *conn, acked int64) {
	s.mu.Lock()
	defer s.unlock()
	cl := c.client
	for i := range cl.conns {
		if cl.conns[i] == c {
			cl.conns = append(cl.conns[:i:i], cl.conns[i+1:]...)
			break
		}
	}
	if cl.dropped {
		return
	}
	left := make(map[*route][]item)
	affected := make(map[*route]struct{})
	for _, it := range c.undelivered(acked) {
		if it.route != nil {
			left[it.route] = append(left[it.route], it)
			affected[it.route] = struct{}{}
		}
	}
	for _, r := range cl.routes {
		if r.conn == c || r.waiting == c {
			affected[r] = struct{}{}
		}
	}
	for r := range affected {
		s.succeed(r, c, left[r])
	}
	s.sweep(cl)
}

// succeed puts what c left of one session in front of what is parked, and sends it on.
func (s *Server) succeed(r *route, c *conn, left []item) {
	cl := r.client
	switch cl.routes[r.session] {
	case r:
	case nil:
		if len(left) == 0 || left[len(left)-1].kind != Close {
			return
		}
		cl.routes[r.session] = r // its close was under way; it still has to arrive
	default: // the id was joined anew since
		return
	}
	if r.waiting == c {
		s.stopWaiting(r)
	}
	if r.conn == c {
		r.conn = nil
	}
	if r.conn == nil {
		r.conn = cl.live()
	}
	newer := r.parked
	s.unparkAll(r)
	for _, it := range append(left, newer...) {
		s.park(r, it)
	}
	if r.conn == nil {
		s.trim(r)
		return
	}
	s.flush(r)
}
