package wire_test

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"rtcd/service/api/wire"
)

func ptr[T any](v T) *T { return &v }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// golden holds every kind of message with its bytes. One of from and to is set. The names are
// those of the blocks in docs/protocol.md.
var golden = []struct {
	name, hex string
	from      *wire.Message       // of a backend
	to        *wire.ServerMessage // of the server
}{
	{
		name: "hello",
		hex:  "a568656c6c6f 82 a8636c69656e744944 a26331 a6636f6e6e4944 ba79626e6472666738656a6b6d637071786f7431757769737a6133",
		to:   &wire.ServerMessage{Type: wire.TypeHello, ClientID: "c1", ConnID: "ybndrfg8ejkmcpqxot1uwisza3"},
	},
	{
		name: "close",
		hex:  "a5636c6f7365 81 a973657373696f6e4944 a27331",
		to:   &wire.ServerMessage{Type: wire.TypeClose, SessionID: "s1"},
	},
	{
		name: "join",
		hex: "a46a6f696e 86 a663616c6c4944 a563616c6c31 a6757365724944 a27531 a973657373696f6e4944 a27331 " +
			"a96368616e6e656c4944 a3636831 aa617631537570706f7274 c3 ab64635369676e616c696e67 c2",
		from: &wire.Message{Type: wire.TypeJoin, Join: wire.Join{
			CallID: "call1", UserID: "u1", SessionID: "s1",
			ChannelID: ptr("ch1"), AV1Support: ptr(true), DCSignaling: ptr(false),
		}},
	},
	{
		name: "join-short",
		hex:  "a46a6f696e 83 a663616c6c4944 a563616c6c31 a6757365724944 a27531 a973657373696f6e4944 a27331",
		from: &wire.Message{Type: wire.TypeJoin, Join: wire.Join{CallID: "call1", UserID: "u1", SessionID: "s1"}},
	},
	{
		name: "leave",
		hex:  "a56c65617665 81 a973657373696f6e4944 a27331",
		from: &wire.Message{Type: wire.TypeLeave, SessionID: "s1"},
	},
	{
		name: "reconnect",
		hex:  "a97265636f6e6e656374 81 a973657373696f6e4944 a27331",
		from: &wire.Message{Type: wire.TypeReconnect, SessionID: "s1"},
	},
	{
		name: "rtc-ice",
		hex: "a3727463 86 a867726f75705f6964 a0 a7757365725f6964 a0 aa73657373696f6e5f6964 a27331 " +
			"a763616c6c5f6964 a0 a474797065 01 a464617461 c410 7b2263616e646964617465223a22227d",
		from: &wire.Message{Type: wire.TypeRTC, Signal: wire.Signal{
			SessionID: "s1", Type: wire.SignalICE, Data: []byte(`{"candidate":""}`),
		}},
	},
	{
		name: "rtc-mute",
		hex: "a3727463 85 a867726f75705f6964 a0 a7757365725f6964 a0 aa73657373696f6e5f6964 a27331 " +
			"a763616c6c5f6964 a0 a474797065 03",
		from: &wire.Message{Type: wire.TypeRTC, Signal: wire.Signal{SessionID: "s1", Type: wire.SignalMute}},
	},
	{
		name: "rtc-screen-on",
		hex: "a3727463 86 a867726f75705f6964 a0 a7757365725f6964 a0 aa73657373696f6e5f6964 a27331 " +
			"a763616c6c5f6964 a0 a474797065 05 a464617461 c416 7b2273637265656e53747265616d4944223a2278227d",
		from: &wire.Message{Type: wire.TypeRTC, Signal: wire.Signal{
			SessionID: "s1", Type: wire.SignalScreenOn, Data: []byte(`{"screenStreamID":"x"}`),
		}},
	},
	{
		name: "rtc-sdp",
		hex: "a3727463 86 a867726f75705f6964 a26331 a7757365725f6964 a27531 aa73657373696f6e5f6964 a27331 " +
			"a763616c6c5f6964 a563616c6c31 a474797065 02 a464617461 c41d 7b2274797065223a22616e73776572222c22736470223a22763d30227d",
		to: &wire.ServerMessage{Type: wire.TypeRTC, Signal: wire.Signal{
			GroupID: "c1", UserID: "u1", SessionID: "s1", CallID: "call1",
			Type: wire.SignalSDP, Data: []byte(`{"type":"answer","sdp":"v=0"}`),
		}},
	},
	{
		name: "vad",
		hex: "a3766164 85 a867726f75705f6964 a26331 a7757365725f6964 a27531 aa73657373696f6e5f6964 a27331 " +
			"a763616c6c5f6964 a563616c6c31 a474797065 07",
		to: &wire.ServerMessage{Type: wire.TypeVAD, Signal: wire.Signal{
			GroupID: "c1", UserID: "u1", SessionID: "s1", CallID: "call1", Type: wire.SignalVoiceOn,
		}},
	},
	{
		name: "join-token",
		hex: "a46a6f696e 85 a663616c6c4944 a563616c6c31 a6757365724944 a27531 a973657373696f6e4944 " +
			"a27331 a5746f6b656e a8727463646a745f78 a4726f6c65 aa73756273637269626572",
		from: &wire.Message{Type: wire.TypeJoin, Join: wire.Join{
			CallID: "call1", UserID: "u1", SessionID: "s1", Token: "rtcdjt_x", Role: wire.RoleSubscriber,
		}},
	},
	{
		name: "moderate-disconnect",
		hex: "a86d6f646572617465 83 a663616c6c4944 a563616c6c31 a6616374696f6e aa646973636f6e6e656374 " +
			"a973657373696f6e4944 a27331",
		from: &wire.Message{Type: wire.TypeModerate, Moderate: wire.Moderate{
			CallID: "call1", Action: wire.ActionDisconnect, SessionID: "s1",
		}},
	},
	{
		name: "moderate-unpublish",
		hex: "a86d6f646572617465 84 a663616c6c4944 a563616c6c31 a6616374696f6e a9756e7075626c697368 " +
			"a873747265616d4944 a3737431 a5756e74696c a863616c6c5f656e64",
		from: &wire.Message{Type: wire.TypeModerate, Moderate: wire.Moderate{
			CallID: "call1", Action: wire.ActionUnpublish, StreamID: "st1", Until: wire.UntilCallEnd,
		}},
	},
	{
		name: "moderate-mute-all",
		hex: "a86d6f646572617465 83 a663616c6c4944 a563616c6c31 a6616374696f6e a86d7574655f616c6c " +
			"a6657863657074 92 a27331 a27332",
		from: &wire.Message{Type: wire.TypeModerate, Moderate: wire.Moderate{
			CallID: "call1", Action: wire.ActionMuteAll, Except: []string{"s1", "s2"},
		}},
	},
	{
		name: "moderate-mute-state",
		hex: "a86d6f646572617465 83 a663616c6c4944 a563616c6c31 a6616374696f6e aa6d7574655f7374617465 " +
			"a6616374697665 c3",
		from: &wire.Message{Type: wire.TypeModerate, Moderate: wire.Moderate{
			CallID: "call1", Action: wire.ActionMuteState, Active: true,
		}},
	},
	{
		name: "error",
		hex: "a56572726f72 83 a973657373696f6e4944 a27331 a6726561736f6e ad746f6b656e5f696e76616c6964 " +
			"a663616c6c4944 a563616c6c31",
		to: &wire.ServerMessage{Type: wire.TypeError, Error: wire.Error{SessionID: "s1", CallID: "call1", Reason: "token_invalid"}},
	},
	{
		name: "stats",
		hex: "a57374617473 84 a663616c6c4944 a563616c6c31 ac7061727469636970616e7473 03 " +
			"aa7075626c697368657273 02 ab7375627363726962657273 01",
		to: &wire.ServerMessage{Type: wire.TypeStats, Stats: wire.Stats{CallID: "call1", Participants: 3, Publishers: 2, Subscribers: 1}},
	},
}

