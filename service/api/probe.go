package api

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what a probe page may say.
const (
	maxProbeSDP   = 3 << 10
	maxProbeToken = 128
	maxProbeMs    = 60_000
	maxOrigin     = 256
)

// Probes lets end users find out which transports lead to this server from where they are. Whoever
// has a token may do it, once; he gets nothing else of it.
type Probes interface {
	// Invite makes a token. The zero clientID stands for operators.
	Invite(clientID string, epoch uint64) (ProbeToken, error)
	// Origin is where the page is, for who asks from elsewhere under that host name.
	Origin(host string) string
	// Offer answers the offer of a probe over "udp" or "tcp", each once for a token.
	Offer(ctx context.Context, from netip.Addr, token, transport, sdp string) (answer string, err error)
	// Report takes what the page has found. The token is worth nothing after that.
	Report(from netip.Addr, token string, r ProbeReport) error
	// Results are the latest, the newest first.
	Results() []ProbeResult
}

// A ProbeToken is one that was made.
type ProbeToken struct {
	Token     string // the secret
	ID        string // may be logged
	ExpiresAt time.Time
}

// A ProbeReport is what the page has found.
type ProbeReport struct{ UDP, TCP ProbeWay }

// A ProbeWay is what the page has found of one transport.
type ProbeWay struct {
	Works       bool `json:"works"`
	SetupMs     int  `json:"setupMs,omitempty"`
	RTTMs       int  `json:"rttMs,omitempty"`
	LossPercent int  `json:"lossPercent,omitempty"`
	// Seen is where the server saw the endpoint, if it connected; not what the page says.
	Seen string `json:"seen,omitempty"`
}

// A ProbeResult is a report with what the server knows of it.
type ProbeResult struct {
	ID       string    `json:"probeID"`
	ClientID string    `json:"clientID,omitempty"`
	At       time.Time `json:"at"`
	UDP      ProbeWay  `json:"udp"`
	TCP      ProbeWay  `json:"tcp"`
}

//go:embed probe.html
var probeHTML string

// probeCSP lets the page run its own script and style, which are known by their hashes, and speak to
// this server; nothing else.
var probeCSP = "default-src 'none'; script-src " + hashOf(probeHTML, "script") + "; style-src " + hashOf(probeHTML, "style") +
	"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// hashOf returns the CSP source of the element of that name in a page, of which there is one.
func hashOf(page, element string) string {
	_, rest, _ := strings.Cut(page, "<"+element+">")
	content, _, _ := strings.Cut(rest, "</"+element+">")
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// probePage serves GET /probe. The token is in the fragment, which browsers keep to themselves.
func (x *exchange) probePage() {
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(probeHTML)))
	h.Set("Content-Security-Policy", probeCSP)
	h.Set("Referrer-Policy", "no-referrer")
	x.secret()
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write([]byte(probeHTML)) // the peer may be gone; nobody else is to be told
}

// invite serves POST /probes and POST /admin/probes.
func (x *exchange) invite() {
	var origin string
	if !x.decode(textField("origin", &origin, "an origin such as https://rtcd.example.com", validOrigin)) {
		return
	}
	token, err := x.h.Probes.Invite(x.p.ClientID, x.p.Epoch)
	if err != nil {
		x.fail(err)
		return
	}
	x.object.Kind, x.object.ID = "probe", token.ID
	if origin == "" {
		origin = x.ownOrigin()
	}
	x.secret()
	x.write(http.StatusCreated, struct {
		Code      string    `json:"code"`
		Link      string    `json:"link"`
		ProbeID   string    `json:"probeID"`
		ExpiresAt time.Time `json:"expiresAt"`
	}{"201", strings.TrimSuffix(origin, "/") + "/probe#" + token.Token, token.ID, token.ExpiresAt.UTC()})
}

// validOrigin reports whether s is scheme and host of a page, and no more.
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && len(s) <= maxOrigin && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Hostname() != "" &&
		strings.TrimSuffix(s, "/") == u.Scheme+"://"+u.Host
}

// ownOrigin is where the page is, as far as that can be known from here.
func (x *exchange) ownOrigin() string {
	host := (&url.URL{Host: x.r.Host}).Hostname()
	if x.h.plane == admin {
		return x.h.Probes.Origin(host)
	}
	u := url.URL{Scheme: "http", Host: x.r.Host}
	if x.r.TLS != nil || x.h.trusted(x.socket) && strings.EqualFold(x.r.Header.Get("X-Forwarded-Proto"), "https") {
		u.Scheme = "https"
	}
	if origin := u.String(); validOrigin(origin) {
		return origin
	}
	return x.h.Probes.Origin("")
}

func tokenField(into *string) field {
	return textField("token", into, "a token", func(s string) bool { return validText(s, maxProbeToken) && s != "" })
}

// offerProbe serves POST /probe.
func (x *exchange) offerProbe() {
	var token, transport, sdp string
	if !x.decode(
		tokenField(&token).must(), enumField("transport", &transport, "udp", "tcp").must(),
		textField("sdp", &sdp, "a description of at most 3 KiB", func(s string) bool {
			return len(s) <= maxProbeSDP && utf8.ValidString(s) && s != ""
		}).must(),
	) {
		return
	}
	answer, err := x.h.Probes.Offer(x.r.Context(), x.from, token, transport, sdp)
	if err != nil {
		x.fail(err)
		return
	}
	x.secret()
	x.write(http.StatusOK, map[string]string{"code": "200", "sdp": answer})
}

// reportProbe serves POST /probe/result.
func (x *exchange) reportProbe() {
	var token string
	var r ProbeReport
	fields := []field{tokenField(&token).must()}
	for name, way := range map[string]*ProbeWay{"udp": &r.UDP, "tcp": &r.TCP} {
		fields = append(fields, boolField(name, &way.Works).must(), intField(name+"SetupMs", &way.SetupMs, 0, maxProbeMs),
			intField(name+"RTTMs", &way.RTTMs, 0, maxProbeMs), intField(name+"LossPercent", &way.LossPercent, 0, 100))
	}
	if !x.decode(fields...) {
		return
	}
	if err := x.h.Probes.Report(x.from, token, r); err != nil {
		x.fail(err)
		return
	}
	x.done()
}

// listProbes serves GET /admin/probes.
func (x *exchange) listProbes() {
	results := x.h.Probes.Results()
	if results == nil {
		results = []ProbeResult{}
	}
	x.write(http.StatusOK, struct {
		Probes []ProbeResult `json:"probes"`
	}{results})
}

func hasProbes(h *handler) bool { return h.Probes != nil }
