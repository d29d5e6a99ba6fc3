package service_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// raw is a WebSocket without anything around it.
func raw(t *testing.T, s *server, id string) *websocket.Conn {
	t.Helper()
	return rawWith(t, s, basic(id, key))
}

// rawWith is raw for any credentials.
func rawWith(t *testing.T, s *server, authorization string) *websocket.Conn {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path = "ws", "/ws"
	c, resp, err := websocket.DefaultDialer.Dial(u.String(), http.Header{"Authorization": {authorization}})
	if err != nil {
		t.Fatalf("open a websocket: %v", err)
	}
	_ = resp.Body.Close()
	t.Cleanup(func() { _ = c.Close() })
	if _, _, err := c.ReadMessage(); err != nil { // hello
		t.Fatal(err)
	}
	return c
}

// everything is one message of each type a backend can send, about a session.
func everything(call, session string) [][]byte {
	out := [][]byte{
		wire.AppendReconnect(nil, session),
		wire.AppendLeave(nil, session),
	}
	bodies := map[wire.SignalType]string{
		wire.SignalICE:      `{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 9 typ host","sdpMid":"0","sdpMLineIndex":0}`,
		wire.SignalSDP:      `{"type":"offer","sdp":"v=0\r\n"}`,
		wire.SignalScreenOn: `{"screenStreamID":"x"}`,
		wire.SignalVideoOn:  `{"videoStreamID":"x"}`,
	}
	for n := wire.SignalType(-1); n <= 12; n++ {
		out = append(out, wire.AppendRTC(nil, wire.Signal{
			GroupID: "a", UserID: "user", SessionID: session, CallID: call, Type: n, Data: []byte(bodies[n]),
		}))
	}
	out = append(out, wire.AppendRTC(nil, wire.Signal{
		GroupID: "a", SessionID: session, Type: wire.SignalSDP, Data: []byte(`{"type":"answer","sdp":"v=0\r\n"}`),
	}))
	return out
}

