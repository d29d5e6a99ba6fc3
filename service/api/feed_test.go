package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/feed"
	"rtcd/service/metrics"
)

func newFeed(tb testing.TB) *feed.Feed {
	tb.Helper()
	f, err := feed.Open(feed.Config{}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close(context.Background()) })
	return f
}

// A feedWorld is an API with events, on a real connection.
type feedWorld struct {
	feed    *feed.Feed
	server  *api.Server
	revoked atomic.Bool
	metrics *metrics.Metrics
}

func newFeedWorld(t *testing.T) *feedWorld {
	t.Helper()
	w := &feedWorld{feed: newFeed(t), metrics: metrics.New()}
	h := api.New(api.Config{}, api.Deps{
		Auth: &fakeAuth{keys: map[string]string{"c1": key1, "c2": key2}}, Calls: fakeCalls{}, WebSockets: &fakeSockets{}, Feed: w.feed,
		Metrics: w.metrics,
		Current: func(p api.Principal, route string) bool { return route == "GET /events" && !w.revoked.Load() },
	})
	// The read timeout is far below what a stream lasts.
	cfg := api.ServerConfig{Address: "127.0.0.1:0", HeaderTimeout: 100 * time.Millisecond, BodyTimeout: 100 * time.Millisecond, WriteTimeout: 200 * time.Millisecond}
	var err error
	if w.server, err = api.Listen(t.Context(), cfg, h, w.metrics, nil); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.server.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = w.feed.End(ctx)
		if err := w.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown with streams: %v", err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *feedWorld) get(t *testing.T, c *creds, path string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.server.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(c.id, c.key)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// next reads the next event of a stream; "" is its end.
func next(r *bufio.Reader) (id, data string) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return id, data
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" && data != "":
			return id, data
		case strings.HasPrefix(line, "id: "):
			id = line[4:]
		case strings.HasPrefix(line, "data: "):
			data = line[6:]
		}
	}
}

// TestEventStream shows that a stream begins with what is kept, goes on with what comes, far beyond the times
// for requests, and goes on after a cut where it was cut; and that clients see their own events alone.
func TestEventStream(t *testing.T) {
	w := newFeedWorld(t)
	for i := range 3 {
		w.feed.Add("c1", feed.Event{Type: feed.CallStarted, CallID: fmt.Sprint("call", i)})
	}
	w.feed.Add("c2", feed.Event{Type: feed.CallStarted, CallID: "other"})
	resp := w.get(t, c1, "/events")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	in := bufio.NewReader(resp.Body)
	var ids []string
	for i := range 3 {
		id, data := next(in)
		var e feed.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.ID != id || e.CallID != fmt.Sprint("call", i) {
			t.Fatalf("%s: %s %v", id, data, err)
		}
		ids = append(ids, id)
	}
	<-time.After(500 * time.Millisecond) // what is waited for is that nothing happens
	w.feed.Add("c1", feed.Event{Type: feed.CallEnded, CallID: "call1"})
	if _, data := next(in); !strings.Contains(data, "call.ended") {
		t.Errorf("after the timeouts: %q", data)
	}
	_ = resp.Body.Close()

	in = bufio.NewReader(w.get(t, c1, "/events?after="+ids[0], "Last-Event-ID", ids[1]).Body)
	if id, _ := next(in); id != ids[2] {
		t.Errorf("went on with %s, want %s", id, ids[2])
	}
	in = bufio.NewReader(w.get(t, c1, "/events?call=call1").Body)
	if id, _ := next(in); id != ids[1] {
		t.Errorf("of one call: %s, want %s", id, ids[1])
	}
	if _, data := next(in); !strings.Contains(data, "call.ended") {
		t.Errorf("of one call: %s", data)
	}
	in = bufio.NewReader(w.get(t, c2, "/events?after="+ids[0]).Body)
	if _, data := next(in); !strings.Contains(data, `"gap"`) || strings.Contains(data, "call") && !strings.Contains(data, "unknown_cursor") {
		t.Errorf("with another's cursor: %s", data)
	}
}

