// Package channel encodes and decodes the messages of a session's data channel.
//
// A message is a number, its type, and for some types a MessagePack value behind it. Numbers are
// written as uint 8 and taken in any form; what follows the value is ignored.
package channel

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"
	"unicode/utf8"

	"rtcd/service/msgpack"
)

// Type is the type of a message.
type Type uint8

// The types.
const (
	Ping     Type = 1 // to the server
	Pong     Type = 2 // to the endpoint
	SDP      Type = 3 // both ways
	Loss     Type = 4 // to the server: rate of loss, 0 to 1
	RTT      Type = 5 // to the server: round-trip time in seconds
	Jitter   Type = 6 // to the server: in seconds
	Lock     Type = 7 // request to the server, answer to the endpoint
	Unlock   Type = 8 // to the server
	MediaMap Type = 9 // to the endpoint
)

// Before there were types, endpoints sent this text and were answered with that.
const (
	LegacyPing = "ping"
	LegacyPong = "pong"
)

// Limits of a message, in bytes.
const (
	MaxMessage = 64 << 10
	MaxSDP     = 1 << 20 // unpacked
	maxText    = 1 << 10
	maxEntries = 1 << 10 // of a media map
)

// Errors of decoding.
var (
	ErrTooLarge    = errors.New("message too large")
	ErrUnknownType = errors.New("unknown message type")
	ErrText        = errors.New("text is not UTF-8")
	ErrValue       = errors.New("value is not a finite number")
)

// Media says what is sent in one section.
type Media struct {
	Type     string // voice, screen, screen-audio or video
	SenderID string // session id

	// Unsupported is the codec of a video that the endpoint does not take. Then it is sent in no
	// section, and the key of the entry is its track id. It is an addition of ours to the wire.
	Unsupported string
}

// Message is a decoded message. Type says which other field is set.
type Message struct {
	Type    Type
	SDP     []byte           // SDP: the JSON of a description
	Value   float64          // Loss, RTT, Jitter
	Granted *bool            // Lock: nil in a request
	Media   map[string]Media // MediaMap: by mid
}

// Decode decodes a message of either side. Nothing in it aliases b.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return Message{}, ErrTooLarge
	}
	r := msgpack.NewReader(b, msgpack.Limits{Depth: 4, Elements: maxEntries, String: MaxMessage})
	n, err := r.Int()
	if err != nil {
		return Message{}, fmt.Errorf("message type: %w", err)
	}
	if n < int64(Ping) || n > int64(MediaMap) {
		return Message{}, ErrUnknownType
	}
	m := Message{Type: Type(n)}
	switch m.Type {
	case SDP:
		var packed []byte
		if packed, err = r.Bytes(); err == nil {
			m.SDP, err = inflate(packed)
		}
	case Loss, RTT, Jitter:
		if m.Value, err = r.Number(); err == nil && (math.IsNaN(m.Value) || math.IsInf(m.Value, 0)) {
			err = ErrValue
		}
	case Lock:
		if granted, berr := r.Bool(); berr == nil {
			m.Granted = &granted
		}
	case MediaMap:
		m.Media, err = readMedia(r)
	}
	if err != nil {
		return Message{}, fmt.Errorf("message %d: %w", n, err)
	}
	return m, nil
}

func readMedia(r *msgpack.Reader) (map[string]Media, error) {
	n, err := r.Map()
	if err != nil {
		return nil, err
	}
	out := make(map[string]Media)
	for range n {
		mid, err := readText(r)
		if err != nil {
			return nil, err
		}
		fields, err := r.Map()
		if err != nil {
			return nil, err
		}
		var m Media
		for range fields {
			key, err := readText(r)
			if err != nil {
				return nil, err
			}
			switch key {
			case "type":
				m.Type, err = readText(r)
			case "sender_id":
				m.SenderID, err = readText(r)
			case "unsupported":
				m.Unsupported, err = readText(r)
			default:
				err = r.Skip(2)
			}
			if err != nil {
				return nil, err
			}
		}
		out[mid] = m
	}
	return out, nil
}

func readText(r *msgpack.Reader) (string, error) {
	s, err := r.String(maxText)
	if err == nil && !utf8.ValidString(s) {
		err = ErrText
	}
	return s, err
}

