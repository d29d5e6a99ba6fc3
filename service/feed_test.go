package service_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// eventLines reads a stream of events until it has ended.
func eventLines(t *testing.T, url, id string) (lines <-chan string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(id, key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("stream of events: %d", resp.StatusCode)
	}
	out := make(chan string, 1000)
	go func() {
		defer close(out)
		in := bufio.NewScanner(resp.Body)
		for in.Scan() {
			if data, ok := strings.CutPrefix(in.Text(), "data: "); ok {
				out <- data
			}
		}
	}()
	return out
}

// until reads lines up to one that holds text, or to the end.
func until(ctx context.Context, t *testing.T, lines <-chan string, text string) {
	t.Helper()
	for {
		select {
		case line, ok := <-lines:
			if !ok && text != "" {
				t.Fatalf("the stream ended before %q", text)
			}
			if !ok || text != "" && strings.Contains(line, text) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no %q", text)
		}
	}
}

// TestEventsOfWholeServer shows that a client sees what takes place in its calls, that a new key or the loss of
// the role ends its streams within a second or so, and that of a client that is removed nothing is left for
// whoever gets its id next.
func TestEventsOfWholeServer(t *testing.T) {
	ctx := within(t, 60*time.Second)
	port := rtctest.FreePort(t)
	s := start(t, nil, func(c *config.Config) {
		c.API.Admin.ListenAddress = fmt.Sprintf("127.0.0.1:%d", port)
		c.Events.Dir = filepath.Join(t.TempDir(), "events")
	})
	admin := func(method, path, body string) {
		t.Helper()
		if status, text := request(t, method, fmt.Sprintf("http://127.0.0.1:%d", port)+path, "", adminKey, body); status != 200 {
			t.Fatalf("%s %s: %d %s", method, path, status, text)
		}
	}
	r := connect(t, s.url, "c1")
	people(ctx, t, r, "call", "alice", "bob")
	lines := eventLines(t, s.url, "c1")
	until(ctx, t, lines, `"sessionID":"bob"`)
	if err := r.Conn.Leave("alice"); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, lines, `"reason":"left"`)

	begin := time.Now()
	admin("PUT", "/admin/clients/c1/roles", `{"roles":["calls.create"]}`)
	until(ctx, t, lines, "")
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("without the role the stream went on for %v", d)
	}
	admin("PUT", "/admin/clients/c1/roles", `{"roles":["client"]}`)
	lines = eventLines(t, s.url, "c1")
	until(ctx, t, lines, `"call.started"`)
	admin("POST", "/admin/clients/c1/rotate", `{"authKey":"`+key+`"}`)
	until(ctx, t, lines, "")
	admin("DELETE", "/admin/clients/c1", "")
	if err := newClient(t, s.url, "c1").Register(ctx); err != nil {
		t.Fatal(err)
	}
	status, body := request(t, "GET", s.url+"/events?wait=0", "c1", key, "")
	if status != 200 || !strings.Contains(body, `"events":[]`) {
		t.Errorf("a new client with the id of a former one: %d %s", status, body)
	}
}

// TestSlowWebhookDelaysNothing joins with a receiver that never answers, and without one.
func TestSlowWebhookDelaysNothing(t *testing.T) {
	ctx := within(t, 60*time.Second)
	free := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(free) })
	type side struct {
		client *client.Client
		conn   *client.Conn
		times  []time.Duration
	}
	open := func(hooks ...config.Webhook) *side {
		s := start(t, nil, func(c *config.Config) {
			c.Events.Dir, c.Webhooks = filepath.Join(t.TempDir(), "events"), hooks
		})
		c := newClient(t, s.url, "c1")
		conn, err := c.Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return &side{client: c, conn: conn}
	}
	sides := []*side{open(), open(config.Webhook{Client: "c1", URL: slow.URL, Secret: "x8Jq2pV0m4ZtR7cY1nL5bK9wD3fG6hS0", AllowPrivate: true})}
	for i := range 200 {
		s, id := sides[i%2], fmt.Sprint("s", i)
		begin := time.Now()
		if err := s.conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: id}); err != nil {
			t.Fatal(err)
		}
		for { // the list shows a session once it is there
			if _, err := s.client.Session(ctx, "call", id); err == nil {
				break
			} else if !errors.Is(err, client.ErrNotFound) {
				t.Fatal(err)
			}
		}
		s.times = append(s.times, time.Since(begin))
	}
	median := func(s *side) time.Duration {
		slices.Sort(s.times)
		return s.times[len(s.times)/2]
	}
	without, with := median(sides[0]), median(sides[1])
	t.Logf("a join takes %v without, %v with a receiver that does not answer", without, with)
	if with > 2*without+10*time.Millisecond {
		t.Errorf("a join takes %v without, %v with a receiver that does not answer", without, with)
	}
}

// TestCheckWebhooks shows what an operator is told of webhooks that lead nowhere good.
func TestCheckWebhooks(t *testing.T) {
	c := config.Default()
	c.Webhooks = []config.Webhook{
		{Client: "a", URL: "https://127.0.0.1/"}, {Client: "a", URL: "http://127.0.0.1/", AllowPrivate: true}, {Client: "a", URL: "https://localhost/"},
	}
	faults := service.CheckWebhooks(t.Context(), c)
	if len(faults) != 2 || faults[0] == nil || faults[2] == nil {
		t.Errorf("%v", faults)
	}
}

// TestDocumentedEvents: each type of event stands in the page for authors of backends.
func TestDocumentedEvents(t *testing.T) {
	page, err := os.ReadFile("../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []rtc.CallEventType{
		rtc.CallStarted, rtc.CallEnded, rtc.ParticipantJoined, rtc.ParticipantConnected, rtc.ParticipantDisconnected, rtc.ParticipantReconnected,
		rtc.ParticipantMoved, rtc.ParticipantLeft, rtc.StreamStarted, rtc.StreamEnded, rtc.Moderated,
	} {
		if !strings.Contains(string(page), "`"+string(typ)+"`") {
			t.Errorf("docs/events.md lacks %s", typ)
		}
	}
	var example map[string]any
	_, text, _ := strings.Cut(string(page), "```json\n")
	text, _, _ = strings.Cut(text, "```")
	if err := json.Unmarshal([]byte(text), &example); err != nil {
		t.Errorf("the example: %v", err)
	}
}

// TestReportIsReadyWhenEventsSaySo follows a call to its end: the event that tells of the report comes after
// the end, and there is the report.
func TestReportIsReadyWhenEventsSaySo(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s := start(t, nil, nil)
	r := connect(t, s.url, "c1")
	people(ctx, t, r, "call", "alice")
	lines := eventLines(t, s.url, "c1")
	if err := r.Conn.Leave("alice"); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, lines, `"call.ended"`)
	until(ctx, t, lines, `"call.report_ready"`)
	if status, body := request(t, "GET", s.url+"/calls/call/report", "c1", key, ""); status != 200 || !strings.Contains(body, `"alice"`) {
		t.Errorf("report: %d %.200s", status, body)
	}
}
