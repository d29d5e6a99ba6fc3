package forward

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"rtcd/service/rtc/netio"
)

// playout is what a receiver knows of when things were captured: by the last sender report of each
// stream.
type playout map[uint32]*rtcp.SenderReport

// captured returns when the packet was, by NTP; ok is false before the first report.
func (p playout) captured(packet *rtp.Packet, clockRate int) (at time.Duration, ok bool) {
	sr := p[packet.SSRC]
	if sr == nil {
		return 0, false
	}
	const start = 3_900_000_000 << 32 // so that what is left fits a Duration
	since := time.Duration(int32(packet.Timestamp-sr.RTPTime)) * time.Second / time.Duration(clockRate)
	return ntpDuration(int64(sr.NTPTime-start)) + since, true
}

// A sender's streams count from random times, and its reports come when they do. However often a
// receiver is moved between layers, voice and video stay together.
func TestVoiceAndVideoStayInStep(t *testing.T) {
	type setup struct {
		reports string  // when the sender's reports come
		drift   float64 // of the sender's RTP clocks, from its NTP clock
		jitter  time.Duration
		quiet   time.Duration // without a switch, first
	}
	for name, c := range map[string]setup{
		"reports of all":            {reports: "all"},
		"jitter":                    {reports: "all", jitter: 60 * time.Millisecond},
		"no reports":                {reports: "none"},
		"reports of the voice":      {reports: "voice", jitter: 10 * time.Millisecond},
		"reports of a layer late":   {reports: "late", jitter: 10 * time.Millisecond},
		"clock that is wrong":       {reports: "all", drift: 100e-6, quiet: 1000 * time.Second},
		"clock that is wrong, slow": {reports: "all", drift: -100e-6, quiet: 1000 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			rng := rand.New(rand.NewPCG(11, 12))
			speaker, pub := r.simulcastOf("video/VP8", "l", "m", "h")
			up := speaker.uplink("1")
			up.SSRCs = []uint32{0x5005}
			video := speaker.videoUplink()
			video.SSRCs, video.RIDs = nil, []string{"l", "m", "h"}
			speaker.peer.SetUplinks([]Uplink{video, up})
			voice, err := speaker.peer.Publish("1", PublicationConfig{})
			speaker.must(err)
			viewer := r.endpoint(gcm)
			sub := viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96})
			viewer.subscribeAs(voice, SubscriptionConfig{SSRC: 8, PayloadType: 98})

			layers := make([]*encoder, 3)
			for i, rid := range []string{"l", "m", "h"} {
				layers[i] = newEncoder("video/VP8", rid, byte(i), 1+i, rng)
			}
			voiceOffset, voiceSeq := rng.Uint32(), uint16(rng.Uint32())
			rtpTime := func(at time.Duration) time.Duration { return at + time.Duration(float64(at)*c.drift) }
			report := func(at time.Duration, ssrc, offset, rate uint32) {
				speaker.tell(&rtcp.SenderReport{SSRC: ssrc, NTPTime: toNTP(time.Unix(77_000, 0).Add(at)), RTPTime: offset + toClock(rtpTime(at), rate)})
			}
			known := make(playout)
			// The transit of what came last, by the receiver's playout: when it was captured by our
			// reports, less when it was.
			transit := make(map[uint32]time.Duration)
			worst, compared, layer := time.Duration(0), 0, -1
			switches := 0
			see := func(at time.Duration) {
				for _, b := range r.take(viewer.path) {
					if isRTCP(b) {
						plain, err := viewer.dec.DecryptRTCP(nil, b, nil)
						viewer.must(err)
						parts, err := rtcp.Unmarshal(plain)
						viewer.must(err)
						for _, sr := range find[*rtcp.SenderReport](parts) {
							known[sr.SSRC] = sr
						}
						continue
					}
					plain, err := viewer.dec.DecryptRTP(nil, b, nil)
					viewer.must(err)
					p := new(rtp.Packet)
					viewer.must(p.Unmarshal(plain))
					rate := 48_000
					if p.SSRC == 7 {
						rate = videoClock
						if now := int(p.Payload[len(p.Payload)-98]); now != layer {
							layer = now
							switches++
						}
					}
					if shown, ok := known.captured(p, rate); ok {
						transit[p.SSRC] = shown - at
					}
				}
				if a, ok := transit[7]; ok {
					if b, ok := transit[8]; ok {
						compared++
						worst = max(worst, (a - b).Abs())
					}
				}
			}
			start := r.clock()
			begins := time.Duration(rng.IntN(1e9))
			frame := 40 * time.Millisecond
			for at := begins; at < begins+c.quiet+60*time.Second; at += frame {
				if at < begins+c.quiet {
					frame = time.Second
				} else {
					frame = 40 * time.Millisecond
				}
				r.mu.Lock()
				r.now = start.Add(at - begins + time.Duration(rng.Int64N(int64(c.jitter)+1)))
				r.mu.Unlock()
				n := int((at - begins) / (40 * time.Millisecond))
				if n%10 == 0 && at >= begins+c.quiet {
					sub.target.Store(target{layer: int8(n / 10 % 3), spatial: 3, temporal: 3}.pack())
				}
				for _, l := range layers {
					l.keyframe = l.keyframe || n%7 == 0
					for _, p := range l.next(rtpTime(at)) {
						r.read.Receive(speaker.seal(p), speaker.path)
					}
				}
				p := &rtp.Packet{Header: rtp.Header{
					Version: 2, PayloadType: opus, SSRC: 0x5005, SequenceNumber: voiceSeq,
					Timestamp: voiceOffset + toClock(rtpTime(at), 48_000),
				}, Payload: []byte("voice")}
				voiceSeq++
				r.read.Receive(speaker.seal(p), speaker.path)
				r.flush()
				see(at)
				if n%25 == 13 || frame == time.Second {
					if c.reports == "all" || c.reports == "voice" || c.reports == "late" {
						report(at, 0x5005, voiceOffset, 48_000)
					}
					for i, l := range layers {
						if c.reports == "all" || c.reports == "late" && (i == 0 || at > begins+20*time.Second*time.Duration(i)) {
							report(at, l.ssrc, l.offset, videoClock)
						}
					}
				}
				// The tick would decide on the layers itself: reports alone.
				r.plane.ticking.senderReports(viewer.peer, r.out, r.clock().Sub(r.plane.start))
				r.out.Flush()
				see(at)
			}
			if compared < 1000 || switches < 100 {
				t.Fatalf("%d comparisons, %d switches: the test is wrong", compared, switches)
			}
			if worst > 40*time.Millisecond {
				t.Errorf("voice and video are %v apart, want 40ms at most", worst)
			}
			t.Log(fmt.Sprint("apart: ", worst))
		})
	}
}

