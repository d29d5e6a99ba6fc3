package rtctest

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// TestPayloadsOfH264: pion makes of the packets the NAL units that are meant.
func TestPayloadsOfH264(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, bitrate := range []int{30_000, 80_000, 150_000, 1_000_000} {
		e := testEncoder(t, webrtc.MimeTypeH264, 0, Layer{Bitrate: bitrate, FPS: 10, Temporals: 2}, start)
		for picture := range 10 {
			packets := e.next(start, picture == 5)
			d := codecs.H264Packet{IsAVC: true} // length before each NAL unit
			var stream []byte
			for i, p := range packets {
				if size := len(p.packet.Payload); size > 1200 || p.packet.Marker != (i == len(packets)-1) {
					t.Fatalf("packet %d of %d bytes, marker %t", i, size, p.packet.Marker)
				}
				nals, err := d.Unmarshal(p.packet.Payload)
				if err != nil {
					t.Fatalf("%d bit/s, picture %d, packet %d: %v", bitrate, picture, i, err)
				}
				stream = append(stream, nals...)
			}
			var kinds []byte
			for len(stream) > 4 {
				kinds = append(kinds, stream[4]&0x1f)
				stream = stream[4+binary.BigEndian.Uint32(stream):]
			}
			want := []byte{1}
			if picture%5 == 0 {
				want = []byte{7, 8, 5}
				if len(packets) > 1 {
					want = []byte{7, 8, 6, 5}
				}
			}
			if !bytes.Equal(kinds, want) {
				t.Errorf("%d bit/s, picture %d of %d packets has NAL units %v, want %v", bitrate, picture, len(packets), kinds, want)
			}
		}
	}
}

// TestPayloadsOfAV1: pion makes of the packets the OBUs that are meant.
func TestPayloadsOfAV1(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for _, layer := range []Layer{{Bitrate: 50_000, FPS: 10}, {Bitrate: 1_000_000, FPS: 10, Temporals: 3, Spatials: 3}} {
		e := testEncoder(t, webrtc.MimeTypeAV1, 0, layer, start)
		for picture := range 10 {
			var d codecs.AV1Depacketizer
			var stream []byte
			packets := e.next(start, picture == 5)
			for i, p := range packets {
				obus, err := d.Unmarshal(p.packet.Payload)
				if err != nil {
					t.Fatalf("picture %d, packet %d: %v", picture, i, err)
				}
				stream = append(stream, obus...)
			}
			sequence := bytes.Contains(stream, codectest.AV1SequenceHeader[1:])
			if sequence != (picture%5 == 0) || packets[0].packet.Payload[0]&0x08 != 0 != sequence {
				t.Errorf("picture %d: begins with % x", picture, packets[0].packet.Payload[:4])
			}
			if want := layer.Bitrate / 8 / 10; len(stream) < want*8/10 {
				t.Errorf("picture %d has %d bytes, want about %d", picture, len(stream), want)
			}
		}
	}
}

// TestEncoderReferences: a picture refers to those that its temporal and spatial layer have it
// refer to.
func TestEncoderReferences(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	e := testEncoder(t, webrtc.MimeTypeVP9, 0, Layer{Bitrate: 10_000, Temporals: 3, Spatials: 3}, start)
	want := [][][2]uint16{ // by picture and spatial layer
		{{}, {1}, {1}},
		{{3}, {3, 1}, {3, 1}},
		{{6}, {6, 1}, {6, 1}},
		{{3}, {3, 1}, {3, 1}},
		{{12}, {12, 1}, {12, 1}},
		{{3}, {3, 1}, {3, 1}},
		{{}, {1}, {1}}, // asked for
		{{3}, {3, 1}, {3, 1}},
	}
	for picture, refs := range want {
		for spatial, p := range e.next(start, picture == 6) {
			var s stamp
			if _, intact := s.parse(p.packet.Payload); !intact || s.refs != refs[spatial] ||
				s.keyframe != (picture%6 == 0 && spatial == 0) || int(s.spatial) != spatial {
				t.Errorf("picture %d, spatial layer %d: %+v, want references %v", picture, spatial, s, refs[spatial])
			}
			var d codecs.VP9Packet
			if _, err := d.Unmarshal(p.packet.Payload); err != nil || d.P != (picture%6 != 0) || d.D != (spatial > 0) ||
				!d.B || !d.E || d.V != s.keyframe {
				t.Errorf("picture %d, spatial layer %d: %+v, %v", picture, spatial, d, err)
			}
		}
	}
}

// TestParserAgrees: package codec reads out of the packets what the encoder means by them.
func TestParserAgrees(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		mime       string
		layer      Layer
		dependency bool
		opaque     bool
	}{
		"VP8":         {webrtc.MimeTypeVP8, Layer{Temporals: 3}, false, false},
		"VP9":         {webrtc.MimeTypeVP9, Layer{Temporals: 3, Spatials: 3}, false, false},
		"VP9 and DD":  {webrtc.MimeTypeVP9, Layer{Temporals: 3, Spatials: 3, Apart: true}, true, false},
		"H264":        {webrtc.MimeTypeH264, Layer{}, false, false},
		"AV1":         {webrtc.MimeTypeAV1, Layer{}, false, false},
		"AV1 and DD":  {webrtc.MimeTypeAV1, Layer{Temporals: 3, Spatials: 3}, true, false},
		"opaque VP8":  {webrtc.MimeTypeVP8, Layer{Temporals: 3}, true, true},
		"opaque AV1":  {webrtc.MimeTypeAV1, Layer{Temporals: 3, Spatials: 3}, true, true},
		"opaque H264": {webrtc.MimeTypeH264, Layer{}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			c.layer.Bitrate = 600_000
			e := testEncoder(t, c.mime, 0, c.layer, start)
			e.opaque = c.opaque
			if c.dependency {
				if err := e.describeDependencies(); err != nil {
					t.Fatal(err)
				}
			}
			parser := codec.NewParser(codec.Of(c.mime))
			for picture := range 40 {
				for _, p := range e.next(start, picture%15 == 0) {
					var s stamp
					s.parse(p.packet.Payload)
					var d codec.Descriptor
					parser.Parse(p.packet.Payload, p.dependency, &d)
					if d.Known && (d.Spatial != s.spatial || d.Temporal != s.temporal && c.mime != webrtc.MimeTypeH264) ||
						d.Keyframe != (s.keyframe && s.packet == 0) || s.packet == 0 && (!d.Known || !d.Start) {
						t.Fatalf("picture %d: read %+v of %+v", picture, d, s)
					}
					if c.mime == webrtc.MimeTypeVP9 && !c.opaque && (d.Picture.ID != e.pictureID || d.Picture.TL0 != e.tl0) {
						t.Fatalf("picture %d: read %+v, want %d and %d", picture, d.Picture, e.pictureID, e.tl0)
					}
				}
			}
		})
	}
}
