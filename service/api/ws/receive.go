package ws

import (
	"errors"
	"runtime/debug"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
)

// receive handles one message from the client. Whatever it holds, the connection stays and no
// other session is touched.
func (c *conn) receive(data []byte) {
	e := c.event(EventUndecodable)
	defer func() {
		if p := recover(); p != nil {
			c.server.metrics.HandlerPanicked()
			c.server.quiet.Error("message handler panicked", "clientID", c.client.id, "connID", c.id, "err", p, "stack", string(debug.Stack()))
			e.Outcome, e.Reason = OutcomeFault, reasonInternal
		}
		c.server.record(e)
	}()
	c.handle(data, &e)
}

// eventTypes are the events of the messages that a client may send.
var eventTypes = map[string]string{
	wire.TypeJoin: EventJoin, wire.TypeLeave: EventLeave, wire.TypeReconnect: EventReconnect,
	wire.TypeRTC: EventSignal, wire.TypeModerate: EventModerate,
}

// handle does what a message asks for and notes in e what became of it.
func (c *conn) handle(data []byte, e *Event) {
	typ := wire.Type(data)
	known := eventTypes[typ]
	if typ == wire.TypeModerate && !c.v2 {
		c.unknown(e, wire.ErrUnknownType)
		return
	}
	if known != "" && !c.mayIn(typ) {
		e.Type = known
		c.block(typ, e)
		return
	}
	m, err := wire.Decode(data)
	switch {
	case errors.Is(err, wire.ErrUnknownType):
		c.unknown(e, err)
		return
	case err != nil:
		c.garbage(e, err)
		return
	}
	e.Type = known
	switch m.Type {
	case wire.TypeJoin:
		c.client.tenant.Received(metrics.JoinMessage)
		e.CallID, e.SessionID, e.UserID = m.Join.CallID, m.Join.SessionID, m.Join.UserID
		c.join(m.Join, e)
	case wire.TypeLeave:
		c.client.tenant.Received(metrics.LeaveMessage)
		e.SessionID = m.SessionID
		c.leave(m.SessionID, e)
	case wire.TypeReconnect:
		c.client.tenant.Received(metrics.ReconnectMessage)
		e.SessionID = m.SessionID
		c.reconnect(m.SessionID, e)
	case wire.TypeRTC:
		c.client.tenant.Received(metrics.RTCMessage)
		e.SessionID, e.Signal = m.Signal.SessionID, m.Signal.Type
		c.signal(m.Signal, e)
	case wire.TypeModerate:
		c.client.tenant.Received(metrics.ModerateMessage)
		e.CallID, e.SessionID, e.StreamID, e.Action = m.Moderate.CallID, m.Moderate.SessionID, m.Moderate.StreamID, m.Moderate.Action
		c.moderate(m.Moderate, e)
	}
}

// join starts a session whose messages go to this connection, also those that come out before
// Calls.Join returns. One that lives already goes on untouched.
func (c *conn) join(j wire.Join, e *Event) {
	s, id := c.server, c.client.id
	switch {
	case j.CallID == "" || j.UserID == "" || j.SessionID == "":
		c.refuse(e, metrics.JoinRefused, errIncomplete)
		return
	case s.calls.Exists(id, j.SessionID):
		if err := s.calls.Join(c.peer, j); err != nil {
			c.refuse(e, metrics.JoinRefused, err)
			return
		}
		s.adopt(c, j.SessionID)
		return
	}
	r, ok := s.bind(c, j.SessionID)
	if !ok { // another connection is at it, or ours is at its end
		c.refuse(e, metrics.JoinRefused, errJoining)
		return
	}
	var err error = errJoining // if Join panics
	defer func() { s.joined(r, err) }()
	if err = s.calls.Join(c.peer, j); err != nil {
		c.refuse(e, metrics.JoinRefused, err) // before the close that joined sends
	}
}

var (
	errIncomplete = &cause{reasonBadRequest, "join lacks an id"}
	errJoining    = &cause{reasonRefused, "session is being joined"}
	errNoSession  = &cause{reasonNotFound, "client has no such session"}
)

