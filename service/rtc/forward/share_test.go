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

	"rtcd/service/rtc/codec"
)

// stage is a call in virtual time: what is sent is sent every 40 ms, and ticks come every 100 ms.
type stage struct {
	*rig
	at    time.Duration
	rng   *rand.Rand
	feeds []*feed
	views []*watcher
}

func newStage(t testing.TB) *stage { return &stage{rig: newRig(t), rng: rand.New(rand.NewPCG(5, 6))} }

// feed is a sender of a video, in layers perhaps, which makes keyframes when it is asked to; and
// of a voice.
type feed struct {
	*endpoint
	pub    *Publication
	layers []*encoder
	filler []int // bytes more in each packet of a layer
	dead   []bool
	opaque bool // payloads are unreadable
	deaf   bool // keyframes are asked for in vain
	asked  int  // keyframes

	voice *rtp.Packet // the next one
	speak bool
}

const kilobit = 1000

// feed adds a sender with layers of such bitrates.
func (s *stage) feed(source Source, bps ...int) *feed {
	s.t.Helper()
	f := &feed{endpoint: s.endpoint(gcm)}
	rids := []string{"l", "m", "h"}[:len(bps)]
	for i, n := range bps {
		const bare = 135 // bytes of a packet without filler
		perFrame := n / 8 / 25
		packets := max(1, (perFrame+999)/1000)
		l := newEncoder("video/VP8", rids[i], byte(i), packets, s.rng)
		f.layers, f.filler = append(f.layers, l), append(f.filler, max(0, perFrame/packets-bare))
	}
	f.dead = make([]bool, len(bps))
	video, voice := f.videoUplink(), f.uplink("1")
	video.SSRCs, video.RIDs = nil, rids
	voice.SSRCs = []uint32{s.rng.Uint32()}
	f.voice = &rtp.Packet{Header: rtp.Header{
		Version: 2, PayloadType: opus, SSRC: voice.SSRCs[0], SequenceNumber: uint16(s.rng.Uint32()), Timestamp: s.rng.Uint32(),
	}}
	f.peer.SetUplinks([]Uplink{video, voice})
	f.pub = f.publish(PublicationConfig{Source: source, RIDs: rids, Codec: codec.VP8})
	if _, err := f.peer.Publish("1", PublicationConfig{}); err != nil {
		s.t.Fatal(err)
	}
	s.feeds = append(s.feeds, f)
	return f
}

// frame sends the next frame of each layer that is not dead.
func (f *feed) frame(at time.Duration) {
	for i, l := range f.layers {
		if f.dead[i] {
			continue
		}
		for _, p := range l.next(at) {
			body := p.Payload[len(p.Payload)-98:]
			p.Payload = slices.Concat(p.Payload[:len(p.Payload)-98], make([]byte, f.filler[i]), body)
			if f.opaque {
				for k := range len(p.Payload) - 98 {
					p.Payload[k] = byte(k*7+int(l.frame)) | 1
				}
			}
			f.read.Receive(f.seal(p), f.path)
		}
	}
	if f.speak {
		p := f.voice.Clone()
		p.Payload = []byte("voice")
		f.must(p.SetExtension(extLevel, []byte{byte(20 + p.SequenceNumber%2*60)}))
		f.read.Receive(f.seal(p), f.path)
		f.voice.SequenceNumber++
		f.voice.Timestamp += 1920
	}
	f.flush()
}

// answer makes the keyframes that were asked for.
func (f *feed) answer() {
	_, told := f.sent()
	for _, pli := range find[*rtcp.PictureLossIndication](told) {
		for _, l := range f.layers {
			if l.ssrc == pli.MediaSSRC {
				f.asked++
				l.keyframe = l.keyframe || !f.deaf
			}
		}
	}
}

// watcher is a receiver of videos. It checks that each goes on without a gap: numbers, timestamps,
// picture ids; and that what does not follow on what was there is a keyframe.
type watcher struct {
	*endpoint
	flows    map[uint32]*flow // by SSRC
	remb     int              // that it sends each second; 0: none
	told     time.Duration
	arrivals *arrivals // for transport-wide feedback; nil if there is none
	feedback []byte
	padding  int // packets of padding
	lateness time.Duration
}

