// Package api serves the HTTP API of the server: accounts of backends, their tokens and tickets,
// their calls and who may join them, the load of the machine, and the upgrade to a WebSocket; and,
// on a listener of its own (NewAdmin), what operators do.
//
// Everything that can be asked for stands in one table (routes). A request finds its line there;
// then it is found out who asks, what the policy says to that, and what became of it is recorded,
// once. What is in no table is not found, what has no role in the policy is denied.
package api

import (
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"

	"rtcd/service/api/internal/quietlog"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

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
	// RequireTLS refuses credentials that come in the clear from another machine.
	RequireTLS bool
	// TrustedProxies are the proxies in front of us, whose X-Forwarded-For and X-Forwarded-Proto
	// are believed. Those of anybody else are ignored.
	TrustedProxies []netip.Prefix
	// RegistrationToken, if set, has to be in the body of who registers himself.
	RegistrationToken string
	// RegistrationNets, if there are any, are where one may register oneself from.
	RegistrationNets []netip.Prefix
	Build            Build
}

// A handler serves the routes of one listener.
type handler struct {
	Deps
	cfg     Config
	plane   plane
	guard   guard // of the admin plane
	routes  []*route
	policy  *policy.Table
	log     *slog.Logger
	quiet   *quietlog.Logger
	perID   *slog.Logger     // a few lines in a while per message and client
	refused *logging.Limiter // of audit lines of requests that failed, per line and status
	scrape  http.Handler
	about   []byte // answer of /version
	profile http.Handler
	warned  atomic.Bool // of credentials in the clear
	streams streams     // of events
}

// New returns the handler of the API.
func New(cfg Config, deps Deps) http.Handler {
	return newHandler(public, cfg, deps, Exposure{SelfRegistration: cfg.AllowSelfRegistration})
}

func newHandler(p plane, cfg Config, deps Deps, e Exposure) *handler {
	h := &handler{Deps: deps, cfg: cfg, plane: p, policy: deps.Policy, log: deps.Log}
	if h.Metrics == nil {
		h.Metrics = metrics.New()
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.policy == nil {
		table, err := policy.Compile(policy.Config{}, e.Builtin())
		if err != nil {
			panic(err) // our own table
		}
		h.policy = table
	}
	h.scrape = h.Metrics.Handler()
	h.quiet = quietlog.New(h.log)
	h.perID, h.refused = logging.Quiet(h.log, "clientID"), logging.NewBurstLimiter()
	h.routes = routesOf(p, h)
	if h.cfg.Build.Version == "" {
		h.cfg.Build.Version = DefaultVersion
	}
	h.about = encodeJSON(struct {
		BuildDate    string `json:"buildDate"`
		BuildVersion string `json:"buildVersion"`
		BuildHash    string `json:"buildHash"`
		GoVersion    string `json:"goVersion"`
		GoOS         string `json:"goOS"`
		GoArch       string `json:"goArch"`
	}{h.cfg.Build.Date, h.cfg.Build.Version, h.cfg.Build.Hash, runtime.Version(), runtime.GOOS, runtime.GOARCH})
	return h
}

func (x *exchange) version() { writeBody(x.w, http.StatusOK, x.h.about) }

func (x *exchange) system() {
	var load float64
	if x.h.Load != nil {
		load = x.h.Load.Value()
	}
	x.write(http.StatusOK, struct {
		CPULoad float64 `json:"cpu_load"`
	}{load})
}

// healthy says that the server answers.
func (x *exchange) healthy() { x.write(http.StatusOK, map[string]string{"status": "ok"}) }

// ready says whether the server takes new calls.
func (x *exchange) ready() {
	if err := x.h.Ready(); err != nil {
		x.retryAfter(noRetryAfter)
		p, ok := x.refusalOf(err)
		if !ok || p.status != http.StatusServiceUnavailable {
			p = problem{http.StatusServiceUnavailable, reasonUnavailable, err.Error()}
		}
		x.refuse(p)
		return
	}
	x.write(http.StatusOK, map[string]string{"status": "ready"})
}

func (x *exchange) metrics() { x.h.scrape.ServeHTTP(x.w, x.r) }

// webSocket serves /ws.
func (x *exchange) webSocket() {
	if x.p.Hold != nil {
		defer x.p.Hold()()
	}
	x.h.WebSockets.Serve(x.w, x.r, Peer{ClientID: x.p.ClientID, Epoch: x.p.Epoch, Roles: x.p.Roles, Remote: x.from})
}
