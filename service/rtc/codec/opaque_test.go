package codec_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

var everyCodec = []codec.Codec{codec.Other, codec.VP8, codec.VP9, codec.H264, codec.AV1}

// fill fills b with random bytes.
func fill(random *rand.Rand, b []byte) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, random.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(random.Uint32())
	}
}

// Payloads that are encrypted from end to end look like random bytes. A server that took them for
// something else would begin at no keyframe, or write picture IDs into them.
func TestOpaquePayloads(t *testing.T) {
	packets := 300_000
	if testing.Short() {
		packets = 50_000
	}
	for _, c := range everyCodec {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, uint64(c)))
			p := codec.NewParser(c)
			buf := make([]byte, 1200)
			for range packets {
				payload := buf[:8+random.IntN(200)] // the rest hardly matters, and costs time
				fill(random, payload)
				if d := parse(p, payload); d != (codec.Descriptor{}) {
					t.Fatalf("% x: %+v, want nothing", payload, d)
				}
			}
		})
	}
}

// Encryption may begin in the middle of a call.
func TestPayloadsThatBecomeOpaque(t *testing.T) {
	for c, key := range keyframes {
		t.Run(c.String(), func(t *testing.T) {
			for seed := range uint64(20) {
				random := rand.New(rand.NewPCG(seed, uint64(c)))
				p := codec.NewParser(c)
				if d := parse(p, key); !d.Keyframe {
					t.Fatalf("%+v, want a keyframe", d)
				}
				payload := make([]byte, 500)
				understood := 0
				for range 1000 {
					fill(random, payload)
					if d := parse(p, payload); d.Known {
						understood++
					}
				}
				if understood > 300 {
					t.Errorf("seed %d: %d packets of random bytes were understood", seed, understood)
				}
				fill(random, payload)
				if d := parse(p, payload); d.Known {
					t.Errorf("seed %d: %+v, want nothing", seed, d)
				}
			}
		})
	}
}

// keyframes are payloads that prove a stream.
var keyframes = map[codec.Codec][]byte{
	codec.VP8: codectest.VP8(codectest.Frame{Keyframe: true, Picture: 1, Layers: true, First: true, Body: make([]byte, 100)}),
	codec.VP9: codectest.VP9(codectest.Frame{Keyframe: true, Picture: 1, Layers: true, Spatials: 3, First: true,
		Body: make([]byte, 100)}),
	codec.H264: codectest.H264(true, make([]byte, 100)),
	codec.AV1:  codectest.AV1(true, make([]byte, 100)),
}

// Packets of nothing but padding come at any time.
func TestPaddingTellsNothing(t *testing.T) {
	for c, key := range keyframes {
		p := codec.NewParser(c)
		parse(p, key)
		if d := parse(p, nil); d != (codec.Descriptor{}) {
			t.Errorf("%v: %+v of padding, want nothing", c, d)
		}
		next := map[codec.Codec][]byte{
			codec.VP8: codectest.VP8(codectest.Frame{First: true}), codec.VP9: codectest.VP9(codectest.Frame{Predicted: true, First: true}),
			codec.H264: codectest.H264(false, nil), codec.AV1: codectest.AV1(false, nil),
		}[c]
		if d := parse(p, next); !d.Known || !d.Start {
			t.Errorf("%v: %+v after padding", c, d)
		}
	}
}

// With a dependency descriptor opaque payloads have everything but pictures.
func TestOpaquePayloadsWithDependencies(t *testing.T) {
	for _, c := range everyCodec {
		t.Run(c.String(), func(t *testing.T) {
			random := rand.New(rand.NewPCG(2, uint64(c)))
			p := codec.NewParser(c)
			w := codectest.NewWriter(codectest.L3T3, 0)
			payload := make([]byte, 300)
			for picture := range 1000 {
				for spatial, f := range w.Picture(picture%100 == 0) {
					fill(random, payload)
					var d codec.Descriptor
					p.Parse(payload, f.Packet(true, true), &d)
					if !d.Known || !d.Start || !d.End || d.Picture != (codec.Picture{}) || int(d.Spatial) != spatial ||
						d.Temporal != pattern[picture%100%4] || d.Keyframe != (picture%100 == 0 && spatial == 0) {
						t.Fatalf("picture %d layer %d: %+v", picture, spatial, d)
					}
				}
			}
		})
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	var dependencies [][]byte
	w := codectest.NewWriter(codectest.L3T3, 0)
	for picture := range 8 {
		for _, f := range w.Picture(picture%4 == 0) {
			dependencies = append(dependencies, f.Packet(true, false), f.Packet(false, true))
		}
	}
	var payloads [][]byte
	for _, key := range keyframes {
		payloads = append(payloads, key)
	}
	payloads = append(payloads, codectest.VP8(codectest.Frame{First: true}), codectest.VP9(codectest.Frame{Predicted: true, First: true}),
		codectest.H264(false, nil), codectest.AV1(false, nil), []byte{0xff})
	red := []byte{0x80 | 111, 0, 0, 2, 111, 1, 2, 3, 4}
	for _, c := range everyCodec {
		p := codec.NewParser(c)
		var d codec.Descriptor
		allocs := testing.AllocsPerRun(100, func() {
			for _, payload := range payloads {
				p.Parse(payload, nil, &d)
				d.Picture.Put(payload, d.Picture.ID, d.Picture.TL0)
			}
			for _, dependency := range dependencies {
				p.Parse(payloads[0], dependency, &d)
				d.Rise(0, 0, 2, 2)
			}
			codec.REDPrimary(red)
		})
		if allocs != 0 {
			t.Errorf("%v: %v allocations, want none", c, allocs)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for c, key := range keyframes {
		b.Run(c.String(), func(b *testing.B) {
			b.ReportAllocs()
			p := codec.NewParser(c)
			var d codec.Descriptor
			for b.Loop() {
				p.Parse(key, nil, &d)
			}
		})
	}
	w := codectest.NewWriter(codectest.L3T3, 0)
	key := w.Picture(true)[0].Packet(true, true)
	delta := w.Picture(false)[2].Packet(true, true)
	for name, dependency := range map[string][]byte{"structure": key, "dependency": delta} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p := codec.NewParser(codec.AV1)
			var d codec.Descriptor
			p.Parse(nil, key, &d)
			for b.Loop() {
				p.Parse(nil, dependency, &d)
			}
		})
	}
}
