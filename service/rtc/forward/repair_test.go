package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

const (
	extRRD = 10 // repair RID
)

// repairCamera returns an endpoint that sends a video with a repair stream, in a group of SSRCs or, if
// rids are given, as a simulcast that is told apart by them alone.
func (r *rig) repairCamera(profile srtp.ProtectionProfile, rids ...string) (*endpoint, *Publication) {
	r.t.Helper()
	e := r.endpoint(profile)
	up := e.videoUplink()
	up.Codecs = append(up.Codecs, Codec{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: vp8})
	up.Ext.RepairRID = extRRD
	if len(rids) == 0 {
		up.SSRCs = []uint32{e.ssrc, e.repairSSRC()}
		up.Repairs = map[uint32]uint32{e.repairSSRC(): e.ssrc}
	} else {
		up.SSRCs, up.RIDs = nil, rids
	}
	e.peer.SetUplinks([]Uplink{up})
	return e, e.publish(PublicationConfig{Source: Camera, Codec: codec.VP8, RIDs: rids})
}

func (e *endpoint) repairSSRC() uint32 { return e.ssrc | 0x10000 }

// picture returns the endpoint's next video packet: a frame of VP8 with that picture id.
func (e *endpoint) picture(keyframe bool, id uint16, size int) *rtp.Packet {
	p := e.next(0)
	p.PayloadType, p.Marker = vp8, true
	p.Payload = codectest.VP8(codectest.Frame{
		Keyframe: keyframe, First: true, Picture: id, Layers: true, TL0: uint8(id), Body: bytes.Repeat([]byte{byte(e.seq)}, size),
	})
	e.ts += 3000 - 960
	return p
}

// repair returns p as a packet of the repair stream, with that number there.
func (e *endpoint) repair(p *rtp.Packet, seq uint16) *rtp.Packet {
	again := p.Clone()
	again.SSRC, again.PayloadType, again.SequenceNumber = e.repairSSRC(), rtx, seq
	again.Payload = append(binary.BigEndian.AppendUint16(nil, p.SequenceNumber), p.Payload...)
	e.must(again.SetExtension(extTWCC, binary.BigEndian.AppendUint16(nil, e.twcc)))
	e.twcc++
	return again
}

// original returns what the packet p of a repair stream repairs.
func original(t testing.TB, p *rtp.Packet) *rtp.Packet {
	t.Helper()
	if len(p.Payload) < 2 {
		t.Fatalf("packet %d of a repair stream repairs nothing", p.SequenceNumber)
	}
	o := p.Clone()
	o.SequenceNumber, o.Payload = binary.BigEndian.Uint16(p.Payload), p.Payload[2:]
	return o
}

// split returns the packets of one SSRC and the others.
func split(packets []*rtp.Packet, ssrc uint32) (of, others []*rtp.Packet) {
	for _, p := range packets {
		if p.SSRC == ssrc {
			of = append(of, p)
		} else {
			others = append(others, p)
		}
	}
	return of, others
}

// nonces notes under what SSRC and extended sequence number packets were sent to an endpoint: with the
// keys that makes the nonce, which must not repeat with other bytes.
type nonces map[nonce][]byte

type nonce struct {
	ssrc  uint32
	index uint32
}

// note notes packets in the order they were sent. newest are the extended numbers by SSRC.
func (n nonces) note(t testing.TB, newest map[uint32]uint32, media [][]byte) {
	t.Helper()
	for _, b := range media {
		ssrc, seq := binary.BigEndian.Uint32(b[8:]), wireSeq(b)
		last, ok := newest[ssrc]
		if !ok {
			last = 1<<16 | uint32(seq)
		}
		index := last + uint32(int32(int16(seq-uint16(last))))
		newest[ssrc] = max(last, index)
		key := nonce{ssrc, index}
		if was, ok := n[key]; ok && !bytes.Equal(was, b) {
			t.Fatalf("packet %d of %x was sent with other bytes before", seq, ssrc)
		}
		n[key] = b
	}
}

