package wire_test

import (
	"bytes"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/msgpack"
)

// s1 is the pair "sessionID": "s1".
const s1 = "a973657373696f6e4944 a27331"

func TestTypeIsStrOrBin(t *testing.T) {
	for _, typ := range []string{
		"a56c65617665", "d9056c65617665", "da00056c65617665", "db000000056c65617665",
		"c4056c65617665", "c500056c65617665", "c6000000056c65617665",
	} {
		m, err := wire.Decode(unhex(t, typ+" 81 "+s1))
		if err != nil || m.Type != wire.TypeLeave || m.SessionID != "s1" {
			t.Errorf("%s: got %+v, %v", typ, m, err)
		}
	}
}

func TestBytesAfterTheMessageAreIgnored(t *testing.T) {
	for _, tail := range []string{"00", "c1", "ddffffffff", "9191919191919191"} {
		if m, err := wire.Decode(unhex(t, "a56c65617665 81 "+s1+tail)); err != nil || m.SessionID != "s1" {
			t.Errorf("tail %s: got %+v, %v", tail, m, err)
		}
	}
}

func TestLeaveTakesStringsOnly(t *testing.T) {
	const leave = "a56c65617665 "
	for _, ok := range []string{
		"81 " + s1, "de0001 " + s1, "df00000001 " + s1,
		"82 a161 a162 " + s1, "82 a973657373696f6e4944 a27832 " + s1, // of two, the last
	} {
		if m, err := wire.Decode(unhex(t, leave+ok)); err != nil || m.SessionID != "s1" {
			t.Errorf("%s: got %+v, %v", ok, m, err)
		}
	}
	for _, bad := range []string{
		"80", "c0", "90", "00", "a0", "c1", // no map, or an empty one
		"81 c0 a27331", "81 01 a27331", "81 90 a27331", "81 80 a27331", // keys
		"81 a973657373696f6e4944 c0", "81 a973657373696f6e4944 01", "81 a973657373696f6e4944 c3",
		"81 a973657373696f6e4944 90", "81 a973657373696f6e4944 80",
		"82 " + s1 + " a161 01", "82 " + s1 + " a161 c0", "82 " + s1,
	} {
		if m, err := wire.Decode(unhex(t, leave+bad)); err == nil || m.Type != "" {
			t.Errorf("%s: got %+v, %v", bad, m, err)
		}
	}
	if m, err := wire.Decode(unhex(t, leave+"81 a161 a162")); err != nil || m.SessionID != "" {
		t.Errorf("without session: got %+v, %v", m, err)
	}
}

func TestJoinProps(t *testing.T) {
	const call, user = "a663616c6c4944", "a6757365724944"
	const channel, av1, dc = "a96368616e6e656c4944", "aa617631537570706f7274", "ab64635369676e616c696e67"
	for in, want := range map[string]wire.Join{
		"80":                                               {},
		"81 " + s1:                                         {SessionID: "s1"},
		"82 " + call + " 01 " + s1:                         {SessionID: "s1"},
		"82 " + call + " c0 " + s1:                         {SessionID: "s1"},
		"82 " + call + " c40161 " + s1:                     {SessionID: "s1"},
		"82 " + user + " 9101 " + s1:                       {SessionID: "s1"},
		"82 " + user + " 81a16101 " + s1:                   {SessionID: "s1"},
		"82 " + channel + " 01 " + s1:                      {SessionID: "s1"},
		"82 " + channel + " c0 " + s1:                      {SessionID: "s1"},
		"82 " + channel + " a0 " + s1:                      {SessionID: "s1", ChannelID: ptr("")},
		"82 " + av1 + " a474727565 " + s1:                  {SessionID: "s1"},
		"82 " + av1 + " c0 " + s1:                          {SessionID: "s1"},
		"82 " + dc + " 01 " + s1:                           {SessionID: "s1"},
		"82 " + dc + " c3 " + s1:                           {SessionID: "s1", DCSignaling: ptr(true)},
		"82 a767726f75704944 a5656e656d79 " + s1:           {SessionID: "s1"}, // groupID is not the backend's to say
		"83 a178 81a179 81a17a 90 a177 d60000000000 " + s1: {SessionID: "s1"},
	} {
		m, err := wire.Decode(unhex(t, "a46a6f696e "+in))
		if err != nil || m.Type != wire.TypeJoin || !reflect.DeepEqual(m.Join, want) {
			t.Errorf("%s: got %+v, %v; want %+v", in, m, err, want)
		}
	}
	for _, bad := range []string{
		"c0", "90", "a0", "81 01 01", "81 c0 c0", "81 80 00", "81 c40161 00", "82 " + s1,
		"81 a178 91919191c0", // a map and four arrays are five
		"81 " + channel + " a1ff",
	} {
		if m, err := wire.Decode(unhex(t, "a46a6f696e "+bad)); err == nil || m.Type != "" {
			t.Errorf("%s: got %+v, %v", bad, m, err)
		}
	}
}

