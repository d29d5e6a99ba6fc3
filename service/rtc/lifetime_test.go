package rtc_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// TestMaxParticipants (TK-19): of 50 that join at once a call for 10, exactly 10 get in and the others
// are told that it is full. Who leaves makes room for one. No role is exempt, a grant cannot exceed
// what the server allows, and a limit that is none limits nothing.
func TestMaxParticipants(t *testing.T) {
	join := func(s *rtc.Server, call, session string, g rtc.Grant) error {
		return s.JoinAs("g", wire.Join{CallID: call, UserID: "u", SessionID: session}, g)
	}
	for name, c := range map[string]struct {
		server, grant int
		want          int
	}{
		"of the server":            {10, 0, 10},
		"of the grant":             {0, 10, 10},
		"the grant says less":      {20, 10, 10},
		"the grant says more":      {10, 20, 10},
		"none":                     {0, 0, 50},
		"less than none":           {0, -1, 50},
		"less than none, a server": {10, -1, 10},
		"more than can be":         {0, math.MaxInt32, 50},
		"far more, a server":       {10, math.MaxInt, 10},
	} {
		t.Run(name, func(t *testing.T) {
			b := rtctest.NewBackend(t, func(cfg *rtc.Config) { cfg.MaxParticipants = c.server })
			g := rtc.Grant{MaxParticipants: c.grant, Role: wire.RoleModerator}
			var wg sync.WaitGroup
			var in, full atomic.Int32
			start := make(chan struct{})
			var admitted sync.Map
			for i := range 50 {
				wg.Go(func() {
					<-start
					id := fmt.Sprint("s", i)
					switch err := join(b.Server, "call", id, g); {
					case err == nil:
						in.Add(1)
						admitted.Store(id, true)
					case reason(err) == "call_full" && errors.Is(err, rtc.ErrLimit):
						full.Add(1)
					default:
						t.Errorf("join: %v", err)
					}
				})
			}
			close(start)
			wg.Wait()
			if int(in.Load()) != c.want || int(in.Load()+full.Load()) != 50 {
				t.Fatalf("%d of 50 got in, %d were told it is full, want %d", in.Load(), full.Load(), c.want)
			}
			if n := metricOf(t, b.Metrics, "rtcd_limit_hits_total", "max_participants"); int(n) != 50-c.want {
				t.Errorf("limit hit %v times, want %d", n, 50-c.want)
			}
			if info, _ := b.Server.Call("g", "call"); info.Participants != c.want {
				t.Errorf("call %+v, want %d participants", info, c.want)
			}
			if c.want == 50 {
				return
			}
			if err := join(b.Server, "another", "x", g); err != nil {
				t.Errorf("a call beside the full one: %v", err)
			}
			admitted.Range(func(id, _ any) bool {
				b.Server.Leave("g", id.(string))
				return false
			})
			if err := join(b.Server, "call", "next", g); err != nil {
				t.Errorf("in the place of who left: %v", err)
			}
			if err := join(b.Server, "call", "one more", g); reason(err) != "call_full" {
				t.Errorf("one more than the limit: %v", err)
			}
		})
	}
}

