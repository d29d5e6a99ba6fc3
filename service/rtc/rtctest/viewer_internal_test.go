package rtctest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// film makes the packets of a layer's pictures, keyframes where key says so.
func film(t *testing.T, e *encoder, start time.Time, pictures int, key func(i int) bool) []coming {
	t.Helper()
	var out []coming
	period := time.Second / time.Duration(e.cfg.FPS)
	for i := range pictures {
		at := start.Add(time.Duration(i) * period)
		for _, p := range e.next(at, key != nil && key(i)) {
			p.due = at
			out = append(out, p)
		}
	}
	return out
}

func testEncoder(t *testing.T, mime string, layer int, cfg Layer, epoch time.Time) *encoder {
	t.Helper()
	codec, err := newPacketizer(mime)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.FPS == 0 {
		cfg.FPS = 30
	}
	return newEncoder("me", layer, cfg, codec, rand.New(rand.NewPCG(1, uint64(layer))), 7, epoch)
}

// see gives packets to a new viewer at the times they are due, with a tick each 100 ms, and
// returns its view three seconds after the last.
func see(packets []coming, mime string) View {
	v := newViewing(mime, 1, 0)
	at := packets[0].due
	for _, p := range packets {
		for ; !at.After(p.due); at = at.Add(lookEvery) {
			v.tick(at)
		}
		var s stamp
		_, intact := s.parse(p.packet.Payload)
		v.packet(&p.packet, len(p.packet.Payload)+12, &s, intact, false, p.due)
	}
	for range 30 {
		at = at.Add(lookEvery)
		v.tick(at)
	}
	return v.snapshot(at)
}

// renumber makes one stream of packets, as a forwarder has to.
func renumber(packets []coming, pictureIDs bool) {
	var d vp8Fields
	for i := range packets {
		packets[i].packet.SequenceNumber = uint16(65500 + i)
		if pictureIDs {
			d.put(packets[i].packet.Payload)
		}
	}
}

// vp8Fields counts picture ids and TL0PICIDX on.
type vp8Fields struct {
	id, was uint16
	tl0     uint8
	begun   bool
}

func (d *vp8Fields) put(payload []byte) {
	id := uint16(payload[2])<<8 | uint16(payload[3])
	if !d.begun || id != d.was {
		d.id++
		if payload[5]&0xc0 == 0 {
			d.tl0++
		}
	}
	d.begun, d.was = true, id
	id = 0x8000 | d.id&0x7fff
	payload[2], payload[3], payload[4] = byte(id>>8), byte(id), d.tl0
}

func faults(v View) map[string]int {
	out := map[string]int{}
	for name, n := range map[string]int{
		"missing": v.Missing, "jumps": v.Jumps, "bad": v.Bad, "foreign": v.Foreign, "timestamps": v.TimestampFaults,
		"pictures": v.PictureFaults, "levels": v.LevelFaults, "dependencies": v.DependencyFaults,
		"switches": v.SwitchFaults, "incomplete": v.Frames - v.Complete, "not decodable": v.Complete - v.Decodable,
		"duplicates": v.Duplicates,
	} {
		if n != 0 {
			out[name] = n
		}
	}
	return out
}

// TestViewerFinds: each thing that can go wrong is found, and nothing where nothing does.
func TestViewerFinds(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	layer := Layer{Bitrate: 400_000, FPS: 25, Temporals: 3} // two packets a frame
	for name, c := range map[string]struct {
		change func(p []coming) []coming
		want   map[string]int
		at     int // least
	}{
		"nothing":   {func(p []coming) []coming { return p }, map[string]int{}, 0},
		"duplicate": {func(p []coming) []coming { return append(p[:60:60], p[58:]...) }, map[string]int{"duplicates": 2}, 0},
		"reordered": {func(p []coming) []coming { p[50], p[53] = p[53], p[50]; return p }, map[string]int{}, 0},
		"gap between frames": {func(p []coming) []coming {
			for i := range p[80:] {
				p[80+i].packet.SequenceNumber += 5
			}
			return p
		}, map[string]int{"missing": 5}, 0},
		"jump": {func(p []coming) []coming {
			for i := range p[80:] {
				p[80+i].packet.SequenceNumber += 3000
			}
			return p
		}, map[string]int{"jumps": 1, "missing": 3000}, 0},
		"bad byte": {func(p []coming) []coming { p[40].packet.Payload[100] ^= 1; return p }, map[string]int{"bad": 1, "incomplete": 1}, 0},
		"timestamp that goes back": {func(p []coming) []coming {
			for i := range p[80:] {
				p[80+i].packet.Timestamp -= 90000
			}
			return p
		}, map[string]int{"timestamps": 1}, 0},
		"timestamp in a frame": {func(p []coming) []coming { p[41].packet.Timestamp++; return p }, map[string]int{"pictures": 1, "incomplete": 1}, 0},
		"picture id": {func(p []coming) []coming {
			for _, p := range p[80:] {
				id := (uint16(p.packet.Payload[2])<<8|uint16(p.packet.Payload[3]))&0x7fff + 1
				p.packet.Payload[2], p.packet.Payload[3] = 0x80|byte(id>>8), byte(id)
			}
			return p
		}, map[string]int{"pictures": 1}, 0},
		"level": {func(p []coming) []coming {
			for _, p := range p[80:] {
				p.packet.Payload[4]++
			}
			return p
		}, map[string]int{"levels": 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			packets := film(t, testEncoder(t, webrtc.MimeTypeVP8, 0, layer, start), start, 100, nil)
			for i := range packets {
				packets[i].packet.SequenceNumber = uint16(65500 + i)
			}
			got := see(c.change(packets), webrtc.MimeTypeVP8)
			f := faults(got)
			delete(f, "not decodable") // follows from others
			if len(f) != len(c.want) {
				t.Errorf("found %v, want %v", f, c.want)
			}
			for name, n := range c.want {
				if f[name] != n {
					t.Errorf("found %v, want %v", f, c.want)
				}
			}
			if got.Frames < 95 || got.Temporal != 2 {
				t.Errorf("view %+v", got)
			}
		})
	}
}