type flow struct {
	started, ended bool
	seq            uint16
	ts             uint32
	picture        uint16
	layer          byte
	frame          uint32
	blind          bool // may go on with what is not a keyframe
	opaque         bool
	packets, bytes int // since the last time
	keyframes      int // likewise
	switches       int
	newest         time.Duration // when the last packet came
}

func (s *stage) watcher() *watcher {
	w := &watcher{endpoint: s.endpoint(gcm), flows: make(map[uint32]*flow)}
	s.views = append(s.views, w)
	return w
}

// watch subscribes to a video, with a repair stream if so told.
func (w *watcher) watch(f *feed, repair bool) (*Subscription, *flow) {
	w.t.Helper()
	cfg := SubscriptionConfig{SSRC: w.peer.NewSSRC(), PayloadType: 96}
	if repair {
		cfg.Repair, cfg.RepairPayloadType = w.peer.NewSSRC(), 97
	}
	if w.arrivals != nil {
		cfg.Ext.TWCC = 5
	}
	sub := w.subscribeAs(f.pub, cfg)
	fl := &flow{opaque: f.opaque}
	w.flows[cfg.SSRC] = fl
	return sub, fl
}

// see takes what came.
func (w *watcher) see(now time.Duration) {
	w.t.Helper()
	for _, p := range w.heard() {
		if w.arrivals != nil {
			w.arrivals.record(binary.BigEndian.Uint16(p.GetExtension(5)), p.SSRC, now+w.lateness)
		}
		f := w.flows[p.SSRC]
		if f == nil || len(p.Payload) == 0 {
			w.padding++
			if f != nil {
				if f.started && p.SequenceNumber != f.seq+1 || !f.ended {
					w.t.Fatalf("padding has number %d after %d, the frame before it has ended: %v", p.SequenceNumber, f.seq, f.ended)
				}
				f.seq = p.SequenceNumber
			} else if p.PayloadType != 97 {
				w.t.Fatalf("payload type %d of what is not a video, want that of repairs", p.PayloadType)
			}
			continue
		}
		f.packet(w.t, p)
		f.newest = now
	}
}

func (f *flow) packet(t testing.TB, p *rtp.Packet) {
	t.Helper()
	body := p.Payload[len(p.Payload)-98:]
	layer, part, keyframe, frame := body[0], int(body[1]), body[3] == 1, binary.BigEndian.Uint32(body[4:])
	if !bytes.Equal(body[8:], bytes.Repeat([]byte{layer ^ byte(frame)}, 90)) {
		t.Fatal("a payload is not what was sent")
	}
	var picture uint16
	if !f.opaque {
		picture = binary.BigEndian.Uint16(p.Payload[2:]) & 0x7fff
	}
	follows := layer == f.layer && (frame == f.frame || frame == f.frame+1)
	if f.started {
		if p.SequenceNumber != f.seq+1 {
			t.Fatalf("number %d after %d", p.SequenceNumber, f.seq)
		}
		if !follows && (part != 0 || !keyframe && !f.blind) {
			t.Fatalf("layer %d frame %d part %d, a keyframe: %v, after layer %d frame %d", layer, frame, part, keyframe, f.layer, f.frame)
		}
		if layer != f.layer || frame != f.frame {
			if d := int32(p.Timestamp - f.ts); d <= 0 {
				t.Fatalf("timestamp %d after %d", p.Timestamp, f.ts)
			}
			if !f.opaque && picture != (f.picture+1)&0x7fff {
				t.Fatalf("picture %d after %d", picture, f.picture)
			}
		}
	} else if !keyframe && !f.opaque || part != 0 {
		t.Fatalf("it starts with part %d, a keyframe: %v", part, keyframe)
	}
	if f.started && layer != f.layer {
		f.switches++
	}
	if keyframe && part == 0 {
		f.keyframes++
	}
	f.started, f.seq, f.ts, f.picture, f.layer, f.frame, f.ended = true, p.SequenceNumber, p.Timestamp, picture, layer, frame, p.Marker
	f.packets++
	f.bytes += len(p.Payload)
}

// reset forgets the counts.
func (f *flow) reset() *flow {
	f.packets, f.bytes, f.keyframes = 0, 0, 0
	return f
}

