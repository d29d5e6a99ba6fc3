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

// F18: five receivers ask for all they can as often as they can. The sender is asked for a keyframe
// once a second, what is sent again is a quarter of what is sent, and two who ask for nothing get
// all that there is.
func TestFeedbackStorm(t *testing.T) {
	const seconds, perSecond = 10, 200
	sh := newShow(t, styles[0], 500)
	for range 5 {
		sh.join(SubscriptionConfig{
			PayloadType: 97, Ext: Extensions{TWCC: 5, Dependency: 8}, Repair: 0x888, RepairPayloadType: 98,
		})
	}
	random := rand.New(rand.NewPCG(1, 2))
	sh.pictures(1)
	answered := 0
	for i := range seconds * perSecond {
		for _, v := range sh.receivers[2:] {
			newest := uint16(500 + i)
			for n := range v.got {
				newest = n
				break
			}
			var feedback rtcp.TransportLayerCC
			feedback.BaseSequenceNumber, feedback.PacketStatusCount = uint16(random.Uint32()), 5000
			feedback.PacketChunks = []rtcp.PacketStatusChunk{&rtcp.RunLengthChunk{Type: 0, PacketStatusSymbol: 0, RunLength: 5000}}
			feedback.Header = rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5}
			parts := []rtcp.Packet{
				&feedback,
				&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: float32(random.Uint32N(1 << 30))},
				&rtcp.FullIntraRequest{FIR: []rtcp.FIREntry{{SSRC: 0x777}, {SSRC: 0x777}}},
				&rtcp.TransportLayerNack{MediaSSRC: 0x777, Nacks: []rtcp.NackPair{
					{PacketID: newest, LostPackets: 0xffff}, {PacketID: newest - 17, LostPackets: 0xffff}, {PacketID: uint16(random.Uint32())},
				}},
			}
			for range 5 {
				parts = append(parts, &rtcp.PictureLossIndication{MediaSSRC: 0x777})
			}
			v.tell(parts...)
			v.tell(parts...) // over the rate
		}
		sh.collect()
		if i%7 == 0 {
			key := byte(0)
			if len(sh.asked) > answered {
				key, answered = 1, len(sh.asked)
			}
			sh.pictures(key)
			sh.advance(-28 * time.Millisecond) // pictures moves it by 33
		} else {
			sh.advance(5 * time.Millisecond)
		}
		if i%20 == 0 {
			sh.tick()
			sh.collect()
		}
	}
	last := make(map[uint32]time.Duration)
	for _, a := range sh.asked {
		if before, ok := last[a.ssrc]; ok && a.at-before < keyframeEvery {
			t.Errorf("SSRC %x was asked for a keyframe at %v and %v", a.ssrc, before, a.at)
		}
		last[a.ssrc] = a.at
	}
	if n := len(sh.asked); n > 3*(seconds+1) || n < seconds-1 {
		t.Errorf("%d keyframes asked for in %d s, want about one per stream and second", n, seconds)
	}
	for i, v := range sh.receivers[2:] {
		if v.again == 0 || v.again*resendShare > v.media+v.again {
			t.Errorf("receiver %d: %d bytes sent again, of %d", i, v.again, v.media)
		}
	}
	for i, v := range sh.receivers[:2] {
		sh.checkReceiver(fmt.Sprintf("receiver %d", i), v)
		if v.sub.Stats().Packets < 500 {
			t.Errorf("receiver %d: %+v", i, v.sub.Stats())
		}
	}
	s := sh.plane.Stats()
	if got, most := s.Feedbacks[FeedbackNACK], uint64(5*perSecond*(seconds+1)); got > most {
		t.Errorf("%d NACKs were looked at, want no more than %d", got, most)
	}
	if s.RateLimited == 0 || s.Drops[DropMalformed] != 0 {
		t.Errorf("%d reports over the rate, %d malformed", s.RateLimited, s.Drops[DropMalformed])
	}
}

// stageLayers is a camera with three layers of very different rates, and its viewers.
type stageLayers struct {
	*rig
	speaker *endpoint
	pub     *Publication
	picture uint16
	seqs    [3]uint16
	bodies  [3][]byte
}

// layersOf sends 100 kbit/s, 1 Mbit/s and 4 Mbit/s.
func layersOf(t testing.TB) *stageLayers {
	r := newRig(t)
	s := &stageLayers{rig: r, speaker: r.endpoint(gcm)}
	up := s.speaker.videoUplink()
	up.SSRCs, up.RIDs = nil, []string{"l", "m", "h"}
	s.speaker.peer.SetUplinks([]Uplink{up})
	s.pub = s.speaker.publish(PublicationConfig{Source: Camera, Codec: codec.VP8, RIDs: up.RIDs})
	for i, n := range []int{350, 1050, 1050} {
		s.bodies[i] = bytes.Repeat([]byte{byte(i)}, n)
	}
	return s
}

// frame sends the next frame of each layer, 30 a second.
func (s *stageLayers) frame(key bool) {
	s.picture++
	for layer, count := range []int{1, 4, 16} {
		for i := range count {
			p := &rtp.Packet{Header: rtp.Header{
				Version: 2, PayloadType: vp8, SSRC: uint32(0x100 + layer), SequenceNumber: s.seqs[layer],
				Timestamp: uint32(s.picture) * 3000, Marker: i == count-1,
			}}
			s.seqs[layer]++
			s.speaker.must(p.SetExtension(extRID, []byte{"lmh"[layer]}))
			p.Payload = codectest.VP8(codectest.Frame{
				Keyframe: key, Picture: s.picture & 0x7fff, First: i == 0, Last: i == count-1, Body: s.bodies[layer],
			})
			s.speaker.read.Receive(s.speaker.seal(p), s.speaker.path)
		}
	}
	s.flush()
}

