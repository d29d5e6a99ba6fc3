package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/rtc/rtctest"
)

// A flow is the sound of one speaker on its way to one listener, measured in this process, which has
// both.
type flow struct {
	from, to *rtctest.Endpoint
	name     string // of the speaker

	mu      sync.Mutex
	sent    []time.Time
	arrived []time.Time // by number; zero: not yet
	first   int         // that counts
	again   int         // that came more than once
	late    int         // that came after a later one
	highest int
}

// talk connects two people of a new call, of whom one speaks from now on.
func talk(ctx context.Context, t *testing.T, r *rtctest.Remote, call string) *flow {
	t.Helper()
	f := &flow{name: call + "-a", highest: -1}
	f.from = r.Join(t, call, f.name, rtctest.EndpointConfig{})
	f.to = r.Join(t, call, call+"-b", rtctest.EndpointConfig{OnSound: func(sender string, n uint32, _ bool) {
		if sender == f.name {
			f.arrive(int(n))
		}
	}})
	for _, e := range []*rtctest.Endpoint{f.from, f.to} {
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: connect: %v", call, err)
		}
	}
	if err := f.from.Publish(ctx, "voice_"+f.name); err != nil {
		t.Fatalf("%s: publish: %v", call, err)
	}
	// The first packets tell the listener of the speaker; measured are those after that.
	for heard := false; !heard; {
		if err := f.speak(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		heard = f.to.Await(short, func(h func(string) rtctest.Heard) bool { return h(f.name).Packets > 0 }) == nil
		cancel()
		if ctx.Err() != nil {
			t.Fatalf("%s: nothing is heard", call)
		}
	}
	f.mu.Lock()
	f.first = len(f.sent)
	f.mu.Unlock()
	return f
}

func (f *flow) speak() error {
	f.mu.Lock()
	n := len(f.sent)
	f.sent = append(f.sent, time.Now())
	f.arrived = append(f.arrived, time.Time{})
	f.mu.Unlock()
	return f.from.SendVoice(f.name, uint32(n), 30)
}

func (f *flow) arrive(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n >= len(f.arrived) || n < f.first:
	case !f.arrived[n].IsZero():
		f.again++
	default:
		f.arrived[n] = time.Now()
		if n < f.highest {
			f.late++
		}
		f.highest = max(f.highest, n)
	}
}

// A measure says what became of packets: how many were sent, are missing, came again, came late. The
// gaps are the longest times between two that came in a row, without what the speaker, for whom this
// machine had no time, was late by itself: during swaps, and at other times for comparison.
type measure struct {
	sent, lost, again, late int
	swaps, others           time.Duration
}

// A swap is the time from the start of a process to a moment after it was in front.
type swap struct{ from, to time.Time }

func (f *flow) measure(swaps ...swap) (m measure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m = measure{sent: len(f.sent) - f.first, again: f.again, late: f.late}
	last := -1
	for n := f.first; n < len(f.sent); n++ {
		at := f.arrived[n]
		if at.IsZero() {
			m.lost++
			continue
		}
		if last >= 0 {
			before := f.arrived[last]
			gap := at.Sub(before) - max(f.sent[n].Sub(f.sent[last])-pace(), 0)
			if slices.ContainsFunc(swaps, func(s swap) bool { return before.Before(s.to) && at.After(s.from) }) {
				m.swaps = max(m.swaps, gap)
			} else {
				m.others = max(m.others, gap)
			}
		}
		last = n
	}
	return m
}

func (m *measure) add(o measure) {
	m.sent, m.lost, m.again, m.late = m.sent+o.sent, m.lost+o.lost, m.again+o.again, m.late+o.late
	m.swaps, m.others = max(m.swaps, o.swaps), max(m.others, o.others)
}