// TestServerIsFull (OT-15): at each limit all are let in, the next one is refused by name, those that
// are in stay, and a place that becomes free can be taken.
func TestServerIsFull(t *testing.T) {
	for limit, c := range map[string]struct {
		set   func(*rtc.Limits)
		call  string // of those after the first
		group string
		why   string
	}{
		"sessions":            {func(l *rtc.Limits) { l.Sessions = 2 }, "call", "h", "at_capacity"},
		"calls":               {func(l *rtc.Limits) { l.Calls = 2 }, "", "h", "at_capacity"},
		"sessions_per_client": {func(l *rtc.Limits) { l.SessionsPerClient = 2 }, "call", "g", "limit_sessions_per_client"},
		"calls_per_client":    {func(l *rtc.Limits) { l.CallsPerClient = 2 }, "", "g", "limit_calls_per_client"},
		"sessions_per_call":   {func(l *rtc.Limits) { l.SessionsPerCall = 2 }, "call", "g", "call_full"},
		"joins_per_second":    {func(l *rtc.Limits) { l.JoinsPerSecond, l.JoinsBurst = 1, 2 }, "call", "g", "limit_joins_per_second"},
	} {
		t.Run(limit, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				serve := rtctest.NewNetwork(t).Serve(t)
				b := rtctest.NewBackend(t, func(cfg *rtc.Config) { serve(cfg); c.set(&cfg.Limits) })
				n := 0
				join := func(group string) error {
					n++
					call := c.call
					if call == "" {
						call = fmt.Sprint("call", n)
					}
					return b.Server.Join(group, wire.Join{CallID: call, UserID: "u", SessionID: fmt.Sprint("s", n)})
				}
				if err := errors.Join(join("g"), join(c.group)); err != nil {
					t.Fatalf("up to the limit: %v", err)
				}
				err := join("g")
				if !errors.Is(err, rtc.ErrLimit) || reason(err) != c.why {
					t.Errorf("beyond the limit: %v, %q, want %q", err, reason(err), c.why)
				}
				if hits := metricOf(t, b.Metrics, "rtcd_limit_hits_total", limit); hits != 1 {
					t.Errorf("limit hit %v times, want once", hits)
				}
				if !b.Server.Exists("g", "s1") || !b.Server.Exists(c.group, "s2") || b.Server.Count() != 2 {
					t.Error("those that were in did not stay")
				}
				b.Server.Leave("g", "s1")
				time.Sleep(time.Second) // which is what a budget by the second takes
				if err := join("g"); err != nil {
					t.Errorf("in the place of who left: %v", err)
				}
			})
		})
	}
}

// ended collects which calls have ended.
type ended struct {
	mu    sync.Mutex
	calls []string
}

func (e *ended) add(group, call string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, group+"/"+call)
}

func (e *ended) want(t *testing.T, calls ...string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	slices.Sort(e.calls)
	if !slices.Equal(e.calls, calls) {
		t.Errorf("ended: %v, want %v", e.calls, calls)
	}
}

// enter joins a session that nobody connects.
func enter(t *testing.T, s *rtc.Server, call, session string, g rtc.Grant) {
	t.Helper()
	if err := s.JoinAs("g", wire.Join{CallID: call, UserID: "u-" + session, SessionID: session}, g); err != nil {
		t.Fatalf("join of %s: %v", session, err)
	}
}

// TestCallLingers (OT-13): a call is there from its first session to its last one's end and as long
// after that as it is to linger, with what moderators decided; then it is told to be over, once.
func TestCallLingers(t *testing.T) {
	var over ended
	inRoom(t, func(c *rtc.Config) { c.CallEnded = over.add }, func(r *room) {
		s := r.backend.Server
		if _, ok := s.Call("g", "call"); ok {
			t.Error("a call before anybody joined")
		}
		enter(t, s, "call", "a", rtc.Grant{Linger: 30 * time.Second})
		enter(t, s, "brief", "b", rtc.Grant{})
		r.must(s.SetMuteState("g", "call", true, nil))
		s.Leave("g", "a")
		s.Leave("g", "b")
		over.want(t, "g/brief")
		if _, ok := s.Call("g", "brief"); ok {
			t.Error("a call that does not linger outlived its last session")
		}
		if _, ok := s.Sessions("g", "call"); ok {
			t.Error("a call without sessions lists some")
		}
		r.wait(29 * time.Second)
		if info, ok := s.Call("g", "call"); !ok || info.Participants != 0 {
			t.Errorf("call %+v, %v while it lingers", info, ok)
		}
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		a := r.enter("a", false, rtctest.EndpointConfig{})
		r.publishVoice(a).set(30, 0)
		r.wait(time.Minute)
		if n := listener.Heard("a").Packets; n > 0 {
			t.Errorf("%d packets in a call that was muted before it lingered", n)
		}
		over.want(t, "g/brief")
		a.leaves()
		listener.leaves()
		left := time.Now()
		r.wait(30*time.Second - time.Millisecond)
		over.want(t, "g/brief")
		r.wait(2 * time.Millisecond)
		over.want(t, "g/brief", "g/call")
		if _, ok := s.Call("g", "call"); ok {
			t.Errorf("the call is there %v after its end", time.Since(left))
		}
		enter(t, s, "call", "c", rtc.Grant{}) // and this is another one
		r.must(s.EndCall("g", "call"))
	})
	over.want(t, "g/brief", "g/call", "g/call")
}

