package rtctest

import (
	"context"
	"sync"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/service/api/wire"
)

// Remote is a backend that relays between a server elsewhere and endpoints, over its WebSocket.
type Remote struct {
	Conn *client.Conn

	mu        sync.Mutex
	endpoints map[string]*Endpoint
	events    []client.Event
	changed   chan struct{}
	done      chan struct{}
}

// NewRemote relays for a connection until that ends, at the latest with the test.
func NewRemote(t testing.TB, conn *client.Conn) *Remote {
	r := &Remote{
		Conn: conn, endpoints: make(map[string]*Endpoint),
		changed: make(chan struct{}), done: make(chan struct{}),
	}
	go func() {
		defer close(r.done)
		for e := range conn.Events() {
			r.event(e)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-r.done
	})
	return r
}

func (r *Remote) event(e client.Event) {
	var to *Endpoint
	r.mu.Lock()
	r.events = append(r.events, e)
	switch e := e.(type) {
	case client.Description:
		to = r.endpoints[e.SessionID]
	case client.Candidate:
		to = r.endpoints[e.SessionID]
	}
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if to == nil {
		return
	}
	switch e := e.(type) {
	case client.Description:
		to.Signal(wire.SignalSDP, e.Data)
	case client.Candidate:
		to.Signal(wire.SignalICE, e.Data)
	}
}

// Join makes an endpoint that has joined a call but not connected. It ends with the test.
func (r *Remote) Join(t testing.TB, call, session string, cfg EndpointConfig) *Endpoint {
	t.Helper()
	return r.JoinAs(t, client.Join{CallID: call, UserID: "user-" + session, SessionID: session}, cfg)
}

// JoinAs is Join for a join that says more, such as a token.
func (r *Remote) JoinAs(t testing.TB, j client.Join, cfg EndpointConfig) *Endpoint {
	t.Helper()
	j.DCSignaling = cfg.ChannelSignalling
	cfg.Send = func(st wire.SignalType, data []byte) { _ = r.Conn.SendSignal(j.SessionID, st, data) }
	e, err := NewEndpoint(cfg)
	if err != nil {
		t.Fatalf("make endpoint: %v", err)
	}
	t.Cleanup(e.Close)
	r.mu.Lock()
	r.endpoints[j.SessionID] = e
	r.mu.Unlock()
	if err := r.Conn.Join(j); err != nil {
		t.Fatalf("join: %v", err)
	}
	return e
}

// Events returns what came so far.
func (r *Remote) Events() []client.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]client.Event(nil), r.events...)
}

// Await waits until ok holds of what came.
func (r *Remote) Await(ctx context.Context, ok func([]client.Event) bool) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if ok(r.Events()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AwaitClosed waits for the end of a session.
func (r *Remote) AwaitClosed(ctx context.Context, session string) error {
	return r.Await(ctx, func(events []client.Event) bool {
		for _, e := range events {
			if c, ok := e.(client.Closed); ok && c.SessionID == session {
				return true
			}
		}
		return false
	})
}

// Talk sends a packet of every endpoint each 20 ms until the function returned is called.
func Talk(t testing.TB, all map[string]*Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			for name, e := range all {
				if err := e.SendVoice(name, n, 30); err != nil && ctx.Err() == nil {
					t.Errorf("%s: send: %v", name, err)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(stop)
	return stop
}
