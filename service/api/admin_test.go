package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/audit"
)

// TestClientsOverAdmin shows WX-10 and WX-13, the online half: an operator adds, lists, reads, changes and removes clients,
// and no answer holds a key or its hash.
func TestClientsOverAdmin(t *testing.T) {
	const record = `{"clientID":"c1","roles":["client"],"created":"2026-11-24T12:00:00Z","epoch":1,"revoked":false}`
	add := func(more string) string { return `{"clientID":"new","authKey":"` + key1 + `"` + more + `}` }
	tests := []struct {
		ask, body string
		status    int
		want, did string
	}{
		{"GET /admin/clients?limit=1", "", 200, `{"clients":[` + record + `],"next":"c1"}` + "\n", ""},
		{"GET /admin/clients?after=c2&limit=1", "", 200, `{"clients":[{"clientID":"low","roles":[],"created":"2026-11-24T12:00:00Z","epoch":1,"revoked":false}],"next":"low"}` + "\n", ""},
		{"GET /admin/clients?after=zz", "", 200, "{\"clients\":[]}\n", ""},
		{"GET /admin/clients/c1", "", 200, record + "\n", ""},
		{"POST /admin/clients", add(""), 201, "{\"clientID\":\"new\",\"code\":\"201\"}\n", "add new []"},
		{"POST /admin/clients", add(`,"roles":["client","x.y"]`), 201, "{\"clientID\":\"new\",\"code\":\"201\",\"unknownRoles\":[\"x.y\"]}\n", "add new [client x.y]"},
		{"PUT /admin/clients/c1/roles", `{"roles":["moderate"]}`, 200, "{\"clientID\":\"c1\",\"code\":\"200\"}\n", "roles c1 moderate"},
		{"PUT /admin/clients/c1/roles", `{"roles":[]}`, 200, "{\"clientID\":\"c1\",\"code\":\"200\"}\n", "roles c1 "},
		{"PUT /admin/clients/c1/roles", `{"roles":null}`, 200, "{\"clientID\":\"c1\",\"code\":\"200\"}\n", "roles c1 default"},
		{"POST /admin/clients/c1/rotate", `{"authKey":"` + key2 + `","graceSeconds":0}`, 200, "{\"code\":\"200\"}\n", "rotate c1 0s"},
		{"POST /admin/clients/c1/revoke", "", 200, "{\"code\":\"200\"}\n", "revoke c1"},
		{"DELETE /admin/clients/c1", "", 200, "{\"code\":\"200\"}\n", "remove c1"},
	}
	for _, tt := range tests {
		w := newWorld(t, setup{})
		method, path, _ := strings.Cut(tt.ask, " ")
		rec := w.ask(method, path, tt.body, admin)
		if rec.Code != tt.status || rec.Body.String() != tt.want || strings.Join(w.did, ", ") != tt.did {
			t.Errorf("%s %s: %d %q, did %q\nwant %d %q, %q", tt.ask, tt.body, rec.Code, rec.Body, w.did, tt.status, tt.want, tt.did)
		}
		if all := w.logs.String() + rec.Body.String() + fmt.Sprint(w.events); strings.Contains(all, key1) || strings.Contains(all, key2) {
			t.Errorf("%s: a key shows", tt.ask)
		}
	}
}

