package service_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

const reviewerKey = "an auditor secret that is long enough, 456"

// recorded is a server with all that an operator may switch on: a store on disk, an admin listener, a
// log of events.
type recorded struct {
	*server
	admin string // URL of the operator's listener
	cfg   config.Config
}

// startRecorded runs such a server; it ends with the test, or with finish.
func startRecorded(t *testing.T, log *slog.Logger, change func(*config.Config)) *recorded {
	t.Helper()
	dir := t.TempDir()
	cfg := config.Default()
	cfg.API.HTTP.ListenAddress, cfg.API.Admin.ListenAddress = "127.0.0.1:0", "127.0.0.1:0"
	cfg.API.Security.AllowSelfRegistration = true
	cfg.API.Security.EnableAdmin = true
	cfg.API.Security.AdminSecretKey = adminKey
	cfg.API.Security.AuditorSecretKey = reviewerKey
	cfg.Store.DataSource, cfg.Store.MinFreeMiB = filepath.Join(dir, "data"), 0
	cfg.Audit.Enable, cfg.Audit.Dir = "on", filepath.Join(dir, "audit")
	cfg.Shutdown.DrainDeadline = time.Millisecond
	if change != nil {
		change(&cfg)
	}
	media := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), rtctest.FreePort(t))
	s, err := service.New(t.Context(), cfg, service.Options{
		Log: log,
		Media: func(c *rtc.Config) {
			c.UDPAddrs, c.TCPAddrs = []netip.AddrPort{media}, []netip.AddrPort{media}
			c.Engine.Local = []netip.Addr{media.Addr()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &recorded{server: &server{Server: s, url: "http://" + s.Addr().String(), stop: cancel, done: make(chan error, 1)}, cfg: cfg}
	for _, l := range s.Listeners() {
		if l.Name == "admin" {
			w.admin = "http://" + l.Address
		}
	}
	go func() { w.done <- s.Run(ctx) }()
	t.Cleanup(func() { w.finish(t) })
	return w
}

// finish stops the server and waits for its end.
func (w *recorded) finish(t *testing.T) {
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("run: %v", err)
	}
	w.done <- nil
}

// A probe is one request. Of user, key and token, what is empty is not sent.
type probe struct {
	method, url, body string
	user, key, token  string
	header            http.Header
	from              string // address of this machine that it comes from
}

// An answer is what came back, and from which address and port it was asked.
type answer struct {
	status int
	body   string
	remote string
}

func (r answer) field(t *testing.T, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(r.body), &fields); err != nil || fields[name] == nil {
		t.Fatalf("no %s in %d %s: %v", name, r.status, r.body, err)
	}
	return fmt.Sprint(fields[name])
}

// dialFrom dials from an address of this machine and notes the port too.
func dialFrom(from string, remote *string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		c, err := d.DialContext(ctx, network, addr)
		if err == nil {
			*remote = c.LocalAddr().String()
		}
		return c, err
	}
}

// do makes a request over a connection of its own. An answer that breaks off is returned as far as it
// came.
func (p probe) do(t *testing.T) (r answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), p.method, p.url, strings.NewReader(p.body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range p.header {
		req.Header[k] = v
	}
	switch {
	case p.token != "":
		req.Header.Set("Authorization", "Bearer "+p.token)
	case p.user+p.key != "":
		req.SetBasicAuth(p.user, p.key)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialFrom(p.from, &r.remote)}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", p.method, p.url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	r.status, r.body = resp.StatusCode, string(text)
	return r
}

// A peer is a WebSocket without anything around it, and where it comes from.
type peer struct {
	*websocket.Conn
	remote string
	pongs  chan string
	done   chan struct{} // closed when nothing more comes
	err    error         // why, once done is closed

	mu  sync.Mutex
	got [][]byte
}

// open opens a WebSocket and reads its hello. The subprotocols are offered.
func (w *recorded) open(t *testing.T, from string, header http.Header, query string, protocols ...string) (*peer, error) {
	t.Helper()
	u, err := url.Parse(w.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Path, u.RawQuery = "ws", "/ws", query
	s := &peer{pongs: make(chan string, 1), done: make(chan struct{})}
	dialer := websocket.Dialer{NetDialContext: dialFrom(from, &s.remote), Subprotocols: protocols, HandshakeTimeout: 30 * time.Second}
	c, resp, err := dialer.DialContext(t.Context(), u.String(), header)
	if resp != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return s, err
	}
	s.Conn = c
	if _, _, err = c.ReadMessage(); err != nil {
		_ = c.Close()
		return s, err
	}
	c.SetPongHandler(func(text string) error { s.pongs <- text; return nil })
	go func() {
		defer close(s.done)
		for {
			_, m, err := c.ReadMessage()
			if err != nil {
				s.err = err
				return
			}
			s.mu.Lock()
			s.got = append(s.got, m)
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-s.done })
	return s, nil
}

// mustOpen opens a WebSocket that has to open.
func (w *recorded) mustOpen(t *testing.T, from string, header http.Header, query string, protocols ...string) *peer {
	t.Helper()
	s, err := w.open(t, from, header, query, protocols...)
	if err != nil {
		t.Fatalf("open a websocket: %v", err)
	}
	return s
}

// received returns all messages that came so far.
func (s *peer) received() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func withToken(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func withKey(user, key string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+key))}}
}

// send sends messages and waits until the server has handled them all: a pong comes after them.
func (s *peer) send(t *testing.T, messages ...[]byte) {
	t.Helper()
	for _, m := range messages {
		if err := s.WriteMessage(websocket.BinaryMessage, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.pongs:
	case <-s.done:
		t.Fatalf("no pong: %v", s.err)
	case <-time.After(30 * time.Second):
		t.Fatal("no pong")
	}
}
