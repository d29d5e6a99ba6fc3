package rtc_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// A diary notes the events of calls.
type diary struct {
	mu     sync.Mutex
	events []rtc.CallEvent
	came   chan struct{} // one slot
}

func newDiary() *diary { return &diary{came: make(chan struct{}, 1)} }

func (d *diary) note(e rtc.CallEvent) {
	d.mu.Lock()
	d.events = append(d.events, e)
	d.mu.Unlock()
	select {
	case d.came <- struct{}{}:
	default:
	}
}

// lines are the events so far, those of a call together, as "type session detail".
func (d *diary) lines(call string) (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		if e.CallID != call {
			continue
		}
		line := string(e.Type)
		for _, s := range []string{e.SessionID, e.Source, e.Detail} {
			if s != "" {
				line += " " + s
			}
		}
		out = append(out, line)
	}
	return out
}

// await waits for an event.
func (d *diary) await(t *testing.T, call, line string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for !slices.ContainsFunc(d.lines(call), func(l string) bool { return strings.HasPrefix(l, line) }) {
		select {
		case <-d.came:
		case <-late:
			t.Fatalf("no %q; so far %q", line, d.lines(call))
		}
	}
}

// check checks what is promised of every call: started first, ended last, each session joined before anything
// else of it and left after it, each stream between, and times that do not go back.
func (d *diary) check(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	type callState struct {
		in      map[string]bool
		streams map[string]string // session by stream
		last    time.Time
	}
	calls := make(map[string]*callState)
	for i, e := range d.events {
		key := e.GroupID + "/" + e.CallID
		c := calls[key]
		fault := func(what string) { t.Errorf("event %d, %s %s of %s: %s", i, e.Type, e.SessionID, key, what) }
		if (c == nil) != (e.Type == rtc.CallStarted) {
			fault("not in a call, or begins one that runs")
			continue
		}
		if c == nil {
			c = &callState{in: make(map[string]bool), streams: make(map[string]string)}
			calls[key] = c
		}
		if e.Time.Before(c.last) {
			fault("earlier than the one before")
		}
		c.last = e.Time
		if e.SessionID != "" && c.in[e.SessionID] == (e.Type == rtc.ParticipantJoined) {
			fault("of a session that has not joined, or has already")
		}
		switch e.Type {
		case rtc.ParticipantJoined:
			c.in[e.SessionID] = true
		case rtc.ParticipantLeft:
			delete(c.in, e.SessionID)
			for stream, session := range c.streams {
				if session == e.SessionID {
					fault("left before its stream " + stream)
				}
			}
		case rtc.StreamStarted:
			if c.streams[e.StreamID] != "" {
				fault("a stream begins twice")
			}
			c.streams[e.StreamID] = e.SessionID
		case rtc.StreamEnded:
			if c.streams[e.StreamID] != e.SessionID {
				fault("a stream ends that did not begin")
			}
			delete(c.streams, e.StreamID)
		case rtc.CallEnded:
			if len(c.in) > 0 {
				fault(fmt.Sprintf("ended with %d sessions", len(c.in)))
			}
			delete(calls, key)
		}
	}
	for key := range calls {
		t.Errorf("call %s has no end", key)
	}
}

// TestCallEvents shows what is told of two who join, talk, are moderated and leave.
func TestCallEvents(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	d := newDiary()
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.CallEvent = d.note })
	for _, name := range []string{"a", "b"} {
		e := b.Join(t, "g", "call", name, rtctest.EndpointConfig{})
		connectAndPublish(ctx, t, e, name)
		d.await(t, "call", "participant.connected "+name)
		if err := e.SendVoice(name, 1, 30); err != nil {
			t.Fatal(err)
		}
		d.await(t, "call", "stream.started "+name+" voice")
	}
	if err := b.Server.Mute("g", "call", "a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Server.Disconnect("g", "call", "a"); err != nil {
		t.Fatal(err)
	}
	b.Server.Leave("g", "b")
	d.await(t, "call", "call.ended")
	d.check(t)
	var got []string
	for _, l := range d.lines("call") {
		if strings.HasPrefix(l, "participant.connected") { // the path differs
			l = strings.Join(strings.Fields(l)[:2], " ")
		}
		got = append(got, l)
	}
	want := []string{
		"call.started", "participant.joined a", "participant.connected a", "stream.started a voice",
		"participant.joined b", "participant.connected b", "stream.started b voice", "moderated a mute",
		"stream.ended a voice", "participant.left a " + string(rtc.CloseRemoved),
		"stream.ended b voice", "participant.left b " + string(rtc.CloseLeft), "call.ended",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestCallEventsOfLingeringCall shows that a call that lingers has not ended, and that the next one of its id
// begins after the end of it.
func TestCallEventsOfLingeringCall(t *testing.T) {
	d := newDiary()
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.CallEvent = d.note })
	s := b.Server
	enter(t, s, "call", "a", rtc.Grant{Linger: time.Hour})
	s.Leave("g", "a")
	enter(t, s, "call", "b", rtc.Grant{})
	s.Leave("g", "b")
	if err := s.EndCall("g", "call"); err != nil {
		t.Fatal(err)
	}
	enter(t, s, "call", "c", rtc.Grant{})
	s.EndGroup("g")
	s.FlushCallEvents()
	d.check(t)
	want := []string{
		"call.started", "participant.joined a", "participant.left a left", "participant.joined b", "participant.left b left", "call.ended",
		"call.started", "participant.joined c", "participant.left c " + string(rtc.CloseUnregister), "call.ended",
	}
	if got := d.lines("call"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCallEventsKeepOrderUnderChurn has many join and leave the same few calls at once, while groups and calls
// are ended, and then stops the server in the midst of it.
func TestCallEventsKeepOrderUnderChurn(t *testing.T) {
	d := newDiary()
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.CallEvent = d.note })
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 60 {
				group, session := fmt.Sprint("g", w%2), fmt.Sprintf("s%d-%d", w, i)
				call := fmt.Sprint("call", i%3)
				if err := b.Server.Join(group, wire.Join{CallID: call, UserID: "u", SessionID: session}); err != nil {
					continue // a call that is being ended
				}
				switch {
				case i == 59: // the server ends it
				case w == 0 && i%10 == 9:
					_ = b.Server.EndCall(group, call)
				case w == 1 && i%20 == 19:
					b.Server.EndGroup(group)
				default:
					b.Server.Leave(group, session)
				}
			}
		})
	}
	wg.Wait()
	if err := b.Server.Close(); err != nil {
		t.Fatal(err)
	}
	b.Server.FlushCallEvents() // returns, though nothing is told any more
	d.check(t)
	if n := len(d.events); n < 16*60 {
		t.Errorf("%d events only", n)
	}
}