// TestEndCall (OT-13): all sessions end, are told why, and after the last of them the call is over,
// once, whoever else ends it at the same time. A managed call is not joined again meanwhile.
func TestEndCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := rtctest.NewNetwork(t).Serve(t)
		var over ended
		var b *rtctest.Backend
		joined := make(chan error)
		b = rtctest.NewBackend(t, func(c *rtc.Config) {
			serve(c)
			c.CallEnded = func(group, call string) {
				for _, session := range []string{"a", "b", "c"} {
					events := b.Events(session)
					if n := len(events); n != 1 || events[0].Kind != rtc.Closed || events[0].Reason != rtc.CloseCallEnded {
						t.Errorf("events of %s at the end of its call: %+v", session, events)
					}
				}
				go func() {
					joined <- b.Server.JoinAs("g", wire.Join{CallID: "call", UserID: "u", SessionID: "late"}, rtc.Grant{Managed: true})
				}()
				if err := <-joined; !errors.Is(err, rtc.ErrCallEnded) || reason(err) != "call_ended" {
					t.Errorf("join of a call that is ending: %v", err)
				}
				over.add(group, call)
			}
		})
		for _, session := range []string{"a", "b", "c"} {
			enter(t, b.Server, "call", session, rtc.Grant{Managed: true, Linger: time.Minute})
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := b.Server.EndCall("g", "call"); err != nil && reason(err) != "not_found" {
					t.Errorf("end: %v", err)
				}
			})
		}
		wg.Wait()
		over.want(t, "g/call")
		if _, ok := b.Server.Call("g", "call"); ok || b.Server.Count() != 0 || len(b.Server.Calls("g")) != 0 {
			t.Error("something is left of the call")
		}
		if err := b.Server.EndCall("g", "call"); !errors.Is(err, rtc.ErrNoCall) {
			t.Errorf("end of no call: %v", err)
		}
	})
}

// TestCallEndsWithItsCreator (OT-13): if it is to, and only then; a second session's leaving does not.
func TestCallEndsWithItsCreator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := rtctest.NewNetwork(t).Serve(t)
		var over ended
		b := rtctest.NewBackend(t, func(c *rtc.Config) { serve(c); c.CallEnded = over.add })
		with := rtc.Grant{EndOnCreatorLeave: true, Linger: time.Minute}
		for _, call := range []string{"x", "y"} {
			enter(t, b.Server, call, call+"1", with)
			enter(t, b.Server, call, call+"2", with)
			enter(t, b.Server, call, call+"3", with)
		}
		enter(t, b.Server, "alone", "alone", with)
		b.Server.Leave("g", "x1")
		b.Server.Leave("g", "y2")
		b.Server.Leave("g", "alone")
		over.want(t, "g/alone", "g/x")
		if e := b.Events("x3"); len(e) != 1 || e[0].Reason != rtc.CloseCallEnded {
			t.Errorf("events of who was left by the creator: %+v", e)
		}
		if !b.Server.Exists("g", "y3") || b.Server.Count() != 2 {
			t.Error("a call ended with a session that had not created it")
		}
	})
}

