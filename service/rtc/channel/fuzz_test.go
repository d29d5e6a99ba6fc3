package channel_test

import (
	"bytes"
	"compress/zlib"
	"io"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"rtcd/service/rtc/channel"
)

// FuzzDCMessage compares what we accept with what another decoder makes of it, and what we make
// of it again.
func FuzzDCMessage(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Add(unhex(f, "04cfffffffffffffffff"))
	f.Add(unhex(f, "03c6ffffffff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := channel.Decode(b)
		if err != nil {
			if !reflect.DeepEqual(m, channel.Message{}) {
				t.Fatalf("an error with %+v", m)
			}
			return
		}
		if want := reference(t, b, m); !reflect.DeepEqual(m, want) {
			t.Fatalf("got %+v, the reference %+v", m, want)
		}
		out := encode(t, m)
		if again, err := channel.Decode(out); len(out) <= channel.MaxMessage && (err != nil || !reflect.DeepEqual(again, m)) {
			t.Fatalf("got %+v, then %+v, %v", m, again, err)
		}
	})
}

// reference decodes, with vmihailenco/msgpack, what we accepted as m.
func reference(t *testing.T, b []byte, m channel.Message) channel.Message {
	t.Helper()
	d := msgpack.NewDecoder(bytes.NewReader(b))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("the reference refuses: %v", err)
		}
	}
	n, err := d.DecodeInt()
	must(err)
	want := channel.Message{Type: channel.Type(n)}
	switch want.Type {
	case channel.SDP:
		p, err := d.DecodeBytes()
		must(err)
		z, err := zlib.NewReader(bytes.NewReader(p))
		must(err)
		want.SDP, err = io.ReadAll(z)
		must(err)
	case channel.Loss, channel.RTT, channel.Jitter:
		want.Value, err = d.DecodeFloat64()
		must(err)
		if m.Value >= 1<<63 {
			want.Value = m.Value // the reference wraps it around
		}
	case channel.Lock:
		want.Granted = m.Granted
		if m.Granted != nil {
			v, err := d.DecodeBool()
			must(err)
			want.Granted = &v
		}
	case channel.MediaMap:
		sections, err := d.DecodeMapLen()
		must(err)
		want.Media = make(map[string]channel.Media)
		for range sections {
			mid, err := d.DecodeString()
			must(err)
			fields, err := d.DecodeMapLen()
			must(err)
			var media channel.Media
			for range fields {
				key, err := d.DecodeString()
				must(err)
				switch key {
				case "type":
					media.Type, err = d.DecodeString()
				case "sender_id":
					media.SenderID, err = d.DecodeString()
				case "unsupported":
					media.Unsupported, err = d.DecodeString()
				default:
					err = d.Skip()
				}
				must(err)
			}
			want.Media[mid] = media
		}
	}
	return want
}
