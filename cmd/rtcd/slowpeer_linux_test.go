package main

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// A peer that never finishes its request delays the end, by 10 s at most, and does not spoil it;
// nor does it delay what backends are told.
func TestStopWithARequestThatNeverEnds(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir(), "RTCD_SHUTDOWN_DRAINDEADLINE=1ms")
	r := c.connect(t, "c1")
	call(ctx, t, r)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.api))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The server says that it has begun to read the body.
	const request = "POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.signal(t, syscall.SIGTERM)
	for _, session := range []string{"s1", "s2"} {
		if err := r.AwaitClosed(ctx, session); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("backends were told after %v", d)
	}
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	t.Logf("ended after %v", time.Since(began))
}

// Nor does a backend that has vanished without a word.
func TestStopWithABackendThatIsGone(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir(), "RTCD_SHUTDOWN_DRAINDEADLINE=1ms")
	b := servicetest.NewBackend(t, fmt.Sprintf("127.0.0.1:%d", c.api), "c1")
	b.Register(t)
	l := b.Dial(t)
	b.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	l.Deafen(t)
	began := time.Now()
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	t.Logf("ended after %v", time.Since(began))
}
