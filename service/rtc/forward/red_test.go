package forward

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

const red = 63

// redVoice returns an endpoint that may send its voice as RED, and the publication of it.
func (r *rig) redVoice(profile srtp.ProtectionProfile, nack bool) (*endpoint, *Publication) {
	r.t.Helper()
	e := r.endpoint(profile)
	up := e.uplink("0")
	up.Codecs = append(up.Codecs, Codec{PayloadType: red, Mime: "audio/red", Fmtp: "111/111", ClockRate: 48000})
	up.NACK = nack
	e.peer.SetUplinks([]Uplink{up})
	return e, e.publish(PublicationConfig{})
}

// redundant returns p as RED (RFC 2198) with copies of the packets before it, the oldest first.
func redundant(p *rtp.Packet, before ...*rtp.Packet) *rtp.Packet {
	q := p.Clone()
	q.PayloadType, q.Payload = red, nil
	for _, old := range before {
		header := uint32(1)<<31 | opus<<24 | (p.Timestamp-old.Timestamp)<<10 | uint32(len(old.Payload))
		q.Payload = binary.BigEndian.AppendUint32(q.Payload, header)
	}
	q.Payload = append(q.Payload, opus)
	for _, old := range append(before, p) {
		q.Payload = append(q.Payload, old.Payload...)
	}
	return q
}

// Who agreed on RED gets it as it came, with its own payload type; others what is newest in it.
func TestRedundantAudio(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		t.Run(profile.String(), func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.redVoice(profile, false)
			able, unable := r.endpoint(profile), r.endpoint(gcm)
			subAble := able.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, RED: 97, NACK: true, Ext: Extensions{TWCC: 5}})
			subUnable := unable.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 98, NACK: true, MID: "voice", Ext: Extensions{MID: 5, AudioLevel: 6}})
			var plain, sent []*rtp.Packet
			for i := range 60 {
				p := speaker.next(uint8(i))
				p.Payload = bytes.Repeat([]byte{byte(i)}, 40+i*7%200)
				p.Marker = i%10 == 0
				q := p
				switch {
				case i < 2 || i%11 == 0: // as it comes at the start, and when the encoder has nothing to add
				case i%7 == 0: // no earlier block at all
					q = redundant(p)
				default:
					q = redundant(p, plain[i-2:]...)
				}
				if i%13 == 5 && q != p {
					q.Padding, q.PaddingSize = true, 40
				}
				plain, sent = append(plain, p), append(sent, q)
				r.read.Receive(speaker.seal(q), speaker.path)
				if i%4 == 3 {
					r.flush()
				}
			}
			r.flush()
			first := make(map[*endpoint][][]byte)
			for _, v := range []*endpoint{able, unable} {
				media, _ := v.sent()
				first[v] = media
				want := sent
				if v == unable {
					want = plain
				}
				var got []*rtp.Packet
				for i, b := range media {
					clear, err := v.dec.DecryptRTP(nil, b, nil)
					v.must(err)
					p := new(rtp.Packet)
					v.must(p.Unmarshal(clear))
					got = append(got, p)
					pt := uint8(98)
					if v == able {
						if pt = 96; sent[i].PayloadType == red {
							pt = 97
						}
					} else if level := p.GetExtension(6); len(level) != 1 || level[0] != 0x80|uint8(i) {
						t.Errorf("packet %d: audio level %v, want %d", i, level, i)
					}
					if p.PayloadType != pt {
						t.Fatalf("packet %d has payload type %d, want %d", i, p.PayloadType, pt)
					}
				}
				wantPackets(t, got, want)
			}
			for v, sub := range map[*endpoint]*Subscription{able: subAble, unable: subUnable} {
				v.nack(sub, 510, 520, 521)
				again, _ := v.sent()
				if len(again) != 3 {
					t.Fatalf("%d packets came again, want 3", len(again))
				}
				for i, n := range []int{10, 20, 21} {
					if !bytes.Equal(again[i], first[v][n]) {
						t.Errorf("packet %d came again with other bytes", n)
					}
				}
			}
		})
	}
}

