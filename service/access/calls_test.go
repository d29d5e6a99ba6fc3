package access_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/access"
	"rtcd/service/api/wire"
)

// TestCallIDs shows TK-02: the ids of 100,000 calls are unique and of 128 bits.
func TestCallIDs(t *testing.T) {
	const n = 100_000
	s := newService(access.Config{ManagedCallsPerClient: n}, nil)
	seen := make(map[string]bool, n)
	for range n {
		id := create(t, s, "a", access.CallOptions{})
		if len(id) != 26 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	_, err := s.Create(t.Context(), "a", access.CallOptions{})
	refused(t, "one call more", err, access.ErrTooMany)
	if len(s.List("a")) != n {
		t.Errorf("%d calls listed", len(s.List("a")))
	}
}

// TestCallOptions shows TK-02: options that make no sense are refused, those that are not supported
// as such, and a number of participants never exceeds the server's.
func TestCallOptions(t *testing.T) {
	s := newService(access.Config{MaxParticipants: 100}, nil)
	for _, c := range []struct {
		o    access.CallOptions
		want error
	}{
		{access.CallOptions{}, nil},
		{access.CallOptions{MediaMode: "routed", ArchiveMode: "none", MaxParticipants: math.MaxInt32}, nil},
		{access.CallOptions{MediaMode: "relayed"}, access.ErrNotSupported},
		{access.CallOptions{E2EE: true}, access.ErrNotSupported},
		{access.CallOptions{ArchiveMode: "always"}, access.ErrNotSupported},
		{access.CallOptions{ArchiveMode: "always", MediaMode: "relayed"}, access.ErrNotSupported},
		{access.CallOptions{ArchiveMode: "always", E2EE: true}, access.ErrNotSupported},
		{access.CallOptions{ArchiveMode: "manual"}, access.ErrNotSupported},
		{access.CallOptions{MediaMode: "Routed"}, access.ErrBadRequest},
		{access.CallOptions{ArchiveMode: "sometimes"}, access.ErrBadRequest},
		{access.CallOptions{MaxParticipants: -1}, access.ErrBadRequest},
		{access.CallOptions{MaxParticipants: 1 << 31}, access.ErrBadRequest},
		{access.CallOptions{CallID: "a\n"}, access.ErrBadRequest},
	} {
		_, err := s.Create(t.Context(), "a", c.o)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", c.o, err, c.want)
		}
		var refusal *access.Error
		if errors.As(err, &refusal) && errors.Is(c.want, access.ErrNotSupported) && refusal.Status() != http.StatusConflict {
			t.Errorf("%+v: status %d", c.o, refusal.Status())
		}
	}
	for asked, want := range map[int]int{0: 100, 5: 5, 100: 100, 101: 100, math.MaxInt32: 100} {
		call := create(t, s, "a", access.CallOptions{MaxParticipants: asked})
		if g := admitted(t, s, "a", join(call, "u", "s", "")); g.MaxParticipants != want {
			t.Errorf("asked for %d participants: got %d, want %d", asked, g.MaxParticipants, want)
		}
	}
	if g := admitted(t, s, "a", join("of its own", "u", "s", "")); g.MaxParticipants != 100 || g.Managed || g.Linger != 0 {
		t.Errorf("got %+v", g)
	}
}

