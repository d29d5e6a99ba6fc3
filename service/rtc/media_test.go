package rtc_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/rtctest"
)

// people makes a call of people with a microphone each, and one who only listens.
func people(ctx context.Context, t *testing.T, names ...string) (*rtctest.Backend, map[string]*rtctest.Endpoint) {
	t.Helper()
	n := rtctest.NewNetwork(t)
	b := rtctest.NewBackend(t, n.Serve(t))
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range append(names, "listener") {
		host, _ := n.Host(t)
		all[name] = b.Join(t, "g", "call", name, rtctest.EndpointConfig{Net: host})
		if name == "listener" {
			if err := all[name].Connect(ctx); err != nil {
				t.Fatalf("%s: connect: %v", name, err)
			}
			continue
		}
		connectAndPublish(ctx, t, all[name], name)
	}
	return b, all
}

// speaker sends packets of one source, numbered on from what was sent before.
type speaker struct {
	t      *testing.T
	name   string
	source interface {
		Send(sender string, n uint32, level uint8) error
	}
	next uint32
}

// mic is the microphone of an endpoint.
type mic struct{ *rtctest.Endpoint }

func (m mic) Send(sender string, n uint32, level uint8) error { return m.SendVoice(sender, n, level) }

func newSpeaker(t *testing.T, name string, e *rtctest.Endpoint) *speaker {
	return &speaker{t: t, name: name, source: mic{e}}
}

// say sends packets of the levels, which it goes through again and again, at a quick pace.
func (s *speaker) say(ctx context.Context, packets int, levels ...uint8) {
	s.t.Helper()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for i := range packets {
		if err := s.source.Send(s.name, s.next, levels[i%len(levels)]); err != nil {
			s.t.Fatalf("%s: send: %v", s.name, err)
		}
		s.next++
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("%s: %v", s.name, ctx.Err())
		}
	}
}

// until says packets of one level until ok.
func (s *speaker) until(ctx context.Context, ok func() bool) {
	s.t.Helper()
	for !ok() {
		s.say(ctx, 1, 30)
	}
}

func signal(t *testing.T, b *rtctest.Backend, session string, typ wire.SignalType, data string) {
	t.Helper()
	if err := b.Server.Signal("g", session, wire.Signal{SessionID: session, Type: typ, Data: []byte(data)}); err != nil {
		t.Fatalf("signal %v to %s: %v", typ, session, err)
	}
}

// voices are the voice events of a session, as text.
func voices(events []rtc.Event) []string {
	var out []string
	for _, e := range events {
		switch {
		case e.Kind == rtc.Voice && e.Type == wire.SignalVoiceOn:
			out = append(out, "on")
		case e.Kind == rtc.Voice && e.Type == wire.SignalVoiceOff:
			out = append(out, "off")
		case e.Kind == rtc.Closed:
			out = append(out, "closed")
		}
	}
	return out
}

func awaitVoices(ctx context.Context, t *testing.T, b *rtctest.Backend, session string, want ...string) {
	t.Helper()
	err := b.Await(ctx, session, func(events []rtc.Event) bool { return len(voices(events)) >= len(want) })
	if got := voices(b.Events(session)); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%s: events %v, want %v (%v)", session, got, want, err)
	}
}

// awaitMedia waits until the listener's media map is as said: type and sender of each section.
func awaitMedia(ctx context.Context, t *testing.T, e *rtctest.Endpoint, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	err := e.Await(ctx, func(func(string) rtctest.Heard) bool {
		got = mediaList(e.MediaMap())
		return slices.Equal(got, want)
	})
	if err != nil {
		t.Fatalf("media map has %v, want %v: %v", got, want, err)
	}
}

func mediaList(media map[string]channel.Media) []string {
	out := make([]string, 0, len(media))
	for _, m := range media {
		out = append(out, m.Type+" "+m.SenderID)
	}
	slices.Sort(out)
	return out
}

// TestMute (M17): no packet passes while muted, and receivers see no gap in the sequence numbers.
func TestMute(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b, all := people(ctx, t, "a")
	listener, a := all["listener"], newSpeaker(t, "a", all["a"])
	heard := func() rtctest.Heard { return listener.Heard("a") }

	// A mute without a voice does nothing: the voice starts unmuted.
	signal(t, b, "a", wire.SignalMute, "")
	a.until(ctx, func() bool { return heard().Packets >= 10 })
	if got := voices(b.Events("a")); len(got) != 0 {
		t.Fatalf("events %v before anything was said", got)
	}
	for round := range 3 {
		// A mute always says voice off, and from then on nothing passes.
		offs := len(voices(b.Events("a")))
		signal(t, b, "a", wire.SignalMute, "")
		if err := b.Await(ctx, "a", func(events []rtc.Event) bool { return len(voices(events)) > offs }); err != nil {
			t.Fatalf("no voice off with the mute: %v", err)
		}
		first := a.next
		// Muted packets are still judged: that the voice is on tells that these have arrived.
		a.say(ctx, 51, 10, 90)
		last := a.next
		if err := b.Await(ctx, "a", func(events []rtc.Event) bool { return len(voices(events)) > offs+1 }); err != nil {
			t.Fatalf("muted packets are not judged: %v", err)
		}
		if round == 1 { // a second mute, and the same message twice for the unmute
			signal(t, b, "a", wire.SignalMute, "")
		}
		signal(t, b, "a", wire.SignalUnmute, "")
		before := heard().Packets
		a.until(ctx, func() bool { return heard().Packets >= before+10 })
		h := heard()
		for _, n := range h.Numbers {
			if n >= first && n < last {
				t.Fatalf("round %d: packet %d was heard, muted were %d to %d", round, n, first, last-1)
			}
		}
		if h.Gaps != 0 || h.Bad != 0 {
			t.Errorf("round %d: %d gaps in the sequence numbers, %d changed packets", round, h.Gaps, h.Bad)
		}
	}
	if n := len(heard().TrackIDs); n != 1 {
		t.Errorf("the listener got %d tracks, want 1: muting negotiates nothing", n)
	}
}

