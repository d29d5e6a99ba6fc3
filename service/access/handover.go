package access

import (
	"container/heap"
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"rtcd/service/api/wire"
)

// State is what a Service knows, for the Service that takes its place. Rates begin anew there.
type State struct{ Calls []callState }

type callState struct {
	Group, ID    string
	Managed      bool          `json:",omitempty"`
	Options      CallOptions   `json:",omitzero"`
	Created      time.Time     `json:",omitzero"`
	Members      []memberState `json:",omitempty"`
	Joined, Over bool          `json:",omitempty"`
	Creator      string        `json:",omitempty"`
	Tokens       []tokenState  `json:",omitempty"`
	UnusedAt     time.Time     `json:",omitzero"` // while nobody has joined
	Sealed       bool          `json:",omitempty"`

	EjectedSessions, EjectedUsers []string `json:",omitempty"`
}

type memberState struct {
	Session, User string
	Token         string `json:",omitempty"` // its id; that of none: one that is dead
	WithToken     bool   `json:",omitempty"`
}

type tokenState struct {
	ID      string
	Hash    []byte // of the secret
	User    string
	Role    wire.CallRole `json:",omitempty"`
	Data    string        `json:",omitempty"`
	Expires time.Time
	Uses    int
}

// Export returns what is known. The Service is to be used no more.
func (s *Service) Export() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out State
	for _, g := range s.groups {
		for _, c := range g.calls {
			out.Calls = append(out.Calls, c.export())
		}
	}
	return out
}

func (c *call) export() callState {
	st := callState{
		Group: c.group, ID: c.id, Managed: c.managed, Options: c.options, Created: c.created,
		Joined: c.joined, Over: c.over, Creator: c.creator, Sealed: c.sealed,
		EjectedSessions: slices.Collect(maps.Keys(c.ejectedSessions)),
		EjectedUsers:    slices.Collect(maps.Keys(c.ejectedUsers)),
	}
	if c.unused.index > 0 {
		st.UnusedAt = c.unused.at
	}
	for session, m := range c.members {
		ms := memberState{Session: session, User: m.user}
		if m.token != nil {
			ms.Token, ms.WithToken = m.token.id, true
		}
		st.Members = append(st.Members, ms)
	}
	for _, t := range c.tokens {
		st.Tokens = append(st.Tokens, tokenState{
			ID: t.id, Hash: t.hash[:], User: t.user, Role: t.role, Data: t.data, Expires: t.expires, Uses: t.uses,
		})
	}
	return st
}

// Import makes a new Service know what another one knew.
func (s *Service) Import(st State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range st.Calls {
		s.importCall(c)
	}
}

func (s *Service) importCall(st callState) {
	g := s.groupOf(st.Group)
	if g.calls[st.ID] != nil {
		return
	}
	c := newCall(st.Group, st.ID, st.Created)
	c.managed, c.options, c.joined, c.over = st.Managed, st.Options, st.Joined, st.Over
	c.creator, c.sealed = st.Creator, st.Sealed
	c.ejectedSessions, c.ejectedUsers = setOf(st.EjectedSessions), setOf(st.EjectedUsers)
	g.calls[c.id] = c
	if c.managed {
		g.managed++
	}
	if !st.UnusedAt.IsZero() {
		c.unused.at = st.UnusedAt
		heap.Push(&s.expiry, &c.unused)
	}
	for _, ts := range st.Tokens {
		if len(ts.Hash) != sha256.Size || s.tokens[ts.ID] != nil {
			continue
		}
		t := &token{
			id: ts.ID, hash: [sha256.Size]byte(ts.Hash), call: c, user: ts.User, role: ts.Role, data: ts.Data,
			expires: ts.Expires, uses: ts.Uses,
		}
		t.entry = entry{at: t.expires, token: t}
		s.tokens[t.id], c.tokens[t.id] = t, t
		g.tokens++
		heap.Push(&s.expiry, &t.entry)
	}
	for _, ms := range st.Members {
		m := &member{user: ms.User}
		if ms.WithToken {
			if m.token = c.tokens[ms.Token]; m.token == nil {
				m.token = &token{id: ms.Token, call: c} // one that nobody can bring any more
			}
		}
		s.session++
		m.seq = s.session
		c.members[ms.Session] = m
	}
}

// setOf returns a set, nil of nothing.
func setOf(list []string) map[string]struct{} {
	if list == nil {
		return nil
	}
	set := make(map[string]struct{}, len(list))
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}
