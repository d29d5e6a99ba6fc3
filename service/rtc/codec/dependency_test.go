package codec_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// describe returns what p says of a packet with an opaque payload.
func describe(p *codec.Parser, dependency []byte) (d codec.Descriptor) {
	p.Parse([]byte{0xde, 0xad}, dependency, &d)
	return d
}

// packBits returns the bytes of groups of bits, filled up with zeros.
func packBits(groups ...string) (b []byte) {
	for i, c := range strings.Join(groups, "") {
		if i%8 == 0 {
			b = append(b, 0)
		}
		b[i/8] |= byte(c-'0') << (7 - i%8)
	}
	return b
}

// The descriptors are written out from the syntax tables, so that reader and writer are not just
// of one mind.
func TestDependencyBytes(t *testing.T) {
	p := codec.NewParser(codec.AV1)
	key := packBits(
		"1", "1", "000000", "0000000000000001", // start, end, template, number
		"1", "0", "0", "0", "0", // structure, nothing else
		"000000", "00001", // offset, decode targets less 1
		"00", "01", "11", // templates of T0, T0 and T1
		"1010", "1010", "0001", // SS SS -D
		"0", "1"+"0001"+"0", "1"+"0000"+"0", // distances none, 2, 1
		"10",                   // one chain, of at most two: ns(3); both targets are of it: ns(1)
		"0000", "0010", "0001", // distances in it
		"0", // no resolutions
	)
	structure := &codectest.Structure{
		Targets: 2, Chains: 1, Protected: []int{0, 0},
		Templates: []codectest.Template{
			{DTIs: "SS", Chains: []int{0}},
			{DTIs: "SS", Diffs: []int{2}, Chains: []int{2}},
			{Temporal: 1, DTIs: "-D", Diffs: []int{1}, Chains: []int{1}},
		},
	}
	written := codectest.Descriptor{First: true, Last: true, Number: 1, Structure: structure}
	if got := written.Bytes(); !slices.Equal(got, key) {
		t.Errorf("writer: % x, want % x", got, key)
	}
	known := codec.Descriptor{Start: true, End: true, Known: true, Spatials: 1, Temporals: 2, Frame: 1, HasFrame: true}
	want := known
	want.Keyframe, want.Switch = true, all
	if got := describe(p, key); got != want {
		t.Errorf("keyframe: got %+v, want %+v", got, want)
	}
	want = known
	want.Frame, want.Temporal = 2, 1
	if got := describe(p, []byte{0xc2, 0, 2}); got != want {
		t.Errorf("T1: got %+v, want %+v", got, want)
	}
	want = known
	want.Frame, want.End, want.Switch = 3, false, bits2(0, 1)
	if got := describe(p, []byte{0x81, 0, 3}); got != want {
		t.Errorf("T0: got %+v, want %+v", got, want)
	}
	want = known
	want.Frame, want.Start = 3, false
	if got := describe(p, []byte{0x41, 0, 3}); got != want {
		t.Errorf("end of T0: got %+v, want %+v", got, want)
	}
	want = codec.Descriptor{Start: true, End: true, Frame: 0xfffe, HasFrame: true}
	if got := describe(p, []byte{0xc3, 0xff, 0xfe}); got != want {
		t.Errorf("unknown template: got %+v, want %+v", got, want)
	}
	if got := describe(p, []byte{0xc3, 0xff}); got != (codec.Descriptor{}) {
		t.Errorf("cut off: got %+v, want nothing", got)
	}
}

func bits2(spatial, temporal uint8) uint32 { return bits([2]uint8{spatial, temporal}) }

// layers of pictures in a mode with three temporal layers.
var pattern = []uint8{0, 2, 1, 2}

