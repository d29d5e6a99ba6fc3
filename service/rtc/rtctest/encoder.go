package rtctest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pion/rtp"

	"rtcd/service/rtc/codec/codectest"
)

const (
	// packetBody is the most that a packet carries behind its payload descriptor, in bytes.
	packetBody = 1100
	// keyframeFactor is how much larger a keyframe is than the frames between.
	keyframeFactor = 3
	// videoClock is the clock rate of all video codecs, in Hz.
	videoClock = 90000
)

// temporalPattern is the order of the temporal layers of successive pictures, by their number.
func temporalPattern(layers int) []uint8 {
	switch layers {
	case 2:
		return []uint8{0, 1}
	case 3:
		return []uint8{0, 2, 1, 2}
	default:
		return []uint8{0}
	}
}

// An encoder makes the packets of one RTP stream: no pictures, but frames that refer to each other
// as those of a real one do. It is not for concurrent use.
//
// A frame of temporal layer t refers to the last of its spatial layer in a lower temporal layer (in
// layer 0 itself, for t = 0), and to that of the spatial layer below in the same picture.
type encoder struct {
	source string
	layer  uint8
	cfg    Layer
	codec  packetizer
	opaque bool
	salt   uint16
	random *rand.Rand

	sequence  uint16 // of the next packet
	timestamp uint32 // of what is captured at the beginning
	epoch     time.Time

	picture   uint32 // of the next picture
	frame     uint32 // of the next frame
	pattern   []uint8
	position  int // in the pattern
	pictureID uint16
	tl0       uint8
	last      [4][4]uint32 // frame number after the last one, by spatial and temporal layer; 0: none

	dependencies *codectest.Writer // nil: no dependency descriptors
}

// coded is one frame of one spatial layer, as packetizers need to know it.
type coded struct {
	key       bool // the picture is a keyframe
	spatial   uint8
	temporal  uint8
	spatials  uint8 // of the stream
	sync      bool  // refers, within its spatial layer, to temporal layer 0 only
	below     bool  // refers to the spatial layer below
	top       bool  // nothing refers to it
	pictureID uint16
	tl0       uint8
	frame     uint32
	refs      []uint32 // how many frames before this one they are
	opaque    bool
}

// packetizer knows how a codec's payloads look.
type packetizer interface {
	// payload returns what stands before the body in packet number i of n of a frame. unchecked is
	// how much of it a forwarder may rewrite: its first bytes.
	payload(f *coded, i, n, body int) (b []byte, unchecked int)
}

func newEncoder(source string, layer int, cfg Layer, codec packetizer, random *rand.Rand, salt uint16, epoch time.Time) *encoder {
	e := &encoder{
		source: source, layer: uint8(layer), cfg: cfg, codec: codec, random: random, salt: salt, epoch: epoch,
		// Half the streams begin shortly before one of their counters rolls over.
		sequence: uint16(random.Uint32()), timestamp: random.Uint32(), pictureID: uint16(random.Uint32() & 0x7fff),
		tl0: uint8(random.Uint32()), pattern: temporalPattern(cfg.Temporals),
	}
	if random.Uint32()&1 == 0 {
		e.sequence |= 0xff00
		e.pictureID |= 0x7f80
	}
	return e
}

// describeDependencies makes the encoder write dependency descriptors.
func (e *encoder) describeDependencies() error {
	var mode codectest.Mode
	switch is := e.cfg; {
	case is.Spatials <= 1 && is.Temporals <= 1:
		mode = codectest.L1T1
	case is.Spatials <= 1 && is.Temporals == 3:
		mode = codectest.L1T3
	case is.Spatials == 3 && is.Temporals == 3 && is.Apart:
		mode = codectest.L3T3Key
	case is.Spatials == 3 && is.Temporals == 3:
		mode = codectest.L3T3
	default:
		return fmt.Errorf("describe dependencies of %d spatial and %d temporal layers: not known", is.Spatials, is.Temporals)
	}
	e.dependencies = codectest.NewWriter(mode, uint16(e.random.Uint32()))
	return nil
}