// unpacker is a zlib reader, kept because making one costs far more than most messages.
type unpacker struct {
	in bytes.Reader
	z  io.ReadCloser // also a zlib.Resetter
}

var unpackers = sync.Pool{New: func() any { return new(unpacker) }}

// inflate unpacks a zlib stream (RFC 1950) of at most MaxSDP bytes. What follows the stream is
// ignored. It reads the stream twice, first only to count and check: so whatever is refused has
// allocated nothing, and the rest exactly what it holds.
func inflate(packed []byte) ([]byte, error) {
	u := unpackers.Get().(*unpacker)
	defer unpackers.Put(u)
	defer u.in.Reset(nil)
	if err := u.open(packed); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	size, err := io.Copy(io.Discard, io.LimitReader(u.z, MaxSDP+1))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if size > MaxSDP {
		return nil, ErrTooLarge
	}
	out := make([]byte, size)
	if err := u.open(packed); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if _, err := io.ReadFull(u.z, out); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return out, nil
}

// open makes z read packed from its beginning.
func (u *unpacker) open(packed []byte) (err error) {
	u.in.Reset(packed)
	if u.z == nil {
		u.z, err = zlib.NewReader(&u.in)
		return err
	}
	return u.z.(zlib.Resetter).Reset(&u.in, nil)
}

var packers = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

// AppendSDP appends an SDP message: the JSON of a description, packed.
func AppendSDP(dst, json []byte) ([]byte, error) {
	if len(json) > MaxSDP {
		return nil, ErrTooLarge
	}
	var b bytes.Buffer
	z := packers.Get().(*zlib.Writer)
	defer packers.Put(z)
	z.Reset(&b)
	if _, err := z.Write(json); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return msgpack.AppendBytes(head(dst, SDP), b.Bytes()), nil
}

func head(dst []byte, t Type) []byte { return msgpack.AppendUint8(dst, uint8(t)) }

// AppendPing appends a ping.
func AppendPing(dst []byte) []byte { return head(dst, Ping) }

// AppendPong appends the answer to a ping.
func AppendPong(dst []byte) []byte { return head(dst, Pong) }

// AppendLockRequest appends a request for the signalling lock.
func AppendLockRequest(dst []byte) []byte { return head(dst, Lock) }

// AppendLockReply appends the answer to such a request.
func AppendLockReply(dst []byte, granted bool) []byte {
	return msgpack.AppendBool(head(dst, Lock), granted)
}

// AppendUnlock appends the release of the signalling lock.
func AppendUnlock(dst []byte) []byte { return head(dst, Unlock) }

// AppendLoss appends a rate of loss, 0 to 1.
func AppendLoss(dst []byte, ratio float64) []byte {
	return msgpack.AppendFloat(head(dst, Loss), ratio)
}

// AppendRTT appends a round-trip time.
func AppendRTT(dst []byte, seconds float64) []byte {
	return msgpack.AppendFloat(head(dst, RTT), seconds)
}

// AppendJitter appends a jitter.
func AppendJitter(dst []byte, seconds float64) []byte {
	return msgpack.AppendFloat(head(dst, Jitter), seconds)
}

// AppendMediaMap appends what is sent in which section, in the order of the mids.
func AppendMediaMap(dst []byte, media map[string]Media) []byte {
	dst = msgpack.AppendMap(head(dst, MediaMap), len(media))
	for _, mid := range slices.Sorted(maps.Keys(media)) {
		dst = msgpack.AppendString(dst, mid)
		m := media[mid]
		fields := 2
		if m.Unsupported != "" {
			fields = 3
		}
		dst = msgpack.AppendMap(dst, fields)
		dst = msgpack.AppendString(dst, "type")
		dst = msgpack.AppendString(dst, m.Type)
		dst = msgpack.AppendString(dst, "sender_id")
		dst = msgpack.AppendString(dst, m.SenderID)
		if m.Unsupported != "" {
			dst = msgpack.AppendString(dst, "unsupported")
			dst = msgpack.AppendString(dst, m.Unsupported)
		}
	}
	return dst
}
