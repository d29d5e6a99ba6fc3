//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/build/fire/field"
	"rtcd/build/fire/load"
	"rtcd/client"
	"rtcd/service/api/wire"
)

var stalledReader = scenario{
	id: "F10", title: "a backend does not read its WebSocket, and floods it", promises: []string{"P5"},
	criterion: "signalling of others takes at most 50 ms (p99) more; the connection is closed; no call broken, nothing lost",
	run: func(ctx context.Context, t *trial) error {
		f, p, err := t.started(ctx, "atk")
		if err != nil {
			return err
		}
		before, err := signalling(ctx, t, p.Backends[0], t.of(40, 400))
		if err != nil {
			return err
		}
		w, err := p.Mark(ctx)
		if err != nil {
			return err
		}
		attacks, stop := context.WithCancel(ctx)
		defer stop()
		closed := make(chan time.Duration, 1)
		go func() { closed <- stall(attacks, p.Server, f.Host("atk")) }()
		during, err := signalling(ctx, t, p.Backends[0], t.least(100, 200, 2000))
		if err != nil {
			return err
		}
		var took time.Duration
		select {
		case took = <-closed:
		case <-time.After(40 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		figures, err := w.Measure(ctx, 5*time.Second)
		if err != nil {
			return err
		}
		t.worst(figures)
		t.result.Count = 1
		b99, d99 := percentile(before, 99), percentile(during, 99)
		t.result.More["signalling_ms_p99_before"], t.result.More["signalling_ms_p99"] = ms(b99), ms(d99)
		t.result.More["closed_after_ms"] = took.Milliseconds()
		t.say("signalling p99 %v before, %v during; closed after %v", b99, d99, took)
		kept := t.within(d99-b99, 50*time.Millisecond, "signalling of others takes %v (p99), %v before", d99, b99)
		kept = t.expect(took > 0, "the stalled connection was not closed within 40 s") && kept
		kept = t.unbroken(figures) && kept
		kept = t.lossless(figures, 0) && kept
		t.promise("P5", kept, len(during), "exchanges of another backend beside a stalled one", "p99 %.1f ms, %.1f ms before", ms(d99), ms(b99))
		return t.leaveIdle(ctx, p)
	},
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// signalling measures how long a backend waits for the answer to a leave.
func signalling(ctx context.Context, t *trial, b *load.Backend, n int) ([]time.Duration, error) {
	var took []time.Duration
	for i := range n {
		session := fmt.Sprintf("ping-%d-%d", time.Now().UnixNano(), i)
		if err := b.Conn.Join(client.Join{CallID: "ping", UserID: "u", SessionID: session}); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := b.Conn.Leave(session); err != nil {
			return nil, err
		}
		within, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := b.Await(within, func() bool { return b.HasClosed(session) })
		cancel()
		if err != nil {
			return nil, fmt.Errorf("no answer to a leave: %w", err)
		}
		took = append(took, time.Since(began))
		b.Forget()
		if err := t.wait(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// stall opens a WebSocket from a host, makes the server answer a lot, never reads, and returns after
// how long the server closed it.
func stall(ctx context.Context, s *load.Server, host *field.Namespace) time.Duration {
	r := registration{"staller", strings.Repeat("s", 40)}
	c, err := plainClient(s, host, r)
	if err != nil || c.Register(ctx) != nil {
		return 0
	}
	c.CloseIdleConnections()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := host.DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		return conn, err
	}}
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(r.id+":"+r.key))
	ws, _, err := dialer.DialContext(ctx, "ws://"+s.API().String()+"/ws", http.Header{"Authorization": {auth}})
	if err != nil {
		return 0
	}
	defer func() { _ = ws.Close() }()
	began := time.Now()
	id := strings.Repeat("x", 100)
	for i := 0; ctx.Err() == nil; i++ {
		session := fmt.Sprintf("%s-%06d", id, i)
		_ = ws.SetWriteDeadline(time.Now().Add(time.Second))
		err := ws.WriteMessage(websocket.BinaryMessage, wire.AppendJoin(nil, wire.Join{CallID: "c" + id, UserID: "u" + id, SessionID: session}))
		if err == nil {
			err = ws.WriteMessage(websocket.BinaryMessage, wire.AppendLeave(nil, session))
		}
		if err == nil {
			continue
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			// The server does not read on while it cannot write. Gorilla takes no more after a timeout:
			// wait for the end of the connection itself.
			return awaitEnd(ctx, ws.NetConn(), began)
		}
		return time.Since(began)
	}
	return 0
}

// awaitEnd waits until the peer has closed a connection that is not read, and returns how long after
// began that was.
func awaitEnd(ctx context.Context, conn net.Conn, began time.Time) time.Duration {
	for ctx.Err() == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := conn.Write([]byte{0})
		if ne, ok := err.(net.Error); err != nil && !(ok && ne.Timeout()) {
			return time.Since(began)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return 0
}
