// Package api serves the HTTP API of the server: registration and login of backends, the list
// of sessions, the load of the machine, and the upgrade to a WebSocket. Profiling and, in the
// production profile, metrics stand on a listener of their own (NewAdmin).
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"rtcd/service/api/internal/quietlog"
	"rtcd/service/metrics"
)

// maxBodyBytes bounds the body of a request. The largest legitimate one is below 1 KiB.
const maxBodyBytes = 4 << 10

// A Principal is whose credentials a request carries.
type Principal struct {
	ClientID string // empty for the admin
	Admin    bool
	// Hold, if set, is called when the client's WebSocket begins, and what it returns when the
	// WebSocket has ended.
	Hold func() (release func())
}

// Auth is what the API needs of authentication. The text of an error is sent to the peer as it
// is. An error, or one it wraps, may have a method RetryAfter() time.Duration (the server is
// busy: 429) or Unavailable() bool (the store cannot do it now: 503); any other is a refusal.
type Auth interface {
	// Authenticate says who sent the value of an Authorization header.
	Authenticate(ctx context.Context, authorization string, remote netip.Addr) (Principal, error)
	// Register adds a client.
	Register(ctx context.Context, clientID, authKey string) error
	// Login exchanges a client's key for a token.
	Login(ctx context.Context, clientID, authKey string, remote netip.Addr) (token string, err error)
	// Unregister removes a client and its tokens.
	Unregister(ctx context.Context, clientID string) error
}

// Calls is what the API needs of the calls.
type Calls interface {
	// Sessions lists the sessions of a call of a group, and reports whether there is such a call.
	Sessions(groupID, callID string) ([]Session, bool)
}

// WebSockets is what the API needs of the WebSocket server.
type WebSockets interface {
	// Serve upgrades the request of an authenticated client and serves the connection.
	Serve(w http.ResponseWriter, r *http.Request, clientID string)
	// DropClient closes all connections of a client.
	DropClient(clientID string)
}

// A Session is one element of the answer of /calls/{callID}/sessions.
type Session struct {
	GroupID   string
	CallID    string
	UserID    string
	SessionID string
	Props     Props
}

// Props are what the join of a session carried. What it did not carry is null.
type Props struct {
	AV1Support  *bool   `json:"av1Support"`
	ChannelID   *string `json:"channelID"`
	DCSignaling *bool   `json:"dcSignaling"`
}

// Build describes the binary.
type Build struct {
	Version string // empty means DefaultVersion
	Hash    string
	Date    string
}

// DefaultVersion is what a build without version information calls itself. Backends accept a
// server by this value: it has to be a full semantic version.
const DefaultVersion = "v1.3.0"

// Config holds the settings of the API.
type Config struct {
	AllowSelfRegistration bool
	EnableAdmin           bool
	// Production takes /metrics off the API port.
	Production bool
	Build      Build
}

// Deps are the parts the API stands on. Metrics and Log may be nil.
type Deps struct {
	Auth       Auth
	Calls      Calls
	WebSockets WebSockets
	Load       *Load
	// Unregistered, if set, is called once a client is gone from Auth and its connections are
	// closed, to end its sessions.
	Unregistered func(clientID string)
	Metrics      *metrics.Metrics
	Log          *slog.Logger
}

// A handler serves all routes of the API.
type handler struct {
	cfg     Config
	auth    Auth
	calls   Calls
	ws      WebSockets
	load    *Load
	gone    func(clientID string)
	metrics *metrics.Metrics
	scrape  http.Handler // nil if metrics are not served here
	log     *slog.Logger
	quiet   *quietlog.Logger
	version []byte
}

// New returns the handler of the API.
func New(cfg Config, deps Deps) http.Handler {
	h := &handler{
		cfg: cfg, auth: deps.Auth, calls: deps.Calls, ws: deps.WebSockets, load: deps.Load,
		gone: deps.Unregistered, metrics: deps.Metrics, log: deps.Log,
	}
	if h.metrics == nil {
		h.metrics = metrics.New()
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if !cfg.Production {
		h.scrape = h.metrics.Handler()
	}
	h.quiet = quietlog.New(h.log)
	if h.cfg.Build.Version == "" {
		h.cfg.Build.Version = DefaultVersion
	}
	h.version = encodeJSON(struct {
		BuildDate    string `json:"buildDate"`
		BuildVersion string `json:"buildVersion"`
		BuildHash    string `json:"buildHash"`
		GoVersion    string `json:"goVersion"`
		GoOS         string `json:"goOS"`
		GoArch       string `json:"goArch"`
	}{h.cfg.Build.Date, h.cfg.Build.Version, h.cfg.Build.Hash, runtime.Version(), runtime.GOOS, runtime.GOARCH})
	return recovering(h, h.metrics, h.log)
}

// ServeHTTP implements http.Handler. A path is taken as it is: there are no redirects, and what
// is not known, or known with another method, is not found.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var serve http.HandlerFunc
	method := http.MethodGet
	switch r.URL.Path {
	case "/version":
		serve = h.serveVersion
	case "/system":
		serve = h.serveSystem
	case "/ws":
		serve = h.serveWebSocket
	case "/register":
		serve, method = h.registerClient, http.MethodPost
	case "/login":
		serve, method = h.loginClient, http.MethodPost
	case "/unregister":
		serve, method = h.unregisterClient, http.MethodPost
	case "/metrics":
		if h.scrape != nil {
			serve, method = h.scrape.ServeHTTP, r.Method
		}
	default:
		if strings.HasPrefix(r.URL.Path, "/calls/") {
			serve = h.serveCalls
		}
	}
	if serve == nil || r.Method != method {
		http.NotFound(w, r)
		return
	}
	serve(w, r)
}

func (h *handler) serveVersion(w http.ResponseWriter, _ *http.Request) {
	writeBody(w, http.StatusOK, h.version)
}

func (h *handler) serveSystem(w http.ResponseWriter, _ *http.Request) {
	var load float64
	if h.load != nil {
		load = h.load.Value()
	}
	writeBody(w, http.StatusOK, encodeJSON(struct {
		CPULoad float64 `json:"cpu_load"`
	}{load}))
}

// recovering answers a request whose handler panics with 500. It is our bug, and costs nobody
// but that request.
func recovering(next http.Handler, m *metrics.Metrics, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			m.HandlerPanicked()
			log.Error("request handler panicked", "method", r.Method, "url", r.URL.EscapedPath(),
				"err", p, "stack", string(debug.Stack()))
			http.Error(w, "internal error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// retryAfter formats d as whole seconds, at least one.
func retryAfter(d time.Duration) int { return int(max((d+time.Second-1)/time.Second, 1)) }
