package forward

import (
	"bytes"
	"encoding/binary"
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
