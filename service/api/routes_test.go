package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"rtcd/service/api"
	"rtcd/service/audit"
	"rtcd/service/policy"
)

// An example asks for a route in a way that succeeds for who may.
type example struct {
	route  string // in the policy
	ask    string // method and path
	body   string
	event  string
	action string
	status int // for the first of may
	may    string
}

// examples has every route there is: see TestEveryRouteHasAnExample.
var examples = []example{
	{"GET /version", "GET /version", "", "server.version", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /system", "GET /system", "", "server.load", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /healthz", "GET /healthz", "", "server.health", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /ready", "GET /ready", "", "server.ready", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /metrics", "GET /metrics", "", "metrics.read", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /debug/pprof/", "GET /debug/pprof/cmdline", "", "profile.read", "R", 200, "nobody low maker c1 admin auditor"},
	{"POST /login", "POST /login", `{"clientID":"c1","authKey":"` + key1 + `"}`, "client.login", "E", 200, "nobody low maker c1 admin auditor"},
	{"POST /register", "POST /register", `{"clientID":"n","authKey":"` + key1 + `"}`, "client.register", "C", 201, "admin"},
	{"POST /unregister", "POST /unregister", `{"clientID":"c1"}`, "client.unregister", "D", 200, "c1 admin"},
	{"PUT /clients/self/key", "PUT /clients/self/key", `{"authKey":"` + key2 + `"}`, "client.rotate", "U", 200, "c1"},
	{"POST /token/refresh", "POST /token/refresh", "", "token.refresh", "U", 400, "c1"},
	{"GET /calls", "GET /calls", "", "call.list", "R", 200, "c1"},
	{"POST /calls", "POST /calls", "", "call.create", "C", 201, "maker c1"},
	{"GET /calls/{callID}", "GET /calls/a", "", "call.read", "R", 200, "c1"},
	{"DELETE /calls/{callID}", "DELETE /calls/a", "", "call.end", "D", 200, "c1"},
	{"GET /calls/{callID}/report", "GET /calls/a/report", "", "call.report", "R", 200, "c1"},
	{"GET /admin/calls/{clientID}/{callID}/report", "GET /admin/calls/c1/a/report?format=html", "", "call.report", "R", 200, "admin"},
	{"POST /calls/{callID}/tokens", "POST /calls/a/tokens", `{"userID":"u"}`, "token.mint", "C", 201, "c1"},
	{"GET /calls/{callID}/sessions", "GET /calls/a/sessions", "", "session.list", "R", 200, "c1"},
	{"GET /calls/{callID}/sessions/{sessionID}", "GET /calls/a/sessions/s1", "", "session.read", "R", 200, "c1"},
	{"DELETE /calls/{callID}/sessions/{sessionID}", "DELETE /calls/a/sessions/s1", "", "session.disconnect", "E", 200, "c1"},
	{"POST /calls/{callID}/moderate", "POST /calls/a/moderate", `{"action":"mute","sessionID":"s1"}`, "call.moderate", "E", 200, "c1"},
	{"GET /events", "GET /events?wait=0", "", "events.read", "R", 200, "c1"},
	{"POST /ws/tickets", "POST /ws/tickets", "", "ticket.mint", "C", 201, "c1"},
	{"GET /ws", "GET /ws", "", "ws.open", "E", 418, "c1"},
	{"GET /admin/clients", "GET /admin/clients", "", "client.list", "R", 200, "admin"},
	{"POST /admin/clients", "POST /admin/clients", `{"clientID":"n","authKey":"` + key1 + `"}`, "client.add", "C", 201, "admin"},
	{"GET /admin/clients/{clientID}", "GET /admin/clients/c1", "", "client.get", "R", 200, "admin"},
	{"DELETE /admin/clients/{clientID}", "DELETE /admin/clients/c1", "", "client.remove", "D", 200, "admin"},
	{"PUT /admin/clients/{clientID}/roles", "PUT /admin/clients/c1/roles", `{"roles":[]}`, "client.roles", "U", 200, "admin"},
	{"POST /admin/clients/{clientID}/rotate", "POST /admin/clients/c1/rotate", `{"authKey":"` + key2 + `"}`, "client.rotate", "U", 200, "admin"},
	{"POST /admin/clients/{clientID}/revoke", "POST /admin/clients/c1/revoke", "", "client.revoke", "U", 200, "admin"},
	{"GET /probe", "GET /probe", "", "probe.page", "R", 200, "nobody low maker c1 admin auditor"},
	{"POST /probe", "POST /probe", `{"token":"t","transport":"udp","sdp":"v=0"}`, "probe.offer", "E", 200, "nobody low maker c1 admin auditor"},
	{"POST /probe/result", "POST /probe/result", `{"token":"t","udp":true,"tcp":false}`, "probe.report", "E", 200, "nobody low maker c1 admin auditor"},
	{"POST /probes", "POST /probes", "", "probe.invite", "C", 201, "c1"},
	{"POST /admin/probes", "POST /admin/probes", "", "probe.invite", "C", 201, "admin"},
	{"GET /admin/probes", "GET /admin/probes", "", "probe.list", "R", 200, "admin"},
	{"GET /admin/audit", "GET /admin/audit", "", "audit.read", "R", 200, "auditor"},
	{"GET /admin/", "GET /admin/", "", "status.page", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /admin/status", "GET /admin/status", "", "status.read", "R", 200, "nobody low maker c1 admin auditor"},
	{"GET /admin/drain", "GET /admin/drain", "", "drain.read", "R", 200, "admin"},
	{"POST /admin/drain", "POST /admin/drain", `{"deadline":"5m"}`, "drain.start", "E", 200, "admin"},
	{"DELETE /admin/drain", "DELETE /admin/drain", "", "drain.end", "E", 200, "admin"},
	{"POST /admin/store/backup", "POST /admin/store/backup", "", "store.backup", "R", 200, "admin"},
}

var everybody = map[string]*creds{
	"nobody": nil, "wrong": wrong, "low": low, "maker": maker, "c1": c1, "c2": c2, "admin": admin, "auditor": auditor,
}

func (w *world) try(e example, c *creds) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(e.ask, " ")
	return w.ask(method, path, e.body, c)
}

// TestEveryRouteHasAnExample shows WX-01: the tests below walk all that the server knows, and every route and message has
// exactly one role.
func TestEveryRouteHasAnExample(t *testing.T) {
	known := map[string]bool{"ws:join": true, "ws:leave": true, "ws:reconnect": true, "ws:rtc": true, "ws:moderate": true}
	for _, e := range examples {
		known[e.route] = true
	}
	builtin := api.Exposure{}.Builtin()
	for key, role := range builtin {
		if !known[key] {
			t.Errorf("%s has no example", key)
		}
		if !policy.ValidRole(role) {
			t.Errorf("%s has the role %q", key, role)
		}
	}
	if len(known) != len(builtin) {
		t.Errorf("%d examples, %d routes", len(known), len(builtin))
	}
}

// TestEveryRouteIsDocumented: what there is stands in the page for authors of backends.
func TestEveryRouteIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		_, pattern, _ := strings.Cut(e.route, " ")
		if !strings.Contains(string(page), "`"+pattern) && !strings.Contains(string(page), e.route) {
			t.Errorf("docs/protocol.md lacks %s", e.route)
		}
	}
}