func TestDependencyOfModes(t *testing.T) {
	for mode, want := range map[codectest.Mode]struct {
		name                string
		spatials, temporals uint8
		// By spatial layer: of upper layers in keyframes, and in other pictures by temporal layer.
		upper  [3]uint32
		others [3][3]uint32
	}{
		codectest.L1T1: {name: "L1T1", spatials: 1, temporals: 1},
		codectest.L1T3: {name: "L1T3", spatials: 1, temporals: 3,
			others: [3][3]uint32{{0b110, 0b100, 0}}},
		codectest.L3T3: {name: "L3T3", spatials: 3, temporals: 3,
			upper: [3]uint32{0, 0b111 << 8, 0b111 << 16},
			// In the upper layers T1 refers to the T1 below.
			others: [3][3]uint32{{0b110, 0b100, 0}, {0b110 << 8, 0, 0}, {0b110 << 16, 0, 0}}},
		codectest.L3T3Key: {name: "L3T3_KEY", spatials: 3, temporals: 3,
			upper:  [3]uint32{0, 0b111 << 8, 0b111 << 16},
			others: [3][3]uint32{{0b110, 0b100, 0}, {0b110 << 8, 0b100 << 8, 0}, {0b110 << 16, 0b100 << 16, 0}}},
	} {
		t.Run(want.name, func(t *testing.T) {
			p := codec.NewParser(codec.VP9)
			w := codectest.NewWriter(mode, 0xfff0) // so that numbers wrap
			number := uint16(0xfff0)
			for picture := range 40 {
				key := picture%10 == 0
				temporal := uint8(0)
				if want.temporals > 1 {
					temporal = pattern[picture%10%4]
				}
				for spatial, f := range w.Picture(key) {
					wanted := codec.Descriptor{
						Start: true, Known: true, Keyframe: key && spatial == 0, Spatial: uint8(spatial), Temporal: temporal,
						Spatials: want.spatials, Temporals: want.temporals, Frame: number, HasFrame: true,
					}
					switch {
					case wanted.Keyframe:
						wanted.Switch = all
					case key:
						wanted.Switch = want.upper[spatial]
					default:
						wanted.Switch = want.others[spatial][temporal]
					}
					if got := describe(p, f.Packet(true, false)); got != wanted {
						t.Fatalf("picture %d layer %d:\ngot  %+v\nwant %+v", picture, spatial, got, wanted)
					}
					wanted.Start, wanted.End, wanted.Keyframe, wanted.Switch = false, true, false, 0
					if got := describe(p, f.Packet(false, true)); got != wanted {
						t.Fatalf("picture %d layer %d, last packet:\ngot  %+v\nwant %+v", picture, spatial, got, wanted)
					}
					number++
				}
			}
		})
	}
}

// simple returns a structure of two spatial and two temporal layers.
func simple() *codectest.Structure {
	return &codectest.Structure{
		Offset: 60, Targets: 4, Chains: 2, Protected: []int{0, 0, 1, 1},
		Templates: []codectest.Template{
			{DTIs: "SSSS", Chains: []int{0, 0}},
			{DTIs: "SSRR", Diffs: []int{2}, Chains: []int{2, 1}},
			{Temporal: 1, DTIs: "-D-R", Diffs: []int{1}, Chains: []int{1, 1}},
			{Spatial: 1, DTIs: "--SS", Diffs: []int{2, 1}, Chains: []int{1, 1}},
			{Spatial: 1, Temporal: 1, DTIs: "---D", Diffs: []int{16, 1}, Chains: []int{1, 15}},
		},
		Resolutions: [][2]uint16{{320, 180}, {640, 360}},
	}
}

