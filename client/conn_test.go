package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"

	"rtcd/service/api/wire"
)

func toText(ev Event) string { return fmt.Sprintf("%T%+v", ev, ev) }

func ref(session string) Ref { return Ref{CallID: "call", UserID: "u", SessionID: session} }

func join(session string) Join { return Join{CallID: "call", UserID: "u", SessionID: session} }

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMessagesBothWays(t *testing.T) {
	s := newFakeServer(t)
	conn, srv := connect(t, s, s.config())
	zero, mid := uint16(0), "0"
	must(t,
		conn.Join(join("s1")),
		conn.SendDescription("s1", SDP{Type: "offer", SDP: "v=0"}),
		conn.SendCandidate("s1", ICECandidate{Candidate: "c", SDPMid: &mid, SDPMLineIndex: &zero}),
		conn.SendSignal("s1", wire.SignalICE, []byte("raw")),
		conn.Mute("s1"), conn.Unmute("s1"),
		conn.ScreenOn("s1", "x"), conn.ScreenOff("s1"), conn.VideoOn("s1", "y"), conn.VideoOff("s1"),
		conn.Leave("s1"),
	)
	srv.want("join s1", `rtc s1 2 {"type":"offer","sdp":"v=0"}`,
		`rtc s1 1 {"candidate":"c","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null}`,
		"rtc s1 1 raw", "rtc s1 3", "rtc s1 4", `rtc s1 5 {"screenStreamID":"x"}`, "rtc s1 6",
		`rtc s1 9 {"videoStreamID":"y"}`, "rtc s1 :", "leave s1")

	srv.send(wire.AppendHello(nil, testID, "conn1"))
	srv.signal("s1", wire.SignalSDP, `{"type":"answer","sdp":"v=0"}`)
	srv.signal("s1", wire.SignalICE, `{"type":"candidate","candidate":{"candidate":"c"}}`)
	vad := wire.Signal{CallID: "call", UserID: "u", SessionID: "s1", Type: wire.SignalVoiceOn}
	srv.send(wire.AppendVAD(nil, vad))
	vad.Type = wire.SignalVoiceOff
	srv.send(wire.AppendVAD(nil, vad))
	srv.send(wire.AppendClose(nil, "s1"))
	wantEvent(t, conn, Hello{ClientID: testID, ConnID: "conn1"})
	wantEvent(t, conn, Description{Ref: ref("s1"), Data: []byte(`{"type":"answer","sdp":"v=0"}`)})
	wantEvent(t, conn, Candidate{Ref: ref("s1"), Data: []byte(`{"type":"candidate","candidate":{"candidate":"c"}}`)})
	wantEvent(t, conn, Voice{Ref: ref("s1"), On: true})
	wantEvent(t, conn, Voice{Ref: ref("s1")})
	wantEvent(t, conn, Closed{SessionID: "s1"})
}