// run lets time pass.
func (s *stage) run(d time.Duration) {
	s.t.Helper()
	const step = 20 * time.Millisecond
	for end := s.at + d; s.at < end; s.at += step {
		now := s.clock().Sub(s.plane.start)
		if s.at%(40*time.Millisecond) == 0 {
			for _, f := range s.feeds {
				f.frame(s.at)
			}
		}
		if s.at%TickInterval == 0 {
			s.tick()
		}
		for _, f := range s.feeds {
			f.answer()
		}
		for _, w := range s.views {
			w.see(now)
			if w.remb > 0 && now-w.told >= 500*time.Millisecond {
				w.told = now
				w.tell(&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: float32(w.remb)})
			}
			if w.arrivals != nil && s.at%TickInterval == 0 && w.arrivals.pending() {
				w.feedback = w.arrivals.appendFeedback(w.feedback[:0], 1)
				raw := rtcp.RawPacket(w.feedback)
				w.endpoint.tell(&raw)
			}
		}
		s.advance(step)
	}
}

// A receiver that says that it can take nothing is sent nothing, and everything once it can again.
func TestREMBPausesALoneCamera(t *testing.T) {
	for _, repair := range []bool{true, false} {
		t.Run(fmt.Sprint("repair=", repair), func(t *testing.T) {
			s := newStage(t)
			camera := s.feed(Camera, 800*kilobit)
			w := s.watcher()
			_, fl := w.watch(camera, repair)
			s.run(3 * time.Second)
			if n := fl.reset().packets; n != 0 || fl.frame < 70 {
				t.Fatalf("frame %d came, want the 75th", fl.frame)
			}
			for range 2 {
				w.remb = 1
				s.run(2 * time.Second)
				fl.reset()
				camera.asked = 0
				s.run(3 * time.Second)
				if fl.packets != 0 || camera.asked != 0 {
					t.Fatalf("%d packets and %d requests for keyframes while paused", fl.packets, camera.asked)
				}
				w.remb = 10_000 * kilobit
				s.run(3 * time.Second)
				if fl.packets == 0 || fl.keyframes != 1 || camera.asked != 1 {
					t.Fatalf("%d packets, %d keyframes, %d asked for; want the video back with one", fl.packets, fl.keyframes, camera.asked)
				}
				fl.reset()
				s.run(time.Second)
				if want := 25 * camera.layers[0].packets; fl.packets != want {
					t.Fatalf("%d packets in a second, want %d", fl.packets, want)
				}
			}
		})
	}
}

// coming returns which videos are sent at full rate.
func (s *stage) coming(flows ...*flow) (indices []int) {
	s.t.Helper()
	for _, f := range flows {
		f.reset()
	}
	s.run(time.Second)
	for i, f := range flows {
		if f.packets >= 100 {
			indices = append(indices, i)
		}
	}
	return indices
}

func TestScreenBeforeSpeakerBeforeCameras(t *testing.T) {
	s := newStage(t)
	var flows []*flow
	w := s.watcher()
	var feeds []*feed
	for i := range 4 {
		source := Camera
		if i == 3 {
			source = Screen
		}
		f := s.feed(source, 800*kilobit)
		feeds = append(feeds, f)
		_, fl := w.watch(f, true)
		flows = append(flows, fl)
	}
	feeds[2].speak = true
	w.remb = 10_000 * kilobit
	s.run(8 * time.Second)
	if got := s.coming(flows...); len(got) != 4 {
		t.Errorf("videos %v come, want all", got)
	}
	for _, c := range []struct {
		remb int
		want []int
	}{{1_200, []int{3}}, {2_200, []int{2, 3}}, {1_200, []int{3}}, {400, nil}, {1_200, []int{3}}, {2_200, []int{2, 3}}} {
		w.remb = c.remb * kilobit
		s.run(8 * time.Second)
		if got := s.coming(flows...); !slices.Equal(got, c.want) {
			t.Errorf("at %d kbit/s videos %v come, want %v", c.remb, got, c.want)
		}
	}
	// Another one speaks.
	feeds[2].speak, feeds[0].speak = false, true
	s.run(10 * time.Second)
	if got := s.coming(flows...); !slices.Equal(got, []int{0, 3}) {
		t.Errorf("videos %v come, want the screen and the other speaker's", got)
	}
}

