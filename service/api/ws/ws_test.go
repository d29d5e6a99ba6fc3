package ws_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/policy"
)

func TestHelloComesAtOnce(t *testing.T) {
	r := start(t, ws.Config{})
	a, b := r.dial(t, "c1"), r.dial(t, "c1")
	shape := regexp.MustCompile(`^[a-z0-9]{26}$`)
	if !shape.MatchString(a.connID) || a.connID == b.connID {
		t.Errorf("connection ids %q and %q: want two different ones of 26 a-z0-9", a.connID, b.connID)
	}
	if got := r.value(t, "rtcd_ws_connections_total", map[string]string{"clientID": "c1"}); got != 2 {
		t.Errorf("connections gauge = %v, want 2", got)
	}
}

func TestUpgradeRefusals(t *testing.T) { // S17
	r := start(t, ws.Config{MaxConnections: 2})
	tests := []struct {
		name   string
		header http.Header
		status int
	}{
		{"foreign origin", http.Header{"Origin": {"https://evil.example"}}, http.StatusForbidden},
		{"origin that is no URL", http.Header{"Origin": {"null"}}, http.StatusForbidden},
		{"own origin", http.Header{"Origin": {"http://" + r.addr}}, http.StatusSwitchingProtocols},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, resp, _ := r.tryDial("c1", tt.header)
			if resp == nil || resp.StatusCode != tt.status {
				t.Fatalf("response = %v, want status %d", resp, tt.status)
			}
			if b.Conn != nil {
				b.t = t
				b.read() // the hello: from here on the connection counts
				_ = b.Close()
			}
		})
	}
	resp, err := http.Get("http://" + r.addr + "/ws")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain GET: status %d, want 400", resp.StatusCode)
	}
	eventually(t, "gauge is back at 0", func() bool {
		return r.value(t, "rtcd_ws_connections_total", nil) == 0 && r.Connections("c1") == 0
	})

	r.dial(t, "c1")
	last := r.dial(t, "c1")
	_, resp, err = r.tryDial("c1", nil)
	if err == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("third connection: %v, want 429 with Retry-After", resp)
	}
	r.dial(t, "c2") // the limit is per client
	_ = last.Close()
	eventually(t, "place is free again", func() bool { return r.Connections("c1") == 1 })
	r.dial(t, "c1")
	if got := r.value(t, "rtcd_limit_hits_total", map[string]string{"limit": string(ws.LimitConnections)}); got != 1 {
		t.Errorf("limit hits = %v, want 1", got)
	}
}

func TestMessagesReachCallsInOrder(t *testing.T) {
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	b.join("s1")
	for i := range 50 {
		b.send("rtc", rtcMap("s1", fmt.Sprint(i)))
	}
	b.send("leave", sessionMap("s1"))
	r.calls.await(t, "leave c1/s1", 1)
	for i, got := range r.calls.signals[key{"c1", "s1"}] {
		if got != fmt.Sprint(i) {
			t.Fatalf("signal %d = %q", i, got)
		}
	}
	if n := len(r.calls.signals[key{"c1", "s1"}]); n != 50 {
		t.Errorf("%d signals, want 50", n)
	}
}

func TestEventsDuringJoinAreRouted(t *testing.T) {
	r := start(t, ws.Config{})
	r.calls.joined = func(group string, j wire.Join) {
		if j.SessionID == "s1" {
			r.rtc(group, j.SessionID, "early")
		}
	}
	other := r.dial(t, "c1")
	b := r.dial(t, "c1")
	r.dial(t, "c1")
	b.join("s1")
	b.expect("s1", "early")
	other.join("s2")
	r.calls.await(t, "join c1/s2", 1)
	r.rtc("c1", "s2", "x")
	other.expect("s2", "x") // and nothing of s1 before it
}

func TestDuplicateJoinChangesNothing(t *testing.T) {
	r := start(t, ws.Config{})
	a, b := r.dial(t, "c1"), r.dial(t, "c1")
	a.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	b.join("s1")
	r.calls.await(t, "duplicate c1/s1", 1)
	r.rtc("c1", "s1", "x")
	a.expect("s1", "x")
}

func TestRefusedJoinIsClosed(t *testing.T) {
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	r.calls.onJoin = func(_ string, j wire.Join) error {
		if j.SessionID == "bad" {
			return errors.New("too many sessions")
		}
		return nil
	}
	b.join("bad")
	b.expectClose("bad")
	b.join("good")
	r.calls.await(t, "join c1/good", 1)
	// A duplicate that is refused must not end the session that lives.
	b.send("join", map[string]any{"callID": "", "userID": "u", "sessionID": "good"})
	r.rtc("c1", "good", "x")
	b.expect("good", "x")
}

