package codec_test

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// frames returns the frames of an IVF file.
func frames(t testing.TB, name string) (all [][]byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const fileHeader, frameHeader = 32, 12
	for b = b[fileHeader:]; len(b) > frameHeader; {
		end := frameHeader + int(binary.LittleEndian.Uint32(b))
		all = append(all, b[frameHeader:end])
		b = b[end:]
	}
	return all
}

// Frames that an encoder made, in packets of another implementation.
func TestEncodedFrames(t *testing.T) {
	for _, tt := range []struct {
		codec     codec.Codec
		file      string
		payloader rtp.Payloader
		keyframe  func(frame []byte) bool
		pictures  bool
	}{
		{codec.VP8, "testdata/vp8_s.ivf", &codecs.VP8Payloader{EnablePictureID: true},
			func(frame []byte) bool { return frame[0]&1 == 0 }, true},
		{codec.VP8, "testdata/vp8_s.ivf", &codecs.VP8Payloader{},
			func(frame []byte) bool { return frame[0]&1 == 0 }, false},
		{codec.AV1, "testdata/av1.ivf", &codecs.AV1Payloader{},
			// A temporal delimiter, then a sequence header.
			func(frame []byte) bool { return frame[2]>>3 == 1 }, false},
	} {
		p := codec.NewParser(tt.codec)
		var d codec.Descriptor
		keyframes, id := 0, uint16(0)
		for n, frame := range frames(t, tt.file) {
			for i, payload := range tt.payloader.Payload(400, frame) {
				p.Parse(payload, nil, &d)
				key := i == 0 && tt.keyframe(frame)
				if !d.Known || d.Start != (i == 0) || d.Keyframe != key || d.Spatials != 1 || d.Temporals != 1 {
					t.Fatalf("%v frame %d packet %d: %+v, want keyframe %v", tt.codec, n, i, d, key)
				}
				if (d.Picture.At != 0) != (tt.pictures && n > 0) || d.Picture.ID != id {
					t.Fatalf("%v frame %d packet %d: %+v, want picture %d", tt.codec, n, i, d.Picture, id)
				}
				if key {
					keyframes++
				}
			}
			if tt.pictures {
				id++
			}
		}
		if keyframes == 0 {
			t.Errorf("%v: no keyframe", tt.codec)
		}
	}
}

// A payloader that never sets P, as if each frame were a keyframe.
func TestVP9WithoutP(t *testing.T) {
	payloader := &codecs.VP9Payloader{FlexibleMode: true, InitialPictureIDFn: func() uint16 { return 5 }}
	p := codec.NewParser(codec.VP9)
	for n := range 10 {
		frame := append(codectest.VP9Frame(n%5 == 0), make([]byte, 900)...)
		payloads := payloader.Payload(400, frame)
		for i, payload := range payloads {
			d := parse(p, payload)
			key := n%5 == 0 && i == 0
			if !d.Known || d.Start != (i == 0) || d.End != (i == len(payloads)-1) || d.Keyframe != key ||
				d.CanSwitch(0, 0) != key || d.Picture.ID != uint16(5+n) {
				t.Fatalf("frame %d packet %d: %+v", n, i, d)
			}
		}
	}
}

func TestH264Payloader(t *testing.T) {
	annexB := func(nals ...[]byte) (b []byte) {
		for _, nal := range nals {
			b = slices.Concat(b, []byte{0, 0, 0, 1}, nal)
		}
		return b
	}
	filler := slices.Repeat([]byte{0x55}, 1000)
	p := codec.NewParser(codec.H264)
	payloader := &codecs.H264Payloader{}
	for n := range 10 {
		frame := annexB(append([]byte{0x41, 0x9a}, filler...))
		if n%5 == 0 {
			frame = annexB(codectest.H264SPS, codectest.H264PPS, append([]byte{0x65, 0x88}, filler...))
		}
		for i, payload := range payloader.Payload(400, frame) {
			if d := parse(p, payload); !d.Known || d.Start != (i == 0) || d.Keyframe != (i == 0 && n%5 == 0) {
				t.Fatalf("frame %d packet %d: %+v", n, i, d)
			}
		}
	}
}

func TestPut(t *testing.T) {
	for _, c := range []codec.Codec{codec.VP8, codec.VP9} {
		for _, short := range []bool{false, true} {
			for _, layers := range []bool{false, true} {
				for _, noID := range []bool{false, true} {
					f := codectest.Frame{
						Keyframe: true, Picture: 0x1234, TL0: 0x56, ShortID: short, Layers: layers, NoID: noID, First: true,
						Spatials: 1, Body: []byte{1, 2, 3},
					}
					build := codectest.VP8
					if c == codec.VP9 {
						build = codectest.VP9
					}
					payload := build(f)
					d := parse(codec.NewParser(c), payload)
					d.Picture.Put(payload, 0xfedc, 0xba)
					f.Picture, f.TL0 = 0xfedc&0x7fff, 0xba
					if want := build(f); !slices.Equal(payload, want) {
						t.Errorf("%v, %+v:\ngot  % x\nwant % x", c, f, payload, want)
					}
					again := parse(codec.NewParser(c), payload)
					want := d.Picture
					if !noID {
						want.ID = 0x7edc
						if short {
							want.ID = 0x5c
						}
					}
					if layers {
						want.TL0 = 0xba
					}
					if again.Picture != want {
						t.Errorf("%v, %+v: %+v, want %+v", c, f, again.Picture, want)
					}
					for n := range len(payload) { // shorter than what was parsed
						d.Picture.Put(slices.Clone(payload[:n]), 1, 1)
					}
				}
			}
		}
	}
}
