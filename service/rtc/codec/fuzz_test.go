package codec_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pion/rtp/codecs"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// join returns packets as one input, each after its length.
func join(packets ...[]byte) (b []byte) {
	for _, p := range packets {
		p = p[:min(len(p), 255)]
		b = append(append(b, byte(len(p))), p...)
	}
	return b
}

// split calls packet with those of an input.
func split(b []byte, packet func([]byte)) {
	for len(b) > 0 {
		n := min(int(b[0]), len(b)-1)
		packet(b[1 : 1+n : 1+n])
		b = b[1+n:]
	}
}

// check fails the test unless d is one that a Parser may fill for a payload.
func check(t *testing.T, d codec.Descriptor, payload []byte) {
	t.Helper()
	if !d.Known {
		if d.Keyframe || d.Spatial|d.Temporal|d.Spatials|d.Temporals != 0 || d.Switch != 0 || d.Picture != (codec.Picture{}) {
			t.Fatalf("%+v, though nothing is known", d)
		}
		return
	}
	if d.Spatial >= codec.MaxSpatials || d.Temporal >= codec.MaxTemporals ||
		d.Spatials < 1 || d.Spatials > codec.MaxSpatials || d.Temporals < 1 || d.Temporals > codec.MaxTemporals {
		t.Fatalf("%+v: layers out of range", d)
	}
	if d.Keyframe && (!d.Start || d.Switch != all) || d.Switch != 0 && !d.Start || d.CanSwitch(0, 0) && d.Spatial != 0 && !d.Keyframe {
		t.Fatalf("%+v: switches where it cannot", d)
	}
	s, tl := d.Rise(0, 0, 3, 7)
	if s > 3 || tl > 7 || d.Switch == 0 && s|tl != 0 {
		t.Fatalf("%+v: rises to %d, %d", d, s, tl)
	}
	pic := d.Picture
	if int(pic.At) >= len(payload) && pic.At != 0 || int(pic.TL0At) >= len(payload) && pic.TL0At != 0 {
		t.Fatalf("%+v: outside the payload", pic)
	}
	same := slices.Clone(payload)
	pic.Put(same, pic.ID, pic.TL0)
	if !bytes.Equal(same, payload) {
		t.Fatalf("%+v: putting it changes % x to % x", pic, payload, same)
	}
}

// fuzzPayloads fuzzes the payloads of a codec, and what compare compares.
func fuzzPayloads(f *testing.F, c codec.Codec, compare func(t *testing.T, d codec.Descriptor, payload []byte)) {
	f.Fuzz(func(t *testing.T, input []byte) {
		p := codec.NewParser(c)
		split(input, func(payload []byte) {
			was := slices.Clone(payload)
			d := parse(p, payload)
			if !bytes.Equal(payload, was) {
				t.Fatal("the payload was written to")
			}
			check(t, d, payload)
			if compare != nil && d.Known {
				compare(t, d, payload)
			}
		})
	})
}

func FuzzVP8(f *testing.F) {
	for _, frame := range []codectest.Frame{{}, {ShortID: true}, {Layers: true, Temporal: 2, Sync: true}, {NoID: true}} {
		frame.First = true
		next := codectest.VP8(frame)
		frame.Keyframe = true
		f.Add(join(codectest.VP8(frame), next))
	}
	fuzzPayloads(f, codec.VP8, func(t *testing.T, d codec.Descriptor, payload []byte) {
		var p codecs.VP8Packet
		if _, err := p.Unmarshal(payload); err != nil {
			return
		}
		if d.Start != (p.S == 1 && p.PID == 0) || d.Picture.ID != p.PictureID || d.Picture.TL0 != p.TL0PICIDX ||
			p.T == 1 && d.Temporal != p.TID || d.Picture.Wide && p.I == 0 {
			t.Fatalf("% x: %+v, pion says %+v", payload, d, p)
		}
	})
}

