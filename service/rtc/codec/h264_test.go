package codec_test

import (
	"slices"
	"strings"
	"testing"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

func TestH264(t *testing.T) {
	var (
		sps, pps = codectest.H264SPS, codectest.H264PPS
		high     = []byte{0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60}
		idr      = []byte{0x65, 0x88, 0x84, 1, 2}
		slice    = []byte{0x41, 0x9a, 1, 2}
	)
	const start, key, known, none = "start", "key", "known", ""
	tests := []struct {
		name    string
		packets [][]byte
		want    []string
	}{
		{"nothing is known before parameter sets", [][]byte{slice, idr}, []string{none, none}},
		{"STAP-A of all", [][]byte{codectest.H264(true, nil), slice, slice}, []string{key, start, start}},
		{"STAP-A of parameter sets", [][]byte{codectest.H264STAP(sps, pps), idr, slice}, []string{key, known, start}},
		{"single units", [][]byte{sps, pps, {0x06, 5, 1, 0}, idr, slice}, []string{key, known, known, known, start}},
		{"high profile", [][]byte{high, pps, idr, slice}, []string{key, known, known, start}},
		{"delimiters", [][]byte{{0x09, 0x10}, sps, pps, idr, {0x09, 0x30}, slice}, []string{none, key, known, known, start, known}},
		{"delimiter in the STAP-A", [][]byte{codectest.H264STAP([]byte{0x09, 0x10}, sps, pps), idr}, []string{key, known}},
		{"FU-A", [][]byte{codectest.H264STAP(sps, pps), {0x7c, 0x85, 0x88, 1}, {0x7c, 0x05, 1}, {0x7c, 0x45, 1}, {0x5c, 0x81, 0x9a}, {0x5c, 0x41, 1}},
			[]string{key, known, known, known, start, known}},
		{"several slices", [][]byte{codectest.H264STAP(sps, pps), idr, {0x65, 0x08, 1}, slice, {0x41, 0x5a}}, []string{key, known, known, start, known}},
		{"parameter sets lost once", [][]byte{sps, pps, idr, slice, idr, slice}, []string{key, known, known, start, start, start}},
		{"parameter sets only once", [][]byte{sps, pps, idr, idr, idr, idr}, []string{key, known, known, start, start, key}},
		{"parameter sets again", [][]byte{sps, pps, idr, idr, idr, idr, sps, pps, idr, idr}, []string{key, known, known, start, start, key, key, known, known, start}},
		{"STAP-B, MTAP and FU-B", [][]byte{sps, {0x79, 1, 2}, {0x7a, 1, 2}, {0x7b, 1, 2}, {0x7d, 0x85, 2}, {0x0e, 1}}, []string{key, known, known, known, known, known}},
		{"forbidden bit", [][]byte{sps, {0xe5, 0x88}, slice}, []string{key, none, none}},
		{"reserved types", [][]byte{sps, {0x7e, 0x88}, slice}, []string{key, none, none}},
		{"type 0", [][]byte{sps, {0x60, 0x88}, slice}, []string{key, none, none}},
		{"IDR that nothing refers to", [][]byte{sps, {0x05, 0x88}, slice}, []string{key, none, none}},
		{"STAP-A with a size too large", [][]byte{sps, {0x78, 0, 3, 0x65, 0x88}, slice}, []string{key, none, none}},
		{"STAP-A with a size of 0", [][]byte{sps, {0x78, 0, 0, 0x65, 0x88}, slice}, []string{key, none, none}},
		{"STAP-A cut within a size", [][]byte{sps, {0x78, 0, 1, 0x09, 0}, slice}, []string{key, none, none}},
		{"STAP-A within a STAP-A", [][]byte{sps, codectest.H264STAP(codectest.H264STAP(slice)), slice}, []string{key, none, none}},
		{"FU-A with both ends", [][]byte{sps, {0x7c, 0xc5, 0x88}, slice}, []string{key, none, none}},
		{"FU-A with the reserved bit", [][]byte{sps, {0x7c, 0x25, 0x88}, slice}, []string{key, none, none}},
		{"FU-A of a FU-A", [][]byte{sps, {0x7c, 0x1c, 0x88}, slice}, []string{key, none, none}},
		{"FU-A of parameter sets", [][]byte{sps, slices.Concat([]byte{0x7c, 0x87}, sps[1:]), slice}, []string{key, none, none}},
		{"padding", [][]byte{sps, {}, slice}, []string{key, none, known}},
		{"end of sequence", [][]byte{sps, idr, {0x0a}, slice}, []string{key, known, known, start}},
		{"FU-A cut off", [][]byte{sps, {0x7c}, slice}, []string{key, none, none}},
		{"slice cut off", [][]byte{sps, {0x41}, slice}, []string{key, none, none}},
		{"parameter sets cut off", [][]byte{{0x67}, slice}, []string{none, none}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := codec.NewParser(codec.H264)
			for i, payload := range tt.packets {
				want := codec.Descriptor{}
				switch tt.want[i] {
				case key:
					want = codec.Descriptor{Start: true, Keyframe: true, Known: true, Switch: all, Spatials: 1, Temporals: 1}
				case start:
					want = codec.Descriptor{Start: true, Known: true, Spatials: 1, Temporals: 1}
				case known:
					want = codec.Descriptor{Known: true, Spatials: 1, Temporals: 1}
				}
				if got := parse(p, payload); got != want {
					t.Errorf("packet %d (% x): got %+v, want %+v", i, payload, got, want)
				}
			}
		})
	}
}

