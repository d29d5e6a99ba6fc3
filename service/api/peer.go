package api

import (
	"crypto/x509"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// maxForwarded bounds how many proxies a request is believed to have come through.
const maxForwarded = 16

// socketAddr returns the address of the peer, without port and zone.
func socketAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// trusted reports whether an address is of one of our proxies.
func (h *handler) trusted(a netip.Addr) bool { return within(h.cfg.TrustedProxies, a) }

func within(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// sourceOf returns the address a request came from: the last one that a trusted proxy names and
// that is not one itself. Of anybody else the header is not believed.
func (h *handler) sourceOf(r *http.Request, socket netip.Addr) netip.Addr {
	if !h.trusted(socket) {
		return socket
	}
	from := socket
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= max(0, len(hops)-maxForwarded); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return from
		}
		if from = a.Unmap().WithZone(""); !h.trusted(from) {
			return from
		}
	}
	return from
}

// encrypted reports whether nobody on the way could read the request: it came over TLS, from this
// machine, or from a proxy of ours that did not get it in the clear.
func (x *exchange) encrypted() bool {
	switch {
	case x.r.TLS != nil:
		return true
	case x.h.trusted(x.socket):
		proto := x.r.Header.Get("X-Forwarded-Proto")
		return proto == "" || strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
	}
	return x.socket.IsLoopback()
}

// private refuses credentials that came in the clear, if so configured, and warns otherwise.
func (x *exchange) private() bool {
	secret := x.route.keyInBody || x.r.Header.Get("Authorization") != "" || len(x.tickets()) > 0
	if !secret || x.encrypted() {
		return true
	}
	if x.h.cfg.RequireTLS {
		x.refuse(problem{http.StatusForbidden, reasonTLSRequired, "credentials are taken over TLS only"})
		return false
	}
	if x.h.warned.CompareAndSwap(false, true) { // once: it will be like that all the time
		x.h.log.Warn("credentials came in the clear; api.security.require_tls would refuse them", "remoteAddr", clip(x.r.RemoteAddr, lineTextBytes))
	}
	return true
}

// certificateOf returns the certificate of the peer if it has been verified.
func certificateOf(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return r.TLS.PeerCertificates[0]
}

// secretNames are the names of query parameters that would hold a secret, in lower case. Tickets
// are taken on /ws alone.
var secretNames = []string{"authkey", "token", "key", "ticket"}

// noSecretInURL refuses secrets in a place that logs, histories and proxies keep.
func (x *exchange) noSecretInURL() bool {
	for pair := range strings.FieldsFuncSeq(x.r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		name = strings.ToLower(name)
		if slices.Contains(secretNames, name) && !(name == "ticket" && x.route.ticket) {
			x.refuse(problem{http.StatusBadRequest, reasonSecretInURL, reasonSecretInURL})
			return false
		}
	}
	return true
}
