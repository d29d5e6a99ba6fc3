package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/rtc"
)

// Limits of the probe page by name, as counted in rtcd_limit_hits_total.
const (
	limitInvitations metrics.Limit = "probe_tokens"
	limitProbeRate   metrics.Limit = "probe_requests"
)

// Bounds of the probe page.
const (
	probeTokenTime   = 10 * time.Minute
	maxInvitations   = 4096 // outstanding ones
	maxPerInviter    = 64
	maxProbeResults  = 100
	probeRate        = 2  // requests per second of one IPv4 address or IPv6 /64
	probeBurst       = 20 // of which at once
	maxProbeSources  = 4096
	probePrefix      = "rtcdpt_"
	probeIDBytes     = 16
	probeSecretBytes = 32
)

var probeIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// errProbeToken is for every token that is not good, whatever is wrong with it.
var errProbeToken = api.Refuse(http.StatusUnauthorized, "probe_token", errors.New("the link has been used, or is not valid any more"))

// probes are the invitations to the probe page, and what came of them.
type probes struct {
	// Fixed at creation.
	probe   func(context.Context, rtc.ProbeTransport, string, func(rtc.ProbeOutcome)) (string, error) // of the calls
	current func(clientID string, epoch uint64) bool                                                  // whether what a client has been given is still good
	origin  func(host string) string
	metrics *metrics.Metrics
	log     *slog.Logger

	mu        sync.Mutex // guards the fields below
	byID      map[string]*invitation
	order     []*invitation  // as they were made, and so will expire; some are gone already
	byInviter map[string]int // outstanding ones
	results   []api.ProbeResult
	sources   map[netip.Prefix]*rate.Limiter
}

// An invitation is what is kept of a token.
type invitation struct {
	id       string
	hash     [sha256.Size]byte // of the secret
	clientID string            // empty: an operator's
	epoch    uint64
	expires  time.Time
	tried    map[rtc.ProbeTransport]bool
	seen     map[rtc.ProbeTransport]rtc.ProbeOutcome
}

// openProbes returns the probes of a server.
func (s *Server) openProbes() *probes {
	return &probes{
		probe: s.calls.Probe,
		current: func(clientID string, epoch uint64) bool {
			c, err := s.store.Get(clientID)
			return err == nil && epoch >= c.Epoch && !c.Revoked
		},
		origin:  func(host string) string { return probeOrigin(s.cfg, s.public.Addr(), host) },
		metrics: s.metrics, log: logging.Quiet(s.log),
		byID: make(map[string]*invitation), byInviter: make(map[string]int), sources: make(map[netip.Prefix]*rate.Limiter),
	}
}

