package client

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"rtcd/service/api/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testID    = "backend"
	testKey   = "0123456789abcdef0123456789abcdef"
	testAdmin = "the-admin-secret"
	patience  = 10 * time.Second
)

// A fakeServer is as much of rtcd as a client sees.
type fakeServer struct {
	t       *testing.T
	http    *httptest.Server
	conns   chan *fakeConn
	closing chan struct{}

	mu           sync.Mutex
	clients      map[string]string
	token        string
	logins       int
	down         int // status of refused upgrades, 0: none
	selfRegister bool
	sessions     map[string][]Session // by call
}

// A fakeConn is the server's end of one WebSocket.
type fakeConn struct {
	t    *testing.T
	ws   *websocket.Conn
	auth string
	in   chan []byte // closed when the connection is gone
}

func newFakeServer(t *testing.T) *fakeServer {
	s := &fakeServer{
		t: t, conns: make(chan *fakeConn, 16), closing: make(chan struct{}),
		clients: map[string]string{testID: testKey}, sessions: make(map[string][]Session),
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.closing)
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

func (s *fakeServer) config() Config {
	return Config{
		URL: s.http.URL, ClientID: testID, AuthKey: testKey,
		HTTPClient: s.http.Client(), MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
	}
}

// set changes the server's state.
func (s *fakeServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeServer) authorized(r *http.Request) bool {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token == s.token && token != ""
	}
	id, key, ok := r.BasicAuth()
	return ok && key != "" && s.clients[id] == key
}

func (s *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws" {
		s.serveWS(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(status int, text string) { answer(status, map[string]string{"error": text}) }
	var body map[string]string
	if r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&body) != nil {
		refuse(400, "EOF")
		return
	}
	switch path := r.Method + " " + r.URL.EscapedPath(); path {
	case "GET /version":
		answer(200, map[string]string{"buildVersion": "v1.3.0"})
	case "GET /system":
		answer(200, map[string]float64{"cpu_load": 0.5})
	case "POST /register":
		_, key, _ := r.BasicAuth()
		switch {
		case !s.selfRegister && key != testAdmin:
			refuse(401, "authentication failed")
		case s.clients[body["clientID"]] != "":
			refuse(400, "registration failed: already registered")
		default:
			s.clients[body["clientID"]] = body["authKey"]
			answer(201, map[string]string{"clientID": body["clientID"], "code": "201"})
		}
	case "POST /unregister":
		switch _, key, _ := r.BasicAuth(); {
		case key != testAdmin && !s.authorized(r):
			refuse(401, "authentication failed")
		case s.clients[body["clientID"]] == "":
			refuse(400, "unregister failed: error: not found")
		default:
			delete(s.clients, body["clientID"])
			answer(200, map[string]string{"code": "200"})
		}
	case "POST /login":
		if s.clients[body["clientID"]] != body["authKey"] || body["authKey"] == "" {
			refuse(400, "login failed: authentication failed")
			return
		}
		s.logins++
		s.token = "token-" + string(rune('a'+s.logins))
		answer(200, map[string]string{"bearerToken": s.token, "code": "200"})
	default:
		call, ok := strings.CutPrefix(path, "GET /calls/")
		call, _, _ = strings.Cut(call, "/sessions")
		switch {
		case !ok:
			http.NotFound(w, r)
		case !s.authorized(r):
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		case s.sessions[call] == nil:
			http.Error(w, "failed to get session configs: call not found", 404)
		case strings.HasSuffix(path, "/sessions"):
			answer(200, s.sessions[call])
		default:
			answer(200, s.sessions[call][0])
		}
	}
}

func (s *fakeServer) serveWS(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	ok, down := s.authorized(r), s.down
	s.mu.Unlock()
	switch {
	case down != 0:
		w.Header().Set("Retry-After", "3")
		http.Error(w, "not now", down)
		return
	case !ok:
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	upgrader := websocket.Upgrader{}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.Close() }()
	c := &fakeConn{t: s.t, ws: ws, auth: r.Header.Get("Authorization"), in: make(chan []byte, 4096)}
	defer close(c.in)
	read := make(chan struct{})
	go func() { // httptest does not know hijacked connections
		select {
		case <-s.closing:
			_ = ws.Close()
		case <-read:
		}
	}()
	defer close(read)
	s.conns <- c
	for {
		_, data, err := ws.ReadMessage()
		if err != nil {
			return
		}
		c.in <- data
	}
}

func (s *fakeServer) accept() *fakeConn {
	s.t.Helper()
	return within(s.t, s.conns, "a WebSocket")
}

// next returns the next message as text: "join s1", "rtc s1 3 data".
func (c *fakeConn) next() string {
	c.t.Helper()
	m, err := wire.Decode(within(c.t, c.in, "a message"))
	if err != nil {
		c.t.Fatalf("message from the client: %v", err)
	}
	switch m.Type {
	case "join":
		return "join " + m.Join.SessionID
	case "rtc":
		return strings.TrimSpace("rtc " + m.Signal.SessionID + " " + string(rune('0'+m.Signal.Type)) + " " + string(m.Signal.Data))
	}
	return m.Type + " " + m.SessionID
}

func (c *fakeConn) want(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.next(); got != w {
			c.t.Fatalf("server got %q, want %q", got, w)
		}
	}
}

func (c *fakeConn) send(data []byte) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, data); err != nil {
		c.t.Fatalf("server sends: %v", err)
	}
}

func (c *fakeConn) signal(session string, t wire.SignalType, data string) {
	c.t.Helper()
	c.send(wire.AppendRTC(nil, wire.Signal{
		GroupID: testID, CallID: "call", UserID: "u", SessionID: session, Type: t, Data: []byte(data),
	}))
}

// drop cuts the connection without a word.
func (c *fakeConn) drop() { _ = c.ws.Close() }

func within[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v, ok := <-ch:
		if !ok {
			t.Fatalf("waiting for %s: channel closed", what)
		}
		return v
	case <-time.After(patience):
		t.Fatalf("no %s after %v", what, patience)
	}
	panic("not reached")
}

// connect returns a Conn and the server's end of it, after Connected.
func connect(t *testing.T, s *fakeServer, cfg Config) (*Conn, *fakeConn) {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	wantEvent(t, conn, Connected{})
	return conn, s.accept()
}

func wantEvent(t *testing.T, c *Conn, want Event) {
	t.Helper()
	got := within(t, c.Events(), "event")
	g, w := toText(got), toText(want)
	if g != w {
		t.Fatalf("event %s, want %s", g, w)
	}
}

// wantLoss reads a Disconnected.
func wantLoss(t *testing.T, c *Conn) error {
	t.Helper()
	d, ok := within(t, c.Events(), "event").(Disconnected)
	if !ok || d.Err == nil {
		t.Fatalf("event %#v, want a Disconnected with an error", d)
	}
	return d.Err
}
