package service_test

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/rtc/rtctest"
)

// seriesKey is a series without the values of its labels, but for those that are fixed words.
func seriesKey(line string) string {
	name, labels, _ := strings.Cut(strings.TrimSuffix(line, "}"), "{")
	var keys []string
	for _, m := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(labels, -1) {
		switch m[1] {
		case "groupID", "clientID":
			keys = append(keys, m[1])
		default:
			keys = append(keys, m[1]+"="+m[2])
		}
	}
	slices.Sort(keys)
	return name + "{" + strings.Join(keys, ",") + "}"
}

// Two people talk through everything: registration, WebSocket, SDP, ICE, DTLS, SRTP. What
// dashboards and backends look at afterwards is there.
func TestCall(t *testing.T) {
	ctx := within(t, 40*time.Second)
	s := start(t, nil, nil)
	r := connect(t, s.url, "c1")
	all := people(ctx, t, r, "call", "s1", "s2")
	rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 40)
	more(ctx, t, all["s2"], "s1", 40)
	c := newClient(t, s.url, "c1")
	list, err := c.Sessions(ctx, "call")
	if err != nil || len(list) != 2 {
		t.Errorf("sessions %v: %v", list, err)
	}
	if token, err := c.Login(ctx); err != nil || len(token) != 32 {
		t.Errorf("login: token of %d characters: %v", len(token), err)
	}
	conn, err := c.Connect(ctx) // with the token
	if err != nil {
		t.Fatalf("connect with a token: %v", err)
	}
	_ = conn.Close()

	_, text := request(t, "GET", s.url+"/metrics", "", "", "")
	have := make(map[string]bool)
	for line := range strings.Lines(text) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			have[seriesKey(line[:i])] = true
		}
	}
	want, err := os.ReadFile("testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(want)) {
		if k := seriesKey(strings.TrimSpace(line)); !have[k] {
			t.Errorf("no series %s", k)
		}
	}
	for name, e := range all {
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = r.Conn.Leave(name)
	}
	for name := range all {
		if err := r.AwaitClosed(ctx, name); err != nil {
			t.Errorf("%s: no close: %v", name, err)
		}
	}
	if _, err := c.Sessions(ctx, "call"); err == nil {
		t.Error("the call is still listed")
	}
}

// voices returns the voice events of a session, as a string of + and -.
func voices(events []client.Event, session string) string {
	s := ""
	for _, e := range events {
		if v, ok := e.(client.Voice); ok && v.SessionID == session {
			if v.On {
				s += "+"
			} else {
				s += "-"
			}
		}
	}
	return s
}

// The backend's WebSocket drops in mid-call and comes back: no packet of media is lost, and what
// the server had to say meanwhile comes once and in order.
func TestWebSocketDropsAndResumes(t *testing.T) {
	for name, linger := range map[string]int{"reset": 0, "closed in order": -1} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 60*time.Second)
			s := start(t, nil, nil)
			p := newProxy(t, s.Addr().String())
			r := connect(t, p.url(), "c1")
			all := people(ctx, t, r, "call", "s1", "s2", "s3")
			stop := rtctest.Talk(t, map[string]*rtctest.Endpoint{"s1": all["s1"], "s3": all["s3"]})
			more(ctx, t, all["s2"], "s1", 20)

			p.refuse(true)
			p.cut(linger)
			if err := r.Await(ctx, func(events []client.Event) bool {
				_, ok := events[len(events)-1].(client.Disconnected)
				return ok
			}); err != nil {
				t.Fatal(err)
			}
			// While the backend is away: two people mute and one of them leaves for good, each of
			// which the backend has to hear of.
			more(ctx, t, all["s2"], "s1", 60)
			before := len(r.Events())
			all["s3"].Close()
			more(ctx, t, all["s2"], "s1", 60)
			p.refuse(false)
			if err := r.AwaitClosed(ctx, "s3"); err != nil {
				t.Fatalf("the end of s3 was lost: %v", r.Events()[before:])
			}
			more(ctx, t, all["s2"], "s1", 20)
			stop()

			h := all["s2"].Heard("s1")
			if h.Gaps > 0 || h.Bad > 0 {
				t.Errorf("%d gaps, %d changed in %d packets", h.Gaps, h.Bad, h.Packets)
			}
			for i := 1; i < len(h.Numbers); i++ {
				if h.Numbers[i] != h.Numbers[i-1]+1 {
					t.Fatalf("packet %d came after %d", h.Numbers[i], h.Numbers[i-1])
				}
			}
			closed := 0
			for _, e := range r.Events() {
				if c, ok := e.(client.Closed); ok {
					closed++
					// The client also asks which sessions are left when it is back, and may learn of the
					// end that way before the parked message comes; it says so only once. That the
					// message itself comes once is shown byte for byte in servicetest.
					if c.SessionID != "s3" {
						t.Errorf("event %+v", c)
					}
				}
			}
			if closed != 1 {
				t.Errorf("s3 closed %d times", closed)
			}
			// Signalling works again for the sessions that went on.
			if err := all["s2"].Err(); err != nil {
				t.Error(err)
			}
			late := people(ctx, t, r, "call", "s4")
			rtctest.Talk(t, late)
			more(ctx, t, all["s2"], "s4", 10)
		})
	}
}

