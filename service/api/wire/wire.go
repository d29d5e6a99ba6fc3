// Package wire encodes and decodes the messages of a backend's WebSocket.
//
// A message is two MessagePack values back to back: the type, a string, and the data. Everything
// that is decoded is bounded, checked and copied: nothing returned aliases the input.
package wire

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"rtcd/service/msgpack"
)

// The types of messages. Those of the second block are spoken on connections that chose
// SubprotocolV2 alone.
const (
	TypeHello     = "hello"
	TypeJoin      = "join"
	TypeLeave     = "leave"
	TypeReconnect = "reconnect"
	TypeRTC       = "rtc"
	TypeClose     = "close"
	TypeVAD       = "vad"

	TypeModerate = "moderate"
	TypeError    = "error"
	TypeStats    = "stats"
)

// SubprotocolV2 is the WebSocket subprotocol of connections that take the messages beyond the
// established ones. One that asks for none gets none of them.
const SubprotocolV2 = "rtcd.v2"

var types = [...]string{
	TypeHello, TypeJoin, TypeLeave, TypeReconnect, TypeRTC, TypeClose, TypeVAD,
	TypeModerate, TypeError, TypeStats,
}

// SignalType is the number in an rtc or vad message.
type SignalType int64

// The numbers.
const (
	SignalICE       SignalType = 1
	SignalSDP       SignalType = 2
	SignalMute      SignalType = 3
	SignalUnmute    SignalType = 4
	SignalScreenOn  SignalType = 5
	SignalScreenOff SignalType = 6
	SignalVoiceOn   SignalType = 7
	SignalVoiceOff  SignalType = 8
	SignalVideoOn   SignalType = 9
	SignalVideoOff  SignalType = 10
)

// Limits of a message.
const (
	MaxMessage = 1 << 20 // bytes
	MaxID      = 128     // bytes of a session, call, user or other id
	maxText    = 1 << 10 // bytes of a key or another string
	maxDepth   = 4       // of arrays and maps within each other
	maxEntries = 64      // of an array or a map
	maxCount   = 1<<31 - 1
)

// Errors of decoding.
var (
	ErrTooLarge    = errors.New("message too large")
	ErrUnknownType = errors.New("unknown message type")
	ErrID          = errors.New("id is not valid")
	ErrText        = errors.New("text is not UTF-8")
	ErrMissing     = errors.New("data is nil or empty")
	ErrCount       = errors.New("count is out of range")
)

// CallRole is what a session may do in its call.
type CallRole string

// The roles of sessions.
const (
	RoleFull          CallRole = ""              // publishes and subscribes: whoever is given no role
	RolePublisher     CallRole = "publisher"     // the same, by name
	RoleSubscriber    CallRole = "subscriber"    // publishes nothing
	RolePublisherOnly CallRole = "publisheronly" // subscribes to nothing
	RoleModerator     CallRole = "moderator"     // publishes, subscribes, and may moderate
)

// Valid reports whether the role is one of those above.
func (r CallRole) Valid() bool {
	switch r {
	case RoleFull, RolePublisher, RoleSubscriber, RolePublisherOnly, RoleModerator:
		return true
	}
	return false
}

// Join is the data of a join. Props that were absent or of a wrong type are nil; ids that were
// not strings are empty. A token or a role that is no string makes the join undecodable: it must
// not open more than what was meant.
type Join struct {
	CallID, UserID, SessionID string
	ChannelID                 *string
	AV1Support, DCSignaling   *bool

	Token string   // who brings one joins as it says; a secret, for no log
	Role  CallRole // as it was asked for, valid or not
}

// Signal is the data of an rtc or vad message.
type Signal struct {
	GroupID, UserID, SessionID, CallID string
	Type                               SignalType
	Data                               []byte
}

// Message is what a backend sends. Type says which other field is set.
type Message struct {
	Type      string // TypeJoin, TypeLeave, TypeReconnect, TypeRTC or TypeModerate
	Join      Join
	SessionID string // leave, reconnect
	Signal    Signal // rtc
	Moderate  Moderate
}