func TestRefusedBeforeSending(t *testing.T) {
	s := newFakeServer(t)
	conn, _ := connect(t, s, s.config())
	for name, err := range map[string]error{
		"join without ids": conn.Join(Join{SessionID: "s"}),
		"empty session":    conn.Mute(""),
		"sdp type":         conn.SendDescription("s", SDP{Type: "pranswer"}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := conn.SendSignal("s", wire.SignalSDP, make([]byte, wire.MaxMessage)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a megabyte: %v", err)
	}
}

// What is sent while the connection is down follows in order after the claims of the sessions
// that live, and only of those.
func TestReconnect(t *testing.T) {
	s := newFakeServer(t)
	s.set(func() { s.sessions["call"] = []Session{{SessionID: "s1"}, {SessionID: "s4"}} })
	conn, srv := connect(t, s, s.config())
	must(t, conn.Join(join("s1")), conn.Join(join("s2")), conn.Join(join("s3")), conn.Leave("s2"))
	srv.want("join s1", "join s2", "join s3", "leave s2")
	srv.send(wire.AppendClose(nil, "s3"))
	wantEvent(t, conn, Closed{SessionID: "s3"})

	s.set(func() { s.down = 502 })
	srv.drop()
	wantLoss(t, conn)
	must(t, conn.Join(join("s4")), conn.Mute("s4"), conn.Mute("s1"))
	s.set(func() { s.down = 0 })

	again := s.accept()
	wantEvent(t, conn, Connected{Resumed: true})
	again.want("reconnect s1", "join s4", "rtc s4 3", "rtc s1 3")
	again.drop()
	wantLoss(t, conn)
	third := s.accept()
	wantEvent(t, conn, Connected{Resumed: true})
	if got := conn.Stats(); got != (Stats{Reconnects: 2}) {
		t.Errorf("%+v, want two reconnects", got)
	}
	claims := []string{third.next(), third.next()}
	if got := strings.Join(claims, ", "); got != "reconnect s1, reconnect s4" && got != "reconnect s4, reconnect s1" {
		t.Errorf("claimed %s", got)
	}
}

// A server that lost its sessions is noticed, and the client registers again if it may.
func TestServerRestart(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.AutoRegister, cfg.AdminKey = true, testAdmin
	s.set(func() { clear(s.clients) })
	conn, srv := connect(t, s, cfg)
	must(t, conn.Join(join("s1")))
	srv.want("join s1")
	s.set(func() { clear(s.clients) })
	srv.drop()
	wantLoss(t, conn)
	again := s.accept()
	wantEvent(t, conn, Connected{Resumed: true})
	again.want("reconnect s1")
	wantEvent(t, conn, Closed{SessionID: "s1", Lost: true})
	again.send(wire.AppendClose(nil, "s1")) // has been told of
	again.send(wire.AppendClose(nil, "s9"))
	wantEvent(t, conn, Closed{SessionID: "s9"})
}

// One upgrade of the server close upon another does not make a client wait longer each time.
func TestUpgradesDoNotAddUp(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.MinBackoff, cfg.MaxBackoff = 20*time.Millisecond, time.Hour
	conn, srv := connect(t, s, cfg)
	const upgrades = 12 // 41 s, if each wait were twice the one before
	for range upgrades {
		bye := websocket.FormatCloseMessage(websocket.CloseServiceRestart, "server hands over")
		if err := srv.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		wantLoss(t, conn)
		srv = s.accept()
		wantEvent(t, conn, Connected{Resumed: true})
	}
	if n := conn.Stats().Reconnects; n != upgrades {
		t.Errorf("%d reconnects, want %d", n, upgrades)
	}
}

func TestUnauthorized(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.AuthKey = strings.Repeat("x", 32)
	_, err := newClient(t, cfg).Connect(t.Context())
	if !errors.Is(err, ErrUnauthorized) {
		t.Fatalf("connect with a wrong key: %v", err)
	}
	cfg.AutoRegister, cfg.AdminKey = true, testAdmin
	if _, err := newClient(t, cfg).Connect(t.Context()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("the id is another's: %v", err)
	}

	conn, srv := connect(t, s, s.config())
	s.set(func() { clear(s.clients) })
	srv.drop()
	wantLoss(t, conn)
	<-conn.Done()
	if err := conn.Err(); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("ended with %v", err)
	}
	if _, open := <-conn.Events(); open {
		t.Error("events go on after the end")
	}
	if err := conn.Mute("s1"); !errors.Is(err, ErrClosed) {
		t.Errorf("mute after the end: %v", err)
	}
}

func TestTokenReplacedOnReconnect(t *testing.T) {
	s := newFakeServer(t)
	c := newClient(t, s.config())
	if _, err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context())
	must(t, err)
	defer func() { _ = conn.Close() }()
	if srv := s.accept(); srv.auth != "Bearer token-b" {
		t.Errorf("authorization %q", srv.auth)
	} else {
		s.set(func() { s.token = "restarted" })
		srv.drop()
	}
	if srv := s.accept(); srv.auth != "Bearer token-c" {
		t.Errorf("authorization after a restart %q", srv.auth)
	}
}