// TestEndedCallStaysEnded shows OT-13: after its end a managed call is not there for anybody, its
// tokens are dead, its id does not come back, not after a restart either.
func TestEndedCallStaysEnded(t *testing.T) {
	ids := &usedIDs{}
	s := newService(access.Config{}, ids)
	call := create(t, s, "a", access.CallOptions{})
	token := mint(t, s, "a", call, access.TokenRequest{UserID: "u", MaxUses: 10}).Token
	admitted(t, s, "a", join(call, "u", "s1", token))
	s.Left("a", call, "s1")
	admitted(t, s, "a", join(call, "u", "s2", token)) // it lingers
	s.Left("a", call, "s2")
	s.CallEnded("a", call)

	gone := func(s *access.Service) {
		t.Helper()
		_, err := s.Admit("a", here, join(call, "u", "s3", token))
		refused(t, "with its token", err, access.ErrCallEnded)
		_, err = s.Admit("a", here, join(call, "u", "s3", "rtcdjt_wrong"))
		refused(t, "with a wrong token", err, access.ErrCallEnded)
		_, err = s.Admit("a", here, join(call, "u", "s3", ""))
		refused(t, "without token", err, access.ErrCallEnded)
		if _, ok := s.Info("a", call); ok || len(s.List("a")) > 0 {
			t.Error("it is listed")
		}
		_, err = s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: 1})
		refused(t, "mint", err, access.ErrNotFound)
		_, err = s.Create(t.Context(), "a", access.CallOptions{CallID: call})
		refused(t, "create again", err, access.ErrCallIDUsed)
		var refusal *access.Error
		if !errors.As(err, &refusal) || refusal.Status() != http.StatusConflict {
			t.Errorf("create again: %v", err)
		}
		if s.End("a", call) {
			t.Error("it ended twice")
		}
	}
	gone(s)
	gone(newService(access.Config{}, ids)) // a restart

	// For others it is an id like any.
	admitted(t, s, "b", join(call, "u", "s", ""))
	if until := ids.until["a/"+call]; time.Until(until) < 30*24*time.Hour {
		t.Errorf("the id is noted until %v", until)
	}
}

// TestTokenDiesWithTheCall shows TK-04, C5: a token does not open the next call of the same id.
func TestTokenDiesWithTheCall(t *testing.T) {
	for name, end := range map[string]func(s *access.Service){
		"last one left": func(s *access.Service) { s.Left("a", "daily", "s1"); s.CallEnded("a", "daily") },
		"told first":    func(s *access.Service) { s.CallEnded("a", "daily"); s.Left("a", "daily", "s1") },
		"ended":         func(s *access.Service) { s.End("a", "daily"); s.Left("a", "daily", "s1"); s.CallEnded("a", "daily") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(access.Config{}, nil)
			_, err := s.Mint("a", "daily", access.TokenRequest{UserID: "u", TTL: 60})
			refused(t, "before the call", err, access.ErrNotFound)
			admitted(t, s, "a", join("daily", "u", "s1", ""))
			token := mint(t, s, "a", "daily", access.TokenRequest{UserID: "u"}).Token
			end(s)
			_, err = s.Admit("a", here, join("daily", "u", "s2", token))
			refused(t, "after the call", err, access.ErrTokenInvalid)
			admitted(t, s, "a", join("daily", "v", "s3", ""))
			_, err = s.Admit("a", here, join("daily", "u", "s2", token))
			refused(t, "in the next call", err, access.ErrTokenInvalid)
		})
	}
}

// TestJoinAtTheEnd shows that a call goes on if somebody was admitted before its end was told, and
// ends with the last of them.
func TestJoinAtTheEnd(t *testing.T) {
	s := newService(access.Config{}, nil)
	call := create(t, s, "a", access.CallOptions{})
	token := mint(t, s, "a", call, access.TokenRequest{UserID: "u", MaxUses: 3}).Token
	admitted(t, s, "a", join(call, "u", "s1", token))
	s.Left("a", call, "s1")
	admitted(t, s, "a", join(call, "u", "s2", token))
	s.CallEnded("a", call)
	if _, ok := s.Info("a", call); !ok {
		t.Fatal("it ended under a session")
	}
	s.Left("a", call, "s2")
	_, err := s.Admit("a", here, join(call, "u", "s3", token))
	refused(t, "after the end", err, access.ErrCallEnded)

	// The same with a join that came to nothing.
	call = create(t, s, "a", access.CallOptions{})
	admitted(t, s, "a", join(call, "u", "s1", ""))
	s.Left("a", call, "s1")
	g := admitted(t, s, "a", join(call, "u", "s2", ""))
	s.CallEnded("a", call)
	s.Undo(g)
	if _, ok := s.Info("a", call); ok {
		t.Error("a join that came to nothing keeps a call")
	}
}