func TestPanickingCallsCostOneMessage(t *testing.T) {
	r := start(t, ws.Config{})
	r.calls.onJoin = func(_ string, j wire.Join) error {
		if j.SessionID == "bad" {
			panic("bug")
		}
		return nil
	}
	b := r.dial(t, "c1")
	b.join("bad")
	b.expectClose("bad")
	b.join("good")
	r.calls.await(t, "join c1/good", 1)
}

func TestForeignSessionsAreOutOfReach(t *testing.T) { // A1, A2, RT-08
	r := start(t, ws.Config{})
	a, b := r.dial(t, "a"), r.dial(t, "b")
	a.join("s1")
	r.calls.await(t, "join a/s1", 1)
	for _, send := range []func(){
		func() { b.send("leave", sessionMap("s1")) },
		func() { b.send("reconnect", sessionMap("s1")) },
		func() { b.send("rtc", rtcMap("s1", "evil")) },
		func() {
			b.send("rtc", map[string]any{"group_id": "a", "session_id": "s1", "type": 3, "user_id": "", "call_id": ""})
		},
		func() { b.send("hello", map[string]string{"clientID": "a", "connID": a.connID}) },
		func() { b.send("close", sessionMap("s1")) },
		func() { b.send("vad", rtcMap("s1", "")) },
	} {
		send()
	}
	b.join("s1") // the same id in another group is another session
	r.calls.await(t, "join b/s1", 1)
	if r.calls.mu.Lock(); len(r.calls.signals[key{"a", "s1"}]) != 0 {
		t.Error("a signal of b reached a's session")
	}
	r.calls.mu.Unlock()
	if !r.calls.Exists("a", "s1") {
		t.Error("b ended a's session")
	}
	r.rtc("a", "s1", "for a")
	r.rtc("b", "s1", "for b")
	a.expect("s1", "for a")
	b.expect("s1", "for b")
	b.send("leave", sessionMap("s1"))
	r.calls.await(t, "leave b/s1", 1)
	r.Send("b", "s1", ws.Outbound{Kind: ws.Close})
	b.expectClose("s1")
	r.rtc("a", "s1", "still")
	a.expect("s1", "still")
}

func TestBadInputCostsNothingElse(t *testing.T) { // R1, R2, R3, RT-06
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	bad := [][]byte{
		{}, {0xa1, 0xff, 0x80}, {0xc1}, {0xa3, 'r'},
		{0xa2, 0xff, 0xfe, 0xc0},
		append([]byte{0xa5}, "leave\x81\xdd\xff\xff\xff\xff"...),
		append([]byte{0xa5}, "leave\xdf\xff\xff\xff\xff"...),
		append([]byte{0xa4}, "join\xc0"...),
		append([]byte{0xa3}, "rtc\xdb\xff\xff\xff\xff"...),
	}
	for range 20 {
		bad = append(bad, []byte{0x93, 1, 2, 3})
	}
	for _, p := range bad {
		b.sendRaw(p)
	}
	for i := range 200 {
		b.send(fmt.Sprintf("type-%d", i), 1)
	}
	if err := b.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", 1000))); err != nil {
		t.Fatal(err)
	}
	b.send("rtc", rtcMap("s1", "still here"))
	r.calls.await(t, "signal c1/s1", 1)

	if got := r.value(t, "rtcd_ws_messages_total", map[string]string{"type": "unknown", "direction": "in"}); got < 200 {
		t.Errorf("unknown messages = %v, want at least 200", got)
	}
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "undecodable"}); got < 20 {
		t.Errorf("undecodable messages = %v, want at least 20", got)
	}
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "text"}); got != 1 {
		t.Errorf("text frames = %v, want 1", got)
	}
	families, err := r.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "rtcd_ws_messages_total" && len(f.GetMetric()) > 5 {
			t.Errorf("%d series of messages", len(f.GetMetric()))
		}
	}
	if n := strings.Count(r.logs.String(), "undecodable"); n != 1 {
		t.Errorf("%d log lines about undecodable messages, want 1", n)
	}
}