// pace is the time between two packets of a speaker. 200 endpoints and up to 11 servers at twice that are
// all that two processors can do.
func pace() time.Duration {
	if full() {
		return 40 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// A choir makes flows speak, each by itself.
type choir struct {
	t    *testing.T
	mu   sync.Mutex
	all  []*flow
	stop chan struct{}
	done sync.WaitGroup
}

func newChoir(t *testing.T) *choir {
	c := &choir{t: t, stop: make(chan struct{})}
	t.Cleanup(c.end)
	return c
}

func (c *choir) add(f *flow) {
	c.mu.Lock()
	c.all = append(c.all, f)
	c.mu.Unlock()
	c.done.Go(func() {
		tick := time.NewTicker(pace())
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := f.speak(); err != nil {
					c.t.Errorf("%s: speak: %v", f.name, err)
					return
				}
			case <-c.stop:
				return
			}
		}
	})
}

func (c *choir) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.done.Wait()
}

// descriptors counts what a process has open.
func (c *child) descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// upgrade starts the next process beside c and waits until it is in front.
func (c *child) upgrade(t *testing.T, dir string, environ ...string) *child {
	t.Helper()
	next := launch(t, c.ports, dir, nil, environ...)
	next.out.await(t, "upgrade: taken over")
	c.out.await(t, "upgrade: the successor serves")
	next.awaitReady(t)
	return next
}

