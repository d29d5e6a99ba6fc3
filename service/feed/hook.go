package feed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Hook is a receiver that the events of one client are sent to.
type Hook struct {
	Name    string // "": made from client and URL. It names how far the receiver has got.
	Client  string
	Target  Target
	Secrets []string // each signs; never logged
	Types   []string // of events; empty: all. Gaps are always sent.

	TLS *tls.Config // nil: the system's authorities

	// Times between attempts after a failure: the first, twice that, and so on. 0: 500 ms and 1 minute.
	RetryFirst, RetryMost time.Duration

	resolver *net.Resolver // tests have names that change
}

// Bounds of one delivery.
const (
	hookEvents     = 100 // in one request
	dialTime       = 5 * time.Second
	answerTime     = 15 * time.Second // for all of an attempt
	maxAnswer      = 64 << 10         // bytes of an answer that are looked at
	hookEndTime    = 2 * time.Second  // to deliver what is left when the server ends
	saveEvery      = time.Second      // at most so long the place on disk stays behind
	maxPositionLen = 256
)

// HookStats are what a webhook counts.
type HookStats struct {
	Name        string
	Delivered   uint64    // events that the receiver has taken
	Failures    uint64    // attempts that failed
	LastSuccess time.Time // zero: none yet
	Unsent      uint64    // events behind the last one taken
	Failing     bool
}

// A hook sends to one receiver, from a goroutine of its own.
type hook struct {
	Hook
	feed   *Feed
	log    *slog.Logger
	http   *http.Client
	url    string
	path   string // of the file of its place; "" in memory alone
	cancel context.CancelFunc
	done   chan struct{}

	delivered, failures atomic.Uint64
	lastSuccess         atomic.Int64 // milliseconds since 1970
	failing             atomic.Bool

	mu  sync.Mutex
	pos string // behind the last event that was taken or left out

	// Of the goroutine.
	saved  time.Time
	stale  bool // the file is behind
	warned time.Time
}

// name returns what the hook is called in metrics and files.
func (h Hook) name() string {
	if h.Name != "" {
		return h.Name
	}
	sum := sha256.Sum256([]byte(h.Client + "\x00" + h.Target.URL))
	return hex.EncodeToString(sum[:8])
}

// openHooks finds out where each webhook goes on. A new one begins with what is to come.
func (f *Feed) openHooks() error {
	seen := make(map[string]bool)
	for _, cfg := range f.cfg.Hooks {
		u, err := cfg.Target.parse()
		switch {
		case err != nil:
			return err
		case seen[cfg.name()]:
			return fmt.Errorf("webhook %s is there twice", cfg.name())
		case len(cfg.Secrets) == 0 || slices.Contains(cfg.Secrets, ""):
			return fmt.Errorf("webhook %s has no secret", cfg.name())
		}
		seen[cfg.name()] = true
		if cfg.RetryFirst <= 0 {
			cfg.RetryFirst = 500 * time.Millisecond
		}
		if cfg.RetryMost <= 0 {
			cfg.RetryMost = time.Minute
		}
		h := &hook{Hook: cfg, feed: f, url: u.String(), http: client(cfg, f.cfg.Own), done: make(chan struct{})}
		h.Name = cfg.name()
		h.log = f.log.With("webhook", h.Name, "clientID", h.Client, "host", u.Host)
		if f.cfg.Dir != "" {
			sum := sha256.Sum256([]byte(h.Name))
			h.path = filepath.Join(f.cfg.Dir, hooksDir, hex.EncodeToString(sum[:16])+".pos")
		}
		if err := h.place(); err != nil {
			return fmt.Errorf("open webhook %s: %w", h.Name, err)
		}
		f.hooks = append(f.hooks, h)
	}
	return nil
}

// client returns the HTTP client of a hook. Nothing leads it elsewhere: no proxy, no redirect.
func client(cfg Hook, own func() []string) *http.Client {
	dialer := &net.Dialer{Timeout: dialTime, Resolver: cfg.resolver, Control: cfg.Target.guard(own)}
	return &http.Client{
		Timeout:       answerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: cfg.TLS, TLSHandshakeTimeout: dialTime,
			MaxIdleConns: 1, MaxConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: maxAnswer, DisableCompression: true,
		},
	}
}

// place reads where to go on. What ended calls of a server that is gone is not safe yet, and to come.
func (h *hook) place() error {
	if h.path != "" {
		text, err := readShort(h.path)
		if err == nil {
			if _, err := parseCursor(string(text)); err == nil {
				h.pos = string(text)
				return nil
			}
			h.log.Warn("place of a webhook is damaged; it begins with the oldest event", "path", h.path)
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	page, err := h.feed.Read(h.Client, Query{After: Now})
	if err != nil {
		return err
	}
	h.pos = page.Next
	if h.path == "" {
		return nil
	}
	return writeWhole(h.path, []byte(h.pos))
}

func readShort(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxPositionLen))
}

// Start begins to send webhooks.
func (f *Feed) Start() {
	for _, h := range f.hooks {
		ctx, cancel := context.WithCancel(context.Background())
		h.cancel = cancel
		go func() {
			defer close(h.done)
			h.run(ctx)
		}()
	}
}

