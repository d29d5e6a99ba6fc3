package client

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
)

func TestOwnDialer(t *testing.T) {
	s := newFakeServer(t)
	cfg := s.config()
	cfg.HTTPClient = nil
	var dialled atomic.Int32
	cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	conn, _ := connect(t, s, cfg)
	if got := dialled.Load(); got != 1 {
		t.Errorf("the WebSocket took %d connections of the dialer, want 1", got)
	}
	if _, err := conn.client.System(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer conn.client.CloseIdleConnections()
	if got := dialled.Load(); got != 2 {
		t.Errorf("with a request there were %d connections of the dialer, want 2", got)
	}
}
