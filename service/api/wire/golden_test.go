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
