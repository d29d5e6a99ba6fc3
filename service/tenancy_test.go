package service_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/crypto/bcrypt"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/store"
)

const auditKey = "an auditor secret that is long enough, 456"

// estate is a server with everything that one can have: an operator's listener, a store on disk, a
// record of events, and a proxy in front that says where requests came from.
type estate struct {
	url, admin string // of the listeners
	audit      string // folder of the record
	marks      int    // see events
}

func openEstate(t *testing.T, log *slog.Logger, accounts roles, change func(*config.Config)) *estate {
	t.Helper()
	cfg := config.Default()
	cfg.API.HTTP.ListenAddress, cfg.API.Admin.ListenAddress = "127.0.0.1:0", "127.0.0.1:0"
	cfg.API.HTTP.TrustedProxies = []string{"127.0.0.0/8"}
	cfg.API.Security.EnableAdmin = true
	cfg.API.Security.AdminSecretKey, cfg.API.Security.AuditorSecretKey = adminKey, auditKey
	cfg.Store.DataSource, cfg.Store.MinFreeMiB = t.TempDir(), 0
	cfg.Audit.Enable, cfg.Audit.Dir = "on", t.TempDir()
	cfg.Shutdown.DrainDeadline = time.Millisecond
	if change != nil {
		change(&cfg)
	}
	seed(t, cfg.Store.DataSource, accounts)
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
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	e := &estate{url: "http://" + s.Addr().String(), audit: cfg.Audit.Dir}
	for _, l := range s.Listeners() {
		if l.Name == "admin" {
			e.admin = "http://" + l.Address
		}
	}
	return e
}

// asker shows credentials; the zero value has none.
type asker struct{ id, key string }

var (
	nobody   = asker{}
	operator = asker{"", adminKey}
	auditor  = asker{"", auditKey}
)

func tenant(id string) asker { return asker{id, key} }

func (a asker) authorization() string {
	if a == nobody {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.id+":"+a.key))
}

// told is all that an answer tells, but for its time.
type told struct {
	status int
	header http.Header
	body   string
}

func (r told) String() string { return fmt.Sprintf("%d %q %q", r.status, r.header, r.body) }

// plain follows no redirects, keeps no cookies, and asks for no compression.
var plain = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 4}

// inquire asks for "METHOD /path". A request for /ws is one for a WebSocket, which is closed at once.
func inquire(t *testing.T, url string, as asker, request, body string, headers ...string) told {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if a := as.authorization(); a != "" {
		req.Header.Set("Authorization", a)
	}
	if req.URL.Path == "/ws" {
		headers = append(headers, "Connection", "Upgrade", "Upgrade", "websocket",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := plain.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	defer func() { _ = resp.Body.Close() }()
	r := told{status: resp.StatusCode, header: resp.Header}
	r.header.Del("Date")
	if r.status != http.StatusSwitchingProtocols {
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", request, err)
		}
		r.body = string(b)
	}
	return r
}

// must asks for what has to succeed, and decodes the answer.
func must(t *testing.T, url string, as asker, request, body string) map[string]any {
	t.Helper()
	r := inquire(t, url, as, request, body)
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); r.status/100 != 2 || err != nil {
		t.Fatalf("%s %s: %v", request, body, r)
	}
	return out
}

// roles are those of each account; nil is the default one.
type roles map[string][]string

// keyHash is the hash of the key that all accounts have: to make one takes long.
var keyHash = sync.OnceValues(func() ([]byte, error) { return bcrypt.GenerateFromPassword([]byte(key), 10) })

