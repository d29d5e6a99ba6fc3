package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"
)

// nack asks for packets again.
func (e *endpoint) nack(sub *Subscription, seqs ...uint16) {
	e.t.Helper()
	e.tell(&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: sub.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)})
}

// wireSeq returns the sequence number of an SRTP packet.
func wireSeq(b []byte) uint16 { return binary.BigEndian.Uint16(b[2:]) }

// M1: what is asked for again comes, and bit by bit what was sent first: under one nonce there is
// one packet. Among them are numbers on either side of a roll-over, asked for after it.
func TestNACKIsAnsweredWithTheSameBytes(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		for _, twcc := range []uint8{0, 5} {
			for _, start := range []uint16{1000, 65500, 32700} {
				t.Run(fmt.Sprintf("%s/%d/%d", profile, twcc, start), func(t *testing.T) {
					r := newRig(t)
					speaker, pub := r.camera(gcm)
					viewer, other := r.endpoint(profile), r.endpoint(gcm)
					sub := viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 77, PayloadType: 96, Ext: Extensions{TWCC: twcc}})
					other.subscribeAs(pub, SubscriptionConfig{SSRC: 78, PayloadType: 97, Ext: Extensions{TWCC: 3}})
					speaker.seq = start
					var late []byte
					var lateSeq uint16
					for i := range 120 {
						p := speaker.nextVideo()
						if i%7 == 0 {
							p.Padding, p.PaddingSize = true, uint8(i+1)
						}
						if b := speaker.seal(p); i == 50 {
							late, lateSeq = b, p.SequenceNumber
						} else {
							speaker.push(b)
						}
						if i == 55 {
							speaker.push(late)
						}
						if i == 70 { // the transport-wide numbers of its packets are not in step with theirs
							viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 79, PayloadType: 96, Ext: Extensions{TWCC: twcc}})
						}
					}
					first := make(map[uint16][]byte)
					media, _ := viewer.sent()
					for _, b := range media {
						if binary.BigEndian.Uint32(b[8:]) == sub.ssrc {
							first[wireSeq(b)] = b
						}
					}
					if len(first) != 120 {
						t.Fatalf("%d packets arrived first, want 120", len(first))
					}
					other.sent()
					ask := []uint16{start, start + 1, start + 17, start + 20, start + 35, start + 36, lateSeq, start + 90, start + 119}
					viewer.nack(sub, ask...)
					again, _ := viewer.sent()
					if len(again) != len(ask) {
						t.Fatalf("%d packets came again, want %d", len(again), len(ask))
					}
					for i, b := range again {
						if seq := wireSeq(b); seq != ask[i] || !bytes.Equal(b, first[seq]) {
							t.Errorf("packet %d came again, want %d: same bytes: %v", seq, ask[i], bytes.Equal(b, first[seq]))
						}
						if _, err := viewer.dec.DecryptRTP(nil, b, nil); err != nil {
							t.Errorf("decrypt packet %d: %v", wireSeq(b), err)
						}
					}
					if media, _ := other.sent(); len(media) != 0 {
						t.Errorf("%d packets went to one who did not ask", len(media))
					}
					// What comes after it is in step.
					speaker.show(3)
					for _, p := range viewer.heard() {
						if p.SSRC == sub.ssrc && p.SequenceNumber-start < 120 {
							t.Errorf("packet %d after the last one", p.SequenceNumber)
						}
					}
					if s := r.plane.Stats(); s.Resent != uint64(len(ask)) {
						t.Errorf("%d counted as sent again, want %d", s.Resent, len(ask))
					}
				})
			}
		}
	}
}