// TestLingeringCallsEnd: with their client, when the server drains, and when it stops.
func TestLingeringCallsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve := rtctest.NewNetwork(t).Serve(t)
		var over ended
		b := rtctest.NewBackend(t, func(c *rtc.Config) { serve(c); c.CallEnded = over.add })
		hour := rtc.Grant{Linger: time.Hour}
		enter(t, b.Server, "1", "a", hour)
		b.Server.Leave("g", "a")
		over.want(t)
		b.Server.EndGroup("other")
		over.want(t)
		b.Server.EndGroup("g")
		over.want(t, "g/1")

		enter(t, b.Server, "2", "a", hour)
		enter(t, b.Server, "3", "b", hour)
		b.Server.Leave("g", "a")
		idle := b.Server.Drain()
		over.want(t, "g/1", "g/2")
		select {
		case <-idle:
			t.Error("idle with a session")
		default:
		}
		b.Server.Leave("g", "b")
		<-idle
		over.want(t, "g/1", "g/2", "g/3")
		if err := b.Server.Join("g", wire.Join{CallID: "3", UserID: "u", SessionID: "c"}); reason(err) != "draining" {
			t.Errorf("join while draining: %v", err)
		}
		if err := b.Server.Close(); err != nil {
			t.Fatal(err)
		}
		over.want(t, "g/1", "g/2", "g/3")
	})
}

// TestEndsAtOnce: sessions and calls end from many sides at the same time, and nothing is left of
// them.
func TestEndsAtOnce(t *testing.T) {
	var made, over atomic.Int32
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.CallEnded = func(string, string) { over.Add(1) } })
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 200 {
				id := fmt.Sprintf("s%d-%d", worker, i)
				g := rtc.Grant{Linger: time.Duration(i%3) * time.Microsecond, EndOnCreatorLeave: i%5 == 0}
				if err := b.Server.JoinAs("g", wire.Join{CallID: fmt.Sprint(i % 4), UserID: "u", SessionID: id}, g); err != nil {
					t.Errorf("join: %v", err)
				}
				made.Add(1)
				if i%7 == 0 {
					_ = b.Server.EndCall("g", fmt.Sprint(i%4))
				}
				b.Server.Leave("g", id)
			}
		})
	}
	wg.Wait()
	if err := b.Server.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Server.Count() != 0 || len(b.Server.Calls("g")) != 0 || over.Load() == 0 || over.Load() > made.Load() {
		t.Errorf("%d calls ended for %d joins, %d sessions and %d calls left", over.Load(), made.Load(), b.Server.Count(), len(b.Server.Calls("g")))
	}
}

// TestPresent shows TK-21: a join that is to find its session in starts none if that has ended, or ends
// while it joins.
func TestPresent(t *testing.T) {
	ending, goOn := make(chan struct{}), make(chan struct{})
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) {
		emit := cfg.Emit
		cfg.Emit = func(e rtc.Event) {
			if e.Kind == rtc.Closed && e.SessionID == "s" {
				close(ending)
				<-goOn
			}
			emit(e)
		}
	})
	join := func(g rtc.Grant) error {
		return b.Server.JoinAs("g", wire.Join{CallID: "call", UserID: "u", SessionID: "s"}, g)
	}
	if err := join(rtc.Grant{Present: true}); !errors.Is(err, rtc.ErrNoSession) {
		t.Errorf("there was none: %v", err)
	}
	if err := errors.Join(join(rtc.Grant{}), join(rtc.Grant{Present: true})); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { b.Server.Leave("g", "s") })
	<-ending
	all.Go(func() {
		if err := join(rtc.Grant{Present: true}); !errors.Is(err, rtc.ErrNoSession) {
			t.Errorf("it was ending: %v", err)
		}
	})
	close(goOn)
	all.Wait()
	if b.Server.Exists("g", "s") {
		t.Error("a session was started")
	}
}
