package forward

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtp"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

const (
	rtx    = 101
	extDD  = 7
	repair = 0x9000 // added to the SSRC of a video, it is that of its repair stream
)

// repairedUplink is a video section with a repair stream.
func (e *endpoint) repairedUplink() Uplink {
	up := e.videoUplink()
	up.Codecs = append(up.Codecs, Codec{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: vp8})
	up.SSRCs = append(up.SSRCs, e.ssrc+repair)
	up.Repairs = map[uint32]uint32{e.ssrc + repair: e.ssrc}
	return up
}

// repairs returns the packet of the repair stream for p.
func (e *endpoint) repairs(p *rtp.Packet, seq uint16) *rtp.Packet {
	q := p.Clone()
	q.SSRC, q.PayloadType, q.SequenceNumber = p.SSRC+repair, rtx, seq
	q.Payload = append(binary.BigEndian.AppendUint16(nil, p.SequenceNumber), p.Payload...)
	return q
}

// A packet that was asked for again may come twice, first in the repair stream and then late. Sent
// on twice, with two transport-wide numbers, it would repeat a nonce.
func TestPacketThatComesAfterItsRepairIsSentOnce(t *testing.T) {
	r := newRig(t)
	speaker, viewer := r.endpoint(gcm), r.endpoint(gcm)
	speaker.peer.SetUplinks([]Uplink{speaker.repairedUplink()})
	pub := speaker.publish(PublicationConfig{Source: Camera, Codec: codec.VP8})
	viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 5, PayloadType: 96, Ext: Extensions{TWCC: 3}})
	want := speaker.show(3)
	late := speaker.nextVideo()
	want = append(want, speaker.show(4)...)
	want = append(want, late)
	speaker.push(speaker.seal(speaker.repairs(late, 7)))
	speaker.push(speaker.seal(late))
	speaker.push(speaker.seal(speaker.repairs(late, 8)))
	want = append(want, speaker.show(2)...)
	wantPackets(t, viewer.heard(), want)
	if late, again := r.drops(DropReplay), r.drops(DropRepaired); late != 1 || again != 1 {
		t.Errorf("%d and %d packets dropped that came twice, want 1 and 1", late, again)
	}
}

func TestGivenNumbers(t *testing.T) {
	var g given
	for _, st := range []struct {
		n     uint64
		fresh bool
	}{
		{1 << 32, true}, {1 << 32, false}, {1<<32 + 1, true}, {1<<32 - 1, true}, {1<<32 - 1, false},
		{1<<32 + 70, true}, {1<<32 + 69, true}, {1<<32 + 1, false}, {1<<32 + 69, false},
		{1<<32 + maxGiven, true}, {1 << 32, false}, {1<<32 + 1, false}, {1<<32 + 2, true},
		{1<<32 + 5*maxGiven, true}, {1<<32 + 5*maxGiven - 3, true}, {1<<32 + 4*maxGiven, false},
	} {
		if got := g.add(st.n); got != st.fresh {
			t.Fatalf("add(%d) = %v, want %v", int64(st.n-1<<32), got, st.fresh)
		}
	}
}

// There is room for what a receiver is told in each packet, though packets came before any receiver
// needed it: in the batch at hand, and in the history.
func TestReceiverThatNeedsMoreRoom(t *testing.T) {
	more := SubscriptionConfig{
		SSRC: 5, PayloadType: 96, Ext: Extensions{TWCC: 3, MID: 4}, MID: "12345678", Repair: 6, RepairPayloadType: 97,
	}
	for name, from := range map[string]func(speaker, viewer *endpoint, pub *Publication, b []byte){
		"batch": func(speaker, viewer *endpoint, pub *Publication, b []byte) {
			speaker.read.Receive(b, speaker.path)
			viewer.subscribeAs(pub, more)
			speaker.flush()
		},
		"history": func(speaker, viewer *endpoint, pub *Publication, b []byte) {
			speaker.push(b)
			viewer.subscribeAs(pub, more)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, first, viewer := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
			speaker.peer.SetUplinks([]Uplink{speaker.videoUplink()})
			pub := speaker.publish(PublicationConfig{Source: Camera, Codec: codec.VP8})
			first.subscribe(pub)
			var want []*rtp.Packet
			for i := range 20 {
				p := speaker.nextVideo()
				p.Extension, p.Extensions = false, nil
				p.Payload = codectest.VP8(codectest.Frame{Keyframe: i == 0, First: true, Last: true, Body: make([]byte, 50)})
				want = append(want, p)
				if b := speaker.seal(p); i == 0 {
					from(speaker, viewer, pub, b)
				} else {
					speaker.push(b)
				}
			}
			wantPackets(t, viewer.heard(), want)
			viewer.nack(&Subscription{ssrc: 5}, want[0].SequenceNumber)
			again := viewer.heard()
			if len(again) != 1 || !bytes.Equal(again[0].Payload[2:], want[0].Payload) || string(again[0].GetExtension(4)) != "12345678" {
				t.Errorf("%v came again", again)
			}
		})
	}
}