func TestDependencyOfFramesOfTheirOwn(t *testing.T) {
	p := codec.NewParser(codec.Other)
	key := codectest.Descriptor{First: true, Last: true, Template: 60, Number: 10, Structure: simple()}
	if got := describe(p, key.Bytes()); !got.Keyframe || got.Spatials != 2 || got.Temporals != 2 {
		t.Fatalf("keyframe: %+v", got)
	}
	tests := []struct {
		name  string
		frame codectest.Descriptor
		want  uint32
		known bool
	}{
		{"as the template", codectest.Descriptor{Template: 61, Number: 12}, 0b10, true},
		{"refers to an upper layer alone", codectest.Descriptor{Template: 63, Number: 13, Diffs: []int{1}}, 0b11 << 8, true},
		{"refers to its own layer", codectest.Descriptor{Template: 63, Number: 15, Diffs: []int{3, 2}}, 0b10 << 8, true},
		{"refers to a frame that never came", codectest.Descriptor{Template: 63, Number: 16, Diffs: []int{2}}, 0, true},
		{"refers to one long ago", codectest.Descriptor{Template: 63, Number: 17, Diffs: []int{4096}}, 0, true},
		{"refers to a higher layer", codectest.Descriptor{Template: 61, Number: 18, Diffs: []int{1}}, 0, true},
		{"intra frame without structure", codectest.Descriptor{Template: 61, Number: 19, Diffs: []int{}}, 0b11, true},
		{"indications", codectest.Descriptor{Template: 61, Number: 21, DTIs: "RRRR"}, 0, true},
		{"chains", codectest.Descriptor{Template: 61, Number: 23, Chains: []uint8{200, 255}}, 0b10, true},
		{"all of them", codectest.Descriptor{Template: 62, Number: 24, DTIs: "-S-R", Diffs: []int{1, 5}, Chains: []uint8{1, 1}}, 0b10, true},
		{"eight references", codectest.Descriptor{Template: 61, Number: 25, Diffs: []int{2, 2, 2, 2, 2, 2, 2, 2}}, 0b10, true},
		{"nine references", codectest.Descriptor{Template: 61, Number: 26, Diffs: []int{3, 3, 3, 3, 3, 3, 3, 3, 3}}, 0, false},
		{"indications cut off", codectest.Descriptor{Template: 61, Number: 27, DTIs: "S"}, 0, false},
		{"chains cut off", codectest.Descriptor{Template: 61, Number: 28, Chains: []uint8{1}}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.frame.First = true
			got := describe(p, tt.frame.Bytes())
			if got.Known != tt.known || got.Switch != tt.want || got.Keyframe || got.Frame != tt.frame.Number {
				t.Errorf("%+v, want known %v, switch %b", got, tt.known, tt.want)
			}
		})
	}
}

func TestDependencyOfActiveTargets(t *testing.T) {
	p := codec.NewParser(codec.AV1)
	key := codectest.Descriptor{First: true, Template: 60, Number: 10, Structure: simple(), Masked: true, Active: 0b0011, Targets: 4}
	for _, step := range []struct {
		name                string
		packet              codectest.Descriptor
		spatials, temporals uint8
	}{
		{"with the structure", key, 1, 2},
		{"stays", codectest.Descriptor{Template: 61, Number: 12}, 1, 2},
		{"all but the highest", codectest.Descriptor{Template: 61, Number: 14, Masked: true, Active: 0b0111, Targets: 4}, 2, 2},
		{"without upper temporal layers", codectest.Descriptor{Template: 61, Number: 16, Masked: true, Active: 0b0101, Targets: 4}, 2, 1},
		{"none", codectest.Descriptor{Template: 61, Number: 18, Masked: true, Active: 0, Targets: 4}, 1, 1},
		{"a new structure", codectest.Descriptor{First: true, Template: 60, Number: 20, Structure: simple()}, 2, 2},
	} {
		got := describe(p, step.packet.Bytes())
		if !got.Known || got.Spatials != step.spatials || got.Temporals != step.temporals {
			t.Errorf("%s: %+v, want %d and %d layers", step.name, got, step.spatials, step.temporals)
		}
	}
}

