package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rtcd/client"
)

const webhookSecret = "x8Jq2pV0m4ZtR7cY1nL5bK9wD3fG6hS0"

// A follower notes the events that a consumer has taken, in the order in which they came.
type follower struct {
	name string

	mu    sync.Mutex
	came  []client.CallEvent
	again int // that were there before
	last  string
	seen  map[string]bool
	ends  map[string]chan struct{} // closed when call.ended of that call id comes
}

func newFollower(name string) *follower {
	return &follower{name: name, seen: make(map[string]bool), ends: make(map[string]chan struct{})}
}

// take notes an event. Consumers of events that come at least once drop what they have had.
func (f *follower) take(e client.CallEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[e.ID] {
		f.again++
		return
	}
	f.seen[e.ID] = true
	f.came, f.last = append(f.came, e), e.ID
	if end := f.ends[e.CallID]; end != nil && e.Type == "call.ended" {
		close(end)
		delete(f.ends, e.CallID)
	}
}

func (f *follower) ended(call string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := make(chan struct{})
	f.ends[call] = end
	return end
}

func (f *follower) where() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// check checks what is promised, of all calls.
func (f *follower) check(t *testing.T) (events []client.CallEvent) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	seq, ended, last := make(map[string]uint64), make(map[string]bool), ""
	for _, e := range f.came {
		switch {
		case e.Type == client.EventGap:
			t.Errorf("%s: a gap: %s", f.name, e.Raw)
		case e.ID <= last:
			t.Errorf("%s: %s comes after %s", f.name, e.ID, last)
		case e.CallSeq != seq[e.Instance]+1, ended[e.Instance] != (e.Type == "call.report_ready"), (e.CallSeq == 1) != (e.Type == "call.started"):
			t.Errorf("%s: %s #%d of call %s after #%d", f.name, e.Type, e.CallSeq, e.CallID, seq[e.Instance])
		}
		seq[e.Instance], last = e.CallSeq, e.ID
		ended[e.Instance] = e.Type == "call.ended" || e.Type == "call.report_ready"
	}
	for instance, over := range ended {
		if !over {
			t.Errorf("%s: instance %s has no end", f.name, instance)
		}
	}
	return f.came
}

// A hookServer is a receiver of webhooks that can be down. The last request before that is dealt with but not
// answered: those events come again.
type hookServer struct {
	*follower
	*httptest.Server
	down, half atomic.Bool
	refused    atomic.Int64
}