// What a receiver asks for comes on its repair stream: everything as it was sent first but for the
// stream's own numbers and a transport-wide number that is new.
func TestRepairsOnTheReceiversRepairStream(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.repairCamera(profile)
			viewer, plain := r.endpoint(profile), r.endpoint(gcm)
			sub := viewer.subscribeAs(pub, SubscriptionConfig{
				SSRC: 7, PayloadType: 96, Repair: 8, RepairPayloadType: 97, MID: "3", Ext: Extensions{TWCC: 5, MID: 6},
			})
			// Another one whose picture ids and extensions differ: what is kept is shared.
			plain.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 98})
			speaker.seq = 65500
			for i := range 100 {
				r.advance(10 * time.Millisecond)
				p := speaker.picture(i == 0, uint16(32740+i)&0x7fff, 800)
				if i%9 == 0 {
					p.Padding, p.PaddingSize = true, 33
				}
				speaker.push(speaker.seal(p))
				if i == 40 {
					sub.Close()
					sub = viewer.subscribeAs(pub, SubscriptionConfig{
						SSRC: 17, PayloadType: 96, Repair: 18, RepairPayloadType: 97, MID: "3", Ext: Extensions{TWCC: 5, MID: 6},
					})
				}
			}
			first := make(map[uint16]*rtp.Packet)
			transports := make(map[uint16]bool)
			of, _ := split(viewer.heard(), 17)
			for _, p := range of {
				first[p.SequenceNumber] = p
				transports[binary.BigEndian.Uint16(p.GetExtension(5))] = true
			}
			start := uint16(65500)
			ask := []uint16{start + 50, start + 60, start + 61, start + 99, start + 42}
			r.advance(time.Second)
			viewer.nack(sub, ask...)
			again := viewer.heard()
			if len(again) != len(ask) {
				t.Fatalf("%d packets came again, want %d", len(again), len(ask))
			}
			seq := again[0].SequenceNumber
			for i, p := range again {
				o := original(t, p)
				was := first[o.SequenceNumber]
				if was == nil {
					t.Fatalf("packet %d came, which was never there", o.SequenceNumber)
				}
				if p.SSRC != 18 || p.PayloadType != 97 || p.SequenceNumber != seq+uint16(i) {
					t.Errorf("repair of %d: SSRC %d, payload type %d, number %d; want 18, 97, %d", o.SequenceNumber, p.SSRC, p.PayloadType, p.SequenceNumber, seq+uint16(i))
				}
				wantPackets(t, []*rtp.Packet{o}, []*rtp.Packet{was})
				if o.PaddingSize != was.PaddingSize {
					t.Errorf("repair of %d: %d bytes of padding, want %d", o.SequenceNumber, o.PaddingSize, was.PaddingSize)
				}
				transport := binary.BigEndian.Uint16(p.GetExtension(5))
				if transports[transport] || string(p.GetExtension(6)) != "3" || len(p.GetExtensionIDs()) != 2 {
					t.Errorf("repair of %d: extensions %v, transport-wide number %d used before: %v", o.SequenceNumber, p.GetExtensionIDs(), transport, transports[transport])
				}
				transports[transport] = true
			}
			// It is asked for again, and comes under other numbers.
			viewer.nack(sub, start+50)
			if got := viewer.heard(); len(got) != 1 || got[0].SequenceNumber != seq+uint16(len(ask)) || original(t, got[0]).SequenceNumber != start+50 {
				t.Errorf("%d packets came the second time, want one", len(got))
			}
		})
	}
}