// A receiver that lies about when packets arrive, or whether they do, is never sent more than the
// most that an estimate may be, costs another receiver nothing, and is sent no padding without a
// video.
func TestLiesAboutArrivals(t *testing.T) {
	type lie struct {
		name string
		// arrival returns what is told of a packet that was sent at now, in units of 250 µs.
		arrival func(i int, now time.Duration) (at int64, lost bool)
		base    uint16 // added to the first number
	}
	unit := func(now time.Duration) int64 { return int64(now / twccUnit) }
	random := rand.New(rand.NewPCG(3, 4))
	for _, l := range []lie{
		{name: "all is well", arrival: func(_ int, now time.Duration) (int64, bool) { return unit(now), false }},
		{name: "in no time", arrival: func(int, time.Duration) (int64, bool) { return 1000, false }},
		{name: "sooner and sooner", arrival: func(_ int, now time.Duration) (int64, bool) { return 1<<30 - unit(now), false }},
		{name: "in future", arrival: func(i int, now time.Duration) (int64, bool) { return unit(now) + int64(i)*100, false }},
		{name: "never", arrival: func(_ int, now time.Duration) (int64, bool) { return unit(now), true }},
		{name: "other packets", arrival: func(_ int, now time.Duration) (int64, bool) { return unit(now), false }, base: 777},
		{name: "at random", arrival: func(_ int, now time.Duration) (int64, bool) {
			return random.Int64N(1 << 20), random.IntN(3) == 0
		}},
	} {
		t.Run(l.name, func(t *testing.T) {
			s := layersOf(t)
			viewer, honest := s.endpoint(gcm), s.endpoint(gcm)
			ext := Extensions{TWCC: 5}
			viewer.subscribeAs(s.pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: ext, Repair: 8, RepairPayloadType: 97})
			honest.subscribeAs(s.pub, SubscriptionConfig{SSRC: 9, PayloadType: 96})
			said := 0
			next := uint16(1)
			var honestGot []*rtp.Packet
			second := 0
			for frame := range 30 * 20 {
				_, told := s.speaker.sent()
				s.frame(frame == 0 || len(find[*rtcp.PictureLossIndication](told)) > 0)
				s.advance(time.Second / 30)
				honestGot = append(honestGot, honest.heard()...)
				sent := 0
				for _, b := range s.take(viewer.path) {
					second += len(b) + packetOverhead
					if !isRTCP(b) {
						sent++
					}
				}
				viewer.twccFeedback(next+l.base, sent, func(i int) (int64, bool) {
					said++
					return l.arrival(said, s.plane.clock())
				})
				next += uint16(sent)
				if frame%3 == 0 {
					s.tick()
				}
				if frame%30 == 29 {
					if second*8 > maxRate*5/4 {
						t.Errorf("%d bit/s were sent to one who lies in second %d", second*8, frame/30)
					}
					second = 0
				}
			}
			if rate := viewer.peer.down.Load().estimator.Bitrate(); rate > maxRate {
				t.Errorf("estimate %d", rate)
			}
			if len(honestGot) < 300 {
				t.Errorf("another receiver got %d packets", len(honestGot))
			}
			for i := 1; i < len(honestGot); i++ {
				if honestGot[i].SequenceNumber != honestGot[i-1].SequenceNumber+1 {
					t.Fatalf("another receiver got %d after %d", honestGot[i].SequenceNumber, honestGot[i-1].SequenceNumber)
				}
			}
			if l.name == "all is well" && (s.plane.Stats().Padding == 0 || viewer.peer.subscription(7).Layer().Stream != 2) {
				t.Errorf("%d packets of padding, then layer %+v: the test is wrong", s.plane.Stats().Padding, viewer.peer.subscription(7).Layer())
			}

			// The camera stops, the lies go on.
			before := s.plane.Stats().Padding
			for range 100 {
				viewer.twccFeedback(next, 10, func(i int) (int64, bool) { return l.arrival(i, s.plane.clock()) })
				s.advance(TickInterval)
				s.tick()
				s.take(viewer.path)
			}
			if n := s.plane.Stats().Padding - before; n != 0 {
				t.Errorf("%d packets of padding without a video", n)
			}
		})
	}
}

// twccFeedback tells of n packets from first on.
func (e *endpoint) twccFeedback(first uint16, n int, arrival func(i int) (at int64, lost bool)) {
	if n == 0 {
		return
	}
	var symbols []uint8
	var deltas []byte
	var last, reference int64
	for i := range n {
		at, lost := arrival(i)
		if i == 0 {
			reference = at / int64(twccReference)
			last = reference * int64(twccReference)
		}
		if lost {
			symbols = append(symbols, notReceived)
			continue
		}
		d := min(max(at-last, -1<<15), 1<<15-1)
		last += d
		symbols = append(symbols, largeDelta)
		deltas = binary.BigEndian.AppendUint16(deltas, uint16(d))
	}
	b := []byte{0x80 | formatTWCC, typeRTPFB, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, first)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = binary.BigEndian.AppendUint32(b, uint32(reference)<<8)
	b = append(appendChunks(b, symbols), deltas...)
	b = append(b, make([]byte, -len(b)&3)...)
	setLength(b)
	e.push(e.sealRTCP(b))
}
