package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Limits the server puts on credentials, in bytes.
const (
	MaxClientID = 64
	MinAuthKey  = 32
	MaxAuthKey  = 72
)

// Config says which server to speak to, as whom. URL and ClientID are required, and one of AuthKey
// and Ticket; a zero value elsewhere means the default named with the field.
type Config struct {
	// URL of the server's API, http or https, such as "http://127.0.0.1:8045". A path in it is
	// a prefix to all paths.
	URL string

	// ClientID names the backend, AuthKey proves it. An id with a colon cannot be used with
	// basic authentication; such a client logs in by itself and uses tokens.
	ClientID string
	AuthKey  string

	// Ticket, if set, gets a one-time ticket for each attempt to open the WebSocket, which then
	// carries neither key nor token; see Client.Ticket, which makes them. With it AuthKey may be
	// empty. Then the Client makes no requests that need a key, and a Conn does not find out which
	// of its sessions were lost while it was away.
	Ticket func(ctx context.Context) (string, error)

	// V2 asks the server for what is beyond the established protocol: a Conn may moderate, and
	// delivers ErrorEvent and StatsEvent. Whether the server takes part is in Connected.
	V2 bool

	// AdminKey is the server's admin secret. If set, Register and Unregister use it; they need
	// it where the server does not let clients register themselves.
	AdminKey string

	// AutoRegister makes a Conn register the client, once per attempt to connect, when the
	// server does not know it: at first, and when a server comes back without its store.
	AutoRegister bool

	// HTTPClient serves all requests but the WebSocket. Default: one with the timeouts of a
	// service next door (dial 4 s, TLS 4 s, answer 30 s) that follows no redirects.
	HTTPClient *http.Client

	// TLS is used for wss, and for https unless HTTPClient is set.
	TLS *tls.Config

	// DialContext opens the TCP connection of the WebSocket, and those of requests unless HTTPClient
	// is set, for backends that have a way of their own to the server: an address to come from, a
	// tunnel. Default: that of a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Log takes what nobody is returned: losses of the connection and messages that make no
	// sense. Default: discarded.
	Log *slog.Logger

	// MinBackoff and MaxBackoff bound the delay between two attempts to connect again. It
	// starts at MinBackoff, doubles with each failure, and each is shortened by chance by up to
	// one half. Defaults: 250 ms, 30 s.
	MinBackoff, MaxBackoff time.Duration

	// GiveUpAfter is how long a Conn tries to connect again before it ends with the last error.
	// Default: for ever. Refused credentials end it at once.
	GiveUpAfter time.Duration

	SendQueue      int // 4,096 messages waiting to be sent
	SendQueueBytes int // 16 MiB
	EventBuffer    int // 1,024 events waiting to be read
}

const (
	dialTimeout      = 4 * time.Second
	handshakeTimeout = 10 * time.Second
	requestTimeout   = 30 * time.Second
)

// A Client makes requests to one server as one backend. Its methods are safe for concurrent use.
type Client struct {
	cfg    Config
	base   *url.URL
	http   *http.Client
	log    *slog.Logger
	bearer bool // the id does not fit basic authentication

	mu    sync.Mutex
	token string // from the last login, empty if there was none or it was refused
}

// New checks cfg and returns a Client. It makes no request.
func New(cfg Config) (*Client, error) {
	base, err := parseBase(cfg.URL)
	if err != nil {
		return nil, err
	}
	if n := len(cfg.ClientID); n == 0 || n > MaxClientID {
		return nil, fmt.Errorf("client id has %d bytes, want 1 to %d", n, MaxClientID)
	}
	if n := len(cfg.AuthKey); (n < MinAuthKey || n > MaxAuthKey) && (n != 0 || cfg.Ticket == nil) {
		return nil, fmt.Errorf("auth key has %d bytes, want %d to %d", n, MinAuthKey, MaxAuthKey)
	}
	if cfg.MinBackoff < 0 || cfg.MaxBackoff < 0 || cfg.GiveUpAfter < 0 ||
		cfg.SendQueue < 0 || cfg.SendQueueBytes < 0 || cfg.EventBuffer < 0 {
		return nil, errors.New("a limit in the configuration is negative")
	}
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, 250*time.Millisecond)
	cfg.MaxBackoff = max(cmp.Or(cfg.MaxBackoff, 30*time.Second), cfg.MinBackoff)
	cfg.SendQueue = cmp.Or(cfg.SendQueue, 4096)
	cfg.SendQueueBytes = cmp.Or(cfg.SendQueueBytes, 16<<20)
	cfg.EventBuffer = cmp.Or(cfg.EventBuffer, 1024)
	if cfg.DialContext == nil {
		cfg.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	c := &Client{
		cfg: cfg, base: base, http: cfg.HTTPClient, log: cfg.Log,
		bearer: strings.Contains(cfg.ClientID, ":"),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.http == nil {
		c.http = defaultHTTPClient(cfg)
	}
	return c, nil
}

// parseBase checks the server's URL. Its text is not in the errors: it may hold a password.
func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("parse server url: not a url")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("server url: scheme is neither http nor https")
	case u.Hostname() == "":
		return nil, errors.New("server url: no host")
	case u.User != nil:
		return nil, errors.New("server url: credentials belong in ClientID and AuthKey")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("server url: has a query or a fragment")
	}
	return u, nil
}

func defaultHTTPClient(cfg Config) *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         cfg.DialContext,
			TLSClientConfig:     cfg.TLS.Clone(),
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     20 * time.Second, // below the server's 30 s, which would race with us
			ForceAttemptHTTP2:   true,
		},
		// A redirect would carry the key in a body to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// CloseIdleConnections closes the HTTP connections kept for the next request, as does
// http.Client's method of that name.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// authorization returns the value of the Authorization header, and the token if it is one.
func (c *Client) authorization(ctx context.Context) (header, token string, err error) {
	if c.cfg.AuthKey == "" {
		return "", "", errNoKey
	}
	c.mu.Lock()
	token = c.token
	c.mu.Unlock()
	if token == "" && c.bearer {
		if token, err = c.Login(ctx); err != nil {
			return "", "", err
		}
	}
	if token != "" {
		return "Bearer " + token, token, nil
	}
	return basic(c.cfg.ClientID, c.cfg.AuthKey), "", nil
}

// forget drops a token that was refused and reports whether another try makes sense.
func (c *Client) forget(token string) bool {
	if token == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == token {
		c.token = ""
	}
	return true
}

// errNoKey is the error of whatever needs a key, without one.
var errNoKey = errors.New("no auth key in the configuration")

func basic(id, key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+key))
}
