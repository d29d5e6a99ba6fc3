package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"rtcd/service/api"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.7:1234"
	return r
}

// TestForwardedHeaders shows OT-04: what a proxy says of where a request came from is believed only if it is one of ours,
// for authentication and for events.
func TestForwardedHeaders(t *testing.T) {
	proxies := prefixes("10.0.0.0/8", "fd00::/8")
	tests := []struct {
		name, socket string
		forwarded    []string
		want         string
	}{
		{"no proxy, no header", "192.0.2.7:1", nil, "192.0.2.7"},
		{"spoofed", "192.0.2.7:1", []string{"198.51.100.9"}, "192.0.2.7"},
		{"proxy", "10.0.0.1:1", []string{"198.51.100.9"}, "198.51.100.9"},
		{"proxy by IPv6", "[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"mapped", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.9"}, "198.51.100.9"},
		{"client spoofs, proxy appends", "10.0.0.1:1", []string{"127.0.0.1, 198.51.100.9"}, "198.51.100.9"},
		{"two headers", "10.0.0.1:1", []string{"127.0.0.1", "198.51.100.9"}, "198.51.100.9"},
		{"two proxies", "10.0.0.1:1", []string{"127.0.0.1, 198.51.100.9, 10.0.0.2"}, "198.51.100.9"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no header", "10.0.0.1:1", nil, "10.0.0.1"},
		{"no address", "10.0.0.1:1", []string{"198.51.100.9, unknown"}, "10.0.0.1"},
		{"endless", "10.0.0.1:1", []string{"198.51.100.9," + strings.Repeat("10.0.0.2,", 1000) + "10.0.0.2"}, "10.0.0.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, setup{cfg: api.Config{TrustedProxies: proxies}})
			r := request("GET", "/calls", "")
			r.RemoteAddr = tt.socket
			r.Header["X-Forwarded-For"] = tt.forwarded
			r.SetBasicAuth("c1", key1)
			w.send(w.public, r)
			want := tt.want
			if socket := netip.MustParseAddrPort(tt.socket); socket.Addr().Unmap() == netip.MustParseAddr(want) {
				want = tt.socket
			}
			if w.auth.from != netip.MustParseAddr(tt.want) || w.events[0].Remote != want {
				t.Errorf("authenticated as from %v, recorded %v, want %v", w.auth.from, w.events[0].Remote, want)
			}
		})
	}
}

// TestRequireTLS shows TK-01: with the key on, credentials are not taken in the clear from another machine, whatever the
// peer says of itself; without, they are, with a warning.
func TestRequireTLS(t *testing.T) {
	tests := []struct {
		name, socket, proto string
		tls                 bool
		plain               bool // came in the clear
	}{
		{"in the clear", "192.0.2.7:1", "", false, true},
		{"in the clear, spoofed header", "192.0.2.7:1", "https", false, true},
		{"TLS", "192.0.2.7:1", "", true, false},
		{"loopback", "127.0.0.1:1", "", false, false},
		{"loopback by IPv6", "[::1]:1", "", false, false},
		{"proxy over TLS", "10.0.0.1:1", "https", false, false},
		{"proxy says nothing", "10.0.0.1:1", "", false, false},
		{"proxy in the clear", "10.0.0.1:1", "http", false, true},
	}
	for _, tt := range tests {
		for _, require := range []bool{false, true} {
			w := newWorld(t, setup{cfg: api.Config{RequireTLS: require, AllowSelfRegistration: true, TrustedProxies: prefixes("10.0.0.0/8")}})
			for _, a := range []struct {
				path, body string
				secret     bool
			}{
				{"GET /calls", "", true}, {"GET /ws", "", true}, {"POST /login", `{"clientID":"c1","authKey":"` + key1 + `"}`, true},
				{"POST /register", `{"clientID":"n","authKey":"` + key1 + `"}`, true}, {"GET /ws?ticket=rtcdwt_id_secret", "", true}, {"GET /version", "", false},
			} {
				method, path, _ := strings.Cut(a.path, " ")
				r := request(method, path, a.body)
				r.RemoteAddr = tt.socket
				if tt.proto != "" {
					r.Header.Set("X-Forwarded-Proto", tt.proto)
				}
				if tt.tls {
					r.TLS = &tls.ConnectionState{}
				}
				if method == "GET" && a.secret && !strings.Contains(path, "ticket") {
					r.SetBasicAuth("c1", key1)
				}
				rec := w.send(w.public, r)
				if refused := rec.Code == 403; refused != (require && tt.plain && a.secret) {
					t.Errorf("%s, required %v, %s: %d", tt.name, require, a.path, rec.Code)
				}
			}
			if warned := strings.Contains(w.logs.String(), "credentials came in the clear"); warned != (!require && tt.plain) {
				t.Errorf("%s, required %v: warned %v", tt.name, require, warned)
			}
		}
	}
}

