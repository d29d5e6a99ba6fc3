package codec_test

import (
	"slices"
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// svcHeader is a sequence header with operating points for 2 spatial and 3 temporal layers, with
// every optional part that has no effect on layers.
var svcHeader = func() []byte {
	var b []byte
	free := 0
	put := func(v uint64, n int) {
		for n--; n >= 0; n-- {
			if free == 0 {
				b, free = append(b, 0), 8
			}
			free--
			b[len(b)-1] |= byte(v>>n&1) << free
		}
	}
	put(0x08, 8)          // OBU header
	put(2, 3)             // profile
	put(0, 2)             // still picture
	put(1, 1)             // timing info
	put(1000, 32)         //
	put(30000, 32)        //
	put(1, 1)             // equal interval
	put(0b00101, 5)       // uvlc 4
	put(1, 1)             // decoder model
	put(9, 5)             // buffer delays of 10 bits
	put(1, 32)            //
	put(0, 10)            //
	put(1, 1)             // initial display delay
	put(1, 5)             // operating points, less 1
	put(0x307, 12)        // all
	put(8, 5)             // level with a tier
	put(0, 1)             //
	put(1, 1)             // decoder model
	put(0, 21)            //
	put(1, 1)             // display delay
	put(3, 4)             //
	put(0x101, 12)        // the lowest layers
	put(4, 5)             //
	put(0, 1)             //
	put(0, 1)             //
	put(9, 4)             // sizes have 10 bits
	put(9, 4)             //
	put(639, 10)          //
	put(359, 10)          //
	put(1, 1)             // frame ids
	put(0, 7)             //
	put(0, 3+4)           // tools
	put(1, 1)             // order hint
	put(0, 2)             //
	put(0, 1)             // screen content tools
	put(1, 1)             //
	put(0, 1)             // integer mv
	put(0, 1)             //
	put(6, 3)             // order hint bits
	put(0, 3)             // filters
	put(0b11, 2)          // 12 bits
	put(0, 1)             // mono
	put(1, 1)             // colours
	put(1<<16|1<<8|1, 24) //
	put(0, 1)             // range
	put(0b11, 2)          // 4:2:0
	put(0, 2)             // position
	put(0, 1)             // separate uv
	put(0, 1)             // film grain
	put(1, 1)             // trailing bit
	return b
}()

// element returns an OBU element with its length.
func element(obu ...byte) []byte { return append([]byte{byte(len(obu))}, obu...) }

func TestAV1(t *testing.T) {
	seq := codectest.AV1SequenceHeader
	frame := []byte{0x30, 0x10, 1}
	sized := slices.Concat([]byte{seq[0] | 2, byte(len(seq) - 1)}, seq[1:])
	tests := []struct {
		name    string
		payload []byte
		want    codec.Descriptor
	}{
		{"sequence header and frame, two elements", slices.Concat([]byte{0x28}, element(seq...), frame),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"with lengths", slices.Concat([]byte{0x08}, element(seq...), element(frame...)),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"the frame goes on", slices.Concat([]byte{0x68}, element(seq...), frame),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"sequence header alone", slices.Concat([]byte{0x18}, seq),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"sequence header with a size", slices.Concat([]byte{0x28}, element(sized...), frame),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all}},
		{"layers of operating points", slices.Concat([]byte{0x28}, element(svcHeader...), []byte{0x34, 0x00, 0x10}),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all, Spatials: 2, Temporals: 3}},
		{"layer in the second element", slices.Concat([]byte{0x28}, element(seq...), []byte{0x34, 0x48, 0x10}),
			codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all, Spatial: 1, Temporal: 2, Spatials: 2, Temporals: 3}},
		{"frame", slices.Concat([]byte{0x10}, frame), codec.Descriptor{Start: true, Known: true}},
		{"frame of a layer", []byte{0x10, 0x34, 0x50, 0x30},
			codec.Descriptor{Start: true, Known: true, Spatial: 2, Temporal: 2, Spatials: 3, Temporals: 3}},
		{"sequence header without N", slices.Concat([]byte{0x20}, element(seq...), frame),
			codec.Descriptor{Start: true, Known: true}},
		{"tile group", []byte{0x10, 0x20, 0x30}, codec.Descriptor{Known: true}},
		{"rest of an OBU", []byte{0x90, 0xff, 0xff}, codec.Descriptor{Known: true}},
		{"rest of an OBU, with N", []byte{0x98, 0xff, 0xff}, codec.Descriptor{Known: true}},
		{"N without a sequence header", slices.Concat([]byte{0x18}, frame), codec.Descriptor{}},
		{"sequence header that goes on", slices.Concat([]byte{0x58}, seq), codec.Descriptor{}},
		{"sequence header with a byte too many", slices.Concat([]byte{0x28}, element(append(slices.Clone(seq), 1)...), frame), codec.Descriptor{}},
		{"sequence header with a byte too few", slices.Concat([]byte{0x28}, element(seq[:len(seq)-1]...), frame), codec.Descriptor{}},
		{"something else after it", slices.Concat([]byte{0x28}, element(seq...), []byte{0x48, 0}), codec.Descriptor{}},
		{"element longer than the packet", []byte{0x20, 0x7f, 0x30}, codec.Descriptor{}},
		{"length without an end", []byte{0x20, 0x80, 0x80}, codec.Descriptor{}},
		{"empty element", []byte{0x20, 0x00, 0x30}, codec.Descriptor{}},
		{"forbidden bit", []byte{0x10, 0xb0, 0x30}, codec.Descriptor{}},
		{"cut within the OBU header", []byte{0x10, 0x34}, codec.Descriptor{}},
		{"cut within the OBU size", []byte{0x10, 0x32, 0x80}, codec.Descriptor{}},
		{"only an aggregation header", []byte{0x10}, codec.Descriptor{}},
		{"empty", nil, codec.Descriptor{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := codec.NewParser(codec.AV1)
			parse(p, codectest.AV1(true, nil))
			if tt.want.Known {
				tt.want.Spatials, tt.want.Temporals = max(1, tt.want.Spatials), max(1, tt.want.Temporals)
			}
			if got := parse(p, tt.payload); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestAV1IsKnownFromTheFirstKeyframeOn(t *testing.T) {
	p := codec.NewParser(codec.AV1)
	frame, key := codectest.AV1(false, []byte{1}), codectest.AV1(true, []byte{1})
	if got := parse(p, frame); got != (codec.Descriptor{}) {
		t.Errorf("before a keyframe: %+v, want nothing", got)
	}
	if got := parse(p, key); !got.Keyframe {
		t.Errorf("keyframe: %+v", got)
	}
	if got := parse(p, frame); !got.Known || got.Keyframe || !got.Start {
		t.Errorf("after a keyframe: %+v", got)
	}
	key[1] = 0xff
	if got := parse(p, key); got != (codec.Descriptor{}) {
		t.Errorf("broken keyframe: %+v, want nothing", got)
	}
	if got := parse(p, frame); got != (codec.Descriptor{}) {
		t.Errorf("after a broken keyframe: %+v, want nothing", got)
	}
}

// The packets of a frame are in its layer, which only the first one tells.
func TestAV1LayerGoesOn(t *testing.T) {
	p := codec.NewParser(codec.AV1)
	parse(p, codectest.AV1(true, nil))
	parse(p, []byte{0x50, 0x34, 0x28, 0x30})
	if got := parse(p, []byte{0x90, 1, 2, 3}); got.Spatial != 1 || got.Temporal != 1 {
		t.Errorf("layer %d, %d; want 1, 1", got.Spatial, got.Temporal)
	}
}