// next makes the packets of the next picture, without what differs between the receivers: SSRC,
// payload type and header extensions but the dependency descriptor, which is apart.
func (e *encoder) next(captured time.Time, key bool) []coming {
	key = key || e.picture == 0
	if key {
		e.position = 0
		e.last = [4][4]uint32{}
	}
	temporal := e.pattern[e.position]
	e.position = (e.position + 1) % len(e.pattern)
	if temporal == 0 {
		e.tl0++
	}
	e.pictureID = (e.pictureID + 1) & 0x7fff

	size := e.cfg.Bitrate / 8 / max(e.cfg.FPS, 1)
	if key {
		size *= keyframeFactor
	}
	elapsed := captured.Sub(e.epoch)
	header := rtp.Header{
		Version:   2,
		Timestamp: e.timestamp + uint32(elapsed.Microseconds()*videoClock/1e6),
	}
	var dependencies []codectest.LayerFrame
	if e.dependencies != nil {
		dependencies = e.dependencies.Picture(key)
	}
	var out []coming
	spatials := max(e.cfg.Spatials, 1)
	weights := 1<<spatials - 1
	for spatial := range spatials {
		f := e.code(key, uint8(spatial), temporal)
		s := stamp{
			source: e.source, layer: e.layer, spatial: f.spatial, temporal: temporal, keyframe: key && spatial == 0,
			picture: e.picture, frame: f.frame, captured: captured.UnixMicro(), salt: e.salt,
		}
		for i, ref := range f.refs {
			s.refs[i] = uint16(ref)
		}
		packets := e.packetize(header, &f, s, size<<spatial/weights)
		for i := range packets {
			if dependencies != nil {
				packets[i].dependency = dependencies[spatial].Packet(i == 0, i == len(packets)-1)
			}
		}
		out = append(out, packets...)
	}
	e.picture++
	out[len(out)-1].packet.Marker = true
	return out
}

// code decides what the next frame refers to.
func (e *encoder) code(key bool, spatial, temporal uint8) coded {
	f := coded{
		key: key, spatial: spatial, temporal: temporal,
		spatials: uint8(max(e.cfg.Spatials, 1)), top: int(temporal) > 0 && int(temporal) == e.cfg.Temporals-1,
		pictureID: e.pictureID, tl0: e.tl0, frame: e.frame, opaque: e.opaque,
	}
	e.frame++
	if !key {
		newest := e.last[spatial][0]
		f.sync = temporal > 0
		for lower := uint8(1); lower < temporal; lower++ {
			if e.last[spatial][lower] > newest {
				newest, f.sync = e.last[spatial][lower], false
			}
		}
		if newest > 0 {
			f.refs = append(f.refs, f.frame+1-newest)
		}
	}
	if f.below = spatial > 0 && (key || !e.cfg.Apart); f.below {
		f.refs = append(f.refs, 1)
	}
	e.last[spatial][temporal] = f.frame + 1
	return f
}

// packetize splits a frame of about that many bytes.
func (e *encoder) packetize(header rtp.Header, f *coded, s stamp, size int) []coming {
	n := max(1, (size+packetBody-1)/packetBody)
	fill := max(0, size/n-stampSize) / 8
	s.packets = uint16(n)
	out := make([]coming, n)
	for i := range out {
		payload, unchecked := e.codec.payload(f, i, n, fill*8+stampSize)
		for range fill {
			payload = binary.BigEndian.AppendUint64(payload, e.random.Uint64())
		}
		s.packet = uint16(i)
		h := header
		h.SequenceNumber = e.sequence
		e.sequence++
		out[i].packet = rtp.Packet{Header: h, Payload: s.append(payload, unchecked)}
	}
	return out
}

// coming is a packet that is to be sent at a time.
type coming struct {
	packet     rtp.Packet
	dependency []byte
	due        time.Time
}
