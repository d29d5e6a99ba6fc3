package codec_test

import (
	"slices"
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// bits returns the bits of Switch for these layers.
func bits(layers ...[2]uint8) (can uint32) {
	for _, l := range layers {
		can |= 1 << (8*l[0] + l[1])
	}
	return can
}

// above returns the bits of Switch for all temporal layers from one on, of spatial layers up to one.
func above(temporal, spatial uint8) (can uint32) {
	for s := range spatial + 1 {
		for t := temporal; t < 8; t++ {
			can |= bits([2]uint8{s, t})
		}
	}
	return can
}

func TestVP9(t *testing.T) {
	keyFrame := codectest.VP9Frame(true)
	key := append([]byte{0x08}, keyFrame...)
	inter := codectest.VP9Frame(false)
	of := func(descriptor ...byte) []byte { return slices.Concat(descriptor, inter) }
	wide := codec.Picture{ID: 0x1234, At: 1, Wide: true}
	withTL0 := wide
	withTL0.TL0, withTL0.TL0At = 0x42, 4
	tests := []struct {
		name    string
		payload []byte
		want    codec.Descriptor
	}{
		{"keyframe without anything", key,
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"keyframe of profile 3", []byte{0x08, 0xb0, 0x24, 0xc1, 0xa1, 0x00},
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"picture ID of 7 bits", of(0xc8, 0x7f),
			codec.Descriptor{Start: true, Known: true, Picture: codec.Picture{ID: 0x7f, At: 1}}},
		{"picture ID of 15 bits", of(0xcc, 0x92, 0x34),
			codec.Descriptor{Start: true, End: true, Known: true, Picture: wide}},
		{"end of a frame", []byte{0xc4, 0x92, 0x34, 0},
			codec.Descriptor{End: true, Known: true, Picture: wide}},
		{"layers, TL0PICIDX", of(0xe8, 0x92, 0x34, 0x44, 0x42),
			codec.Descriptor{Start: true, Known: true, Spatial: 2, Temporal: 2, Picture: withTL0}},
		{"layers, flexible, one distance", of(0xf8, 0x92, 0x34, 0x22, 0x02),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Temporal: 1, Picture: wide}},
		{"three distances", of(0xf8, 0x92, 0x34, 0x22, 0x03, 0x05, 0x06),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Temporal: 1, Picture: wide}},
		{"four distances", of(0xf8, 0x92, 0x34, 0x22, 0x03, 0x05, 0x07, 0x08), codec.Descriptor{}},
		{"U in the lowest layer", of(0xf8, 0x92, 0x34, 0x10, 0x02),
			codec.Descriptor{Start: true, Known: true, Switch: above(1, 3), Picture: wide}},
		{"U of temporal layer 2", of(0xf8, 0x92, 0x34, 0x50, 0x02),
			codec.Descriptor{Start: true, Known: true, Temporal: 2, Switch: above(2, 3), Picture: wide}},
		{"U in the lowest temporal layer of spatial layer 1", of(0xf8, 0x92, 0x34, 0x13, 0x02),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Switch: above(1, 1), Picture: wide}},
		{"U in an upper layer that refers to what was left out", of(0xf8, 0x92, 0x34, 0x33, 0x02),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Temporal: 1, Picture: wide}},
		{"U in an upper layer that does not", of(0xf8, 0x92, 0x34, 0x32, 0x02),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Temporal: 1, Switch: above(1, 1), Picture: wide}},
		{"upper layer without P", of(0xb8, 0x92, 0x34, 0x03),
			codec.Descriptor{Start: true, Known: true, Spatial: 1, Switch: 0xff00, Picture: wide}},
		{"inside an upper layer without P", []byte{0xb0, 0x92, 0x34, 0x03, 0},
			codec.Descriptor{Known: true, Spatial: 1, Picture: wide}},
		{"lowest layer without P", of(0x98, 0x92, 0x34),
			codec.Descriptor{Start: true, Known: true, Picture: wide}},
		{"keyframe with structure", slices.Concat([]byte{0xaa, 0x92, 0x34, 0, 0x42, 0x58, 0, 160, 0, 90, 0, 160, 0, 90, 0, 160, 0, 90, 2, 0x04, 4, 0x38, 1, 2}, keyFrame),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all, Spatials: 3, Picture: withTL0}},
		{"structure without resolutions and group", slices.Concat([]byte{0x0a, 0x20}, keyFrame),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all, Spatials: 2}},
		{"spatial layers beyond the limit", of(0xf8, 0x92, 0x34, 0x08, 0x02), codec.Descriptor{}},
		{"empty", nil, codec.Descriptor{}},
		{"only a descriptor", []byte{0x08}, codec.Descriptor{}},
		{"cut before the picture ID", []byte{0x80}, codec.Descriptor{}},
		{"cut within the picture ID", []byte{0x80, 0x80}, codec.Descriptor{}},
		{"cut before the layers", []byte{0x20}, codec.Descriptor{}},
		{"cut before TL0PICIDX", []byte{0x20, 0x20}, codec.Descriptor{}},
		{"cut before the distances", []byte{0x70, 0x20}, codec.Descriptor{}},
		{"cut before the structure", []byte{0x02}, codec.Descriptor{}},
		{"cut within the resolutions", []byte{0x02, 0x10, 0, 1}, codec.Descriptor{}},
		{"cut before the group", []byte{0x02, 0x08}, codec.Descriptor{}},
		{"cut within the group", []byte{0x02, 0x08, 2, 0x04}, codec.Descriptor{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := codec.NewParser(codec.VP9)
			parse(p, key)
			if tt.want.Known {
				tt.want.Spatials = max(tt.want.Spatials, tt.want.Spatial+1)
				tt.want.Temporals = tt.want.Temporal + 1
			}
			if got := parse(p, tt.payload); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestVP9IsKnownFromTheFirstKeyframeOn(t *testing.T) {
	p := codec.NewParser(codec.VP9)
	frame := codectest.VP9(first(codectest.Frame{Picture: 7, Predicted: true}))
	key := codectest.VP9(first(codectest.Frame{Keyframe: true, Picture: 8, Layers: true, Spatials: 3}))
	if got := parse(p, frame); got != (codec.Descriptor{}) {
		t.Errorf("before a keyframe: %+v, want nothing", got)
	}
	if got := parse(p, key); !got.Keyframe || !got.End || got.Spatials != 3 {
		t.Errorf("keyframe: %+v", got)
	}
	if got := parse(p, frame); !got.Known || got.Keyframe || got.Picture.ID != 7 {
		t.Errorf("after a keyframe: %+v", got)
	}
	for name, frame := range map[string][]byte{
		"frame marker":      {0x42},
		"sync code":         {0x82, 0x49, 0x83, 0x43},
		"cut off":           {0x82, 0x49, 0x83},
		"reserved bit":      {0xb8, 0x24, 0xc1, 0xa1, 0x00},
		"frame marker of P": {0x02},
	} {
		parse(p, key)
		if got := parse(p, append([]byte{0x08}, frame...)); got != (codec.Descriptor{}) {
			t.Errorf("%s: %+v, want nothing", name, got)
		}
		if got := parse(p, codectest.VP9(first(codectest.Frame{Predicted: true}))); got != (codec.Descriptor{}) {
			t.Errorf("frame after a wrong %s: %+v, want nothing", name, got)
		}
	}
}

// A keyframe's picture lets a receiver begin with all layers, and one that has the lower ones go up.
func TestVP9Picture(t *testing.T) {
	p := codec.NewParser(codec.VP9)
	s, tl := uint8(0), uint8(2)
	for spatial := range uint8(3) {
		d := parse(p, codectest.VP9(first(codectest.Frame{
			Keyframe: spatial == 0, Layers: true, Flexible: true, Spatial: spatial, Inter: spatial > 0, Spatials: 3,
		})))
		if d.Keyframe != (spatial == 0) || !d.Start || !d.End || d.Spatial != spatial {
			t.Errorf("layer %d: %+v", spatial, d)
		}
		if spatial > 0 {
			if s, tl = d.Rise(s, tl, 2, 2); s != spatial || tl != 2 {
				t.Errorf("after layer %d: layers up to %d and %d, want %d and 2", spatial, s, tl, spatial)
			}
		}
	}
}