func TestNACKIsAnsweredWithinLimits(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer, late := r.endpoint(gcm), r.endpoint(gcm)
	sub := viewer.subscribe(pub)
	answers := func(e *endpoint, s *Subscription, seqs ...uint16) int {
		t.Helper()
		e.sent()
		e.nack(s, seqs...)
		media, _ := e.sent()
		return len(media)
	}
	speaker.show(20)
	lateSub := late.subscribe(pub)
	sent := speaker.show(600)
	newest := sent[599].SequenceNumber
	oldest := newest - defaultHistory + 1
	for name, c := range map[string]struct {
		e    *endpoint
		sub  *Subscription
		seqs []uint16
		want int
	}{
		"the newest":                 {viewer, sub, []uint16{newest}, 1},
		"the oldest":                 {viewer, sub, []uint16{oldest}, 1},
		"overwritten":                {viewer, sub, []uint16{oldest - 1, oldest - 2}, 0},
		"not sent yet":               {viewer, sub, []uint16{newest + 1, newest + 300, newest + 1<<15}, 0},
		"half overwritten":           {viewer, sub, []uint16{oldest - 1, oldest}, 1},
		"another's subscription":     {late, sub, []uint16{newest - 1}, 0},
		"another of its own section": {late, lateSub, []uint16{newest - 1}, 1},
	} {
		if got := answers(c.e, c.sub, c.seqs...); got != c.want {
			t.Errorf("%s: %d answers, want %d", name, got, c.want)
		}
	}
	r.advance(time.Second)
	times := 0
	for range 10 {
		times += answers(viewer, sub, newest-2)
	}
	if times != maxResends {
		t.Errorf("one packet came %d times more, want %d", times, maxResends)
	}

	// Who came late is not sent what it was not sent before: a packet that it got no ciphertext of.
	guest := r.endpoint(gcm)
	guestSub := guest.subscribe(pub)
	after := speaker.show(30)
	if got := answers(guest, guestSub, newest, newest-1, newest-2); got != 0 {
		t.Errorf("%d answers about the time before, want 0", got)
	}
	if got := answers(guest, guestSub, after[0].SequenceNumber); got != 1 {
		t.Errorf("%d answers about the first packet, want 1", got)
	}

	// However many are asked for in one packet, few are looked at.
	few := []rtcp.NackPair{}
	for len(few) < maxAsked-1 {
		few = append(few, rtcp.NackPair{PacketID: newest + 10_000})
	}
	for _, want := range []int{1, 0} {
		late.sent()
		late.tell(&rtcp.TransportLayerNack{MediaSSRC: lateSub.ssrc, Nacks: append(few, rtcp.NackPair{PacketID: newest - 450})})
		if media, _ := late.sent(); len(media) != want {
			t.Errorf("%d answers to entry %d, want %d", len(media), len(few)+1, want)
		}
		few = append(few, rtcp.NackPair{PacketID: newest + 10_000})
	}

	var all []uint16
	for seq := newest; seq != newest-400; seq-- {
		all = append(all, seq)
	}
	slices.Reverse(all)
	r.advance(time.Second)
	if got := answers(late, lateSub, all...); got > maxAsked*17 {
		t.Errorf("%d answers to one packet, want no more than %d", got, maxAsked*17)
	}
	sub.Close()
	if got := answers(viewer, sub, newest-5); got != 0 {
		t.Errorf("%d answers after the end, want 0", got)
	}
	viewer.tell(&rtcp.RawPacket{0x81, 205, 0, 1, 0, 0, 0, 1}) // without the SSRC of the media
}

// A packet that a receiver was not sent, while others were, is not sent to it later: there is no
// telling what its transport-wide number would have been.
func TestNACKOfWhatWasNeverSent(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer, other := r.endpoint(gcm), r.endpoint(gcm)
	sub := viewer.subscribe(pub)
	other.subscribe(pub)
	speaker.show(defaultHistory)
	path := viewer.peer.path.Swap(nil)
	missed := speaker.show(defaultHistory / 2)
	viewer.peer.path.Store(path)
	viewer.sent()
	viewer.nack(sub, missed[0].SequenceNumber, missed[100].SequenceNumber)
	if media, _ := viewer.sent(); len(media) != 0 {
		t.Errorf("%d packets came, want none", len(media))
	}
}

func TestHistory(t *testing.T) {
	h := newHistory(defaultHistory)
	keep := func(number uint64) {
		h.keep(&packet{number: number, next: 3, bytes: binary.BigEndian.AppendUint64(nil, number)})
	}
	want := func(seq uint32, number uint64) {
		t.Helper()
		p := h.find(seq)
		if number == 0 && p != nil || number != 0 && (p == nil || binary.BigEndian.Uint64(p.bytes) != number) {
			t.Errorf("packet %d: %+v, want number %d", seq, p, number)
		}
		if p != nil && p.next != 0 {
			t.Errorf("packet %d points into a batch that is gone", seq)
		}
	}
	want(0, 0)
	keep(1<<32 | 65535)
	keep(2 << 32)
	want(65535, 0) // far behind
	keep(2<<32 | defaultHistory)
	keep(2 << 32) // so late that its place is taken
	want(defaultHistory, 2<<32|defaultHistory)
	want(0, 0)
	keep(2<<32 | 1)
	want(1, 2<<32|1)
	want(1+defaultHistory, 0)
}

