package service_test

import (
	"testing"
	"time"

	"rtcd/config"
)

// TestSessionsOfGoneBackendEnd shows F12: while a backend is away its calls go on, and after the time that
// is set they end; the backend is told if it does come back.
func TestSessionsOfGoneBackendEnd(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, func(c *config.Config) { c.API.Limits.OrphanedAfter = 2 * time.Second })
	r := connect(t, s.url, "c1")
	people(ctx, t, r, "call", "alice")
	begin := time.Now()
	_ = r.Conn.Close()
	for {
		status, body := request(t, "GET", s.url+"/calls/call/sessions", "c1", key, "")
		if status == 404 {
			break
		}
		if status != 200 || ctx.Err() != nil {
			t.Fatalf("sessions: %d %s", status, body)
		}
		time.Sleep(20 * time.Millisecond) // there is no connection on which to be told
	}
	if d := time.Since(begin); d < 2*time.Second || d > 7*time.Second {
		t.Errorf("ended after %v, want 2 s to 7 s", d)
	}
	if err := connect(t, s.url, "c1").AwaitClosed(ctx, "alice"); err != nil {
		t.Errorf("who comes back is not told: %v", err)
	}
}