// A1, A2: one client sends everything it can about another's session, before it exists, while it
// is in a call, and after. Nothing of it has an effect, and nothing tells what exists.
func TestTenantsCannotReachEachOther(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, nil)
	a := connect(t, s.url, "a")
	b := connect(t, s.url, "b") // registers b
	hostile := raw(t, s, "b")
	attack := func() {
		for _, session := range []string{"s1", "s2"} {
			for _, m := range everything("call", session) {
				if err := hostile.WriteMessage(websocket.BinaryMessage, m); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A ping that comes back says that all before it was handled.
		pong := make(chan struct{})
		hostile.SetPongHandler(func(string) error { close(pong); return nil })
		if err := hostile.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(5*time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if _, m, err := hostile.ReadMessage(); err != nil {
					return
				} else if len(m) > 0 {
					t.Errorf("the other client was told something: %x", m)
				}
			}
		}()
		select {
		case <-pong:
		case <-ctx.Done():
			t.Fatal("no pong")
		}
	}
	same := func(when string) {
		t.Helper()
		for _, path := range []string{"/calls/%s/sessions", "/calls/%s/sessions/s1"} {
			fs, foreign := request(t, "GET", s.url+fmt.Sprintf(path, "call"), "b", key, "")
			ms, missing := request(t, "GET", s.url+fmt.Sprintf(path, "none"), "b", key, "")
			if fs != 404 || fs != ms || foreign != missing {
				t.Errorf("%s: foreign %d %q, missing %d %q", when, fs, foreign, ms, missing)
			}
		}
	}
	attack()
	same("before")
	all := people(ctx, t, a, "call", "s1", "s2")
	stop := rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 10)
	events := len(a.Events())

	// The same ids at once are two different things.
	if err := b.Conn.Join(client.Join{CallID: "call", UserID: "user", SessionID: "twin"}); err != nil {
		t.Fatal(err)
	}
	hostile2 := raw(t, s, "b")
	hostile = hostile2
	attack()
	if status, body := request(t, "GET", s.url+"/calls/call/sessions", "b", key, ""); status != 200 ||
		strings.Contains(body, "s1") || !strings.Contains(body, "twin") {
		t.Errorf("b sees %d %s", status, body)
	}
	more(ctx, t, all["s1"], "s2", 20)
	more(ctx, t, all["s2"], "s1", 20)
	if h := all["s1"].Heard("s2"); h.Gaps > 0 {
		t.Errorf("%d gaps in what s1 heard", h.Gaps)
	}
	if got := a.Events()[events:]; len(got) > 0 {
		for _, e := range got {
			if _, ok := e.(client.Voice); !ok {
				t.Errorf("a was told %+v", e)
			}
		}
	}
	if status, body := request(t, "GET", s.url+"/calls/call/sessions/s1", "a", key, ""); status != 200 {
		t.Errorf("a's session: %d %s", status, body)
	}
	stop()
	for name := range all {
		_ = a.Conn.Leave(name)
		if err := a.AwaitClosed(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	_ = b.Conn.Leave("twin")
	if err := b.AwaitClosed(ctx, "twin"); err != nil {
		t.Fatal(err)
	}
	hostile = raw(t, s, "b")
	attack()
	same("after")
}

// A7, RT-05: who is unregistered is out within a second, with everything it had.
func TestUnregister(t *testing.T) {
	for name, by := range map[string][2]string{"by itself": {"c1", key}, "by the admin": {"", adminKey}} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 40*time.Second)
			s := start(t, nil, nil)
			c, err := client.New(client.Config{URL: s.url, ClientID: "c1", AuthKey: key})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.CloseIdleConnections)
			if err := c.Register(ctx); err != nil {
				t.Fatal(err)
			}
			token, err := c.Login(ctx)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := c.Connect(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			r := rtctest.NewRemote(t, conn)
			people(ctx, t, r, "call", "s1")

			status, body := request(t, "POST", s.url+"/unregister", by[0], by[1], `{"clientID":"c1"}`)
			if status != 200 {
				t.Fatalf("unregister: %d %s", status, body)
			}
			begin := time.Now()
			if err := r.Await(ctx, func(events []client.Event) bool {
				for _, e := range events {
					if _, ok := e.(client.Disconnected); ok {
						return true
					}
				}
				return false
			}); err != nil || time.Since(begin) > time.Second {
				t.Errorf("connection cut after %v: %v", time.Since(begin), err)
			}
			req, err := http.NewRequest("GET", s.url+"/calls/call/sessions", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 401 {
				t.Errorf("the token still works: %s", resp.Status)
			}
			if status, _ := request(t, "GET", s.url+"/calls/call/sessions", "c1", key, ""); status != 401 {
				t.Errorf("the key still works: %d", status)
			}
			// The same id anew has nothing of before.
			newClient(t, s.url, "c1")
			if status, body := request(t, "POST", s.url+"/register", "", "", fmt.Sprintf(`{"clientID":"c1","authKey":%q}`, key)); status != 201 {
				t.Fatalf("register again: %d %s", status, body)
			}
			if status, body := request(t, "GET", s.url+"/calls/call/sessions", "c1", key, ""); status != 404 {
				t.Errorf("a session of before is still there: %d %s", status, body)
			}
		})
	}
}