// ServerMessage is what the server sends.
type ServerMessage struct {
	Type             string // TypeHello, TypeClose, TypeRTC, TypeVAD, TypeError or TypeStats
	ClientID, ConnID string // hello
	SessionID        string // close
	Signal           Signal // rtc, vad
	Error            Error
	Stats            Stats
}

// Type returns the type of a message without looking at its data: one of the constants, or "" for
// a message of no known type and for one that has none. It allocates nothing.
func Type(b []byte) string {
	if len(b) > MaxMessage {
		return ""
	}
	r := msgpack.MakeReader(b, limits)
	raw, err := r.Bytes()
	if err != nil {
		return ""
	}
	return known(raw)
}

// Decode decodes a message of a backend. The error of one that is well-formed but of no known
// type is ErrUnknownType.
func Decode(b []byte) (Message, error) {
	r, typ, err := open(b)
	if err != nil {
		return Message{}, err
	}
	m := Message{Type: typ}
	switch typ {
	case TypeJoin:
		m.Join, err = readJoin(r)
	case TypeLeave, TypeReconnect:
		var ids [1]string
		err = readStrings(r, []string{"sessionID"}, ids[:])
		m.SessionID = ids[0]
	case TypeRTC:
		m.Signal, err = readSignal(r)
	case TypeModerate:
		m.Moderate, err = readModerate(r)
	default:
		if err = r.Skip(0); err == nil {
			err = ErrUnknownType
		}
	}
	if err != nil {
		return Message{}, err
	}
	return m, nil
}

// DecodeServer decodes a message of the server.
func DecodeServer(b []byte) (ServerMessage, error) {
	r, typ, err := open(b)
	if err != nil {
		return ServerMessage{}, err
	}
	m := ServerMessage{Type: typ}
	switch typ {
	case TypeHello:
		var ids [2]string
		err = readStrings(r, []string{"clientID", "connID"}, ids[:])
		m.ClientID, m.ConnID = ids[0], ids[1]
	case TypeClose:
		var ids [1]string
		err = readStrings(r, []string{"sessionID"}, ids[:])
		m.SessionID = ids[0]
	case TypeRTC, TypeVAD:
		m.Signal, err = readSignal(r)
	case TypeError:
		var words [3]string
		err = readStrings(r, []string{"sessionID", "callID", "reason"}, words[:])
		m.Error = Error{SessionID: words[0], CallID: words[1], Reason: words[2]}
	case TypeStats:
		m.Stats, err = readStats(r)
	default:
		if err = r.Skip(0); err == nil {
			err = ErrUnknownType
		}
	}
	if err != nil {
		return ServerMessage{}, err
	}
	return m, nil
}

var limits = msgpack.Limits{Depth: maxDepth, Elements: maxEntries, String: MaxMessage}

// open reads the type of a message: a str, or a bin. One that is none of ours becomes "", so that
// nothing downstream ever sees it.
func open(b []byte) (*msgpack.Reader, string, error) {
	if len(b) > MaxMessage {
		return nil, "", ErrTooLarge
	}
	r := msgpack.NewReader(b, limits)
	raw, err := r.Bytes()
	if err != nil {
		return nil, "", fmt.Errorf("message type: %w", err)
	}
	return r, known(raw), nil
}

// known returns the constant that raw spells, or "".
func known(raw []byte) string {
	for _, t := range types {
		if string(raw) == t {
			return t
		}
	}
	return ""
}

// readStrings reads a map of strings, all keys and values, and puts those of keys into out.
func readStrings(r *msgpack.Reader, keys []string, out []string) error {
	if r.IsNil() {
		return ErrMissing
	}
	n, err := r.Map()
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrMissing
	}
	for range n {
		key, err := r.String(maxText)
		if err != nil {
			return fmt.Errorf("key: %w", err)
		}
		value, err := r.String(maxText)
		if err != nil {
			return fmt.Errorf("value: %w", err)
		}
		for i, k := range keys {
			if k != key {
				continue
			}
			if err := CheckID(value); err != nil {
				return err
			}
			out[i] = value
		}
	}
	return nil
}

