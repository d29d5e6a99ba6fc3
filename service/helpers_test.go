package service_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

const (
	key      = "0123456789abcdef0123456789abcdef"
	adminKey = "an admin secret that is long enough, 123"
)

// server is a whole rtcd in this process.
type server struct {
	*service.Server
	url  string
	stop context.CancelFunc // what a signal does
	done chan error         // of Run

	admin string // of tests that ask for that listener
}

// start runs a server on loopback; it ends with the test. Its store is in memory unless change names a
// folder for it.
func start(t *testing.T, log *slog.Logger, change func(*config.Config)) *server {
	t.Helper()
	cfg := config.Default()
	cfg.API.HTTP.ListenAddress = "127.0.0.1:0"
	cfg.API.Admin.ListenAddress = ""
	cfg.API.Security.AllowSelfRegistration = true
	cfg.API.Security.EnableAdmin = true
	cfg.API.Security.AdminSecretKey = adminKey
	cfg.Shutdown.DrainDeadline = time.Millisecond
	if change != nil {
		change(&cfg)
	}
	media := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), rtctest.FreePort(t))
	s, err := service.New(t.Context(), cfg, service.Options{
		Log: log, MemoryStore: cfg.Store == config.Default().Store,
		Media: func(c *rtc.Config) {
			c.UDPAddrs, c.TCPAddrs = []netip.AddrPort{media}, []netip.AddrPort{media}
			c.Engine.Local = []netip.Addr{media.Addr()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &server{Server: s, url: "http://" + s.Addr().String(), stop: cancel, done: make(chan error, 1)}
	go func() { srv.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-srv.done; err != nil {
			t.Errorf("run: %v", err)
		}
		srv.done <- nil
	})
	return srv
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// newClient returns the HTTP side of a registered backend.
func newClient(t *testing.T, url, id string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{
		URL: url, ClientID: id, AuthKey: key, AutoRegister: true,
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// connect opens the WebSocket of a backend, registered if need be.
func connect(t *testing.T, url, id string) *rtctest.Remote {
	t.Helper()
	conn, err := newClient(t, url, id).Connect(context.Background())
	if err != nil {
		t.Fatalf("connect as %s: %v", id, err)
	}
	return rtctest.NewRemote(t, conn)
}

// people makes endpoints that are in a call and publish.
func people(ctx context.Context, t *testing.T, r *rtctest.Remote, call string, names ...string) map[string]*rtctest.Endpoint {
	t.Helper()
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range names {
		e := r.Join(t, call, name, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := e.Publish(ctx, "voice_"+name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = e
	}
	return all
}

// more waits until e has heard n more packets of a sender, and checks all so far.
func more(ctx context.Context, t *testing.T, e *rtctest.Endpoint, sender string, n int) {
	t.Helper()
	have := e.Heard(sender).Packets
	err := e.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard(sender).Packets >= have+n })
	h := e.Heard(sender)
	if err != nil || h.Bad > 0 {
		t.Fatalf("heard %d packets of %s, %d changed: %v", h.Packets, sender, h.Bad, err)
	}
}

// request makes an HTTP request and returns status and body.
func request(t *testing.T, method, url, user, password, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user+password != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// proxy is a TCP relay that a test can break.
type proxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns []*net.TCPConn
	down  bool // refuse new connections
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.relay(c.(*net.TCPConn))
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.cut(0)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return fmt.Sprintf("http://%s", p.listener.Addr()) }

func (p *proxy) relay(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		_ = c.Close()
		return
	}
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = c.Close()
		return
	}
	u := up.(*net.TCPConn)
	p.conns = append(p.conns, c, u)
	p.wg.Go(func() { _, _ = io.Copy(u, c); _ = u.CloseWrite() })
	p.wg.Go(func() { _, _ = io.Copy(c, u); _ = c.CloseWrite() })
}

// cut ends all connections: with a reset if linger is 0, else in order.
func (p *proxy) cut(linger int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.SetLinger(linger)
		_ = c.Close()
	}
	p.conns = nil
}

// refuse sets whether new connections are refused.
func (p *proxy) refuse(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}