// Parameter sets as encoders write them. Those that end elsewhere prove nothing.
func TestH264ParameterSets(t *testing.T) {
	for name, sps := range map[string][]byte{
		"baseline, nothing optional": {0x67, 0x42, 0x00, 0x0a, 0xf8, 0x41, 0xa2},
		"OpenH264":                   {0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x1e, 0x90, 0x0f, 0x08, 0x84, 0x6a},
		"cropped":                    {0x67, 0x42, 0xe0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84, 0x6a},
		"with usability information": codectest.H264SPS,
		// Order of pictures by a cycle of two; scaling lists, one with an end; HRD; interlaced.
		"everything": slices.Concat([]byte{0x67, 0x64, 0x00, 0x1f}, packBits(
			"1", "00100", "0", "1", "1", "0", "1", // id 0; 4:4:4 (ue 3), one plane; depths; lists follow
			"1", "0001001", "00100", strings.Repeat("1", 14), // the first list: -4, +2, as before
			"0", "0", "0", "0", "0", "0", "0", "0", "0", "0", // other lists are not there
			"1", "000010001", // the last list: delta -8, so that it ends at once
			"1", "010", "1", "1", "1", "011", "1", "1", // frame number; order 1, a cycle of two
			"011", "0", // reference frames, gaps
			"000010011", "00000101000", // 19 by 40 macroblocks
			"0", "1", "1", // fields, adaptive; direct
			"1", "1", "1", "1", "010", // cropping
			"1",                                                     // usability
			"1", "11111111", "0000000000000001", "0000000000000001", // aspect ratio
			"1", "0", // overscan
			"1", "1010", "1", "000000010000000100000001", // signal, colours
			"1", "1", "1", // chroma
			"1", strings.Repeat("01", 32), "1", // timing
			"1", "010", "00000000", "010", "010", "1", "1", "1", "0", "01111011110111101111", // HRD of two buffers
			"0", "0", // none of slices; low delay
			"1", "1", "1", "1", "1", "1", "1", "010", "010", // pictures; restrictions
			"1")),
	} {
		p := codec.NewParser(codec.H264)
		if got := parse(p, sps); !got.Keyframe {
			t.Errorf("%s: %+v, want a keyframe", name, got)
		}
		for _, wrong := range [][]byte{append(slices.Clone(sps), 0x55), sps[:len(sps)-1]} {
			if got := parse(codec.NewParser(codec.H264), wrong); got.Known {
				t.Errorf("%s, % x: %+v, want nothing", name, wrong, got)
			}
		}
		// In a STAP-A the sizes prove enough.
		if got := parse(codec.NewParser(codec.H264), codectest.H264STAP(append(slices.Clone(sps), 0x55))); !got.Keyframe {
			t.Errorf("%s, in a STAP-A: %+v, want a keyframe", name, got)
		}
	}
}

// A stream that has its parameter sets out of band is believed after a run of plausible packets.
func TestH264WithoutParameterSets(t *testing.T) {
	p := codec.NewParser(codec.H264)
	for i := range 15 {
		if got := parse(p, []byte{0x41, 0x9a, 1}); got.Known {
			t.Fatalf("packet %d: %+v, want nothing", i, got)
		}
	}
	if got := parse(p, []byte{0x41, 0x9a, 1}); !got.Known || got.Keyframe {
		t.Errorf("after a run: %+v", got)
	}
	if got := parse(p, []byte{0x65, 0x88, 1}); !got.Keyframe || !got.Start || got.Switch != all {
		t.Errorf("IDR: %+v, want a keyframe", got)
	}
	// So are parameter sets of a profile that is not known.
	if got := parse(p, []byte{0x67, 0x01, 0xff, 0xff, 1, 2, 3, 4}); !got.Keyframe {
		t.Errorf("unusual parameter sets: %+v, want a keyframe", got)
	}
}

func TestH264ProfileOfParameters(t *testing.T) {
	tests := []struct {
		fmtp    string
		profile string
		mode    int
	}{
		{"", "baseline", 0},
		{"profile-level-id=42e01f", "constrained-baseline", 0},
		{"profile-level-id=42E01F;packetization-mode=1", "constrained-baseline", 1},
		{"level-asymmetry-allowed=1; packetization-mode=1; profile-level-id=42001f", "baseline", 1},
		{"profile-level-id=42c01e", "constrained-baseline", 0},
		{"profile-level-id=4d8015", "constrained-baseline", 0},
		{"profile-level-id=58c015", "constrained-baseline", 0},
		{"profile-level-id=588015", "baseline", 0},
		{"profile-level-id=580015", "", 0}, // extended
		{"profile-level-id=4d001f;packetization-mode=1", "main", 1},
		{"profile-level-id=4d4015", "main", 0},
		{"profile-level-id=64001f;packetization-mode=2", "high", 2},
		{"profile-level-id=640c1f;packetization-mode=0", "constrained-high", 0},
		{"profile-level-id=64081f", "", 0},
		{"profile-level-id=f4001f", "", 0}, // high 4:4:4 predictive
		{"PROFILE-LEVEL-ID=640034 ; Packetization-Mode = 1", "high", 1},
		{"packetization-mode=1", "baseline", 1},
		{"packetization-mode=3", "baseline", -1},
		{"packetization-mode=", "baseline", -1},
		{"packetization-mode=01", "baseline", -1},
		{"profile-level-id=", "", 0},
		{"profile-level-id=42e0", "", 0},
		{"profile-level-id=42e01f00", "", 0},
		{"profile-level-id=0x42e0", "", 0},
		{"profile-level-id=+2e01f", "", 0},
		{";;=;", "baseline", 0},
	}
	for _, tt := range tests {
		profile, mode := codec.H264Profile(tt.fmtp)
		if profile != tt.profile || mode != tt.mode {
			t.Errorf("%q: %q, mode %d; want %q, %d", tt.fmtp, profile, mode, tt.profile, tt.mode)
		}
	}
}