// F18: repairs are a quarter of what is sent at most, and three of a packet.
func TestRepairsAreBounded(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.repairCamera(gcm)
	viewer := r.endpoint(gcm)
	sub := viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Repair: 8, RepairPayloadType: 97, Ext: Extensions{TWCC: 5}})
	count := func() (media, repairs int, times map[uint16]int) {
		times = make(map[uint16]int)
		sent, _ := viewer.sent()
		for _, b := range sent {
			if binary.BigEndian.Uint32(b[8:]) == 7 {
				media += len(b)
				continue
			}
			repairs += len(b)
			plain, err := viewer.dec.DecryptRTP(nil, b, nil)
			viewer.must(err)
			var p rtp.Packet
			viewer.must(p.Unmarshal(plain))
			times[original(t, &p).SequenceNumber]++
		}
		return media, repairs, times
	}
	media, repairs := 0, 0
	all := make(map[uint16]int)
	for i := range 1500 {
		p := speaker.picture(i == 0, uint16(i), 900)
		speaker.push(speaker.seal(p))
		r.advance(10 * time.Millisecond)
		for _, back := range []uint16{17, 100, 300} {
			viewer.tell(&rtcp.TransportLayerNack{MediaSSRC: sub.ssrc, Nacks: []rtcp.NackPair{{PacketID: p.SequenceNumber - back, LostPackets: 0xffff}}})
		}
		m, n, times := count()
		media, repairs = media+m, repairs+n
		for seq, k := range times {
			all[seq] += k
		}
	}
	if repairs > media/4 || repairs < media/5 {
		t.Errorf("%d bytes of repairs for %d bytes, want a quarter at most, and nearly that", repairs, media)
	}
	for seq, k := range all {
		if k > maxResends {
			t.Errorf("packet %d was repaired %d times, want %d at most", seq, k, maxResends)
		}
	}

	r.advance(time.Second)
	for range 10 {
		viewer.nack(sub, speaker.seq-1)
	}
	if _, _, times := count(); times[speaker.seq-1] > maxResends {
		t.Errorf("one packet was repaired %d times, want %d at most", times[speaker.seq-1], maxResends)
	}
}

