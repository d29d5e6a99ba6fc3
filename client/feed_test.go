package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/feed"
)

// A streamServer answers each stream as the next of its scripts says.
type streamServer struct {
	*httptest.Server
	mu     sync.Mutex
	after  []string
	script []func(w http.ResponseWriter, r *http.Request)
}

func newStreamServer(t *testing.T, script ...func(http.ResponseWriter, *http.Request)) (*streamServer, *Client) {
	t.Helper()
	s := &streamServer{script: script}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, key, ok := r.BasicAuth(); !ok || id != testID || key != testKey || r.URL.Path != "/events" {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		s.after = append(s.after, r.URL.Query().Get("after"))
		next := s.script[0]
		s.script = s.script[1:]
		s.mu.Unlock()
		next(w, r)
	}))
	t.Cleanup(s.Close)
	c, err := New(Config{URL: s.URL, ClientID: testID, AuthKey: testKey, MinBackoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return s, c
}

func tell(ids ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "retry: 2000\n\n:\n\n")
		for _, id := range ids {
			_, _ = fmt.Fprintf(w, "id: %s\ndata: {\"id\":%q,\"type\":\"call.started\",\"new\":1}\n\n", id, id)
		}
	}
}

func refuse(status int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", status) }
}

// TestEvents shows that a stream that ends, breaks or is refused for now goes on behind the last event, and that
// a refusal for good ends it.
func TestEvents(t *testing.T) {
	s, c := newStreamServer(t, tell("1", "2"), refuse(503), tell(), func(w http.ResponseWriter, r *http.Request) {
		tell("3")(w, r)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, tell("4"), refuse(403))
	var got []string
	var last error
	for e, err := range c.Events(t.Context(), "0") {
		if err != nil {
			last = err
			break
		}
		got = append(got, e.ID)
		if !strings.Contains(string(e.Raw), `"new":1`) {
			t.Errorf("raw %s", e.Raw)
		}
	}
	if !slices.Equal(got, []string{"1", "2", "3", "4"}) || !errors.Is(last, ErrForbidden) {
		t.Errorf("got %q and %v", got, last)
	}
	if want := []string{"0", "2", "2", "2", "3", "4"}; !slices.Equal(s.after, want) {
		t.Errorf("asked for what comes after %q, want %q", s.after, want)
	}
}

// TestEventsEnd shows that a context, or whoever has enough, ends the stream.
func TestEventsEnd(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		tell("1")(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	_, c := newStreamServer(t, hang, hang)
	for range c.Events(t.Context(), "") {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Events(ctx, "") {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v", last)
	}
}

const hookSecret = "a-secret-of-the-webhook-0123456789"

// A delivery is a request as the server makes it.
type delivery struct {
	header http.Header
	body   []byte
}

// delivered has a real feed send one webhook.
func delivered(t *testing.T, secrets ...string) delivery {
	t.Helper()
	got := make(chan delivery, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select {
		case got <- delivery{r.Header.Clone(), body}:
		default:
		}
	}))
	defer s.Close()
	f, err := feed.Open(feed.Config{Hooks: []feed.Hook{{Client: "a", Target: feed.Target{URL: s.URL, AllowPrivate: true}, Secrets: secrets}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close(context.Background()) }()
	f.Start()
	f.Add("a", feed.Event{Type: feed.CallStarted, CallID: "c \u00e9"})
	return <-got
}

// TestVerifyWebhook shows TK-25: what the server signs verifies, with either secret while it is changed; a body,
// time or signature that was touched does not; nor does what is sent again later.
func TestVerifyWebhook(t *testing.T) {
	d := delivered(t, hookSecret, "old-"+hookSecret)
	now := time.Now()
	check := func(what string, want error, h http.Header, body []byte, at time.Time, secrets ...string) {
		t.Helper()
		if err := VerifyWebhook(h, body, secrets, at, time.Minute); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	with := func(key, value string) http.Header { h := d.header.Clone(); h.Set(key, value); return h }
	check("as it came", nil, d.header, d.body, now, hookSecret)
	check("with the old secret", nil, d.header, d.body, now, "old-"+hookSecret)
	check("with two secrets", nil, d.header, d.body, now, "other", hookSecret)
	check("with another", ErrSignature, d.header, d.body, now, "other")
	check("with none", ErrSignature, d.header, d.body, now)
	check("with an empty one", ErrSignature, d.header, d.body, now, "")
	check("later", ErrTimestamp, d.header, d.body, now.Add(2*time.Minute), hookSecret)
	check("earlier", ErrTimestamp, d.header, d.body, now.Add(-2*time.Minute), hookSecret)
	check("another body", ErrSignature, d.header, append([]byte(" "), d.body...), now, hookSecret)
	check("a fresh time on an old signature", ErrSignature, with(HeaderTimestamp, fmt.Sprint(now.Unix()+5)), d.body, now, hookSecret)
	check("no time", ErrTimestamp, with(HeaderTimestamp, ""), d.body, now, hookSecret)
	check("a strange time", ErrTimestamp, with(HeaderTimestamp, "1e9"), d.body, now, hookSecret)
	check("no signature", ErrSignature, with(HeaderSignature, ""), d.body, now, hookSecret)
	check("another version", ErrSignature, with(HeaderSignature, strings.ReplaceAll(d.header.Get(HeaderSignature), "v1", "v0")), d.body, now, hookSecret)
	check("many signatures", ErrSignature, with(HeaderSignature, strings.Repeat("v1=00,", 9)+d.header.Get(HeaderSignature)), d.body, now, hookSecret)
	events, err := ParseWebhook(d.body)
	if err != nil || len(events) != 1 || events[0].CallID != "c \u00e9" || events[0].ID != d.header.Get(HeaderEventID) {
		t.Errorf("%+v %v", events, err)
	}
	if _, err := ParseWebhook([]byte("{")); err == nil {
		t.Error("half a body parses")
	}
}

// TestDocumentedVerification runs the snippets of docs/events.md on what the server really sends.
func TestDocumentedVerification(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "events.md"))
	if err != nil {
		t.Fatal(err)
	}
	d := delivered(t, hookSecret)
	for _, lang := range []struct{ name, tool, suffix, tail string }{
		{"python", "python3", ".py", `
import sys
h = {"Rtcd-Timestamp": sys.argv[1], "Rtcd-Signature": sys.argv[2]}
print(verify(h, open(sys.argv[3], "rb").read(), [sys.argv[4]]))
`},
		{"js", "node", ".js", `
const [, , stamp, signature, file, secret] = process.argv;
const h = { "rtcd-timestamp": stamp, "rtcd-signature": signature };
console.log(verify(h, require("fs").readFileSync(file), [secret]) ? "True" : "False");
`},
	} {
		if _, err := exec.LookPath(lang.tool); err != nil {
			t.Logf("SKIPPED: no %s", lang.tool)
			continue
		}
		m := regexp.MustCompile("(?s)```" + lang.name + "\n(.*?)```").FindSubmatch(page)
		if m == nil {
			t.Fatalf("no %s in the page", lang.name)
		}
		dir := t.TempDir()
		script, body := filepath.Join(dir, "verify"+lang.suffix), filepath.Join(dir, "body")
		if err := errors.Join(os.WriteFile(script, []byte(string(m[1])+lang.tail), 0o600), os.WriteFile(body, d.body, 0o600)); err != nil {
			t.Fatal(err)
		}
		stamp, signature := d.header.Get(HeaderTimestamp), d.header.Get(HeaderSignature)
		for _, c := range []struct{ stamp, signature, secret, want string }{
			{stamp, signature, hookSecret, "True"},
			{stamp, "v1=" + strings.Repeat("0", 64) + "," + signature, hookSecret, "True"},
			{stamp, signature, "other", "False"},
			{"1000000000", signature, hookSecret, "False"},
			{"x", signature, hookSecret, "False"},
			{stamp, "v1=" + strings.Repeat("0", 64), hookSecret, "False"},
			{stamp, "nonsense", hookSecret, "False"},
		} {
			out, err := exec.Command(lang.tool, script, c.stamp, c.signature, body, c.secret).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Errorf("%s, %+v: %s %v", lang.name, c, got, err)
			}
		}
	}
}
