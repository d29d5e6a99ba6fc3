package servicetest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// F11, S1, S2: a backend's connection breaks in mid-call and comes back. Meanwhile media flows on,
// somebody starts and stops speaking, a second microphone comes up, and somebody's endpoint goes.
// No packet is lost, and the backend hears of everything once and in order.
func TestConnectionBreaksInMidCall(t *testing.T) {
	t.Parallel()
	addr := start(t, nil, nil)
	for _, how := range []string{"RST", "FIN", "black hole", "another connection"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			breakAndResume(deadline(t, 60*time.Second), t, addr, how)
		})
	}
}

func breakAndResume(ctx context.Context, t *testing.T, addr, how string) {
	b := servicetest.NewBackend(t, addr, "client of "+how)
	b.Register(t)
	old := b.Dial(t)
	var spare *servicetest.Link
	if how == "another connection" {
		spare = dial(t, b)
	}
	ada := b.Person(ctx, t, "call", "ada", rtctest.EndpointConfig{})
	bob := b.Person(ctx, t, "call", "bob", rtctest.EndpointConfig{})
	eve := b.Join(t, "call", "eve", rtctest.EndpointConfig{ChannelSignalling: true})
	leo := b.Join(t, "call", "leo", rtctest.EndpointConfig{ChannelSignalling: true})
	for name, e := range map[string]*rtctest.Endpoint{"eve": eve, "leo": leo} {
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	voice, steady := servicetest.Speak(t, "ada", ada), servicetest.Speak(t, "bob", bob)
	awaitHears(ctx, t, "bob", bob, 30, "ada")
	awaitHears(ctx, t, "ada", ada, 30, "bob")
	awaitHears(ctx, t, "eve", eve, 30, "ada", "bob")

	b.Use(nil)
	switch how {
	case "RST":
		old.Reset(t)
	case "FIN":
		old.Finish()
	case "black hole":
		old.Deafen(t)
	case "another connection":
		old.Reset(t)
	}

	// The backend is away. Everything below reaches the server over media paths alone.
	if err := eve.Publish(ctx, "voice_eve"); err != nil {
		t.Fatalf("publish while the backend is away: %v", err)
	}
	late := servicetest.Speak(t, "eve", eve)
	voice.Excite(true)
	hearsMore(ctx, t, "bob", bob, 150, "ada") // on for sure
	voice.Excite(false)
	leo.Close()
	hearsMore(ctx, t, "bob", bob, 350, "ada") // off for sure: it holds for 2 s

	link := spare
	if spare == nil {
		link = dial(t, b)
		for _, s := range []string{"ada", "bob", "eve", "leo"} {
			link.Send(wire.AppendReconnect(nil, s))
		}
	}
	b.Use(link)
	awaitHears(ctx, t, "ada", ada, 30, "eve")
	awaitHears(ctx, t, "bob", bob, 30, "eve")
	await(ctx, t, b, "what happened meanwhile", func() bool {
		return slices.Equal(voices(b, "ada"), []string{"on", "off"}) && slices.Equal(voices(b, "leo"), []string{"close"})
	})
	for _, s := range []string{"ada", "bob", "eve"} {
		b.Send(wire.AppendLeave(nil, s))
	}
	await(ctx, t, b, "closes", func() bool {
		return !slices.ContainsFunc([]string{"ada", "bob", "eve"}, func(s string) bool { return !slices.Contains(b.News(s), "close") })
	})
	for _, s := range []*servicetest.Speaker{voice, steady, late} {
		s.Stop(t)
	}
	for _, m := range b.Of("leo") {
		if m.Type == "close" && m.Link != link {
			t.Error("what happened after the break came over the connection that broke")
		}
	}

	for session, want := range map[string][]string{
		"ada": {"on", "off", "close"}, "bob": {"close"}, "eve": {"close"}, "leo": {"close"},
	} {
		if got := voices(b, session); !slices.Equal(got, want) {
			t.Errorf("the backend was told %v of %s, want %v", got, session, want)
		}
		seen := make(map[string]bool)
		for _, m := range b.Of(session) {
			if m.Type != "rtc" {
				continue
			}
			if text := fmt.Sprint(m.Signal.Type, string(m.Signal.Data)); seen[text] {
				t.Errorf("%s: came twice: %s", session, text)
			} else {
				seen[text] = true
			}
		}
	}
	for name, e := range map[string]*rtctest.Endpoint{"ada": ada, "bob": bob, "eve": eve} {
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	servicetest.Unbroken(t, bob, "ada")
	servicetest.Unbroken(t, ada, "bob")
	servicetest.Unbroken(t, eve, "ada")
	servicetest.Unbroken(t, eve, "bob")
	servicetest.Unbroken(t, ada, "eve")
	servicetest.Unbroken(t, bob, "eve")
}

// dial opens a link that no end user's signalling goes over yet.
func dial(t *testing.T, b *servicetest.Backend) *servicetest.Link {
	t.Helper()
	l, err := b.DialWith(b.Basic())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// voices is what a session said but for its signalling.
func voices(b *servicetest.Backend, session string) []string {
	return slices.DeleteFunc(b.News(session), func(s string) bool { return s == "offer" || s == "answer" })
}