// Who has proved a key does not do so again to the process that takes over: many backends at once
// would wait for as many hashes.
func TestUpgradeKeepsLogins(t *testing.T) {
	dir := t.TempDir()
	environ := []string{"RTCD_UPGRADE_SOCKET=" + filepath.Join(dir, "upgrade"), "RTCD_API_SECURITY_BCRYPTCOST=14"}
	c := start(t, dir, environ...)
	cl, err := client.New(client.Config{URL: c.url(), ClientID: "c1", AuthKey: key, AutoRegister: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.CloseIdleConnections)
	ctx := within(t, time.Minute)
	if err := cl.Register(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	token, err := cl.Login(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hash := time.Since(began) // most of a second
	for range 2 {             // what was inherited is handed on
		c = c.upgrade(t, dir, environ...)
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	ws, resp, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(c.url(), "http", "ws", 1)+"/ws", header)
	if err != nil {
		t.Fatalf("with a token of the process before: %v", err)
	}
	_, _ = resp.Body.Close(), ws.Close()
	byKey, err := client.New(client.Config{URL: c.url(), ClientID: "c1", AuthKey: key}) // has no token
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(byKey.CloseIdleConnections)
	began = time.Now()
	if _, _, err := byKey.Ticket(ctx); err != nil {
		t.Errorf("with a key that was right before: %v", err)
	}
	if took := time.Since(began); took > hash/2 {
		t.Errorf("a key that was right before took %v, %v at first", took, hash)
	}
}

// full says whether a test is to run in full: it then takes minutes.
func full() bool { return os.Getenv("RTCD_FULL_UPGRADE") != "" }

// Calls go on while one process after the other takes over: no packet is lost, and none is late. Each
// call stays where it began and can be signalled for, joined and left; new ones begin in the newest
// process; the old ones end with their last call.
func TestUpgradeCutsNothing(t *testing.T) {
	calls, swaps, limit := 6, 3, 60*time.Second
	if full() {
		calls, swaps, limit = 100, 10, 10*time.Minute
	}
	if n, err := strconv.Atoi(os.Getenv("RTCD_FULL_UPGRADE")); err == nil && n > 1 {
		calls = n
	}
	ctx := within(t, limit)
	dir := t.TempDir()
	environ := []string{"RTCD_UPGRADE_SOCKET=" + filepath.Join(dir, "upgrade")}
	c := start(t, dir, environ...)
	r := c.connect(t, "c1")
	voices := newChoir(t)
	for i := range calls {
		f := talk(ctx, t, r, fmt.Sprintf("call%d", i))
		voices.add(f)
	}
	all := []*child{c}
	var times []swap
	for i := range swaps {
		before := r.Conn.Stats().Reconnects
		began := time.Now()
		next := c.upgrade(t, dir, environ...)
		took := time.Since(began)
		times = append(times, swap{began, time.Now().Add(200 * time.Millisecond)})
		reconnected(ctx, t, r, before)
		t.Logf("swap %d: %v to take over, backend back after %v; %d descriptors", i+1,
			took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), next.descriptors(t))
		c = next
		all = append(all, c)

		// A call that began before is joined, and its people can change what they send.
		old := fmt.Sprintf("call%d", i%calls)
		f := voices.all[i%calls]
		late := r.Join(t, old, fmt.Sprintf("late%d", i), rtctest.EndpointConfig{})
		if err := late.Connect(ctx); err != nil {
			t.Fatalf("join to an old call after swap %d: %v\n%s", i+1, err, c.out)
		}
		more(ctx, t, late, f.name, 5)
		if err := late.Publish(ctx, fmt.Sprintf("voice_late%d", i)); err != nil {
			t.Fatalf("renegotiation in an old call after swap %d: %v", i+1, err)
		}
		stop := rtctest.Talk(t, map[string]*rtctest.Endpoint{fmt.Sprintf("late%d", i): late})
		more(ctx, t, f.from, fmt.Sprintf("late%d", i), 5)
		stop()
		if err := r.Conn.Leave(fmt.Sprintf("late%d", i)); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, fmt.Sprintf("late%d", i)); err != nil {
			t.Fatalf("no close for who left an old call: %v", err)
		}
		// A new one begins in the new process, and goes through the swaps to come.
		voices.add(talk(ctx, t, r, fmt.Sprintf("new%d", i)))
	}
	voices.end()
	// What is under way arrives, or does not.
	for _, f := range voices.all {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		_ = f.to.Await(short, func(func(string) rtctest.Heard) bool { return f.measure().lost == 0 })
		cancel()
	}
	var sum measure
	for _, f := range voices.all {
		sum.add(f.measure(times...))
	}
	t.Logf("%d calls, %d swaps: %d packets, %d lost, %d doubled, %d out of order; longest gap during swaps %v, at other times %v",
		calls, swaps, sum.sent, sum.lost, sum.again, sum.late, sum.swaps.Round(time.Millisecond), sum.others.Round(time.Millisecond))
	if sum.lost > 0 || sum.again > 0 {
		t.Error("packets were lost or doubled")
	}
	if full() && sum.swaps > 60*time.Millisecond { // on a machine that has the time for it
		t.Errorf("a gap of %v during swaps, %v at other times", sum.swaps, sum.others)
	}
	leaveAll(ctx, t, r, voices)
	for i, old := range all[:len(all)-1] {
		if status := old.exit(t, 20*time.Second); status != 0 {
			t.Errorf("process %d ended with status %d\n%s", i, status, old.out)
		}
	}
	if strings.Contains(c.out.String(), "died with its sessions") {
		t.Errorf("sessions were lost\n%s", c.out)
	}
}

// reconnected waits until the backend is back.
func reconnected(ctx context.Context, t *testing.T, r *rtctest.Remote, before uint64) {
	t.Helper()
	for r.Conn.Stats().Reconnects == before {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the backend does not come back")
		}
	}
}

// leaveAll ends all flows and waits until the backend is told.
func leaveAll(ctx context.Context, t *testing.T, r *rtctest.Remote, voices *choir) {
	t.Helper()
	for _, f := range voices.all {
		for _, session := range []string{f.name, strings.TrimSuffix(f.name, "-a") + "-b"} {
			if err := r.Conn.Leave(session); err != nil {
				t.Fatal(err)
			}
			if err := r.AwaitClosed(ctx, session); err != nil {
				t.Fatalf("%s is not told of: %v", session, err)
			}
		}
	}
	closed := make(map[string]int)
	for _, e := range r.Events() {
		if e, ok := e.(client.Closed); ok {
			closed[e.SessionID]++
			if e.Lost {
				t.Errorf("%s was lost", e.SessionID)
			}
		}
	}
	for session, n := range closed {
		if n != 1 {
			t.Errorf("%d closes for %s", n, session)
		}
	}
}
