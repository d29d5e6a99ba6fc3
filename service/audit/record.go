package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf16"
)

const (
	timeLayout = "2006-01-02T15:04:05.000Z"
	// maxLine bounds one line: every byte of the strings escaped, six for one, and change.
	maxLine = 32 << 10
	// sumMark parts what is hashed from the hash.
	sumMark = `,"hash":"`
	tailLen = len(sumMark) + 2*sha256.Size + len(`"}`) + 1
)

// A sum is the SHA-256 of a record. The first record follows the zero sum.
type sum [sha256.Size]byte

func (s sum) String() string { return hex.EncodeToString(s[:]) }

func parseSum(text string) (sum, error) {
	var s sum
	if len(text) != 2*len(s) {
		return s, fmt.Errorf("hash of %d digits", len(text))
	}
	_, err := hex.Decode(s[:], []byte(text))
	if err == nil && s.String() != text {
		err = errors.New("hash in capitals")
	}
	return s, err
}

// A record is an event in the chain.
type record struct {
	Event
	prev, sum sum
}

// appendRecord appends e as a line that follows prev, and returns its sum. Of an event there is one
// line only: keys in this order, empty ones left out, ASCII, no white space.
func appendRecord(buf []byte, e Event, prev sum) ([]byte, sum) {
	start := len(buf)
	buf = appendFields(buf, e)
	buf = append(buf, `,"prev":"`...)
	buf = hex.AppendEncode(buf, prev[:])
	buf = append(buf, '"')
	s := sum(sha256.Sum256(buf[start:]))
	buf = append(buf, sumMark...)
	buf = hex.AppendEncode(buf, s[:])
	return append(buf, "\"}\n"...), s
}

// appendFields appends the event as a JSON object without its closing brace.
func appendFields(buf []byte, e Event) []byte {
	buf = append(buf, `{"seq":`...)
	buf = strconv.AppendUint(buf, e.Seq, 10)
	buf = append(buf, `,"time":"`...)
	buf = e.Time.UTC().AppendFormat(buf, timeLayout)
	buf = append(buf, `","actor":{"kind":`...)
	buf = appendString(buf, string(e.Actor.Kind))
	buf = appendField(buf, "id", e.Actor.ID)
	buf = append(buf, '}')
	buf = appendField(buf, "remote", e.Remote)
	buf = appendField(buf, "type", e.Type)
	buf = appendField(buf, "action", string(e.Action))
	if e.Object != (Object{}) {
		buf = append(buf, `,"object":{"kind":`...)
		buf = appendString(buf, e.Object.Kind)
		buf = appendField(buf, "id", e.Object.ID)
		buf = append(buf, '}')
	}
	buf = appendField(buf, "call", e.CallID)
	buf = appendField(buf, "session", e.SessionID)
	buf = appendField(buf, "user", e.User)
	buf = append(buf, `,"outcome":`...)
	buf = strconv.AppendInt(buf, int64(e.Outcome), 10)
	return appendField(buf, "reason", e.Reason)
}

func appendField(buf []byte, key, value string) []byte {
	if value == "" {
		return buf
	}
	buf = append(buf, ',', '"')
	buf = append(buf, key...)
	buf = append(buf, '"', ':')
	return appendString(buf, value)
}

// appendString appends s as a JSON string of printable ASCII: no reader of a line meets a control,
// a line separator or a change of direction, whatever an id held.
func appendString(buf []byte, s string) []byte {
	buf = append(buf, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			buf = append(buf, '\\', byte(r))
		case r >= ' ' && r < 0x7f:
			buf = append(buf, byte(r))
		case r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			buf = appendEscape(appendEscape(buf, high), low)
		default:
			buf = appendEscape(buf, r)
		}
	}
	return append(buf, '"')
}

func appendEscape(buf []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(buf, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// MarshalJSON returns the event as it stands in the log, without the hashes.
func (e Event) MarshalJSON() ([]byte, error) {
	return append(appendFields(nil, e.normal(time.Now())), '}'), nil
}

// line is how a line of the log decodes.
type line struct {
	Seq   uint64 `json:"seq"`
	Time  string `json:"time"`
	Actor struct {
		Kind ActorKind `json:"kind"`
		ID   string    `json:"id"`
	} `json:"actor"`
	Remote string `json:"remote"`
	Type   string `json:"type"`
	Action Action `json:"action"`
	Object struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"object"`
	CallID    string  `json:"call"`
	SessionID string  `json:"session"`
	User      string  `json:"user"`
	Outcome   Outcome `json:"outcome"`
	Reason    string  `json:"reason"`
	Prev      string  `json:"prev"`
	Hash      string  `json:"hash"`
}

// parseRecord reads one line, its newline included, and proves that it is what was hashed and that it
// is the one line its event has. It does not know the neighbours.
func parseRecord(text []byte) (record, error) {
	r, err := decodeRecord(text)
	if err != nil {
		return record{}, err
	}
	again, s := appendRecord(make([]byte, 0, len(text)), r.Event, r.prev)
	if s != r.sum {
		return record{}, errors.New("the hash is not that of the content")
	}
	if !bytes.Equal(again, text) {
		return record{}, errors.New("not in the form the server writes")
	}
	return r, nil
}

// decodeRecord reads one line without proving anything, for reading what Verify answers for.
func decodeRecord(text []byte) (record, error) {
	switch {
	case len(text) > maxLine:
		return record{}, fmt.Errorf("a line of %d bytes", len(text))
	case len(text) < tailLen || text[len(text)-1] != '\n':
		return record{}, errors.New("an unfinished line")
	}
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return record{}, fmt.Errorf("not a record: %w", err)
	}
	at, err := time.Parse(timeLayout, l.Time)
	if err != nil {
		return record{}, fmt.Errorf("not a time: %.40q", l.Time)
	}
	r := record{Event: Event{
		Seq: l.Seq, Time: at, Actor: Actor{Kind: l.Actor.Kind, ID: l.Actor.ID}, Remote: l.Remote,
		Type: l.Type, Action: l.Action, Object: Object{Kind: l.Object.Kind, ID: l.Object.ID},
		CallID: l.CallID, SessionID: l.SessionID, User: l.User, Outcome: l.Outcome, Reason: l.Reason,
	}}
	if r.prev, err = parseSum(l.Prev); err != nil {
		return record{}, fmt.Errorf("prev: %w", err)
	}
	if r.sum, err = parseSum(l.Hash); err != nil {
		return record{}, fmt.Errorf("hash: %w", err)
	}
	return r, nil
}
