package feed

import (
	"encoding/json"
	"strings"
	"time"
)

// Types of events that the feed itself looks at; others are passed on as they are.
const (
	CallStarted       = "call.started"
	CallEnded         = "call.ended"
	CallReportReady   = "call.report_ready"
	ParticipantJoined = "participant.joined"
	ParticipantLeft   = "participant.left"
	StreamStarted     = "stream.started"
	StreamEnded       = "stream.ended"
	// Gap stands where events are missing. Reading goes on behind its id.
	Gap = "gap"
)

// Reasons of the feed's own events.
const (
	ServerLost    = "server_lost"    // of call.ended and participant.left: the server ended without a word
	Expired       = "expired"        // of a gap: older than what is kept
	Overflow      = "overflow"       // of a gap: could not be written for too long
	UnknownCursor = "unknown_cursor" // of a gap: the cursor is of a log that is no more
)

// An Event is something that took place in a call of one client. The feed sets ID, Instance, CallSeq
// and Missed.
type Event struct {
	ID     string    `json:"id"` // the cursor behind the event; of a client's events the later is the larger
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	CallID string    `json:"callID,omitempty"`
	// Instance is the id of the event that began the call: a call id that is used again is another
	// instance. CallSeq numbers the events of an instance from 1, without gaps.
	Instance  string `json:"instance,omitempty"`
	CallSeq   uint64 `json:"callSeq,omitempty"`
	SessionID string `json:"sessionID,omitempty"`
	UserID    string `json:"userID,omitempty"`
	StreamID  string `json:"streamID,omitempty"`
	Source    string `json:"source,omitempty"`
	Codec     string `json:"codec,omitempty"`
	Role      string `json:"role,omitempty"`   // of who joined
	Path      string `json:"path,omitempty"`   // that the media of a participant takes
	Action    string `json:"action,omitempty"` // of a moderator
	Reason    string `json:"reason,omitempty"` // of an end, or of a gap
	Missed    uint64 `json:"missed,omitempty"` // events in a gap, if that is known
}

// maxText bounds each text of an event, in bytes. The API takes no longer ones.
const maxText = 512

// clean makes the texts of an event such that they encode to what they decode from.
func (e *Event) clean() {
	for _, s := range []*string{
		&e.Type, &e.CallID, &e.SessionID, &e.UserID, &e.StreamID, &e.Source, &e.Codec, &e.Role, &e.Path, &e.Action, &e.Reason,
	} {
		if len(*s) > maxText {
			*s = (*s)[:maxText]
		}
		*s = strings.ToValidUTF8(*s, "\uFFFD")
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
}

// encode returns the event as one line of JSON.
func (e *Event) encode() []byte {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // texts, numbers, and times of this age
	}
	return data
}

// An Item is one event as it is delivered.
type Item struct {
	ID   string
	Type string
	Data []byte // JSON of an Event, without a line break; not to be changed
}

// gapItem stands for missed events before the place next; 0 missed is an unknown number.
func gapItem(lineage, next, missed uint64, reason string, at time.Time) Item {
	e := Event{ID: cursor{lineage, next - 1}.String(), Type: Gap, Time: at, Reason: reason, Missed: missed}
	e.clean()
	return Item{ID: e.ID, Type: Gap, Data: e.encode()}
}
