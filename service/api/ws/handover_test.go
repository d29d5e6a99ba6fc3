package ws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/service/api/ws"
)

// handOver ends r and returns a rig that goes on, by way of another process.
func (r *rig) handOver(t *testing.T, patience time.Duration) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	parked, err := r.HandOver(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	b, err := json.Marshal(parked)
	if err != nil {
		t.Fatal(err)
	}
	parked = nil
	if err := json.Unmarshal(b, &parked); err != nil {
		t.Fatal(err)
	}
	next := start(t, ws.Config{})
	next.Import(parked)
	return next
}

func TestSuccessorDeliversWhatIsParked(t *testing.T) {
	r := start(t, ws.Config{})
	r.away(t, "c1", "s1", "s2", "s3")
	for i := range 3 {
		r.rtc("c1", "s1", fmt.Sprint(i))
	}
	r.end("c1", "s1")
	r = r.handOver(t, patience).handOver(t, patience)
	r.rtc("c1", "s2", "after") // a session that was quiet is known as well
	got := r.drain(t, "c1")
	want := []string{"0", "1", "2", "close"}
	var s1 []string
	for _, k := range got {
		if k != "after" {
			s1 = append(s1, k)
		}
	}
	if fmt.Sprint(s1) != fmt.Sprint(want) || len(got) != 5 {
		t.Errorf("got %q", got)
	}
	r.rtc("c1", "s1", "late") // it is over
	if got := r.drain(t, "c1"); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// Clients are asked to close. What they have sent until then is handled, what they were sent arrives.
func TestHandOverReadsToTheEnd(t *testing.T) {
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	r.rtc("c1", "s1", "before")
	done := make(chan *rig)
	go func() { done <- r.handOver(t, patience) }()
	if kind, m := b.read(); kind != "rtc" || string(m["data"].([]byte)) != "before" {
		t.Fatalf("got %s", kind)
	}
	b.SetCloseHandler(func(code int, _ string) error {
		if code != websocket.CloseServiceRestart {
			t.Errorf("close code %d", code)
		}
		b.join("s2") // was on its way
		b.join("s3")
		return b.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(patience))
	})
	if _, _, err := b.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Errorf("read: %v", err)
	}
	next := <-done
	r.calls.await(t, "join c1/s2", 1)
	r.calls.await(t, "join c1/s3", 1)
	next.rtc("c1", "s3", "hello")
	if got := next.drain(t, "c1"); len(got) != 1 || got[0] != "hello" {
		t.Errorf("got %q", got)
	}
}

// Who does not close is cut in the end.
func TestHandOverDoesNotWaitForever(t *testing.T) {
	r := start(t, ws.Config{})
	b := r.dial(t, "c1")
	b.join("s1")
	r.calls.await(t, "join c1/s1", 1)
	r.rtc("c1", "s1", "unread")
	next := r.handOver(t, 50*time.Millisecond)
	next.rtc("c1", "s1", "next")
	// The system of the client has acknowledged the first message, whether it reads it or not.
	if got := next.drain(t, "c1"); len(got) != 1 || got[0] != "next" {
		t.Errorf("got %q", got)
	}
}
