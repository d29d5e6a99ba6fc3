package client

import (
	"context"
	"errors"
	"sync"
)

// verify asks the server which of the sessions it was told of are left, and reports the others
// as closed. Where the server gives no clear answer nothing is reported.
func (c *Conn) verify(ctx context.Context, known knownSessions, lost *lostSet) {
	for callID, sessions := range known {
		listed, err := c.client.Sessions(ctx, callID)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			c.client.log.Warn("sessions of a call not known after reconnect", "call", callID, "err", err)
			continue
		}
		left := make(map[string]bool, len(listed))
		for _, s := range listed {
			left[s.SessionID] = true
		}
		for id, s := range sessions {
			if left[id] {
				continue
			}
			lost.add(id) // first: the server's own word may come at any moment
			if !c.out.lost(id, s) {
				lost.take(id)
				continue
			}
			if !c.emit(Closed{SessionID: id, Lost: true}) {
				return
			}
		}
	}
}

// A lostSet holds the ids of sessions that were reported as lost over one connection, so that a
// late word of the server about their end is not reported again.
type lostSet struct {
	mu  sync.Mutex
	ids map[string]struct{}
}

func (l *lostSet) add(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ids == nil {
		l.ids = make(map[string]struct{})
	}
	l.ids[id] = struct{}{}
}

// take removes an id and reports whether it was there.
func (l *lostSet) take(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.ids[id]
	delete(l.ids, id)
	return ok
}