func TestGiveUp(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.GiveUpAfter = 20 * time.Millisecond
	conn, srv := connect(t, s, cfg)
	s.set(func() { s.down = 500 })
	srv.drop()
	wantLoss(t, conn)
	<-conn.Done()
	var refusal *APIError
	if err := conn.Err(); !errors.As(err, &refusal) || refusal.Status != 500 {
		t.Errorf("ended with %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.SendQueue, cfg.SendQueueBytes = 3, 2000
	conn, srv := connect(t, s, cfg)
	s.set(func() { s.down = 500 })
	srv.drop()
	wantLoss(t, conn)
	must(t, conn.Mute("a"), conn.Mute("b"))
	if err := conn.SendSignal("c", wire.SignalSDP, make([]byte, 2000)); !errors.Is(err, ErrQueueFull) {
		t.Errorf("too many bytes: %v", err)
	}
	must(t, conn.Mute("c"))
	if err := conn.Join(join("d")); !errors.Is(err, ErrQueueFull) {
		t.Errorf("too many messages: %v", err)
	}
	s.set(func() { s.down = 0 })
	again := s.accept() // the join that failed made nothing live: no claim
	again.want("rtc a 3", "rtc b 3", "rtc c 3")
	must(t, conn.Flush(t.Context()), conn.Mute("d"))
	again.want("rtc d 3")
}

// Order is kept both ways, however the sends fall to connections.
func TestOrder(t *testing.T) {
	s := newFakeServer(t)
	conn, srv := connect(t, s, s.config())
	const n = 2000
	go func() {
		for i := range n {
			_ = srv.ws.WriteMessage(websocket.BinaryMessage, wire.AppendClose(nil, fmt.Sprint(i)))
		}
	}()
	for i := range n {
		must(t, conn.Mute(fmt.Sprint(i)))
	}
	for i := range n {
		srv.want(fmt.Sprintf("rtc %d 3", i))
		wantEvent(t, conn, Closed{SessionID: fmt.Sprint(i)})
	}
}

// A consumer that does not read loses nothing, and does not keep others from sending or closing.
func TestSlowConsumer(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.EventBuffer = 1
	conn, srv := connect(t, s, cfg)
	for i := range 50 {
		srv.send(wire.AppendClose(nil, fmt.Sprint(i)))
	}
	must(t, conn.Mute("s1"))
	srv.want("rtc s1 3")
	for i := range 40 {
		wantEvent(t, conn, Closed{SessionID: fmt.Sprint(i)})
	}
	must(t, conn.Close())
	if !errors.Is(conn.Err(), ErrClosed) {
		t.Errorf("ended with %v", conn.Err())
	}
}

func TestContextEndsConn(t *testing.T) {
	s := newFakeServer(t)
	for _, down := range []bool{false, true} {
		cfg := s.config()
		cfg.MinBackoff, cfg.MaxBackoff = time.Hour, time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := newClient(t, cfg).Connect(ctx)
		must(t, err)
		srv := s.accept()
		wantEvent(t, conn, Connected{})
		if down {
			srv.drop()
			wantLoss(t, conn)
		}
		cancel()
		<-conn.Done()
		if !errors.Is(conn.Err(), context.Canceled) {
			t.Errorf("down %v: ended with %v", down, conn.Err())
		}
		must(t, conn.Close())
	}
}

// What was flushed arrives though the Conn closes at once with unread messages in its socket.
func TestCloseAfterFlush(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.EventBuffer = 1
	conn, srv := connect(t, s, cfg)
	for range 100 {
		srv.signal("s1", wire.SignalSDP, strings.Repeat("x", 1000))
	}
	for i := range 500 {
		must(t, conn.Leave(fmt.Sprint(i)))
	}
	must(t, conn.Flush(t.Context()), conn.Close())
	for i := range 500 {
		srv.want(fmt.Sprintf("leave %d", i))
	}
}

func TestServerPingIsAnswered(t *testing.T) {
	s := newFakeServer(t)
	_, srv := connect(t, s, s.config())
	pong := make(chan string, 1)
	srv.ws.SetPongHandler(func(data string) error { pong <- data; return nil })
	must(t, srv.ws.WriteControl(websocket.PingMessage, []byte("tick"), time.Now().Add(patience)))
	if got := within(t, pong, "pong"); got != "tick" {
		t.Errorf("pong %q", got)
	}
}

func TestNonsenseFromServer(t *testing.T) {
	s := newFakeServer(t)
	var log bytes.Buffer
	cfg := s.config()
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	conn, srv := connect(t, s, cfg)
	must(t, srv.ws.WriteMessage(websocket.TextMessage, []byte("hello"))) // not for us: not counted
	nonsense := []string{
		"", "\xc0", "\xa5hello", "\xa5hello\xc0", "\xa5hello\xdf\xff\xff\xff\xff", "\xa5close\x80", "\xa3rtc\xc0",
		"\xa3vad\x81\xa4type\x01", "\xa3rtc\x81\xa4type\x07", "\xa5leave\xdd\xff\xff\xff\xff", "\xa1\xff\x80",
	}
	for _, b := range nonsense {
		srv.send([]byte(b))
	}
	srv.send(wire.AppendClose(nil, "last"))
	wantEvent(t, conn, Closed{SessionID: "last"})
	if got := conn.Stats(); got != (Stats{Dropped: uint64(len(nonsense))}) {
		t.Errorf("%+v after %d messages of nonsense", got, len(nonsense))
	}
	must(t, conn.Close())
	if n := strings.Count(log.String(), "message from rtcd dropped"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	if strings.Contains(log.String(), testKey) {
		t.Error("the key is in the log")
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(wire.AppendHello(nil, "c1", "conn"))
	f.Add(wire.AppendClose(nil, "s1"))
	f.Add(wire.AppendRTC(nil, wire.Signal{SessionID: "s", Type: wire.SignalSDP, Data: []byte("{}")}))
	c, err := New(Config{URL: "http://h", ClientID: testID, AuthKey: testKey})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := &Conn{client: c, out: newOutbox(1, 1)}
		switch ev := conn.event(data, &lostSet{}).(type) {
		case Description:
			_, _ = ev.Parse()
		case Candidate:
			_, _ = ev.Parse()
		}
	})
}

func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "least"))
		most := least + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "more"))
		n := rapid.IntRange(0, 1<<30).Draw(t, "failures")
		d := backoff(least, most, n, rapid.Float64Range(0, 1).Draw(t, "chance"))
		if d < least/2 || d > most {
			t.Fatalf("%v is not in %v..%v", d, least/2, most)
		}
	})
	if got := backoff(time.Second, time.Minute, 3, 0); got != 8*time.Second {
		t.Errorf("third failure: %v, want 8s", got)
	}
}

