package rtc

import "rtcd/service/api/wire"

// Kind tells events apart.
type Kind uint8

// The kinds of events.
const (
	Signal Kind = iota // signalling for the end user: Type is SDP or ICE, Data its JSON
	Voice              // Type is voice on or voice off
	Closed             // the session has ended, for Reason; its last event
)

// Event is something that a session has to say to its backend.
type Event struct {
	Kind      Kind
	GroupID   string
	CallID    string
	UserID    string
	SessionID string
	Type      wire.SignalType
	Data      []byte
	Reason    CloseReason
}

// CloseReason says why a session has ended.
type CloseReason string

// The reasons.
const (
	CloseLeft       CloseReason = "left"                // its backend said so
	ClosePeer       CloseReason = "closed by endpoint"  // DTLS close
	CloseICE        CloseReason = "connection failed"   // no packets for 30 s, or never any
	CloseNoOffer    CloseReason = "no offer"            // none within 10 s of the join
	CloseBadOffer   CloseReason = "offer not usable"    // the first offer does not apply
	CloseSetup      CloseReason = "set-up timed out"    // no open data channel in time
	CloseOverrun    CloseReason = "too many messages"   // more than the session can take
	CloseStalled    CloseReason = "endpoint stalled"    // does not read its data channel
	CloseAddress    CloseReason = "no usable address"   // the host override cannot be looked up
	CloseInternal   CloseReason = "internal error"      // a fault of ours, counted and logged
	CloseRemoved    CloseReason = "removed"             // by a moderator
	CloseCallEnded  CloseReason = "call ended"          // for all that were in it
	CloseUnregister CloseReason = "client unregistered" // its backend is no client any more
	CloseOrphaned   CloseReason = "backend gone"        // its backend has not been connected for long
	CloseShutdown   CloseReason = "server stopped"
)