func newHookServer(t *testing.T) *hookServer {
	h := &hookServer{follower: newFollower("webhook")}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = client.VerifyWebhook(r.Header, body, []string{webhookSecret}, time.Now(), time.Minute)
		}
		if err != nil {
			t.Errorf("webhook: %v", err)
			return
		}
		down := h.down.Load()
		if down && !h.half.CompareAndSwap(true, false) {
			h.refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		events, err := client.ParseWebhook(body)
		if err != nil {
			t.Error(err)
		}
		for _, e := range events {
			h.take(e)
		}
		if down {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// follow reads the stream of events until ctx is done.
func follow(ctx context.Context, f *follower, c *client.Client) {
	for e, err := range c.Events(ctx, f.where()) {
		if err != nil {
			return
		}
		f.take(e)
	}
}

// traffic makes people come and go in a few calls until stop is closed, whether the server is there or not.
func traffic(conn *client.Conn, stop <-chan struct{}) (joins int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var in []string
	leave := func() {
		_ = conn.Leave(in[0]) // it may be gone with a server
		in = in[1:]
	}
	for {
		select {
		case <-tick.C:
		case <-stop:
			for len(in) > 0 {
				leave()
			}
			return joins
		}
		s := fmt.Sprint("t", joins)
		if conn.Join(client.Join{CallID: fmt.Sprint("room", joins%7), UserID: "u" + s, SessionID: s}) == nil {
			in = append(in, s)
			joins++
		}
		if len(in) > 12 {
			leave()
		}
	}
}

// TestFeedSurvives shows that a webhook and a reader of the stream that are both down for a time, while the server
// is killed once and started again and calls go on, see no gap, nothing out of order within a call and nothing
// twice but what they had not answered for. RTCD_FEED_DOWN is how long they are down: 60s for the whole of it.
func TestFeedSurvives(t *testing.T) {
	down := 3 * time.Second
	if text := os.Getenv("RTCD_FEED_DOWN"); text != "" {
		var err error
		if down, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, 2*down+90*time.Second)
	hook := newHookServer(t)
	dir, p := t.TempDir(), newPorts(t)
	config, err := json.Marshal([]map[string]any{{"name": "proof", "client": "c1", "url": hook.URL, "secret": webhookSecret, "allow_private": true}})
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{"RTCD_EVENTS_DIR=" + filepath.Join(dir, "events"), "RTCD_WEBHOOK=" + string(config), "RTCD_CALL_LINGER=0s"}
	server := launch(t, p, dir, nil, environ...)
	server.awaitReady(t)
	r := server.connect(t, "c1")
	all := call(ctx, t, r)
	more(ctx, t, all["s1"], "s2", 0)

	reader := newFollower("stream")
	backend, err := client.New(client.Config{URL: p.url(), ClientID: "c1", AuthKey: key, MaxBackoff: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.CloseIdleConnections)
	var reading sync.WaitGroup
	up, cut := context.WithCancel(ctx)
	reading.Go(func() { follow(up, reader, backend) })

	stop, joins := make(chan struct{}), make(chan int, 1)
	go func() { joins <- traffic(r.Conn, stop) }()
	wait := func(d time.Duration) {
		select {
		case <-time.After(d): // the time that is to pass
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	wait(down / 3)
	hook.half.Store(true)
	hook.down.Store(true)
	cut()
	reading.Wait()
	had := reader.where()
	wait(down / 2)
	server.signal(t, syscall.SIGKILL)
	<-server.exited
	killed := time.Now()
	server = launch(t, p, dir, nil, environ...)
	server.awaitReady(t)
	restarted := time.Since(killed)
	wait(down / 2)
	reading.Go(func() { follow(ctx, reader, backend) })
	hook.down.Store(false)
	wait(down / 3)
	close(stop)
	n := <-joins

	endOfStream, endOfHook := reader.ended("last"), hook.ended("last")
	back := time.Now()
	if err := r.Conn.Join(client.Join{CallID: "last", UserID: "u", SessionID: "last"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Conn.Leave("last"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []<-chan struct{}{endOfStream, endOfHook} {
		select {
		case <-end:
		case <-ctx.Done():
			t.Fatalf("the last call's end did not come; %s", server.out)
		}
	}
	caught := time.Since(back)
	server.signal(t, syscall.SIGTERM)
	if status := server.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, server.out)
	}
	cut()
	streamed, hooked := reader.check(t), hook.check(t)
	if len(streamed) < 100 || had == "" {
		t.Errorf("%d events only", len(streamed))
	}
	lost := 0
	for _, e := range streamed {
		if e.Type == "call.ended" && e.Reason == "server_lost" {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no call was ended for the killed server")
	}
	// The end of the stream may come before the very last event of the webhook.
	for i := range min(len(streamed), len(hooked)) {
		if streamed[i].ID != hooked[i].ID || string(streamed[i].Raw) != string(hooked[i].Raw) {
			t.Fatalf("event %d: the stream has %s, the webhook %s", i, streamed[i].Raw, hooked[i].Raw)
		}
	}
	t.Logf("down for %v, server back after %v: %d joins, %d events, %d calls ended for the killed server; "+
		"the stream had %d twice, the webhook %d, after %d failed attempts; all was there %v after the last call",
		down, restarted.Round(time.Millisecond), n, len(streamed), lost, reader.again, hook.again, hook.refused.Load(), caught.Round(time.Millisecond))
}
