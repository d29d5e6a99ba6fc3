package service_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/rtc/rtctest"
)

// newKey is what keys are changed to.
const newKey = "another key of a backend, also long enough"

// withAdmin gives a server the listener for its operator.
func withAdmin(c *config.Config) { c.API.Admin.ListenAddress = "127.0.0.1:0" }

// adminURL is where the operator's listener is.
func (s *server) adminURL(t *testing.T) string {
	t.Helper()
	for _, l := range s.Listeners() {
		if l.Name == "admin" {
			return "http://" + l.Address
		}
	}
	t.Fatal("no admin listener")
	return ""
}

func basic(id, key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+key))
}

// A caller makes requests with the same credentials.
type caller struct {
	t             *testing.T
	url           string
	authorization string       // header; empty for none
	http          *http.Client // nil: the default one
}

// operator is who has the admin key.
func (s *server) operator(t *testing.T) caller {
	t.Helper()
	return caller{t: t, url: s.adminURL(t), authorization: basic("", adminKey)}
}

// as is a client that has that key.
func (s *server) as(t *testing.T, id, key string) caller {
	return caller{t: t, url: s.url, authorization: basic(id, key)}
}

// registered is a client with the usual key, which it has registered.
func (s *server) registered(t *testing.T, id string) caller {
	t.Helper()
	c := s.as(t, id, key)
	body := fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key)
	if r := (caller{t: t, url: s.url}).do("POST", "/register", body); r.status != http.StatusCreated {
		t.Fatalf("register %s: %d %s", id, r.status, r.body)
	}
	return c
}

// A reply is what a request was answered with.
type reply struct {
	status int
	body   string
	header http.Header
}

// try makes a request; its error is that of the connection.
func (c caller) try(method, path, body string) (reply, error) {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if c.authorization != "" {
		req.Header.Set("Authorization", c.authorization)
	}
	doer := c.http
	if doer == nil {
		doer = http.DefaultClient
	}
	resp, err := doer.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, string(text), resp.Header}, err
}

func (c caller) do(method, path, body string) reply {
	c.t.Helper()
	r, err := c.try(method, path, body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// must makes a request that has to be answered with a status.
func (c caller) must(status int, method, path, body string) reply {
	c.t.Helper()
	r := c.do(method, path, body)
	if r.status != status {
		c.t.Fatalf("%s %s: %d %s, want %d", method, path, r.status, r.body, status)
	}
	return r
}

// refused makes a request that has to be refused with a status and a reason.
func (c caller) refused(status int, reason, method, path, body string) reply {
	c.t.Helper()
	r := c.do(method, path, body)
	if r.status != status || r.field("reason") != reason {
		c.t.Errorf("%s %s %.100s: %d %s, want %d %s", method, path, body, r.status, r.body, status, reason)
	}
	return r
}

// field is a string of the answer's object, "" if it has none of that name.
func (r reply) field(name string) string {
	var all map[string]any
	if json.Unmarshal([]byte(r.body), &all) != nil {
		return ""
	}
	text, _ := all[name].(string)
	return text
}

// A callInfo is what GET /calls/{callID} says.
type callInfo struct {
	CallID                                string
	Participants, Publishers, Subscribers int
	Streams                               []struct {
		ID, Source, SessionID string
		Subscribers           int
		Muted                 bool
	}
}

func (c caller) callInfo(call string) callInfo {
	c.t.Helper()
	var info callInfo
	r := c.must(http.StatusOK, "GET", "/calls/"+call, "")
	if err := json.Unmarshal([]byte(r.body), &info); err != nil {
		c.t.Fatalf("%v in %s", err, r.body)
	}
	return info
}

// stream is the id of what a session publishes, once it does.
func (c caller) stream(ctx context.Context, call, session, source string) (id string) {
	c.t.Helper()
	eventually(ctx, c.t, session+" publishes "+source, func() bool {
		for _, s := range c.callInfo(call).Streams {
			if s.SessionID == session && s.Source == source {
				id = s.ID
			}
		}
		return id != ""
	})
	return id
}

// dial opens the WebSocket of a client that speaks v2 if asked to.
func (c caller) dial(id, key string, v2 bool) *rtctest.Remote {
	c.t.Helper()
	cl, err := client.New(client.Config{
		URL: c.url, ClientID: id, AuthKey: key, V2: v2, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.CloseIdleConnections)
	conn, err := cl.Connect(context.Background())
	if err != nil {
		c.t.Fatalf("connect as %s: %v", id, err)
	}
	return rtctest.NewRemote(c.t, conn)
}

// eventually polls for what has no event.
func eventually(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

// A watch tells how a WebSocket ended.
type watch struct {
	ended chan struct{}
	err   error // once ended
	at    time.Time
}

// watchEnd reads a WebSocket until it ends.
func watchEnd(c *websocket.Conn) *watch {
	w := &watch{ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for w.err == nil {
			_, _, w.err = c.ReadMessage()
		}
		w.at = time.Now()
	}()
	return w
}

func (w *watch) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// cut checks that the WebSocket ends as revoked within a second after a time.
func (w *watch) cut(ctx context.Context, t *testing.T, after time.Time) {
	t.Helper()
	select {
	case <-w.ended:
	case <-ctx.Done():
		t.Fatal("the connection is still open")
	}
	if !websocket.IsCloseError(w.err, 4401) {
		t.Errorf("the connection ended with %v, want code 4401", w.err)
	}
	if d := w.at.Sub(after); d > time.Second {
		t.Errorf("the connection ended after %v, want a second at most", d)
	}
}

// unbroken checks that all of what e heard of a sender came, in order and unchanged.
func unbroken(t *testing.T, e *rtctest.Endpoint, sender string) {
	t.Helper()
	h := e.Heard(sender)
	if h.Gaps > 0 || h.Bad > 0 || h.Packets == 0 {
		t.Errorf("%d packets of %s, %d gaps, %d changed", h.Packets, sender, h.Gaps, h.Bad)
	}
	for i := 1; i < len(h.Numbers); i++ {
		if h.Numbers[i] != h.Numbers[i-1]+1 {
			t.Fatalf("of %s packet %d came after %d", sender, h.Numbers[i], h.Numbers[i-1])
		}
	}
}

// reasons are those that were given for a session so far.
func reasons(r *rtctest.Remote, session string) []string {
	var out []string
	for _, e := range r.Events() {
		if e, ok := e.(client.ErrorEvent); ok && e.SessionID == session {
			out = append(out, e.Reason)
		}
	}
	return out
}

// awaitReason waits until a reason was given for a session.
func awaitReason(ctx context.Context, t *testing.T, r *rtctest.Remote, session, reason string) {
	t.Helper()
	if err := r.Await(ctx, func([]client.Event) bool { return slices.Contains(reasons(r, session), reason) }); err != nil {
		t.Fatalf("%s was told %q, want %s: %v", session, reasons(r, session), reason, err)
	}
}
