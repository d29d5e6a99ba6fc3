package ws_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/policy"
)

// table compiles a policy for the messages there are.
func table(t *testing.T, cfg policy.Config) *policy.Table {
	t.Helper()
	tab, err := policy.Compile(cfg, map[string]string{
		"GET /ws": policy.Client, "ws:join": policy.Client, "ws:leave": policy.Client,
		"ws:reconnect": policy.Client, "ws:rtc": policy.Client, "ws:moderate": policy.Moderate,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func set(tab *policy.Table, roles ...string) policy.Roles {
	r, _ := tab.Set(roles)
	return r
}

// as gives new connections the roles.
func (r *rig) as(tab *policy.Table, roles ...string) {
	r.peer = func(id string) ws.Peer { return ws.Peer{ClientID: id, Roles: set(tab, roles...)} }
}

// dialV2 connects with subprotocol rtcd.v2.
func (r *rig) dialV2(t *testing.T, clientID string) *backend {
	t.Helper()
	b, resp, err := r.tryDial(clientID, http.Header{"Sec-Websocket-Protocol": {"rtcd.v2"}})
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, resp)
	}
	b.t = t
	t.Cleanup(func() { _ = b.Close() })
	if b.Subprotocol() != wire.SubprotocolV2 {
		t.Fatalf("subprotocol %q", b.Subprotocol())
	}
	if kind, _ := b.read(); kind != "hello" {
		t.Fatalf("first message: %s", kind)
	}
	return b
}

// expectError reads an error message.
func (b *backend) expectError(want wire.Error) {
	b.t.Helper()
	kind, m := b.read()
	got := wire.Error{}
	got.SessionID, _ = m["sessionID"].(string)
	got.CallID, _ = m["callID"].(string)
	got.Reason, _ = m["reason"].(string)
	if kind != "error" || got != want {
		b.t.Fatalf("got %s %v, want error %+v", kind, m, want)
	}
}

// expectCode reads to the end and wants it to have a code.
func (b *backend) expectCode(code int) {
	b.t.Helper()
	_, err := b.readEnd()
	var closed *websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code {
		b.t.Errorf("ended with %v, want code %d", err, code)
	}
}

// named is an error with a word for programs.
type named string

func (n named) Error() string  { return "refused: " + string(n) }
func (n named) Reason() string { return string(n) }

// TestSubprotocol shows WX-17: rtcd.v2 is for who asks for it; everybody else gets no subprotocol, and
// a ticket in the place of one never comes back.
func TestSubprotocol(t *testing.T) {
	r := start(t, ws.Config{})
	for offered, want := range map[string]string{
		"": "", "rtcd.v2": "rtcd.v2", "chat, rtcd.v2": "rtcd.v2", "rtcd.v2, rtcd.ticket.rtcdwt_x_y": "rtcd.v2",
		"rtcd.ticket.rtcdwt_x_y, rtcd.v2": "rtcd.v2", "rtcd.ticket.rtcdwt_x_y": "", "rtcd.v3": "", "rtcd.v2x": "",
	} {
		h := http.Header{}
		if offered != "" {
			h.Set("Sec-WebSocket-Protocol", offered)
		}
		b, resp, err := r.tryDial("c1", h)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Values("Sec-WebSocket-Protocol"); len(got) > 1 || resp.Header.Get("Sec-WebSocket-Protocol") != want {
			t.Errorf("offered %q: got %q", offered, got)
		}
		_ = b.Close()
	}
}

// TestEstablishedConnectionsGetTheEstablishedSet shows WX-17: what is beyond it goes to connections
// of rtcd.v2 alone, and what is no message at all to nobody, with a count.
func TestEstablishedConnectionsGetTheEstablishedSet(t *testing.T) {
	r := start(t, ws.Config{})
	r.calls.onJoin = func(_ string, j wire.Join) error {
		if j.SessionID == "bad" {
			return named("call_full")
		}
		return nil
	}
	old, v2 := r.dial(t, "c1"), r.dialV2(t, "c1")
	for _, b := range []*backend{old, v2} {
		b.join("bad")
		if b == v2 {
			b.expectError(wire.Error{SessionID: "bad", CallID: "call", Reason: "call_full"})
		}
		b.expectClose("bad")
		b.send("leave", sessionMap("missing"))
		b.send("reconnect", sessionMap("missing"))
		b.send("rtc", rtcMap("missing", "x"))
		b.send("join", map[string]any{"callID": "call"})
		b.send("moderate", map[string]any{"callID": "call", "action": "mute"})
	}
	for _, want := range []wire.Error{
		{SessionID: "missing", Reason: "not_found"}, {SessionID: "missing", Reason: "not_found"},
		{SessionID: "missing", Reason: "refused"}, // the fake's error has no word of its own
		{CallID: "call", Reason: "bad_request"}, {CallID: "call", Reason: "bad_request"},
	} {
		v2.expectError(want)
	}
	r.Stats("c1", wire.Stats{CallID: "call", Participants: 3, Publishers: 2, Subscribers: 1})
	r.Stats("nobody", wire.Stats{})
	if kind, m := v2.read(); kind != "stats" || m["callID"] != "call" || fmt.Sprint(m["participants"], m["publishers"], m["subscribers"]) != "3 2 1" {
		t.Errorf("got %s %v", kind, m)
	}
	old.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	for _, kind := range []ws.Kind{3, 4, 5, 6, 99, 255} { // hello, error, stats, and none
		r.Send("c1", "s1", ws.Outbound{Kind: kind})
	}
	r.rtc("c1", "s1", "x")
	old.expect("s1", "x") // and nothing before it
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "blocked_out"}); got != 6 {
		t.Errorf("%v counted, want 6", got)
	}
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "unknown_type"}); got != 1 {
		t.Errorf("%v of unknown type, want the moderate of the old connection", got)
	}
}