func TestLastCameras(t *testing.T) {
	s := newStage(t)
	s.plane = NewPlane(Config{Now: s.clock, LastCameras: 2})
	s.read, s.out = s.reader()
	s.advance(time.Second)
	w := s.watcher()
	w.remb = 12_000 * kilobit
	var flows []*flow
	for i := range 5 {
		source := Camera
		if i == 4 {
			source = Screen
		}
		_, fl := w.watch(s.feed(source, 800*kilobit), true)
		flows = append(flows, fl)
	}
	for _, c := range []struct {
		speaks int
		want   []int
	}{{3, nil}, {1, []int{1, 3, 4}}, {2, []int{1, 2, 4}}, {1, []int{1, 2, 4}}, {0, []int{0, 1, 4}}} {
		s.feeds[c.speaks].speak = true
		s.run(8 * time.Second)
		s.feeds[c.speaks].speak = false
		s.run(4 * time.Second)
		if got := s.coming(flows...); c.want != nil && !slices.Equal(got, c.want) {
			t.Errorf("after %d spoke videos %v come, want %v", c.speaks, got, c.want)
		} else if len(got) != 3 {
			t.Errorf("after %d spoke videos %v come, want three", c.speaks, got)
		}
	}
}

// A sender gives up its best layer: receivers go on with another one soon, without a gap.
func TestLayerThatDies(t *testing.T) {
	s := newStage(t)
	camera := s.feed(Camera, 100*kilobit, 300*kilobit, 700*kilobit)
	w := s.watcher()
	w.remb = 8_000 * kilobit
	sub, fl := w.watch(camera, true)
	s.run(5 * time.Second)
	for range 3 {
		if l := sub.Layer(); l.Stream != 2 {
			t.Fatalf("layer %+v is sent, want the best", l)
		}
		camera.dead[2] = true
		died := s.at
		fl.reset()
		for fl.packets == 0 && s.at-died < 5*time.Second {
			s.run(20 * time.Millisecond)
		}
		if wait := s.at - died; wait > layerTimeout+300*time.Millisecond || fl.layer != 1 {
			t.Errorf("layer %d came after %v, want the middle one within 1.8 s", fl.layer, wait)
		}
		s.run(2 * time.Second)
		camera.dead[1] = true
		s.run(2 * time.Second)
		if fl.layer != 0 {
			t.Errorf("layer %d is sent, want the lowest", fl.layer)
		}
		clear(camera.dead)
		s.run(8 * time.Second)
	}
}

// Payloads that cannot be read, without dependency descriptors: there is no keyframe to wait for.
func TestLayersOfUnreadablePayloads(t *testing.T) {
	s := newStage(t)
	camera := s.feed(Camera, 200*kilobit, 700*kilobit)
	camera.opaque = true
	w := s.watcher()
	sub, fl := w.watch(camera, true)
	fl.blind = true
	w.remb = 8_000 * kilobit
	s.run(4 * time.Second)
	if sub.Layer().Stream != 1 || fl.layer != 1 {
		t.Fatalf("layer %+v is sent, want the best", sub.Layer())
	}
	for range 3 {
		w.remb = 400 * kilobit
		s.run(3 * time.Second)
		if fl.layer != 0 {
			t.Errorf("layer %d is sent, want the lowest", fl.layer)
		}
		w.remb = 8_000 * kilobit
		s.run(8 * time.Second)
		if fl.layer != 1 {
			t.Errorf("layer %d is sent, want the best", fl.layer)
		}
	}
	w.remb = 1
	s.run(3 * time.Second)
	fl.reset()
	s.run(time.Second)
	if fl.packets != 0 {
		t.Errorf("%d packets while paused", fl.packets)
	}
	w.remb = 8_000 * kilobit
	s.run(5 * time.Second)
	if fl.packets == 0 || fl.layer != 1 {
		t.Errorf("%d packets, of layer %d: want the video back", fl.packets, fl.layer)
	}
}