// probeOrigin says where the probe page of a server is, for who asks the admin listener under a host
// name: at the address of the API, under the name that the configuration has for this machine.
func probeOrigin(cfg config.Config, listener net.Addr, host string) string {
	scheme := "http"
	if cfg.API.HTTP.TLS.Enable {
		scheme = "https"
	}
	named, _, _ := net.SplitHostPort(cfg.API.HTTP.ListenAddress)
	a, err := netip.ParseAddr(named)
	if o, oerr := cfg.RTC.HostOverride(); named != "" && (err != nil || !a.IsUnspecified()) {
		host = named
	} else if oerr == nil && o.Kind == config.HostOverrideName {
		host = o.Name
	} else if oerr == nil && o.Kind == config.HostOverrideAddress {
		host = o.Addr.String()
	}
	port := ""
	if a, ok := listener.(*net.TCPAddr); ok {
		port = strconv.Itoa(a.Port)
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Origin implements api.Probes.
func (p *probes) Origin(host string) string { return p.origin(host) }

// Invite implements api.Probes.
func (p *probes) Invite(clientID string, epoch uint64) (api.ProbeToken, error) {
	b := make([]byte, probeIDBytes+probeSecretBytes)
	_, _ = rand.Read(b) // it never fails
	id := probeIDs.EncodeToString(b[:probeIDBytes])
	secret := base64.RawURLEncoding.EncodeToString(b[probeIDBytes:])
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expireLocked(now)
	if p.byInviter[clientID] >= maxPerInviter || len(p.byID) >= maxInvitations {
		p.metrics.LimitHit(limitInvitations)
		return api.ProbeToken{}, busy{errors.New("too many probe links are open"), p.order[0].expires.Sub(now)}
	}
	i := &invitation{
		id: id, hash: sha256.Sum256([]byte(secret)), clientID: clientID, epoch: epoch, expires: now.Add(probeTokenTime),
		tried: make(map[rtc.ProbeTransport]bool), seen: make(map[rtc.ProbeTransport]rtc.ProbeOutcome),
	}
	p.byID[id] = i
	p.order = append(p.order, i)
	p.byInviter[clientID]++
	return api.ProbeToken{Token: probePrefix + id + "_" + secret, ID: id, ExpiresAt: i.expires}, nil
}

// expireLocked forgets what is too old.
func (p *probes) expireLocked(now time.Time) {
	n := 0
	for n < len(p.order) && (!now.Before(p.order[n].expires) || p.byID[p.order[n].id] == nil) {
		p.dropLocked(p.order[n])
		n++
	}
	p.order = slices.Delete(p.order, 0, n)
	if len(p.order) > 2*maxInvitations { // most of which were used
		p.order = slices.DeleteFunc(p.order, func(i *invitation) bool { return p.byID[i.id] == nil })
	}
}

func (p *probes) dropLocked(i *invitation) {
	if p.byID[i.id] == nil {
		return
	}
	delete(p.byID, i.id)
	if p.byInviter[i.clientID]--; p.byInviter[i.clientID] <= 0 {
		delete(p.byInviter, i.clientID)
	}
}

// findLocked returns the invitation of a token, if it is good.
func (p *probes) findLocked(token string, now time.Time) *invitation {
	p.expireLocked(now)
	rest, ok := strings.CutPrefix(token, probePrefix)
	id, secret, found := strings.Cut(rest, "_")
	hash := sha256.Sum256([]byte(secret))
	i := p.byID[id]
	if !ok || !found || i == nil || subtle.ConstantTimeCompare(hash[:], i.hash[:]) != 1 || now.After(i.expires) {
		return nil
	}
	return i
}

// take returns the invitation of a token for what use does with it; use runs with mu held. If the
// client that made it is gone, or has got another key, the token is as good as none.
func (p *probes) take(from netip.Addr, token string, use func(*invitation) bool) (*invitation, error) {
	now := time.Now()
	p.mu.Lock()
	wait, ok := p.mayAskLocked(from, now)
	var i *invitation
	if ok {
		i = p.findLocked(token, now)
	}
	p.mu.Unlock()
	switch {
	case !ok:
		p.metrics.LimitHit(limitProbeRate)
		return nil, busy{errors.New("too many requests"), wait}
	case i == nil, i.clientID != "" && !p.current(i.clientID, i.epoch):
		return nil, errProbeToken
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[i.id] != i || !use(i) {
		return nil, errProbeToken
	}
	return i, nil
}

// mayAskLocked spends one request of a source. Without room for another source nobody new gets in
// until some have not asked for a while.
func (p *probes) mayAskLocked(from netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	bits := 32
	if from = from.Unmap(); from.Is6() {
		bits = 64
	}
	source, _ := from.Prefix(bits) // invalid for no address: one source
	l := p.sources[source]
	if l == nil {
		if len(p.sources) >= maxProbeSources {
			for s, l := range p.sources {
				if l.TokensAt(now) >= probeBurst {
					delete(p.sources, s)
				}
			}
		}
		if len(p.sources) >= maxProbeSources {
			return time.Second, false
		}
		l = rate.NewLimiter(probeRate, probeBurst)
		p.sources[source] = l
	}
	return time.Second, l.AllowN(now, 1)
}

// Offer implements api.Probes.
func (p *probes) Offer(ctx context.Context, from netip.Addr, token, transport, sdp string) (string, error) {
	t := rtc.ProbeTransport(transport)
	i, err := p.take(from, token, func(i *invitation) bool {
		fresh := !i.tried[t]
		i.tried[t] = true
		return fresh
	})
	if err != nil {
		return "", err
	}
	answer, err := p.probe(ctx, t, sdp, func(o rtc.ProbeOutcome) {
		p.mu.Lock()
		defer p.mu.Unlock()
		i.seen[t] = o
	})
	switch {
	case errors.Is(err, rtc.ErrProbeTransport):
		return "", api.Refuse(http.StatusConflict, "transport_off", err)
	case errors.Is(err, rtc.ErrProbeOffer):
		p.log.Debug("probe refused", "probeID", i.id, "err", err)
		return "", api.Refuse(http.StatusBadRequest, "bad_offer", rtc.ErrProbeOffer)
	case errors.Is(err, rtc.ErrTooManyProbes):
		p.untry(i, t)
		return "", busy{err, 20 * time.Second}
	case errors.Is(err, rtc.ErrDraining):
		p.untry(i, t)
		return "", unavailable{err}
	}
	return answer, err
}

// untry takes an attempt back of which nothing was made: who is told to come again must be let.
func (p *probes) untry(i *invitation, t rtc.ProbeTransport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(i.tried, t)
}

// Report implements api.Probes.
func (p *probes) Report(from netip.Addr, token string, r api.ProbeReport) error {
	var result api.ProbeResult
	_, err := p.take(from, token, func(i *invitation) bool {
		result = api.ProbeResult{ID: i.id, ClientID: i.clientID, At: time.Now().UTC(), UDP: p.way(r.UDP, i, rtc.ProbeUDP), TCP: p.way(r.TCP, i, rtc.ProbeTCP)}
		p.dropLocked(i)
		p.results = append(p.results, result)
		p.results = p.results[max(0, len(p.results)-maxProbeResults):]
		return true
	})
	if err != nil {
		return err
	}
	args := []any{"probeID", result.ID}
	if result.ClientID != "" {
		args = append(args, "clientID", result.ClientID)
	}
	for _, w := range []struct {
		name string
		api.ProbeWay
	}{{"udp", result.UDP}, {"tcp", result.TCP}} {
		args = append(args, w.name, w.Works)
		if w.Works {
			args = append(args, w.name+"SetupMs", w.SetupMs, w.name+"RTTMs", w.RTTMs, w.name+"LossPercent", w.LossPercent)
		}
		if w.Seen != "" {
			args = append(args, w.name+"Seen", w.Seen)
		}
	}
	p.log.Info("probe", args...)
	return nil
}

// way adds to what the page says of a transport what this server has seen of it.
func (p *probes) way(w api.ProbeWay, i *invitation, t rtc.ProbeTransport) api.ProbeWay {
	o, seen := i.seen[t]
	w.Works = w.Works && seen // what did not get here does not work
	if !w.Works {
		return api.ProbeWay{}
	}
	w.Seen = o.Remote.String()
	return w
}

// Results implements api.Probes.
func (p *probes) Results() []api.ProbeResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.results)
	slices.Reverse(out)
	return out
}
