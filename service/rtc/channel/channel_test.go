package channel_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"rtcd/service/msgpack"
	"rtcd/service/rtc/channel"
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

const answer = `{"type":"answer","sdp":"v=0\r\n"}`

// golden holds every kind of message with its bytes. The names are those of the blocks in
// docs/protocol.md.
var golden = []struct {
	name, hex string
	message   channel.Message
}{
	{"ping", "cc01", channel.Message{Type: channel.Ping}},
	{"pong", "cc02", channel.Message{Type: channel.Pong}},
	{
		"sdp", "cc03 c42d 789caa562aa92c4855b2524acc2b2e4f2d52d2512a4e2950b2522ab33588298ac953aa05040000ffffb9f10abd",
		channel.Message{Type: channel.SDP, SDP: []byte(answer)},
	},
	{"loss", "cc04 cb3fd0000000000000", channel.Message{Type: channel.Loss, Value: 0.25}},
	{"rtt", "cc05 cb3fa70a3d70a3d70a", channel.Message{Type: channel.RTT, Value: 0.045}},
	{"jitter", "cc06 cb3f60624dd2f1a9fc", channel.Message{Type: channel.Jitter, Value: 0.002}},
	{"lock", "cc07", channel.Message{Type: channel.Lock}},
	{"lock-granted", "cc07 c3", channel.Message{Type: channel.Lock, Granted: ptr(true)}},
	{"lock-refused", "cc07 c2", channel.Message{Type: channel.Lock, Granted: ptr(false)}},
	{"unlock", "cc08", channel.Message{Type: channel.Unlock}},
	{
		"media-map", "cc09 81 a131 82 a474797065 a5766f696365 a973656e6465725f6964 a27332",
		channel.Message{Type: channel.MediaMap, Media: map[string]channel.Media{"1": {Type: "voice", SenderID: "s2"}}},
	},
	{
		"media-map-unsupported", "cc09 81 b273637265656e5f73325f6162636465666768 83 a474797065 a673637265656e a973656e6465725f6964 a27332 ab756e737570706f72746564 aa766964656f2f48323634",
		channel.Message{Type: channel.MediaMap, Media: map[string]channel.Media{
			"screen_s2_abcdefgh": {Type: "screen", SenderID: "s2", Unsupported: "video/H264"},
		}},
	},
	{"media-map-empty", "cc09 80", channel.Message{Type: channel.MediaMap, Media: map[string]channel.Media{}}},
}

func encode(t testing.TB, m channel.Message) []byte {
	t.Helper()
	switch m.Type {
	case channel.Ping:
		return channel.AppendPing(nil)
	case channel.Pong:
		return channel.AppendPong(nil)
	case channel.SDP:
		b, err := channel.AppendSDP(nil, m.SDP)
		if err != nil {
			t.Fatal(err)
		}
		return b
	case channel.Loss:
		return channel.AppendLoss(nil, m.Value)
	case channel.RTT:
		return channel.AppendRTT(nil, m.Value)
	case channel.Jitter:
		return channel.AppendJitter(nil, m.Value)
	case channel.Lock:
		if m.Granted != nil {
			return channel.AppendLockReply(nil, *m.Granted)
		}
		return channel.AppendLockRequest(nil)
	case channel.Unlock:
		return channel.AppendUnlock(nil)
	case channel.MediaMap:
		return channel.AppendMediaMap(nil, m.Media)
	}
	t.Fatalf("type %d", m.Type)
	return nil
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		b := unhex(t, g.hex)
		got, err := channel.Decode(b)
		if err != nil || !reflect.DeepEqual(got, g.message) {
			t.Errorf("%s: decoded %+v, %v; want %+v", g.name, got, err, g.message)
		}
		if again := encode(t, g.message); !bytes.Equal(again, b) {
			t.Errorf("%s: encoded %x, want %x", g.name, again, b)
		}
		for i := range b {
			b[i] = 0xc1
		}
		if !reflect.DeepEqual(got, g.message) {
			t.Errorf("%s changed with its input to %+v", g.name, got)
		}
	}
}