// stopHooks waits for the webhooks to end. They get a moment for what is left, all the same one: receivers
// that do not answer must not hold up the end of the server one after the other. If ctx is done they get
// no more.
func (f *Feed) stopHooks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hookEndTime)
	defer cancel()
	late := context.AfterFunc(ctx, func() {
		for _, h := range f.hooks {
			h.abort()
		}
	})
	defer late()
	for _, h := range f.hooks {
		if h.cancel != nil { // it was started
			<-h.done
		}
	}
	for _, h := range f.hooks {
		h.abort()
		h.http.CloseIdleConnections()
	}
}

func (h *hook) abort() {
	if h.cancel != nil {
		h.cancel()
	}
}

// run sends until the feed is over and the receiver has what there is, or fails.
func (h *hook) run(ctx context.Context) {
	defer h.save(true)
	for failed := 0; ctx.Err() == nil; {
		changed := h.feed.Changed(h.Client)
		page, err := h.feed.Read(h.Client, Query{After: h.position(), Limit: hookEvents})
		if err == nil && len(page.Items) == 0 && !page.More {
			h.save(false)
			if !h.idle(ctx, changed) {
				return
			}
			continue
		}
		if err == nil {
			err = h.deliver(ctx, page)
		}
		if err == nil {
			failed = 0
			h.failing.Store(false)
			continue
		}
		failed++
		h.failing.Store(true)
		h.failures.Add(1)
		h.warn(err, failed)
		select {
		case <-time.After(h.backoff(failed)):
		case <-h.feed.Over():
			return
		case <-ctx.Done():
			return
		}
	}
}

// idle waits for something to send, and reports whether there may be.
func (h *hook) idle(ctx context.Context, changed <-chan struct{}) bool {
	var late <-chan time.Time
	if h.stale {
		timer := time.NewTimer(saveEvery)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-changed:
		return true
	case <-late:
		return true
	case <-ctx.Done():
		return false
	case <-h.feed.Over():
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
}

// backoff is the time after a number of failures in a row, between half and all of its bound.
func (h *hook) backoff(failed int) time.Duration {
	d := h.RetryMost
	if failed < 20 {
		d = min(d, h.RetryFirst<<(failed-1))
	}
	return d/2 + rand.N(d/2+1)
}

// warn says what failed: at once, and then at most every ten seconds.
func (h *hook) warn(err error, failed int) {
	if time.Since(h.warned) < warnEvery {
		return
	}
	h.warned = time.Now()
	h.log.Warn("webhook not delivered; it is tried again", "attempt", failed, "err", err)
}

// deliver sends a page and moves on behind it once the receiver has taken it.
func (h *hook) deliver(ctx context.Context, page Page) error {
	body := []byte(`{"events":[`)
	n := 0
	last := ""
	for _, i := range page.Items {
		if len(h.Types) > 0 && i.Type != Gap && !slices.Contains(h.Types, i.Type) {
			continue
		}
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, i.Data...)
		last = i.ID
		n++
	}
	if n == 0 {
		h.move(page.Next)
		return nil
	}
	body = append(body, `]}`...)
	if err := h.post(ctx, body, last); err != nil {
		return err
	}
	h.delivered.Add(uint64(n))
	h.lastSuccess.Store(time.Now().UnixMilli())
	h.move(page.Next)
	h.save(true)
	return nil
}

// post makes one attempt. The answer of a receiver that has taken the events is 2xx; every other, 410
// too, is a failure.
func (h *hook) post(ctx context.Context, body []byte, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("make request")
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "rtcd-webhook")
	req.Header.Set(HeaderEventID, id)
	req.Header.Set(HeaderTimestamp, at)
	req.Header.Set(HeaderSignature, signature(h.Secrets, at, body))
	resp, err := h.http.Do(req)
	if err != nil {
		var whole *url.Error // it repeats the URL
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection is used again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("the receiver answered %d", resp.StatusCode)
	}
	return nil
}

func (h *hook) position() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pos
}

func (h *hook) move(to string) {
	h.mu.Lock()
	h.pos = to
	h.mu.Unlock()
	h.stale = true
}

// save writes the place down, if it has changed, now or when it is time. One that is not written only
// means that events are sent again.
func (h *hook) save(now bool) {
	if h.path == "" || !h.stale || !now && time.Since(h.saved) < saveEvery {
		return
	}
	if err := writeWhole(h.path, []byte(h.position())); err != nil {
		h.warn(fmt.Errorf("write place: %w", err), 0)
		return
	}
	h.saved, h.stale = time.Now(), false
}

func (h *hook) stats() HookStats {
	s := HookStats{
		Name: h.Name, Delivered: h.delivered.Load(), Failures: h.failures.Load(), Failing: h.failing.Load(),
		Unsent: h.feed.behind(h.Client, h.position()),
	}
	if at := h.lastSuccess.Load(); at > 0 {
		s.LastSuccess = time.UnixMilli(at)
	}
	return s
}

// behind returns how many events come after a cursor, those that are gone included.
func (f *Feed) behind(client, after string) uint64 {
	at, err := parseCursor(after)
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.clients[client]
	switch {
	case t == nil:
		return 0
	case err != nil || at.lineage != t.lineage:
		return t.next - 1
	}
	return t.next - 1 - min(at.seq, t.next-1)
}
