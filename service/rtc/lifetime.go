package rtc

import "time"

// lifetime is how long a call lasts. It is guarded by the server's mu.
type lifetime struct {
	first  *session      // while it lives
	linger time.Duration // after the last session
	timer  *time.Timer   // runs out when it has lingered so long; nil while it has sessions
	ending bool          // nobody joins any more
}

// arrived notes a session that has joined c.
func (s *Server) arrivedLocked(c *call, ses *session, fresh bool) {
	l := &c.lifetime
	if fresh {
		l.first = ses
	}
	l.linger = max(l.linger, ses.grant.Linger)
	s.hurryLocked(c)
}

// departedLocked notes a session that has left c, and how many are left. It returns whether the call
// is to be ended with those, and whether it has come to its end.
func (s *Server) departedLocked(c *call, ses *session, left int) (end, over bool) {
	l := &c.lifetime
	if l.first == ses {
		l.first = nil
		if ses.grant.EndOnCreatorLeave && !l.ending {
			l.ending, end = true, left > 0
		}
	}
	if left > 0 {
		return end, false
	}
	if l.ending || l.linger <= 0 || s.draining || s.stopped {
		l.ending = true
		return false, true
	}
	s.loops.Add(1)
	var timer *time.Timer
	timer = time.AfterFunc(l.linger, func() {
		defer s.loops.Done()
		s.mu.Lock()
		late := l.timer != timer
		if !late {
			l.timer, l.ending = nil, true
		}
		s.mu.Unlock()
		if !late {
			s.finish(c)
		}
	})
	l.timer = timer
	return false, false
}

// hurryLocked stops the time of a call that lingers and reports whether it did linger.
func (s *Server) hurryLocked(c *call) bool {
	timer := c.lifetime.timer
	if timer == nil {
		return false
	}
	c.lifetime.timer = nil
	if timer.Stop() {
		s.loops.Done()
	}
	return true
}

// EndCall ends all sessions of a call and the call. It is over when EndCall returns.
func (s *Server) EndCall(groupID, callID string) error {
	s.mu.Lock()
	c := s.callLocked(groupID, callID)
	if c == nil {
		s.mu.Unlock()
		return ErrNoCall
	}
	begun := c.lifetime.ending
	c.lifetime.ending = true
	idle := s.hurryLocked(c)
	s.mu.Unlock()
	switch {
	case idle:
		s.finish(c)
	case !begun:
		s.endMembers(c)
	}
	<-c.gone
	return nil
}

// endMembers ends all sessions of a call that is ending; with the last the call is over.
func (s *Server) endMembers(c *call) {
	for _, ses := range s.list(func(k key) bool { return k.group == c.group }) {
		if ses.call == c {
			ses.end(CloseCallEnded)
		}
	}
}

// endIdle ends the calls that only linger, of one group or of all, and returns when they are over.
func (s *Server) endIdle(match func(*call) bool) {
	var idle []*call
	s.mu.Lock()
	for _, g := range s.groups {
		for _, c := range g.calls {
			if match(c) && s.hurryLocked(c) {
				c.lifetime.ending = true
				idle = append(idle, c)
			}
		}
	}
	s.mu.Unlock()
	for _, c := range idle {
		s.finish(c)
	}
}

// finish tells that a call is over and takes it out of the tables. Who made it end calls it, once;
// until then nobody joins a call of that id.
func (s *Server) finish(c *call) {
	s.finished(c) // who is told of the end may ask for it
	c.note(CallEvent{Type: CallEnded})
	if s.cfg.CallEnded != nil {
		s.cfg.CallEnded(c.group, c.id)
	}
	s.mu.Lock()
	g := s.groups[c.group]
	delete(g.calls, c.id)
	s.calls--
	s.forgetLocked(c.group, g)
	s.idleLocked()
	s.overLocked()
	s.mu.Unlock()
	close(c.gone)
	c.touch()
}

// ending returns all calls, once the server has stopped: others end them.
func (s *Server) ending() []*call {
	var out []*call
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		for _, c := range g.calls {
			out = append(out, c)
		}
	}
	return out
}
