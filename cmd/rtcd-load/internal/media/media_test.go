package media_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"

	"rtcd/cmd/rtcd-load/internal/media"
	"rtcd/cmd/rtcd-load/internal/stats"
)

// recorder keeps the payloads written to it.
type recorder struct {
	mu      sync.Mutex
	packets []rtp.Packet
}

func (r *recorder) WriteRTP(p *rtp.Packet) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packets = append(r.packets, *p.Clone())
	return nil
}

func TestStamp(t *testing.T) {
	want := media.Stamp{
		Run: 7, Source: 3, Number: 1 << 31, Sent: 5 * time.Second, Frame: 9, Packet: 2, Packets: 4, Layer: 1, Key: true,
	}
	payload := want.Append([]byte("descriptor and body"), 4)
	payload[0] ^= 0xff // what a server may rewrite
	got, err := media.ParseStamp(payload)
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	for i := 4; i < len(payload); i++ {
		changed := append([]byte(nil), payload...)
		changed[i] ^= 1
		if s, err := media.ParseStamp(changed); err == nil {
			t.Errorf("a change of byte %d is not noticed: %+v", i, s)
		}
	}
	if _, err := media.ParseStamp(payload[:20]); !errors.Is(err, media.ErrNoStamp) {
		t.Errorf("of a short payload: got %v, want %v", err, media.ErrNoStamp)
	}
}

func FuzzParseStamp(f *testing.F) {
	s := media.Stamp{Packets: 1}
	f.Add(s.Append([]byte("body"), 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = media.ParseStamp(b) })
}

// room is a ledger with a source of person 0 in room 1, and a receiver of person 1 there.
func room(kind media.Kind, layers int) (*media.Ledger, *media.Source, *media.Receiver) {
	l := media.NewLedger(42)
	return l, l.Add(1, 0, kind, layers), media.NewReceiver(l, 1, 1, nil)
}

func TestReceiverCounts(t *testing.T) {
	l, source, r := room(media.Voice, 1)
	other := l.Add(2, 5, media.Voice, 1)
	own := l.Add(1, 1, media.Voice, 1)
	payload := func(s media.Stamp) []byte {
		s.Packets = 1
		return s.Append([]byte("xyz"), 0)
	}
	track := r.Track()
	for _, n := range []uint32{10, 11, 13, 12, 12, 15} {
		track.Packet(uint16(n)+65530, payload(media.Stamp{Run: 42, Source: source.ID, Number: n}))
	}
	track.Packet(0, payload(media.Stamp{Run: 43, Source: source.ID}))
	track.Packet(0, payload(media.Stamp{Run: 42, Source: other.ID}))
	track.Packet(0, payload(media.Stamp{Run: 42, Source: own.ID}))
	track.Packet(0, payload(media.Stamp{Run: 42, Source: 99}))
	track.Packet(0, []byte("what is this"))
	totals := &l.Totals
	for name, c := range map[string]struct{ got, want uint64 }{
		"received":   {totals.Received.Load(), 11},
		"expected":   {totals.Expected.Load(), 6},
		"unique":     {totals.Unique.Load(), 5},
		"duplicates": {totals.Duplicates.Load(), 1},
		"reordered":  {totals.Reordered.Load(), 1},
		"foreign":    {totals.Foreign.Load(), 4},
		"bad":        {totals.Bad.Load(), 1},
		"delays":     {totals.VoiceDelay.Snapshot().Count, 6},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %d, want %d", name, c.got, c.want)
		}
	}
}

func TestHeardIsCalledOnce(t *testing.T) {
	l := media.NewLedger(1)
	source := l.Add(0, 0, media.Voice, 1)
	calls := 0
	r := media.NewReceiver(l, 0, 1, func() { calls++ })
	for n := range uint32(3) {
		s := media.Stamp{Run: 1, Source: source.ID, Number: n, Packets: 1}
		r.Track().Packet(uint16(n), s.Append(nil, 0))
	}
	if calls != 1 {
		t.Errorf("heard was called %d times, want once", calls)
	}
}

// send runs tasks for some time of a fake clock.
func send(t *testing.T, d time.Duration, tasks ...media.Task) {
	t.Helper()
	var late stats.Histogram
	p := media.NewPacer(&late)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	for _, task := range tasks {
		p.Add(task, media.Now())
	}
	time.Sleep(d)
	synctest.Wait()
	cancel()
	wg.Wait()
	if late.Snapshot().Count == 0 || late.Snapshot().Max() > 2*time.Millisecond {
		t.Errorf("%d tasks ran, %v late at most", late.Snapshot().Count, late.Snapshot().Max())
	}
}

func TestMicrophone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, source, r := room(media.Voice, 1)
		out := &recorder{}
		m := media.NewMicrophone(l, source, out, 1, 100)
		send(t, 999*time.Millisecond, m)
		if got := len(out.packets); got != 50 {
			t.Fatalf("sent %d packets in a second, want 50", got)
		}
		track := r.Track()
		for i, p := range out.packets {
			if i > 0 && p.SequenceNumber != out.packets[i-1].SequenceNumber+1 || len(p.Payload) != 100 {
				t.Errorf("packet %d has number %d and %d bytes", i, p.SequenceNumber, len(p.Payload))
			}
			if level := p.GetExtension(1); len(level) != 1 || level[0]&0x80 == 0 {
				t.Errorf("packet %d has level %v", i, level)
			}
			track.Packet(p.SequenceNumber, p.Payload)
		}
		m.Pause(true)
		send(t, time.Second, m)
		if got := len(out.packets); got != 50 {
			t.Errorf("sent %d packets while paused", got-50)
		}
		m.Stop()
		outcomes := r.Outcomes(media.Now()+time.Second, time.Second)
		if len(outcomes) != 1 || outcomes[0].Expected != 50 || outcomes[0].Lost() != 0 {
			t.Errorf("got %+v, want 50 expected, 0 lost", outcomes)
		}
	})
}

