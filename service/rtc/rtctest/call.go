package rtctest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"rtcd/service/api/wire"
	"rtcd/service/metrics"
	"rtcd/service/rtc"
	"rtcd/service/rtc/engine"
)

// Backend relays between a server in this process and endpoints.
type Backend struct {
	Server  *rtc.Server
	Metrics *metrics.Metrics // of the server

	mu        sync.Mutex
	endpoints map[string]*Endpoint
	events    []rtc.Event
	changed   chan struct{}
}

// NewBackend starts a server on loopback ports of its own, or as change says, and ends it with
// the test.
func NewBackend(t testing.TB, change func(*rtc.Config)) *Backend {
	t.Helper()
	b := &Backend{endpoints: make(map[string]*Endpoint), changed: make(chan struct{})}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), FreePort(t))
	cfg := rtc.Config{
		UDPAddrs: []netip.AddrPort{addr},
		TCPAddrs: []netip.AddrPort{addr},
		Lite:     true,
		Engine:   engine.Config{Local: []netip.Addr{addr.Addr()}},
		Emit:     b.emit,
		Metrics:  metrics.New(),
	}
	if change != nil {
		change(&cfg)
	}
	server, err := rtc.NewServer(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	b.Server, b.Metrics = server, cfg.Metrics
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	return b
}

// FreePort returns a port that is free for UDP and TCP on loopback now.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a port: %v", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port that is free for both")
	return 0
}

func (b *Backend) emit(e rtc.Event) {
	b.mu.Lock()
	b.events = append(b.events, e)
	endpoint := b.endpoints[e.GroupID+"/"+e.SessionID]
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	if endpoint != nil && e.Kind == rtc.Signal {
		endpoint.Signal(e.Type, e.Data)
	}
}

// Events returns the events of a session so far.
func (b *Backend) Events(session string) []rtc.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []rtc.Event
	for _, e := range b.events {
		if e.SessionID == session {
			out = append(out, e)
		}
	}
	return out
}

// Await waits until ok holds of a session's events.
func (b *Backend) Await(ctx context.Context, session string, ok func([]rtc.Event) bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		if ok(b.Events(session)) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Join makes an endpoint that has joined a call but not connected. It ends with the test.
func (b *Backend) Join(t testing.TB, group, call, session string, cfg EndpointConfig) *Endpoint {
	t.Helper()
	return b.JoinWith(t, group, wire.Join{
		CallID: call, UserID: "user-" + session, SessionID: session, DCSignaling: &cfg.ChannelSignalling,
	}, cfg)
}

// JoinWith is Join with a join of the caller's.
func (b *Backend) JoinWith(t testing.TB, group string, j wire.Join, cfg EndpointConfig) *Endpoint {
	t.Helper()
	return b.JoinAs(t, group, j, rtc.Grant{}, cfg)
}

// JoinAs is JoinWith with a grant.
func (b *Backend) JoinAs(t testing.TB, group string, j wire.Join, g rtc.Grant, cfg EndpointConfig) *Endpoint {
	t.Helper()
	cfg.Send = func(st wire.SignalType, data []byte) {
		_ = b.Server.Signal(group, j.SessionID, wire.Signal{SessionID: j.SessionID, Type: st, Data: data})
	}
	e, err := NewEndpoint(cfg)
	if err != nil {
		t.Fatalf("make endpoint: %v", err)
	}
	t.Cleanup(e.Close)
	b.mu.Lock()
	b.endpoints[group+"/"+j.SessionID] = e
	b.mu.Unlock()
	if err := b.Server.JoinAs(group, j, g); err != nil {
		t.Fatalf("join: %v", err)
	}
	return e
}
