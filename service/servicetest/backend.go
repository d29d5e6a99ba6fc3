// Package servicetest has what tests of a whole server need: a backend that speaks to it over real
// connections, relays for end users made of pion, and breaks its connections in every way.
package servicetest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// A Message is one that the server sent, with the link it came over.
type Message struct {
	Link *Link
	wire.ServerMessage
}

// Backend is a client of a server. Its methods are safe for concurrent use.
type Backend struct {
	Addr string // of the server, host:port
	ID   string
	Key  string

	http *http.Client

	mu        sync.Mutex
	endpoints map[string]*rtctest.Endpoint
	messages  []Message
	changed   chan struct{} // closed and replaced with each message and each link's end
	link      *Link         // takes what end users signal; nil: it is kept
	kept      [][]byte
}

// NewBackend makes a backend with a key of its own that is not registered yet.
func NewBackend(t testing.TB, addr, id string) *Backend {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &Backend{
		Addr: addr, ID: id, Key: KeyOf(id),
		http:      &http.Client{Transport: transport},
		endpoints: make(map[string]*rtctest.Endpoint),
		changed:   make(chan struct{}),
	}
}

// KeyOf is the authKey that backends of that id use.
func KeyOf(id string) string { return "key-of-" + id + "-" + strings.Repeat("k", 32) }

// Register registers the backend and fails the test if that is refused.
func (b *Backend) Register(t testing.TB) {
	t.Helper()
	body := fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, b.ID, b.Key)
	if status, text := b.Do(t, http.MethodPost, "/register", "", body); status != http.StatusCreated {
		t.Fatalf("register %s: %d %s", b.ID, status, text)
	}
}

// Basic is the value of the Authorization header with the backend's key.
func (b *Backend) Basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(b.ID+":"+b.Key))
}

// Do makes a request and returns the status and the body.
func (b *Backend) Do(t testing.TB, method, path, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+b.Addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read body: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// Get asks for a path with the backend's key.
func (b *Backend) Get(t testing.TB, path string) (int, string) {
	t.Helper()
	return b.Do(t, http.MethodGet, path, b.Basic(), "")
}

// Use makes l the link that end users' signalling goes over, and sends what was kept; nil keeps.
func (b *Backend) Use(l *Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link = l
	if l == nil {
		return
	}
	for _, data := range b.kept {
		l.Send(data)
	}
	b.kept = nil
}

// Send sends over the link in use, in order, or keeps the message until there is one.
func (b *Backend) Send(data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == nil {
		b.kept = append(b.kept, data)
		return
	}
	b.link.Send(data)
}

// Join makes an end user and joins it to a call. It is not connected yet.
func (b *Backend) Join(t testing.TB, call, session string, cfg rtctest.EndpointConfig) *rtctest.Endpoint {
	t.Helper()
	cfg.Send = func(st wire.SignalType, data []byte) {
		b.Send(wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: st, Data: data}))
	}
	e, err := rtctest.NewEndpoint(cfg)
	if err != nil {
		t.Fatalf("make end user: %v", err)
	}
	t.Cleanup(e.Close)
	b.mu.Lock()
	b.endpoints[session] = e
	b.mu.Unlock()
	b.Send(wire.AppendJoin(nil, wire.Join{
		CallID: call, UserID: "user-" + session, SessionID: session, DCSignaling: &cfg.ChannelSignalling,
	}))
	return e
}

// Person is an end user that has joined, is connected and has its microphone on.
func (b *Backend) Person(ctx context.Context, t testing.TB, call, session string, cfg rtctest.EndpointConfig) *rtctest.Endpoint {
	t.Helper()
	e := b.Join(t, call, session, cfg)
	if err := e.Connect(ctx); err != nil {
		t.Fatalf("%s/%s: connect: %v", b.ID, session, err)
	}
	if err := e.Publish(ctx, "voice_"+session); err != nil {
		t.Fatalf("%s/%s: publish: %v", b.ID, session, err)
	}
	return e
}

// received takes a message in and hands it to the end user it is for.
func (b *Backend) received(l *Link, m wire.ServerMessage) {
	b.mu.Lock()
	b.messages = append(b.messages, Message{Link: l, ServerMessage: m})
	e := b.endpoints[m.Signal.SessionID]
	b.notifyLocked()
	b.mu.Unlock()
	if e != nil && m.Type == "rtc" {
		e.Signal(m.Signal.Type, m.Signal.Data)
	}
}

func (b *Backend) notifyLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Messages returns all that came so far.
func (b *Backend) Messages() []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Message(nil), b.messages...)
}

// Of returns the messages of a session, closes included.
func (b *Backend) Of(session string) []Message {
	var out []Message
	for _, m := range b.Messages() {
		if m.SessionID == session || m.Signal.SessionID == session {
			out = append(out, m)
		}
	}
	return out
}

// News is what a session had to say but for ICE: "offer", "answer", "on", "off" and "close".
func (b *Backend) News(session string) []string {
	var out []string
	for _, m := range b.Of(session) {
		switch {
		case m.Type == "close":
			out = append(out, "close")
		case m.Signal.Type == wire.SignalVoiceOn:
			out = append(out, "on")
		case m.Signal.Type == wire.SignalVoiceOff:
			out = append(out, "off")
		case m.Signal.Type == wire.SignalSDP:
			d, err := wire.ParseDescription(m.Signal.Data)
			if err != nil {
				out = append(out, err.Error())
				continue
			}
			out = append(out, d.Type)
		}
	}
	return out
}

// Await waits until ok, which is asked again after each message and each end of a link.
func (b *Backend) Await(ctx context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
