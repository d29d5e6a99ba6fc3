package client

import (
	"encoding/json"
	"fmt"
)

// An Event is something a Conn reports: one of Connected, Disconnected, Hello, Description,
// Candidate, Voice, Closed, and with Config.V2 ErrorEvent and StatsEvent.
type Event interface{ event() }

// Connected says that the WebSocket is up. Everything until the next Disconnected came over it.
type Connected struct {
	// Resumed is false for the first connection of a Conn. On a later one, sessions that went
	// on have been claimed.
	Resumed bool
	// V2 says that the server took up Config.V2.
	V2 bool
}

// Disconnected says that the WebSocket is gone; the Conn is about to connect again, unless it
// has been closed. Calls go on meanwhile.
type Disconnected struct {
	Err error // why, never nil
}

// Hello is the server's first message on each connection.
type Hello struct {
	ClientID string
	ConnID   string // the server's name for the connection, to find it in its log
}

// Ref names the session an event is about.
type Ref struct {
	CallID    string
	UserID    string
	SessionID string
}

// Description is an offer or an answer for the end user of a session.
type Description struct {
	Ref
	Data json.RawMessage // {"type":"offer"|"answer","sdp":"..."}, as it came
}

// Candidate is an ICE candidate for the end user of a session.
type Candidate struct {
	Ref
	Data json.RawMessage // {"type":"candidate","candidate":{...}}, as it came
}

// Voice says that the end user of a session started or stopped speaking.
type Voice struct {
	Ref
	On bool
}

// Closed says that a session has ended. It comes once per session, and last.
type Closed struct {
	SessionID string
	// Lost means that the server did not say so: it does not know the session any more.
	Lost bool
}

// An ErrorEvent says that something was not done: a join, a moderation or another message. A refused
// join is closed as well.
type ErrorEvent struct {
	CallID, SessionID string // as far as it was about one
	Reason            string // such as "token_invalid", "not_found" or "forbidden"; see docs/protocol.md
}

// A StatsEvent says how many are in a call. It comes after a change, at most once a second.
type StatsEvent struct {
	CallID       string
	Participants int // sessions
	Publishers   int // of which publish something
	Subscribers  int // of which only watch
}

func (ErrorEvent) event()   {}
func (StatsEvent) event()   {}
func (Connected) event()    {}
func (Disconnected) event() {}
func (Hello) event()        {}
func (Description) event()  {}
func (Candidate) event()    {}
func (Voice) event()        {}
func (Closed) event()       {}

// An SDP is a session description as it stands in a message.
type SDP struct {
	Type string `json:"type"` // "offer" or "answer"
	SDP  string `json:"sdp"`
}

// Parse decodes the data.
func (d Description) Parse() (SDP, error) {
	var s SDP
	if err := json.Unmarshal(d.Data, &s); err != nil {
		return SDP{}, fmt.Errorf("parse description: %w", err)
	}
	if s.Type != "offer" && s.Type != "answer" {
		return SDP{}, fmt.Errorf("parse description: type %.20q", s.Type)
	}
	return s, nil
}

// An ICECandidate is a browser's RTCIceCandidateInit. It converts to and from pion's
// webrtc.ICECandidateInit.
type ICECandidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex"`
	UsernameFragment *string `json:"usernameFragment"`
}

// Parse decodes the data.
func (c Candidate) Parse() (ICECandidate, error) {
	var m struct {
		Candidate *ICECandidate `json:"candidate"`
	}
	if err := json.Unmarshal(c.Data, &m); err != nil {
		return ICECandidate{}, fmt.Errorf("parse candidate: %w", err)
	}
	if m.Candidate == nil {
		return ICECandidate{}, fmt.Errorf("parse candidate: none in %.40q", c.Data)
	}
	return *m.Candidate, nil
}
