//go:build linux

package servers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"rtcd/build/bench/endpoint"
	"rtcd/client"
)

// Rtcd is our server, with everything as it is by default but its addresses and the limits that a
// benchmark would hit. It is driven as any backend would.
type Rtcd struct {
	*Process
	dir   string
	admin string
	conn  *client.Conn

	mu    sync.Mutex
	users map[string]*user // by session
	done  chan struct{}    // the connection's events have ended
}

// user is an endpoint and what came for it.
type user struct {
	e       *endpoint.Endpoint
	answers chan string
	offers  chan string
}

// StartRtcd starts a binary of our server.
func StartRtcd(ctx context.Context, binary string) (*Rtcd, error) {
	dir, err := os.MkdirTemp("", "rtcd-bench")
	if err != nil {
		return nil, fmt.Errorf("start rtcd: %w", err)
	}
	r := &Rtcd{dir: dir, users: make(map[string]*user), done: make(chan struct{})}
	close(r.done)
	if err := r.start(ctx, binary); err != nil {
		r.Stop()
		return nil, fmt.Errorf("start rtcd: %w", err)
	}
	return r, nil
}

func (r *Rtcd) start(ctx context.Context, binary string) error {
	var ports [3]uint16
	for i := range ports {
		port, err := freePort()
		if err != nil {
			return err
		}
		ports[i] = port
	}
	api := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.admin = fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	path := filepath.Join(r.dir, "config.toml")
	err := os.WriteFile(path, fmt.Appendf(nil, `
[api]
http.listen_address = %q
security.allow_self_registration = true
admin.listen_address = "127.0.0.1:%d"
[rtc]
ice_address_udp = "127.0.0.1"
ice_port_udp = %d
ice_address_tcp = "127.0.0.1"
ice_port_tcp = %d
[rtc.limits]
sessions_per_call = 10000
sessions_per_client = 20000
joins_per_second = 10000
joins_burst = 10000
[store]
data_source = %q
[logger]
enable_file = false
`, api, ports[1], ports[2], ports[2], filepath.Join(r.dir, "data")), 0o600)
	if err != nil {
		return err
	}
	if r.Process, _, err = start(ctx, nil, false, binary, "-config", path); err != nil {
		return err
	}
	c, err := client.New(client.Config{
		URL: "http://" + api, ClientID: "bench", AuthKey: rand.Text() + rand.Text(), AutoRegister: true,
		SendQueue: 1 << 16, SendQueueBytes: 1 << 28,
	})
	if err != nil {
		return err
	}
	for {
		if _, err = c.Version(ctx); err == nil {
			break
		}
		select {
		case <-r.exited:
			return errors.Join(errors.New("it ended"), r.err)
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	if r.conn, err = c.Connect(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	r.done = make(chan struct{})
	go r.events()
	return nil
}

// freePort returns a port that is free for UDP and TCP, and that the configuration allows.
func freePort() (uint16, error) {
	for range 100 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = u.Close()
		if port <= 49151 {
			return uint16(port), nil
		}
	}
	return 0, errors.New("find a port: none is free")
}

func (r *Rtcd) events() {
	defer close(r.done)
	for e := range r.conn.Events() {
		switch e := e.(type) {
		case client.Description:
			if sdp, err := e.Parse(); err == nil {
				r.description(e.SessionID, sdp)
			}
		case client.Candidate:
			c, err := e.Parse()
			if u := r.user(e.SessionID); u != nil && err == nil {
				u.e.Candidate(c.Candidate)
			}
		}
	}
}

func (r *Rtcd) user(session string) *user {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.users[session]
}

func (r *Rtcd) description(session string, d client.SDP) {
	u := r.user(session)
	if u == nil {
		return
	}
	to := u.offers
	if d.Type == "answer" {
		to = u.answers
	}
	select {
	case to <- d.SDP:
	default: // an endpoint that is gone; the server waits for each answer
	}
}

// Prepare does nothing: rooms come and go by themselves.
func (r *Rtcd) Prepare(context.Context, []Room) error { return nil }

// Endpoint implements Server.
func (r *Rtcd) Endpoint(_ Room, m Member) (*endpoint.Endpoint, error) {
	return endpoint.New(endpoint.Config{ID: m.ID, Publish: m.Publish, Stamps: m.Stamps})
}

// Join implements Server.
func (r *Rtcd) Join(ctx context.Context, room string, e *endpoint.Endpoint) error {
	u := &user{e: e, answers: make(chan string, 4), offers: make(chan string, 4)}
	r.mu.Lock()
	r.users[e.ID] = u
	r.mu.Unlock()
	if err := r.conn.Join(client.Join{CallID: room, UserID: "user-" + e.ID, SessionID: e.ID}); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	for _, s := range e.Sources() {
		if s.Kind().Video {
			if err := r.conn.VideoOn(e.ID, e.StreamID()); err != nil {
				return fmt.Errorf("announce a video: %w", err)
			}
		}
	}
	offer, err := e.Offer(ctx)
	if err != nil {
		return err
	}
	if err := r.conn.SendDescription(e.ID, client.SDP{Type: "offer", SDP: offer}); err != nil {
		return fmt.Errorf("send an offer: %w", err)
	}
	select {
	case sdp := <-u.answers:
		if err := e.Answered(sdp); err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("no answer for %s: %w", e.ID, ctx.Err())
	}
	go r.answerOffers(u)
	return e.AwaitOpen(ctx)
}

// answerOffers answers those that the server makes, for as long as the connection to it lasts.
func (r *Rtcd) answerOffers(u *user) {
	for {
		select {
		case sdp := <-u.offers:
			answer, err := u.e.Answer(sdp)
			if err != nil {
				continue // the endpoint is closed, or will miss what it was to get
			}
			_ = r.conn.SendDescription(u.e.ID, client.SDP{Type: "answer", SDP: answer})
		case <-r.done:
			return
		}
	}
}

// Goroutines implements Server.
func (r *Rtcd) Goroutines(ctx context.Context) (int, error) {
	n, err := r.metric(ctx, "go_goroutines")
	return int(n), err
}

// Forwarded implements Server.
func (r *Rtcd) Forwarded(ctx context.Context) (uint64, error) {
	n, err := r.metric(ctx, "rtcd_media_forwarded_packets_total")
	return uint64(n), err
}

func (r *Rtcd) metric(ctx context.Context, name string) (float64, error) {
	b, err := get(ctx, r.admin+"/metrics")
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(n, 64)
		}
	}
	return 0, fmt.Errorf("read the metrics of rtcd: there is no %s", name)
}

// Profile implements Server.
func (r *Rtcd) Profile(ctx context.Context, d time.Duration) ([]byte, error) {
	return get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", r.admin, int(d.Seconds())))
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return b, nil
}

// Stop ends the server and what it has written.
func (r *Rtcd) Stop() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
	<-r.done
	if r.Process != nil {
		r.Process.Stop()
	}
	_ = os.RemoveAll(r.dir)
}
