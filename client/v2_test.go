package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/service/access"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/policy"
)

const patience = 10 * time.Second

// A world is the server's own WebSocket part and its admission of joins, on loopback. Its tickets are
// good once.
type world struct {
	*ws.Server
	access *access.Service
	url    string

	mu        sync.Mutex
	live      map[string]string // call by session
	roles     map[string]wire.CallRole
	moderated []wire.Moderate
	tickets   map[string]bool
	headers   []http.Header // of upgrades
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		access: access.New(access.Config{RequireJoinToken: true}, nil),
		live:   make(map[string]string), roles: make(map[string]wire.CallRole), tickets: make(map[string]bool),
	}
	table, err := policy.Compile(policy.Config{ClientIncludes: []string{}}, map[string]string{
		"GET /ws": "client", "ws:join": "client", "ws:leave": "client", "ws:reconnect": "client", "ws:rtc": "client", "ws:moderate": "moderate",
	})
	if err != nil {
		t.Fatal(err)
	}
	roles, _ := table.Set([]string{"client", "moderate"})
	w.Server = ws.New(ws.Config{Policy: table}, w, nil, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/ws/tickets" && r.Method == http.MethodPost:
			w.mu.Lock()
			ticket := fmt.Sprintf("rtcdwt_%d_x", len(w.tickets))
			w.tickets[ticket] = true
			w.mu.Unlock()
			rw.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(rw).Encode(map[string]string{"ticket": ticket, "expiresAt": "2030-01-02T03:04:05Z"})
		case r.URL.Path == "/ws" && w.allowed(r):
			from, _ := netip.ParseAddrPort(r.RemoteAddr)
			w.Serve(rw, r, ws.Peer{ClientID: "c1", Epoch: 1, Roles: roles, Remote: from.Addr()})
		case strings.HasPrefix(r.URL.Path, "/calls/"):
			http.Error(rw, "not found", http.StatusNotFound)
		default:
			http.Error(rw, "authentication failed", http.StatusUnauthorized)
		}
	}))
	w.url = srv.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = w.Close(ctx)
		srv.Close()
	})
	return w
}

// allowed takes the key, or burns a ticket.
func (w *world) allowed(r *http.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.headers = append(w.headers, r.Header)
	_, key, ok := r.BasicAuth()
	for _, p := range strings.Split(r.Header.Get("Sec-WebSocket-Protocol"), ",") {
		if ticket, found := strings.CutPrefix(strings.TrimSpace(p), "rtcd.ticket."); found {
			ok = w.tickets[ticket] && !ok
			w.tickets[ticket] = false
			return ok
		}
	}
	return ok && key != ""
}

func (w *world) Join(p ws.Peer, j wire.Join) error {
	g, err := w.access.Admit(p.ClientID, p.Remote, j)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live[j.SessionID], w.roles[j.SessionID] = j.CallID, g.Role
	return nil
}

func (w *world) Leave(_, session string) {
	w.mu.Lock()
	call, ok := w.live[session]
	delete(w.live, session)
	w.mu.Unlock()
	if ok {
		w.access.Left("c1", call, session)
		w.Send("c1", session, ws.Outbound{Kind: ws.Close})
	}
}

func (w *world) Signal(string, string, wire.Signal) error { return nil }

func (w *world) Exists(_, session string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.live[session]
	return ok
}

func (w *world) Moderate(p ws.Peer, m wire.Moderate) error {
	w.mu.Lock()
	w.moderated = append(w.moderated, m)
	call := w.live[m.SessionID]
	w.mu.Unlock()
	if m.Action != wire.ActionDisconnect {
		return nil
	}
	if call != m.CallID || !w.access.Eject(p.ClientID, m.CallID, m.SessionID) {
		return access.ErrNotFound
	}
	w.Leave(p.ClientID, m.SessionID)
	return nil
}

func (w *world) config() client.Config {
	return client.Config{
		URL: w.url, ClientID: "c1", AuthKey: strings.Repeat("k", 32), V2: true,
		MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
	}
}