// seed makes a store with accounts.
func seed(t *testing.T, dir string, accounts roles) {
	t.Helper()
	hash, err := keyHash()
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(store.Config{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range accounts {
		err = errors.Join(err, st.Insert(t.Context(), store.Client{ID: id, Hash: hash, Roles: r, Epoch: 1}))
	}
	if err = errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
}

// link is a bare WebSocket, and what came over it.
type link struct {
	conn *websocket.Conn
	done chan struct{} // it has ended

	mu      sync.Mutex
	came    [][]byte
	changed chan struct{}
	err     error
	seals   int
}

// dial opens a WebSocket, with rtcd.v2 or without. It fails the test unless that succeeds.
func dial(t *testing.T, url string, as asker, v2 bool, headers ...string) *link {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: 30 * time.Second}
	if v2 {
		d.Subprotocols = []string{wire.SubprotocolV2}
	}
	h := http.Header{"Authorization": {as.authorization()}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	c, resp, err := d.Dial("ws"+strings.TrimPrefix(url, "http")+"/ws", h)
	if err != nil {
		t.Fatalf("open a websocket as %s: %v", as.id, err)
	}
	_ = resp.Body.Close()
	s := &link{conn: c, done: make(chan struct{}), changed: make(chan struct{})}
	t.Cleanup(func() { _ = c.Close(); <-s.done })
	_, hello, err := c.ReadMessage()
	if m, bad := wire.DecodeServer(hello); err != nil || bad != nil || m.ClientID != as.id || (c.Subprotocol() != "") != v2 {
		close(s.done)
		t.Fatalf("hello %q of subprotocol %q: %v", hello, c.Subprotocol(), err)
	}
	go func() {
		defer close(s.done)
		for {
			_, m, err := c.ReadMessage()
			s.mu.Lock()
			if err != nil {
				s.err = err
			} else {
				s.came = append(s.came, m)
			}
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *link) send(t *testing.T, messages ...[]byte) {
	t.Helper()
	for _, m := range messages {
		if err := s.conn.WriteMessage(websocket.BinaryMessage, m); err != nil {
			t.Fatal(err)
		}
	}
}

// settle waits until all that was sent has been handled, and returns what came since the last time.
// A join that is always refused, in its turn, shows that.
func (s *link) settle(ctx context.Context, t *testing.T) [][]byte {
	t.Helper()
	s.seals++
	seal := fmt.Sprintf("seal%d", s.seals)
	s.send(t, wire.AppendJoin(nil, wire.Join{CallID: "seal", UserID: "seal", SessionID: seal, Role: "none"}))
	for {
		s.mu.Lock()
		var out [][]byte
		found := false
		for _, b := range s.came {
			m, err := wire.DecodeServer(b)
			if err != nil {
				s.mu.Unlock()
				t.Fatalf("the server sent %q: %v", b, err)
			}
			switch {
			case m.Type == wire.TypeError && m.Error.SessionID == seal:
			case m.Type == wire.TypeClose && m.SessionID == seal:
				found = true
			default:
				out = append(out, b)
			}
		}
		changed, err := s.changed, s.err
		if found {
			s.came = nil
		}
		s.mu.Unlock()
		if found {
			return out
		}
		if err != nil {
			t.Fatalf("the websocket has ended: %v", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("nothing came back")
		}
	}
}

// ended waits for the end of the WebSocket and returns the code that it was closed with.
func (s *link) ended(ctx context.Context) (int, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.err.(*websocket.CloseError); ok {
		return e.Code, nil
	}
	return 0, s.err
}

// speak sends a packet of every endpoint each 20 ms, numbered from first on. Stop ends it and
// returns the number after the last.
func speak(t *testing.T, all map[string]*rtctest.Endpoint, first uint32) (stop func() uint32) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	n := first
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for name, e := range all {
				if err := e.SendVoice(name, n, 30); err != nil && ctx.Err() == nil {
					t.Errorf("%s: send: %v", name, err)
				}
			}
			n++
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() uint32 { cancel(); <-done; return n }
}

// lossless waits until every endpoint has heard the last packet of every other, and checks that none
// is missing, changed, or somebody else's.
func lossless(ctx context.Context, t *testing.T, all map[string]*rtctest.Endpoint, first, end uint32) {
	t.Helper()
	for to, e := range all {
		for from := range all {
			if from == to {
				continue
			}
			_ = e.Await(ctx, func(heard func(string) rtctest.Heard) bool {
				numbers := heard(from).Numbers
				return len(numbers) > 0 && numbers[len(numbers)-1] >= end-1
			})
			h := e.Heard(from)
			lost := 0
			for i, n := range h.Numbers {
				switch {
				case n < first || n >= end:
					t.Errorf("%s heard packet %d of %s, which it did not send", to, n, from)
				case i > 0 && n != h.Numbers[i-1]+1:
					lost++
				}
			}
			if h.Packets == 0 || h.Bad > 0 || lost > 0 || h.Numbers[len(h.Numbers)-1] != end-1 {
				t.Errorf("%s heard %d packets of %s: %d changed, %d gaps", to, h.Packets, from, h.Bad, lost)
			}
		}
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}
