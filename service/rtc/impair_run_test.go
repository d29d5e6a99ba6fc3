package rtc_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/forward"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/rtc/rtctest/report"
)

const (
	sampleEvery = 100 * time.Millisecond
	voiceEvery  = 20 * time.Millisecond

	settled  = 1200 * time.Millisecond // after that a view counts a frame
	recovery = 2 * time.Second         // that a picture may take to be whole again after losses
	upWithin = 20 * time.Second        // that the best layer is waited for
	stale    = 600 * time.Millisecond  // what is shown is no longer current: three pictures of a screen
)

// way says what the links of a scenario do. The zero value does nothing.
type way struct {
	toViewer, fromViewer, fromSender rtctest.Impairment
}

// conversation is a sender with a voice and a camera or screen, and a viewer, on a virtual network.
type conversation struct {
	backend        *rtctest.Backend
	sender, viewer *rtctest.Endpoint
	up, down       *rtctest.Link // of the sender and of the viewer
	source         string        // "video" or "screen"
	best           int           // index of the best layer
	voice          *talker
	samples        []report.Sample
	start, ended   time.Time // of the impairment
	limit          int       // of the viewer's downlink, bit/s
	full           bool      // it was limited at some time
}

// converse starts a conversation whose links are as way says before the sender publishes anything.
func converse(ctx context.Context, t *testing.T, source string, layers []rtctest.Layer, w way) *conversation {
	t.Helper()
	n := rtctest.NewNetwork(t)
	c := &conversation{backend: rtctest.NewBackend(t, n.Serve(t)), source: source, best: len(layers) - 1}
	join := func(name string) (*rtctest.Endpoint, *rtctest.Link) {
		host, _, link := n.ImpairedHost(t)
		e := c.backend.Join(t, "g", "call", name, rtctest.EndpointConfig{Net: host})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: connect: %v", name, err)
		}
		return e, link
	}
	c.sender, c.up = join("s0")
	c.viewer, c.down = join("s1")
	t.Cleanup(c.part)
	c.set(w)
	if err := c.sender.Publish(ctx, "voice_s0"); err != nil {
		t.Fatalf("publish a voice: %v", err)
	}
	c.voice = talk50(t, c.sender, "s0")
	switch source {
	case "screen":
		signal(t, c.backend, "s0", wire.SignalScreenOn, `{"screenStreamID":"picture"}`)
	default:
		signal(t, c.backend, "s0", wire.SignalVideoOn, `{"videoStreamID":"picture"}`)
	}
	if _, err := c.sender.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: "picture", Mime: "video/VP8", Layers: layers,
	}); err != nil {
		t.Fatalf("publish a %s: %v", source, err)
	}
	return c
}

func (c *conversation) set(w way) {
	c.down.Down.Set(w.toViewer)
	c.down.Up.Set(w.fromViewer)
	c.up.Up.Set(w.fromSender)
	c.limit = w.toViewer.Rate
	c.full = c.full || c.limit > 0
}

// part cuts all links, so that each side of a connection closes by itself. Pion, told to close when
// the other side has closed already, waits for a timer with a lock held; if another goroutine wants
// that lock, the time of a bubble stands still.
func (c *conversation) part() {
	cut := rtctest.Impairment{Loss: 1}
	c.up.Set(cut)
	c.down.Set(cut)
}

func (c *conversation) view() rtctest.View { return c.viewer.Viewed("s0", c.source) }