// TestRoleMatrix shows WX-01, WX-02, WX-03 and OT-01: every kind of principal, also none and a wrong one, asks for every
// route. Who may not gets 401, 403 or 404, and nothing happens. c2 has the same roles as c1, but nothing of c1's is its own.
func TestRoleMatrix(t *testing.T) {
	for _, e := range examples {
		for name, c := range everybody {
			w := newWorld(t, setup{cfg: adm})
			rec := w.try(e, c)
			may := slices.Contains(strings.Fields(e.may), name)
			guests := slices.Contains(strings.Fields(e.may), "nobody")
			switch {
			case may || guests:
				if rec.Code != e.status {
					t.Errorf("%s by %s: %d %s, want %d", e.ask, name, rec.Code, rec.Body, e.status)
				}
			case name == "c2" && strings.Contains(e.may, "c1") && !strings.Contains(e.ask, "c1") && !strings.Contains(e.body, "c1") && !strings.Contains(e.ask, "/calls/"):
				if rec.Code != e.status { // its own of the same kind
					t.Errorf("%s by %s: %d %s, want %d", e.ask, name, rec.Code, rec.Body, e.status)
				}
			default:
				if rec.Code != 401 && rec.Code != 403 && rec.Code != 404 {
					t.Errorf("%s by %s: %d %s", e.ask, name, rec.Code, rec.Body)
				}
				if (name == "nobody" || name == "wrong") && rec.Code != 401 {
					t.Errorf("%s by %s: %d, want 401", e.ask, name, rec.Code)
				}
				if len(w.did) > 0 || len(w.queries) > 0 || len(w.sockets.served) > 0 {
					t.Errorf("%s by %s: did %q", e.ask, name, w.did)
				}
			}
			if rec.Code == 401 && rec.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s by %s: no challenge", e.ask, name)
			}
		}
	}
}