// TestVoiceActivity: chapter 13. On with the 51st packet if levels vary, off when packets stop,
// at a mute, and when the speaker leaves; then the close is the last event.
func TestVoiceActivity(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b, all := people(ctx, t, "a")
	a := newSpeaker(t, "a", all["a"])

	a.say(ctx, 50, 10, 90)
	a.until(ctx, func() bool { return len(voices(b.Events("a"))) > 0 })
	awaitVoices(ctx, t, b, "a", "on")
	awaitVoices(ctx, t, b, "a", "on", "off") // no packets any more

	a.say(ctx, 60, 10, 90)
	awaitVoices(ctx, t, b, "a", "on", "off", "on")
	signal(t, b, "a", wire.SignalMute, "")
	awaitVoices(ctx, t, b, "a", "on", "off", "on", "off")
	signal(t, b, "a", wire.SignalUnmute, "")

	a.say(ctx, 60, 10, 90)
	awaitVoices(ctx, t, b, "a", "on", "off", "on", "off", "on")
	b.Server.Leave("g", "a")
	awaitVoices(ctx, t, b, "a", "on", "off", "on", "off", "on", "off", "closed")
	if events := b.Events("a"); events[len(events)-1].Kind != rtc.Closed {
		t.Error("the close is not the last event")
	}
}

// TestSteadyVoice: levels that hardly vary are no voice, and end one after 2 s at the earliest.
func TestSteadyVoice(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b, all := people(ctx, t, "a")
	a := newSpeaker(t, "a", all["a"])
	a.say(ctx, 120, 30, 32)
	if err := all["listener"].Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard("a").Packets > 60 }); err != nil {
		t.Fatal(err)
	}
	if got := voices(b.Events("a")); len(got) != 0 {
		t.Fatalf("a steady level gave %v", got)
	}
	a.say(ctx, 60, 10, 90)
	awaitVoices(ctx, t, b, "a", "on")
	start := time.Now()
	a.until(ctx, func() bool { return len(voices(b.Events("a"))) > 1 })
	awaitVoices(ctx, t, b, "a", "on", "off")
	if took := time.Since(start); took < 1500*time.Millisecond {
		t.Errorf("voice off after %v, want 2 s after voice on", took)
	}
}

// TestScreenAudio (M4, M7, M11): audio under the sharer's stream id is screen audio, of the sharer
// alone and while it shares; it tells nothing of the sharer's voice.
func TestScreenAudio(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b, all := people(ctx, t, "a", "c")
	listener := all["listener"]
	screenOn := fmt.Sprintf(`{"screenStreamID":%q}`, "scr")

	voice := newSpeaker(t, "a", all["a"])
	voice.until(ctx, func() bool { return listener.Heard("a").Packets > 5 })
	signal(t, b, "a", wire.SignalScreenOn, screenOn)
	source, err := all["a"].AddAudio(ctx, "scr")
	if err != nil {
		t.Fatal(err)
	}
	screen := &speaker{t: t, name: "a", source: source}
	screen.until(ctx, func() bool { return listener.Heard("a/screen-audio").Packets > 5 })
	awaitMedia(ctx, t, listener, "voice a", "screen-audio a")

	// Loud and quiet audio of the screen does not make its owner speak.
	screen.say(ctx, 120, 10, 90)
	before := listener.Heard("a/screen-audio").Packets
	screen.until(ctx, func() bool { return listener.Heard("a/screen-audio").Packets > before })
	if got := voices(b.Events("a")); len(got) != 0 {
		t.Errorf("screen audio gave %v", got)
	}
	// Nor does muting the voice mute the screen.
	signal(t, b, "a", wire.SignalMute, "")
	awaitVoices(ctx, t, b, "a", "off")
	before = listener.Heard("a/screen-audio").Packets
	screen.until(ctx, func() bool { return listener.Heard("a/screen-audio").Packets > before+5 })

	// Somebody else under the same stream id, with a screen-on that comes second, is a voice.
	signal(t, b, "c", wire.SignalScreenOn, screenOn)
	posed, err := all["c"].AddAudio(ctx, "scr")
	if err != nil {
		t.Fatal(err)
	}
	impostor := &speaker{t: t, name: "c", source: posed}
	impostor.until(ctx, func() bool { return listener.Heard("c").Packets > 5 })
	if listener.Heard("c/screen-audio").Packets > 0 {
		t.Error("another participant passed as the screen")
	}
	awaitMedia(ctx, t, listener, "voice a", "screen-audio a", "voice c")

	// The end of the share ends its audio, whoever goes on sending, and only the sharer ends it.
	signal(t, b, "c", wire.SignalScreenOff, "")
	before = listener.Heard("a/screen-audio").Packets
	screen.until(ctx, func() bool { return listener.Heard("a/screen-audio").Packets > before+5 })
	signal(t, b, "a", wire.SignalScreenOff, "")
	awaitMedia(ctx, t, listener, "voice a", "voice c")
	before = listener.Heard("a/screen-audio").Packets
	screen.say(ctx, 30, 30)
	n := listener.Heard("c").Packets // what was sent before is there when this is
	impostor.until(ctx, func() bool { return listener.Heard("c").Packets > n+5 })
	if got := listener.Heard("a/screen-audio").Packets; got != before {
		t.Errorf("%d packets of a screen that is not shared any more", got-before)
	}
	for name, e := range all {
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