func readJoin(r *msgpack.Reader) (Join, error) {
	var j Join
	if r.IsNil() {
		return j, ErrMissing
	}
	n, err := r.Map()
	if err != nil {
		return j, err
	}
	for range n {
		key, err := r.String(maxText)
		if err != nil {
			return j, fmt.Errorf("key: %w", err)
		}
		switch key {
		case "callID":
			j.CallID, err = readJoinID(r)
		case "userID":
			j.UserID, err = readJoinID(r)
		case "sessionID":
			j.SessionID, err = readJoinID(r)
		case "channelID":
			j.ChannelID, err = optional(r, func() (string, error) {
				s, err := r.String(maxText)
				if err == nil && !utf8.ValidString(s) {
					err = ErrText
				}
				return s, err
			})
		case "av1Support":
			j.AV1Support, err = optional(r, r.Bool)
		case "dcSignaling":
			j.DCSignaling, err = optional(r, r.Bool)
		case "token":
			j.Token, err = r.String(maxText)
		case "role":
			j.Role, err = readRole(r)
		default:
			err = r.Skip(1)
		}
		if err != nil {
			return j, fmt.Errorf("join: %w", err)
		}
	}
	return j, nil
}

func readRole(r *msgpack.Reader) (CallRole, error) {
	s, err := readID(r)
	return CallRole(s), err
}

// readJoinID reads an id; a value of another type is no id, which is not this package's worry.
func readJoinID(r *msgpack.Reader) (string, error) {
	v, err := optional(r, func() (string, error) { return r.String(maxText) })
	if err != nil || v == nil {
		return "", err
	}
	return *v, CheckID(*v)
}

// optional reads a value with read, or skips one of another type.
func optional[T any](r *msgpack.Reader, read func() (T, error)) (*T, error) {
	v, err := read()
	if errors.Is(err, msgpack.ErrType) {
		return nil, r.Skip(1)
	}
	if err != nil {
		return nil, err
	}
	return &v, nil
}

func readSignal(r *msgpack.Reader) (Signal, error) {
	var s Signal
	if r.IsNil() {
		return s, r.Nil()
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
		case "group_id":
			s.GroupID, err = orNil(r, readID)
		case "user_id":
			s.UserID, err = orNil(r, readID)
		case "session_id":
			s.SessionID, err = orNil(r, readID)
		case "call_id":
			s.CallID, err = orNil(r, readID)
		case "type":
			var t int64
			t, err = orNil(r, (*msgpack.Reader).Int)
			s.Type = SignalType(t)
		case "data":
			var raw []byte
			raw, err = orNil(r, (*msgpack.Reader).Bytes)
			s.Data = append([]byte(nil), raw...)
		default:
			err = r.Skip(1)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", typeOf(key), err)
		}
	}
	return s, nil
}

// orNil reads a value with read; nil is the zero value, also of a key that had another one before.
func orNil[T any](r *msgpack.Reader, read func(*msgpack.Reader) (T, error)) (T, error) {
	if r.IsNil() {
		var zero T
		return zero, r.Nil()
	}
	return read(r)
}

// typeOf keeps foreign keys out of error texts.
func typeOf(key string) string {
	switch key {
	case "group_id", "user_id", "session_id", "call_id", "type", "data":
		return key
	}
	return "unknown key"
}

func readID(r *msgpack.Reader) (string, error) {
	s, err := r.String(maxText)
	if err != nil {
		return "", err
	}
	return s, CheckID(s)
}

// CheckID says what is wrong with an id: more than MaxID bytes, not UTF-8, or with control
// characters. The empty one is fine here.
func CheckID(id string) error {
	if len(id) > MaxID || !utf8.ValidString(id) {
		return ErrID
	}
	for _, c := range id {
		if unicode.IsControl(c) {
			return ErrID
		}
	}
	return nil
}