func TestOversizedMessageClosesOnlyItsConnection(t *testing.T) {
	r := start(t, ws.Config{})
	a, b := r.dial(t, "c1"), r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	_ = a.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20+1)) // the end may come while we write
	if _, err := a.readEnd(); err == nil {
		t.Fatal("connection stays after 1 MiB + 1")
	}
	b.sendRaw(append(message("rtc", rtcMap("s1", "max")), make([]byte, 1<<19)...)) // what follows is ignored
	r.calls.await(t, "signal c1/s1", 1)
}

func TestPings(t *testing.T) {
	r := start(t, ws.Config{PingInterval: 30 * time.Millisecond, PongTimeout: 300 * time.Millisecond})
	b := r.dial(t, "c1")
	pings, pongs := make(chan string, 100), make(chan string, 1)
	b.SetPingHandler(func(p string) error {
		select {
		case pings <- p:
		default:
		}
		return nil // dead: data flows, pongs do not
	})
	b.SetPongHandler(func(p string) error { pongs <- p; return nil })
	if err := b.WriteControl(websocket.PingMessage, []byte("echo"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := b.readEnd()
		done <- err
	}()
	if p := <-pings; p != "" {
		t.Errorf("ping with payload %q, want none", p)
	}
	if p := <-pongs; p != "echo" {
		t.Errorf("pong %q, want echo", p)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = b.WriteMessage(websocket.BinaryMessage, message("leave", sessionMap("x")))
			continue
		case err := <-done:
			if took := time.Since(began); took > 5*time.Second || took < 200*time.Millisecond {
				t.Errorf("dead peer dropped after %v (%v), want about 300 ms", took, err)
			}
			return
		}
	}
}

func TestPongKeepsAlive(t *testing.T) {
	r := start(t, ws.Config{PingInterval: 50 * time.Millisecond, PongTimeout: time.Second})
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	timer := time.AfterFunc(2500*time.Millisecond, func() { r.rtc("c1", "s1", "alive") })
	defer timer.Stop()
	b.expect("s1", "alive") // reading answers the pings
}

func TestReconnectMovesTheSession(t *testing.T) { // S2
	r := start(t, ws.Config{})
	a, b := r.dial(t, "c1"), r.dial(t, "c1")
	a.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	r.rtc("c1", "s1", "one")
	a.expect("s1", "one")
	b.send("reconnect", sessionMap("s1"))
	b.send("rtc", rtcMap("s1", "sync"))
	r.calls.await(t, "signal c1/s1", 1)
	r.rtc("c1", "s1", "two")
	b.expect("s1", "two")
	r.Send("c1", "s1", ws.Outbound{Kind: ws.VAD, Signal: wire.Signal{SessionID: "s1", Type: 7}})
	if kind, m := b.read(); kind != "vad" || m["session_id"] != "s1" {
		t.Fatalf("got %s %v, want vad", kind, m)
	}
	r.Send("c1", "s1", ws.Outbound{Kind: ws.Close})
	b.expectClose("s1")
}

func TestMoveTakesAlongWhatAStalledConnectionHolds(t *testing.T) {
	r := start(t, ws.Config{MoveTimeout: 400 * time.Millisecond})
	a := r.dial(t, "c1")
	_ = a.tcp.SetReadBuffer(4096)
	a.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	const n = 2000 // more than the sockets between us hold
	pad := strings.Repeat("x", 4000)
	for i := range n {
		r.rtc("c1", "s1", fmt.Sprintf("%d %s", i, pad))
	}
	b := r.dial(t, "c1")
	b.send("reconnect", sessionMap("s1"))
	b.send("rtc", rtcMap("s1", "sync"))
	r.calls.await(t, "signal c1/s1", 1)
	r.rtc("c1", "s1", fmt.Sprintf("%d last", n))

	// a is given up after MoveTimeout; what it had received counts as delivered there.
	next := 0
	got := make(chan []string, 1)
	eventually(t, "stalled connection is closed", func() bool { return r.Connections("c1") == 1 })
	go func() {
		payloads, _ := a.readEnd()
		got <- payloads
	}()
	check := func(p string) {
		t.Helper()
		if !strings.HasPrefix(p, fmt.Sprintf("%d ", next)) {
			t.Fatalf("got %.10q, want message %d", p, next)
		}
		next++
	}
	for _, p := range <-got {
		check(p)
	}
	if next == 0 || next == n {
		t.Fatalf("%d of %d messages went through the stalled connection: the test shows nothing", next, n)
	}
	for next <= n {
		_, m := b.read()
		check(string(m["data"].([]byte)))
	}
}

