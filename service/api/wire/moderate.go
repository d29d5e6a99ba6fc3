package wire

import (
	"errors"
	"fmt"

	"rtcd/service/msgpack"
)

// An Action is what a moderate message asks for.
type Action string

// The actions.
const (
	ActionDisconnect Action = "disconnect" // ends SessionID, which may not join again
	ActionUnpublish  Action = "unpublish"  // ends StreamID, until the end of the call if Until says so
	ActionMute       Action = "mute"       // drops the voice of SessionID
	ActionMuteAll    Action = "mute_all"   // drops all voices but those of the sessions in Except
	ActionMuteState  Action = "mute_state" // while Active, voices stay muted, those of newcomers too
)

// MaxExcept is how many sessions Moderate.Except may hold.
const MaxExcept = maxEntries

// UntilCallEnd is the only value of Moderate.Until but none.
const UntilCallEnd = "call_end"

// Errors of Moderate.Check.
var (
	ErrAction   = errors.New("action is not known")
	ErrTarget   = errors.New("action lacks what it is about")
	ErrDuration = errors.New("until is neither empty nor call_end")
)

// Moderate is the data of a moderate message: what is to be done in a call, and to whom. Its ids
// are well-formed; whether they name anything is for others to say.
type Moderate struct {
	CallID              string
	Action              Action
	SessionID, StreamID string
	Except              []string // session ids, at most MaxExcept
	Active              bool
	Until               string
}

// Check says what an action lacks that it cannot do without.
func (m Moderate) Check() error {
	if m.CallID == "" {
		return ErrTarget
	}
	if m.Until != "" && m.Until != UntilCallEnd {
		return ErrDuration
	}
	target := true
	switch m.Action {
	case ActionDisconnect, ActionMute:
		target = m.SessionID != ""
	case ActionUnpublish:
		target = m.StreamID != ""
	case ActionMuteAll, ActionMuteState:
	default:
		return ErrAction
	}
	if !target {
		return ErrTarget
	}
	return nil
}

// Error is the data of an error message: why something that the client asked for was not done.
// SessionID is empty where it was not about a session.
type Error struct {
	SessionID, CallID string
	Reason            string // snake_case, for programs
}

// Stats is the data of a stats message: how many are in a call, and how many of them publish, and
// only watch.
type Stats struct {
	CallID                                string
	Participants, Publishers, Subscribers int
}

// readModerate reads a map of which known keys have the type they should, or nothing is taken.
func readModerate(r *msgpack.Reader) (Moderate, error) {
	var m Moderate
	if r.IsNil() {
		return m, ErrMissing
	}
	n, err := r.Map()
	if err != nil {
		return m, err
	}
	for range n {
		key, err := r.String(maxText)
		if err != nil {
			return m, fmt.Errorf("key: %w", err)
		}
		switch key {
		case "callID":
			m.CallID, err = readID(r)
		case "action":
			var s string
			s, err = readID(r)
			m.Action = Action(s)
		case "sessionID":
			m.SessionID, err = readID(r)
		case "streamID":
			m.StreamID, err = readID(r)
		case "except":
			m.Except, err = readIDs(r)
		case "active":
			m.Active, err = r.Bool()
		case "until":
			m.Until, err = readID(r)
		default:
			err = r.Skip(1)
		}
		if err != nil {
			return m, fmt.Errorf("moderate: %w", err)
		}
	}
	return m, nil
}

func readIDs(r *msgpack.Reader) ([]string, error) {
	n, err := r.Array()
	if err != nil || n == 0 {
		return nil, err
	}
	ids := make([]string, 0, n)
	for range n {
		id, err := readID(r)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func readStats(r *msgpack.Reader) (Stats, error) {
	var s Stats
	if r.IsNil() {
		return s, ErrMissing
	}
	n, err := r.Map()
	if err != nil {
		return s, err
	}
	for range n {
		key, err := r.String(maxText)
		if err != nil {
			return s, fmt.Errorf("key: %w", err)
		}
		switch key {
		case "callID":
			s.CallID, err = readID(r)
		case "participants":
			s.Participants, err = readCount(r)
		case "publishers":
			s.Publishers, err = readCount(r)
		case "subscribers":
			s.Subscribers, err = readCount(r)
		default:
			err = r.Skip(1)
		}
		if err != nil {
			return s, fmt.Errorf("stats: %w", err)
		}
	}
	return s, nil
}

func readCount(r *msgpack.Reader) (int, error) {
	v, err := r.Int()
	if err != nil {
		return 0, err
	}
	if v < 0 || v > maxCount {
		return 0, ErrCount
	}
	return int(v), nil
}

// AppendModerate appends a backend's wish to moderate. What is not set is left out.
func AppendModerate(dst []byte, m Moderate) []byte {
	n := 2
	for _, set := range []bool{m.SessionID != "", m.StreamID != "", len(m.Except) > 0, m.Active, m.Until != ""} {
		if set {
			n++
		}
	}
	dst = msgpack.AppendString(dst, TypeModerate)
	dst = msgpack.AppendMap(dst, n)
	dst = appendPair(dst, "callID", m.CallID)
	dst = appendPair(dst, "action", string(m.Action))
	if m.SessionID != "" {
		dst = appendPair(dst, "sessionID", m.SessionID)
	}
	if m.StreamID != "" {
		dst = appendPair(dst, "streamID", m.StreamID)
	}
	if len(m.Except) > 0 {
		dst = msgpack.AppendArray(msgpack.AppendString(dst, "except"), len(m.Except))
		for _, id := range m.Except {
			dst = msgpack.AppendString(dst, id)
		}
	}
	if m.Active {
		dst = msgpack.AppendBool(msgpack.AppendString(dst, "active"), true)
	}
	if m.Until != "" {
		dst = appendPair(dst, "until", m.Until)
	}
	return dst
}

// AppendError appends why something was not done.
func AppendError(dst []byte, e Error) []byte {
	n := 2
	if e.CallID != "" {
		n++
	}
	dst = msgpack.AppendString(dst, TypeError)
	dst = msgpack.AppendMap(dst, n)
	dst = appendPair(dst, "sessionID", e.SessionID)
	dst = appendPair(dst, "reason", e.Reason)
	if e.CallID != "" {
		dst = appendPair(dst, "callID", e.CallID)
	}
	return dst
}

// AppendStats appends the counts of a call.
func AppendStats(dst []byte, s Stats) []byte {
	dst = msgpack.AppendString(dst, TypeStats)
	dst = msgpack.AppendMap(dst, 4)
	dst = appendPair(dst, "callID", s.CallID)
	dst = msgpack.AppendInt(msgpack.AppendString(dst, "participants"), int64(s.Participants))
	dst = msgpack.AppendInt(msgpack.AppendString(dst, "publishers"), int64(s.Publishers))
	return msgpack.AppendInt(msgpack.AppendString(dst, "subscribers"), int64(s.Subscribers))
}
