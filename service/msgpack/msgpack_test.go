package msgpack_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"rtcd/service/msgpack"
)

func reader(t *testing.T, s string) *msgpack.Reader {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return msgpack.NewReader(b, msgpack.Limits{})
}

func TestIntTakesEveryForm(t *testing.T) {
	for in, want := range map[string]int64{
		"00": 0, "7f": 127, "ff": -1, "e0": -32,
		"cc80": 128, "cd0100": 256, "ce00010000": 1 << 16, "cf0000000100000000": 1 << 32,
		"d080": -128, "d1ff00": -256, "d2ffff0000": -1 << 16, "d3ffffffff00000000": -1 << 32,
		"cf7fffffffffffffff": math.MaxInt64,
	} {
		r := reader(t, in)
		if got, err := r.Int(); err != nil || got != want || r.Len() != 0 {
			t.Errorf("%s: got %d, %v, %d bytes left; want %d", in, got, err, r.Len(), want)
		}
	}
	for in, want := range map[string]error{
		"":                   msgpack.ErrShort,
		"cd01":               msgpack.ErrShort,
		"cf8000000000000000": msgpack.ErrLimit,
		"cb0000000000000000": msgpack.ErrType,
		"c0":                 msgpack.ErrType,
		"a131":               msgpack.ErrType,
		"c1":                 msgpack.ErrType,
	} {
		if _, err := reader(t, in).Int(); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", in, err, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]float64{
		"00": 0, "01": 1, "ff": -1, "c0": 0, "ccff": 255, "d3ffffffffffffffff": -1,
		"cfffffffffffffffff": 1 << 64, "cb3fd0000000000000": 0.25, "ca3e800000": 0.25,
	} {
		if got, err := reader(t, in).Number(); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"c2", "a0", "90", "80", "c1", "d40000"} {
		if _, err := reader(t, in).Number(); !errors.Is(err, msgpack.ErrType) {
			t.Errorf("%s: got %v, want %v", in, err, msgpack.ErrType)
		}
	}
}

func TestTexts(t *testing.T) {
	for _, in := range []string{"a161", "d90161", "da000161", "db0000000161"} {
		if got, err := reader(t, in).String(1); err != nil || got != "a" {
			t.Errorf("String of %s: got %q, %v", in, got, err)
		}
		if got, err := reader(t, in).Bytes(); err != nil || string(got) != "a" {
			t.Errorf("Bytes of %s: got %q, %v", in, got, err)
		}
		if _, err := reader(t, in).String(0); !errors.Is(err, msgpack.ErrLimit) {
			t.Errorf("String of %s with limit 0: got %v", in, err)
		}
	}
	for _, in := range []string{"c40161", "c5000161", "c60000000161"} {
		if got, err := reader(t, in).Bytes(); err != nil || string(got) != "a" {
			t.Errorf("Bytes of %s: got %q, %v", in, got, err)
		}
		if _, err := reader(t, in).String(1); !errors.Is(err, msgpack.ErrType) {
			t.Errorf("String of the bin %s: got %v", in, err)
		}
	}
	for _, in := range []string{"a2 61", "d9ff 61", "dbffffffff 61", "c6ffffffff 61", "c4", "da00"} {
		if _, err := reader(t, in).Bytes(); !errors.Is(err, msgpack.ErrShort) {
			t.Errorf("Bytes of %s: got %v, want %v", in, err, msgpack.ErrShort)
		}
	}
}

// An error about the type leaves the value where it is, to be skipped.
func TestWrongTypeCanBeSkipped(t *testing.T) {
	r := reader(t, "c403010203 01")
	if _, err := r.String(8); !errors.Is(err, msgpack.ErrType) {
		t.Fatalf("String: %v", err)
	}
	if _, err := r.Bool(); !errors.Is(err, msgpack.ErrType) {
		t.Fatalf("Bool: %v", err)
	}
	if err := r.Skip(0); err != nil {
		t.Fatalf("Skip: %v", err)
	}
	if n, err := r.Int(); n != 1 || err != nil {
		t.Fatalf("Int: %d, %v", n, err)
	}
}