// A long run with everything at once: layers are switched, packets are lost, late, doubled and
// repaired, in both directions, and probed with. Nothing is sent twice under one nonce with other bytes.
func TestNoNonceRepeats(t *testing.T) {
	steps := 10_000
	if testing.Short() {
		steps = 3_000
	}
	for _, repairs := range []bool{true, false} {
		t.Run(fmt.Sprint("repairs=", repairs), func(t *testing.T) {
			r := newRig(t)
			rng := rand.New(rand.NewPCG(7, 8))
			rids := []string{"l", "m", "h"}
			speaker, pub := r.repairCamera(gcm, rids...)
			type viewer struct {
				*endpoint
				sub    *Subscription
				seen   nonces
				newest map[uint32]uint32
				recent []uint16 // sent to it
			}
			viewers := make([]*viewer, 3)
			for i := range viewers {
				v := &viewer{endpoint: r.endpoint(gcm), seen: make(nonces), newest: make(map[uint32]uint32)}
				cfg := SubscriptionConfig{SSRC: 7, PayloadType: 96}
				if i > 0 {
					cfg.Ext = Extensions{TWCC: 5, MID: 4}
					cfg.MID = "1"
				}
				if repairs {
					cfg.Repair, cfg.RepairPayloadType = 8, 97
				}
				v.sub = v.subscribeAs(pub, cfg)
				viewers[i] = v
			}
			type stream struct {
				ssrc, ts     uint32
				seq, picture uint16
				repairSeq    uint16
				old          []*rtp.Packet
			}
			streams := make([]*stream, len(rids))
			for i := range streams {
				streams[i] = &stream{ssrc: 0x700 + uint32(i), seq: uint16(rng.Uint32N(1 << 16)), ts: rng.Uint32(), picture: uint16(rng.Uint32N(1 << 15))}
			}
			repair := func(i int, p *rtp.Packet) {
				s := streams[i]
				speaker.ssrc = s.ssrc
				again := speaker.repair(p, s.repairSeq)
				speaker.must(again.SetExtension(extRRD, []byte(rids[i])))
				s.repairSeq++
				r.read.Receive(speaker.seal(again), speaker.path)
			}
			type later struct {
				at int
				b  []byte
			}
			var late []later
			for step := range steps {
				i := rng.IntN(len(streams))
				s := streams[i]
				speaker.ssrc, speaker.seq, speaker.ts = s.ssrc, s.seq, s.ts
				keyframe := rng.IntN(40) == 0
				p := speaker.picture(keyframe, s.picture&0x7fff, 20+rng.IntN(1000))
				p.Payload[5] = byte(rng.IntN(3)) << 6 // its temporal layer
				speaker.must(p.SetExtension(extRID, []byte(rids[i])))
				s.seq, s.ts = speaker.seq, s.ts+3000
				s.picture++
				s.old = append(s.old, p)
				if len(s.old) > 300 {
					s.old = s.old[100:]
				}
				sealed := speaker.seal(p)
				switch n := rng.IntN(100); {
				case n < 8: // lost, and repaired some time
				case n < 14:
					late = append(late, later{step + rng.IntN(400), sealed})
				default:
					r.read.Receive(sealed, speaker.path)
				}
				for len(late) > 0 && late[0].at < step {
					r.read.Receive(late[0].b, speaker.path)
					late = late[1:]
				}
				if rng.IntN(3) == 0 {
					repair(i, s.old[len(s.old)-1-rng.IntN(min(len(s.old), 60))])
				}
				if rng.IntN(4) > 0 {
					r.flush()
				}
				if rng.IntN(20) == 0 {
					r.advance(time.Duration(rng.IntN(40)) * time.Millisecond)
				}
				v := viewers[rng.IntN(len(viewers))]
				switch rng.IntN(60) {
				case 0:
					v.sub.target.Store(target{layer: int8(rng.IntN(4) - 1), temporal: uint8(rng.IntN(4))}.pack())
				case 1:
					v.sub.padding.Store(int64(rng.IntN(2)) * 600_000)
				case 2:
					r.advance(TickInterval)
				case 3:
					pub.SetMuted(rng.IntN(8) == 0)
				}
				if rng.IntN(5) == 0 {
					media, _ := v.sent()
					v.seen.note(t, v.newest, media)
					for _, b := range media {
						if binary.BigEndian.Uint32(b[8:]) == 7 {
							v.recent = append(v.recent, wireSeq(b))
						}
					}
					if n := len(v.recent); n > 0 {
						v.recent = v.recent[max(0, n-400):]
						v.nack(v.sub, v.recent[rng.IntN(len(v.recent))], v.recent[rng.IntN(len(v.recent))]+uint16(rng.IntN(5)))
					}
				}
			}
			r.flush()
			for i, v := range viewers {
				media, _ := v.sent()
				v.seen.note(t, v.newest, media)
				if len(v.seen) < steps/10 {
					t.Errorf("viewer %d got %d packets: the test is wrong", i, len(v.seen))
				}
			}
			if s := r.plane.Stats(); s.Resent < uint64(steps/100) || s.Padding < 20 {
				t.Errorf("%d packets sent again, %d of padding: the test is wrong", s.Resent, s.Padding)
			}
		})
	}
}

// senderRepairs are the ways in which a sender tells what a repair stream repairs.
func senderRepairs(t *testing.T, test func(t *testing.T, r *rig, speaker *endpoint, pub *Publication, again func(p *rtp.Packet, seq uint16) *rtp.Packet)) {
	t.Run("group", func(t *testing.T) {
		r := newRig(t)
		speaker, pub := r.repairCamera(gcm)
		test(t, r, speaker, pub, speaker.repair)
	})
	t.Run("RID", func(t *testing.T) {
		r := newRig(t)
		speaker, pub := r.repairCamera(cm, "l", "h")
		p := speaker.nextVideo()
		speaker.must(p.SetExtension(extRID, []byte("l")))
		speaker.push(speaker.seal(p))
		q := speaker.nextVideo()
		q.SSRC = 0x999
		speaker.must(q.SetExtension(extRID, []byte("h")))
		speaker.push(speaker.seal(q))
		speaker.seq--
		test(t, r, speaker, pub, func(p *rtp.Packet, seq uint16) *rtp.Packet {
			again := speaker.repair(p, seq)
			speaker.must(again.SetExtension(extRRD, []byte("l")))
			return again
		})
	})
}

