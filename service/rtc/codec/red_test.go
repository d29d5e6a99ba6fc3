package codec_test

import (
	"slices"
	"testing"

	"rtcd/service/rtc/codec"
)

func TestREDPrimary(t *testing.T) {
	tests := []struct {
		name    string
		payload []byte
		want    []byte // nil: not ok
	}{
		{"only the newest", []byte{111, 1, 2, 3}, []byte{1, 2, 3}},
		{"one copy", []byte{0xef, 0x0f, 0x00, 2, 111, 8, 8, 1, 2, 3}, []byte{1, 2, 3}},
		{"two copies", []byte{0xef, 0x1e, 0x00, 1, 0xef, 0x0f, 0x00, 2, 111, 7, 8, 8, 1}, []byte{1}},
		{"an empty copy", []byte{0xef, 0x0f, 0x00, 0, 111, 1}, []byte{1}},
		{"a length of ten bits", slices.Concat([]byte{0xef, 0x0f, 0x03, 0xff, 111}, make([]byte, 1023), []byte{9}), []byte{9}},
		{"the timestamp offset is no length", []byte{0xef, 0xff, 0xfc, 1, 111, 8, 9}, []byte{9}},
		{"empty", nil, nil},
		{"nothing after the header", []byte{111}, nil},
		{"nothing after the copy", []byte{0xef, 0x0f, 0x00, 2, 111, 8, 8}, nil},
		{"copy longer than the packet", []byte{0xef, 0x0f, 0x00, 9, 111, 8, 8}, nil},
		{"header cut off", []byte{0xef, 0x0f, 0x00}, nil},
		{"no last header", []byte{0xef, 0x0f, 0x00, 2}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := codec.REDPrimary(tt.payload)
			if ok != (tt.want != nil) || !slices.Equal(got, tt.want) {
				t.Errorf("got % x, %v; want % x", got, ok, tt.want)
			}
		})
	}
}
