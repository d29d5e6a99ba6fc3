package codec_test

import (
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// first returns f as the only packet of its frame.
func first(f codectest.Frame) codectest.Frame {
	f.First, f.Last = true, true
	return f
}

// parse returns what p says of a payload.
func parse(p *codec.Parser, payload []byte) (d codec.Descriptor) {
	p.Parse(payload, nil, &d)
	return d
}

const all = ^uint32(0)

func TestVP8(t *testing.T) {
	key := []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 0xaa}
	tests := []struct {
		name    string
		payload []byte
		want    codec.Descriptor
	}{
		{"keyframe, one byte of descriptor", key,
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"later partition", []byte{0x11, 0x10, 0x02}, codec.Descriptor{Known: true}},
		{"inside a partition", []byte{0x00, 0x10, 0x02}, codec.Descriptor{Known: true}},
		{"frame", []byte{0x10, 0x11, 0x02}, codec.Descriptor{Start: true, Known: true}},
		{"picture ID of 7 bits", []byte{0x90, 0x80, 0x7f, 0x11}, codec.Descriptor{
			Start: true, Known: true, Picture: codec.Picture{ID: 0x7f, At: 2}}},
		{"picture ID of 15 bits", []byte{0x90, 0x80, 0xff, 0xfe, 0x11}, codec.Descriptor{
			Start: true, Known: true, Picture: codec.Picture{ID: 0x7ffe, At: 2, Wide: true}}},
		{"TL0PICIDX, TID 0 and Y", []byte{0x90, 0xe0, 0x80, 0x01, 0x42, 0x20, 0x11}, codec.Descriptor{
			Start: true, Known: true,
			Picture: codec.Picture{ID: 1, At: 2, Wide: true, TL0: 0x42, TL0At: 4}}},
		{"TID 2 and Y", []byte{0x90, 0xe0, 0x05, 0x42, 0xa0, 0x11}, codec.Descriptor{
			Start: true, Known: true, Temporal: 2, Temporals: 3, Switch: 1<<1 | 1<<2,
			Picture: codec.Picture{ID: 5, At: 2, TL0: 0x42, TL0At: 3}}},
		{"TID 1 without Y", []byte{0x90, 0x20, 0x40, 0x11}, codec.Descriptor{
			Start: true, Known: true, Temporal: 1, Temporals: 2}},
		{"TID 1 and Y, not a start", []byte{0x80, 0x20, 0x60, 0x11}, codec.Descriptor{
			Known: true, Temporal: 1, Temporals: 2}},
		{"KEYIDX without TID", []byte{0x90, 0x10, 0xff, 0x11}, codec.Descriptor{Start: true, Known: true}},
		{"empty", nil, codec.Descriptor{}},
		{"only a descriptor", []byte{0x10}, codec.Descriptor{}},
		{"cut before the extension", []byte{0x90}, codec.Descriptor{}},
		{"cut before the picture ID", []byte{0x90, 0x80}, codec.Descriptor{}},
		{"cut within the picture ID", []byte{0x90, 0x80, 0x80}, codec.Descriptor{}},
		{"cut before TL0PICIDX", []byte{0x90, 0x40}, codec.Descriptor{}},
		{"cut before TID", []byte{0x90, 0x20}, codec.Descriptor{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := codec.NewParser(codec.VP8)
			parse(p, key)
			if tt.want.Known {
				tt.want.Spatials, tt.want.Temporals = 1, max(1, tt.want.Temporals)
			}
			if got := parse(p, tt.payload); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestVP8IsKnownFromTheFirstKeyframeOn(t *testing.T) {
	p := codec.NewParser(codec.VP8)
	frame := codectest.VP8(first(codectest.Frame{Picture: 7, Body: []byte{1, 2, 3}}))
	key := codectest.VP8(first(codectest.Frame{Keyframe: true, Picture: 8, Body: []byte{1, 2, 3}}))
	if got := parse(p, frame); got != (codec.Descriptor{}) {
		t.Errorf("before a keyframe: %+v, want nothing", got)
	}
	if got := parse(p, key); !got.Known || !got.Keyframe || got.Picture.ID != 8 {
		t.Errorf("keyframe: %+v", got)
	}
	if got := parse(p, frame); !got.Known || got.Keyframe || got.Picture.ID != 7 {
		t.Errorf("after a keyframe: %+v", got)
	}
	for i, broken := range [][]byte{
		{0x90, 0x80, 0x80, 0x01, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2b, 0x80, 0x02, 0x68, 0x01, 0xaa}, // start code
		{0x90, 0x80, 0x80, 0x01, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x00, 0x68, 0x01, 0xaa}, // no width
		{0x90, 0x80, 0x80, 0x01, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68},             // cut off
	} {
		parse(p, key)
		if got := parse(p, broken); got != (codec.Descriptor{}) {
			t.Errorf("broken keyframe %d: %+v, want nothing", i, got)
		}
		if got := parse(p, frame); got != (codec.Descriptor{}) {
			t.Errorf("frame after broken keyframe %d: %+v, want nothing", i, got)
		}
	}
}

func TestOf(t *testing.T) {
	for mime, want := range map[string]codec.Codec{
		"video/VP8": codec.VP8, "VIDEO/vp9": codec.VP9, "video/h264": codec.H264, "video/AV1": codec.AV1,
		"video/H265": codec.Other, "video/rtx": codec.Other, "audio/VP8": codec.Other, "": codec.Other, "video/other": codec.Other,
	} {
		if got := codec.Of(mime); got != want {
			t.Errorf("Of(%q) = %v, want %v", mime, got, want)
		}
	}
}
