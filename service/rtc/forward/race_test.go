package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"rtcd/service/rtc/netio"
)

// Two readers take the packets of one speaker in turn, as its path moves between them, while
// others subscribe and leave, the voice is muted, descriptions are applied and the clock ticks.
// One listener stays all the time: it gets every packet that was sent while not muted, once.
func TestEverythingAtOnce(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{OnVoice: func(bool) {}, WriteTime: new(Histogram)})
	listener.subscribeAs(pub, SubscriptionConfig{SSRC: 7, PayloadType: 96, Ext: Extensions{TWCC: 5}})
	other := netio.NewPath(1, netip.MustParseAddrPort("203.0.113.9:9"), false)
	speaker.must(speaker.peer.Move(other))

	const n = 3000
	var sealed [][]byte
	payloads := make(map[string]bool)
	for range n {
		p := speaker.next(levelLoud)
		payloads[string(p.Payload)] = true
		sealed = append(sealed, speaker.seal(p))
	}

	// The readers agree on who takes the next few packets, so that they are hardly ever late.
	var mu sync.Mutex
	at := 0
	take := func() (some [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		some = sealed[at:min(at+7, n)]
		at += len(some)
		r.advance(10 * time.Millisecond)
		return some
	}
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
	for _, path := range []netio.Path{speaker.path, other} {
		read, out := r.reader()
		readers.Go(func() {
			for some := take(); len(some) > 0; some = take() {
				for _, b := range some {
					if read.Known(path) {
						read.Receive(bytes.Clone(b), path)
					}
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
		sub, err := pub.Subscribe(guest, SubscriptionConfig{SSRC: guest.NewSSRC(), PayloadType: 96})
		if err != nil {
			t.Error(err)
		}
		sub.Stats()
		sub.Close()
		guest.Close()
		r.take(path)
	})
	_, tickOut := r.reader()
	background(func(int) { r.plane.Tick(r.clock(), tickOut) })
	background(func(i int) {
		up := speaker.uplink("0")
		more := speaker.uplink("1")
		more.SSRCs = []uint32{uint32(i)}
		speaker.peer.SetUplinks([]Uplink{up, more})
		if err := speaker.peer.Move([]netio.Path{speaker.path, other}[i%2]); err != nil {
			t.Error(err)
		}
		pub.Stats()
		pub.Speaking()
		r.plane.Stats()
	})
	readers.Wait()
	close(stop)
	wg.Wait()

	numbers := make(map[uint16]bool)
	for _, p := range listener.heard() {
		if numbers[p.SequenceNumber] || !payloads[string(p.Payload)] {
			t.Fatalf("packet %d arrived twice, or with a wrong payload", p.SequenceNumber)
		}
		numbers[p.SequenceNumber] = true
		delete(payloads, string(p.Payload))
	}
	// A reader that is held up loses packets to the replay window, and a few of the very first may
	// come after a later one.
	if lost := n - len(numbers); lost > 14+int(r.drops(DropReplay)) || len(payloads) != lost {
		t.Errorf("%d packets of %d missing, %d of them too late", lost, n, r.drops(DropReplay))
	}
}

func TestSubscribersComeAndGoDuringTraffic(t *testing.T) {
	r := newRig(t)
	speaker, steady := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	steady.subscribe(pub)
	guests := make([]*endpoint, 4)
	for i := range guests {
		guests[i] = r.endpoint(gcm)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, g := range guests {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				sub, err := pub.Subscribe(g.peer, SubscriptionConfig{SSRC: g.peer.NewSSRC(), PayloadType: 96})
				if err != nil {
					t.Error(err)
					return
				}
				sub.Close()
			}
		})
	}
	sent := speaker.say(2000)
	close(stop)
	wg.Wait()
	wantPackets(t, steady.heard(), sent)
	for _, g := range guests {
		// Every subscription's packets decrypt, in one context: its own SSRC, from any number on.
		g.heard()
	}
	if n := len(*pub.subs.Load()); n != 1 {
		t.Errorf("%d subscriptions left, want 1", n)
	}
}

// A peer that closes while it is being subscribed leaves nothing behind.
func TestSubscribingAPeerThatCloses(t *testing.T) {
	r := newRig(t)
	pub := r.endpoint(gcm).publish(PublicationConfig{})
	for range 300 {
		guest := r.endpoint(gcm)
		var wg sync.WaitGroup
		wg.Go(guest.peer.Close)
		_, err := pub.Subscribe(guest.peer, SubscriptionConfig{SSRC: 5})
		wg.Wait()
		if n := len(*pub.subs.Load()); n != 0 || err != nil && !errors.Is(err, ErrClosed) {
			t.Fatalf("%d subscriptions left, error %v, want 0", n, err)
		}
	}
}

func TestMutingDuringTrafficLeavesNoGap(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	listener.subscribe(pub)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for muted := true; ; muted = !muted {
			select {
			case <-stop:
				return
			default:
				pub.SetMuted(muted)
			}
		}
	})
	speaker.say(5000)
	close(stop)
	wg.Wait()
	got := listener.heard()
	for i := 1; i < len(got); i++ {
		if got[i].SequenceNumber != got[i-1].SequenceNumber+1 {
			t.Fatalf("number %d after %d", got[i].SequenceNumber, got[i-1].SequenceNumber)
		}
	}
	if uint64(len(got)) != 5000-r.drops(DropMuted) {
		t.Errorf("%d packets arrived, %d muted, want 5000 together", len(got), r.drops(DropMuted))
	}
}