func encode(t testing.TB, m wire.Message) []byte {
	t.Helper()
	switch m.Type {
	case wire.TypeJoin:
		return wire.AppendJoin(nil, m.Join)
	case wire.TypeLeave:
		return wire.AppendLeave(nil, m.SessionID)
	case wire.TypeReconnect:
		return wire.AppendReconnect(nil, m.SessionID)
	case wire.TypeRTC:
		return wire.AppendRTC(nil, m.Signal)
	case wire.TypeModerate:
		return wire.AppendModerate(nil, m.Moderate)
	}
	t.Fatalf("type %q is not a backend's", m.Type)
	return nil
}

func encodeServer(t testing.TB, m wire.ServerMessage) []byte {
	t.Helper()
	switch m.Type {
	case wire.TypeHello:
		return wire.AppendHello(nil, m.ClientID, m.ConnID)
	case wire.TypeClose:
		return wire.AppendClose(nil, m.SessionID)
	case wire.TypeRTC:
		return wire.AppendRTC(nil, m.Signal)
	case wire.TypeVAD:
		return wire.AppendVAD(nil, m.Signal)
	case wire.TypeError:
		return wire.AppendError(nil, m.Error)
	case wire.TypeStats:
		return wire.AppendStats(nil, m.Stats)
	}
	t.Fatalf("type %q is not the server's", m.Type)
	return nil
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			b := unhex(t, g.hex)
			var got, want any
			var err error
			var again []byte
			if g.from != nil {
				want = *g.from
				got, err = wire.Decode(b)
				again = encode(t, *g.from)
			} else {
				want = *g.to
				got, err = wire.DecodeServer(b)
				again = encodeServer(t, *g.to)
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("decoded %+v, %v; want %+v", got, err, want)
			}
			if hex.EncodeToString(again) != hex.EncodeToString(b) {
				t.Errorf("encoded %x, want %x", again, b)
			}
			for n := range b { // cut off anywhere it is an error
				if g.from != nil {
					_, err = wire.Decode(b[:n])
				} else {
					_, err = wire.DecodeServer(b[:n])
				}
				if err == nil {
					t.Errorf("the first %d bytes alone are no error", n)
				}
			}
		})
	}
}

// A side never takes a message that only it sends.
func TestDirections(t *testing.T) {
	for _, g := range golden {
		b := unhex(t, g.hex)
		if g.from != nil && g.from.Type != wire.TypeRTC {
			if m, err := wire.DecodeServer(b); err == nil {
				t.Errorf("%s from the server: got %+v", g.name, m)
			}
		}
		if g.to != nil && g.to.Type != wire.TypeRTC {
			if m, err := wire.Decode(b); err == nil {
				t.Errorf("%s from a backend: got %+v", g.name, m)
			}
		}
	}
}

func TestDecodedDoesNotAliasInput(t *testing.T) {
	for _, g := range golden {
		b := unhex(t, g.hex)
		var got, want any
		if g.from != nil {
			want = *g.from
			got, _ = wire.Decode(b)
		} else {
			want = *g.to
			got, _ = wire.DecodeServer(b)
		}
		for i := range b {
			b[i] = 0xc1
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s changed with its input to %+v", g.name, got)
		}
	}
}
