package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

const extDependency = 12

// encoder makes the packets of one stream of a synthetic simulcast.
type encoder struct {
	mime     string
	rid      string
	ssrc     uint32
	layer    byte
	packets  int // of a frame
	seq      uint16
	offset   uint32 // of its timestamps
	picture  uint16
	base     uint8
	frame    uint32
	writer   *codectest.Writer
	keyframe bool // is due
}

func newEncoder(mime, rid string, layer byte, packets int, rng *rand.Rand) *encoder {
	return &encoder{
		mime: mime, rid: rid, layer: layer, packets: packets, keyframe: true,
		ssrc: rng.Uint32(), seq: uint16(rng.Uint32()), offset: rng.Uint32(),
		picture: uint16(rng.Uint32()) & 0x7fff, base: uint8(rng.Uint32()),
		writer: codectest.NewWriter(codectest.L1T1, uint16(rng.Uint32())),
	}
}

// body is what a packet carries beside the headers of its codec.
func (e *encoder) body(part int, keyframe bool) []byte {
	b := []byte{e.layer, byte(part), byte(e.packets), 0}
	if keyframe {
		b[3] = 1
	}
	b = binary.BigEndian.AppendUint32(b, e.frame)
	return append(b, bytes.Repeat([]byte{e.layer ^ byte(e.frame)}, 90)...)
}

// next returns the packets of the next frame, captured at that time since the start.
func (e *encoder) next(at time.Duration) (out []*rtp.Packet) {
	keyframe := e.keyframe
	e.keyframe = false
	dependency := e.writer.Picture(keyframe)[0]
	for part := range e.packets {
		first, last := part == 0, part == e.packets-1
		body := e.body(part, keyframe)
		f := codectest.Frame{
			Keyframe: keyframe, Picture: e.picture, Layers: true, TL0: e.base, Predicted: true,
			First: first, Last: last, Body: body,
		}
		p := &rtp.Packet{Header: rtp.Header{
			Version: 2, PayloadType: vp8, SequenceNumber: e.seq, SSRC: e.ssrc, Marker: last,
			Timestamp: e.offset + toClock(at, videoClock),
		}}
		switch e.mime {
		case "video/VP8":
			p.Payload = codectest.VP8(f)
		case "video/VP9":
			p.Payload = codectest.VP9(f)
		case "video/H264":
			p.Payload = append([]byte{0x61}, body...) // a slice of another picture
			if keyframe && first {
				p.Payload = codectest.H264STAP(codectest.H264SPS, codectest.H264PPS, append([]byte{0x65}, body...))
			}
		case "video/AV1":
			p.Payload = codectest.AV1(keyframe && first, body)
			if err := p.SetExtension(extDependency, dependency.Packet(first, last)); err != nil {
				panic(err)
			}
		}
		if err := p.SetExtension(extRID, []byte(e.rid)); err != nil {
			panic(err)
		}
		e.seq++
		out = append(out, p)
	}
	e.frame++
	e.picture = (e.picture + 1) & 0x7fff
	e.base++
	return out
}

// frameTicks is the time between two frames of an encoder, 40 ms, in ticks of the clock.
const frameTicks = 3600

// simulcastOf returns an endpoint with a simulcast of two or more layers and its publication.
func (r *rig) simulcastOf(mime string, rids ...string) (*endpoint, *Publication) {
	r.t.Helper()
	e := r.endpoint(gcm)
	up := e.videoUplink()
	up.SSRCs, up.RIDs = nil, rids
	up.Codecs = []Codec{{PayloadType: vp8, Mime: mime, ClockRate: videoClock}}
	up.Ext.Dependency = extDependency
	e.peer.SetUplinks([]Uplink{up})
	return e, e.publish(PublicationConfig{Source: Camera, RIDs: rids, Codec: codec.Of(mime)})
}

// report sends the sender reports of the layers.
func (e *endpoint) reportLayers(at time.Duration, layers []*encoder) {
	for _, l := range layers {
		e.tell(&rtcp.SenderReport{SSRC: l.ssrc, NTPTime: toNTP(time.Unix(5_000, 0).Add(at)), RTPTime: l.offset + toClock(at, videoClock)})
	}
}

// continuity checks what a receiver gets of a video.
type continuity struct {
	t        testing.TB
	mime     string
	started  bool
	seq      uint16
	ts       uint32
	frame    uint32 // of the layer
	layer    byte
	picture  uint16
	base     uint8
	number   uint16    // of the dependency descriptor
	first    [2]uint32 // frame and timestamp that came first
	drift    int32     // the most that timestamps are off, in ticks
	switches int
	packets  int
	ended    bool
}