// Voice activity that changes while the backend is away is told in order when it is back.
func TestVoiceActivityWhileAway(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, nil)
	p := newProxy(t, s.Addr().String())
	r := connect(t, p.url(), "c1")
	all := people(ctx, t, r, "call", "s1", "s2")
	speak := func(n uint32) uint32 { // until the server has judged it, loud and quiet in turns
		for i := range uint32(80) {
			level := uint8(10)
			if i/5%2 == 1 {
				level = 110
			}
			if err := all["s1"].SendVoice("s1", n, level); err != nil {
				t.Fatal(err)
			}
			n++
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
		}
		return n
	}
	n := speak(0)
	if err := r.Await(ctx, func(e []client.Event) bool { return voices(e, "s1") == "+" }); err != nil {
		t.Fatalf("voice %q", voices(r.Events(), "s1"))
	}
	p.refuse(true)
	p.cut(0)
	// The voice stops: off, a second later. Then it is on again.
	have := all["s2"].Heard("s1").Packets
	select {
	case <-time.After(1500 * time.Millisecond): // the time that makes a voice silent
	case <-ctx.Done():
	}
	speak(n)
	if err := all["s2"].Await(ctx, func(heard func(string) rtctest.Heard) bool {
		return heard("s1").Packets >= have+80
	}); err != nil {
		t.Fatal(err)
	}
	p.refuse(false)
	if err := r.Await(ctx, func(e []client.Event) bool {
		return strings.HasPrefix(voices(e, "s1"), "+-+")
	}); err != nil {
		t.Fatalf("voice %q", voices(r.Events(), "s1"))
	}
}

// Messages go to another live connection of the client at once.
func TestSecondConnectionTakesOver(t *testing.T) {
	ctx := within(t, 40*time.Second)
	s := start(t, nil, nil)
	p := newProxy(t, s.Addr().String())
	first, second := connect(t, p.url(), "c1"), connect(t, s.url, "c1")
	all := people(ctx, t, first, "call", "s1", "s2")
	p.refuse(true)
	p.cut(0)
	all["s1"].Close()
	if err := second.AwaitClosed(ctx, "s1"); err != nil {
		t.Fatalf("the other connection was not told: %v", second.Events())
	}
}

// The end of Run leaves nothing behind.
func TestRunLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("server", func(t *testing.T) {
		ctx := within(t, 40*time.Second)
		s := start(t, nil, func(c *config.Config) { c.Shutdown.DrainDeadline = time.Second })
		r := connect(t, s.url, "c1")
		all := people(ctx, t, r, "call", "s1", "s2")
		rtctest.Talk(t, all)
		more(ctx, t, all["s1"], "s2", 10)
		s.stop()
		for name := range all {
			if err := r.AwaitClosed(ctx, name); err != nil {
				t.Errorf("%s was not told of the end: %v", name, err)
			}
		}
	})
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+2; {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-context.Background().Done():
		}
	}
}