// TestSecretInURL shows TK-01: a secret in a query is refused before anything is done with it, and stays out of the logs.
// OT-07: the one exception is a ticket, on /ws.
func TestSecretInURL(t *testing.T) {
	for _, a := range []struct {
		ask    string
		status int
	}{
		{"GET /version?authKey=CANARY", 400},
		{"GET /calls?token=CANARY", 400}, {"GET /calls?limit=1&TOKEN=CANARY", 400}, {"GET /calls?%74oken=CANARY", 400},
		{"GET /calls?a=b;key=CANARY", 400}, {"GET /calls?Key=CANARY", 400}, {"GET /calls?ticket=CANARY", 400},
		{"POST /login?authkey=CANARY", 400}, {"POST /register?authKey", 400},
		{"GET /ws?token=CANARY", 400}, {"GET /ws?authKey=CANARY", 400}, {"GET /ws?ticket=CANARY&key=1", 400},
		{"GET /ws?ticket=rtcdwt_id_secret", 418}, {"GET /ws?keys=x", 418},
		{"GET /admin/clients?key=CANARY", 400},
	} {
		w := newWorld(t, setup{cfg: open})
		method, path, _ := strings.Cut(strings.ReplaceAll(a.ask, "CANARY", canary), " ")
		who := c1
		if strings.HasPrefix(path, "/admin") {
			who = admin
		}
		rec := w.ask(method, path, "", who)
		if rec.Code != a.status || (a.status == 400) != strings.Contains(rec.Body.String(), "secret_in_url") {
			t.Errorf("%s: %d %s, want %d", a.ask, rec.Code, rec.Body, a.status)
		}
		if strings.Contains(w.logs.String(), canary) || len(w.events) != 1 || (a.status == 400 && w.events[0].Reason != "secret_in_url") {
			t.Errorf("%s: events %+v, logs %s", a.ask, w.events, w.logs)
		}
	}
}

// TestTicketReachesAuth shows OT-07: a ticket comes in the query or as a subprotocol that is not chosen, one at a time, and
// stays out of logs and events.
func TestTicketReachesAuth(t *testing.T) {
	const good = "rtcdwt_id_secret"
	for _, tt := range []struct {
		name, query string
		protocols   []string
		status      int
	}{
		{"query", "?ticket=" + good, nil, 418},
		{"subprotocol", "", []string{"rtcd.v2, rtcd.ticket." + good}, 418},
		{"subprotocol of its own line", "", []string{"rtcd.v2", "rtcd.ticket." + good}, 418},
		{"both", "?ticket=" + good, []string{"rtcd.ticket." + good}, 401},
		{"two", "?ticket=" + good + "&ticket=" + good, nil, 401},
		{"empty", "?ticket=", nil, 401},
		{"empty subprotocol", "", []string{"rtcd.ticket."}, 401},
		{"wrong", "?ticket=" + good + "x", nil, 401},
		{"other subprotocol", "", []string{"rtcd.tickets." + good}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, setup{})
			r := request("GET", "/ws"+tt.query, "")
			r.Header["Sec-Websocket-Protocol"] = tt.protocols
			rec := w.send(w.public, r)
			if rec.Code != tt.status {
				t.Errorf("status %d, want %d", rec.Code, tt.status)
			}
			if rec.Header().Get("Sec-WebSocket-Protocol") != "" {
				t.Error("a subprotocol was chosen")
			}
			if strings.Contains(w.logs.String(), "id_secret") || strings.Contains(rec.Body.String(), "id_secret") {
				t.Errorf("the ticket shows: %s", w.logs)
			}
		})
	}
	w := newWorld(t, setup{})
	r := request("GET", "/calls/a/sessions", "")
	r.Header.Set("Sec-WebSocket-Protocol", "rtcd.ticket."+good)
	if rec := w.send(w.public, r); rec.Code != 401 {
		t.Errorf("a ticket on another route: %d", rec.Code)
	}
}

// A certAuth notes the certificate it is shown.
type certAuth struct {
	*fakeAuth
	seen *x509.Certificate
}

func (a *certAuth) Authenticate(ctx context.Context, c api.Credentials) (api.Principal, error) {
	a.seen = c.Certificate
	return a.fakeAuth.Authenticate(ctx, c)
}

// TestCertificateReachesAuth: only a verified certificate is one.
func TestCertificateReachesAuth(t *testing.T) {
	leaf := &x509.Certificate{Raw: []byte("leaf")}
	for _, tt := range []struct {
		state *tls.ConnectionState
		want  *x509.Certificate
	}{
		{nil, nil},
		{&tls.ConnectionState{}, nil},
		{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, nil},
		{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}, leaf},
	} {
		a := &certAuth{fakeAuth: &fakeAuth{}}
		h := api.New(shut, api.Deps{Auth: a, Calls: fakeCalls{}, WebSockets: &fakeSockets{}})
		r := request("GET", "/ws", "")
		r.TLS = tt.state
		h.ServeHTTP(httptest.NewRecorder(), r)
		if a.seen != tt.want {
			t.Errorf("%+v: certificate %v, want %v", tt.state, a.seen, tt.want)
		}
	}
}