func TestParse(t *testing.T) {
	d, err := Description{Data: []byte(`{"type":"offer","sdp":"v=0"}`)}.Parse()
	if err != nil || d != (SDP{Type: "offer", SDP: "v=0"}) {
		t.Errorf("description %+v, %v", d, err)
	}
	c, err := Candidate{Data: []byte(`{"type":"candidate","candidate":{"candidate":"x","sdpMid":"0"}}`)}.Parse()
	if err != nil || c.Candidate != "x" || *c.SDPMid != "0" {
		t.Errorf("candidate %+v, %v", c, err)
	}
	for _, bad := range []string{"", "{}", "[]", `{"type":"rollback"}`, `{"candidate":"x"}`} {
		if _, err := (Description{Data: []byte(bad)}).Parse(); err == nil {
			t.Errorf("description %q parsed", bad)
		}
		if _, err := (Candidate{Data: []byte(bad)}).Parse(); err == nil {
			t.Errorf("candidate %q parsed", bad)
		}
	}
}

func TestTLS(t *testing.T) {
	s := newFakeServer(t)
	secure := httptest.NewTLSServer(s)
	defer secure.Close()
	cfg := s.config()
	cfg.URL, cfg.HTTPClient = secure.URL+"/", nil
	if _, err := newClient(t, cfg).Connect(t.Context()); err == nil {
		t.Fatal("connected to a server nobody vouches for")
	}
	cfg.TLS = secure.Client().Transport.(*http.Transport).TLSClientConfig
	c := newClient(t, cfg)
	defer c.CloseIdleConnections()
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("version: %v", err)
	}
	conn, err := c.Connect(t.Context())
	must(t, err)
	must(t, conn.Mute("s1"))
	s.accept().want("rtc s1 3")
	must(t, conn.Close())
}
