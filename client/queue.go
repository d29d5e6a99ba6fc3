package client

import (
	"fmt"
	"sync"

	"rtcd/service/api/wire"
)

type kind uint8

const (
	kindOther    kind = iota
	kindJoin          // makes the session live once it is written
	kindLeave         // ends that at once
	kindModerate      // of no session
)

// A message is one WebSocket message on its way out.
type message struct {
	op        string // for errors
	kind      kind
	callID    string // of a join
	sessionID string
	data      []byte
}

// An outbox holds what waits to be sent and knows which sessions are live. It outlives the
// connections. Its methods are safe for concurrent use.
type outbox struct {
	maxMessages, maxBytes int

	mu      sync.Mutex
	closed  bool
	waiting []message
	bytes   int
	live    map[string]*liveSession
	idle    chan struct{} // closed while nothing waits
	wake    chan struct{} // has an element after something was added
}

// A liveSession was joined over this Conn and has not ended.
type liveSession struct {
	callID  string
	written bool // the join has left; before, the server does not know it
}

// knownSessions are sessions by call id and session id.
type knownSessions map[string]map[string]*liveSession

func newOutbox(maxMessages, maxBytes int) *outbox {
	o := &outbox{
		maxMessages: maxMessages, maxBytes: maxBytes,
		live: make(map[string]*liveSession), idle: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	close(o.idle)
	return o
}

// add appends m, or fails with ErrClosed, ErrTooLarge or ErrQueueFull.
func (o *outbox) add(m message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case m.sessionID == "" && m.kind != kindModerate:
		return fmt.Errorf("%s: empty session id", m.op)
	case wire.CheckID(m.sessionID) != nil:
		return fmt.Errorf("%s: session id: %w", m.op, wire.ErrID)
	case o.closed:
		return fmt.Errorf("%s: %w", m.op, ErrClosed)
	case len(m.data) > wire.MaxMessage:
		return fmt.Errorf("%s: %d bytes: %w", m.op, len(m.data), ErrTooLarge)
	case len(o.waiting) >= o.maxMessages || o.bytes+len(m.data) > o.maxBytes:
		return fmt.Errorf("%s: %d messages wait: %w", m.op, len(o.waiting), ErrQueueFull)
	}
	switch m.kind {
	case kindJoin:
		if o.live[m.sessionID] == nil {
			o.live[m.sessionID] = &liveSession{callID: m.callID}
		}
	case kindLeave:
		delete(o.live, m.sessionID)
	}
	if len(o.waiting) == 0 {
		o.idle = make(chan struct{})
	}
	o.waiting = append(o.waiting, m)
	o.bytes += len(m.data)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// head returns the message to send next. It stays in the outbox until sent tells how it went.
func (o *outbox) head() (message, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return message{}, false
	}
	o.markJoin(true) // before the write: the answer may be faster than we are
	return o.waiting[0], true
}

// sent takes the head out if it was written, else leaves it for the next connection.
func (o *outbox) sent(written bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 { // closed meanwhile
		return
	}
	if !written {
		o.markJoin(false)
		return
	}
	o.bytes -= len(o.waiting[0].data)
	o.waiting[0] = message{}
	o.waiting = o.waiting[1:]
	if len(o.waiting) == 0 {
		o.waiting = nil
		close(o.idle)
	}
}

// markJoin notes whether the server has been told of the session the head joins, if it does.
// It is called with the lock held.
func (o *outbox) markJoin(written bool) {
	if s := o.live[o.waiting[0].sessionID]; s != nil && o.waiting[0].kind == kindJoin {
		s.written = written
	}
}

// close refuses messages from now on, drops those that wait and returns how many they were.
func (o *outbox) close() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.waiting)
	o.closed, o.waiting, o.bytes = true, nil, 0
	return n
}

// drained returns a channel that is closed once nothing waits.
func (o *outbox) drained() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idle
}

// ended forgets a live session and reports whether it was one.
func (o *outbox) ended(sessionID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.live[sessionID]
	if s == nil || !s.written { // a join that waits is a new session with the id of an old one
		return false
	}
	delete(o.live, sessionID)
	return true
}

// lost forgets s if it is still live under the id, and reports whether it was.
func (o *outbox) lost(sessionID string, s *liveSession) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.live[sessionID] != s {
		return false
	}
	delete(o.live, sessionID)
	return true
}

// known returns the sessions the server has been told of, by call.
func (o *outbox) known() knownSessions {
	o.mu.Lock()
	defer o.mu.Unlock()
	calls := make(knownSessions)
	for id, s := range o.live {
		if !s.written {
			continue
		}
		if calls[s.callID] == nil {
			calls[s.callID] = make(map[string]*liveSession)
		}
		calls[s.callID][id] = s
	}
	return calls
}