func TestMoveThereAndBack(t *testing.T) {
	r := start(t, ws.Config{MoveTimeout: patience})
	a, b := r.dial(t, "c1"), r.dial(t, "c1")
	a.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	const n = 1000 // more than the sockets between us hold
	pad := strings.Repeat("x", 8000)
	for i := range n {
		r.rtc("c1", "s1", fmt.Sprintf("%d %s", i, pad))
	}
	for i, c := range []*backend{b, a} { // to b, where it waits for a, and back
		c.send("reconnect", sessionMap("s1"))
		c.send("rtc", rtcMap("s1", "sync"))
		r.calls.await(t, "signal c1/s1", i+1)
	}
	r.rtc("c1", "s1", fmt.Sprintf("%d last", n))
	for i := range n + 1 {
		_, m := a.read()
		if got := string(m["data"].([]byte)); !strings.HasPrefix(got, fmt.Sprintf("%d ", i)) {
			t.Fatalf("got %.10q, want message %d", got, i)
		}
	}
}

func TestReconnectOfInventedSessionsLeavesNothing(t *testing.T) { // R8
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	for i := range 1000 {
		b.send("reconnect", sessionMap(fmt.Sprintf("invented-%d", i)))
	}
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	if got := r.Routes(); got != 1 {
		t.Errorf("%d routes, want 1", got)
	}
	r.Send("c1", "s1", ws.Outbound{Kind: ws.Close})
	b.expectClose("s1")
	if got := r.Routes(); got != 0 {
		t.Errorf("%d routes after the close, want 0", got)
	}
}

func TestDropClient(t *testing.T) { // A7
	r := start(t, ws.Config{})
	a, b, other := r.dial(t, "c1"), r.dial(t, "c1"), r.dial(t, "c2")
	a.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	began := time.Now()
	r.DropClient("c1")
	for _, c := range []*backend{a, b} {
		if _, err := c.readEnd(); err == nil {
			t.Error("connection of a dropped client goes on")
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("dropping took %v, want at most 1 s", took)
	}
	r.Send("c1", "s1", ws.Outbound{Kind: ws.Close}) // the end of its sessions comes later
	again := r.dial(t, "c1")                        // the id is registered anew
	again.join("s2")
	r.calls.await(t, "join c1/s2", 1)
	r.rtc("c1", "s2", "x")
	again.expect("s2", "x") // and nothing of the former client
	other.join("s1")
	r.calls.await(t, "join c2/s1", 1)
}

func TestClientDroppedWhileItConnects(t *testing.T) {
	registered := make(chan bool, 1)
	r := start(t, ws.Config{Current: func(p ws.Peer) (policy.Roles, bool) { return p.Roles, <-registered }})
	registered <- true
	r.dial(t, "c1")
	registered <- false
	b, _, err := r.tryDial("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.readEnd(); err == nil {
		t.Error("connection of a client that is gone stays")
	}
}

func TestCloseDeliversWhatIsQueued(t *testing.T) {
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	const n = 1000
	for i := range n {
		b.join(fmt.Sprintf("s%d", i))
	}
	r.calls.await(t, fmt.Sprintf("join c1/s%d", n-1), 1)
	for i := range n {
		r.Send("c1", fmt.Sprintf("s%d", i), ws.Outbound{Kind: ws.Close})
	}
	got := make(chan int, 1)
	go func() {
		payloads, _ := b.readEnd()
		got <- len(payloads)
	}()
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 1000 {
		t.Errorf("%d closes arrived, want 1000", n)
	}
	_, resp, err := r.tryDial("c1", nil)
	if err == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("upgrade after Close: %v, want 503", resp)
	}
	r.rtc("c1", "s1", "x") // R5: does nothing
}

func TestWithoutOwnListener(t *testing.T) {
	// The portable twin: written counts as delivered, the rest is still handed on.
	r := start(t, ws.Config{}, func(ln net.Listener) net.Listener { return plain{ln} })
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	r.rtc("c1", "s1", "one")
	b.expect("s1", "one")
	_ = b.Close()
	eventually(t, "connection is gone", func() bool { return r.Connections("c1") == 0 })
	r.rtc("c1", "s1", "two")
	b = r.dial(t, "c1")
	b.expect("s1", "two")
}

// plain hides what the wrapped connections can do.
type plain struct{ net.Listener }

func (p plain) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	return struct{ net.Conn }{c}, err
}