// What is sent goes on while a sender does not give the keyframe that a better layer takes.
func TestKeyframeThatDoesNotCome(t *testing.T) {
	s := newStage(t)
	camera := s.feed(Camera, 100*kilobit, 700*kilobit)
	w := s.watcher()
	w.remb = 300 * kilobit
	_, fl := w.watch(camera, true)
	s.run(4 * time.Second)
	if fl.layer != 0 {
		t.Fatalf("layer %d is sent, want the lowest", fl.layer)
	}
	camera.deaf, w.remb = true, 8_000*kilobit
	camera.asked = 0
	for range 10 {
		fl.reset()
		s.run(time.Second)
		if fl.packets != 25*camera.layers[0].packets {
			t.Fatalf("%d packets in a second, want those of the lower layer", fl.packets)
		}
	}
	if camera.asked > 12 || camera.asked < 5 {
		t.Errorf("%d keyframes asked for in ten seconds, want about one a second", camera.asked)
	}
	camera.deaf = false
	s.run(2 * time.Second)
	if fl.layer != 1 {
		t.Errorf("layer %d is sent, want the best", fl.layer)
	}
}

// Padding goes on the repair stream, or else between frames, at the rate that is asked for.
func TestPadding(t *testing.T) {
	for _, repair := range []bool{true, false} {
		t.Run(fmt.Sprint("repair=", repair), func(t *testing.T) {
			s := newStage(t)
			camera := s.feed(Camera, 400*kilobit)
			w := s.watcher()
			sub, fl := w.watch(camera, repair)
			s.run(2 * time.Second)
			fl.reset()
			w.padding = 0
			for range 50 {
				sub.padding.Store(600 * kilobit)
				for _, f := range s.feeds {
					f.frame(s.at)
				}
				w.see(s.at)
				s.at += 40 * time.Millisecond
				s.advance(40 * time.Millisecond)
			}
			bits := w.padding * (paddingSize + fixedHeader + longestTag + packetOverhead) * 8
			if bits < 1000*kilobit || bits > 1300*kilobit {
				t.Errorf("%d bits of padding in two seconds, want 1.2 million", bits)
			}
			if s := s.plane.Stats(); s.Padding != uint64(w.padding) {
				t.Errorf("%d packets of padding counted, %d came", s.Padding, w.padding)
			}
			if fl.packets != 50*camera.layers[0].packets {
				t.Errorf("%d packets of the video came, want all", fl.packets)
			}
		})
	}
}

// The way to a receiver is probed though the video that matters most sends nothing.
func TestPaddingGoesWithAVideoWhosePacketsCome(t *testing.T) {
	for name, silence := range map[string]func(f *feed){
		"muted":   func(f *feed) { f.pub.SetMuted(true) },
		"stopped": func(f *feed) { f.dead[0] = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			screen, camera := s.feed(Screen, 300*kilobit), s.feed(Camera, 300*kilobit, 4000*kilobit)
			w := s.watcher()
			w.arrivals, w.lateness = new(arrivals), 30*time.Millisecond
			w.watch(screen, true)
			sub, _ := w.watch(camera, true)
			s.run(500 * time.Millisecond)
			silence(screen)
			s.run(20 * time.Second)
			if l := sub.Layer(); l.Stream != 1 || w.padding == 0 {
				t.Errorf("layer %+v is sent after %d packets of padding, want the better one", l, w.padding)
			}
		})
	}
}

// One video at a time has padding, and none once the probe is over.
func TestPaddingMovesToAnotherVideo(t *testing.T) {
	s := newStage(t)
	w := s.watcher()
	screen, _ := w.watch(s.feed(Screen, 300*kilobit), true)
	camera, _ := w.watch(s.feed(Camera, 300*kilobit), true)
	s.run(time.Second)
	d, videos := w.peer.down.Load(), []*Subscription{screen, camera}
	want := func(when string, first, second bool) {
		t.Helper()
		if a, b := screen.padding.Load(), camera.padding.Load(); a > 0 != first || b > 0 != second {
			t.Errorf("%s: padding of %d and %d bit/s, want some: %v, %v", when, a, b, first, second)
		}
	}
	d.probe(5000*kilobit, videos)
	want("at first", true, false)
	screen.pub.rungs.flows = false
	d.probe(5000*kilobit, videos)
	want("when the first one stops", false, true)
	camera.Close()
	screen.pub.rungs.flows = true
	d.probe(5000*kilobit, videos[:1])
	if screen.padding.Load() == 0 {
		t.Error("no padding after the second one was closed")
	}
	d.probe(0, videos[:1])
	if screen.padding.Load() != 0 {
		t.Error("padding after the probe")
	}
}