// TestUnusedCallEnds shows OT-13: a call that nobody joined is over after a day.
func TestUnusedCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(access.Config{}, nil)
		unused, failed, used := create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{})
		admitted(t, s, "a", join(used, "u", "s", ""))
		s.Undo(admitted(t, s, "a", join(failed, "u", "s", "")))
		time.Sleep(24*time.Hour - 1)
		if list := s.List("a"); len(list) != 3 {
			t.Errorf("listed: %+v", list)
		}
		if m, ok := s.Info("a", failed); !ok || !m.Pending {
			t.Errorf("got %+v, %v", m, ok)
		}
		time.Sleep(time.Nanosecond)
		if list := s.List("a"); len(list) != 1 || list[0].CallID != used || list[0].Pending {
			t.Errorf("listed: %+v", list)
		}
		for _, call := range []string{unused, failed} {
			_, err := s.Admit("a", here, join(call, "u", "s1", ""))
			refused(t, "join", err, access.ErrCallEnded)
			_, err = s.Mint("a", call, access.TokenRequest{UserID: "u", TTL: 1})
			refused(t, "mint", err, access.ErrNotFound)
		}
	})
}

// TestManagedOnly shows TK-02: where only calls made in advance are taken, no other is.
func TestManagedOnly(t *testing.T) {
	s := newService(access.Config{ManagedOnly: true}, nil)
	call := create(t, s, "a", access.CallOptions{})
	for _, c := range [][2]string{{"a", "of its own"}, {"b", call}} {
		_, err := s.Admit(c[0], here, join(c[1], "u", "s", ""))
		if !reflect.DeepEqual(err, error(access.ErrManagedOnly)) {
			t.Errorf("%v: %v", c, err)
		}
	}
	admitted(t, s, "a", join(call, "u", "s", ""))
}

// TestDefaultsAskForNothing shows that without a setting everything goes on as without this package:
// any call, any role, no token.
func TestDefaultsAskForNothing(t *testing.T) {
	s := access.New(access.Config{}, nil)
	for i, role := range []wire.CallRole{"", "publisher", "subscriber", "publisheronly", "moderator"} {
		j := join("call", "u", fmt.Sprint(i), "")
		j.Role = role
		g := admitted(t, s, "a", j)
		if want := map[wire.CallRole]wire.CallRole{"publisher": ""}; g.MaxParticipants != 0 || g.Role != role && g.Role != want[role] {
			t.Errorf("%q: got %+v", role, g)
		}
	}
	j := join("call", "u", "s", "")
	j.Role = "king"
	_, err := s.Admit("a", here, j)
	refused(t, "role", err, access.ErrRoleUnknown)
	for range 3 {
		admitted(t, s, "a", join("call", "u", "again", ""))
	}
}

