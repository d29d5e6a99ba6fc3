package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"rtcd/service/api"
	"rtcd/service/audit"
)

// checkAnswer asks for a path with whatever body, and shows WX-22: no panic, no fault, a refusal that is JSON with a reason,
// one event, no long line in the log, and nothing done unless the answer says so.
func checkAnswer(t *testing.T, w *world, c *creds, method, path, query, body string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://localhost/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.URL.Parse(path)
	if err != nil || u.Host != "localhost" {
		return
	}
	r.URL = u
	r.URL.RawQuery = query
	r.RemoteAddr = "127.0.0.1:1"
	r.SetBasicAuth(c.id, c.key)
	h := w.public
	if strings.HasPrefix(path, "/admin") {
		h = w.admin
	}
	w.did, w.events = nil, nil
	w.logs.Reset()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code >= 500 || rec.Code < 200 || (rec.Code >= 300 && rec.Code < 400) {
		t.Fatalf("%s %s %q: status %d, %s", method, path, body, rec.Code, rec.Body)
	}
	if len(w.events) != 1 || (w.events[0].Outcome == audit.Success) != (rec.Code < 400) {
		t.Fatalf("%s %s %q: events %+v, status %d", method, path, body, w.events, rec.Code)
	}
	if rec.Code >= 400 && len(w.did) > 0 {
		t.Fatalf("%s %s %q: %d, but did %q", method, path, body, rec.Code, w.did)
	}
	for line := range strings.Lines(w.logs.String()) {
		if len(line) > 1024 && rec.Code >= 400 {
			t.Fatalf("%s %s %q: a log line of %d bytes", method, path, body, len(line))
		}
	}
	if rec.Body.String() == "404 page not found\n" || strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain") {
		return
	}
	if !json.Valid(rec.Body.Bytes()) && rec.Header().Get("Content-Type") == "application/json" {
		t.Fatalf("%s %s %q: %q is not JSON", method, path, body, rec.Body)
	}
	if rec.Code >= 400 && reason(t, rec) == "" && path != "/unregister" {
		t.Fatalf("%s %s %q: %q has no reason", method, path, body, rec.Body)
	}
	if rec.Code < 300 && body != "" && method != "GET" && method != "DELETE" && !json.Valid([]byte(body)) && strings.TrimSpace(body) != "" {
		t.Fatalf("%s %s: took %q", method, path, body)
	}
}

var bodies = []string{
	"", " ", "{}", "null", "[]", "{", `{"a":1}`, `{"e2ee":true,"maxParticipants":3}`, `{"action":"mute","sessionID":"s1"}`, `{"action":"mute_all","except":["a"]}`,
	`{"ttl":60,"role":"moderator"}`, `{"authKey":"` + key1 + `","graceSeconds":3}`, `{"clientID":"n","authKey":"` + key1 + `","roles":["client"]}`,
	`{"roles":[]}`, `{"roles":["\ud800"]}`, "{\"\xff\":1}", strings.Repeat("[", 4000), `{"roles":` + strings.Repeat("[", 4000), `{"e2ee":true}{}`, strings.Repeat(" ", 5000),
}

// FuzzCalls shows WX-22 for calls, tokens and moderation.
func FuzzCalls(f *testing.F) {
	for _, b := range bodies {
		f.Add(b, "a", "s1", "limit=1")
	}
	f.Add("", "b%2F1", "%00", "after=%zz&token=1")
	w := newWorld(f, setup{})
	f.Fuzz(func(t *testing.T, body, call, session, query string) {
		checkAnswer(t, w, c1, "POST", "/calls", "", body)
		checkAnswer(t, w, c1, "GET", "/calls", query, "")
		checkAnswer(t, w, c1, "GET", "/calls/"+call, query, "")
		checkAnswer(t, w, c1, "DELETE", "/calls/"+call, query, body)
		checkAnswer(t, w, c1, "POST", "/calls/"+call+"/tokens", query, body)
		checkAnswer(t, w, c1, "POST", "/calls/"+call+"/moderate", query, body)
		checkAnswer(t, w, c1, "GET", "/calls/"+call+"/sessions/"+session, query, "")
		checkAnswer(t, w, c1, "DELETE", "/calls/"+call+"/sessions/"+session, query, body)
	})
}