// TestBadAdminInput shows WX-03 and WX-22: no account gets a role of operators, and what is malformed is refused by name.
func TestBadAdminInput(t *testing.T) {
	add := func(id, key, more string) string {
		return `{"clientID":"` + id + `","authKey":"` + key + `"` + more + `}`
	}
	seventeen := strings.TrimSuffix(strings.Repeat(`"r",`, 17), ",")
	tests := []struct {
		ask, body string
		status    int
		reason    string
	}{
		{"PUT /admin/clients/c1/roles", `{"roles":["admin"]}`, 403, "role_reserved"},
		{"PUT /admin/clients/c1/roles", `{"roles":["client","auditor"]}`, 403, "role_reserved"},
		{"POST /admin/clients", add("n", key1, `,"roles":["admin"]`), 403, "role_reserved"},
		{"PUT /admin/clients/c1/roles", `{}`, 400, "missing_field"},
		{"PUT /admin/clients/c1/roles", `{"roles":"client"}`, 400, "wrong_type"},
		{"PUT /admin/clients/c1/roles", `{"roles":["Client"]}`, 400, "out_of_range"},
		{"PUT /admin/clients/c1/roles", `{"roles":["client","client"]}`, 400, "out_of_range"},
		{"PUT /admin/clients/c1/roles", `{"roles":["` + strings.Repeat("r", 33) + `"]}`, 400, "out_of_range"},
		{"PUT /admin/clients/c1/roles", `{"roles":[` + seventeen + `]}`, 400, "out_of_range"},
		{"PUT /admin/clients/nobody/roles", `{"roles":[]}`, 404, "not_found"},
		{"PUT /admin/clients/" + strings.Repeat("x", 65) + "/roles", `{"roles":[]}`, 404, "not_found"},
		{"GET /admin/clients/nobody", "", 404, "not_found"},
		{"GET /admin/clients/%00", "", 404, "not_found"},
		{"DELETE /admin/clients/nobody", "", 404, "not_found"},
		{"POST /admin/clients/nobody/revoke", "", 404, "not_found"},
		{"POST /admin/clients/nobody/rotate", `{"authKey":"` + key1 + `"}`, 404, "not_found"},
		{"POST /admin/clients/c1/rotate", `{"authKey":"short"}`, 400, "out_of_range"},
		{"POST /admin/clients/c1/revoke", `{"all":true}`, 400, "unknown_field"},
		{"POST /admin/clients", add("c1", key1, ""), 409, "already_registered"},
		{"POST /admin/clients", add("", key1, ""), 400, "out_of_range"},
		{"POST /admin/clients", add(strings.Repeat("x", 65), key1, ""), 400, "out_of_range"},
		{"POST /admin/clients", add("n", "short", ""), 400, "out_of_range"},
		{"POST /admin/clients", add("n", key1, `,"epoch":1`), 400, "unknown_field"},
		{"GET /admin/clients?after=" + strings.Repeat("x", 65), "", 400, "out_of_range"},
		{"POST /admin/store/backup", `{"path":"/etc"}`, 400, "unknown_field"},
		{"GET /admin/audit?since=yesterday", "", 400, "out_of_range"},
		{"GET /admin/audit?until=2026-13-01T00:00:00Z", "", 400, "out_of_range"},
		{"GET /admin/audit?outcome=5", "", 400, "out_of_range"},
		{"GET /admin/audit?outcome=", "", 400, "out_of_range"},
		{"GET /admin/audit?action=CR", "", 400, "out_of_range"},
		{"GET /admin/audit?type=%2e%2e%2f", "", 400, "out_of_range"},
		{"GET /admin/audit?client=" + strings.Repeat("x", 65), "", 400, "out_of_range"},
		{"GET /admin/audit?cursor=", "", 400, "out_of_range"},
		{"GET /admin/audit?cursor=bad", "", 400, "bad_cursor"},
		{"GET /admin/audit?limit=0", "", 400, "out_of_range"},
		{"GET /admin/audit?actor=c1", "", 400, "unknown_field"},
	}
	for _, tt := range tests {
		w := newWorld(t, setup{})
		method, path, _ := strings.Cut(tt.ask, " ")
		who := admin
		if strings.HasPrefix(path, "/admin/audit") {
			who = auditor
		}
		rec := w.ask(method, path, tt.body, who)
		if rec.Code != tt.status || reason(t, rec) != tt.reason || len(w.did) > 0 {
			t.Errorf("%s %s: %d %s, did %q, want %d %s", clipTo(tt.ask, 60), tt.body, rec.Code, rec.Body, w.did, tt.status, tt.reason)
		}
	}
}