// TestOutboundList shows WX-17: with a list nothing else goes out, a close included, and nothing is
// left over of it.
func TestOutboundList(t *testing.T) {
	tab := table(t, policy.Config{Out: []policy.Rule{{Type: "hello"}, {TypeRE: "rt.", Role: "client"}, {Type: "vad", Role: "loud"}}})
	r := start(t, ws.Config{Policy: tab})
	r.as(tab, "client")
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	vad := ws.Outbound{Kind: ws.VAD, Signal: wire.Signal{SessionID: "s1", Type: wire.SignalVoiceOn}}
	r.Send("c1", "s1", vad)
	r.rtc("c1", "s1", "one")
	b.expect("s1", "one")
	r.SetRoles("c1", set(tab, "client", "loud"))
	r.Send("c1", "s1", vad)
	if kind, _ := b.read(); kind != "vad" {
		t.Errorf("got %s, want vad", kind)
	}
	r.Send("c1", "s1", ws.Outbound{Kind: ws.Close})
	if n := r.Routes(); n != 0 {
		t.Errorf("%d routes left", n)
	}
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "blocked_out"}); got != 2 {
		t.Errorf("%v counted, want 2", got)
	}
}

// TestInboundList shows WX-16: what is not on the list is blocked by its type alone and counted,
// whatever it resembles; the socket stays.
func TestInboundList(t *testing.T) {
	tab := table(t, policy.Config{In: []policy.Rule{{TypeRE: "joi."}, {TypeRE: "leave|rt"}, {Type: "moderate", Role: "boss"}}})
	r := start(t, ws.Config{Policy: tab})
	r.as(tab, "client")
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	b.send("rtc", rtcMap("s1", "x"))               // the expression has to match all of it
	b.send("reconnect", sessionMap("s1"))          // not on the list
	b.sendRaw([]byte("\xa9reconnect\xdd\xff\xff")) // the data is not looked at
	for _, typ := range []string{"vad", "hello", "close", "error", "stats", "moderate", "join\x00", "joinx", "xjoin", "Join", "", "debug"} {
		b.send(typ, map[string]any{"callID": "call", "userID": "u", "sessionID": "s2", "action": "mute_all"})
	}
	b.send("leave", sessionMap("s1"))
	r.calls.await(t, "leave c1/s1", 1)
	if got := r.calls.events; !reflect.DeepEqual(got, []string{"join c1/s1", "leave c1/s1"}) {
		t.Errorf("what happened: %q", got)
	}
	for reason, want := range map[string]float64{"blocked": 3, "unknown_type": 12, "undecodable": 0} {
		if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": reason}); got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}

	v2 := r.dialV2(t, "c1")
	v2.send("moderate", map[string]any{"callID": "call", "action": "mute_all"})
	v2.expectError(wire.Error{Reason: "forbidden"})
	v2.send("reconnect", sessionMap("s1"))
	v2.expectError(wire.Error{Reason: "forbidden"})
}

// TestBlockedMessagesAreCheap shows WX-16: a million blocked messages allocate nothing that stays,
// and as good as nothing at all. Credentials are not looked at again after the upgrade, so that there
// is no bcrypt in any message.
func TestBlockedMessagesAreCheap(t *testing.T) {
	tab := table(t, policy.Config{In: []policy.Rule{{Type: "join"}}})
	var events atomic.Int64
	r := start(t, ws.Config{Policy: tab, Record: func(ws.Event) { events.Add(1) }})
	r.as(tab, "client")
	b := r.dial(t, "c1")
	msg := wire.AppendReconnect(nil, "s1")
	before := heap()
	if n := testing.AllocsPerRun(1_000_000, func() { r.Receive("c1", msg) }); n > 0 {
		t.Errorf("%v allocations for a blocked message", n)
	}
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if got := r.value(t, "rtcd_ws_discarded_total", map[string]string{"reason": "blocked"}); got < 1_000_000 {
		t.Errorf("%v counted", got)
	}
	if n := events.Load(); n < 1_000_000 {
		t.Errorf("%d events", n)
	}
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAnswersDoNotCloseWhoDoesNotRead shows WX-16 for connections that are told of what was blocked:
// answers that are not read are dropped, not queued without end.
func TestAnswersDoNotCloseWhoDoesNotRead(t *testing.T) {
	tab := table(t, policy.Config{In: []policy.Rule{{Type: "join"}}})
	r := start(t, ws.Config{Policy: tab, QueueMessages: 64})
	r.as(tab, "client")
	b := r.dialV2(t, "c1")
	msg := wire.AppendReconnect(nil, "s1")
	for range 200_000 {
		r.Receive("c1", msg)
	}
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	r.rtc("c1", "s1", "x")
	for {
		kind, m := b.read()
		if kind == "error" {
			continue
		}
		if kind != "rtc" || string(m["data"].([]byte)) != "x" {
			t.Errorf("got %s %v", kind, m)
		}
		return
	}
}

// TestModerate shows TK-21 to TK-23 at the socket: what a moderator wants reaches the calls in his own
// client's name; who may not, asks for nothing sensible, or names what is not there or not his is
// refused, the last two in the same words.
func TestModerate(t *testing.T) {
	tab := table(t, policy.Config{ClientIncludes: []string{}})
	r := start(t, ws.Config{Policy: tab})
	r.as(tab, "client", "moderate")
	r.calls.onMod = func(p ws.Peer, m wire.Moderate) error {
		if p.ClientID != "c1" || m.CallID != "call" {
			return named("not_found")
		}
		return nil
	}
	b := r.dialV2(t, "c1")
	for _, m := range []wire.Moderate{
		{CallID: "call", Action: wire.ActionDisconnect, SessionID: "s1"}, {CallID: "call", Action: wire.ActionUnpublish, StreamID: "st"},
		{CallID: "call", Action: wire.ActionMute, SessionID: "s1"}, {CallID: "call", Action: wire.ActionMuteAll, Except: []string{"s1"}},
		{CallID: "call", Action: wire.ActionMuteState, Active: true},
	} {
		b.sendRaw(wire.AppendModerate(nil, m))
		r.calls.await(t, fmt.Sprintf("%s c1/call %s%s", m.Action, m.SessionID, m.StreamID), 1)
	}
	other := r.dialV2(t, "c2") // whose call it is not
	for _, c := range []*backend{b, other} {
		call := map[*backend]string{b: "missing", other: "call"}[c]
		c.sendRaw(wire.AppendModerate(nil, wire.Moderate{CallID: call, Action: wire.ActionDisconnect, SessionID: "s1"}))
		c.expectError(wire.Error{SessionID: "s1", CallID: call, Reason: "not_found"})
	}
	b.sendRaw(wire.AppendModerate(nil, wire.Moderate{CallID: "call", Action: "explode"}))
	b.expectError(wire.Error{CallID: "call", Reason: "bad_request"})

	r.as(tab, "client") // a publisher's backend
	low := r.dialV2(t, "c1")
	before := len(r.calls.events)
	low.sendRaw(wire.AppendModerate(nil, wire.Moderate{CallID: "call", Action: wire.ActionDisconnect, SessionID: "s1"}))
	low.expectError(wire.Error{Reason: "forbidden"})
	if len(r.calls.events) != before {
		t.Errorf("it was done: %q", r.calls.events[before:])
	}
}

// TestForeignIsMissing shows RT-08: of a session of another client a client learns what it learns of
// one that never was.
func TestForeignIsMissing(t *testing.T) {
	r := start(t, ws.Config{})
	a, b := r.dial(t, "a"), r.dialV2(t, "b")
	a.join("theirs")
	r.calls.await(t, "join a/theirs", 1)
	for _, message := range []func(session string) []byte{
		func(s string) []byte { return wire.AppendLeave(nil, s) },
		func(s string) []byte { return wire.AppendReconnect(nil, s) },
		func(s string) []byte { return wire.AppendRTC(nil, wire.Signal{SessionID: s, Type: wire.SignalMute}) },
	} {
		var answers [2]map[string]any
		for i, session := range []string{"theirs", "missing"} {
			b.sendRaw(message(session))
			kind, m := b.read()
			if kind != "error" || m["sessionID"] != session {
				t.Fatalf("got %s %v", kind, m)
			}
			delete(m, "sessionID")
			answers[i] = m
		}
		if !reflect.DeepEqual(answers[0], answers[1]) {
			t.Errorf("foreign %v, missing %v", answers[0], answers[1])
		}
	}
	r.rtc("a", "theirs", "x")
	a.expect("theirs", "x")
}

// TestSetRoles shows WX-13: other roles hold on live sockets at once; a client that loses the one it
// connects with loses its sockets.
func TestSetRoles(t *testing.T) {
	tab := table(t, policy.Config{ClientIncludes: []string{}})
	r := start(t, ws.Config{Policy: tab})
	r.as(tab, "client")
	b, other := r.dialV2(t, "c1"), r.dialV2(t, "c2")
	mute := wire.AppendModerate(nil, wire.Moderate{CallID: "call", Action: wire.ActionMuteAll})
	b.sendRaw(mute)
	b.expectError(wire.Error{Reason: "forbidden"})
	began := time.Now()
	r.SetRoles("c1", set(tab, "client", "moderate"))
	b.sendRaw(mute)
	r.calls.await(t, "mute_all c1/call ", 1)
	r.SetRoles("c1", set(tab, "client"))
	b.sendRaw(mute)
	b.expectError(wire.Error{Reason: "forbidden"})
	other.sendRaw(mute)
	other.expectError(wire.Error{Reason: "forbidden"})

	ended := make(chan struct{})
	go func() { defer close(ended); b.expectCode(ws.CloseRevoked) }()
	r.SetRoles("c1", set(tab, "something else"))
	if n := r.Connections("c1"); n != 0 {
		t.Errorf("%d connections left", n)
	}
	<-ended
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	r.SetRoles("nobody", policy.Roles{})
	if n := r.Connections("c2"); n != 1 {
		t.Errorf("%d connections of another client", n)
	}
}

// TestRolesChangeWhileConnecting shows WX-13 for a connection that is being opened: it has the roles
// of the end, not those it was authenticated with.
func TestRolesChangeWhileConnecting(t *testing.T) {
	tab := table(t, policy.Config{ClientIncludes: []string{}})
	var r *rig
	change := func() {}
	r = start(t, ws.Config{Policy: tab, Current: func(p ws.Peer) (policy.Roles, bool) {
		change()
		return p.Roles, true // what the store said just before the change
	}})
	r.as(tab, "client", "moderate")
	change = func() { r.SetRoles("c1", set(tab, "client")) }
	b := r.dialV2(t, "c1")
	b.sendRaw(wire.AppendModerate(nil, wire.Moderate{CallID: "call", Action: wire.ActionMuteAll}))
	b.expectError(wire.Error{Reason: "forbidden"})

	cfg := ws.Config{Policy: tab, Current: func(ws.Peer) (policy.Roles, bool) { return set(tab), true }}
	r = start(t, cfg)
	r.as(tab, "client")
	late, _, err := r.tryDial("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	late.t = t
	late.expectCode(ws.CloseRevoked)
}

// TestCutBefore shows OT-03 at the socket: connections with credentials that were replaced end with a
// code within a second, also those just being opened; what their sessions are sent goes on to a
// newer one.
func TestCutBefore(t *testing.T) {
	r := start(t, ws.Config{})
	var epoch uint64 = 1
	r.peer = func(id string) ws.Peer { return ws.Peer{ClientID: id, Epoch: epoch} }
	old, stalled, other := r.dial(t, "c1"), r.dial(t, "c1"), r.dial(t, "c2")
	old.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	epoch = 2
	fresh := r.dial(t, "c1")
	ended := make(chan struct{})
	go func() { defer close(ended); old.expectCode(ws.CloseRevoked) }()
	began := time.Now()
	if !r.CutBefore("c1", 2) {
		t.Error("the client has not come back, it is said")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	<-ended
	if n := r.Connections("c1"); n != 1 {
		t.Errorf("%d connections left, want the new one", n)
	}
	stalled.expectCode(ws.CloseRevoked) // it did not read meanwhile, and still finds the reason
	r.rtc("c1", "s1", "x")
	fresh.expect("s1", "x")

	epoch = 1 // authenticated before, connected after
	late, _, err := r.tryDial("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	late.t = t
	late.expectCode(ws.CloseRevoked)
	other.join("s2")
	r.calls.await(t, "join c2/s2", 1)
	if r.CutBefore("nobody", 9) || r.CutBefore("c2", 2) {
		t.Error("a client has come back that has not, it is said")
	}
}

// TestDroppedClientIsToldWhy shows RT-05 at the socket: code 4401 within a second, although one
// connection does not read and another has much unread in its socket.
func TestDroppedClientIsToldWhy(t *testing.T) {
	r := start(t, ws.Config{})
	a, stalled := r.dial(t, "c1"), r.dial(t, "c1")
	stalled.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	_ = stalled.tcp.SetReadBuffer(4096)
	for range 30 { // more than the sockets hold, less than the queue
		r.rtc("c1", "s1", string(make([]byte, 200<<10)))
	}
	var ended sync.WaitGroup
	ended.Go(func() { a.expectCode(ws.CloseRevoked) })
	began := time.Now()
	r.DropClient("c1")
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	ended.Wait()
}

// TestGarbage shows RT-06: established clients may send as much that makes no sense as they want;
// of those that asked for rtcd.v2 the 20th such message closes the connection.
func TestGarbage(t *testing.T) {
	r := start(t, ws.Config{})
	old, v2 := r.dial(t, "c1"), r.dialV2(t, "c2")
	for range 100 {
		old.sendRaw([]byte{0xc1})
	}
	old.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	for range 19 {
		v2.sendRaw([]byte{0xc1})
		v2.send("debug", sessionMap("x")) // unknown, but well-formed
	}
	v2.join("s1")
	r.calls.await(t, "join c2/s1", 1)
	v2.sendRaw([]byte{0xc1})
	v2.expectCode(ws.CloseGarbage)
}

// TestDeadPeer shows OT-08: a peer that is silent is pinged and then freed, and that is on record; its
// session is claimed on another connection of the client.
func TestDeadPeer(t *testing.T) {
	closed := make(chan ws.Event, 16)
	r := start(t, ws.Config{
		PingInterval: 50 * time.Millisecond, PongTimeout: 100 * time.Millisecond,
		Record: func(e ws.Event) {
			if e.Type == ws.EventClose {
				closed <- e
			}
		},
	})
	silent := r.dial(t, "c1") // answers pings only while it reads
	silent.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	select {
	case e := <-closed:
		if e.ClientID != "c1" || e.ConnID != silent.connID || e.Reason != "dead" {
			t.Errorf("got %+v", e)
		}
	case <-time.After(patience):
		t.Fatal("never freed")
	}
	r.rtc("c1", "s1", "x")
	b, _, err := r.tryDial("c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.t = t
	if kind, _ := b.read(); kind != "hello" {
		t.Fatalf("got %s", kind)
	}
	b.expect("s1", "x")
}

// TestEvents shows CR-12 at the socket: one event for each message and connection, whatever became of
// it, with the true outcome.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	var events []ws.Event
	tab := table(t, policy.Config{In: []policy.Rule{{TypeRE: "join|leave|rtc|moderate"}}})
	r := start(t, ws.Config{Policy: tab, Record: func(e ws.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	r.as(tab, "client")
	r.calls.onJoin = func(_ string, j wire.Join) error {
		switch j.SessionID {
		case "full":
			return named("call_full")
		case "panic":
			panic("a fault of ours")
		}
		return nil
	}
	r.calls.onMod = func(ws.Peer, wire.Moderate) error { return named("not_found") }
	b := r.dialV2(t, "c1")
	local := b.LocalAddr().(*net.TCPAddr).AddrPort().String()
	b.join("s1")
	b.send("join", map[string]any{"callID": "call", "userID": "user", "sessionID": "full", "token": "rtcdjt_secret"})
	b.join("panic")
	b.send("join", map[string]any{"callID": "call"})
	b.send("rtc", rtcMap("s1", "v=0 secret"))
	b.send("rtc", rtcMap("missing", ""))
	b.send("reconnect", sessionMap("s1"))
	b.sendRaw(wire.AppendModerate(nil, wire.Moderate{CallID: "call", Action: wire.ActionUnpublish, StreamID: "st"}))
	b.send("debug", sessionMap("x"))
	b.sendRaw([]byte{0xc1})
	if err := b.WriteMessage(websocket.TextMessage, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	b.send("leave", sessionMap("s1"))
	b.send("leave", sessionMap("s1"))
	r.calls.await(t, "leave of nothing c1/s1", 1)
	_ = b.Close()
	eventually(t, "the connection is gone", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return events[len(events)-1].Type == ws.EventClose
	})
	of := func(typ, call, session, user string, outcome int, reason string) ws.Event {
		return ws.Event{Type: typ, CallID: call, SessionID: session, UserID: user, Outcome: outcome, Reason: reason}
	}
	want := []ws.Event{
		of(ws.EventOpen, "", "", "", 0, ""),
		of(ws.EventJoin, "call", "s1", "user", 0, ""),
		of(ws.EventJoin, "call", "full", "user", 4, "call_full"),
		of(ws.EventJoin, "call", "panic", "user", 12, "internal"),
		of(ws.EventJoin, "call", "", "", 4, "bad_request"),
		of(ws.EventSignal, "", "s1", "", 0, ""),
		of(ws.EventSignal, "", "missing", "", 4, "refused"),
		of(ws.EventReconnect, "", "", "", 4, "blocked"),
		of(ws.EventModerate, "call", "", "", 4, "not_found"),
		of(ws.EventUnknown, "", "", "", 4, "unknown_type"),
		of(ws.EventUndecodable, "", "", "", 4, "undecodable"),
		of(ws.EventUndecodable, "", "", "", 4, "text_frame"),
		of(ws.EventLeave, "", "s1", "", 0, ""),
		of(ws.EventLeave, "", "s1", "", 4, "not_found"),
		of(ws.EventClose, "", "", "", 0, "closed_by_peer"),
	}
	want[5].Signal, want[6].Signal = 2, 2
	want[8].Action, want[8].StreamID = wire.ActionUnpublish, "st"
	mu.Lock()
	defer mu.Unlock()
	if len(events) != len(want) {
		t.Errorf("%d events, want %d", len(events), len(want))
	}
	for i, e := range events[:min(len(events), len(want))] {
		if e.ClientID != "c1" || e.ConnID == "" || e.Remote != local {
			t.Errorf("event %d: %+v is not of the connection from %s", i, e, local)
		}
		e.ClientID, e.ConnID, e.Remote = "", "", ""
		if e != want[i] {
			t.Errorf("event %d: got %+v, want %+v", i, e, want[i])
		}
	}
}
