package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
	"rtcd/service/rtc/netio"
)

// prepared is a show whose pictures are sealed beforehand and whose packets go nowhere.
type prepared struct {
	*show
	pictures [][][]byte
	reader   netio.Reader
	out      *netio.Batch
	n        int
	clock    time.Time
}

// prepare seals n pictures of a style, a keyframe every tenth.
func prepare(t testing.TB, s style, n int) *prepared {
	p := &prepared{show: newShow(t, s, 500)}
	p.join(SubscriptionConfig{PayloadType: 99, Ext: Extensions{SendTime: 2, Dependency: 3}})
	p.join(SubscriptionConfig{PayloadType: 99, Ext: Extensions{TWCC: 2, Dependency: 3, MID: 4}, MID: "12345678"})
	p.out = netio.NewBatchFunc(func([]byte, netio.Path) {})
	p.reader = p.plane.NewReader(p.out)
	for i := range n {
		var sealed [][]byte
		for _, st := range p.streams {
			for _, q := range p.picture(st, i%10 == 0) {
				sealed = append(sealed, p.speaker.seal(q.Packet))
			}
		}
		p.pictures = append(p.pictures, sealed)
	}
	p.clock = p.rig.now
	p.plane.now = func() time.Time { return p.clock }
	return p
}

// next forwards the next picture of each layer.
func (p *prepared) next() {
	p.clock = p.clock.Add(33 * time.Millisecond)
	for _, b := range p.pictures[p.n] {
		p.reader.Receive(b, p.speaker.path)
	}
	p.n++
	p.reader.Flush()
	p.out.Flush()
}

// aimAll makes all receivers change to the next layer, every ten pictures where the keyframes are.
func (p *prepared) aimAll() {
	every := 10
	if p.opaque {
		every = 30 // there are no keyframes to be seen: it takes time
	}
	for i, v := range p.receivers {
		t := everything
		if k := i + p.n/every; p.rids != nil {
			t.layer = int8(k % len(p.rids))
		} else {
			t.spatial, t.temporal = uint8(k%3), uint8(k%2)
		}
		v.sub.target.Store(t.pack())
	}
}

// Nothing is allocated for packets of videos, in whatever codec, for receivers that change layers
// all the time, ask for packets again, report and are sent padding.
func TestForwardingLayersAllocatesNothing(t *testing.T) {
	for _, s := range styles {
		t.Run(s.name, func(t *testing.T) {
			p := prepare(t, s, 700)
			switching := func() {
				p.aimAll()
				p.next()
			}
			for range 100 {
				switching()
			}
			changed := 0
			layer := p.receivers[0].sub.Layer()
			got := testing.AllocsPerRun(100, func() {
				switching()
				if now := p.receivers[0].sub.Layer(); now != layer {
					layer = now
					changed++
				}
			})
			if got != 0 {
				t.Errorf("%v allocations per picture, want 0", got)
			}
			if changed < 3 {
				t.Errorf("a receiver changed layers %d times: the test is wrong", changed)
			}

			// With padding, on a repair stream and without one.
			for _, v := range p.receivers {
				v.sub.padding.Store(2_000_000)
			}
			for range 20 {
				switching()
			}
			before := p.plane.Stats().Padding
			if got := testing.AllocsPerRun(100, switching); got != 0 {
				t.Errorf("%v allocations per picture with padding, want 0", got)
			}
			if p.plane.Stats().Padding == before {
				t.Error("no padding: the test is wrong")
			}

			// With answers to NACKs, and feedback.
			reader := p.reader.(*reader)
			nack := make([]byte, 16)
			feedback := make([]byte, twccHeader+2+32)
			asking := func() {
				switching()
				reader.now, reader.counts.dirty = p.plane.clock(), true
				for _, v := range p.receivers {
					binary.BigEndian.PutUint32(nack[8:], v.sub.ssrc)
					binary.BigEndian.PutUint32(nack[12:], v.sub.view.numbersNewest()<<16|0xffff)
					reader.asked = 0
					reader.nack(v.peer, nack)
					binary.BigEndian.PutUint16(feedback[12:], uint16(v.peer.twccOut.Load())-31)
					binary.BigEndian.PutUint16(feedback[14:], 32)
					binary.BigEndian.PutUint16(feedback[twccHeader:], smallDelta<<13|32)
					v.peer.down.Load().feedback(feedback, reader.now)
				}
				p.reader.Flush()
				p.out.Flush()
			}
			for range 20 {
				asking()
			}
			resent := p.plane.Stats().Resent
			if got := testing.AllocsPerRun(100, asking); got != 0 {
				t.Errorf("%v allocations per picture with NACKs and feedback, want 0", got)
			}
			if p.plane.Stats().Resent < resent+50 {
				t.Error("nothing was sent again: the test is wrong")
			}

			tick := func() {
				p.next()
				p.plane.Tick(p.clock, p.out)
			}
			for range 30 {
				tick()
			}
			out := p.plane.Stats().RTCPOut
			got = testing.AllocsPerRun(100, tick)
			if most := float64(p.plane.Stats().RTCPOut-out)/101 + 0.5; got > most {
				t.Errorf("%v allocations per tick, want no more than the %v of pion/srtp, one per RTCP packet", got, most)
			}
		})
	}
}

