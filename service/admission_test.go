package service

import (
	"errors"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/audit"
)

// TestNothingUnrecorded shows CR-14: with on_failure = "block", nobody joins or moderates over a WebSocket
// while events cannot be written.
func TestNothingUnrecorded(t *testing.T) {
	// There is nothing behind it: what went on would panic.
	a := admission{recordable: func() error { return audit.ErrUnavailable }}
	for what, err := range map[string]error{
		"join":     a.Join(ws.Peer{ClientID: "c1"}, wire.Join{CallID: "call", UserID: "u", SessionID: "s"}),
		"moderate": a.Moderate(ws.Peer{ClientID: "c1"}, wire.Moderate{CallID: "call", Action: wire.ActionMuteAll}),
	} {
		var named interface{ Reason() string }
		if !errors.As(err, &named) || named.Reason() != "audit_unavailable" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