func TestWriteTime(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	h := new(Histogram)
	listener.subscribe(speaker.publish(PublicationConfig{WriteTime: h}))
	speaker.say(5)
	s := h.Snapshot()
	if s.Count != 5 || s.Buckets[0.001] != 5 || s.Buckets[1] != 5 || s.Sum != 0 || len(s.Buckets) != 14 {
		t.Errorf("histogram %+v, want 5 in the first bucket", s)
	}
	h.observe(20*time.Millisecond, 2)
	h.observe(2*time.Second, 1)
	if s = h.Snapshot(); s.Count != 8 || s.Buckets[0.0075] != 5 || s.Buckets[0.01] != 7 || s.Buckets[1] != 7 || s.Sum != 2.02 {
		t.Errorf("histogram %+v", s)
	}
}

func TestStats(t *testing.T) {
	r := newRig(t)
	speaker, listener := r.endpoint(gcm), r.endpoint(gcm)
	pub := speaker.publish(PublicationConfig{})
	listener.subscribe(pub)
	speaker.say(5)
	speaker.next(0)
	speaker.say(5)
	speaker.tell(&rtcp.ReceiverReport{SSRC: 1})
	if s := pub.Stats(); s.Packets != 10 || s.Lost != 1 || s.SSRC != speaker.ssrc {
		t.Errorf("publication %+v", s)
	}
	s := r.plane.Stats()
	out := 0
	for _, b := range r.take(listener.path) {
		out += len(b)
	}
	if s.PacketsIn != 10 || s.PacketsOut != 10 || s.BytesOut != uint64(out) || s.BytesIn == 0 || s.RTCPIn != 1 {
		t.Errorf("stats %+v, want 10 packets in and out, %d bytes out, one RTCP", s, out)
	}
	for _, d := range Drops() {
		if d.String() == "" || d.String() == "unknown" {
			t.Errorf("reason %d has no name", d)
		}
	}
	for source, want := range map[Source]string{Voice: "voice", ScreenAudio: "screen-audio", Screen: "screen", Camera: "video", 9: "unknown"} {
		if source.String() != want {
			t.Errorf("source %d is %s, want %s", source, source, want)
		}
	}
	if numDrops.String() != "unknown" || numFeedbacks.String() != "unknown" || FeedbackPLI.String() != "pli" {
		t.Error("names")
	}
}

// source makes endless packets of one speaker cheaply: they differ in sequence number alone.
type source struct {
	*endpoint
	plain []byte
	b     []byte
	hdr   rtp.Header
}

func newSource(e *endpoint) *source {
	p := e.next(levelLoud)
	p.Payload = bytes.Repeat([]byte{0x55}, 100)
	plain, err := p.Marshal()
	e.must(err)
	return &source{endpoint: e, plain: plain, b: make([]byte, 0, 1600)}
}

// seal returns the next packet, in a buffer that is used again.
func (s *source) seal() []byte {
	s.seq++
	s.twcc++
	binary.BigEndian.PutUint16(s.plain[2:], s.seq)
	var err error
	if s.b, err = s.enc.EncryptRTP(s.b[:0], s.plain, &s.hdr); err != nil {
		s.t.Fatal(err)
	}
	return s.b
}