// TestAuditQuery shows CR-13, and CR-14 for the key that it takes: every filter arrives, and the answer has the events and where to go on.
func TestAuditQuery(t *testing.T) {
	const want = `{"events":[{"seq":1,"time":"2026-11-24T12:00:00.000Z","actor":{"kind":""},"type":"x","action":"E","outcome":0}],"next":"cursor","more":true}` + "\n"
	w := newWorld(t, setup{})
	rec := w.ask("GET", "/admin/audit?since=2026-11-24T12:00:00Z&until=2026-11-24T13:00:00%2B01:00&client=c1&type=client.login&action=E&outcome=4&cursor=x&limit=7", "", auditor)
	if rec.Code != 200 || rec.Body.String() != want {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	q := w.queries[0]
	if !q.filter.Since.Equal(now) || !q.filter.Until.Equal(now) {
		t.Errorf("since %v, until %v", q.filter.Since, q.filter.Until)
	}
	q.filter.Since, q.filter.Until = time.Time{}, time.Time{}
	if q != (auditQuery{audit.Filter{Client: "c1", Type: "client.login", Action: "E"}, 4, "x", 7}) {
		t.Errorf("query %+v", q)
	}
	w.ask("GET", "/admin/audit", "", auditor)
	if q := w.queries[1]; q != (auditQuery{outcome: -1, limit: 100}) {
		t.Errorf("query %+v", q)
	}
}

// TestAdminGuards shows CR-04 and CR-05: network, host name and credentials are looked at each on its own, the network by
// the socket's address, whatever the headers say; an operator's key names no client.
func TestAdminGuards(t *testing.T) {
	good := func(r *http.Request) { r.SetBasicAuth("", adminKey) }
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"all there", good, 200},
		{"named admin", func(r *http.Request) { r.SetBasicAuth("admin", adminKey) }, 200},
		{"other network", func(r *http.Request) { good(r); r.RemoteAddr = "192.0.2.7:1" }, 403},
		{"other network behind a header", func(r *http.Request) {
			good(r)
			r.RemoteAddr = "192.0.2.7:1"
			r.Header.Set("X-Forwarded-For", "10.0.0.9")
		}, 403},
		{"network by a proxy's header", func(r *http.Request) { good(r); r.Header.Set("X-Forwarded-For", "192.0.2.7") }, 200},
		{"rebound name", func(r *http.Request) { good(r); r.Host = "evil.example" }, 403},
		{"other page", func(r *http.Request) { good(r); r.Header.Set("Origin", "https://evil.example") }, 403},
		{"other site", func(r *http.Request) { good(r); r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"no credentials", func(*http.Request) {}, 401},
		{"wrong key", func(r *http.Request) { r.SetBasicAuth("", adminKey+"x") }, 401},
		{"a client's name", func(r *http.Request) { r.SetBasicAuth("c1", adminKey) }, 401},
		{"a client", func(r *http.Request) { r.SetBasicAuth("c1", key1) }, 403},
		{"a client's token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer token-of-c1") }, 403},
		{"auditor", func(r *http.Request) { r.SetBasicAuth("", auditorKey) }, 403},
		{"a ticket", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "rtcd.ticket.rtcdwt_id_secret") }, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, setup{admin: api.AdminConfig{AllowedNets: prefixes("10.0.0.0/8"), TrustedProxies: prefixes("10.0.0.1/32")}})
			r := request("GET", "/admin/clients", "")
			r.Host, r.RemoteAddr = "10.0.0.2:8046", "10.0.0.1:4711"
			tt.change(r)
			if rec := w.send(w.admin, r); rec.Code != tt.status {
				t.Errorf("%d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if len(w.events) != 1 || (w.events[0].Outcome == audit.Success) != (tt.status == 200) {
				t.Errorf("events %+v", w.events)
			}
		})
	}
}

// TestGuardedDebug shows CR-04: where others than this machine reach the admin listener, metrics and profiles need the
// operator's credentials.
func TestGuardedDebug(t *testing.T) {
	guarded := setup{cfg: api.Config{Production: true}, admin: api.AdminConfig{Exposure: api.Exposure{GuardDebug: true}}}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline"} {
		for name, want := range map[string]int{"nobody": 401, "wrong": 401, "c1": 403, "auditor": 403, "admin": 200} {
			w := newWorld(t, guarded)
			r := request("GET", path, "")
			r.Host = "localhost"
			if c := everybody[name]; c != nil {
				r.SetBasicAuth(c.id, c.key)
			}
			if rec := w.send(w.admin, r); rec.Code != want {
				t.Errorf("%s by %s: %d, want %d", path, name, rec.Code, want)
			}
		}
	}
}

// TestAdminWithoutAuth: where nobody can show who he is, there is nothing to do but look at metrics and profiles.
func TestAdminWithoutAuth(t *testing.T) {
	w := newWorld(t, setup{})
	h := api.NewAdmin(api.AdminConfig{}, api.Deps{Tenants: w, AuditLog: w, Backup: w})
	for _, e := range examples {
		if !strings.Contains(e.ask, "/admin/") {
			continue
		}
		method, path, _ := strings.Cut(e.ask, " ")
		r := request(method, path, e.body)
		r.Host = "localhost"
		if rec := w.send(h, r); rec.Code != 404 {
			t.Errorf("%s: %d", e.ask, rec.Code)
		}
	}
}

// TestBackup: the store comes as a stream of bytes that is not to be kept; one that breaks off ends the connection, so
// that a part is not taken for the whole (CR-02's way out).
func TestBackup(t *testing.T) {
	w := newWorld(t, setup{})
	w.backups = []byte(strings.Repeat("all there is ", 100_000))
	s := httptest.NewServer(w.admin)
	defer s.Close()
	fetch := func() (*http.Response, []byte, error) {
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/admin/store/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("", adminKey)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
	resp, body, err := fetch()
	if err != nil || resp.StatusCode != 200 || string(body) != string(w.backups) {
		t.Fatalf("%v, %d bytes, %v", resp, len(body), err)
	}
	if resp.Header.Get("Content-Type") != "application/octet-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", resp.Header)
	}
	w.mu.Lock()
	w.broken, w.late = errors.New("disk is gone"), true
	w.mu.Unlock()
	if _, body, err = fetch(); err == nil {
		t.Errorf("a backup that broke off looks whole: %d bytes", len(body))
	}
	s.Close() // every request has ended
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.events); n != 2 || w.events[0].Outcome != audit.Success || w.events[1].Outcome != audit.SeriousFailure {
		t.Errorf("events %+v", w.events)
	}
}
