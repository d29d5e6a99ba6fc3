package rtc

import (
	"slices"
	"strings"
)

// CallInfo is what is going on in a call.
type CallInfo struct {
	CallID       string
	Participants int // sessions
	Publishers   int // of which publish something
	Subscribers  int // of which publish nothing and may be sent what others publish
	Streams      []StreamInfo
}

// StreamInfo is one publication of a call: of a screen in two codecs there are two.
type StreamInfo struct {
	ID          string // of the track, as receivers know it
	Source      string // as in track ids
	SessionID   string // that publishes it
	Subscribers int    // to whom it is sent
	Muted       bool   // by its endpoint, or a moderator
}

// Call tells of a call and reports whether there is such a call, with or without sessions.
func (s *Server) Call(groupID, callID string) (CallInfo, bool) {
	c := s.call(groupID, callID)
	if c == nil {
		return CallInfo{CallID: callID}, false
	}
	return c.describe(), true
}

// Calls tells of all calls of a group, by their ids.
func (s *Server) Calls(groupID string) []CallInfo {
	var calls []*call
	s.mu.Lock()
	if g := s.groups[groupID]; g != nil {
		for _, c := range g.calls {
			if !c.lifetime.ending {
				calls = append(calls, c)
			}
		}
	}
	s.mu.Unlock()
	out := make([]CallInfo, len(calls))
	for i, c := range calls {
		out[i] = c.describe()
	}
	slices.SortFunc(out, func(a, b CallInfo) int { return strings.Compare(a.CallID, b.CallID) })
	return out
}

// call returns the call, or nil for one that is not there or is another group's.
func (s *Server) call(groupID, callID string) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.callLocked(groupID, callID); c != nil && !c.lifetime.ending {
		return c
	}
	return nil
}

// callLocked is call, for one that is ending, too.
func (s *Server) callLocked(groupID, callID string) *call {
	if g := s.groups[groupID]; g != nil {
		return g.calls[callID]
	}
	return nil
}

// toucher returns what makes a call be told of.
func (s *Server) toucher(groupID, callID string) func() {
	if s.cfg.CallChanged == nil {
		return func() {}
	}
	k := key{groupID, callID}
	return func() { s.changes.note(k) }
}

// callChanged tells what a call has come to.
func (s *Server) callChanged(k key) {
	info, _ := s.Call(k.group, k.id)
	s.cfg.CallChanged(k.group, info)
}

// describe counts the members and lists the publications.
func (c *call) describe() CallInfo {
	info := CallInfo{CallID: c.id}
	c.mu.Lock()
	published := *c.publications.Load()
	publishers := make(map[*session]bool, len(c.members))
	for _, p := range published {
		publishers[p.owner] = true
	}
	info.Participants, info.Publishers = len(c.members), len(publishers)
	for s := range c.members {
		if !publishers[s] && s.grant.maySubscribe() {
			info.Subscribers++
		}
	}
	c.mu.Unlock()
	for _, p := range published {
		info.Streams = append(info.Streams, p.describe())
	}
	return info
}

func (p *publication) describe() StreamInfo {
	return StreamInfo{
		ID: p.trackID, Source: p.source.String(), SessionID: p.owner.info.SessionID,
		Subscribers: p.media.Subscribers(), Muted: p.silent(),
	}
}

// silent reports whether nothing of a sound is forwarded because it is muted.
func (p *publication) silent() bool {
	return p.source.Sound() && p.media.Muted()
}