func TestVoicesAreNotSentAgain(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	sub := listener.subscribe(pub)
	sent := speaker.say(40)
	listener.heard()
	listener.nack(sub, sent[30].SequenceNumber)
	if got := listener.heard(); len(got) != 0 || pub.layers[0].history != nil {
		t.Errorf("%d packets of a voice came again, history %v", len(got), pub.layers[0].history != nil)
	}
}

// F18: a storm of NACKs makes the receiver's stream a quarter larger at most, and nobody else's.
func TestNACKStormIsBounded(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	attackers := make([]*endpoint, 5)
	subs := make([]*Subscription, 5)
	for i := range attackers {
		attackers[i] = r.endpoint(gcm)
		subs[i] = attackers[i].subscribe(pub)
	}
	steady := r.endpoint(gcm)
	steady.subscribe(pub)
	total := make([]int, len(attackers))
	fair, packets := 0, 0
	for range 1000 {
		newest := speaker.show(1)[0].SequenceNumber
		for i, a := range attackers {
			for half := range uint16(2) {
				var seqs []uint16
				for n := range uint16(100) {
					seqs = append(seqs, newest-200+half*100+n+1)
				}
				a.nack(subs[i], seqs...)
			}
			media, _ := a.sent()
			for _, b := range media {
				total[i] += len(b)
			}
		}
		media, _ := steady.sent()
		packets += len(media)
		for _, b := range media {
			fair += len(b)
		}
	}
	if packets != 1000 {
		t.Errorf("who does not ask got %d packets, want 1000", packets)
	}
	for i, n := range total {
		if n > fair*5/4 || n < fair*6/5 {
			t.Errorf("receiver %d got %d bytes, want a quarter more than %d at most, and nearly that", i, n, fair)
		}
	}
}

// Receivers ask again on readers of their own while the packets flow. What comes twice under one
// number is the same.
func TestNACKsDuringTraffic(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	background := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	viewers := make([]*endpoint, 2)
	for i := range viewers {
		v := r.endpoint(gcm)
		viewers[i] = v
		sub := v.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: Extensions{TWCC: 5}})
		read, out := r.reader()
		background(func(i int) {
			plain, err := rtcp.Marshal([]rtcp.Packet{
				&rtcp.TransportLayerNack{MediaSSRC: sub.ssrc, Nacks: []rtcp.NackPair{{PacketID: uint16(i * 13), LostPackets: 0xffff}}},
				&rtcp.PictureLossIndication{MediaSSRC: sub.ssrc},
			})
			if err != nil {
				t.Error(err)
			}
			b, err := v.enc.EncryptRTCP(nil, plain, nil)
			if err != nil {
				t.Error(err)
			}
			read.Receive(b, v.path)
			read.Flush()
			out.Flush()
		})
	}
	_, tickOut := r.reader()
	background(func(int) { r.plane.Tick(r.clock(), tickOut) })
	guest := r.endpoint(cm)
	wg.Go(func() {
		for range 500 {
			sub, err := pub.Subscribe(guest.peer, SubscriptionConfig{SSRC: guest.peer.NewSSRC(), PayloadType: 96})
			if err != nil {
				t.Error(err)
				return
			}
			sub.Close()
		}
	})
	for again := uint64(0); again < 50; again = r.plane.Stats().Resent {
		speaker.show(500)
	}
	close(stop)
	wg.Wait()
	for _, v := range viewers {
		media, _ := v.sent()
		first := make(map[uint16][]byte)
		for _, b := range media {
			seq := wireSeq(b)
			if old := first[seq]; old != nil && !bytes.Equal(old, b) && len(media) < 1<<16 {
				t.Fatalf("packet %d came twice, and not the same", seq)
			}
			first[seq] = b
		}
		if len(first) < 500 {
			t.Errorf("%d packets arrived, want 500 at least", len(first))
		}
	}
}