func FuzzVP9(f *testing.F) {
	for _, frame := range []codectest.Frame{
		{}, {ShortID: true}, {Layers: true, Temporal: 2, Sync: true, Spatials: 3}, {NoID: true, Spatials: 1},
		{Layers: true, Flexible: true, Diffs: []byte{1, 2, 3}, Last: true},
	} {
		frame.First = true
		frame.Predicted = true
		next := codectest.VP9(frame)
		frame.Spatial, frame.Inter = 1, true
		upper := codectest.VP9(frame)
		frame.Keyframe, frame.Spatial = true, 0
		f.Add(join(codectest.VP9(frame), next, upper))
	}
	fuzzPayloads(f, codec.VP9, func(t *testing.T, d codec.Descriptor, payload []byte) {
		var p codecs.VP9Packet
		if _, err := p.Unmarshal(payload); err != nil {
			return
		}
		if d.Start != p.B || d.End != p.E || d.Picture.ID != p.PictureID || d.Picture.TL0 != p.TL0PICIDX ||
			d.Temporal != p.TID || d.Spatial != p.SID || d.Keyframe && p.P {
			t.Fatalf("% x: %+v, pion says %+v", payload, d, p)
		}
	})
}

func FuzzH264(f *testing.F) {
	key, slice := codectest.H264(true, nil), codectest.H264(false, nil)
	f.Add(join(key, slice, slice))
	f.Add(join(codectest.H264SPS, codectest.H264PPS, []byte{0x7c, 0x85, 0x88}, []byte{0x7c, 0x45}, slice))
	f.Add(join(slices.Repeat([][]byte{slice}, 20)...))
	fuzzPayloads(f, codec.H264, nil)
}

func FuzzAV1(f *testing.F) {
	f.Add(join(codectest.AV1(true, nil), codectest.AV1(false, nil), []byte{0x90, 1}))
	f.Add(join(slices.Concat([]byte{0x28}, element(svcHeader...), []byte{0x34, 0x00, 0x10}), []byte{0x10, 0x34, 0x50, 0x30}))
	fuzzPayloads(f, codec.AV1, nil)
}

func FuzzDependency(f *testing.F) {
	for _, mode := range []codectest.Mode{codectest.L1T1, codectest.L1T3, codectest.L3T3, codectest.L3T3Key} {
		w := codectest.NewWriter(mode, 0xfffe)
		var packets [][]byte
		for picture := range 3 {
			for _, frame := range w.Picture(picture == 0) {
				packets = append(packets, frame.Packet(true, false), frame.Packet(false, true))
			}
		}
		f.Add(join(packets...))
	}
	d := codectest.Descriptor{First: true, Template: 60, Structure: simple(), Masked: true, Active: 7, Targets: 4,
		DTIs: "SDR-", Diffs: []int{1, 17, 4096}, Chains: []uint8{0, 255}}
	f.Add(join(d.Bytes()))
	f.Fuzz(func(t *testing.T, input []byte) {
		p := codec.NewParser(codec.AV1)
		split(input, func(dependency []byte) {
			if len(dependency) == 0 {
				return
			}
			d := describe(p, dependency)
			check(t, d, nil)
			if d.HasFrame != (len(dependency) >= 3) {
				t.Fatalf("% x: %+v", dependency, d)
			}
			if d.HasFrame && d.Frame != uint16(dependency[1])<<8|uint16(dependency[2]) {
				t.Fatalf("% x: frame %d", dependency, d.Frame)
			}
		})
	})
}

func FuzzRED(f *testing.F) {
	f.Add([]byte{0xef, 0x0f, 0x00, 2, 111, 8, 8, 1, 2, 3})
	f.Add([]byte{111, 1})
	f.Add([]byte{0xef, 0x0f, 0x03, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		primary, ok := codec.REDPrimary(payload)
		if ok != (len(primary) > 0) || !bytes.HasSuffix(payload, primary) || ok && len(primary) >= len(payload) {
			t.Fatalf("% x: % x, %v", payload, primary, ok)
		}
	})
}

func FuzzH264Profile(f *testing.F) {
	f.Add("level-asymmetry-allowed=1; packetization-mode=1; profile-level-id=42001f")
	f.Fuzz(func(t *testing.T, fmtp string) {
		if _, mode := codec.H264Profile(fmtp); mode < -1 || mode > 2 {
			t.Fatalf("%q: mode %d", fmtp, mode)
		}
	})
}