// TestEjected shows TK-21, C17: who was disconnected by a moderator does not come back into that
// call: not with that session, not as that user, and not with the token; others, and other calls, are
// not concerned.
func TestEjected(t *testing.T) {
	s := newService(access.Config{WrongTokensPerMinute: 100}, nil)
	call, other := create(t, s, "a", access.CallOptions{}), create(t, s, "a", access.CallOptions{})
	token := mint(t, s, "a", call, access.TokenRequest{UserID: "u", MaxUses: 5}).Token
	spare := mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token
	friend := mint(t, s, "a", call, access.TokenRequest{UserID: "v"}).Token
	g := admitted(t, s, "a", join(call, "u", "s1", token))
	for _, c := range [][3]string{{"a", call, "missing"}, {"a", other, "s1"}, {"b", call, "s1"}, {"a", "missing", "s1"}} {
		if s.Eject(c[0], c[1], c[2]) {
			t.Errorf("ejected %v", c)
		}
	}
	if !s.Eject("a", call, "s1") {
		t.Fatal("not ejected")
	}
	s.Left("a", call, "s1")
	s.Undo(g) // late, and of no effect
	for _, dead := range []string{token, spare} {
		_, err := s.Admit("a", here, join(call, "u", "s2", dead))
		refused(t, "with the token", err, access.ErrTokenInvalid)
	}
	_, err := s.Admit("a", here, join(call, "u", "s3", mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token))
	refused(t, "with a new token", err, access.ErrEjected)
	_, err = s.Admit("a", here, join(call, "u", "s4", ""))
	refused(t, "without token", err, access.ErrEjected)
	_, err = s.Admit("a", here, join(call, "w", "s1", ""))
	refused(t, "as somebody else", err, access.ErrEjected)
	admitted(t, s, "a", join(call, "v", "s5", friend))
	admitted(t, s, "a", join(other, "u", "s1", ""))
}

// TestNoLingerNoLimit shows OT-13 where nothing lingers, and that there may be no limit of managed calls.
func TestNoLingerNoLimit(t *testing.T) {
	s := newService(access.Config{Linger: -1, ManagedCallsPerClient: -1}, nil)
	for range 2001 {
		create(t, s, "a", access.CallOptions{})
	}
	call := create(t, s, "a", access.CallOptions{})
	if g := admitted(t, s, "a", join(call, "u", "s", "")); !g.Managed || g.Linger != 0 {
		t.Errorf("granted %+v", g)
	}
}

// TestEjectedBeforeItIsOut shows TK-21: a session that is disconnected but not out yet does not join
// again meanwhile, with or without token; and one that is in is told apart from one that is new.
func TestEjectedBeforeItIsOut(t *testing.T) {
	s := newService(access.Config{}, nil)
	for _, token := range []bool{false, true} {
		call, text := create(t, s, "a", access.CallOptions{}), ""
		if token {
			text = mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token
		}
		if admitted(t, s, "a", join(call, "u", "s", text)).Again {
			t.Error("again, the first time")
		}
		if !admitted(t, s, "a", join(call, "u", "s", text)).Again {
			t.Error("not again, the second time")
		}
		s.Eject("a", call, "s")
		if _, err := s.Admit("a", here, join(call, "u", "s", text)); err == nil {
			t.Errorf("joined again before it was out; with a token: %v", token)
		}
	}
}

// TestDrop shows TK-04 for clients whose key changes, or who are gone: no token of theirs is good any
// more, and of who is gone there is nothing left.
func TestDrop(t *testing.T) {
	s := newService(access.Config{}, nil)
	call := create(t, s, "a", access.CallOptions{})
	token := func() string { return mint(t, s, "a", call, access.TokenRequest{UserID: "u"}).Token }
	old := token()
	theirs := mint(t, s, "b", create(t, s, "b", access.CallOptions{}), access.TokenRequest{UserID: "u"})
	s.DropTokens("a")
	_, err := s.Admit("a", here, join(call, "u", "s", old))
	refused(t, "a token from before", err, access.ErrTokenInvalid)
	old = token()
	admitted(t, s, "a", join(call, "u", "s", token()))
	s.DropGroup("a")
	_, err = s.Admit("a", here, join(call, "u", "s2", old))
	refused(t, "a token of who was unregistered", err, access.ErrCallEnded)
	if len(s.List("a")) > 0 || s.Left("a", call, "s") {
		t.Error("something is left")
	}
	admitted(t, s, "b", join(s.List("b")[0].CallID, "u", "s", theirs.Token))
	s.DropGroup("nobody")
}