func TestSignalFields(t *testing.T) {
	const session, typ, data = "aa73657373696f6e5f6964", "a474797065", "a464617461"
	for in, want := range map[string]wire.Signal{
		"c0":                                {},
		"80":                                {},
		"81 " + session + " a27331":         {SessionID: "s1"},
		"81 " + session + " c0":             {},
		"81 " + typ + " cc02":               {Type: wire.SignalSDP},
		"81 " + typ + " d30000000000000002": {Type: wire.SignalSDP},
		"81 " + typ + " ff":                 {Type: -1},
		"81 " + data + " c0":                {},
		"81 " + data + " c400":              {},
		"81 " + data + " c40161":            {Data: []byte("a")},
		"81 " + data + " a161":              {Data: []byte("a")},
		"82 a178 81a17991c0 " + typ + " 03": {Type: wire.SignalMute},
		"82 " + typ + " 03 " + typ + " 04":  {Type: wire.SignalUnmute},
		// Of two, the last, also if it is nil.
		"82 " + session + " a27331 " + session + " c0": {},
		"82 " + session + " c0 " + session + " a27331": {SessionID: "s1"},
		"82 " + typ + " 03 " + typ + " c0":             {},
		"82 " + data + " c40161 " + data + " c0":       {},
	} {
		m, err := wire.Decode(unhex(t, "a3727463 "+in))
		if err != nil || m.Type != wire.TypeRTC || !reflect.DeepEqual(m.Signal, want) {
			t.Errorf("%s: got %+v, %v; want %+v", in, m, err, want)
		}
	}
	for _, bad := range []string{
		"90", "00", "81 " + session + " 01", "81 " + session + " c40161", "81 " + typ + " a0",
		"81 " + typ + " cb3ff0000000000000", "81 " + data + " 01", "81 " + data + " 90", "81 c0 c0", "82 " + typ + " 03",
	} {
		if m, err := wire.Decode(unhex(t, "a3727463 "+bad)); err == nil || m.Type != "" {
			t.Errorf("%s: got %+v, %v", bad, m, err)
		}
	}
}

// R1, R2: of a type that is not ours nothing comes out, whatever its bytes.
func TestUnknownTypes(t *testing.T) {
	for _, typ := range []string{"a0", "a1ff", "a4fffefdfc", "a3666f6f", "c402ffff", "a44a4f494e", "a56a6f696e00"} {
		m, err := wire.Decode(unhex(t, typ+" 80"))
		if !errors.Is(err, wire.ErrUnknownType) || !reflect.DeepEqual(m, wire.Message{}) {
			t.Errorf("%s: got %+v, %v", typ, m, err)
		}
		if text := err.Error(); strings.Contains(text, "\xff") || strings.Contains(text, "\xfe") {
			t.Errorf("%s: the error shows it: %q", typ, err)
		}
		if _, err := wire.Decode(unhex(t, typ)); err == nil || errors.Is(err, wire.ErrUnknownType) {
			t.Errorf("%s without data: got %v", typ, err)
		}
		if _, err := wire.Decode(unhex(t, typ+" ddffffffff")); err == nil || errors.Is(err, wire.ErrUnknownType) {
			t.Errorf("%s with bad data: got %v", typ, err)
		}
	}
	for _, typ := range []string{"", "01", "c0", "90", "80", "c1", "c3", "cb0000000000000000", "d40000"} {
		if _, err := wire.Decode(unhex(t, typ+" 80")); err == nil || errors.Is(err, wire.ErrUnknownType) {
			t.Errorf("type %s: got %v", typ, err)
		}
	}
}

