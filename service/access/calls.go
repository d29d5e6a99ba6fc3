package access

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// CallOptions are what a call is created with. The zero value is an ordinary call.
type CallOptions struct {
	// CallID is the id of the call; empty, as a rule, for one of the server's choice.
	CallID string

	MediaMode       string // "" or "routed"
	ArchiveMode     string // "" or "none"
	E2EE            bool   // not supported
	MaxParticipants int    // 0: as Config.MaxParticipants, which it never exceeds

	// EndOnCreatorLeave ends the call when no session of the user is left who joined first.
	EndOnCreatorLeave bool
}

// check says what is wrong, or not supported.
func (o CallOptions) check() error {
	switch o.MediaMode {
	case "", "routed", "relayed":
	default:
		return bad("mediaMode is neither routed nor relayed")
	}
	switch o.ArchiveMode {
	case "", "none", "manual", "always":
	default:
		return bad("archiveMode is none of none, manual and always")
	}
	switch {
	case o.MaxParticipants < 0 || o.MaxParticipants > maxParticipant:
		return bad("maxParticipants is not 0 to %d", maxParticipant)
	case o.CallID != "" && !checkID(o.CallID):
		return bad("callID is no id")
	case o.MediaMode == "relayed":
		return &Error{reason: ErrNotSupported.reason, status: ErrNotSupported.status, text: "mediaMode relayed is not supported"}
	case o.E2EE:
		return &Error{reason: ErrNotSupported.reason, status: ErrNotSupported.status, text: "e2ee is not supported"}
	case o.ArchiveMode == "manual" || o.ArchiveMode == "always":
		return &Error{reason: ErrNotSupported.reason, status: ErrNotSupported.status, text: "archives are not supported"}
	}
	return nil
}

// Managed is a call made by Create.
type Managed struct {
	CallID  string
	Created time.Time
	Options CallOptions
	Pending bool // nobody has joined yet
	Tokens  int  // that live
}

// Create makes a call that can be joined, and returns its id. Its error is an *Error
// (ErrBadRequest, ErrNotSupported, ErrCallIDUsed, ErrTooMany), or one of CallIDs.
func (s *Service) Create(ctx context.Context, groupID string, o CallOptions) (string, error) {
	if err := o.check(); err != nil {
		return "", err
	}
	id := o.CallID
	if id == "" {
		id = newID()
	}
	g, err := s.reserve(groupID, id)
	if err != nil {
		return "", err
	}
	now := time.Now()
	if s.ids != nil {
		if err = s.ids.Use(ctx, groupID, id, now.Add(usedFor)); err != nil && s.cfg.IsConflict != nil && s.cfg.IsConflict(err) {
			err = ErrCallIDUsed
		} else if err != nil {
			err = fmt.Errorf("note id of call: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
	case s.groups[groupID] != g: // the client was unregistered meanwhile
		err = ErrCallEnded
	case g.calls[id] != nil: // made, or joined, meanwhile
		err = ErrCallIDUsed
	}
	if err != nil {
		g.managed--
		s.sweep(groupID, now)
		return "", err
	}
	c := newCall(groupID, id, now)
	c.managed, c.options = true, o
	c.unused.at = now.Add(s.cfg.UnusedFor)
	heap.Push(&s.expiry, &c.unused)
	g.calls[id] = c
	return id, nil
}

// reserve makes room for one more managed call.
func (s *Service) reserve(groupID, callID string) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(time.Now())
	g := s.groupOf(groupID)
	if g.calls[callID] != nil {
		return nil, ErrCallIDUsed
	}
	if n := s.cfg.ManagedCallsPerClient; n > 0 && g.managed >= n {
		s.cfg.OnLimit(LimitManagedPerClient)
		return nil, ErrTooMany
	}
	g.managed++
	return g, nil
}

func newCall(groupID, id string, now time.Time) *call {
	c := &call{
		group: groupID, id: id, created: now,
		members: make(map[string]*member), tokens: make(map[string]*token),
	}
	c.unused.call = c
	return c
}

// unusedTooLong reports whether a managed call is over because nobody came.
func (s *Service) unusedTooLong(c *call, now time.Time) bool {
	return c.managed && !c.joined && len(c.members) == 0 && !now.Before(c.created.Add(s.cfg.UnusedFor))
}

// Info returns a managed call of the client that is not over.
func (s *Service) Info(groupID, callID string) (Managed, bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, callID)
	if c == nil || !c.managed || s.unusedTooLong(c, now) {
		return Managed{}, false
	}
	return c.info(), true
}

func (c *call) info() Managed {
	return Managed{
		CallID: c.id, Created: c.created, Options: c.options,
		Pending: !c.joined && len(c.members) == 0, Tokens: len(c.tokens),
	}
}

// List returns the managed calls of the client that are not over, by id.
func (s *Service) List(groupID string) []Managed {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	g := s.groups[groupID]
	if g == nil {
		return nil
	}
	var list []Managed
	for _, id := range slices.Sorted(maps.Keys(g.calls)) {
		if c := g.calls[id]; c.managed && !s.unusedTooLong(c, now) {
			list = append(list, c.info())
		}
	}
	return list
}

// End ends a call at once, whoever is in it: its tokens are dead, and a managed one is not joined
// again. It reports whether there was one; ending the media is the caller's.
func (s *Service) End(groupID, callID string) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, callID)
	if c == nil || s.unusedTooLong(c, now) {
		return false
	}
	s.end(c, now)
	return true
}

// CallEnded notes that the media server has ended a call. If somebody was admitted meanwhile the
// call goes on, and ends when they all have left.
func (s *Service) CallEnded(groupID, callID string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, callID)
	switch {
	case c == nil:
	case len(c.members) > 0:
		c.over = true
	case c.joined || !c.managed:
		s.end(c, now)
	}
}

// DropGroup ends all calls of a client, as is due when it is unregistered.
func (s *Service) DropGroup(groupID string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[groupID]
	if g == nil {
		return
	}
	for _, c := range slices.Collect(maps.Values(g.calls)) {
		s.end(c, now)
	}
	delete(s.groups, groupID) // a call that is being made finds out
}