func (c *continuity) packet(p *rtp.Packet) {
	c.t.Helper()
	body := p.Payload[len(p.Payload)-98:]
	layer, part, packets, keyframe := body[0], int(body[1]), int(body[2]), body[3] == 1
	frame := binary.BigEndian.Uint32(body[4:])
	if !bytes.Equal(body[8:], bytes.Repeat([]byte{layer ^ byte(frame)}, 90)) {
		c.t.Fatalf("packet %d: payload is not what was sent", c.packets)
	}
	var picture uint16
	var base uint8
	switch c.mime {
	case "video/VP8":
		picture, base = binary.BigEndian.Uint16(p.Payload[2:])&0x7fff, p.Payload[4]
	case "video/VP9":
		picture, base = binary.BigEndian.Uint16(p.Payload[1:])&0x7fff, p.Payload[4]
	}
	var number uint16
	if c.mime == "video/AV1" {
		number = binary.BigEndian.Uint16(p.GetExtension(extDependency)[1:])
	}
	if c.started {
		if p.SequenceNumber != c.seq+1 {
			c.t.Fatalf("packet %d: sequence number %d after %d", c.packets, p.SequenceNumber, c.seq)
		}
		if changed := layer != c.layer; changed || frame != c.frame {
			if part != 0 || !c.ended {
				c.t.Fatalf("packet %d: part %d of frame %d of layer %d begins, the one before has ended: %v", c.packets, part, frame, layer, c.ended)
			}
			if changed {
				c.switches++
				if !keyframe {
					c.t.Fatalf("packet %d: layer %d after %d, not with a keyframe", c.packets, layer, c.layer)
				}
			}
			if d := int32(p.Timestamp - c.ts); d <= 0 || d > videoClock/4 {
				c.t.Fatalf("packet %d: timestamp %d after %d", c.packets, p.Timestamp, c.ts)
			}
			c.picture, c.base, c.number = (c.picture+1)&0x7fff, c.base+1, c.number+1
		} else if p.Timestamp != c.ts {
			c.t.Fatalf("packet %d: timestamp %d in a frame of %d", c.packets, p.Timestamp, c.ts)
		}
		if c.mime == "video/VP8" || c.mime == "video/VP9" {
			if picture != c.picture || base != c.base {
				c.t.Fatalf("packet %d: picture %d, base %d, want %d, %d", c.packets, picture, base, c.picture, c.base)
			}
		}
		if c.mime == "video/AV1" && number != c.number {
			c.t.Fatalf("packet %d: frame number %d, want %d", c.packets, number, c.number)
		}
		ideal := c.first[1] + (frame-c.first[0])*frameTicks
		c.drift = max(c.drift, int32(p.Timestamp-ideal), int32(ideal-p.Timestamp))
	} else if c.first = [2]uint32{frame, p.Timestamp}; !keyframe || part != 0 {
		c.t.Fatalf("the first packet is part %d of frame %d, a keyframe: %v", part, frame, keyframe)
	}
	c.started, c.seq, c.ts, c.layer, c.frame = true, p.SequenceNumber, p.Timestamp, layer, frame
	c.picture, c.base, c.number = picture, base, number
	c.ended = p.Marker
	if last := part == packets-1; last != p.Marker {
		c.t.Fatalf("packet %d: marker %v of part %d of %d", c.packets, p.Marker, part, packets)
	}
	c.packets++
}

// The receiver's target changes every 200 ms for a minute, the senders make a keyframe that often
// or only when asked to: what arrives is one stream, in which each change begins at a keyframe.
func TestSwitchStorm(t *testing.T) {
	for _, mime := range []string{"video/VP8", "video/VP9", "video/H264", "video/AV1"} {
		for _, asked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/asked=%v", mime, asked), func(t *testing.T) {
				r := newRig(t)
				rng := rand.New(rand.NewPCG(1, 2))
				rids := []string{"l", "m", "h"}
				speaker, pub := r.simulcastOf(mime, rids...)
				viewer := r.endpoint(gcm)
				sub := viewer.subscribeAs(pub, SubscriptionConfig{
					SSRC: 9, PayloadType: 96, Ext: Extensions{TWCC: 5, Dependency: extDependency},
				})
				var layers []*encoder
				for i, rid := range rids {
					layers = append(layers, newEncoder(mime, rid, byte(i), 1+2*i, rng))
				}
				check := &continuity{t: t, mime: mime}
				const frame = time.Second * frameTicks / videoClock
				start := r.clock()
				for n := range int(time.Minute / frame) {
					at := r.clock().Sub(start)
					if n%5 == 0 {
						to := target{layer: int8(n / 5 % 3), spatial: maxSpatials - 1, temporal: maxTemporals - 1}
						sub.target.Store(to.pack())
						pub.RequestKeyframe()
					}
					if n%25 == 1 {
						speaker.reportLayers(at, layers)
					}
					var batch []*rtp.Packet
					for i, l := range layers {
						l.keyframe = l.keyframe || !asked && n%5 == 0
						packets := l.next(at)
						// The layers' packets come mixed.
						if i == 1 {
							batch = append(packets, batch...)
						} else {
							batch = append(batch, packets...)
						}
					}
					for _, p := range batch {
						speaker.read.Receive(speaker.seal(p), speaker.path)
					}
					r.flush()
					_, told := speaker.sent()
					for _, pli := range find[*rtcp.PictureLossIndication](told) {
						for _, l := range layers {
							l.keyframe = l.keyframe || pli.MediaSSRC == l.ssrc && asked
						}
					}
					for _, p := range viewer.heard() {
						check.packet(p)
					}
					r.advance(frame)
				}
				if want := 290; !asked && check.switches < want || check.switches < 40 {
					t.Errorf("%d changes of the layer in a minute", check.switches)
				}
				// All layers are captured at once: 40 ms is what people notice of sound and picture.
				if limit := int32(videoClock * 40 / 1000); check.drift > limit {
					t.Errorf("timestamps are up to %d ticks off, want at most %d", check.drift, limit)
				}
				t.Logf("%d packets, %d changes", check.packets, check.switches)
			})
		}
	}
}