// leave ends a session of the client.
func (c *conn) leave(sessionID string, e *Event) {
	there := c.server.calls.Exists(c.client.id, sessionID)
	c.server.calls.Leave(c.client.id, sessionID)
	if !there { // which is no fault: it may have ended by itself
		c.tell(e, errNoSession)
	}
}

// reconnect moves a session of the client to this connection.
func (c *conn) reconnect(sessionID string, e *Event) {
	if !c.server.calls.Exists(c.client.id, sessionID) {
		c.refuse(e, metrics.NoSession, errNoSession)
		return
	}
	c.server.move(c, sessionID)
}

// signal hands a message to a session of the client.
func (c *conn) signal(m wire.Signal, e *Event) {
	if err := c.server.calls.Signal(c.client.id, m.SessionID, m); err != nil {
		c.refuse(e, metrics.NoSession, err)
	}
}

// moderate does what a moderator wants.
func (c *conn) moderate(m wire.Moderate, e *Event) {
	err := m.Check()
	if err != nil {
		err = &cause{reasonBadRequest, err.Error()}
	} else {
		err = c.server.calls.Moderate(c.peer, m)
	}
	if err != nil {
		c.refuse(e, metrics.ModerateRefused, err)
	}
}

// refuse counts a message that had no effect, and tells of it: the log now and then, the client if
// it takes errors.
func (c *conn) refuse(e *Event, reason metrics.DiscardReason, err error) {
	c.discarded(reason, err)
	c.tell(e, err)
}

// tell notes why a message had no effect, and answers it on connections that take errors.
func (c *conn) tell(e *Event, err error) {
	e.Outcome, e.Reason = OutcomeRefused, reasonOf(err, reasonRefused)
	if c.v2 {
		c.answer(wire.AppendError(nil, wire.Error{SessionID: e.SessionID, CallID: e.CallID, Reason: e.Reason}))
	}
}

// discarded counts a message that had no effect, and now and then tells of one.
func (c *conn) discarded(reason metrics.DiscardReason, err error) {
	c.server.metrics.Discarded(reason)
	c.server.quiet.Warn("message dropped: "+reason.String(), "clientID", c.client.id, "connID", c.id, "err", err)
}

// unknown drops a well-formed message of no type that may come.
func (c *conn) unknown(e *Event, err error) {
	c.client.tenant.Received(metrics.UnknownMessage)
	e.Type, e.Outcome, e.Reason = EventUnknown, OutcomeRefused, reasonUnknownType
	c.discarded(metrics.UnknownType, err)
}

// garbage drops a message that cannot be decoded.
func (c *conn) garbage(e *Event, err error) {
	e.Type, e.Outcome, e.Reason = EventUndecodable, OutcomeRefused, reasonUndecodable
	c.discarded(metrics.Undecodable, err)
	if c.undecodable++; c.v2 && c.undecodable >= maxUndecodable {
		s := c.server
		s.mu.Lock()
		defer s.unlock()
		s.failWith(c, CloseGarbage, errGarbage)
	}
}

// text drops a text frame.
func (c *conn) text() {
	c.discarded(metrics.TextFrame, nil)
	e := c.event(EventUndecodable)
	e.Outcome, e.Reason = OutcomeRefused, reasonText
	c.server.record(e)
}

// forbidden is the answer to a message that the client may not send. Nothing of its data was read.
var forbidden = wire.AppendError(nil, wire.Error{Reason: reasonForbidden})

// block drops a message that the client may not send, before its data is decoded. A client that
// sends nothing else costs a count: nothing here allocates.
func (c *conn) block(typ string, e *Event) {
	c.server.metrics.Discarded(metrics.Blocked)
	e.Outcome, e.Reason = OutcomeRefused, reasonBlocked
	c.blocked++
	if now := time.Now(); now.Sub(c.blockedLogged) >= blockedLogEvery {
		c.blockedLogged = now
		c.log.Warn("message dropped: not allowed", "type", typ, "blocked", c.blocked)
	}
	if c.v2 {
		c.answer(forbidden)
	}
}