func TestRepairsOfSenders(t *testing.T) {
	senderRepairs(t, func(t *testing.T, r *rig, speaker *endpoint, pub *Publication, again func(*rtp.Packet, uint16) *rtp.Packet) {
		viewer := r.endpoint(gcm)
		viewer.subscribe(pub)
		before := speaker.show(5)
		_, lost := speaker.lose(3)
		after := speaker.show(5)
		if got := speaker.asked(); len(got) != 3 {
			t.Fatalf("asked for %v, want three", got)
		}
		speaker.push(speaker.seal(again(lost[1], 9000)))
		lost[2].Padding, lost[2].PaddingSize = true, 20
		speaker.push(speaker.seal(again(lost[2], 9002)))
		speaker.push(speaker.seal(again(lost[0], 9001)))
		want := slices.Concat(before, after, []*rtp.Packet{lost[1], lost[2], lost[0]})
		wantPackets(t, viewer.heard(), want)

		// Not what is there already, and not twice.
		repaired := r.drops(DropRepaired)
		for i, p := range []*rtp.Packet{lost[0], lost[1], lost[2], before[3], after[4]} {
			speaker.push(speaker.seal(again(p, 9003+uint16(i))))
		}
		if n := r.drops(DropRepaired) - repaired; n != 5 || len(viewer.heard()) != 0 {
			t.Errorf("%d repairs in vain counted, want 5", n)
		}
		for range 10 {
			r.advance(TickInterval)
			r.tick()
		}
		if got := speaker.asked(); len(got) != 0 {
			t.Errorf("asked for %v, want nothing any more", got)
		}
		if len(speaker.streams) > 2 {
			t.Errorf("streams %+v: of repair streams nobody is told", speaker.streams)
		}
	})
}

// A packet that is merely late comes after its repair.
func TestOriginalAfterItsRepair(t *testing.T) {
	senderRepairs(t, func(t *testing.T, r *rig, speaker *endpoint, pub *Publication, again func(*rtp.Packet, uint16) *rtp.Packet) {
		viewer := r.endpoint(gcm)
		viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: Extensions{TWCC: 5}})
		speaker.show(2)
		for round := range 20 {
			sealed, lost := speaker.lose(2)
			speaker.show(4 + 5*round) // it is still waited for
			viewer.heard()
			speaker.push(speaker.seal(again(lost[0], uint16(9000+round))))
			wantPackets(t, viewer.heard(), lost[:1])
			speaker.push(sealed[0])
			speaker.push(sealed[1])
			wantPackets(t, viewer.heard(), lost[1:])
		}
	})
}

func TestRepairsInVain(t *testing.T) {
	lossy := func(e *endpoint) (lost *rtp.Packet) {
		e.show(3)
		lost = e.nextVideo()
		e.show(3)
		return lost
	}
	for name, test := range map[string]func(r *rig, e *endpoint) *rtp.Packet{
		"padding": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.Payload, p.Padding, p.PaddingSize = nil, true, 255
			return p
		},
		"padding of two bytes": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.Payload, p.Padding, p.PaddingSize = nil, true, 2
			return p
		},
		"padding and half a number": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.Payload, p.Padding, p.PaddingSize = p.Payload[:1], true, 7
			return p
		},
		"nothing": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.Payload = nil
			return p
		},
		"half a number": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.Payload = p.Payload[:1]
			return p
		},
		"number of a packet to come": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			binary.BigEndian.PutUint16(p.Payload, e.seq+5)
			return p
		},
		"number of long ago": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			binary.BigEndian.PutUint16(p.Payload, e.seq-2000)
			return p
		},
		"before the stream": func(_ *rig, e *endpoint) *rtp.Packet { return e.repair(e.nextVideo(), 1) },
		"of a stream that is not known": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.SSRC = 0xdead
			up := e.videoUplink()
			up.Codecs = append(up.Codecs, Codec{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: vp8})
			up.RIDs = []string{"l", "h"}
			e.peer.SetUplinks([]Uplink{up})
			return p
		},
		"RID that is not known": func(_ *rig, e *endpoint) *rtp.Packet {
			p := e.repair(lossy(e), 1)
			p.SSRC = 0xdead
			e.must(p.SetExtension(extRRD, []byte("x")))
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.repairCamera(gcm)
			viewer := r.endpoint(gcm)
			viewer.subscribe(pub)
			p := test(r, speaker)
			viewer.heard()
			speaker.push(speaker.seal(p))
			if got := viewer.heard(); len(got) != 0 || r.drops(DropRepaired) != 1 {
				t.Errorf("%d packets passed, %v drops", len(got), r.plane.Stats().Drops)
			}
		})
	}
}

