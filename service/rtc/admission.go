package rtc

import (
	"golang.org/x/time/rate"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc/forward"
)

// group is what one client has.
type group struct {
	calls    map[string]*call
	members  map[string]int // sessions by call id
	sessions int
	joins    *rate.Limiter
	budget   *forward.Budget // of what its endpoints send; nil: no limit
}

// Join is JoinAs with the zero Grant.
func (s *Server) Join(groupID string, j wire.Join) error { return s.JoinAs(groupID, j, Grant{}) }

// JoinAs starts a session; it exists when JoinAs returns. A join of a session that lives in the same
// call changes nothing, nor does its grant. What the join says of a role counts for nothing.
func (s *Server) JoinAs(groupID string, j wire.Join, g Grant) error {
	if !g.Role.Valid() {
		return ErrRole
	}
	info := SessionInfo{
		GroupID: groupID, CallID: j.CallID, UserID: j.UserID, SessionID: j.SessionID,
		ChannelID: j.ChannelID, AV1Support: j.AV1Support, DCSignaling: j.DCSignaling,
	}
	for {
		s.mu.Lock()
		if c := s.callLocked(groupID, j.CallID); c != nil && c.lifetime.ending {
			s.mu.Unlock()
			if g.Managed {
				return ErrCallEnded
			}
			<-c.gone // in moments: its sessions are being told
			continue
		}
		old := s.sessions[key{groupID, j.SessionID}]
		if old == nil && g.Present {
			s.mu.Unlock()
			return ErrNoSession
		}
		if old == nil {
			ses, err := s.addLocked(info, g)
			s.mu.Unlock()
			if err != nil {
				return err
			}
			attrs := []any{"userID", info.UserID}
			if g.Role != "" {
				attrs = append(attrs, "role", string(g.Role))
			}
			ses.log.Info("session joined", attrs...)
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
func (s *Server) addLocked(info SessionInfo, grant Grant) (*session, error) {
	if s.stopped {
		return nil, ErrStopped
	}
	g := s.groups[info.GroupID]
	if g == nil {
		g = &group{
			calls: make(map[string]*call), members: make(map[string]int),
			joins: s.joinLimiter(), budget: s.newBudget(),
		}
	}
	c := g.calls[info.CallID]
	if err := s.admitLocked(g, info.CallID, grant); err != nil {
		return nil, err
	}
	fresh := c == nil
	if fresh {
		c = newCall(info.GroupID, info.CallID, s.cfg.Screens, s.cfg.Voices, s.toucher(info.GroupID, info.CallID), s.events)
		c.note(CallEvent{Type: CallStarted})
		g.calls[info.CallID] = c
		s.calls++
	}
	s.groups[info.GroupID] = g
	g.members[info.CallID]++
	g.sessions++
	ses := newSession(s, c, info, grant, g.budget)
	s.arrivedLocked(c, ses, fresh)
	s.sessions[key{info.GroupID, info.SessionID}] = ses
	ses.tenant.SessionStarted() // before it can end
	c.enter(ses)
	s.loops.Go(ses.run)
	return ses, nil
}

// admitLocked says whether a limit forbids another session in a call. The join budget comes last, so
// that refusals for other reasons cost nothing of it.
func (s *Server) admitLocked(g *group, callID string, grant Grant) error {
	l, members := s.cfg.Limits, g.members[callID]
	fresh := g.calls[callID] == nil
	switch {
	case members == 0 && s.draining, fresh && s.retired:
		return ErrDraining
	case over(members, s.cfg.MaxParticipants), over(members, grant.MaxParticipants):
		return s.limited(LimitParticipants)
	case over(members, l.SessionsPerCall):
		return s.limited(LimitCallSessions)
	case over(g.sessions, l.SessionsPerClient):
		return s.limited(LimitClientSessions)
	case fresh && over(len(g.calls), l.CallsPerClient):
		return s.limited(LimitClientCalls)
	case over(len(s.sessions), l.Sessions):
		return s.limited(LimitSessions)
	case fresh && over(s.calls, l.Calls):
		return s.limited(LimitCalls)
	case !g.joins.Allow():
		return s.limited(LimitJoins)
	}
	return nil
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
	return limitError{l}
}

// remove takes an ended session out of the tables, and its call with the last, unless that lingers. A
// call that ends with this one takes the others along.
func (s *Server) remove(ses *session) {
	id, c := ses.info.GroupID, ses.call
	s.mu.Lock()
	delete(s.sessions, key{id, ses.info.SessionID})
	ses.tenant.SessionEnded()
	g := s.groups[id]
	g.sessions--
	g.members[c.id]--
	left := g.members[c.id]
	if left == 0 {
		delete(g.members, c.id)
	}
	end, over := s.departedLocked(c, ses, left)
	s.mu.Unlock()
	if end {
		s.endMembers(c)
	}
	if over {
		s.finish(c)
	}
}

// forgetLocked forgets a group that has nothing left. It stays while its join budget is not full
// again, or leaving would refill it.
func (s *Server) forgetLocked(id string, g *group) {
	if g.sessions == 0 && len(g.calls) == 0 && (s.cfg.Limits.JoinsPerSecond == 0 ||
		g.joins.Tokens() >= float64(g.joins.Burst())-1) {
		s.countOverLocked(g)
		delete(s.groups, id)
	}
}
