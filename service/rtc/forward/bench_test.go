package forward

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/netio"
)

// audience returns a sender's packets, and the reader of a plane where n receivers get them. What
// is sent goes nowhere. The clock stands, but for a step of 20 ms with each call of next.
func audience(tb testing.TB, of Source, profile srtp.ProtectionProfile, n int, twcc bool) (src *source, next func()) {
	r := newRig(tb)
	now := r.now
	r.plane.now = func() time.Time { return now }
	out := netio.NewBatchFunc(func([]byte, netio.Path) {})
	read := r.plane.NewReader(out)
	speaker := r.endpoint(profile)
	pub := speaker.publish(PublicationConfig{Source: of, OnVoice: func(bool) {}, WriteTime: new(Histogram)})
	for i := range n {
		listener := r.plane.NewPeer(PeerConfig{})
		path := netio.NewPath(0, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), uint16(i+1)), false)
		if err := listener.Attach(path, testKeys(profile, 1000+i)); err != nil {
			tb.Fatal(err)
		}
		cfg := SubscriptionConfig{SSRC: listener.NewSSRC(), PayloadType: 96}
		if twcc {
			cfg.Ext.TWCC = 5
		}
		if _, err := pub.Subscribe(listener, cfg); err != nil {
			tb.Fatal(err)
		}
	}
	src = newSource(speaker)
	return src, func() {
		now = now.Add(20 * time.Millisecond)
		b := src.seal()
		if read.Known(speaker.path) {
			read.Receive(b, speaker.path)
		}
		read.Flush()
		out.Flush()
	}
}

func TestForwardingAllocatesNothing(t *testing.T) {
	for _, profile := range []srtp.ProtectionProfile{gcm, cm} {
		if profile == cm && raceEnabled {
			continue // pion/srtp takes what CM needs from a sync.Pool, which forgets on purpose then
		}
		for _, n := range []int{1, 10, 100} {
			for _, twcc := range []bool{false, true} {
				for _, of := range []Source{Voice, Screen} {
					t.Run(fmt.Sprintf("%s/%s/%d/%v", of, profile, n, twcc), func(t *testing.T) {
						src, next := audience(t, of, profile, n, twcc)
						for range defaultHistory { // a history takes its memory as it grows
							next()
						}
						if got := testing.AllocsPerRun(100, next); got != 0 {
							t.Errorf("%v allocations per packet to %d receivers, want 0", got, n)
						}
						s := src.plane.Stats()
						if s.PacketsOut != uint64(n)*(s.PacketsIn) {
							t.Errorf("%d packets out for %d in", s.PacketsOut, s.PacketsIn)
						}
					})
				}
			}
		}
	}
}

func TestTickAllocatesNothingOfItsOwn(t *testing.T) {
	src, next := audience(t, Voice, gcm, 10, true)
	src.peer.mu.Lock()
	src.peer.in.arrivals = new(arrivals)
	src.peer.mu.Unlock()
	out := netio.NewBatchFunc(func([]byte, netio.Path) {})
	tick := func() {
		for range 5 {
			next()
		}
		src.plane.Tick(src.plane.now(), out)
	}
	for range 50 {
		tick()
	}
	before := src.plane.Stats().RTCPOut
	got := testing.AllocsPerRun(100, tick)
	sent := float64(src.plane.Stats().RTCPOut-before) / 101
	if sent < 2 {
		t.Fatalf("%v RTCP packets per tick: the test is wrong", sent)
	}
	if got > sent {
		t.Errorf("%v allocations per tick with %v packets, want no more than pion/srtp's one each", got, sent)
	}
}

func TestReceivingRTCPAllocatesNothingOfItsOwn(t *testing.T) {
	r := newRig(t)
	e := r.endpoint(gcm)
	plain, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 7}}}})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 200)
	once := func() {
		if buf, err = e.enc.EncryptRTCP(buf[:0], plain, nil); err != nil {
			t.Fatal(err)
		}
		e.read.Receive(buf, e.path)
		e.flush()
		e.advance(10 * time.Millisecond)
	}
	seal := testing.AllocsPerRun(50, func() { buf, _ = e.enc.EncryptRTCP(buf[:0], plain, nil) })
	once()
	if got := testing.AllocsPerRun(100, once); got > 2*seal {
		t.Errorf("%v allocations per RTCP packet, %v of them to make it", got, seal)
	}
}

// BenchmarkForward measures one voice packet of 100 bytes to n receivers. "bare" is pion/srtp's
// encryption alone, over as many contexts and into the same number of slots: what is above it is
// ours, with the receiving shared by all.
func BenchmarkForward(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			_, next := audience(b, Voice, gcm, n, true)
			b.ReportAllocs()
			for b.Loop() {
				next()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/forwarded")
		})
		b.Run(fmt.Sprintf("bare/n=%d", n), func(b *testing.B) {
			contexts := make([]*srtp.Context, n)
			for i := range contexts {
				contexts[i], _ = testKeys(gcm, i).outbound()
			}
			plain := make([]byte, fixedHeader+twccBlock+100)
			copy(plain, []byte{0x90, 96})
			copy(plain[12:], []byte{0xbe, 0xde, 0, 1, 0x51, 0, 0, 0})
			slots := make([]byte, 256*1600)
			var hdr rtp.Header
			seq, slot := uint16(0), 0
			b.ReportAllocs()
			for b.Loop() {
				seq++
				plain[2], plain[3] = byte(seq>>8), byte(seq)
				for _, c := range contexts {
					at := slot % 256 * 1600
					slot++
					if _, err := c.EncryptRTP(slots[at:at:at+1600], plain, &hdr); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/forwarded")
		})
	}
}