// await waits until ok holds of what the viewer sees.
func (c *conversation) await(ctx context.Context, t *testing.T, what string, ok func(rtctest.View) bool) {
	t.Helper()
	if err := c.viewer.AwaitView(ctx, "s0", c.source, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// watch takes samples until the time is over or enough holds of a view; nil: never.
func (c *conversation) watch(ctx context.Context, t *testing.T, d time.Duration, enough func(rtctest.View) bool) {
	t.Helper()
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		v := c.view()
		c.samples = append(c.samples, report.Sample{
			At: milli(time.Since(c.start)), Layer: v.Layer, Bitrate: v.Bitrate, Limit: c.limit,
			Age: milli(time.Since(v.LastShow)),
		})
		if enough != nil && enough(v) {
			return
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		case <-ctx.Done():
			t.Fatalf("after %v: %v", time.Since(c.start), ctx.Err())
		}
	}
}

// milli returns seconds to the millisecond.
func milli(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// contact is what must not change while a link is impaired.
type contact struct {
	offers, tracks, heard int
	ssrc                  uint32
}

func (c *conversation) contact() contact {
	v, h := c.view(), c.viewer.Heard("s0")
	return contact{offers: c.viewer.Offers(), tracks: v.Tracks, heard: len(h.TrackIDs), ssrc: v.SSRC}
}

// checkContact checks that nobody was disconnected or renegotiated with, and that what came is what
// was sent, under numbers without a break.
func (c *conversation) checkContact(t *testing.T, before contact) {
	t.Helper()
	if after := c.contact(); after != before {
		t.Errorf("offers, tracks and SSRC were %+v, now %+v", before, after)
	}
	for _, name := range []string{"s0", "s1"} {
		for _, e := range c.backend.Events(name) {
			if e.Kind == rtc.Closed {
				t.Errorf("%s was disconnected: %v", name, e.Reason)
			}
		}
	}
	for _, e := range []*rtctest.Endpoint{c.sender, c.viewer} {
		if err := e.Err(); err != nil {
			t.Error(err)
		}
	}
	v := c.view()
	if v.Bad+v.Foreign+v.Jumps+v.SwitchFaults > 0 {
		t.Errorf("%d packets bad, %d of another source, %d jumps of numbers, %d switches without a keyframe",
			v.Bad, v.Foreign, v.Jumps, v.SwitchFaults)
	}
	if v.TimestampFaults+v.PictureFaults+v.LevelFaults > 0 {
		t.Errorf("faults of %d timestamps, %d picture ids, %d TL0PICIDX", v.TimestampFaults, v.PictureFaults, v.LevelFaults)
	}
	if h := c.viewer.Heard("s0"); h.Bad > 0 {
		t.Errorf("%d packets of the voice are not as they were sent", h.Bad)
	}
}

// measure returns what the viewer got of d of a conversation whose links are as during says, and how
// it went on when they became as after says. The timeline begins that much before as lead says.
func (c *conversation) measure(ctx context.Context, t *testing.T, lead, d time.Duration, during, after way) report.Result {
	t.Helper()
	unchanged := c.contact()
	c.start = time.Now().Add(lead)
	if lead > 0 {
		c.watch(ctx, t, lead, nil)
	}
	before := len(c.samples)
	begin, stats := c.view(), c.backend.Server.Forwarded()
	c.set(during)
	c.watch(ctx, t, settled, nil)
	from := c.view() // the frames before
	c.watch(ctx, t, d-settled, nil)
	end, statsEnd := c.view(), c.backend.Server.Forwarded()
	c.ended = time.Now()
	until := len(c.samples)
	c.set(after)
	c.watch(ctx, t, settled, nil)
	to := c.view()
	c.watch(ctx, t, recovery, nil)
	calm := c.view()
	c.watch(ctx, t, upWithin, func(v rtctest.View) bool { return v.Layer == c.best })
	c.watch(ctx, t, settled, nil)
	last := c.view()

	r := report.Result{
		Seconds: milli(d),
		Frames:  to.Frames - from.Frames, Decodable: to.Decodable - from.Decodable,
		Pictures: math.Round(10*float64(end.Pictures-begin.Pictures)/d.Seconds()) / 10,
		Freezes:  max(0, end.Freezes-begin.Freezes), Frozen: milli(max(0, end.Frozen-begin.Frozen)),
		Bitrate: int(float64(end.Bytes-begin.Bytes) * 8 / d.Seconds()),
		Asked:   int(statsEnd.Feedbacks[forward.FeedbackNACK] - stats.Feedbacks[forward.FeedbackNACK]),
		Resent:  int(statsEnd.Resent - stats.Resent), Repaired: end.Repaired - begin.Repaired,
		Keys: end.Asked - begin.Asked,
	}
	if c.full {
		r.Timeline = c.samples
	}
	r.AfterFrames, r.AfterDecodable = last.Frames-calm.Frames, last.Decodable-calm.Decodable
	r.Voice, r.Lost = c.voice.lost(c.viewer, c.start, c.ended)
	r.LateVoice, r.LateLost = c.voice.lost(c.viewer, c.start.Add(2*time.Second), c.ended)
	c.layers(&r, before, until, end.Layer)
	c.checkContact(t, unchanged)
	return r
}

// layers fills in which layers were shown and when. The samples from one index to the other were taken
// during the impairment, at the end of which a layer was shown.
func (c *conversation) layers(r *report.Result, from, to, layer int) {
	r.Lower, r.Down, r.Up = c.best, -1, -1
	best := 0
	for _, s := range c.samples[from:to] {
		if s.Layer == c.best {
			best++
		}
		r.Lower = min(r.Lower, s.Layer)
	}
	r.Best = math.Round(1000*float64(best)/float64(to-from)) / 1000
	for _, s := range c.view().History {
		switch {
		case s.At.Before(c.start):
		case s.At.Before(c.ended):
			if s.Layer < c.best && r.Down < 0 {
				r.Down = milli(s.At.Sub(c.start))
			}
		case s.Layer == c.best && r.Up < 0:
			r.Up = milli(s.At.Sub(c.ended))
		}
	}
	if layer == c.best {
		r.Up = 0
	}
	for _, s := range c.samples[to:] {
		if s.Age > stale.Seconds() || s.Layer != c.best {
			r.Recovered = math.Round(1000*(s.At+sampleEvery.Seconds()-r.Seconds)) / 1000
		}
	}
}

// A talker sends a voice.
type talker struct {
	mu   sync.Mutex
	sent []time.Time // of each packet, guarded by mu
}

// talk50 sends 50 packets a second of the sender's voice until the test ends.
func talk50(t *testing.T, e *rtctest.Endpoint, sender string) *talker {
	t.Helper()
	v := &talker{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(voiceEvery)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			v.mu.Lock()
			v.sent = append(v.sent, time.Now())
			v.mu.Unlock()
			if err := e.SendVoice(sender, n, 20); err != nil {
				t.Errorf("send a voice: %v", err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return v
}

// lost returns how many packets were sent in a time and how many of these the viewer did not hear.
func (v *talker) lost(viewer *rtctest.Endpoint, from, to time.Time) (sent, lost int) {
	heard := make(map[uint32]bool)
	for _, n := range viewer.Heard("s0").Numbers {
		heard[n] = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for n, at := range v.sent {
		if at.Before(from) || at.After(to) {
			continue
		}
		sent++
		if !heard[uint32(n)] {
			lost++
		}
	}
	return sent, lost
}

// describe is a result as one line of a log.
func describe(r report.Result) string {
	return fmt.Sprintf("%d of %d frames decodable, %.1f pictures/s, %d freezes of %.2f s, best layer %.0f %%, lowest %d, down %.2f s, up %.2f s, "+
		"%d asked, %d resent, %d repaired, %d of %d of the voice lost, %d keyframes asked, %d kbit/s, then %d of %d decodable, recovered after %.1f s, late %d of %d of the voice lost",
		r.Decodable, r.Frames, r.Pictures, r.Freezes, r.Frozen, 100*r.Best, r.Lower, r.Down, r.Up,
		r.Asked, r.Resent, r.Repaired, r.Lost, r.Voice, r.Keys, r.Bitrate/1000,
		r.AfterDecodable, r.AfterFrames, r.Recovered, r.LateLost, r.LateVoice)
}
