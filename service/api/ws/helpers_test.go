package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"rtcd/service/api/internal/stream"
	"rtcd/service/api/wire"
	"rtcd/service/api/ws"
	"rtcd/service/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that has to happen.
const patience = 20 * time.Second

type key struct{ group, session string }

// fakeCalls keeps sessions per (group, session) and records what reaches them.
type fakeCalls struct {
	mu      sync.Mutex
	live    map[key]string // call
	events  []string
	signals map[key][]string
	onJoin  func(group string, j wire.Join) error // before the session exists
	onMod   func(p ws.Peer, m wire.Moderate) error
	joined  func(group string, j wire.Join) // after it exists, before Join returns
	signal  func(group, session string)
	changed chan struct{}
}

func newFakeCalls() *fakeCalls {
	return &fakeCalls{live: make(map[key]string), signals: make(map[key][]string), changed: make(chan struct{}, 1)}
}

func (f *fakeCalls) note(event string) {
	f.events = append(f.events, event)
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fakeCalls) Join(p ws.Peer, j wire.Join) error {
	group := p.ClientID
	if f.onJoin != nil {
		if err := f.onJoin(group, j); err != nil {
			return err
		}
	}
	f.mu.Lock()
	k := key{group, j.SessionID}
	if _, ok := f.live[k]; !ok {
		f.live[k] = j.CallID
		f.note("join " + group + "/" + j.SessionID)
	} else {
		f.note("duplicate " + group + "/" + j.SessionID)
	}
	f.mu.Unlock()
	if f.joined != nil {
		f.joined(group, j)
	}
	return nil
}

func (f *fakeCalls) Leave(group, session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.live[key{group, session}]; ok {
		delete(f.live, key{group, session})
		f.note("leave " + group + "/" + session)
	} else {
		f.note("leave of nothing " + group + "/" + session)
	}
}

func (f *fakeCalls) Moderate(p ws.Peer, m wire.Moderate) error {
	f.mu.Lock()
	f.note(fmt.Sprintf("%s %s/%s %s%s", m.Action, p.ClientID, m.CallID, m.SessionID, m.StreamID))
	f.mu.Unlock()
	if f.onMod != nil {
		return f.onMod(p, m)
	}
	return nil
}

var errNoSession = errors.New("no such session")

