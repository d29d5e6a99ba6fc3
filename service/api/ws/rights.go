package ws

import (
	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

// The codes of close frames, of those that RFC 6455 section 7.4.2 leaves to applications.
const (
	// CloseRevoked: the credentials of the connection are not good any more.
	CloseRevoked = 4401
	// CloseGarbage: too much of what came could not be decoded.
	CloseGarbage = 4400
)

// DropClient closes the connections of a client and forgets everything kept for it. When it
// returns, no message of the client is handled any more: sessions ended after it stay ended. It
// must not be called from within Calls.
func (s *Server) DropClient(clientID string) { await(s.drop(clientID)) }

// CutBefore closes the connections of a client whose credentials are of an epoch before the given
// one, also those that are just being opened. What was to be sent to them goes to the others, or
// waits. It returns when no message from them is handled any more, and whether the client has connected
// with credentials of that epoch or a later one since it has had sessions. It must not be called from
// within Calls.
func (s *Server) CutBefore(clientID string, epoch uint64) (back bool) {
	cut, back := s.cutBefore(clientID, epoch)
	await(cut)
	return back
}

// SetRoles gives the connections of a client other roles, from the next message on. Roles with
// which no connection may be opened close them, as with CutBefore.
func (s *Server) SetRoles(clientID string, r policy.Roles) { await(s.setRoles(clientID, r)) }

// await waits until connections have ended.
func await(conns []*conn) {
	for _, c := range conns {
		<-c.ended
	}
}

// drop gives all connections of a client up and returns them.
func (s *Server) drop(clientID string) []*conn {
	s.mu.Lock()
	defer s.unlock()
	cl := s.clients[clientID]
	if cl == nil {
		return nil
	}
	delete(s.clients, clientID)
	cl.dropped = true
	for _, r := range cl.routes {
		s.forget(r)
	}
	return s.cut(cl, errDropped, func(*conn) bool { return true })
}

func (s *Server) cutBefore(clientID string, epoch uint64) (cut []*conn, back bool) {
	s.mu.Lock()
	defer s.unlock()
	cl := s.clients[clientID]
	if cl == nil {
		return nil, false
	}
	cl.epoch = max(cl.epoch, epoch)
	return s.cut(cl, errRevoked, func(c *conn) bool { return c.peer.Epoch < epoch }), cl.newest >= epoch
}

func (s *Server) setRoles(clientID string, r policy.Roles) []*conn {
	s.mu.Lock()
	defer s.unlock()
	cl := s.clients[clientID]
	if cl == nil {
		return nil
	}
	cl.changes++
	for _, c := range cl.conns {
		c.roles.Store(&r)
	}
	if s.mayOpen(r) {
		return nil
	}
	return s.cut(cl, errNoRole, func(*conn) bool { return true })
}

// cut gives up those connections of a client of which one says so, and returns them.
func (s *Server) cut(cl *client, err error, which func(*conn) bool) []*conn {
	var cut []*conn
	for _, c := range cl.conns {
		if which(c) {
			s.failWith(c, CloseRevoked, err)
			cut = append(cut, c)
		}
	}
	return cut
}

func (s *Server) mayOpen(r policy.Roles) bool {
	return s.cfg.Policy == nil || s.cfg.Policy.Allows(r, openRoute)
}

// confirm asks whether what the connection was opened with is still good, now that whoever changes
// it finds the connection.
func (s *Server) confirm(c *conn) {
	if s.cfg.Current == nil {
		return
	}
	s.mu.Lock()
	before := c.client.changes
	s.mu.Unlock()
	r, ok := s.cfg.Current(c.peer)
	s.mu.Lock()
	defer s.unlock()
	switch {
	case !ok:
		s.failWith(c, CloseRevoked, errDropped)
	case c.client.changes != before: // SetRoles knows better
	case !s.mayOpen(r):
		s.failWith(c, CloseRevoked, errNoRole)
	default:
		c.roles.Store(&r)
	}
}

// mayIn reports whether the client may send a type of message.
func (c *conn) mayIn(typ string) bool {
	p := c.server.cfg.Policy
	return p == nil || p.In(*c.roles.Load(), typ)
}

// mayOut reports whether the client may get a kind of message.
func (c *conn) mayOut(k Kind) bool {
	if k >= numKinds || !c.v2 && !k.established() {
		return false
	}
	p := c.server.cfg.Policy
	return p == nil || p.Out(*c.roles.Load(), kindTypes[k])
}

// Stats tells a client how many are in one of its calls: on all connections that take it. A client
// that does not read misses some.
func (s *Server) Stats(clientID string, st wire.Stats) {
	it := item{data: wire.AppendStats(nil, st), kind: kindStats}
	s.mu.Lock()
	defer s.unlock()
	if cl := s.clients[clientID]; cl != nil {
		for _, c := range cl.conns {
			if c.v2 {
				s.notify(c, it)
			}
		}
	}
}

// answer tells the client on its connection why something was not done, if it takes that.
func (c *conn) answer(data []byte) {
	s := c.server
	s.mu.Lock()
	defer s.unlock()
	s.notify(c, item{data: data, kind: kindError})
}

// notify queues what no session waits for, as long as a good part of the queue is free: a client
// must not lose its connection over what can be missed.
func (s *Server) notify(c *conn, it item) {
	if len(c.queue) >= (s.cfg.QueueMessages+3)/4 || c.queueBytes >= s.cfg.QueueBytes/4 {
		s.metrics.Discarded(metrics.ParkedOverflow)
		return
	}
	c.push(it)
}