// TestEventPage shows the pages.
func TestEventPage(t *testing.T) {
	w := newFeedWorld(t)
	for i := range 5 {
		w.feed.Add("c1", feed.Event{Type: feed.CallStarted, CallID: fmt.Sprint("call", i)})
	}
	var p struct {
		Events []feed.Event `json:"events"`
		Next   string       `json:"next"`
		More   bool         `json:"more"`
	}
	read := func(path string, headers ...string) {
		t.Helper()
		resp := w.get(t, c1, path, headers...)
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %d %v", path, resp.StatusCode, err)
		}
	}
	read("/events?wait=0&limit=2")
	if len(p.Events) != 2 || !p.More || p.Next != p.Events[1].ID {
		t.Errorf("first %+v", p)
	}
	read("/events?after="+p.Next, "Accept", "application/json")
	if len(p.Events) != 3 || p.More || p.Events[0].CallID != "call2" {
		t.Errorf("second %+v", p)
	}
	read("/events?wait=0&after=now")
	if len(p.Events) != 0 || p.More {
		t.Errorf("from now on %+v", p)
	}
	for path, want := range map[string]string{
		"/events?after=x":                          "bad_cursor",
		"/events?wait=1":                           "out_of_range",
		"/events?wait=0&limit=0":                   "out_of_range",
		"/events?wait=0&limit=1001":                "out_of_range",
		"/events?call=":                            "out_of_range",
		"/events?x=1":                              "unknown_field",
		"/events?wait=0&wait=0":                    "duplicate_field",
		"/events?call=" + strings.Repeat("x", 129): "out_of_range",
	} {
		resp := w.get(t, c1, path)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 400 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestEventStreamEnds shows that a stream ends when the credentials are good no more, without another event,
// that a client has 8 at most, and that the end of the server ends them at once, with what there was.
func TestEventStreamEnds(t *testing.T) {
	w := newFeedWorld(t)
	var streams []*bufio.Reader
	for range 8 {
		resp := w.get(t, c1, "/events")
		streams = append(streams, bufio.NewReader(resp.Body))
	}
	if resp := w.get(t, c1, "/events"); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the ninth: %d", resp.StatusCode)
	}
	if resp := w.get(t, c2, "/events"); resp.StatusCode != 200 {
		t.Errorf("another's first: %d", resp.StatusCode)
	}
	w.revoked.Store(true)
	w.feed.Add("c1", feed.Event{Type: feed.CallStarted, CallID: "secret"})
	for i, in := range streams {
		if _, data := next(in); data != "" {
			t.Errorf("stream %d after the end of the credentials: %s", i, data)
		}
	}
	w.revoked.Store(false)
	in := bufio.NewReader(w.get(t, c1, "/events").Body)
	if _, data := next(in); !strings.Contains(data, "secret") {
		t.Errorf("with credentials that are good: %q", data)
	}
	w.feed.Add("c1", feed.Event{Type: feed.CallEnded, CallID: "secret"})
	begin := time.Now()
	if err := w.feed.End(t.Context()); err != nil {
		t.Error(err)
	}
	if _, data := next(in); !strings.Contains(data, "call.ended") {
		t.Errorf("the last event: %q", data)
	}
	if _, data := next(in); data != "" {
		t.Errorf("behind the last event: %q", data)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("the end took %v", d)
	}
}

// TestSlowStream shows that a peer that reads nothing is cut at the end of the server, however much waits for
// it, and costs no more than one page.
func TestSlowStream(t *testing.T) {
	w := newFeedWorld(t)
	for i := range 20_000 {
		w.feed.Add("c1", feed.Event{Type: feed.CallStarted, CallID: fmt.Sprint(strings.Repeat("call", 25), i)})
	}
	c, err := net.Dial("tcp", w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, "http://rtcd/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(c1.id, c1.key)
	if err := r.Write(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_ = w.feed.End(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := w.server.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("shutdown took %v", d)
	}
}