func TestSkip(t *testing.T) {
	for _, in := range []string{
		"00", "ff", "c0", "c2", "c3", "a161", "d90161", "c40161", "ca00000000", "cb0000000000000000",
		"90", "9101", "dc000101", "dd0000000101", "80", "810102", "de00010102", "df000000010102",
		"d400ff", "d600ffffffff", "c70100ff", "c8000100ff", "c90000000100ff",
		"8181019201c0c3", "91919190", "81 c0 81 c0 81 c0 80",
	} {
		r := reader(t, in)
		if err := r.Skip(0); err != nil || r.Len() != 0 {
			t.Errorf("%s: %v, %d bytes left", in, err, r.Len())
		}
		if n := len(in); n > 2 {
			short := reader(t, strings.ReplaceAll(in, " ", "")[:len(strings.ReplaceAll(in, " ", ""))-2])
			if err := short.Skip(0); err == nil {
				t.Errorf("%s without its last byte is no error", in)
			}
		}
	}
}

func TestSkipIsBounded(t *testing.T) {
	for in, want := range map[string]error{
		"9191919190":     msgpack.ErrLimit, // five deep
		"91919191919100": msgpack.ErrLimit,
		"ddffffffff":     msgpack.ErrShort,
		"dfffffffff":     msgpack.ErrShort,
		"dbffffffff":     msgpack.ErrShort,
		"c6ffffffff":     msgpack.ErrShort,
		"c9ffffffff00":   msgpack.ErrShort,
		"dcffff00":       msgpack.ErrShort,
		"c1":             msgpack.ErrType,
		"":               msgpack.ErrShort,
	} {
		if err := reader(t, in).Skip(0); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", in, err, want)
		}
	}
	for depth, ok := range []bool{true, true, true, true, false} {
		if err := reader(t, "90").Skip(depth); (err == nil) != ok {
			t.Errorf("an array within %d: got %v", depth, err)
		}
	}
	for n, ok := range map[int]bool{64: true, 65: false} {
		r := msgpack.NewReader(append([]byte{0xdc, 0, byte(n)}, make([]byte, n)...), msgpack.Limits{})
		if err := r.Skip(0); (err == nil) != ok {
			t.Errorf("array of %d: got %v", n, err)
		}
		r = msgpack.NewReader(append([]byte{0xde, 0, byte(n)}, make([]byte, 2*n)...), msgpack.Limits{})
		if _, err := r.Map(); (err == nil) != ok {
			t.Errorf("map of %d: got %v", n, err)
		}
	}
	deep := msgpack.NewReader(bytes.Repeat([]byte{0x91}, 1<<20), msgpack.Limits{})
	if err := deep.Skip(0); !errors.Is(err, msgpack.ErrLimit) {
		t.Errorf("a million arrays within each other: got %v", err)
	}
	long := msgpack.NewReader(msgpack.AppendString(nil, "12345"), msgpack.Limits{String: 4})
	if err := long.Skip(0); !errors.Is(err, msgpack.ErrLimit) {
		t.Errorf("long str: got %v", err)
	}
}

func TestNil(t *testing.T) {
	r := reader(t, "c0 00")
	if !r.IsNil() || r.Nil() != nil {
		t.Fatal("nil is not nil")
	}
	if r.IsNil() || !errors.Is(r.Nil(), msgpack.ErrType) {
		t.Fatal("0 is nil")
	}
	if reader(t, "").IsNil() {
		t.Fatal("nothing is nil")
	}
}

func TestAppend(t *testing.T) {
	b := msgpack.AppendMap(nil, 1)
	b = msgpack.AppendString(b, "k")
	b = msgpack.AppendBytes(b, []byte{1})
	b = msgpack.AppendBool(b, true)
	b = msgpack.AppendInt(b, 5)
	b = msgpack.AppendUint8(b, 5)
	b = msgpack.AppendFloat(b, 0.25)
	if got, want := hex.EncodeToString(b), "81a16bc40101c305cc05cb3fd0000000000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever the bytes: no panic, and what is read never exceeds what is there.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"81a16bc40101", "91919190", "ddffffffff", "c70100ff", "cb3fd0000000000000"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func(*msgpack.Reader) error{
			func(r *msgpack.Reader) error { return r.Skip(0) },
			func(r *msgpack.Reader) error { _, err := r.Int(); return err },
			func(r *msgpack.Reader) error { _, err := r.Number(); return err },
			func(r *msgpack.Reader) error { _, err := r.Bool(); return err },
			func(r *msgpack.Reader) error { _, err := r.Bytes(); return err },
			func(r *msgpack.Reader) error { _, err := r.String(16); return err },
			func(r *msgpack.Reader) error { _, err := r.Map(); return err },
			(*msgpack.Reader).Nil,
		} {
			r := msgpack.NewReader(b, msgpack.Limits{})
			if read(r) == nil && r.Len() >= len(b) {
				t.Fatal("a value of no bytes")
			}
			if r.Len() > len(b) {
				t.Fatal("more left than there was")
			}
		}
	})
}