// FuzzAccount shows WX-22 for what a client does with its own account.
func FuzzAccount(f *testing.F) {
	for _, b := range bodies {
		f.Add(b, "token=x")
	}
	w := newWorld(f, setup{})
	f.Fuzz(func(t *testing.T, body, query string) {
		checkAnswer(t, w, c1, "PUT", "/clients/self/key", query, body)
		checkAnswer(t, w, c1, "POST", "/ws/tickets", query, body)
		checkAnswer(t, w, c1, "POST", "/token/refresh", query, body)
	})
}

// FuzzAdmin shows WX-22 and WX-21 for operators: whatever is asked, at most one client is changed.
func FuzzAdmin(f *testing.F) {
	for _, b := range bodies {
		f.Add(b, "c1", "limit=1")
	}
	f.Add("", "%2e%2e", "since=2026-11-24T12:00:00Z&cursor=x&outcome=4&action=R&type=a.b&client=c")
	w := newWorld(f, setup{})
	f.Fuzz(func(t *testing.T, body, id, query string) {
		for _, a := range []struct{ method, path, query string }{
			{"GET", "/admin/clients", query}, {"POST", "/admin/clients", ""}, {"GET", "/admin/clients/" + id, ""},
			{"DELETE", "/admin/clients/" + id, ""}, {"PUT", "/admin/clients/" + id + "/roles", ""},
			{"POST", "/admin/clients/" + id + "/rotate", ""}, {"POST", "/admin/clients/" + id + "/revoke", ""},
			{"GET", "/admin/audit", query},
		} {
			who := admin
			if a.path == "/admin/audit" {
				who = auditor
			}
			checkAnswer(t, w, who, a.method, a.path, a.query, body)
			if len(w.did) > 1 {
				t.Fatalf("%s %s: did %q", a.method, a.path, w.did)
			}
			for id, tenant := range w.tenants {
				for _, role := range tenant.Roles {
					if role == "admin" || role == "auditor" {
						t.Fatalf("%s is %s", id, role)
					}
				}
			}
		}
	})
}

// FuzzForwarded shows OT-04: whatever proxies and peers claim, there is an address, and it is the socket's unless a trusted
// proxy speaks.
func FuzzForwarded(f *testing.F) {
	f.Add("10.0.0.1:1", "1.2.3.4, 10.0.0.2", "https", "a=b&token=c")
	f.Add("192.0.2.1:1", "::ffff:1.2.3.4%eth0", "", "%")
	f.Add("[fe80::1%eth0]:1", ",,,", "x", "ticket=;ticket=")
	f.Fuzz(func(t *testing.T, socket, forwarded, proto, query string) {
		w := newWorld(t, setup{cfg: api.Config{TrustedProxies: prefixes("10.0.0.0/8"), RequireTLS: true}})
		r := request("GET", "/ws", "")
		r.RemoteAddr, r.URL.RawQuery = socket, query
		r.Header = http.Header{"X-Forwarded-For": {forwarded}, "X-Forwarded-Proto": {proto}, "Sec-Websocket-Protocol": {query}}
		rec := w.send(w.public, r)
		if rec.Code != 400 && rec.Code != 401 && rec.Code != 403 && rec.Code != 418 {
			t.Fatalf("status %d", rec.Code)
		}
		ap, err := netip.ParseAddrPort(socket)
		if err == nil && prefixes("10.0.0.0/8")[0].Contains(ap.Addr().Unmap()) {
			return // may say what it wants
		}
		if w.events[0].Remote != socket {
			t.Fatalf("%q came from %q", socket, w.events[0].Remote)
		}
	})
}