// A repair stream's payload type may name one that the section does not have.
func TestRepairOfAnUnknownPayloadType(t *testing.T) {
	for name, apt := range map[string]uint8{"not there": 55, "itself": rtx, "beyond": 200} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.repairCamera(gcm)
			up := speaker.videoUplink()
			up.SSRCs = append(up.SSRCs, speaker.repairSSRC())
			up.Repairs = map[uint32]uint32{speaker.repairSSRC(): speaker.ssrc}
			up.Codecs = append(up.Codecs, Codec{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: apt})
			speaker.peer.SetUplinks([]Uplink{up})
			viewer := r.endpoint(gcm)
			viewer.subscribe(pub)
			speaker.show(3)
			lost := speaker.nextVideo()
			speaker.show(3)
			viewer.heard()
			speaker.push(speaker.seal(speaker.repair(lost, 5)))
			if got := viewer.heard(); len(got) != 0 {
				t.Errorf("%d packets passed, want none", len(got))
			}
		})
	}
}

// Whatever the numbers and payloads of a repair stream: nothing passes that is not missing, and the
// stream itself goes on.
func TestRepairsOfGarbage(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.repairCamera(gcm)
	viewer := r.endpoint(gcm)
	viewer.subscribe(pub)
	rng := rand.New(rand.NewPCG(3, 4))
	speaker.show(10)
	var want []*rtp.Packet
	viewer.heard()
	for i := range 3000 {
		p := speaker.nextVideo()
		p.Payload = make([]byte, rng.IntN(40))
		for k := range p.Payload {
			p.Payload[k] = byte(rng.Uint32())
		}
		speaker.seq--
		p.SSRC, p.PayloadType, p.SequenceNumber = speaker.repairSSRC(), rtx, uint16(i)
		if rng.IntN(3) == 0 {
			p.Padding, p.PaddingSize = true, byte(1+rng.IntN(255))
		}
		speaker.push(speaker.seal(p))
		want = append(want, speaker.show(1)...)
	}
	wantPackets(t, viewer.heard(), want)
}

// The newest stream with a RID is the one that is repaired.
func TestRepairAfterTheSSRCOfARIDChanged(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.repairCamera(gcm, "l", "h")
	viewer := r.endpoint(gcm)
	viewer.subscribe(pub)
	tagged := func(n int) {
		for range n {
			p := speaker.nextVideo()
			speaker.must(p.SetExtension(extRID, []byte("l")))
			speaker.push(speaker.seal(p))
			r.advance(10 * time.Millisecond)
		}
	}
	tagged(5)
	speaker.ssrc, speaker.seq = 0xbeef, 40_000
	tagged(5)
	lost := speaker.nextVideo()
	tagged(5)
	viewer.heard()
	again := speaker.repair(lost, 77)
	speaker.must(again.SetExtension(extRRD, []byte("l")))
	speaker.push(speaker.seal(again))
	if got := viewer.heard(); len(got) != 1 || !bytes.Equal(got[0].Payload, lost.Payload) {
		t.Errorf("%d packets passed, want the repaired one", len(got))
	}
}