func TestDependencyStructuresThatAreTooMuch(t *testing.T) {
	templates := func(n int, next func(i int, t *codectest.Template)) []codectest.Template {
		all := make([]codectest.Template, n)
		for i := range all {
			all[i].DTIs = "S"
			if i > 0 {
				all[i].Spatial, all[i].Temporal = all[i-1].Spatial, all[i-1].Temporal
			}
			next(i, &all[i])
		}
		return all
	}
	spatial := func(i int, t *codectest.Template) { t.Spatial = uint8(i) }
	temporal := func(i int, t *codectest.Template) { t.Temporal = uint8(i) }
	same := func(int, *codectest.Template) {}
	far := func(n int) func(int, *codectest.Template) {
		return func(_ int, t *codectest.Template) { t.Diffs = slices.Repeat([]int{16}, n) }
	}
	for _, tt := range []struct {
		name      string
		templates []codectest.Template
		known     bool
	}{
		{"64 templates", templates(64, same), true},
		{"65 templates", templates(65, same), false},
		{"4 spatial layers", templates(4, spatial), true},
		{"5 spatial layers", templates(5, spatial), false},
		{"8 temporal layers", templates(8, temporal), true},
		{"9 temporal layers", templates(9, temporal), false},
		{"8 references", templates(1, far(8)), true},
		{"9 references", templates(1, far(9)), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := codec.NewParser(codec.AV1)
			good := codectest.Descriptor{First: true, Template: 60, Structure: simple()}
			describe(p, good.Bytes())
			d := codectest.Descriptor{First: true, Number: 1, Structure: &codectest.Structure{Targets: 1, Templates: tt.templates}}
			if got := describe(p, d.Bytes()); got.Known != tt.known || got.Frame != 1 {
				t.Errorf("%+v, want known %v", got, tt.known)
			}
			if later := (codectest.Descriptor{Template: 61}); !tt.known && describe(p, later.Bytes()).Known {
				t.Error("an older structure counts after a malformed one")
			}
		})
	}
}

func TestDependencyCutOff(t *testing.T) {
	key := codectest.Descriptor{First: true, Last: true, Template: 60, Number: 10, Structure: simple(),
		Masked: true, Active: 15, Targets: 4, DTIs: "SSSS", Diffs: []int{}, Chains: []uint8{0, 0}}
	whole := key.Bytes()
	if got := describe(codec.NewParser(codec.AV1), whole); !got.Keyframe {
		t.Fatalf("whole: %+v", got)
	}
	for n := range len(whole) {
		if n == 0 {
			continue // no descriptor at all
		}
		p := codec.NewParser(codec.AV1)
		if got := describe(p, whole[:n]); got.Known || got.Keyframe || got.HasFrame != (n >= 3) {
			t.Errorf("%d bytes: %+v", n, got)
		}
	}
}

// With a descriptor only the picture is taken from payloads, and only from ones that prove
// themselves.
func TestDependencyAndPayload(t *testing.T) {
	p := codec.NewParser(codec.VP8)
	w := codectest.NewWriter(codectest.L1T3, 1)
	parseBoth := func(payload, dependency []byte) (d codec.Descriptor) {
		p.Parse(payload, dependency, &d)
		return d
	}
	next := func(key bool) []byte {
		frames := w.Picture(key)
		return frames[0].Packet(true, true)
	}
	clear := func(key bool, id uint16) []byte {
		return codectest.VP8(first(codectest.Frame{Keyframe: key, Picture: id, Layers: true, TL0: 9, Body: []byte{1, 2}}))
	}
	for i, step := range []struct {
		payload []byte
		key     bool
		picture uint16
	}{
		{clear(false, 1), true, 0}, // not proven
		{clear(true, 2), true, 2},
		{clear(false, 3), false, 3},
		{[]byte{0x80}, false, 0},
		{clear(false, 4), true, 0}, // no keyframe where the descriptor says one is
		{clear(false, 5), false, 0},
		{clear(true, 6), true, 6},
	} {
		got := parseBoth(step.payload, next(step.key))
		if !got.Known || got.Keyframe != step.key || got.Picture.ID != step.picture || (got.Picture.At != 0) != (step.picture != 0) {
			t.Errorf("step %d: %+v, want keyframe %v, picture %d", i, got, step.key, step.picture)
		}
		if !step.key && i < 4 && got.Temporal == 0 {
			t.Errorf("step %d: temporal layer 0 of the payload", i)
		}
	}
}