// An endpoint may write any elements, of any length, as often as it likes.
func TestElementsThatNobodyWouldSend(t *testing.T) {
	for name, tt := range map[string]struct {
		ext      Extensions // of the receiver
		elements [][]byte   // dependency descriptors
		want     int        // length of the one that arrives
	}{
		"second one shorter":   {Extensions{Dependency: 9}, [][]byte{make([]byte, 3), make([]byte, 1)}, 3},
		"second one empty":     {Extensions{Dependency: 9}, [][]byte{make([]byte, 3), {}}, 3},
		"empty":                {Extensions{Dependency: 9}, [][]byte{{}}, 0},
		"long":                 {Extensions{Dependency: 9, SendTime: 2}, [][]byte{make([]byte, 22)}, 22},
		"long, no time":        {Extensions{Dependency: 9}, [][]byte{make([]byte, 22)}, 22},
		"long, with TWCC":      {Extensions{Dependency: 9, TWCC: 2}, [][]byte{make([]byte, 22)}, 22},
		"as long as it passes": {Extensions{Dependency: 9, SendTime: 2}, [][]byte{make([]byte, maxElements-2)}, maxElements - 2},
		"longer":               {Extensions{Dependency: 9, SendTime: 2}, [][]byte{make([]byte, maxElements-1)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			speaker, viewer := r.endpoint(gcm), r.endpoint(gcm)
			up := speaker.videoUplink()
			up.Ext = Extensions{Dependency: extDD}
			speaker.peer.SetUplinks([]Uplink{up})
			viewer.subscribeAs(speaker.publish(PublicationConfig{Source: Camera}), SubscriptionConfig{SSRC: 5, PayloadType: 96, Ext: tt.ext})
			first := speaker.show(1)[0] // begins without a descriptor, to begin at once
			p := speaker.nextVideo()
			p.ExtensionProfile, p.Extensions = profileTwoByte, nil
			plain, err := p.Marshal()
			speaker.must(err)
			var e []byte
			for _, v := range tt.elements {
				e = append(append(e, extDD, byte(len(v))), v...)
			}
			e = append(e, make([]byte, -len(e)&3)...)
			plain = append(append(plain[:14:14], byte(len(e)>>10), byte(len(e)>>2)), append(e, plain[16:]...)...)
			speaker.push(speaker.sealBytes(plain))
			got := viewer.heard()
			wantPackets(t, got, []*rtp.Packet{first, p})
			if n := len(got[1].GetExtension(9)); n != tt.want {
				t.Errorf("a descriptor of %d bytes arrived, want %d", n, tt.want)
			}
		})
	}
}

// A repair stream may claim to be for a payload type that there is not.
func TestRepairsOfNoPayloadType(t *testing.T) {
	r := newRig(t)
	speaker, viewer := r.endpoint(gcm), r.endpoint(gcm)
	up := speaker.repairedUplink()
	up.Codecs[1].Repairs = 200
	speaker.peer.SetUplinks([]Uplink{up})
	viewer.subscribe(speaker.publish(PublicationConfig{Source: Camera}))
	want := speaker.show(3)
	late := speaker.nextVideo()
	want = append(want, speaker.show(4)...)
	speaker.push(speaker.seal(speaker.repairs(late, 7)))
	wantPackets(t, viewer.heard(), want)
}

