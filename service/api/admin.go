package api

import (
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strings"
)

// AdminConfig holds the settings of the admin listener.
type AdminConfig struct {
	// Hosts are names of this server that a request may be addressed to, besides localhost and
	// addresses.
	Hosts []string
	// AllowedNets, if there are any, are where requests may come from, by the address of the
	// socket.
	AllowedNets []netip.Prefix
	// TrustedProxies are believed to name where a request came from, in events.
	TrustedProxies []netip.Prefix
	// Exposure with GuardDebug belongs on every listener that others than this machine reach.
	Exposure Exposure
	// RequireTLS refuses credentials that come in the clear from another machine.
	RequireTLS bool
}

// NewAdmin returns the handler of the admin listener, which belongs on a loopback address: it
// serves /metrics, /debug/pprof/ and what operators do. A request that a web page could have made a
// browser send is refused: one with a host name other than localhost and cfg.Hosts (DNS
// rebinding), or one from another origin. Of deps, nothing has to be there.
func NewAdmin(cfg AdminConfig, deps Deps) http.Handler {
	if deps.Auth == nil { // nobody could show that he may
		deps.Probes = nil
		deps.Tenants, deps.AuditLog, deps.Backup, deps.Drainer = nil, nil, nil, nil
	}
	h := newHandler(admin, Config{RequireTLS: cfg.RequireTLS, TrustedProxies: cfg.TrustedProxies}, deps, cfg.Exposure)
	h.guard = guard{hosts: cfg.Hosts, nets: cfg.AllowedNets}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	h.profile = mux
	return h
}

func (x *exchange) profile() { x.h.profile.ServeHTTP(x.w, x.r) }

// A guard says who may speak to the admin listener at all.
type guard struct {
	hosts []string
	nets  []netip.Prefix
}

// guarded refuses what must not even be looked at.
func (x *exchange) guarded() bool {
	if x.h.plane != admin {
		return true
	}
	g := &x.h.guard
	if (len(g.nets) == 0 || within(g.nets, x.socket)) && ownHost(x.r.Host, g.hosts) && sameOrigin(x.r) {
		return true
	}
	x.reason = reasonForbidden
	http.Error(x.w, "forbidden", http.StatusForbidden)
	return false
}

// ownHost reports whether a Host header names us. An address cannot be rebound, a name can.
func ownHost(hostport string, hosts []string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, own := range append([]string{"localhost"}, hosts...) {
		if own != "" && strings.EqualFold(host, own) {
			return true
		}
	}
	return false
}

// sameOrigin reports whether a request is not from a page of another origin.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}
