package stream

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns both ends of a loopback connection.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = Listener(ln)
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), peer.Close() })
	return c.(*Conn), peer.(*net.TCPConn)
}

func TestOf(t *testing.T) {
	c, peer := pair(t)
	if Of(c) != c || Of(tls.Server(c, nil)) != c {
		t.Error("the connection is not found")
	}
	if Of(peer) != nil || Of(nil) != nil || Of(tls.Client(peer, nil)) != nil {
		t.Error("found where there is none")
	}
}

func TestAllReadIsAcknowledged(t *testing.T) {
	c, peer := pair(t)
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = c.Write(make([]byte, 100_000))
	}()
	if _, err := io.ReadFull(peer, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	<-written
	if got := c.Settle(5 * time.Second); got != 100_000 || c.Written() != 100_000 {
		t.Errorf("%d of %d acknowledged, want all", got, c.Written())
	}
}

func TestAbortEndsWaiting(t *testing.T) {
	c, _ := pair(t)
	ended := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := c.Write(make([]byte, 64<<20)); ended <- err }()
	c.Abort()
	for range 2 {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	}
	for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
		if err := set(time.Time{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline set after Abort counts: %v", err)
	}
}

func TestDiscardThrowsTheRestAway(t *testing.T) {
	c, peer := pair(t)
	_ = peer.SetReadBuffer(4096)
	_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	n, err := c.Write(make([]byte, 64<<20)) // until the kernel takes no more
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.Written() != int64(n) {
		t.Fatalf("wrote %d, counted %d: %v", n, c.Written(), err)
	}
	acked := c.Settle(50 * time.Millisecond)
	if acked >= int64(n) {
		t.Skip("this system cannot tell what was acknowledged")
	}
	c.Discard()
	got, _ := io.Copy(io.Discard, peer)
	if got != acked {
		t.Errorf("the peer got %d bytes, acknowledged were %d of %d", got, acked, n)
	}
}