// Padding may be as long as the packet, but not as what is left of it.
func TestPaddingLongerThanTheNewestAudio(t *testing.T) {
	const red = 63
	for padding, want := range map[byte]int{9: 0, 8: 1, 3: 1} {
		r := newRig(t)
		speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
		up := speaker.uplink("0")
		up.Codecs = append(up.Codecs, Codec{PayloadType: red, Mime: "audio/red", ClockRate: 48000})
		speaker.peer.SetUplinks([]Uplink{up})
		listener.subscribe(speaker.publish(PublicationConfig{}))
		b := []byte{0xa0, red, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, opus, 1, 2, 3, 4, 5, 6, 7, padding}
		binary.BigEndian.PutUint32(b[8:], speaker.ssrc)
		speaker.push(speaker.sealBytes(b))
		if got := listener.heard(); len(got) != want {
			t.Errorf("with padding of %d bytes %d packets arrived, want %d", padding, len(got), want)
		}
	}
}

// Feedback is understood however long the server has run.
func TestTimesOfSendingAfterWeeks(t *testing.T) {
	for _, days := range []time.Duration{0, 12, 13, 14, 365} {
		r := newRig(t)
		r.advance(days * 24 * time.Hour)
		speaker, pub := r.camera(gcm)
		viewer := r.endpoint(gcm)
		viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 5, PayloadType: 96, Ext: Extensions{TWCC: 3}})
		at := r.plane.clock()
		speaker.show(1)
		for _, since := range []time.Duration{-time.Millisecond, 0, time.Second, time.Hour} {
			p, ok := viewer.peer.down.Load().sentPacket(1, at+since)
			if !ok || p.Sent != at {
				t.Errorf("after %d days, looked at %v later, a packet of %v was sent at %v, %v", days, since, at, p.Sent, ok)
			}
		}
	}
}

