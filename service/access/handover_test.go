package access_test

import (
	"encoding/json"
	"testing"
	"time"

	"rtcd/service/access"
	"rtcd/service/api/wire"
)

// succeeded returns a Service that knows what s knew, by way of another process.
func succeeded(t *testing.T, s *access.Service, cfg access.Config, ids *usedIDs) *access.Service {
	t.Helper()
	b, err := json.Marshal(s.Export())
	if err != nil {
		t.Fatal(err)
	}
	var st access.State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	next := newService(cfg, ids)
	next.Import(st)
	return next
}

// What was promised before a handover holds after it, and what was forbidden is.
func TestSuccessorKnowsAll(t *testing.T) {
	ids := &usedIDs{}
	s := newService(access.Config{}, ids)
	call := create(t, s, "a", access.CallOptions{MaxParticipants: 5, EndOnCreatorLeave: true})
	waiting := create(t, s, "a", access.CallOptions{})
	once := mint(t, s, "a", call, access.TokenRequest{UserID: "u1"})
	twice := mint(t, s, "a", call, access.TokenRequest{UserID: "u2", MaxUses: 2, Role: wire.RoleSubscriber})
	bad := mint(t, s, "a", call, access.TokenRequest{UserID: "u3"})
	admitted(t, s, "a", join(call, "u1", "s1", once.Token))
	admitted(t, s, "a", join(call, "u2", "s2", twice.Token))
	admitted(t, s, "a", join(call, "u3", "s3", bad.Token))
	s.Eject("a", call, "s3")
	admitted(t, s, "a", join("plain", "u9", "s9", ""))

	for range 2 { // the second time from what the first one knows
		s = succeeded(t, s, access.Config{}, ids)
		if n := len(s.List("a")); n != 2 {
			t.Fatalf("%d managed calls", n)
		}
		info, _ := s.Info("a", call)
		if info.Pending || info.Options.MaxParticipants != 5 {
			t.Errorf("call %+v", info)
		}
		if info, ok := s.Info("a", waiting); !ok || !info.Pending {
			t.Errorf("waiting call %+v %v", info, ok)
		}
		if g := admitted(t, s, "a", join(call, "u1", "s1", once.Token)); !g.Again {
			t.Error("a member is let in anew")
		}
		_, err := s.Admit("a", here, join(call, "u1", "s5", once.Token))
		refused(t, "a token used up", err, access.ErrTokenInvalid)
		_, err = s.Admit("a", here, join(call, "u3", "s3", bad.Token))
		refused(t, "who was ejected", err, access.ErrTokenInvalid)
		if g := admitted(t, s, "a", join("plain", "u9", "s9", "")); !g.Again {
			t.Error("a member of a plain call is let in anew")
		}
	}
	if g := admitted(t, s, "a", join(call, "u2", "s4", twice.Token)); g.Role != wire.RoleSubscriber || g.Again {
		t.Errorf("grant %+v", g)
	}
	_, err := s.Create(t.Context(), "a", access.CallOptions{CallID: call})
	refused(t, "the same id", err, access.ErrCallIDUsed)
	if s.Left("a", call, "s2") || !s.Left("a", call, "s1") {
		t.Error("the call does not end with its creator")
	}
	s.CallEnded("a", "plain")
}

// A managed call that nobody joins is over in time, whoever knows of it.
func TestSuccessorLetsUnusedCallsEnd(t *testing.T) {
	s := newService(access.Config{UnusedFor: time.Hour}, nil)
	call := create(t, s, "a", access.CallOptions{})
	s = succeeded(t, s, access.Config{UnusedFor: time.Nanosecond}, nil)
	if _, ok := s.Info("a", call); ok {
		t.Error("the call is there")
	}
}