// TestDropWhileCreating shows that a call which is being made for a client that goes is not left over.
func TestDropWhileCreating(t *testing.T) {
	ids := &usedIDs{}
	s := newService(access.Config{}, ids)
	ids.using = func() { s.DropGroup("a") }
	_, err := s.Create(t.Context(), "a", access.CallOptions{})
	if err == nil || len(s.List("a")) > 0 {
		t.Errorf("got %v, %+v", err, s.List("a"))
	}
}

// TestCreateFails shows that a call whose id could not be noted is not made, and takes no room.
func TestCreateFails(t *testing.T) {
	ids := &usedIDs{err: errors.New("disk")}
	s := newService(access.Config{ManagedCallsPerClient: 1}, ids)
	for range 3 {
		if _, err := s.Create(t.Context(), "a", access.CallOptions{}); !errors.Is(err, ids.err) {
			t.Fatalf("got %v", err)
		}
	}
	admitted(t, s, "a", join("call", "u", "s", "")) // today's joins do not suffer
	ids.err = nil
	create(t, s, "a", access.CallOptions{})
	_, err := s.Create(t.Context(), "a", access.CallOptions{CallID: "call"})
	refused(t, "the id of a call that is going on", err, access.ErrCallIDUsed)
	_, err = s.Create(t.Context(), "a", access.CallOptions{})
	refused(t, "a second call", err, access.ErrTooMany)
}

// TestCreatorLeaves shows TK-02: a call ends, if that was asked for, when no session is left of the
// user who came first.
func TestCreatorLeaves(t *testing.T) {
	s := newService(access.Config{}, nil)
	call := create(t, s, "a", access.CallOptions{EndOnCreatorLeave: true})
	s.Undo(admitted(t, s, "a", join(call, "nobody", "s0", ""))) // never was in it
	for _, c := range []struct {
		user, session string
		creator       bool
	}{{"host", "s1", true}, {"guest", "s2", false}, {"host", "s3", true}} {
		if g := admitted(t, s, "a", join(call, c.user, c.session, "")); g.EndOnCreatorLeave != c.creator {
			t.Errorf("%s: got %+v", c.session, g)
		}
	}
	for session, ends := range map[string]bool{"s2": false, "s1": false} {
		if s.Left("a", call, session) != ends {
			t.Errorf("%s left", session)
		}
	}
	admitted(t, s, "a", join(call, "guest", "s4", ""))
	if !s.Left("a", call, "s3") {
		t.Error("the creator left and the call goes on")
	}
}

// TestNothingIsLeft shows that of joins, calls and tokens that are over nothing is kept.
func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(access.Config{WrongTokensPerMinute: 10_000}, nil)
		for i := range 500 {
			group, call := fmt.Sprint("g", i%7), fmt.Sprint("c", i)
			g := admitted(t, s, group, join(call, "u", "s", ""))
			if i%3 == 0 {
				s.Undo(g)
				continue
			}
			mint(t, s, group, call, access.TokenRequest{UserID: "u"})
			s.Left(group, call, "s")
			s.CallEnded(group, call)
			_, err := s.Admit(group, here, join("missing", "u", "s", "wrong"))
			refused(t, "wrong", err, access.ErrTokenInvalid)
		}
		if size := s.Size(); size[1] != 0 || size[2] != 0 || size[3] != 0 || size[0] > 7 {
			t.Errorf("left: %v", size)
		}
		time.Sleep(2 * time.Minute)
		for i := range 7 {
			s.Undo(admitted(t, s, fmt.Sprint("g", i), join("c", "u", "s", "")))
		}
		for range 300 {
			call := create(t, s, "a", access.CallOptions{})
			mint(t, s, "a", call, access.TokenRequest{UserID: "u"})
		}
		time.Sleep(24 * time.Hour)
		for range 4 {
			s.Undo(admitted(t, s, "a", join("c", "u", "s", "")))
		}
		if size := s.Size(); size != [4]int{} {
			t.Errorf("left: %v", size)
		}
	})
}