// The number comes in whatever form an encoder chooses, and what follows is ignored.
func TestTypeInEveryForm(t *testing.T) {
	for _, form := range []string{
		"01", "cc01", "cd0001", "ce00000001", "cf0000000000000001", "d001", "d10001", "d200000001", "d30000000000000001",
	} {
		for _, tail := range []string{"", "c0", "c1", "ddffffffff"} {
			if m, err := channel.Decode(unhex(t, form+tail)); err != nil || m.Type != channel.Ping {
				t.Errorf("%s %s: got %+v, %v", form, tail, m, err)
			}
		}
	}
	for in, want := range map[string]error{
		"00": channel.ErrUnknownType, "0a": channel.ErrUnknownType, "ff": channel.ErrUnknownType,
		"cd0101": channel.ErrUnknownType, "cf0000000100000001": channel.ErrUnknownType,
		"cfffffffffffffffff": msgpack.ErrLimit, "": msgpack.ErrShort, "cc": msgpack.ErrShort,
		"c0": msgpack.ErrType, "a131": msgpack.ErrType, "cb3ff0000000000000": msgpack.ErrType, "9101": msgpack.ErrType,
		hex.EncodeToString([]byte(channel.LegacyPing)): channel.ErrUnknownType,
	} {
		if m, err := channel.Decode(unhex(t, in)); !errors.Is(err, want) || !reflect.DeepEqual(m, channel.Message{}) {
			t.Errorf("%s: got %+v, %v; want %v", in, m, err, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]float64{
		"00": 0, "01": 1, "ff": -1, "c0": 0, "cc80": 128, "d3ffffffffffffffff": -1, "ca3e800000": 0.25, "cb3fd0000000000000": 0.25,
	} {
		for _, typ := range []string{"04", "05", "06", "cc04"} {
			if m, err := channel.Decode(unhex(t, typ+in)); err != nil || m.Value != want {
				t.Errorf("%s %s: got %v, %v", typ, in, m.Value, err)
			}
		}
	}
	for _, in := range []string{"", "a130", "c2", "90", "80", "c400", "cb3fd0", "c1"} {
		if _, err := channel.Decode(unhex(t, "04"+in)); err == nil {
			t.Errorf("04 %s is no error", in)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := channel.Decode(channel.AppendRTT(nil, v)); !errors.Is(err, channel.ErrValue) {
			t.Errorf("%v: got %v", v, err)
		}
	}
}

func TestPayloadOfALockIsIgnored(t *testing.T) {
	for _, in := range []string{"07", "0700", "07a0", "07c0", "07ddffffffff", "cc0781"} {
		if m, err := channel.Decode(unhex(t, in)); err != nil || m.Type != channel.Lock || m.Granted != nil {
			t.Errorf("%s: got %+v, %v", in, m, err)
		}
	}
}

func packed(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sdpMessage(z []byte) []byte { return msgpack.AppendBytes([]byte{3}, z) }

func TestSDP(t *testing.T) {
	for level := -2; level <= 9; level++ {
		z := packed(t, level, []byte(answer))
		for _, b := range [][]byte{sdpMessage(z), msgpack.AppendString([]byte{3}, string(z)), sdpMessage(append(z, 0xff))} {
			if m, err := channel.Decode(b); err != nil || string(m.SDP) != answer {
				t.Errorf("level %d: got %q, %v", level, m.SDP, err)
			}
		}
	}
	z := packed(t, 6, []byte(answer))
	flipped := bytes.Clone(z)
	flipped[len(flipped)-1] ^= 1 // of the checksum
	var preset bytes.Buffer
	w, _ := zlib.NewWriterLevelDict(&preset, 6, []byte("v=0"))
	_, _ = w.Write([]byte(answer))
	_ = w.Close()
	for name, b := range map[string][]byte{
		"no payload": {3}, "nil": {3, 0xc0}, "a number": {3, 1}, "a map": {3, 0x80}, "empty": {3, 0xc4, 0},
		"long": unhex(t, "03c6ffffffff"), "not zlib": sdpMessage([]byte(answer)), "gzip": sdpMessage(unhex(t, "1f8b0800000000000003")),
		"bad checksum": sdpMessage(flipped), "cut off": sdpMessage(z[:len(z)-5]), "without checksum": sdpMessage(z[:len(z)-4]),
		"dictionary": sdpMessage(preset.Bytes()),
	} {
		if m, err := channel.Decode(b); err == nil || m.SDP != nil {
			t.Errorf("%s: got %q, %v", name, m.SDP, err)
		}
		// The next message does not notice.
		if m, err := channel.Decode(sdpMessage(z)); err != nil || string(m.SDP) != answer {
			t.Errorf("after %s: got %q, %v", name, m.SDP, err)
		}
	}
}

// R6: what is unpacked is bounded, and what is beyond costs nothing, also while no reader is kept.
func TestSDPIsBounded(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "at the limit": channel.MaxSDP, "one over": channel.MaxSDP + 1, "bomb": 60 << 20} {
		b := sdpMessage(packed(t, 9, make([]byte, size)))
		if len(b) > channel.MaxMessage {
			t.Fatalf("%s is a message of %d bytes", name, len(b))
		}
		var wantErr error
		limit := uint64(64<<10 + 16*len(b))
		if size > channel.MaxSDP {
			wantErr = channel.ErrTooLarge
		} else {
			limit += uint64(size)
		}
		for range 2 {
			runtime.GC() // twice, to empty the pools
		}
		for range 3 {
			var m channel.Message
			var err error
			n := allocated(func() { m, err = channel.Decode(b) })
			if !errors.Is(err, wantErr) || err == nil && len(m.SDP) != size {
				t.Errorf("%s: %d bytes, %v; want %v", name, len(m.SDP), err, wantErr)
			}
			if n > limit {
				t.Errorf("%s: %d bytes allocated for %d, at most %d", name, n, len(b), limit)
			}
		}
	}
	if _, err := channel.AppendSDP(nil, make([]byte, channel.MaxSDP+1)); !errors.Is(err, channel.ErrTooLarge) {
		t.Errorf("AppendSDP of more: %v", err)
	}
}

func TestMessageSize(t *testing.T) {
	b := append([]byte{1}, make([]byte, channel.MaxMessage-1)...)
	if _, err := channel.Decode(b); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	if _, err := channel.Decode(append(b, 0)); !errors.Is(err, channel.ErrTooLarge) {
		t.Errorf("more than 64 KiB: %v", err)
	}
}

func TestMediaMap(t *testing.T) {
	media := map[string]channel.Media{
		"10": {Type: "screen", SenderID: "s3"}, "2": {Type: "screen-audio", SenderID: "s3"}, "1": {Type: "voice", SenderID: "ü"},
	}
	b := channel.AppendMediaMap(nil, media)
	for range 20 { // of one order
		if again := channel.AppendMediaMap(nil, media); !bytes.Equal(again, b) {
			t.Fatalf("got %x and %x", b, again)
		}
	}
	if m, err := channel.Decode(b); err != nil || !reflect.DeepEqual(m.Media, media) {
		t.Errorf("got %+v, %v", m.Media, err)
	}
	m, err := channel.Decode(unhex(t, "09 81 a131 83 a178 91 c0 a474797065 a5766f696365 a973656e6465725f6964 a27332"))
	if want := golden[10].message.Media; err != nil || !reflect.DeepEqual(m.Media, want) {
		t.Errorf("with an unknown key: got %+v, %v", m.Media, err)
	}
	for _, in := range []string{
		"09", "09c0", "0990", "0901", "09a0", "0981", "0981a131", "0981a131c0", "0981a13190", "09810180", "0981c080",
		"0981a131 81 a474797065 01", "0981a131 81 a474797065 c0", "0981a131 81 01 01", "0981a131 81 a474797065 a1ff", "0981a1ff80",
		"09dfffffffff", "09ddffffffff", "0981a131dfffffffff", "0981dbffffffff", "0981a13181a474797065dbffffffff",
		"0981a13181a178c9ffffffff00", "0981a13181a178 919191c0",
	} {
		var m channel.Message
		var err error
		n := allocated(func() { m, err = channel.Decode(unhex(t, in)) })
		if err == nil || m.Media != nil {
			t.Errorf("%s: got %+v, %v", in, m, err)
		}
		if n > 64<<10 {
			t.Errorf("%s: %d bytes allocated", in, n)
		}
	}
	many := make(map[string]channel.Media)
	for i := range 1025 {
		many[strings.Repeat("x", i%40)+string(rune('a'+i/40))] = channel.Media{}
	}
	if len(many) != 1025 {
		t.Fatal(len(many))
	}
	if _, err := channel.Decode(channel.AppendMediaMap(nil, many)); !errors.Is(err, msgpack.ErrLimit) {
		t.Errorf("1025 sections: %v", err)
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
