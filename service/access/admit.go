package access

import (
	"net/netip"
	"time"

	"rtcd/service/api/wire"
)

// A Grant lets one session into a call. Either the session joins and Left is called when it has
// ended, or Undo is.
type Grant struct {
	Role            wire.CallRole // RoleFull for a publisher
	MaxParticipants int           // of the call; 0: no limit of ours
	Managed         bool
	// EndOnCreatorLeave says that the call ends when this session, and no other of its user, is left.
	EndOnCreatorLeave bool
	Linger            time.Duration // how long the call outlives its last session; 0 unless managed
	TokenID           string        // of the token that was used, empty without
	Data              string        // of the token
	// Again says that the session was admitted before and has not ended: it is in, or just coming in.
	// This grant starts no session; if it has ended meanwhile, Admit is to be asked once more.
	Again bool

	group, call, session string
	seq                  uint64 // of the admission; 0 for a session that is in already
	took                 bool   // a use of the token
}

// Admit says whether a session may join, and as what. A token that it brings is used up by one, or
// not at all if it is refused. One that is in already, with the same token if with any, is let in
// again for nothing. Its error is an *Error.
//
// Remote is the address that wrong tokens are counted for. A good token is good also where others
// guess: to refuse it would let one participant lock out all who come by the same backend.
func (s *Service) Admit(groupID string, remote netip.Addr, j wire.Join) (Grant, error) {
	switch {
	case !j.Role.Valid():
		return Grant{}, ErrRoleUnknown
	case !checkID(j.CallID) || !checkID(j.UserID) || !checkID(j.SessionID):
		return Grant{}, bad("join lacks an id")
	case j.Token == "" && s.cfg.RequireJoinToken:
		return Grant{}, ErrTokenRequired
	}
	now := time.Now()
	if j.Token != "" {
		return s.admitToken(groupID, remote, j, now)
	}
	if g, err, known := s.admitPlain(groupID, j, now); known {
		return g, err
	}
	// Nobody is in a call of that id. One that was managed does not begin again.
	if s.used(groupID, j.CallID) {
		return Grant{}, ErrCallEnded
	}
	if s.cfg.ManagedOnly {
		return Grant{}, ErrManagedOnly
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callOf(groupID, j.CallID)
	if c == nil {
		c = newCall(groupID, j.CallID, now)
		s.groupOf(groupID).calls[j.CallID] = c
	}
	return s.enter(c, j, nil)
}

// admitPlain admits to a call that is known, without a token.
func (s *Service) admitPlain(groupID string, j wire.Join, now time.Time) (_ Grant, err error, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, j.CallID)
	switch {
	case c == nil:
		return Grant{}, nil, false
	case s.unusedTooLong(c, now):
		return Grant{}, ErrCallEnded, true
	case s.cfg.ManagedOnly && !c.managed:
		return Grant{}, ErrManagedOnly, true
	}
	g, err := s.enter(c, j, nil)
	return g, err, true
}

// admitToken admits with a token. Whether the call exists makes no difference to one that is
// refused, in what is done and what is answered.
func (s *Service) admitToken(groupID string, remote netip.Addr, j wire.Join, now time.Time) (Grant, error) {
	g, err := s.tryToken(groupID, j, now)
	if err == nil {
		return g, nil
	}
	over := s.used(groupID, j.CallID)
	s.mu.Lock()
	defer s.mu.Unlock()
	limited := s.wrong.add(remote, now)
	switch {
	case limited:
		s.cfg.OnLimit(LimitWrongTokens)
		return Grant{}, ErrRateLimited
	case over && s.callOf(groupID, j.CallID) == nil:
		return Grant{}, ErrCallEnded
	}
	return Grant{}, err
}

func (s *Service) tryToken(groupID string, j wire.Join, now time.Time) (Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	t := s.find(groupID, j.CallID, j.Token, now)
	switch {
	case t == nil || s.unusedTooLong(t.call, now):
		return Grant{}, ErrTokenInvalid
	case t.user != j.UserID, j.Role != "" && plain(j.Role) != t.role:
		return Grant{}, ErrTokenMismatch
	case s.cfg.ManagedOnly && !t.call.managed:
		return Grant{}, ErrManagedOnly
	}
	return s.enter(t.call, j, t)
}