// TestRouteWithoutRoleIsClosed shows WX-01: if the policy has no role for a route, nobody gets in, the admin neither.
func TestRouteWithoutRoleIsClosed(t *testing.T) {
	for _, e := range examples {
		builtin := api.Exposure{}.Builtin()
		delete(builtin, e.route)
		table, err := policy.Compile(policy.Config{}, builtin)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range everybody {
			w := newWorld(t, setup{})
			deps := api.Deps{
				Auth: rolesAuth{w.auth, w}, Remover: w, Tokens: w, Tenants: w, Calls: fakeCalls{}, Overview: w, Managed: w,
				Moderator: w, Probes: w, WebSockets: w.sockets, Backup: w, Drainer: w, Status: w, AuditLog: w, Feed: newFeed(t), Reports: fakeReports{}, Ready: w.Ready, Policy: table,
			}
			w.policy, w.public, w.admin = table, api.New(full, deps), api.NewAdmin(api.AdminConfig{}, deps)
			if rec := w.try(e, c); rec.Code != 403 {
				t.Errorf("%s by %s: %d", e.ask, name, rec.Code)
			}
			if len(w.did) > 0 {
				t.Errorf("%s by %s: did %q", e.ask, name, w.did)
			}
		}
	}
}

// TestEveryRequestMakesOneEvent shows CR-12: whoever asks for whatever, allowed or not, exactly one event has who, from
// where, what was done to what, and how it really ended.
func TestEveryRequestMakesOneEvent(t *testing.T) {
	for _, e := range examples {
		for name, c := range everybody {
			w := newWorld(t, setup{cfg: adm})
			rec := w.try(e, c)
			if len(w.events) != 1 {
				t.Fatalf("%s by %s: %d events", e.ask, name, len(w.events))
			}
			got := w.events[0]
			outcome := audit.Success
			if rec.Code >= 400 {
				outcome = audit.MinorFailure
			}
			if rec.Code == 401 || rec.Code == 403 {
				outcome = audit.SeriousFailure
			}
			if got.Type != e.event || got.Action != audit.Action(e.action) || got.Outcome != outcome || got.Remote != "127.0.0.1:4711" {
				t.Errorf("%s by %s: event %+v, status %d", e.ask, name, got, rec.Code)
			}
			if (outcome == 0) != (got.Reason == "") && e.event != "call.moderate" && e.event != "session.disconnect" {
				t.Errorf("%s by %s: reason %q with outcome %d", e.ask, name, got.Reason, outcome)
			}
			guest := slices.Contains(strings.Fields(e.may), "nobody")
			want := audit.Actor{Kind: audit.Client, ID: name}
			switch {
			case e.route == "POST /login":
				want.ID = "c1" // who has just shown the key
			case guest, name == "nobody", name == "wrong":
				want = audit.Actor{Kind: audit.Guest}
			case name == "admin", name == "auditor":
				want.Kind = audit.Operator
			}
			if got.Actor != want {
				t.Errorf("%s by %s: actor %+v, want %+v", e.ask, name, got.Actor, want)
			}
			if strings.Contains(e.ask, "/calls/a") && got.CallID != "a" {
				t.Errorf("%s by %s: event %+v lacks the call", e.ask, name, got)
			}
			if strings.Contains(e.ask, "/admin/clients/c1") && got.Object != (audit.Object{Kind: "client", ID: "c1"}) {
				t.Errorf("%s by %s: event %+v lacks the client", e.ask, name, got)
			}
			if s := fmt.Sprint(got); strings.Contains(s, key1) || strings.Contains(s, key2) || strings.Contains(s, canary) {
				t.Errorf("%s by %s: event %s holds a secret", e.ask, name, s)
			}
		}
	}
}

// TestOutcomes shows CR-12: the outcome is what happened, not what was meant to.
func TestOutcomes(t *testing.T) {
	w := newWorld(t, setup{})
	last := func() audit.Event { return w.events[len(w.events)-1] }
	check := func(what string, outcome audit.Outcome, reason string) {
		t.Helper()
		if e := last(); e.Outcome != outcome || e.Reason != reason {
			t.Errorf("%s: %+v, want outcome %d, reason %q", what, e, outcome, reason)
		}
	}
	w.ask("POST", "/calls", "{}", c1)
	check("done", audit.Success, "")
	if last().CallID != "made" {
		t.Errorf("event %+v lacks the call", last())
	}
	w.ask("POST", "/calls", "{", c1)
	check("bad input", audit.MinorFailure, "bad_json")
	w.ask("GET", "/calls", "", wrong)
	check("wrong key", audit.SeriousFailure, "unauthorized")
	if last().Actor.Kind != audit.Guest || last().Client() != "c1" {
		t.Errorf("event %+v: want c1 as who it claims to be, and no actor", last())
	}
	w.ask("POST", "/login", `{"clientID":"c1","authKey":"`+key2+`"}`, nil)
	check("wrong login", audit.MinorFailure, "refused")
	w.ask("GET", "/nothing", "", nil)
	check("unknown path", audit.MinorFailure, "not_found")
	if last().Type != "http.unknown" {
		t.Errorf("event %+v", last())
	}
	w.ask("POST", "/calls/a/tokens", `{"userID":"u"}`, c1)
	if last().Object != (audit.Object{Kind: "token", ID: "id"}) || last().User != "u" {
		t.Errorf("event %+v lacks the token's id or whom it is for", last())
	}
	w.ask("POST", "/calls/a/moderate", `{"action":"unpublish","streamID":"v"}`, c1)
	check("moderation", audit.Success, "unpublish")
	if last().Object != (audit.Object{Kind: "stream", ID: "v"}) {
		t.Errorf("event %+v lacks the stream", last())
	}
	w.broken = storeDown{fmt.Errorf("store is full")}
	w.ask("POST", "/calls", "{}", c1)
	check("store down", audit.SeriousFailure, "unavailable")
	w.broken = fmt.Errorf("bug")
	w.ask("POST", "/calls", "{}", c1)
	check("fault", audit.SeriousFailure, "internal")
	w.sockets.panics = true
	w.ask("GET", "/ws", "", c1)
	check("panic", audit.SeriousFailure, "internal")
}