func (w *world) connect(t *testing.T, cfg client.Config) *client.Conn {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); c.CloseIdleConnections() })
	want(t, conn, client.Connected{V2: cfg.V2})
	if _, ok := next(t, conn).(client.Hello); !ok {
		t.Fatal("no hello")
	}
	return conn
}

func next(t *testing.T, conn *client.Conn) client.Event {
	t.Helper()
	select {
	case ev := <-conn.Events():
		return ev
	case <-time.After(patience):
		t.Fatal("no event")
		return nil
	}
}

func want(t *testing.T, conn *client.Conn, ev client.Event) {
	t.Helper()
	if got := next(t, conn); !reflect.DeepEqual(got, ev) {
		t.Fatalf("got %T%+v, want %T%+v", got, got, ev, ev)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTokensAndModeration shows TK-03, TK-04 and TK-21 from a backend's side, with the server's own
// parts: a token lets its user in once, and out of a call who was ejected stays.
func TestTokensAndModeration(t *testing.T) {
	w := newWorld(t)
	conn := w.connect(t, w.config())
	call, err := w.access.Create(t.Context(), "c1", access.CallOptions{})
	must(t, err)
	token := func(user string, role client.CallRole) string {
		made, err := w.access.Mint("c1", call, access.TokenRequest{UserID: user, Role: role, TTL: 60})
		must(t, err)
		return made.Token
	}
	first := token("u1", client.RoleSubscriber)
	refused := func(j client.Join, reason string) {
		t.Helper()
		must(t, conn.Join(j))
		want(t, conn, client.ErrorEvent{CallID: j.CallID, SessionID: j.SessionID, Reason: reason})
		want(t, conn, client.Closed{SessionID: j.SessionID})
	}
	refused(client.Join{CallID: call, UserID: "u1", SessionID: "s0"}, "token_required")
	refused(client.Join{CallID: call, UserID: "u1", SessionID: "s0", Token: "rtcdjt_wrong"}, "token_invalid")
	refused(client.Join{CallID: call, UserID: "u2", SessionID: "s0", Token: first}, "token_mismatch")
	refused(client.Join{CallID: call, UserID: "u1", SessionID: "s0", Token: first, Role: client.RoleModerator}, "token_mismatch")
	refused(client.Join{CallID: "another", UserID: "u1", SessionID: "s0", Token: first}, "token_invalid")
	must(t, conn.Join(client.Join{CallID: call, UserID: "u1", SessionID: "s1", Token: first}))
	refused(client.Join{CallID: call, UserID: "u1", SessionID: "s2", Token: first}, "token_invalid")
	if w.mu.Lock(); w.roles["s1"] != client.RoleSubscriber {
		t.Errorf("joined as %q", w.roles["s1"])
	}
	w.mu.Unlock()

	must(t, conn.Moderate(client.Moderation{CallID: call, Action: client.ActionDisconnect, SessionID: "missing"}))
	want(t, conn, client.ErrorEvent{CallID: call, SessionID: "missing", Reason: "not_found"})
	mute := client.Moderation{CallID: call, Action: client.ActionMuteAll, Except: []string{"s1"}}
	must(t, conn.Moderate(mute), conn.Moderate(client.Moderation{CallID: call, Action: client.ActionDisconnect, SessionID: "s1"}))
	want(t, conn, client.Closed{SessionID: "s1"})
	if !reflect.DeepEqual(w.moderated[1], mute) {
		t.Errorf("got %+v", w.moderated[1])
	}
	refused(client.Join{CallID: call, UserID: "u1", SessionID: "s3", Token: token("u1", "")}, "ejected")

	w.Stats("c1", wire.Stats{CallID: call, Participants: 2, Publishers: 1, Subscribers: 1})
	want(t, conn, client.StatsEvent{CallID: call, Participants: 2, Publishers: 1, Subscribers: 1})
}

// TestWithoutV2 shows WX-17 from a backend's side: a client that asks for nothing new offers nothing
// and is told nothing, and cannot moderate.
func TestWithoutV2(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.V2 = false
	conn := w.connect(t, cfg)
	must(t, conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s1"}))
	want(t, conn, client.Closed{SessionID: "s1"})
	if err := conn.Moderate(client.Moderation{CallID: "call", Action: client.ActionMuteAll}); err == nil {
		t.Error("moderated without rtcd.v2")
	}
	for name := range w.headers[0] {
		if name == "Sec-Websocket-Protocol" {
			t.Errorf("header %s", name)
		}
	}
}

func TestModerationIsChecked(t *testing.T) {
	w := newWorld(t)
	conn := w.connect(t, w.config())
	for name, m := range map[string]client.Moderation{
		"no call":        {Action: client.ActionMuteAll},
		"no action":      {CallID: "c"},
		"no session":     {CallID: "c", Action: client.ActionMute},
		"bad session":    {CallID: "c", Action: client.ActionMute, SessionID: "a\x00"},
		"65 exceptions":  {CallID: "c", Action: client.ActionMuteAll, Except: make([]string, 65)},
		"bad exception":  {CallID: "c", Action: client.ActionMuteAll, Except: []string{strings.Repeat("x", 129)}},
		"until tomorrow": {CallID: "c", Action: client.ActionUnpublish, StreamID: "s", Until: "tomorrow"},
	} {
		if conn.Moderate(m) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, j := range map[string]client.Join{
		"role":  {CallID: "c", UserID: "u", SessionID: "s", Role: "king"},
		"token": {CallID: "c", UserID: "u", SessionID: "s", Token: strings.Repeat("x", 2000)},
	} {
		if conn.Join(j) == nil {
			t.Errorf("join with bad %s: no error", name)
		}
	}
}

// TestTickets shows OT-07 from a backend's side: a connection is opened with a ticket and no key, and
// opened again with another.
func TestTickets(t *testing.T) {
	w := newWorld(t)
	maker, err := client.New(w.config())
	must(t, err)
	t.Cleanup(maker.CloseIdleConnections)
	cfg := w.config()
	cfg.AuthKey = ""
	var used []string
	cfg.Ticket = func(ctx context.Context) (string, error) {
		ticket, expires, err := maker.Ticket(ctx)
		if expires.Year() != 2030 {
			t.Errorf("expires %v", expires)
		}
		used = append(used, ticket)
		return ticket, err
	}
	conn := w.connect(t, cfg)
	w.CutBefore("c1", 1) // nothing is older
	must(t, conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s1"}))
	want(t, conn, client.ErrorEvent{CallID: "call", SessionID: "s1", Reason: "token_required"})
	want(t, conn, client.Closed{SessionID: "s1"})
	w.DropClient("c1")
	if _, ok := next(t, conn).(client.Disconnected); !ok {
		t.Fatal("not disconnected")
	}
	want(t, conn, client.Connected{Resumed: true, V2: true})
	must(t, conn.Close())
	if len(used) != 2 || used[0] == used[1] {
		t.Errorf("tickets %q", used)
	}
	for _, h := range w.headers {
		if h.Get("Authorization") != "" {
			t.Error("a key went along")
		}
	}

	// One that was used is none.
	cfg.Ticket = func(context.Context) (string, error) { return used[0], nil }
	c, err := client.New(cfg)
	must(t, err)
	if _, err = c.Connect(t.Context()); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("a second use: %v", err)
	}
	// What is none is not sent, and shows in no error.
	for _, bad := range []string{"", "a b", "a,b", "a\r\nX: y", strings.Repeat("x", 300)} {
		cfg.Ticket = func(context.Context) (string, error) { return bad, nil }
		c, err := client.New(cfg)
		must(t, err)
		if _, err = c.Connect(t.Context()); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	// Without a key there is nothing else to do.
	if _, err := c.Sessions(t.Context(), "call"); err == nil {
		t.Error("listed sessions without a key")
	}
	cfg.Ticket = nil
	if _, err := client.New(cfg); err == nil {
		t.Error("neither key nor ticket: no error")
	}
}