// A camera's pictures are all shown when all packets come; when one is missing, no more until a
// keyframe, and the freeze is counted.
func TestVideo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, source, r := room(media.Camera, 1)
		pipe := &loopback{track: r.Track()}
		v := media.NewVideo(l, source, pipe, media.VideoConfig{Bitrate: 800_000, FPS: 25})
		pipe.v = v
		send(t, 1990*time.Millisecond, v)
		totals := &l.Totals
		if frames, freezes := totals.Frames.Load(), totals.Freezes.Load(); frames != 50 || freezes != 0 {
			t.Fatalf("%d pictures and %d freezes in 2 s, want 50 and 0", frames, freezes)
		}
		if bytes := totals.Bytes.Load(); bytes < 195_000 || bytes > 215_000 {
			t.Errorf("%d bytes in 2 s, want some 200,000 and a keyframe", bytes)
		}
		pipe.lose = 1
		send(t, 1990*time.Millisecond, v)
		if freezes := totals.Freezes.Load(); freezes != 1 || totals.Asked.Load() != 1 {
			t.Errorf("%d freezes, %d keyframes asked after a loss, want 1, 1", freezes, totals.Asked.Load())
		}
		v.Stop()
		o := r.Outcomes(media.Now()+time.Second, time.Second)
		if len(o) != 1 || o[0].Lost() != 1 {
			t.Errorf("got %+v, want 1 lost", o)
		}
	})
}

// loopback hands packets on to a receiver.
type loopback struct {
	track *media.Track
	v     *media.Video
	lose  int
}

func (p *loopback) WriteRTP(packet *rtp.Packet) error {
	if p.lose > 0 {
		p.lose--
		return nil
	}
	if p.track.Packet(packet.SequenceNumber, packet.Payload) {
		p.v.AskKeyframe()
	}
	return nil
}

// A change of layers is no loss, and is seen with its keyframe.
func TestLayers(t *testing.T) {
	l, source, r := room(media.Camera, 3)
	track, sequence := r.Track(), uint16(0)
	packet := func(layer uint8, n uint32, key bool) {
		s := media.Stamp{Run: 42, Source: source.ID, Number: n, Frame: n, Packets: 1, Layer: layer, Key: key}
		sequence++
		track.Packet(sequence, s.Append(nil, 0))
	}
	packet(0, 100, true)
	packet(0, 101, false)
	packet(2, 700, true)
	packet(2, 701, false)
	packet(0, 500, true)
	sequence++
	packet(0, 502, false)
	sequence -= 2
	packet(0, 501, false)
	if e, u := l.Totals.Expected.Load(), l.Totals.Unique.Load(); e != 7 || u != 7 {
		t.Errorf("got %d of %d packets, want 7 of 7", u, e)
	}
	if frames := l.Totals.Frames.Load(); frames != 7 {
		t.Errorf("%d pictures, want 7", frames)
	}
	if o := r.Outcomes(media.Now(), 0); len(o) != 0 && o[0].Lost() != 0 {
		t.Errorf("got %+v, want nothing lost", o)
	}
}

// What the server leaves out and does not count is withheld, what it counts is lost.
func TestWithheld(t *testing.T) {
	l, source, r := room(media.Voice, 1)
	track := r.Track()
	packet := func(sequence uint16, n uint32) {
		s := media.Stamp{Run: 42, Source: source.ID, Number: n, Packets: 1}
		track.Packet(sequence, s.Append(nil, 0))
	}
	packet(65534, 100)
	packet(65535, 101)
	packet(0, 111) // nine withheld
	packet(3, 114) // two lost
	track.Padding(4)
	track.Padding(5)
	packet(6, 115)
	packet(8, 120) // four missing, one of them lost
	packet(7, 119) // which comes
	if w, e, u := l.Totals.Withheld.Load(), l.Totals.Expected.Load(), l.Totals.Unique.Load(); w != 12 || e != 9 || u != 7 {
		t.Errorf("%d withheld, %d of %d came, want 12, 7 of 9", w, u, e)
	}
}

// What never came counts as lost, if there was time for it to come.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, source, r := room(media.Voice, 1)
		m := media.NewMicrophone(l, source, &recorder{}, 0, 80)
		send(t, 2*time.Second, m)
		if o := r.Outcomes(media.Now(), 0); len(o) != 0 {
			t.Errorf("after 2 s got %+v, want nothing yet", o)
		}
		send(t, 8*time.Second, m)
		o := r.Outcomes(media.Now(), 0)
		if len(o) != 1 || !o[0].Silent || o[0].Lost() < 480 || o[0].Lost() > 510 {
			t.Errorf("after 10 s got %+v, want some 500 lost", o)
		}
	})
}