// TestNothingWithoutRecord shows CR-12: if events have to be kept and cannot be, nothing happens. What anybody may read, and
// what says how the server is, goes on.
func TestNothingWithoutRecord(t *testing.T) {
	for _, e := range examples {
		w := newWorld(t, setup{cfg: adm})
		w.auditErr = fmt.Errorf("disk is full")
		who := strings.Fields(e.may)[0]
		rec := w.try(e, everybody[who])
		want := 503
		if who == "nobody" && strings.HasPrefix(e.ask, "GET ") {
			want = e.status
		}
		if rec.Code != want || (want == 503 && rec.Header().Get("Retry-After") == "") {
			t.Errorf("%s: %d %s, want %d", e.ask, rec.Code, rec.Body, want)
		}
		if len(w.did) > 0 {
			t.Errorf("%s: did %q", e.ask, w.did)
		}
		if len(w.events) != 1 {
			t.Errorf("%s: %d events", e.ask, len(w.events))
		}
	}
}

// TestWhatIsNotThere: a route whose part is missing does not exist, for the admin neither, and an unknown path tells
// nothing of the server (CR-01). CR-04, CR-07: on the public listener there is nothing of the admin's, and no profile.
func TestWhatIsNotThere(t *testing.T) {
	bare := newWorld(t, setup{cfg: api.Config{EnableAdmin: true, Production: true}, bare: true})
	today := []string{"GET /version", "GET /system", "GET /healthz", "POST /register", "POST /login", "POST /unregister",
		"GET /calls/{callID}/sessions", "GET /calls/{callID}/sessions/{sessionID}", "GET /ws", "GET /debug/pprof/"}
	for _, e := range examples {
		for _, c := range everybody {
			if rec := bare.try(e, c); (rec.Code == 404 && rec.Body.String() == "404 page not found\n") == slices.Contains(today, e.route) {
				t.Errorf("%s on a bare server: %d", e.ask, rec.Code)
			}
		}
	}
	w := newWorld(t, setup{cfg: full})
	paths := []string{"/", "/nothing", "/debug/pprof/", "/debug/pprof/heap", "/demo", "/index.html", "/admin", "/admin/", "/calls/", "/calls/a/", "//calls", "/calls//tokens", "/ws/", "/version/"}
	for _, e := range examples {
		if strings.Contains(e.ask, "/admin/") {
			_, path, _ := strings.Cut(e.ask, " ")
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"} {
			r := httptest.NewRequest(method, "http://host"+path, nil)
			r.SetBasicAuth("", adminKey)
			rec := w.send(w.public, r)
			if rec.Code != 404 || rec.Body.String() != "404 page not found\n" || len(rec.Header()) != 2 {
				t.Errorf("%s %s: %d %v %s", method, path, rec.Code, rec.Header(), rec.Body)
			}
		}
	}
}

// TestWrongMethod: a method that a path does not have is not found, as in the established protocol.
func TestWrongMethod(t *testing.T) {
	has := map[string]bool{}
	paths := map[string]bool{}
	for _, e := range examples {
		_, path, _ := strings.Cut(e.ask, " ")
		has[e.ask], paths[path] = true, true
	}
	w := newWorld(t, setup{cfg: full})
	for path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodOptions} {
			if has[method+" "+path] || path == "/metrics" || strings.HasPrefix(path, "/debug") {
				continue
			}
			who := c1
			if strings.HasPrefix(path, "/admin") {
				who = admin
			}
			if rec := w.ask(method, path, "", who); rec.Code != 404 {
				t.Errorf("%s %s: %d", method, path, rec.Code)
			}
		}
	}
}