// numbersNewest returns a number that was sent a few packets ago.
func (v *view) numbersNewest() uint32 {
	probe := v.numbers // a copy
	n, _ := probe.Insert()
	return uint32(n - 20)
}

// BenchmarkForwardLayers measures a packet of 1,000 bytes of a camera with one or three layers to n
// receivers, of which each is sent one layer. Time is per packet received and per packet sent.
func BenchmarkForwardLayers(b *testing.B) {
	for _, layers := range []int{1, 3} {
		for _, n := range []int{10, 100} {
			for _, extended := range []bool{false, true} {
				b.Run(fmt.Sprintf("layers=%d/n=%d/ext=%v", layers, n, extended), func(b *testing.B) {
					benchmarkLayers(b, layers, n, extended)
				})
			}
		}
	}
}

func benchmarkLayers(b *testing.B, layers, n int, extended bool) {
	r := newRig(b)
	now := r.now
	r.plane.now = func() time.Time { return now }
	out := netio.NewBatchFunc(func([]byte, netio.Path) {})
	read := r.plane.NewReader(out)
	speaker := r.endpoint(gcm)
	rids := []string{"l", "m", "h"}[:layers]
	up := speaker.videoUplink()
	up.SSRCs = nil
	if layers > 1 {
		up.RIDs = rids
	} else {
		rids = nil
	}
	speaker.peer.SetUplinks([]Uplink{up})
	pub := speaker.publish(PublicationConfig{Source: Camera, Codec: codec.VP8, RIDs: rids})
	for i := range n {
		viewer := r.plane.NewPeer(PeerConfig{})
		path := netio.NewPath(0, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(i+1)), false)
		if err := viewer.Attach(path, testKeys(gcm, 1000+i)); err != nil {
			b.Fatal(err)
		}
		cfg := SubscriptionConfig{SSRC: viewer.NewSSRC(), PayloadType: 96, Ext: Extensions{TWCC: 5}}
		if extended {
			cfg.Ext.MID, cfg.MID, cfg.Repair, cfg.RepairPayloadType = 6, "12", viewer.NewSSRC(), 97
		}
		sub, err := pub.Subscribe(viewer, cfg)
		if err != nil {
			b.Fatal(err)
		}
		sub.target.Store(target{layer: int8(i % layers), spatial: 3, temporal: 3}.pack())
	}
	var plains [][]byte
	for layer := range layers {
		p := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: vp8, SSRC: uint32(0x100 + layer)}}
		speaker.must(p.SetExtension(extTWCC, []byte{0, 0}))
		if layers > 1 {
			speaker.must(p.SetExtension(extRID, []byte(rids[layer])))
		}
		p.Payload = codectest.VP8(codectest.Frame{Keyframe: true, First: true, Last: true, Picture: 9, Body: make([]byte, 980)})
		plain, err := p.Marshal()
		speaker.must(err)
		plains = append(plains, plain)
	}
	var hdr rtp.Header
	buf := make([]byte, 0, 1600)
	seq := uint16(0)
	round := func() {
		seq++
		for _, plain := range plains {
			now = now.Add(10 * time.Millisecond)
			binary.BigEndian.PutUint16(plain[2:], seq)
			binary.BigEndian.PutUint32(plain[4:], uint32(seq)*3000)
			var err error
			if buf, err = speaker.enc.EncryptRTP(buf[:0], plain, &hdr); err != nil {
				b.Fatal(err)
			}
			read.Receive(buf, speaker.path)
			read.Flush()
			out.Flush()
		}
	}
	for range 600 {
		round()
	}
	sent := r.plane.Stats().PacketsOut
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		round()
	}
	sent = r.plane.Stats().PacketsOut - sent
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*layers), "ns/received")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/forwarded")
}