// used asks whether an id was that of a managed call. If that cannot be known, calls of ids that
// were never managed, which are all of today's, shall not suffer.
func (s *Service) used(groupID, callID string) bool {
	if s.ids == nil {
		return false
	}
	used, err := s.ids.Used(groupID, callID)
	if err != nil {
		s.log.Warn("ids of ended calls cannot be read", "group", groupID, "err", err)
	}
	return used
}

// enter makes a session a member of a call.
func (s *Service) enter(c *call, j wire.Join, t *token) (Grant, error) {
	g := s.grant(c, j, t)
	_, session := c.ejectedSessions[j.SessionID]
	_, user := c.ejectedUsers[j.UserID]
	if session || user || c.sealed { // also one that is still in: it is on its way out
		return Grant{}, ErrEjected
	}
	if m := c.members[j.SessionID]; m != nil {
		switch {
		case m.user == j.UserID && m.token == t:
			g.Again = true
			return g, nil
		case t == nil:
			return Grant{}, bad("session is in the call as another user")
		}
		return Grant{}, ErrTokenInvalid
	}
	if t != nil {
		if t.uses == 0 {
			return Grant{}, ErrTokenInvalid
		}
		t.uses--
		g.took = true
	}
	s.session++
	g.seq = s.session
	if c.creator == "" {
		c.creator = j.UserID
	}
	g.EndOnCreatorLeave = c.options.EndOnCreatorLeave && c.creator == j.UserID
	c.members[j.SessionID] = &member{user: j.UserID, token: t, seq: g.seq}
	c.over = false
	return g, nil
}

func (s *Service) grant(c *call, j wire.Join, t *token) Grant {
	g := Grant{
		Role: plain(j.Role), Managed: c.managed, MaxParticipants: s.cfg.MaxParticipants,
		group: c.group, call: c.id, session: j.SessionID,
	}
	if n := c.options.MaxParticipants; n > 0 && (g.MaxParticipants == 0 || n < g.MaxParticipants) {
		g.MaxParticipants = n
	}
	if c.managed {
		g.Linger = max(s.cfg.Linger, 0)
	}
	if t != nil {
		g.Role, g.TokenID, g.Data = t.role, t.id, t.data
	}
	return g
}

// Undo takes a grant back that came to nothing: the token has the use again.
func (s *Service) Undo(g Grant) {
	if g.seq == 0 {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callOf(g.group, g.call)
	if c == nil {
		return
	}
	m := c.members[g.session]
	if m == nil || m.seq != g.seq {
		return
	}
	delete(c.members, g.session)
	if g.took {
		m.token.uses++ // of one that is dead it does not matter
	}
	if len(c.members) > 0 || c.joined && !c.over {
		return
	}
	if !c.joined {
		c.creator = ""
	}
	if c.over || !c.managed {
		s.end(c, now)
	}
}

// Left notes that an admitted session has ended. It reports whether the call ends with it, because
// its creator is gone: then the caller ends it.
func (s *Service) Left(groupID, callID, session string) (ends bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, callID)
	if c == nil {
		return false
	}
	m := c.members[session]
	if m == nil {
		return false
	}
	delete(c.members, session)
	c.joined = true
	s.expiry.drop(&c.unused)
	if c.over && len(c.members) == 0 {
		s.end(c, now)
		return false
	}
	if !c.options.EndOnCreatorLeave || m.user != c.creator {
		return false
	}
	for _, other := range c.members {
		if other.user == c.creator {
			return false
		}
	}
	return true
}

// Eject bars a session of a call, and its user, from that call for as long as it lasts, and kills
// the token it came with. It reports whether there is such a session; to disconnect it is the
// caller's.
func (s *Service) Eject(groupID, callID, session string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callOf(groupID, callID)
	if c == nil {
		return false
	}
	m := c.members[session]
	if m == nil {
		return false
	}
	if c.ejectedSessions == nil {
		c.ejectedSessions, c.ejectedUsers = make(map[string]struct{}), make(map[string]struct{})
	}
	if len(c.ejectedSessions) >= maxEjected {
		c.sealed = true
		s.cfg.OnLimit(LimitEjected)
	} else {
		c.ejectedSessions[session] = struct{}{}
		c.ejectedUsers[m.user] = struct{}{}
	}
	for _, t := range c.tokens {
		if t == m.token || t.user == m.user {
			s.kill(t)
		}
	}
	return true
}