// R1, R2, R3: bytes that make no sense, and joins beyond every limit, cost their sender its own
// budget and nobody else anything.
func TestFloodStaysWithItsSender(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, nil)
	good := connect(t, s.url, "good")
	all := people(ctx, t, good, "call", "s1", "s2")
	rtctest.Talk(t, all)
	bad := connect(t, s.url, "bad")
	flood := raw(t, s, "bad")
	garbage := [][]byte{
		{0xa4, 0xff, 0xfe, 0xfd, 0xfc, 0x80},
		{0xa5, 'l', 'e', 'a', 'v', 'e', 0x81, 0xdd, 0xff, 0xff, 0xff, 0xff},
		{0xc6, 0xff, 0xff, 0xff, 0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, {}, {0xc1},
		bytes.Repeat([]byte{0x91}, 1000),
	}
	for i := range 500 {
		typ := fmt.Sprintf("type-%d", i)
		garbage = append(garbage, append([]byte{0xa0 | byte(len(typ))}, typ+"\x80"...))
	}
	for _, m := range garbage {
		if err := flood.WriteMessage(websocket.BinaryMessage, m); err != nil {
			t.Fatalf("the connection ended at %x: %v", m, err)
		}
	}
	const joins = 2000
	for i := range joins {
		if err := flood.WriteMessage(websocket.BinaryMessage, wire.AppendJoin(nil, wire.Join{
			CallID: "flood", UserID: "u", SessionID: fmt.Sprintf("f%d", i),
		})); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	more(ctx, t, all["s1"], "s2", 30)
	late := people(ctx, t, good, "call", "s3")
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("thirty packets and a join took %v beside the flood", d)
	}
	more(ctx, t, late["s3"], "s1", 5)
	// The refused are told.
	closes := 0
	if err := flood.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	status, body := request(t, "GET", s.url+"/calls/flood/sessions", "bad", key, "")
	if status != 200 {
		t.Fatalf("sessions: %d", status)
	}
	admitted := strings.Count(body, `"SessionID"`)
	if admitted > 1100 {
		t.Errorf("%d of %d joins were taken at once", admitted, joins)
	}
	for closes < joins-admitted-200 {
		_, m, err := flood.ReadMessage()
		if err != nil {
			t.Fatalf("after %d closes: %v", closes, err)
		}
		if d, err := wire.DecodeServer(m); err == nil && d.Type == wire.TypeClose {
			closes++
		}
	}
	_, text := request(t, "GET", s.url+"/metrics", "", "", "")
	if n := strings.Count(text, "rtcd_ws_messages_total{"); n > 20 {
		t.Errorf("%d series of messages", n)
	}
	if err := bad.Conn.Leave("f0"); err != nil {
		t.Error(err)
	}
	if h := all["s1"].Heard("s2"); h.Gaps > 0 || h.Bad > 0 {
		t.Errorf("the other client's call: %d gaps, %d changed", h.Gaps, h.Bad)
	}
}

// safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Keys and tokens show up nowhere, at the most talkative level.
func TestSecretsStaySecret(t *testing.T) {
	ctx := within(t, 40*time.Second)
	log := new(safeBuffer)
	s := start(t, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug - 8})), nil)
	shown := new(strings.Builder)
	show := func(status int, body string) { fmt.Fprintln(shown, status, body) }
	const wrong = "a wrong key that must not be shown, 4242"
	show(request(t, "POST", s.url+"/register", "", "", fmt.Sprintf(`{"clientID":"c1","authKey":%q}`, key)))
	show(request(t, "POST", s.url+"/register", "", "", fmt.Sprintf(`{"clientID":"c1","authKey":%q}`, wrong)))
	show(request(t, "POST", s.url+"/login", "", "", fmt.Sprintf(`{"clientID":"c1","authKey":%q}`, wrong)))
	show(request(t, "GET", s.url+"/calls/x/sessions", "c1", wrong, ""))
	show(request(t, "GET", s.url+"/ws", "c1", wrong, ""))
	show(request(t, "POST", s.url+"/unregister", "", wrong, `{"clientID":"c1"}`))
	c := newClient(t, s.url, "c1")
	token, err := c.Login(ctx)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r := rtctest.NewRemote(t, conn)
	all := people(ctx, t, r, "call", "s1", "s2")
	rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 5)
	show(request(t, "GET", s.url+"/metrics", "", "", ""))
	show(request(t, "POST", s.url+"/unregister", "", adminKey, `{"clientID":"c1"}`))
	if !strings.Contains(log.String(), "session connected") {
		t.Fatal("the log is empty")
	}
	for name, secret := range map[string]string{
		"auth key": key, "admin key": adminKey, "wrong key": wrong, "token": token,
		"basic credentials": base64.StdEncoding.EncodeToString([]byte("c1:" + key)),
		"ice password":      "a=ice-pwd", "fingerprint": "a=fingerprint",
	} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s in the log", name)
		}
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%s in an answer", name)
		}
	}
}