// Redundant audio that is malformed passes to nobody who would have to take it apart. The rest does.
func TestMalformedRedundantAudio(t *testing.T) {
	for name, payload := range map[string][]byte{
		"empty":                        {},
		"header alone":                 {opus},
		"cut off in a header":          {0x80 | opus, 0, 4},
		"cut off after a header":       {0x80 | opus, 0, 0, 4},
		"earlier block cut off":        {0x80 | opus, 0, 0, 200, opus, 1, 2, 3},
		"no newest block":              {0x80 | opus, 0, 0, 3, opus, 1, 2, 3},
		"headers without end":          bytes.Repeat([]byte{0xff}, 300),
		"longest blocks, many of them": append(bytes.Repeat([]byte{0x80 | opus, 0xff, 0xff, 0xff}, 100), opus, 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, pub := r.redVoice(gcm, false)
			able, unable := r.endpoint(gcm), r.endpoint(gcm)
			able.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, RED: 97})
			sub := unable.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: Extensions{TWCC: 5}})
			before := speaker.say(3)
			bad := speaker.next(levelLoud)
			bad.PayloadType, bad.Payload = red, payload
			speaker.push(speaker.seal(bad))
			after := speaker.say(3)
			wantPackets(t, able.heard(), slices.Concat(before, []*rtp.Packet{bad}, after))
			wantPackets(t, unable.heard(), slices.Concat(before, after))
			if n := r.drops(DropEncrypt); n != 1 {
				t.Errorf("%d packets counted, want the one that did not reach a receiver", n)
			}
			if s := sub.Stats(); s.Packets != 6 {
				t.Errorf("%d packets counted as sent, want 6", s.Packets)
			}
		})
	}
}

// A sender in silence sends little (DTX): numbers go on without a gap, time jumps, and nothing is
// asked for.
func TestSilenceStaysAsItIs(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.redVoice(gcm, true)
	listener := r.endpoint(gcm)
	listener.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, NACK: true})
	var want []*rtp.Packet
	for range 20 {
		want = append(want, speaker.say(5)...)
		r.advance(400 * time.Millisecond)
		speaker.ts += 400 * 48
		p := speaker.next(127)
		p.Marker = true
		want = append(want, p)
		speaker.push(speaker.seal(p))
		r.tick()
	}
	wantPackets(t, listener.heard(), want)
	if got := speaker.asked(); len(got) != 0 {
		t.Errorf("asked for %v, want nothing", got)
	}
}

// Voices are asked for again where that was agreed on, and only there.
func TestVoicesAreRepairedWhereAgreedOn(t *testing.T) {
	for _, sender := range []bool{false, true} {
		for _, receiver := range []bool{false, true} {
			r := newRig(t)
			speaker, pub := r.redVoice(cm, sender)
			listener := r.endpoint(gcm)
			sub := listener.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, NACK: receiver, Ext: Extensions{TWCC: 2}})
			// Another one decides for itself alone.
			other := r.endpoint(gcm)
			otherSub := other.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, NACK: !receiver})
			speaker.say(20)
			lost := speaker.next(levelLoud)
			sealed := speaker.seal(lost)
			speaker.say(20)
			asked := speaker.asked()
			if sender != slices.Equal(slices.Compact(asked), []uint16{lost.SequenceNumber}) || !sender && len(asked) != 0 {
				t.Errorf("sender %v: asked for %v, lost %d", sender, asked, lost.SequenceNumber)
			}
			speaker.push(sealed)
			first, _ := listener.sent()
			second, _ := other.sent()
			if len(first) != 41 || len(second) != 41 {
				t.Fatalf("%d and %d packets arrived, want 41", len(first), len(second))
			}
			for v, c := range map[*endpoint]struct {
				sub    *Subscription
				agreed bool
				sent   [][]byte
			}{listener: {sub, receiver, first}, other: {otherSub, !receiver, second}} {
				v.nack(c.sub, lost.SequenceNumber, 505)
				again, _ := v.sent()
				switch {
				case !c.agreed && len(again) != 0:
					t.Errorf("%d packets came again, where that was not agreed on", len(again))
				case c.agreed && len(again) != 2:
					t.Errorf("%d packets came again, want 2", len(again))
				case c.agreed && (!bytes.Equal(again[1], c.sent[40]) && !bytes.Equal(again[0], c.sent[40]) || !bytes.Equal(again[0], c.sent[5]) && !bytes.Equal(again[1], c.sent[5])):
					t.Error("packets came again with other bytes")
				}
			}
		}
	}
}