// F24: an endpoint with valid keys sends whatever it can think of. A receiver of it and of another
// one gets all of the other's packets, and what the server remembers stays within bounds.
func TestHostileSenderCostsNobodyElseAPacket(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	r := newRig(t)
	r.plane.history = 64
	hostile, speaker, viewer := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
	hostile.peer.hook = nil
	up := hostile.repairedUplink()
	up.SSRCs, up.RIDs = up.SSRCs[:1], []string{"l", "m", "h"}
	up.Ext.Dependency, up.Ext.Rotation, up.Ext.RepairRID = extDD, 8, extRID+1
	hostile.peer.SetUplinks([]Uplink{up})
	bad := hostile.publish(PublicationConfig{Source: Camera, Codec: codec.VP8, RIDs: up.RIDs})
	cfg := SubscriptionConfig{
		SSRC: 5, PayloadType: 96, Ext: Extensions{TWCC: 3, MID: 4, Dependency: 5, Rotation: 6}, MID: "12345678", Repair: 6, RepairPayloadType: 97,
	}
	viewer.subscribeAs(bad, cfg)
	good := viewer.subscribe(speaker.publish(PublicationConfig{}))
	var want, got []*rtp.Packet
	hear := func() {
		for _, p := range viewer.heard() {
			if p.SSRC == good.ssrc {
				got = append(got, p)
			}
		}
	}
	extensions := func() (b []byte) {
		for range random.IntN(6) {
			v := make([]byte, []int{0, 1, 3, 20, 60, 200}[random.IntN(6)])
			for i := range v {
				v[i] = byte(random.Uint32())
			}
			id := []byte{extMID, extRID, extRID + 1, extTWCC, extDD, 8, 0, 200}[random.IntN(8)]
			if id == extRID && random.IntN(2) == 0 {
				v = []byte{"lmhx"[random.IntN(4)]}
			}
			b = append(append(b, id, byte(len(v))), v...)
		}
		return append(b, make([]byte, -len(b)&3)...)
	}
	const packets = 100_000
	for i := range packets {
		b := make([]byte, 12, 1500)
		b[0], b[1] = 0x80, []byte{vp8, vp8, vp8, rtx, 0, 127}[random.IntN(6)]|byte(random.IntN(2))<<7
		switch random.IntN(20) {
		case 0:
			b[0] |= byte(random.IntN(16)) // CSRCs
		case 1, 2:
			b[0] |= 0x20 // padding, as long as it comes
		}
		binary.BigEndian.PutUint16(b[2:], uint16(i+random.IntN(500)/499*random.IntN(1<<15)))
		binary.BigEndian.PutUint32(b[4:], random.Uint32())
		binary.BigEndian.PutUint32(b[8:], []uint32{random.Uint32(), uint32(random.IntN(40)), up.SSRCs[0], up.SSRCs[0]}[random.IntN(4)])
		if random.IntN(3) > 0 {
			e := extensions()
			b[0] |= 0x10
			b = binary.BigEndian.AppendUint16(b, []uint16{profileOneByte, profileTwoByte, 0x1234}[random.IntN(3)])
			b = binary.BigEndian.AppendUint16(b, uint16(len(e)/4))
			b = append(b, e...)
		}
		if n := random.IntN(40); n > 0 && len(b) < 1400 {
			payload := codectest.VP8(codectest.Frame{Keyframe: n%3 == 0, First: true, Last: true, Picture: uint16(random.Uint32()), Body: make([]byte, n)})
			b = append(b, payload[:1+random.IntN(len(payload))]...)
		}
		if sealed, err := hostile.enc.EncryptRTP(nil, b, nil); err == nil && len(sealed) > 1 && !isRTCP(sealed) {
			hostile.read.Receive(sealed, hostile.path)
		}
		if i%7 == 0 {
			report := make([]byte, 8+4*random.IntN(40))
			for k := range report {
				report[k] = byte(random.Uint32())
			}
			report[0], report[1] = 0x80|report[0]&0x3f, []byte{200, 201, 203, 205, 206, 207}[random.IntN(6)]
			setLength(report)
			if sealed, err := hostile.enc.EncryptRTCP(nil, report, nil); err == nil {
				hostile.read.Receive(sealed, hostile.path)
			}
		}
		if i%20 == 0 {
			hostile.flush()
			hear()
			want = append(want, speaker.say(1)...)
		}
		if i%100 == 0 {
			r.tick()
			hear()
		}
	}
	hostile.flush()
	hear()
	wantPackets(t, got, want)

	in := &hostile.peer.in
	if in.n > maxStreams || len(in.seen) > maxSSRCs || len(in.senders) > maxSSRCs || len(in.bound) != 1 {
		t.Errorf("%d streams, %d SSRCs, %d senders", in.n, len(in.seen), len(in.senders))
	}
	for _, l := range bad.layers {
		if h := l.history; h != nil && (len(h.packets) != 64 || len(h.chunks) != 64/historyChunk) {
			t.Errorf("a history of %d packets", len(h.packets))
		}
	}
	reader := r.read.(*reader)
	if n := cap(reader.packets); n > 1024 {
		t.Errorf("a reader has room for %d packets", n)
	}
	if n := len(viewer.peer.ssrcs); n != 4 {
		t.Errorf("%d SSRCs to a receiver", n)
	}
	if s := r.plane.Stats(); bad.Stats().Packets < packets/100 || s.Drops[DropMalformed] == 0 || s.Drops[DropPadding] == 0 || s.Drops[DropUnknownSSRC] == 0 {
		t.Errorf("%d packets of the camera, dropped %v: the test is wrong", bad.Stats().Packets, s.Drops)
	}
}

// A receiver begins with a keyframe although one of its packets is lost: that can be had later.
func TestBeginningBeforeALoss(t *testing.T) {
	sh := newShow(t, styles[4], 500)
	made := sh.picture(sh.streams[0], true)
	lost := made[3]
	sh.deliver(append(made[:3:3], made[4:]...)...)
	sh.deliver(lost)
	for i, v := range sh.receivers {
		sh.checkReceiver(sh.name, v)
		if n := len(v.got); n != len(made) {
			t.Errorf("receiver %d got %d packets, want %d", i, n, len(made))
		}
	}
}
