package ws

import (
	"errors"

	"rtcd/service/api/wire"
)

// The types of events.
const (
	EventOpen        = "ws.open"
	EventClose       = "ws.close"
	EventJoin        = "ws.join"
	EventLeave       = "ws.leave"
	EventReconnect   = "ws.reconnect"
	EventSignal      = "ws.signal"
	EventModerate    = "ws.moderate"
	EventUnknown     = "ws.unknown"     // a message of no type that a client may send
	EventUndecodable = "ws.undecodable" // one that is not the documented encoding
)

// Outcomes of a message, as in RFC 3881 section 5.1.4.
const (
	OutcomeSuccess = 0
	OutcomeRefused = 4  // it was not done
	OutcomeFault   = 12 // a fault of the server itself
)

// An Event is what became of a connection or a message. It holds no token, no description and no
// candidate.
type Event struct {
	Type             string
	ClientID, ConnID string
	Remote           string // address and port, or the address a trusted proxy tells

	CallID, SessionID, UserID string // as the message named them, whether or not they exist
	StreamID                  string
	Signal                    wire.SignalType // of a signal
	Action                    wire.Action     // of a moderation

	Outcome int
	Reason  string // snake_case, empty on success
}

func (s *Server) record(e Event) {
	if s.cfg.Record != nil {
		s.cfg.Record(e)
	}
}

// event returns one of the connection.
func (c *conn) event(typ string) Event {
	return Event{Type: typ, ClientID: c.peer.ClientID, ConnID: c.id, Remote: c.remote}
}

// Reasons that are no error's.
const (
	reasonBlocked     = "blocked"
	reasonForbidden   = "forbidden"
	reasonNotFound    = "not_found"
	reasonBadRequest  = "bad_request"
	reasonRefused     = "refused"
	reasonInternal    = "internal"
	reasonText        = "text_frame"
	reasonUnknownType = "unknown_type"
	reasonUndecodable = "undecodable"
)

// reasonOf returns the word for programs of an error, or other if it has none.
func reasonOf(err error, other string) string {
	var named interface{ Reason() string }
	if errors.As(err, &named) {
		return named.Reason()
	}
	return other
}

// A cause is why a connection was given up, with a word for programs.
type cause struct{ reason, text string }

func (c *cause) Error() string  { return c.text }
func (c *cause) Reason() string { return c.reason }
