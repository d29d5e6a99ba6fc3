package ws

import (
	"errors"
	"runtime/debug"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
)

// receive handles one message from the client. Whatever it holds, the connection stays and no
// other session is touched.
func (c *conn) receive(data []byte) {
	defer func() {
		if p := recover(); p != nil {
			c.server.metrics.HandlerPanicked()
			c.log.Error("message handler panicked", "err", p, "stack", string(debug.Stack()))
		}
	}()
	m, err := wire.Decode(data)
	if errors.Is(err, wire.ErrUnknownType) {
		c.client.tenant.Received(metrics.UnknownMessage)
		c.discarded(metrics.UnknownType, err)
		return
	}
	if err != nil {
		c.discarded(metrics.Undecodable, err)
		return
	}
	switch m.Type {
	case wire.TypeJoin:
		c.client.tenant.Received(metrics.JoinMessage)
		c.join(m.Join)
	case wire.TypeLeave:
		c.client.tenant.Received(metrics.LeaveMessage)
		c.server.calls.Leave(c.client.id, m.SessionID)
	case wire.TypeReconnect:
		c.client.tenant.Received(metrics.ReconnectMessage)
		c.reconnect(m.SessionID)
	case wire.TypeRTC:
		c.client.tenant.Received(metrics.RTCMessage)
		c.signal(m.Signal)
	}
}

// join starts a session whose messages go to this connection, also those that come out before
// Calls.Join returns. One that lives already goes on untouched.
func (c *conn) join(j wire.Join) {
	s, id := c.server, c.client.id
	if j.CallID == "" || j.UserID == "" || j.SessionID == "" {
		c.discarded(metrics.JoinRefused, errIncomplete)
		return
	}
	if s.calls.Exists(id, j.SessionID) {
		if err := s.calls.Join(id, j); err != nil {
			c.discarded(metrics.JoinRefused, err)
			return
		}
		s.adopt(c, j.SessionID)
		return
	}
	r, ok := s.bind(c, j.SessionID)
	if !ok { // another connection is at it, or ours is at its end
		c.discarded(metrics.JoinRefused, errJoining)
		return
	}
	err := errJoining // if Join panics
	defer func() { s.joined(r, err) }()
	if err = s.calls.Join(id, j); err != nil {
		c.discarded(metrics.JoinRefused, err)
	}
}

var (
	errIncomplete = errors.New("join lacks an id")
	errJoining    = errors.New("session is being joined")
)

// reconnect moves a session of the client to this connection.
func (c *conn) reconnect(sessionID string) {
	if !c.server.calls.Exists(c.client.id, sessionID) {
		c.discarded(metrics.NoSession, nil)
		return
	}
	c.server.move(c, sessionID)
}

// signal hands a message to a session of the client.
func (c *conn) signal(m wire.Signal) {
	if err := c.server.calls.Signal(c.client.id, m.SessionID, m); err != nil {
		c.discarded(metrics.NoSession, err)
	}
}

// discarded counts a message that had no effect, and now and then tells of one.
func (c *conn) discarded(reason metrics.DiscardReason, err error) {
	c.server.metrics.Discarded(reason)
	c.server.quiet.Warn("message dropped: "+reason.String(), "clientID", c.client.id, "connID", c.id, "err", err)
}
