package forward

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

const (
	vp8    = 100
	extRID = 9
)

// camera returns an attached endpoint with a declared video section and the publication of it.
func (r *rig) camera(profile srtp.ProtectionProfile) (*endpoint, *Publication) {
	r.t.Helper()
	e := r.endpoint(profile)
	e.peer.SetUplinks([]Uplink{e.videoUplink()})
	return e, e.publish(PublicationConfig{Source: Camera})
}

func (e *endpoint) videoUplink() Uplink {
	return Uplink{
		MID: "0", SSRCs: []uint32{e.ssrc},
		Codecs: []Codec{{PayloadType: vp8, Mime: "video/VP8", ClockRate: 90000}},
		Ext:    Extensions{MID: extMID, RID: extRID, TWCC: extTWCC},
	}
}

// nextVideo returns the endpoint's next video packet, of about 1,000 bytes.
func (e *endpoint) nextVideo() *rtp.Packet {
	p := e.next(0)
	p.PayloadType = vp8
	p.Marker = e.seq%4 == 0
	p.Payload = append(p.Payload, bytes.Repeat([]byte{byte(e.seq)}, 960)...)
	return p
}

// show sends the next n video packets, 10 ms apart, each a batch of its own.
func (e *endpoint) show(n int) (sent []*rtp.Packet) {
	e.t.Helper()
	for range n {
		p := e.nextVideo()
		sent = append(sent, p)
		e.push(e.seal(p))
		e.advance(10 * time.Millisecond)
	}
	return sent
}

// sent returns what was sent to the endpoint since the last time: RTP as it is on the wire, RTCP
// decrypted.
func (e *endpoint) sent() (media [][]byte, told []rtcp.Packet) {
	e.t.Helper()
	for _, b := range e.take(e.path) {
		if !isRTCP(b) {
			media = append(media, b)
			continue
		}
		plain, err := e.dec.DecryptRTCP(nil, b, nil)
		e.must(err)
		parts, err := rtcp.Unmarshal(plain)
		e.must(err)
		told = append(told, parts...)
	}
	return media, told
}

// wantKeyframes checks that the endpoint was asked n times since the last time, for that SSRC.
func (e *endpoint) wantKeyframes(n int, ssrc uint32, when string) {
	e.t.Helper()
	_, told := e.sent()
	got := find[*rtcp.PictureLossIndication](told)
	if len(got) != n {
		e.t.Fatalf("%s: %d keyframes asked for, want %d", when, len(got), n)
	}
	for _, p := range got {
		if p.MediaSSRC != ssrc || p.SenderSSRC != e.peer.ssrc {
			e.t.Fatalf("%s: %+v, want for %x from %x", when, p, ssrc, e.peer.ssrc)
		}
	}
}

func TestSubscribingAsksForAKeyframe(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	early := r.endpoint(gcm)
	early.subscribe(pub)
	r.tick()
	speaker.wantKeyframes(0, 0, "before the first packet")
	speaker.show(1)
	speaker.wantKeyframes(1, speaker.ssrc, "at the first packet")

	// Within the second that one is remembered, and sent when it is over.
	r.advance(300 * time.Millisecond)
	r.endpoint(gcm).subscribe(pub)
	for range 6 {
		r.tick()
		speaker.show(1)
		r.advance(90 * time.Millisecond)
	}
	speaker.wantKeyframes(0, 0, "within a second")
	for range 30 {
		r.advance(TickInterval)
		r.tick()
	}
	speaker.wantKeyframes(1, speaker.ssrc, "after it")

	// One that subscribes later needs no packet for it.
	r.endpoint(gcm).subscribe(pub)
	r.tick()
	speaker.wantKeyframes(1, speaker.ssrc, "at the tick")
	if n := r.plane.Stats().Keyframes; n != 3 {
		t.Errorf("%d requests counted, want 3", n)
	}
}

func TestKeyframeRequestsOfReceiversAreJoined(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	var viewers []*endpoint
	var subs []*Subscription
	for range 5 {
		v := r.endpoint(gcm)
		viewers, subs = append(viewers, v), append(subs, v.subscribe(pub))
	}
	speaker.show(1)
	speaker.wantKeyframes(1, speaker.ssrc, "at the first packet")
	r.advance(2 * time.Second)
	r.tick()
	speaker.wantKeyframes(0, 0, "unasked")

	// M8: FIR counts as PLI. Five viewers, 200 a second each, for ten seconds.
	asked := 0
	for i := range 2000 {
		for k, v := range viewers {
			if i%2 == 0 {
				v.tell(&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: subs[k].ssrc})
			} else {
				v.tell(&rtcp.FullIntraRequest{SenderSSRC: 1, FIR: []rtcp.FIREntry{{SSRC: subs[k].ssrc}}})
			}
		}
		if i == 0 {
			speaker.wantKeyframes(1, speaker.ssrc, "at once")
			asked++
		}
		r.advance(5 * time.Millisecond)
		if i%20 == 0 {
			r.tick()
		}
		_, told := speaker.sent()
		asked += len(find[*rtcp.PictureLossIndication](told))
	}
	if asked != 10 {
		t.Errorf("%d keyframes asked for in 10 s, want 10", asked)
	}
}

