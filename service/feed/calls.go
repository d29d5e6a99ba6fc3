package feed

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// calls are the calls of a client that run, as its events tell.
type calls struct {
	seq     uint64 // of the last event that was taken in
	running map[string]*instance
	ended   []endedCall // the last ones, oldest first
}

type instance struct {
	id       string
	seq      uint64 // of the last event of the call
	sessions map[string]*member
}

type member struct {
	user    string
	streams map[string]publication
}

type publication struct{ Source, Codec string }

type endedCall struct {
	call, id string
	seq      uint64
}

// maxEnded is how many ended calls of a client are remembered, for what is told of them later.
const maxEnded = 256

func newCalls() calls { return calls{running: make(map[string]*instance)} }

// number gives an event its place in its call.
func (c *calls) number(e *Event) {
	if e.CallID == "" {
		return
	}
	if e.Type == CallReportReady {
		for i := len(c.ended) - 1; i >= 0; i-- {
			if l := &c.ended[i]; l.call == e.CallID {
				l.seq++
				e.Instance, e.CallSeq = l.id, l.seq
				return
			}
		}
		return
	}
	in := c.running[e.CallID]
	if in == nil || e.Type == CallStarted {
		e.Instance, e.CallSeq = e.ID, 1
		return
	}
	e.Instance, e.CallSeq = in.id, in.seq+1
}

// take takes in what a numbered event tells. What has been taken in before changes nothing.
func (c *calls) take(seq uint64, e *Event) {
	if seq <= c.seq {
		return
	}
	c.seq = seq
	if e.CallID == "" || e.CallSeq == 0 || e.Type == CallReportReady {
		return
	}
	in := c.running[e.CallID]
	if in == nil || in.id != e.Instance {
		in = &instance{id: e.Instance, sessions: make(map[string]*member)}
		c.running[e.CallID] = in
	}
	in.seq = e.CallSeq
	m := in.sessions[e.SessionID]
	switch e.Type {
	case CallEnded:
		delete(c.running, e.CallID)
		if len(c.ended) >= maxEnded {
			c.ended = slices.Delete(c.ended, 0, len(c.ended)-maxEnded+1)
		}
		c.ended = append(c.ended, endedCall{e.CallID, in.id, in.seq})
	case ParticipantJoined:
		in.sessions[e.SessionID] = &member{user: e.UserID, streams: make(map[string]publication)}
	case ParticipantLeft:
		delete(in.sessions, e.SessionID)
	case StreamStarted:
		if m != nil {
			m.streams[e.StreamID] = publication{e.Source, e.Codec}
		}
	case StreamEnded:
		if m != nil {
			delete(m.streams, e.StreamID)
		}
	}
}

// byAge returns the calls that run, the oldest first.
func (c *calls) byAge() []string {
	return slices.SortedFunc(maps.Keys(c.running), func(a, b string) int {
		return cmp.Compare(c.running[a].id, c.running[b].id)
	})
}

// lost returns the events that end all calls, of a server that is gone.
func (c *calls) lost(at time.Time) []Event {
	var out []Event
	for _, call := range c.byAge() {
		out = append(out, c.lostOf(call, at)...)
		out = append(out, Event{Type: CallEnded, Time: at, CallID: call, Reason: ServerLost})
	}
	return out
}

// lostOf returns the events that end the sessions of a call.
func (c *calls) lostOf(call string, at time.Time) []Event {
	in := c.running[call]
	if in == nil {
		return nil
	}
	var out []Event
	for _, session := range slices.Sorted(maps.Keys(in.sessions)) {
		m := in.sessions[session]
		e := Event{Time: at, CallID: call, SessionID: session, UserID: m.user}
		for _, stream := range slices.Sorted(maps.Keys(m.streams)) {
			p := m.streams[stream]
			ended := e
			ended.Type, ended.StreamID, ended.Source, ended.Codec = StreamEnded, stream, p.Source, p.Codec
			out = append(out, ended)
		}
		e.Type, e.Reason = ParticipantLeft, ServerLost
		out = append(out, e)
	}
	return out
}

// A callState is what a file says at its beginning of one call that runs then, or of one session of it.
type callState struct {
	Call     string                 `json:"call"`
	Instance string                 `json:"instance,omitempty"`
	Seq      uint64                 `json:"seq,omitempty"`
	Session  string                 `json:"session,omitempty"`
	User     string                 `json:"user,omitempty"`
	Streams  map[string]publication `json:"streams,omitempty"`
}

// state returns all that runs, each call before its sessions.
func (c *calls) state() []callState {
	var out []callState
	for _, call := range c.byAge() {
		in := c.running[call]
		out = append(out, callState{Call: call, Instance: in.id, Seq: in.seq})
		for _, session := range slices.Sorted(maps.Keys(in.sessions)) {
			m := in.sessions[session]
			out = append(out, callState{Call: call, Session: session, User: m.user, Streams: m.streams})
		}
	}
	return out
}

// restore takes in one element of state.
func (c *calls) restore(s callState) {
	if s.Instance != "" {
		c.running[s.Call] = &instance{id: s.Instance, seq: s.Seq, sessions: make(map[string]*member)}
		return
	}
	if in := c.running[s.Call]; in != nil {
		m := &member{user: s.User, streams: s.Streams}
		if m.streams == nil {
			m.streams = make(map[string]publication)
		}
		in.sessions[s.Session] = m
	}
}

// clone returns a copy that shares nothing.
func (c *calls) clone() calls {
	out := newCalls()
	for _, s := range c.state() {
		s.Streams = maps.Clone(s.Streams)
		out.restore(s)
	}
	out.seq, out.ended = c.seq, slices.Clone(c.ended)
	return out
}
