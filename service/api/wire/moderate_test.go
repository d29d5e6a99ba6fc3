package wire_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/msgpack"
)

// pairs returns a message of typ with a map of the pairs: keys and encoded values by turns.
func pairs(typ string, kv ...any) []byte {
	b := msgpack.AppendMap(msgpack.AppendString(nil, typ), len(kv)/2)
	for i, v := range kv {
		switch v := v.(type) {
		case string:
			b = msgpack.AppendString(b, v)
		case bool:
			b = msgpack.AppendBool(b, v)
		case int:
			b = msgpack.AppendInt(b, int64(v))
		case []string:
			b = msgpack.AppendArray(b, len(v))
			for _, s := range v {
				b = msgpack.AppendString(b, s)
			}
		case nil:
			b = append(b, 0xc0)
		default:
			panic(i)
		}
	}
	return b
}

// TestModerateSchema shows WX-22 for moderate: types, lengths, characters and numbers of all
// fields are checked before anything is used, and unknown fields are ignored.
func TestModerateSchema(t *testing.T) {
	sixtyFour := make([]string, 64)
	for name, c := range map[string]struct {
		kv   []any
		want wire.Moderate
	}{
		"empty":        {nil, wire.Moderate{}},
		"unknown keys": {[]any{"callID", "c", "x", 1, "y", []string{"a"}}, wire.Moderate{CallID: "c"}},
		"all": {[]any{"callID", "c", "action", "mute_all", "sessionID", "s", "streamID", "st", "except", []string{"a"}, "active", true, "until", "call_end"},
			wire.Moderate{CallID: "c", Action: wire.ActionMuteAll, SessionID: "s", StreamID: "st", Except: []string{"a"}, Active: true, Until: wire.UntilCallEnd}},
		"64 exceptions":  {[]any{"except", sixtyFour}, wire.Moderate{Except: sixtyFour}},
		"unknown action": {[]any{"action", "explode"}, wire.Moderate{Action: "explode"}},
	} {
		m, err := wire.Decode(pairs("moderate", c.kv...))
		if err != nil || m.Type != wire.TypeModerate || !reflect.DeepEqual(m.Moderate, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, m, err, c.want)
		}
	}
	long := strings.Repeat("x", wire.MaxID+1)
	for name, kv := range map[string][]any{
		"call is a number":     {"callID", 1},
		"call is nil":          {"callID", nil},
		"call is long":         {"callID", long},
		"call has a NUL":       {"callID", "a\x00"},
		"action is a bool":     {"action", true},
		"session not UTF-8":    {"sessionID", "\xff"},
		"stream is a number":   {"streamID", 3},
		"except is a string":   {"except", "s1"},
		"an exception is long": {"except", []string{long}},
		"65 exceptions":        {"except", make([]string, 65)},
		"active is a string":   {"active", "true"},
		"active is a number":   {"active", 1},
		"until is nil":         {"until", nil},
	} {
		if m, err := wire.Decode(pairs("moderate", kv...)); err == nil || m.Type != "" {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
	for _, bad := range []string{"c0", "90", "00", "a0"} {
		if _, err := wire.Decode(unhex(t, "a86d6f646572617465 "+bad)); err == nil {
			t.Errorf("data %s: no error", bad)
		}
	}
}

func TestModerateCheck(t *testing.T) {
	for _, c := range []struct {
		m    wire.Moderate
		want error
	}{
		{wire.Moderate{CallID: "c", Action: wire.ActionDisconnect, SessionID: "s"}, nil},
		{wire.Moderate{CallID: "c", Action: wire.ActionMute, SessionID: "s"}, nil},
		{wire.Moderate{CallID: "c", Action: wire.ActionUnpublish, StreamID: "s", Until: wire.UntilCallEnd}, nil},
		{wire.Moderate{CallID: "c", Action: wire.ActionMuteAll}, nil},
		{wire.Moderate{CallID: "c", Action: wire.ActionMuteState}, nil},
		{wire.Moderate{Action: wire.ActionMuteAll}, wire.ErrTarget},
		{wire.Moderate{CallID: "c", Action: wire.ActionDisconnect}, wire.ErrTarget},
		{wire.Moderate{CallID: "c", Action: wire.ActionDisconnect, StreamID: "s"}, wire.ErrTarget},
		{wire.Moderate{CallID: "c", Action: wire.ActionMute}, wire.ErrTarget},
		{wire.Moderate{CallID: "c", Action: wire.ActionUnpublish, SessionID: "s"}, wire.ErrTarget},
		{wire.Moderate{CallID: "c", Action: wire.ActionMuteAll, Until: "tomorrow"}, wire.ErrDuration},
		{wire.Moderate{CallID: "c", SessionID: "s"}, wire.ErrAction},
		{wire.Moderate{CallID: "c", Action: "Disconnect", SessionID: "s"}, wire.ErrAction},
		{wire.Moderate{CallID: "c", Action: "unmute", SessionID: "s"}, wire.ErrAction},
	} {
		if err := c.m.Check(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%+v: got %v, want %v", c.m, err, c.want)
		}
	}
}

// TestTokenAndRoleAreStrings shows WX-22 for what a join may have beyond the established keys: of a
// wrong type, they do not count as not set, which would open more than was meant.
func TestTokenAndRoleAreStrings(t *testing.T) {
	for name, kv := range map[string][]any{
		"token is a number": {"token", 1},
		"token is nil":      {"token", nil},
		"token is long":     {"token", strings.Repeat("x", 1025)},
		"role is nil":       {"role", nil},
		"role is a bool":    {"role", false},
		"role is a list":    {"role", []string{"subscriber"}},
		"role is long":      {"role", strings.Repeat("x", wire.MaxID+1)},
		"role has a NUL":    {"role", "subscriber\x00"},
	} {
		b := pairs("join", append([]any{"callID", "c", "userID", "u", "sessionID", "s"}, kv...)...)
		if m, err := wire.Decode(b); err == nil || m.Type != "" {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
	m, err := wire.Decode(pairs("join", "token", "", "role", "king"))
	if err != nil || m.Join.Token != "" || m.Join.Role != "king" || m.Join.Role.Valid() {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, r := range []wire.CallRole{"", "publisher", "subscriber", "publisheronly", "moderator"} {
		if !r.Valid() {
			t.Errorf("role %q is not valid", r)
		}
	}
}

func TestStatsCounts(t *testing.T) {
	for n, ok := range map[int]bool{0: true, 1<<31 - 1: true, -1: false, 1 << 31: false} {
		if m, err := wire.DecodeServer(pairs("stats", "participants", n)); (err == nil) != ok || ok && m.Stats.Participants != n {
			t.Errorf("%d participants: got %+v, %v", n, m, err)
		}
	}
	if _, err := wire.DecodeServer(unhex(t, "a57374617473 c0")); err == nil {
		t.Error("stats of nil: no error")
	}
}

// TestType shows that the type is known before anything of the data is read (WX-16), at no cost.
func TestType(t *testing.T) {
	for in, want := range map[string]string{
		"a46a6f696e": "join", "c4046a6f696e ddffffffff": "join", "a86d6f646572617465 c1": "moderate", "a3766164": "vad",
		"": "", "01": "", "c1": "", "a4": "", "a56a6f696e00 80": "", "a56a6f696e78 80": "", "a44a4f494e": "", "a2fffe": "", "dbffffffff": "",
	} {
		if got := wire.Type(unhex(t, in)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
	if got := wire.Type(append(unhex(t, "a46a6f696e"), make([]byte, wire.MaxMessage)...)); got != "" {
		t.Errorf("of a message that is too large: %q", got)
	}
	join := wire.AppendJoin(nil, wire.Join{CallID: "c", UserID: "u", SessionID: "s"})
	if n := testing.AllocsPerRun(100, func() { wire.Type(join) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
