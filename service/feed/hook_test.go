package feed

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	secret1 = "canary-secret-one-3q2+7wAAEjRWeJq83vAREiM0"
	secret2 = "canary-secret-two-3q2+7wAAEjRWeJq83vAREiM0"
)

// A receiver takes webhooks, as answer says, and notes what it took.
type receiver struct {
	*httptest.Server
	answer func(n int) int // status of the nth request, from 0

	mu     sync.Mutex
	asked  int
	events []Event
	faults []string
	came   chan struct{} // one slot
}

func receive(t testing.TB, answer func(n int) int) *receiver {
	t.Helper()
	r := &receiver{answer: answer, came: make(chan struct{}, 1)}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var batch struct{ Events []Event }
	if err == nil {
		err = json.Unmarshal(body, &batch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.asked
	r.asked++
	status := r.answer(n)
	if err != nil || len(batch.Events) == 0 || req.Header.Get(HeaderEventID) != batch.Events[len(batch.Events)-1].ID {
		r.faults = append(r.faults, fmt.Sprintf("request %d: %v, %d events, %v", n, err, len(batch.Events), req.Header))
	}
	var want []string
	for _, s := range []string{secret1, secret2} {
		mac := hmac.New(sha256.New, []byte(s))
		_, _ = fmt.Fprintf(mac, "%s.%s", req.Header.Get(HeaderTimestamp), body)
		want = append(want, "v1="+hex.EncodeToString(mac.Sum(nil)))
	}
	if got := req.Header.Get(HeaderSignature); got != strings.Join(want, ",") {
		r.faults = append(r.faults, fmt.Sprintf("request %d is signed %s", n, got))
	}
	if status >= 200 && status <= 299 {
		r.events = append(r.events, batch.Events...)
	}
	if status >= 300 && status <= 399 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	_, _ = w.Write(bytes.Repeat([]byte("x"), 100<<10)) // more than is looked at
	select {
	case r.came <- struct{}{}:
	default:
	}
}

// await waits until the receiver has taken an event that ok accepts, and returns all that it took.
func (r *receiver) await(t testing.TB, what string, ok func([]Event) bool) []Event {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		events, faults := slices.Clone(r.events), slices.Clone(r.faults)
		r.mu.Unlock()
		for _, f := range faults {
			t.Fatal(f)
		}
		if ok(events) {
			return events
		}
		select {
		case <-r.came:
		case <-late:
			t.Fatalf("not delivered: %s; so far\n%s", what, shorts(events))
		}
	}
}

func ends(call string, n int) func([]Event) bool {
	return func(events []Event) bool {
		for _, e := range events {
			if e.Type == CallEnded && e.CallID == call {
				n--
			}
		}
		return n <= 0
	}
}

func hookTo(url string) Hook {
	return Hook{
		Client: "a", Target: Target{URL: url, AllowPrivate: true}, Secrets: []string{secret1, secret2},
		RetryFirst: time.Millisecond, RetryMost: 20 * time.Millisecond,
	}
}

func always(status int) func(int) int { return func(int) int { return status } }

// TestWebhookRetries shows TK-25: every request verifies, whatever is not 2xx is tried again, redirects and 410
// too, the order of each call holds, and nothing of secrets or addresses is in the log.
func TestWebhookRetries(t *testing.T) {
	statuses := []int{500, 410, 307, 404, 200, 503, 204, 429}
	r := receive(t, func(n int) int {
		if n < len(statuses) {
			return statuses[n]
		}
		return 200
	})
	var log bytes.Buffer
	f := open(t, Config{Dir: t.TempDir(), Hooks: []Hook{hookTo(r.URL + "/canary-path?canary-query")}},
		slog.New(slog.NewTextHandler(&log, nil)))
	talk(f, "b", "other", 1, true)
	f.Start()
	for i := range 60 {
		talk(f, "a", fmt.Sprint("call", i), 2, true)
	}
	got := r.await(t, "all", ends("call59", 1))
	checkCalls(t, got)
	if len(got) != 60*10 {
		t.Errorf("%d events", len(got))
	}
	shut(t, f)
	if s := f.Stats().Hooks[0]; s.Delivered != uint64(len(got)) || s.Failures != 6 || s.LastSuccess.IsZero() || s.Unsent != 0 || s.Failing {
		t.Errorf("%+v", s)
	}
	if text := log.String(); strings.Contains(text, "canary") || strings.Count(text, "not delivered") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// TestWebhookPlace shows that what a receiver has not taken is delivered by the next server, also after a kill,
// and what it has taken is not, at least as far as the place was written.
func TestWebhookPlace(t *testing.T) {
	dir := t.TempDir()
	down := receive(t, always(500))
	h := hookTo(down.URL)
	h.Name = "crm"
	f := open(t, Config{Dir: dir, Hooks: []Hook{h}}, nil)
	f.Start()
	talk(f, "a", "one", 1, true)
	talk(f, "a", "two", 1, false)
	flush(t, f)
	killed := copyDir(t, dir)

	r := receive(t, always(200))
	h.Target.URL = r.URL
	g := open(t, Config{Dir: killed, Hooks: []Hook{h}}, nil)
	g.Start()
	got := r.await(t, "the lost call", ends("two", 1))
	checkCalls(t, got)
	if len(got) != 6+3+3 || got[len(got)-1].Reason != ServerLost {
		t.Errorf("got\n%s", shorts(got))
	}
	talk(g, "a", "three", 1, true)
	r.await(t, "the third", ends("three", 1))
	shut(t, g)

	again := receive(t, always(200))
	h.Target.URL = again.URL
	k := open(t, Config{Dir: killed, Hooks: []Hook{h}}, nil)
	k.Start()
	talk(k, "a", "four", 1, true)
	if got := again.await(t, "the fourth", ends("four", 1)); got[0].CallID != "four" {
		t.Errorf("again\n%s", shorts(got))
	}
	if _, err := Open(Config{Hooks: []Hook{h, h}}, nil); err == nil {
		t.Error("two webhooks of one name")
	}
}

// TestWebhookGap shows that what is dropped while a receiver is down is told of.
func TestWebhookGap(t *testing.T) {
	var up sync.Mutex
	status := 500
	r := receive(t, func(int) int { up.Lock(); defer up.Unlock(); return status })
	h := hookTo(r.URL)
	h.Types = []string{CallEnded}
	f := open(t, Config{MemoryBytes: 128 << 10, Hooks: []Hook{h}}, nil)
	f.Start()
	for i := range 100 {
		talk(f, "a", fmt.Sprint("call", i), 1, true)
	}
	eventually(t, "an attempt fails", func() bool { return f.Stats().Hooks[0].Failures > 0 })
	up.Lock()
	status = 200
	up.Unlock()
	got := r.await(t, "the last", ends("call99", 1))
	if got[0].Type != Gap || got[0].Missed == 0 {
		t.Errorf("first %+v", got[0])
	}
	for _, e := range got[1:] {
		if e.Type != CallEnded && e.Type != Gap { // more is dropped while it catches up
			t.Errorf("%s was not asked for", e.Type)
		}
	}
}

// TestSlowReceiver shows that a receiver that never answers delays neither the calls nor another receiver,
// and not the end of the server.
func TestSlowReceiver(t *testing.T) {
	free := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer slow.Close()
	defer close(free)
	fast := receive(t, always(200))
	hooks := []Hook{hookTo(slow.URL), hookTo(fast.URL)}
	f := open(t, Config{Dir: t.TempDir(), Hooks: hooks}, nil)
	f.Start()
	var most, sum time.Duration
	const n = 300
	for i := range n {
		begin := time.Now()
		talk(f, "a", fmt.Sprint("call", i), 1, true)
		d := time.Since(begin) / 6
		most, sum = max(most, d), sum+d
	}
	begin := time.Now()
	fast.await(t, "all", ends(fmt.Sprint("call", n-1), 1))
	t.Logf("an event is taken in within %v on average, %v at most; the fast receiver had all after %v", sum/n, most, time.Since(begin))
	if most > 100*time.Millisecond {
		t.Errorf("an event took %v", most)
	}
	begin = time.Now()
	shut(t, f)
	if d := time.Since(begin); d > hookEndTime+2*time.Second {
		t.Errorf("the end took %v", d)
	}
}

// TestTargets shows the checks of what is written down.
func TestTargets(t *testing.T) {
	for url, want := range map[string]string{
		"https://app.example.com/x?y=z": "",
		"https://93.184.216.34/":        "",
		"https://[2606:4700::1]/":       "",
		"http://app.example.com/":       "not allowed",
		"ftp://app.example.com/":        "neither https",
		"https:///x":                    "no host",
		"https://u:p@app.example.com/":  "credentials",
		"https://app.example.com/#x":    "fragment",
		"https://127.0.0.1/":            "not allowed",
		"%":                             "not a url",
	} {
		err := Target{URL: url}.Check()
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	if err := (Target{URL: "http://127.0.0.1:1/", AllowPrivate: true}).Check(); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{
		"127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "0.1.2.3",
		"224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192", "198.18.0.1", "192.0.2.1", "168.63.129.16",
		"::", "::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "fec0::1", "100::1",
	} {
		if err := refuseAddr(netip.MustParseAddr(addr)); !errors.Is(err, ErrTarget) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{"93.184.216.34", "1.1.1.1", "::ffff:1.1.1.1", "2606:4700::1111", "172.32.0.1"} {
		if err := refuseAddr(netip.MustParseAddr(addr)); err != nil {
			t.Error(err)
		}
	}
	local := func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("93.184.216.34"), Mask: net.CIDRMask(24, 32)}}, nil
	}
	for _, c := range []struct {
		to      string
		own     string
		refused bool
	}{
		{"93.184.216.34:8045", "[::]:8045", true}, {"93.184.216.34:8045", "0.0.0.0:8045", true}, {"93.184.216.34:8045", "93.184.216.34:8045", true},
		{"93.184.216.34:443", "[::]:8045", false}, {"93.184.216.35:8045", "[::]:8045", false}, {"93.184.216.34:8045", "10.0.0.1:8045", false},
		{"93.184.216.3:8045", "[::]:8045", false},
	} {
		if err := refuseOwn(netip.MustParseAddrPort(c.to), []string{c.own}, local); errors.Is(err, ErrTarget) != c.refused {
			t.Errorf("%s with %s: %v", c.to, c.own, err)
		}
	}
}

// A nameServer answers every question with an address that changes.
func nameServer(t *testing.T, answer func() [4]byte) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = pc.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: answer()},
				}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