func (f *fakeCalls) Signal(group, session string, s wire.Signal) error {
	if f.signal != nil {
		f.signal(group, session)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	k := key{group, session}
	if _, ok := f.live[k]; !ok {
		f.note("signal to nothing " + group + "/" + session)
		return errNoSession
	}
	f.signals[k] = append(f.signals[k], string(s.Data))
	f.note("signal " + group + "/" + session)
	return nil
}

func (f *fakeCalls) Exists(group, session string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.live[key{group, session}]
	return ok
}

// await waits until event was noted n times.
func (f *fakeCalls) await(t *testing.T, event string, n int) {
	t.Helper()
	timeout := time.After(patience)
	for {
		f.mu.Lock()
		seen := 0
		for _, e := range f.events {
			if e == event {
				seen++
			}
		}
		f.mu.Unlock()
		if seen >= n {
			return
		}
		select {
		case <-f.changed:
		case <-timeout:
			t.Fatalf("event %q: got %d, want %d", event, seen, n)
		}
	}
}

// A rig is a Server on a loopback listener. The client of a request is its user name.
type rig struct {
	*ws.Server
	calls   *fakeCalls
	metrics *metrics.Metrics
	addr    string
	logs    *lockedBuffer
	peer    func(clientID string) ws.Peer // of a new connection
}

type lockedBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	longest int // line
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, len(p))
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t testing.TB, cfg ws.Config, wrap ...func(net.Listener) net.Listener) *rig {
	t.Helper()
	r := &rig{calls: newFakeCalls(), metrics: metrics.New(), logs: &lockedBuffer{}}
	r.Server = ws.New(cfg, r.calls, r.metrics, slog.New(slog.NewTextHandler(r.logs, nil)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	ln = stream.Listener(ln)
	for _, w := range wrap {
		ln = w(ln)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id, _, _ := req.BasicAuth()
		p := ws.Peer{ClientID: id}
		if r.peer != nil {
			p = r.peer(id)
		}
		r.Serve(w, req, p)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = r.Close(ctx) // clients that do not read are cut
		_ = srv.Close()
		<-served
	})
	return r
}

// A backend is a test client.
type backend struct {
	*websocket.Conn
	t      *testing.T
	tcp    *net.TCPConn
	connID string
}

func basic(id string) http.Header {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(id, "key")
	return r.Header
}

// dial connects and takes the hello.
func (r *rig) dial(t *testing.T, clientID string) *backend {
	t.Helper()
	b, resp, err := r.tryDial(clientID, nil)
	if err != nil {
		t.Fatalf("dial: %v (%v)", err, resp)
	}
	b.t = t
	t.Cleanup(func() { _ = b.Close() })
	kind, data := b.read()
	if kind != "hello" || data["clientID"] != clientID {
		t.Fatalf("first message = %s %v, want hello of %s", kind, data, clientID)
	}
	b.connID = data["connID"].(string)
	return b
}

func (r *rig) tryDial(clientID string, header http.Header) (*backend, *http.Response, error) {
	b := &backend{}
	d := websocket.Dialer{HandshakeTimeout: patience, NetDial: func(network, _ string) (net.Conn, error) {
		c, err := net.Dial(network, r.addr)
		if err == nil {
			b.tcp = c.(*net.TCPConn)
		}
		return c, err
	}}
	h := basic(clientID)
	for k, v := range header {
		h[k] = v
	}
	conn, resp, err := d.Dial("ws://"+r.addr+"/ws", h)
	b.Conn = conn
	if resp != nil && err != nil {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	return b, resp, err
}

// decode takes a message apart with an independent decoder.
func decode(p []byte) (kind string, data map[string]any, err error) {
	d := msgpack.NewDecoder(bytes.NewReader(p))
	if kind, err = d.DecodeString(); err != nil {
		return "", nil, err
	}
	data, err = d.DecodeMap()
	return kind, data, err
}

// read returns the next message.
func (b *backend) read() (kind string, data map[string]any) {
	b.t.Helper()
	_ = b.SetReadDeadline(time.Now().Add(patience))
	_, p, err := b.ReadMessage()
	if err != nil {
		b.t.Fatalf("read: %v", err)
	}
	kind, data, err = decode(p)
	if err != nil {
		b.t.Fatalf("decode %x: %v", p, err)
	}
	return kind, data
}

// readEnd reads until the connection ends and returns what came before.
func (b *backend) readEnd() (payloads []string, err error) {
	_ = b.SetReadDeadline(time.Now().Add(patience))
	for {
		_, p, err := b.ReadMessage()
		if err != nil {
			return payloads, err
		}
		kind, data, err := decode(p)
		if err != nil {
			return payloads, err
		}
		if kind == "rtc" {
			payloads = append(payloads, string(data["data"].([]byte)))
		} else {
			payloads = append(payloads, kind)
		}
	}
}

func message(kind string, data any) []byte {
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	if err := errors.Join(e.EncodeString(kind), e.Encode(data)); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func (b *backend) send(kind string, data any) { b.sendRaw(message(kind, data)) }

func (b *backend) sendRaw(p []byte) {
	b.t.Helper()
	if err := b.WriteMessage(websocket.BinaryMessage, p); err != nil {
		b.t.Fatalf("write: %v", err)
	}
}

func (b *backend) join(session string) {
	b.t.Helper()
	b.send("join", map[string]any{"callID": "call", "userID": "user", "sessionID": session})
}

func sessionMap(session string) map[string]string { return map[string]string{"sessionID": session} }

func rtcMap(session, data string) map[string]any {
	return map[string]any{"group_id": "", "user_id": "", "session_id": session, "call_id": "", "type": 2, "data": []byte(data)}
}

// rtc sends a message of a session to its client.
func (r *rig) rtc(client, session, data string) {
	r.Send(client, session, ws.Outbound{Kind: ws.RTC, Signal: wire.Signal{
		GroupID: client, UserID: "user", SessionID: session, CallID: "call", Type: 2, Data: []byte(data),
	}})
}

// expect reads one rtc message of a session.
func (b *backend) expect(session, data string) {
	b.t.Helper()
	kind, m := b.read()
	if got, _ := m["data"].([]byte); kind != "rtc" || m["session_id"] != session || string(got) != data {
		b.t.Fatalf("got %s %v, want rtc of %s with %q", kind, m, session, data)
	}
}

// expectClose reads the close of a session.
func (b *backend) expectClose(session string) {
	b.t.Helper()
	kind, m := b.read()
	if kind != "close" || m["sessionID"] != session {
		b.t.Fatalf("got %s %v, want close of %s", kind, m, session)
	}
}

// eventually polls what has no event.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// value gathers one sample; absent series are 0.
func (r *rig) value(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := r.metrics.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue next
				}
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return 0
}
