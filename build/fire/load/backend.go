//go:build linux

package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"rtcd/build/fire/field"
	"rtcd/client"
	"rtcd/service/api/wire"
)

// Backend is one that speaks for people, through package client, from a namespace of its own.
type Backend struct {
	Name   string
	Host   *field.Namespace
	Client *client.Client
	Conn   *client.Conn

	key  string
	done chan struct{}

	mu     sync.Mutex
	socket *net.TCPConn // of the WebSocket that was dialled last
	people map[string]*Person
	closed []client.Closed
	voice  map[string][]bool // by session: on, off, as they were told
	downAt time.Time         // when the last connection was lost
	upAt   time.Time         // when the last one was made
	drops  int
	change chan struct{} // closed and replaced with each event
}

// NewBackend makes a backend that is registered and connected.
func NewBackend(ctx context.Context, s *Server, host *field.Namespace, name string) (*Backend, error) {
	b := &Backend{
		Name: name, Host: host, key: rand.Text() + rand.Text(), done: make(chan struct{}),
		people: make(map[string]*Person), voice: make(map[string][]bool), change: make(chan struct{}),
	}
	c, err := client.New(client.Config{
		URL: s.URL(), ClientID: name, AuthKey: b.key, AutoRegister: true,
		DialContext: b.dial, TLS: anybody(),
		HTTPClient: &http.Client{
			Timeout:   10 * time.Second,
			Transport: &http.Transport{DialContext: host.DialContext, IdleConnTimeout: 20 * time.Second, TLSClientConfig: anybody()},
		},
		MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Second,
		SendQueue: 1 << 16, SendQueueBytes: 1 << 26, EventBuffer: 1 << 14,
	})
	if err != nil {
		return nil, fmt.Errorf("make backend %s: %w", name, err)
	}
	b.Client = c
	if b.Conn, err = c.Connect(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("connect backend %s: %w", name, err)
	}
	go func() {
		defer close(b.done)
		for e := range b.Conn.Events() {
			b.event(e)
		}
	}()
	return b, nil
}

// Key is the backend's.
func (b *Backend) Key() string { return b.key }

// dial opens the connection of the WebSocket and keeps it for those who want to break it.
func (b *Backend) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := b.Host.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		b.mu.Lock()
		b.socket = tcp
		b.mu.Unlock()
	}
	return conn, nil
}

func (b *Backend) event(e client.Event) {
	var to *Person
	b.mu.Lock()
	switch e := e.(type) {
	case client.Description:
		to = b.people[e.SessionID]
	case client.Candidate:
		to = b.people[e.SessionID]
	case client.Closed:
		b.closed = append(b.closed, e)
	case client.Voice:
		b.voice[e.SessionID] = append(b.voice[e.SessionID], e.On)
	case client.Disconnected:
		b.downAt = time.Now()
		b.drops++
	case client.Connected:
		b.upAt = time.Now()
	}
	close(b.change)
	b.change = make(chan struct{})
	b.mu.Unlock()
	if to == nil {
		return
	}
	switch e := e.(type) {
	case client.Description:
		to.endpoint().Signal(wire.SignalSDP, e.Data)
	case client.Candidate:
		to.endpoint().Signal(wire.SignalICE, e.Data)
	}
}

// Socket is the connection of the WebSocket.
func (b *Backend) Socket() *net.TCPConn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.socket
}

// Drops returns how many connections were lost so far.
func (b *Backend) Drops() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drops
}

// Up returns when the connection that there is was made, if there is one.
func (b *Backend) Up() (since time.Time, up bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.upAt, b.upAt.After(b.downAt)
}

// Voice returns what was told of a session's voice: on and off, in order.
func (b *Backend) Voice(session string) []bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]bool(nil), b.voice[session]...)
}

// Closed returns the ends of sessions that were told.
func (b *Backend) Closed() []client.Closed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]client.Closed(nil), b.closed...)
}

// Await waits until ok, which is asked again after each event.
func (b *Backend) Await(ctx context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		change := b.change
		b.mu.Unlock()
		if ok() {
			return nil
		}
		select {
		case <-change:
		case <-b.done:
			return errors.New("the backend's connection has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends the backend's connection.
func (b *Backend) Close() {
	_ = b.Conn.Close()
	<-b.done
	b.Client.CloseIdleConnections()
}

// HasClosed reports whether the end of a session was told.
func (b *Backend) HasClosed(session string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.closed) - 1; i >= 0; i-- {
		if b.closed[i].SessionID == session {
			return true
		}
	}
	return false
}

// Forget forgets the last end of a session that was told, which was meant.
func (b *Backend) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = b.closed[:len(b.closed)-1]
}