// TestViewerDecodes: frames are decodable if what they refer to is.
func TestViewerDecodes(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	layer := Layer{Bitrate: 100_000, FPS: 20, Temporals: 3} // one packet a frame, but the keyframe
	without := func(pictures ...uint32) View {
		packets := film(t, testEncoder(t, webrtc.MimeTypeVP8, 0, layer, start), start, 100, nil)
		kept := packets[:0]
	next:
		for _, p := range packets {
			var s stamp
			s.parse(p.packet.Payload)
			for _, gone := range pictures {
				if s.picture == gone {
					continue next
				}
			}
			kept = append(kept, p)
		}
		return see(kept, webrtc.MimeTypeVP8)
	}
	if v := without(41); v.Frames != 99 || v.Decodable != 99 || v.Missing != 1 { // temporal layer 2
		t.Errorf("without a frame that no other needs: %+v", v)
	}
	if v := without(42); v.Decodable != 98 { // layer 1, for the one after it
		t.Errorf("without a frame that one other needs: %+v", v)
	}
	v := without(40) // layer 0, for all after it
	if v.Decodable != 40 || v.Freezes != 1 || v.Frozen < 2*time.Second || v.Asked < 2 {
		t.Errorf("without a frame that all others need: %+v", v)
	}
}

// TestViewerOfSwitches: layers, what they change to, and whether that begins at a keyframe.
func TestViewerOfSwitches(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	layers := []Layer{{Bitrate: 100_000, FPS: 20}, {Bitrate: 500_000, FPS: 20, Temporals: 3}}
	both := make([][]coming, 2)
	for i, layer := range layers {
		both[i] = film(t, testEncoder(t, webrtc.MimeTypeVP8, i, layer, start), start, 100, func(i int) bool { return i%20 == 0 })
	}
	stream := func(layerAt func(picture uint32) int, temporalAt func(picture uint32) uint8) []coming {
		var out []coming
		for picture := range uint32(100) {
			for layer, packets := range both {
				for _, p := range packets {
					var s stamp
					s.parse(p.packet.Payload)
					if s.picture == picture && layer == layerAt(picture) && s.temporal <= temporalAt(picture) {
						p.packet.Payload = append([]byte(nil), p.packet.Payload...)
						p.packet.Timestamp = uint32(picture) * 4500
						out = append(out, p)
					}
				}
			}
		}
		renumber(out, true)
		return out
	}
	all := func(uint32) uint8 { return 2 }

	v := see(stream(func(picture uint32) int { return int(picture/20) % 2 }, all), webrtc.MimeTypeVP8)
	if f := faults(v); len(f) > 0 || v.Switches != 4 || v.Layer != 0 {
		t.Errorf("switches at keyframes: %v in %+v", f, v)
	}
	v = see(stream(func(picture uint32) int { return int((picture+3)/20) % 2 }, all), webrtc.MimeTypeVP8)
	if v.Switches != 5 || v.SwitchFaults != 5 || v.Complete == v.Decodable {
		t.Errorf("switches elsewhere: %+v", v)
	}
	v = see(stream(func(uint32) int { return 1 }, func(picture uint32) uint8 {
		if picture >= 40 && picture < 80 {
			return 0
		}
		return 2
	}), webrtc.MimeTypeVP8)
	var seen []int
	for _, h := range v.History {
		seen = append(seen, h.Temporal)
	}
	if f := faults(v); len(f) > 0 || len(seen) != 4 || seen[2] != 0 || seen[3] != 2 || v.Switches != 0 {
		t.Errorf("temporal layers %v, %v in %+v", seen, f, v)
	}
}

// TestViewerToleratesPadding: packets without payload take part in the sequence only.
func TestViewerToleratesPadding(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	packets := film(t, testEncoder(t, webrtc.MimeTypeVP8, 0, Layer{Bitrate: 400_000}, start), start, 60, nil)
	var out []coming
	for _, p := range packets {
		out = append(out, p)
		if p.packet.Marker {
			padding := coming{due: p.due, packet: rtp.Packet{Header: rtp.Header{Version: 2, Timestamp: p.packet.Timestamp}}}
			out = append(out, padding)
		}
	}
	for i := range out {
		out[i].packet.SequenceNumber = uint16(i)
	}
	if v := see(out, webrtc.MimeTypeVP8); len(faults(v)) > 0 || v.Padding != 60 || v.Frames != 60 {
		t.Errorf("%v in %+v", faults(v), v)
	}
}
