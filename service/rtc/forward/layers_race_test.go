package forward

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
	"rtcd/service/rtc/netio"
)

// Two readers take the packets of a speaker with a voice and a camera in layers, whose path moves
// between them, with losses and repairs; others subscribe and leave, ask for packets and keyframes,
// have the loudest voices only, and their targets change; descriptions are applied, the camera is
// muted and the clock ticks. Who stays gets under each number one packet, and nothing that was not
// sent.
func TestLayersAndEverythingAtOnce(t *testing.T) {
	const red, rounds = 63, 1500
	r := newRig(t)
	r.plane.history = 64
	nothing := func(Stream) {} // the endpoint's own is for one goroutine
	speaker, rival, viewer := r.endpoint(gcm), r.endpoint(gcm), r.endpoint(gcm)
	speaker.peer.hook, rival.peer.hook, viewer.peer.hook = nothing, nothing, nothing
	voice := speaker.uplink("0")
	voice.NACK = true
	voice.Codecs = append(voice.Codecs, Codec{PayloadType: red, Mime: "audio/red", ClockRate: 48000})
	camera := Uplink{
		MID: "1", RIDs: []string{"l", "m", "h"},
		Codecs: []Codec{
			{PayloadType: vp8, Mime: "video/VP8", ClockRate: 90000},
			{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: vp8},
		},
		Ext: Extensions{RID: extRID, RepairRID: extRID + 1, TWCC: extTWCC, MID: extMID},
	}
	speaker.peer.SetUplinks([]Uplink{voice, camera})
	floor := NewFloor(1)
	sound := speaker.publish(PublicationConfig{Floor: floor, OnVoice: func(bool) {}})
	rival.publish(PublicationConfig{Floor: floor})
	video, err := speaker.peer.Publish("1", PublicationConfig{Source: Camera, Codec: codec.VP8, RIDs: camera.RIDs})
	speaker.must(err)

	soundSub := SubscriptionConfig{SSRC: 7, PayloadType: 96, NACK: true, Ext: Extensions{TWCC: 5}}
	videoSub := SubscriptionConfig{
		SSRC: 8, PayloadType: 97, Repair: 9, RepairPayloadType: 98, Ext: Extensions{TWCC: 5, MID: 6, Dependency: 7}, MID: "v",
	}
	viewer.subscribeAs(sound, soundSub)
	steady := viewer.subscribeAs(video, videoSub)

	// All that is sent, in order: of each layer a packet in turn, a voice, now and then a repair.
	var sealed, theirs, feedback [][]byte
	seqs := [3]uint16{65000, 100, 32000}
	payloads := make(map[string]bool)
	for i := range rounds {
		for layer := range seqs {
			p := &rtp.Packet{Header: rtp.Header{
				Version: 2, PayloadType: vp8, SequenceNumber: seqs[layer], Timestamp: uint32(i) * 3000, SSRC: uint32(0x100 + layer), Marker: true,
			}}
			seqs[layer]++
			speaker.must(p.SetExtension(extRID, []byte(camera.RIDs[layer])))
			speaker.must(p.SetExtension(extMID, []byte("1")))
			body := binary.BigEndian.AppendUint32(bytes.Repeat([]byte{byte(i)}, 300*(layer+1)), uint32(i*3+layer))
			p.Payload = codectest.VP8(codectest.Frame{Keyframe: i%10 == 0, Picture: uint16(i), First: true, Last: true, Body: body})
			payloads[string(body[len(body)-20:])] = true
			if i%13 != layer {
				sealed = append(sealed, speaker.seal(p))
				continue
			}
			q := p.Clone()
			q.SSRC, q.PayloadType, q.SequenceNumber = uint32(0x200+layer), rtx, uint16(i)
			q.Payload = append(binary.BigEndian.AppendUint16(nil, p.SequenceNumber), p.Payload...)
			speaker.must(q.SetExtension(extRID+1, []byte(camera.RIDs[layer])))
			late := speaker.seal(p)
			sealed = append(sealed, speaker.seal(q))
			if i%2 == 0 {
				sealed = append(sealed, late)
			}
		}
		p := speaker.next(levelLoud)
		if i%3 == 0 {
			p.PayloadType = red
			p.Payload = append([]byte{opus}, p.Payload...)
		}
		sealed = append(sealed, speaker.seal(p))
		theirs = append(theirs, rival.seal(rival.next(uint8(i%100))))
		plain, err := rtcp.Marshal([]rtcp.Packet{
			&rtcp.PictureLossIndication{MediaSSRC: 8},
			&rtcp.TransportLayerNack{MediaSSRC: 8, Nacks: []rtcp.NackPair{{PacketID: uint16(65000 + i), LostPackets: 0xffff}}},
			&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: uint16(500 + i), LostPackets: 7}}},
			&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: float32(i * 5000)},
			&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 8, FractionLost: uint8(i)}}},
		})
		speaker.must(err)
		feedback = append(feedback, viewer.sealRTCP(plain))
	}

	other := netio.NewPath(1, netip.MustParseAddrPort("203.0.113.9:9"), false)
	speaker.must(speaker.peer.Move(other))
	var mu sync.Mutex
	at := 0
	var readers, wg sync.WaitGroup
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
	for k, path := range []netio.Path{speaker.path, other} {
		read, out := r.reader()
		readers.Go(func() {
			for {
				mu.Lock()
				some := sealed[at:min(at+9, len(sealed))]
				round := at * rounds / len(sealed)
				at += len(some)
				r.advance(20 * time.Millisecond)
				mu.Unlock()
				if len(some) == 0 {
					return
				}
				for _, b := range some {
					read.Receive(bytes.Clone(b), path)
				}
				read.Receive(bytes.Clone(theirs[round]), rival.path)
				if round%2 == k {
					read.Receive(bytes.Clone(feedback[round]), viewer.path)
				}
				read.Flush()
				out.Flush()
			}
		})
	}
	background(func(int) {
		guest := r.plane.NewPeer(PeerConfig{})
		path := netio.NewPath(0, netip.MustParseAddrPort("203.0.113.10:9"), false)
		if err := guest.Attach(path, testKeys(cm, 99)); err != nil {
			t.Error(err)
		}
		one, err := sound.Subscribe(guest, SubscriptionConfig{SSRC: guest.NewSSRC(), PayloadType: 96, RED: 63})
		if err != nil {
			t.Error(err)
		}
		two, err := video.Subscribe(guest, SubscriptionConfig{
			SSRC: guest.NewSSRC(), PayloadType: 96, Repair: guest.NewSSRC(), RepairPayloadType: 99,
			Ext: Extensions{SendTime: 3, MID: 4, Delay: 5}, MID: "12345678",
		})
		if err != nil {
			t.Error(err)
		}
		two.Layer()
		one.Close()
		guest.Close()
		r.take(path)
	})
	_, tickOut := r.reader()
	background(func(i int) {
		r.plane.Tick(r.clock(), tickOut)
		steady.target.Store(target{layer: int8(i % 3), temporal: maxTemporals - 1}.pack())
		steady.padding.Store(int64(i%2) * 1_000_000)
	})
	background(func(i int) {
		more := speaker.uplink("2")
		more.SSRCs = []uint32{uint32(i)}
		speaker.peer.SetUplinks([]Uplink{voice, camera, more})
		if err := speaker.peer.Move([]netio.Path{speaker.path, other}[i%2]); err != nil {
			t.Error(err)
		}
		if i%50 == 0 {
			video.SetMuted(true)
			video.SetMuted(false)
		}
		video.RequestKeyframe()
		video.Stats()
		steady.Stats()
	})
	readers.Wait()
	close(stop)
	wg.Wait()

	keys := testKeys(gcm, 3)
	dec, err := srtp.CreateContext(keys.LocalKey, keys.LocalSalt, gcm)
	speaker.must(err)
	got := make(map[uint64][]byte)
	media := 0
	for _, b := range r.take(viewer.path) {
		if isRTCP(b) {
			continue
		}
		plain, err := dec.DecryptRTP(nil, b, nil)
		viewer.must(err)
		p := new(rtp.Packet)
		viewer.must(p.Unmarshal(plain))
		nonce := uint64(p.SSRC)<<16 | uint64(p.SequenceNumber)
		if before, again := got[nonce]; again && !bytes.Equal(before, plain) {
			t.Fatalf("two packets under the nonce of %x/%d", p.SSRC, p.SequenceNumber)
		}
		got[nonce] = plain
		if n := len(p.Payload); p.SSRC == 8 && n > 0 {
			if media++; !payloads[string(p.Payload[n-20:])] {
				t.Fatalf("payload %x was never sent", p.Payload)
			}
		}
	}
	if media < 10 { // its targets change faster than keyframes come
		t.Errorf("%d packets of the camera arrived", media)
	}
}