func TestRise(t *testing.T) {
	type layers [2]uint8
	for _, tt := range []struct {
		name       string
		d          codec.Descriptor
		have, want layers
		get        layers
	}{
		{"keyframe", codec.Descriptor{Start: true, Keyframe: true, Switch: all}, layers{0, 0}, layers{2, 2}, layers{2, 2}},
		{"keyframe never lowers", codec.Descriptor{Start: true, Keyframe: true, Switch: all}, layers{2, 2}, layers{0, 1}, layers{2, 2}},
		{"nothing allowed", codec.Descriptor{Start: true}, layers{0, 0}, layers{2, 2}, layers{0, 0}},
		{"temporal", codec.Descriptor{Start: true, Switch: bits2(0, 1) | bits2(0, 2)}, layers{0, 0}, layers{0, 2}, layers{0, 2}},
		{"temporal, as far as wanted", codec.Descriptor{Start: true, Switch: bits2(0, 1) | bits2(0, 2)}, layers{0, 0}, layers{0, 1}, layers{0, 1}},
		{"temporal, as far as allowed", codec.Descriptor{Start: true, Switch: bits2(0, 1)}, layers{0, 0}, layers{0, 7}, layers{0, 1}},
		{"temporal of a layer that is not forwarded", codec.Descriptor{Start: true, Spatial: 1, Switch: bits2(1, 1) | bits2(1, 2)}, layers{0, 0}, layers{1, 2}, layers{0, 0}},
		{"spatial", codec.Descriptor{Start: true, Spatial: 1, Switch: bits2(1, 0)}, layers{0, 2}, layers{1, 2}, layers{1, 2}},
		{"spatial and temporal", codec.Descriptor{Start: true, Spatial: 1, Switch: bits2(1, 0) | bits2(1, 2)}, layers{0, 0}, layers{1, 2}, layers{1, 2}},
		{"spatial, not wanted", codec.Descriptor{Start: true, Spatial: 1, Switch: bits2(1, 0)}, layers{0, 0}, layers{0, 2}, layers{0, 0}},
		{"spatial, two at once", codec.Descriptor{Start: true, Spatial: 2, Switch: bits2(2, 0)}, layers{0, 0}, layers{2, 0}, layers{0, 0}},
		{"out of range", codec.Descriptor{Start: true, Switch: bits2(0, 1)}, layers{0, 0}, layers{255, 255}, layers{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got layers
			got[0], got[1] = tt.d.Rise(tt.have[0], tt.have[1], tt.want[0], tt.want[1])
			if got != tt.get {
				t.Errorf("from %v towards %v: %v, want %v", tt.have, tt.want, got, tt.get)
			}
		})
	}
}

func TestCanSwitch(t *testing.T) {
	for s := range uint8(4) {
		for temporal := range uint8(8) {
			d := codec.Descriptor{Switch: bits2(s, temporal)}
			for s2 := range uint8(10) {
				for t2 := range uint8(40) {
					if got, want := d.CanSwitch(s2, t2), s == s2 && temporal == t2; got != want {
						t.Fatalf("bit of %d, %d: CanSwitch(%d, %d) = %v", s, temporal, s2, t2, got)
					}
				}
			}
		}
	}
}

func ExampleDescriptor_Rise() {
	// A receiver has the lowest layers and wants all of them.
	p := codec.NewParser(codec.AV1)
	w := codectest.NewWriter(codectest.L3T3Key, 0)
	spatial, temporal := uint8(0), uint8(0)
	for picture := range 6 {
		for _, f := range w.Picture(picture%5 == 0) {
			var d codec.Descriptor
			p.Parse(nil, f.Packet(true, true), &d)
			if picture > 0 {
				spatial, temporal = d.Rise(spatial, temporal, 2, 2)
			}
		}
		fmt.Println(picture, spatial, temporal)
	}
	// Output:
	// 0 0 0
	// 1 0 0
	// 2 0 2
	// 3 0 2
	// 4 0 2
	// 5 2 2
}