// Reports made while a receiver is moved between layers are of one of them.
func TestReportsDuringSwitches(t *testing.T) {
	r := newRig(t)
	speaker, pub := r.simulcastOf("video/VP8", "l", "h")
	viewer := r.endpoint(gcm)
	sub := viewer.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96})
	rng := rand.New(rand.NewPCG(1, 2))
	layers := []*encoder{newEncoder("video/VP8", "l", 0, 1, rng), newEncoder("video/VP8", "h", 1, 1, rng)}
	begin := r.clock()
	frame := func(i int) {
		sub.target.Store(target{layer: int8(i % 2), spatial: 3, temporal: 3}.pack())
		l := layers[i%2]
		l.keyframe = true
		for _, p := range l.next(r.clock().Sub(begin)) {
			r.read.Receive(speaker.seal(p), speaker.path)
		}
		r.flush()
		r.advance(time.Millisecond)
	}
	frame(0)
	first := viewer.heard()[0].Timestamp
	// The wire is not in order while two write to it.
	var mu sync.Mutex
	var reports []*rtcp.SenderReport
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		out := netio.NewBatchFunc(func(b []byte, _ netio.Path) {
			plain, err := viewer.dec.DecryptRTCP(nil, b, nil)
			if err != nil {
				t.Error(err)
				return
			}
			parts, err := rtcp.Unmarshal(plain)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			reports = append(reports, find[*rtcp.SenderReport](parts)...)
			mu.Unlock()
		})
		for {
			select {
			case <-stop:
				return
			default:
				r.plane.ticking.senderReports(viewer.peer, out, r.clock().Sub(r.plane.start))
				out.Flush()
			}
		}
	})
	for i := 1; ; i++ {
		frame(i)
		mu.Lock()
		enough := len(reports) >= 1000
		mu.Unlock()
		if enough {
			break
		}
	}
	close(stop)
	wg.Wait()
	for _, sr := range reports {
		since := ntpDuration(int64(sr.NTPTime - toNTP(begin)))
		if off := int32(sr.RTPTime - first - toClock(since, videoClock)); off > videoClock || off < -videoClock {
			t.Fatalf("a report is %d ticks off", off)
		}
	}
}
