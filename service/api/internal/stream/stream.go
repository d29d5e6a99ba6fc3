// Package stream tells how much of what was written to a TCP connection its peer has
// acknowledged, so that whatever was not can be sent again elsewhere, and nothing twice.
package stream

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Listener wraps ln so that it returns connections of type *Conn. It belongs right on top of
// TCP, below TLS.
func Listener(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c}, nil
}

// Of finds the Conn below c, through TLS, or returns nil.
func Of(c net.Conn) *Conn {
	for c != nil {
		switch t := c.(type) {
		case *Conn:
			return t
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil
		}
	}
	return nil
}

// A Conn is a TCP connection that counts the bytes the kernel took and knows how many of them
// the peer acknowledged. Once aborted, reads and writes fail at once while the descriptor stays
// open, so that the state of the connection can still be read.
type Conn struct {
	net.Conn
	written atomic.Int64

	mu      sync.Mutex
	aborted bool // deadlines do not move any more
}

// Written returns how many bytes the kernel took.
func (c *Conn) Written() int64 { return c.written.Load() }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// CloseWrite sends what is written and then the end of the stream, as net/http does before it
// gives up a connection whose request it did not read to the end.
func (c *Conn) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return nil
}

// Abort makes all reads and writes fail from now on, also those that are waiting.
func (c *Conn) Abort() { c.AbortAt(time.Unix(1, 0)) }

// AbortAt makes all reads and writes fail from t on, also those that are waiting then.
func (c *Conn) AbortAt(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	_ = c.Conn.SetDeadline(t)
}

// SetDeadline implements net.Conn. It has no effect after Abort and AbortAt.
func (c *Conn) SetDeadline(t time.Time) error { return c.deadline(c.Conn.SetDeadline, t) }

// SetReadDeadline implements net.Conn. It has no effect after Abort.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(c.Conn.SetReadDeadline, t) }

// SetWriteDeadline implements net.Conn. It has no effect after Abort.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(c.Conn.SetWriteDeadline, t) }

func (c *Conn) deadline(set func(time.Time) error, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return nil
	}
	return set(t)
}

// Acknowledged returns how many of the written bytes are known to have reached the peer's TCP,
// and whether that number can still grow.
func (c *Conn) Acknowledged() (n int64, growing bool) {
	// In this order: bytes written in between make the result too small, never too large.
	written := c.written.Load()
	pending, growing, ok := unacknowledged(c.Conn)
	if !ok {
		return written, false
	}
	return max(written-pending, 0), growing && pending > 0
}

// Settle waits until the peer has acknowledged everything, or cannot any more, or wait is over,
// and returns how many bytes it acknowledged. There is no event for an acknowledgement.
func (c *Conn) Settle(wait time.Duration) int64 {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		n, growing := c.Acknowledged()
		if !growing {
			return n
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			n, _ := c.Acknowledged()
			return n
		}
	}
}

// Discard closes the connection. What the peer has not acknowledged by now is thrown away with
// a reset instead of being sent on behind our back: it will go out on another connection.
func (c *Conn) Discard() {
	if t, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Conn.Close()
}
