package ws

import (
	"crypto/rand"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
)

// A Kind is the type of a message to a client.
type Kind uint8

// The kinds of messages a session sends.
const (
	RTC   Kind = iota // signalling for the end user
	VAD               // voice activity
	Close             // the session has ended; it is the last message of a session
	kindHello
	kindError // why something was not done; of no session's order
	kindStats // counts of a call; the same
	numKinds
)

// kindTypes are the types of messages on the wire.
var kindTypes = [numKinds]string{
	wire.TypeRTC, wire.TypeVAD, wire.TypeClose, wire.TypeHello, wire.TypeError, wire.TypeStats,
}

// established reports whether connections get the kind that have not asked for more.
func (k Kind) established() bool { return k <= kindHello }

func (k Kind) metric() metrics.Message {
	switch k {
	case RTC:
		return metrics.RTCMessage
	case VAD:
		return metrics.VADMessage
	case Close:
		return metrics.CloseMessage
	case kindError:
		return metrics.ErrorMessage
	case kindStats:
		return metrics.StatsMessage
	}
	return metrics.HelloMessage
}

// Outbound is a message of a session to its client. Signal is not used for a close.
type Outbound struct {
	Kind   Kind
	Signal wire.Signal
}

// newConnID returns 26 random characters of the z-base-32 alphabet: 130 bits.
func newConnID() string {
	const alphabet = "ybndrfg8ejkmcpqxot1uwisza345h769"
	var id [26]byte
	_, _ = rand.Read(id[:]) // never fails
	for i := range id {
		id[i] = alphabet[id[i]%32]
	}
	return string(id[:])
}

// encode returns the message as it stands on the wire.
func (m Outbound) encode(sessionID string) []byte {
	switch m.Kind {
	case RTC:
		return wire.AppendRTC(nil, m.Signal)
	case VAD:
		return wire.AppendVAD(nil, m.Signal)
	}
	return wire.AppendClose(nil, sessionID)
}