func TestKeyframesNobodyWantsAreNotAskedFor(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer := r.endpoint(gcm)
	sub := viewer.subscribe(pub)
	speaker.show(1)
	viewer.tell(&rtcp.PictureLossIndication{MediaSSRC: sub.ssrc})
	speaker.wantKeyframes(1, speaker.ssrc, "at the first packet")
	sub.Close()
	r.advance(2 * time.Second)
	r.tick()
	speaker.show(1)
	speaker.wantKeyframes(0, 0, "with nobody there")

	voice := r.endpoint(gcm)
	heard := viewer.subscribe(voice.publish(PublicationConfig{}))
	voice.say(1)
	viewer.tell(&rtcp.PictureLossIndication{MediaSSRC: heard.ssrc})
	r.tick()
	voice.wantKeyframes(0, 0, "of a voice")
}

func TestNewSSRCOfAVideoIsAskedForAKeyframe(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	r.endpoint(gcm).subscribe(pub)
	speaker.show(1)
	speaker.wantKeyframes(1, speaker.ssrc, "at the first packet")
	r.advance(2 * time.Second)
	speaker.ssrc = 0xabcd
	speaker.peer.SetUplinks([]Uplink{speaker.videoUplink()})
	speaker.show(3)
	speaker.wantKeyframes(1, 0xabcd, "after the change")
}

func TestReportsOfVideos(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.camera(gcm)
	viewer := r.endpoint(gcm)
	sub := viewer.subscribe(pub)
	last := speaker.show(50)[49]
	r.second()
	told := find[*rtcp.SenderReport](viewer.told())
	if len(told) != 1 || told[0].SSRC != sub.ssrc || told[0].PacketCount != 50 || told[0].RTPTime-last.Timestamp > 90000 {
		t.Errorf("sender reports %+v, want one of 50 packets, up to a second after %d", told, last.Timestamp)
	}
	reports := find[*rtcp.ReceiverReport](speaker.told())
	if len(reports) != 1 || len(reports[0].Reports) != 1 || reports[0].Reports[0].SSRC != speaker.ssrc {
		t.Errorf("receiver reports %+v, want one of %x", reports, speaker.ssrc)
	}
}

// A section with two RIDs: the publication is fed by the one it is told to be.
func TestRIDThatFeedsAVideo(t *testing.T) {
	for _, rid := range []string{"l", "h", ""} {
		t.Run("rid="+rid, func(t *testing.T) {
			r := newRig(t)
			speaker := r.endpoint(gcm)
			up := speaker.videoUplink()
			up.SSRCs, up.RIDs = nil, []string{"l", "h"}
			speaker.peer.SetUplinks([]Uplink{up})
			viewer := r.endpoint(gcm)
			pub := speaker.publish(PublicationConfig{Source: Screen, RIDs: []string{rid}})
			viewer.subscribe(pub)
			var want []*rtp.Packet
			var ssrc uint32
			for i := range 30 {
				p := speaker.nextVideo()
				of := []string{"h", "l", ""}[i%3]
				p.SSRC = 0x700 + uint32(i%3)
				p.SequenceNumber = uint16(100 + i/3)
				switch {
				case of != "" && i < 6: // as long as the sender is not sure that it is known
					speaker.must(p.SetExtension(extRID, []byte(of)))
				case i < 6:
					speaker.must(p.SetExtension(extMID, []byte("0")))
				}
				if of == rid {
					want = append(want, p)
					ssrc = p.SSRC
				}
				speaker.push(speaker.seal(p))
			}
			wantPackets(t, viewer.heard(), want)
			if n := r.drops(DropRID); n != 20 {
				t.Errorf("%d packets of other RIDs counted, want 20", n)
			}
			if s := pub.Stats(); s.SSRC != ssrc || s.Packets != 10 {
				t.Errorf("stats %+v, want 10 packets of %x", s, ssrc)
			}
			speaker.wantKeyframes(1, ssrc, "of the stream that feeds it")
			told := []Stream{
				{MID: "0", RID: "h", SSRC: 0x700, PayloadType: vp8, Mime: "video/VP8"},
				{MID: "0", RID: "l", SSRC: 0x701, PayloadType: vp8, Mime: "video/VP8"},
				{MID: "0", SSRC: 0x702, PayloadType: vp8, Mime: "video/VP8"},
			}
			if !slices.Equal(speaker.streams, told) {
				t.Errorf("streams %+v, want %+v", speaker.streams, told)
			}
		})
	}
}

// A RID that only a later packet tells is told of, and one that the description tells needs none.
func TestRIDThatComesLate(t *testing.T) {
	r := newRig(t)
	speaker, viewer := r.endpoint(gcm), r.endpoint(gcm)
	up := speaker.videoUplink()
	up.RIDs = []string{"l", "h"}
	speaker.peer.SetUplinks([]Uplink{up})
	viewer.subscribe(speaker.publish(PublicationConfig{Source: Screen, RIDs: []string{"h"}}))
	speaker.show(2)
	p := speaker.nextVideo()
	speaker.must(p.SetExtension(extRID, []byte("h")))
	speaker.push(speaker.seal(p))
	want := append([]*rtp.Packet{p}, speaker.show(2)...)
	wantPackets(t, viewer.heard(), want)
	if n := len(speaker.streams); n != 2 || speaker.streams[0].RID != "" || speaker.streams[1].RID != "h" {
		t.Errorf("streams %+v, want one without RID, then with it", speaker.streams)
	}

	other := r.endpoint(gcm)
	up = other.videoUplink()
	up.RIDs = []string{"h"}
	other.peer.SetUplinks([]Uplink{up})
	viewer.subscribe(other.publish(PublicationConfig{Source: Screen, RIDs: []string{"h"}}))
	want = other.show(2)
	wantPackets(t, viewer.heard(), want)
	if len(other.streams) != 1 || other.streams[0].RID != "h" {
		t.Errorf("streams %+v, want one with the declared RID", other.streams)
	}
}