// TestRebinding shows that a name that leads outside when it is checked and inside when it is used is refused,
// at each attempt: nothing connects.
func TestRebinding(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan struct{})
	go func() {
		if c, err := ln.Accept(); err == nil {
			_ = c.Close()
			close(connected)
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	var mu sync.Mutex
	addr := [4]byte{93, 184, 216, 34}
	names := nameServer(t, func() [4]byte { mu.Lock(); defer mu.Unlock(); return addr })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	h := hookTo("https://rebind.example:" + port + "/")
	h.Target.AllowPrivate, h.resolver = false, names
	if err := h.Target.Resolve(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	addr = [4]byte{127, 0, 0, 1}
	mu.Unlock()
	if err := h.Target.Resolve(t.Context(), names); !errors.Is(err, ErrTarget) {
		t.Errorf("looked up again: %v", err)
	}
	var log bytes.Buffer
	f := open(t, Config{Hooks: []Hook{h}}, slog.New(slog.NewTextHandler(&log, nil)))
	f.Start()
	talk(f, "a", "c", 1, true)
	eventually(t, "three attempts", func() bool { return f.Stats().Hooks[0].Failures >= 3 })
	shut(t, f)
	select {
	case <-connected:
		t.Error("it connected")
	default:
	}
	if !strings.Contains(log.String(), "127.0.0.1 is not allowed") {
		t.Errorf("log:\n%s", &log)
	}
}

// TestHooksEndTogether shows that receivers that never answer hold up the end of the server for one moment,
// however many they are, and not at all if there is no time left.
func TestHooksEndTogether(t *testing.T) {
	const hooks = 5
	asked, quit := make(chan struct{}, 2*hooks), make(chan struct{})
	r := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-quit
	}))
	t.Cleanup(r.Close)
	t.Cleanup(func() { close(quit) })
	var cfg Config
	for i := range hooks {
		cfg.Hooks = append(cfg.Hooks, Hook{
			Name: fmt.Sprint("h", i), Client: "c", Secrets: []string{secret1}, Target: Target{URL: r.URL, AllowPrivate: true},
		})
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for most, ctx := range map[time.Duration]context.Context{2 * hookEndTime: context.Background(), hookEndTime / 2: over} {
		f := open(t, cfg, nil)
		f.Start()
		talk(f, "c", "call", 1, true)
		for range hooks {
			<-asked
		}
		begin := time.Now()
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > most {
			t.Errorf("the end took %v, want less than %v", d, most)
		}
	}
}