func TestIDs(t *testing.T) {
	for id, ok := range map[string]bool{
		"": true, "a:b/c d": true, "übung": true, strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false, strings.Repeat("x", 1025): false,
		"\xff": false, "a\x00": false, "a\n": false, "\x7f": false, "\u0085": false, "\xed\xa0\x80": false,
	} {
		if err := wire.CheckID(id); (err == nil) != ok {
			t.Errorf("CheckID(%q): %v", id, err)
		}
		for name, b := range map[string][]byte{
			"join":      wire.AppendJoin(nil, wire.Join{CallID: id, UserID: "u", SessionID: "s"}),
			"leave":     wire.AppendLeave(nil, id),
			"reconnect": wire.AppendReconnect(nil, id),
			"rtc":       wire.AppendRTC(nil, wire.Signal{SessionID: id}),
			"rtc user":  wire.AppendRTC(nil, wire.Signal{UserID: id}),
		} {
			if _, err := wire.Decode(b); (err == nil) != ok {
				t.Errorf("%s with %q: %v", name, id, err)
			}
		}
		for name, b := range map[string][]byte{
			"hello": wire.AppendHello(nil, "c", id),
			"close": wire.AppendClose(nil, id),
			"vad":   wire.AppendVAD(nil, wire.Signal{SessionID: id}),
		} {
			if _, err := wire.DecodeServer(b); (err == nil) != ok {
				t.Errorf("%s with %q: %v", name, id, err)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	rtc := func(size int) []byte {
		return wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: wire.SignalSDP, Data: make([]byte, size)})
	}
	room := wire.MaxMessage - (len(rtc(1<<19)) - 1<<19)
	if m, err := wire.Decode(rtc(room)); err != nil || len(m.Signal.Data) != room {
		t.Errorf("a message of exactly the limit: %v", err)
	}
	if _, err := wire.Decode(rtc(room + 1)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a message one byte over the limit: %v", err)
	}
	entries := func(n int) []byte {
		b := msgpack.AppendMap(msgpack.AppendString(nil, "join"), n)
		for range n {
			b = msgpack.AppendInt(msgpack.AppendString(b, "k"), 0)
		}
		return b
	}
	if _, err := wire.Decode(entries(64)); err != nil {
		t.Errorf("64 entries: %v", err)
	}
	if _, err := wire.Decode(entries(65)); !errors.Is(err, msgpack.ErrLimit) {
		t.Errorf("65 entries: %v", err)
	}
	for n, ok := range map[int]bool{1 << 10: true, 1<<10 + 1: false} {
		text := strings.Repeat("x", n)
		b := msgpack.AppendMap(msgpack.AppendString(nil, "leave"), 1)
		if _, err := wire.Decode(msgpack.AppendString(msgpack.AppendString(b, text), "v")); (err == nil) != ok {
			t.Errorf("key of %d bytes: %v", n, err)
		}
		if _, err := wire.Decode(wire.AppendJoin(nil, wire.Join{ChannelID: &text})); (err == nil) != ok {
			t.Errorf("channelID of %d bytes: %v", n, err)
		}
	}
	for in, ok := range map[string]bool{"91919190": true, "9191919190": false, "81c081c081c080": true, "81c081c081c081c080": false} {
		if _, err := wire.Decode(unhex(t, "a3666f6f"+in)); errors.Is(err, wire.ErrUnknownType) != ok {
			t.Errorf("unknown type with %s: %v", in, err)
		}
	}
}

// hostile are messages that promise more than they hold, or nest without end.
func hostile(t testing.TB) map[string][]byte {
	in := map[string][]byte{
		"R3":              unhex(t, "a56c65617665 81 ddffffffff"),
		"R3 as value":     unhex(t, "a56c65617665 81 a161 ddffffffff"),
		"nested, bare":    bytes.Repeat([]byte{0x91}, 1<<20),
		"long type":       msgpack.AppendString(nil, strings.Repeat("x", 1<<20-5)),
		"long type, data": append(msgpack.AppendString(nil, strings.Repeat("\xff", 1<<20-6)), 0xc0),
	}
	for _, typ := range []string{"a46a6f696e", "a56c65617665", "a97265636f6e6e656374", "a3727463", "a3666f6f", "a568656c6c6f", "a3766164",
		"a86d6f646572617465", "a56572726f72", "a57374617473"} {
		for _, data := range []string{
			"ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff00", "dcffff", "deffff",
			"81ddffffffff", "81dfffffffff", "81dbffffffff", "81c6ffffffff", "81c9ffffffff00",
			"81a161ddffffffff", "81a161dfffffffff", "81a161dbffffffff", "81a161c6ffffffff", "81a161c9ffffffff00",
			"81a464617461c6ffffffff", "81a464617461dbffffffff", "81a6757365724944dbffffffff", "81a6657863657074ddffffffff", "81a5746f6b656edbffffffff", "81a7757365725f6964dbffffffff",
		} {
			in[typ+" "+data] = unhex(t, typ+data)
		}
		in[typ+" nested"] = append(unhex(t, typ+"81a161"), bytes.Repeat([]byte{0x91}, 1<<20-64)...)
		in[typ+" maps"] = append(unhex(t, typ), bytes.Repeat([]byte{0x81, 0xa1, 'k'}, 1<<18)...)
		in[typ+" long key"] = append(unhex(t, typ+"81"), msgpack.AppendString(nil, strings.Repeat("k", 1<<20-64))...)
		in[typ+" flat"] = append(unhex(t, typ+"dd000fff00"), make([]byte, 1<<20-64)...)
	}
	return in
}

func TestHostile(t *testing.T) {
	for name, b := range hostile(t) {
		for side, decode := range map[string]func([]byte) error{
			"Decode":       func(b []byte) error { _, err := wire.Decode(b); return err },
			"DecodeServer": func(b []byte) error { _, err := wire.DecodeServer(b); return err },
		} {
			var err error
			n := allocated(func() { err = decode(b) })
			if err == nil {
				t.Errorf("%s, %s: no error", side, name)
			}
			if limit := uint64(64<<10 + 16*len(b)); n > limit {
				t.Errorf("%s, %s: %d bytes allocated for %d, at most %d", side, name, n, len(b), limit)
			}
		}
	}
}

// allocated returns how many bytes f allocates. Nothing else may run meanwhile.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A largest message costs what it holds.
func TestAllocationOfTheLargest(t *testing.T) {
	b := wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: wire.SignalSDP, Data: make([]byte, 1<<20-128)})
	var err error
	n := allocated(func() { _, err = wire.Decode(b) })
	if err != nil || n > uint64(64<<10+2*len(b)) {
		t.Errorf("%d bytes allocated, %v", n, err)
	}
}
