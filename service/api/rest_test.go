package api_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rtcd/service/api"
	"rtcd/service/policy"
)

var (
	auditor = &creds{"auditor", auditorKey}
	low     = &creds{"low", key2 + "low"}
	maker   = &creds{"maker", key1 + "maker"}
)

// TestREST shows OT-13, TK-02, TK-03, TK-05, TK-20 to TK-23 and OT-07 as far as REST goes: what is asked for arrives, and
// the answer says what was done.
func TestREST(t *testing.T) {
	const done = "{\"code\":\"200\"}\n"
	tests := []struct {
		method, path, body string
		status             int
		want, did          string
	}{
		{"GET", "/calls", "", 200, `{"calls":[{"callID":"a","participants":2,"publishers":1,"subscribers":1},{"callID":"b/1","participants":1,"publishers":0,"subscribers":0},{"callID":"c","participants":0,"publishers":0,"subscribers":0}]}` + "\n", ""},
		{"GET", "/calls?limit=1", "", 200, `{"calls":[{"callID":"a","participants":2,"publishers":1,"subscribers":1}],"next":"a"}` + "\n", ""},
		{"GET", "/calls?after=b%2F1&limit=1", "", 200, `{"calls":[{"callID":"c","participants":0,"publishers":0,"subscribers":0}]}` + "\n", ""},
		{"GET", "/calls?after=zzz", "", 200, "{\"calls\":[]}\n", ""},
		{"GET", "/calls/a", "", 200, `{"callID":"a","participants":2,"publishers":1,"subscribers":1,"streams":[{"id":"v","source":"voice","sessionID":"s1","subscribers":1,"muted":false}]}` + "\n", ""},
		{"GET", "/calls/b%2F1", "", 200, `{"callID":"b/1","participants":1,"publishers":0,"subscribers":0,"streams":[]}` + "\n", ""},
		{"POST", "/calls", "", 201, "{\"callID\":\"made\",\"code\":\"201\"}\n", "create c1 {CallID: MediaMode: E2EE:false MaxParticipants:0 ArchiveMode: EndOnCreatorLeave:false}"},
		{"POST", "/calls", `{"mediaMode":"routed","e2ee":false,"maxParticipants":10,"archiveMode":"none","endOnCreatorLeave":true}`, 201, "{\"callID\":\"made\",\"code\":\"201\"}\n", "create c1 {CallID: MediaMode:routed E2EE:false MaxParticipants:10 ArchiveMode:none EndOnCreatorLeave:true}"},
		{"POST", "/calls", `{"callID":"mine"}`, 201, "{\"callID\":\"made\",\"code\":\"201\"}\n", "create c1 {CallID:mine MediaMode: E2EE:false MaxParticipants:0 ArchiveMode: EndOnCreatorLeave:false}"},
		{"DELETE", "/calls/a", "", 200, done, "end c1 a"},
		{"POST", "/calls/a/tokens", `{"userID":"u"}`, 201, `{"callID":"a","code":"201","expiresAt":"2026-11-24T12:00:00.000Z","token":"` + canary + `","tokenID":"id"}` + "\n", "token c1 a {Role: UserID:u TTL:1h0m0s Data: MaxUses:1}"},
		{"POST", "/calls/a/tokens", `{"role":"moderator","userID":"u","ttl":60,"data":"x\ny","maxUses":2}`, 201, `{"callID":"a","code":"201","expiresAt":"2026-11-24T12:00:00.000Z","token":"` + canary + `","tokenID":"id"}` + "\n", "token c1 a {Role:moderator UserID:u TTL:1m0s Data:x\ny MaxUses:2}"},
		{"DELETE", "/calls/a/sessions/s1", "", 200, done, "moderate c1 a {Action:disconnect SessionID:s1 StreamID: Except:[] Active:false Until:}"},
		{"POST", "/calls/a/moderate", `{"action":"disconnect","sessionID":"s1"}`, 200, done, "moderate c1 a {Action:disconnect SessionID:s1 StreamID: Except:[] Active:false Until:}"},
		{"POST", "/calls/a/moderate", `{"action":"unpublish","streamID":"v","until":"call_end"}`, 200, done, "moderate c1 a {Action:unpublish SessionID: StreamID:v Except:[] Active:false Until:call_end}"},
		{"POST", "/calls/a/moderate", `{"action":"mute","sessionID":"s1"}`, 200, done, "moderate c1 a {Action:mute SessionID:s1 StreamID: Except:[] Active:false Until:}"},
		{"POST", "/calls/a/moderate", `{"action":"mute_all","except":["s1","s2"]}`, 200, done, "moderate c1 a {Action:mute_all SessionID: StreamID: Except:[s1 s2] Active:false Until:}"},
		{"POST", "/calls/a/moderate", `{"action":"mute_state","active":true}`, 200, done, "moderate c1 a {Action:mute_state SessionID: StreamID: Except:[] Active:true Until:}"},
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `","graceSeconds":30}`, 200, done, "rotate c1 30s from 1"},
		{"POST", "/ws/tickets", "", 201, `{"code":"201","expiresAt":"2026-11-24T12:00:00.000Z","ticket":"` + canary + `","url":"/ws"}` + "\n", "ticket c1 127.0.0.1"},
		{"GET", "/healthz", "", 200, "{\"status\":\"ok\"}\n", ""},
		{"GET", "/ready", "", 200, "{\"status\":\"ready\"}\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			w := newWorld(t, setup{})
			rec := w.ask(tt.method, tt.path, tt.body, c1, "Host", "evil.example", "X-Forwarded-Host", "evil.example")
			if rec.Code != tt.status || rec.Body.String() != tt.want {
				t.Errorf("got %d %q\nwant %d %q", rec.Code, rec.Body, tt.status, tt.want)
			}
			if got := strings.Join(w.did, ", "); got != tt.did {
				t.Errorf("did %q\nwant %q", got, tt.did)
			}
			if secret := strings.Contains(rec.Body.String(), canary); secret != (rec.Header().Get("Cache-Control") == "no-store") {
				t.Errorf("secret %v, Cache-Control %q", secret, rec.Header().Get("Cache-Control"))
			}
			if strings.Contains(w.logs.String()+fmt.Sprint(w.events), canary) {
				t.Error("a log holds the secret")
			}
		})
	}
}

// TestBadInput shows WX-22, TK-02, TK-04, the bounds of TK-19, and of OT-03 that a short key changes nothing: a field that is unknown, of another type, out of range or there twice is
// refused by name, and nothing is done.
func TestBadInput(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	many := strings.TrimSuffix(strings.Repeat(`"x",`, 65), ",")
	tests := []struct {
		method, path, body string
		status             int
		reason, text       string
	}{
		{"POST", "/calls", `{"mediamode":"routed"}`, 400, "unknown_field", `"mediamode"`},
		{"POST", "/calls", `{"maxParticipants":1,"` + long(3000) + `":1}`, 400, "unknown_field", `"` + long(64) + `"`},
		{"POST", "/calls", `{"e2ee":"true"}`, 400, "wrong_type", `"e2ee"`},
		{"POST", "/calls", `{"e2ee":null}`, 400, "wrong_type", `"e2ee"`},
		{"POST", "/calls", `{"mediaMode":1}`, 400, "wrong_type", `"mediaMode"`},
		{"POST", "/calls", `{"mediaMode":"mixed"}`, 400, "out_of_range", `"mediaMode"`},
		{"POST", "/calls", `{"archiveMode":"sometimes"}`, 400, "out_of_range", `"archiveMode"`},
		{"POST", "/calls", `{"maxParticipants":-1}`, 400, "out_of_range", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":2147483648}`, 400, "out_of_range", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":99999999999999999999999}`, 400, "out_of_range", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":1.5}`, 400, "wrong_type", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":1e3}`, 400, "wrong_type", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":"10"}`, 400, "wrong_type", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":[10]}`, 400, "wrong_type", `"maxParticipants"`},
		{"POST", "/calls", `{"maxParticipants":{"x":10}}`, 400, "wrong_type", `"maxParticipants"`},
		{"POST", "/calls", `{"e2ee":false,"e2ee":true}`, 400, "duplicate_field", `"e2ee"`},
		{"POST", "/calls", `[]`, 400, "bad_json", ""},
		{"POST", "/calls", `null`, 400, "bad_json", ""},
		{"POST", "/calls", `{`, 400, "bad_json", ""},
		{"POST", "/calls", `{"e2ee":true,}`, 400, "bad_json", ""},
		{"POST", "/calls", `{"e2ee" true}`, 400, "bad_json", ""},
		{"POST", "/calls", `{"e2ee":true} {}`, 400, "bad_json", ""},
		{"POST", "/calls", `{"e2ee":true}x`, 400, "bad_json", ""},
		{"POST", "/calls", "{\"archiveMode\":\"\xff\"}", 400, "bad_json", "UTF-8"},
		{"POST", "/calls", strings.Repeat("[", 4000), 400, "bad_json", ""},
		{"POST", "/calls", `{"mediaMode":` + strings.Repeat("[", 4000), 400, "wrong_type", ""},
		{"POST", "/calls", long(4097), 413, "body_too_large", ""},
		{"POST", "/calls/a/tokens", ``, 400, "missing_field", `"userID"`},
		{"POST", "/calls/a/tokens", `{"ejectOnExpiry":true}`, 400, "unknown_field", `"ejectOnExpiry"`},
		{"POST", "/calls", `{"callID":""}`, 400, "out_of_range", `"callID"`},
		{"POST", "/calls/a/tokens", `{"ttl":0}`, 400, "out_of_range", `"ttl"`},
		{"POST", "/calls/a/tokens", `{"ttl":-1}`, 400, "out_of_range", `"ttl"`},
		{"POST", "/calls/a/tokens", `{"ttl":86401}`, 400, "out_of_range", `"ttl"`},
		{"POST", "/calls/a/tokens", `{"ttl":1000000000000}`, 400, "out_of_range", `"ttl"`},
		{"POST", "/calls/a/tokens", `{"ttl":"1h"}`, 400, "wrong_type", `"ttl"`},
		{"POST", "/calls/a/tokens", `{"maxUses":0}`, 400, "out_of_range", `"maxUses"`},
		{"POST", "/calls/a/tokens", `{"role":"admin"}`, 400, "out_of_range", `"role"`},
		{"POST", "/calls/a/tokens", `{"role":"Moderator"}`, 400, "out_of_range", `"role"`},
		{"POST", "/calls/a/tokens", `{"userID":""}`, 400, "out_of_range", `"userID"`},
		{"POST", "/calls/a/tokens", `{"userID":"a\u0000b"}`, 400, "out_of_range", `"userID"`},
		{"POST", "/calls/a/tokens", `{"userID":"` + long(129) + `"}`, 400, "out_of_range", `"userID"`},
		{"POST", "/calls/a/tokens", `{"data":"` + long(1025) + `"}`, 400, "out_of_range", `"data"`},
		{"POST", "/calls/a/moderate", `{}`, 400, "missing_field", `"action"`},
		{"POST", "/calls/a/moderate", `{"action":"unmute","sessionID":"s1"}`, 400, "out_of_range", `"action"`},
		{"POST", "/calls/a/moderate", `{"action":"mute"}`, 400, "missing_field", `"sessionID"`},
		{"POST", "/calls/a/moderate", `{"action":"mute_state"}`, 400, "missing_field", `"active"`},
		{"POST", "/calls/a/moderate", `{"action":"unpublish","sessionID":"s1"}`, 400, "missing_field", `"streamID"`},
		{"POST", "/calls/a/moderate", `{"action":"mute","sessionID":"s1","active":false}`, 400, "unknown_field", `"active"`},
		{"POST", "/calls/a/moderate", `{"action":"unpublish","streamID":"v","until":"tomorrow"}`, 400, "out_of_range", `"until"`},
		{"POST", "/calls/a/moderate", `{"action":"mute_all","except":[1]}`, 400, "wrong_type", `"except"`},
		{"POST", "/calls/a/moderate", `{"action":"mute_all","except":"s1"}`, 400, "wrong_type", `"except"`},
		{"POST", "/calls/a/moderate", `{"action":"mute_all","except":["s1","s1"]}`, 400, "out_of_range", `"except"`},
		{"POST", "/calls/a/moderate", `{"action":"mute_all","except":[` + many + `]}`, 400, "out_of_range", `"except"`},
		{"POST", "/ws/tickets", `{"ttl":3600}`, 400, "unknown_field", `"ttl"`},
		{"PUT", "/clients/self/key", `{}`, 400, "missing_field", `"authKey"`},
		{"PUT", "/clients/self/key", `{"authKey":"` + long(31) + `"}`, 400, "out_of_range", `"authKey"`},
		{"PUT", "/clients/self/key", `{"authKey":"` + long(73) + `"}`, 400, "out_of_range", `"authKey"`},
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `","graceSeconds":86401}`, 400, "out_of_range", `"graceSeconds"`},
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `","clientID":"c2"}`, 400, "unknown_field", `"clientID"`},
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `","roles":["client"]}`, 400, "unknown_field", `"roles"`},
		{"POST", "/token/refresh", ``, 400, "bearer_required", ""},
		{"GET", "/calls?limit=0", "", 400, "out_of_range", `"limit"`},
		{"GET", "/calls?limit=1001", "", 400, "out_of_range", `"limit"`},
		{"GET", "/calls?limit=x", "", 400, "out_of_range", `"limit"`},
		{"GET", "/calls?limit=1&limit=2", "", 400, "duplicate_field", `"limit"`},
		{"GET", "/calls?after=%00", "", 400, "out_of_range", `"after"`},
		{"GET", "/calls?client=c2", "", 400, "unknown_field", `"client"`},
		{"GET", "/calls?after=%zz", "", 400, "bad_query", ""},
		{"GET", "/calls?after=" + long(3000), "", 400, "bad_query", ""},
		{"GET", "/calls/a?x=1", "", 400, "unknown_field", `"x"`},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+clipTo(tt.path, 40)+" "+clipTo(tt.body, 60), func(t *testing.T) {
			w := newWorld(t, setup{})
			rec := w.ask(tt.method, tt.path, tt.body, c1)
			if rec.Code != tt.status || !strings.Contains(rec.Body.String(), strings.ReplaceAll(tt.text, `"`, `\"`)) || reason(t, rec) != tt.reason {
				t.Errorf("got %d %q\nwant %d %s %s", rec.Code, rec.Body, tt.status, tt.reason, tt.text)
			}
			if len(w.did) > 0 {
				t.Errorf("did %q", w.did)
			}
			for line := range strings.Lines(w.logs.String()) {
				if len(line) > 1024 {
					t.Errorf("a log line has %d bytes", len(line))
				}
			}
		})
	}
}

func clipTo(s string, n int) string { return s[:min(n, len(s))] }

// TestForeignLooksMissing shows OT-01 and TK-03: of another client's call one learns nothing but what one learns of none.
func TestForeignLooksMissing(t *testing.T) {
	asks := []struct{ method, path, body string }{
		{"GET", "/calls/CALL", ""}, {"DELETE", "/calls/CALL", ""}, {"POST", "/calls/CALL/tokens", `{"userID":"u"}`},
		{"GET", "/calls/CALL/sessions", ""}, {"GET", "/calls/CALL/sessions/s1", ""},
		{"DELETE", "/calls/CALL/sessions/s1", ""}, {"POST", "/calls/CALL/moderate", `{"action":"mute","sessionID":"s1"}`},
	}
	w := newWorld(t, setup{})
	for _, a := range asks {
		answer := func(call string) string {
			rec := w.ask(a.method, strings.ReplaceAll(a.path, "CALL", call), a.body, c2)
			return fmt.Sprint(rec.Code, rec.Header(), rec.Body)
		}
		foreign, missing, impossible := answer("a"), answer("x"), answer(strings.Repeat("x", 200))
		if !strings.HasPrefix(foreign, "404 ") || foreign != missing || foreign != impossible {
			t.Errorf("%s %s:\nforeign %s\nmissing %s\nimpossible %s", a.method, a.path, foreign, missing, impossible)
		}
	}
	if rec := w.ask("GET", "/calls", "", c2); rec.Body.String() != "{\"calls\":[{\"callID\":\"z\",\"participants\":0,\"publishers\":0,\"subscribers\":0}]}\n" {
		t.Errorf("calls of c2: %s", rec.Body)
	}
	if rec := w.ask("DELETE", "/calls/a/sessions/nobody", "", c1); rec.Code != 404 || reason(t, rec) != "not_found" {
		t.Errorf("unknown session: %d %s", rec.Code, rec.Body)
	}
	if len(w.did) > 0 {
		t.Errorf("did %q", w.did)
	}
}

// TestFaults: errors that are no refusals are logged, and the peer learns nothing of them; refusals keep status, reason and
// the time to wait. TK-05: a burst of token requests gets 429 with Retry-After.
func TestFaults(t *testing.T) {
	secret := errors.New("disk /data/7 is full of " + canary)
	asks := []struct {
		method, path, body string
		who                *creds
	}{
		{"POST", "/calls", "", c1}, {"DELETE", "/calls/a", "", c1}, {"POST", "/calls/a/tokens", `{"userID":"u"}`, c1}, {"DELETE", "/calls/a/sessions/s", "", c1},
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `"}`, c1}, {"POST", "/ws/tickets", "", c1},
		{"GET", "/admin/clients", "", admin}, {"GET", "/admin/clients/c1", "", admin}, {"DELETE", "/admin/clients/c1", "", admin},
		{"PUT", "/admin/clients/c1/roles", `{"roles":[]}`, admin}, {"POST", "/admin/clients/c1/revoke", "", admin},
		{"POST", "/admin/clients", `{"clientID":"n","authKey":"` + key2 + `"}`, admin},
		{"POST", "/admin/clients/c1/rotate", `{"authKey":"` + key2 + `"}`, admin}, {"GET", "/admin/audit", "", auditor}, {"POST", "/admin/store/backup", "", admin},
	}
	tests := []struct {
		err        error
		status     int
		reason     string
		retryAfter string
	}{
		{secret, 500, "internal", ""},
		{busy{errors.New("too much")}, 429, "rate_limited", "2"},
		{storeDown{errors.New("not now")}, 503, "unavailable", "5"},
		{api.Refuse(503, "draining", errors.New("stopping")), 503, "draining", "5"},
		{api.Refuse(409, "not_supported", errors.New("no such media mode")), 409, "not_supported", ""},
		{fmt.Errorf("more: %w", api.Refuse(429, "token_rate", errors.New("too many tokens"))), 429, "token_rate", "5"},
		{api.Refuse(200, "ok", secret), 500, "internal", ""},
	}
	for _, tt := range tests {
		for _, a := range asks {
			w := newWorld(t, setup{})
			w.broken = tt.err
			rec := w.ask(a.method, a.path, a.body, a.who)
			if rec.Code != tt.status || reason(t, rec) != tt.reason || rec.Header().Get("Retry-After") != tt.retryAfter {
				t.Errorf("%v, %s %s: got %d %s, Retry-After %q", tt.err, a.method, a.path, rec.Code, rec.Body, rec.Header().Get("Retry-After"))
			}
			if strings.Contains(rec.Body.String(), canary) || strings.Contains(fmt.Sprint(w.events), canary) {
				t.Errorf("%s %s: the peer is told of %q", a.method, a.path, rec.Body)
			}
			if rec.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s %s: content type %q", a.method, a.path, rec.Header().Get("Content-Type"))
			}
		}
	}
}

// TestRefresh shows OT-02: only a live token is exchanged, and the new one is kept from caches.
func TestRefresh(t *testing.T) {
	w := newWorld(t, setup{})
	for token, want := range map[string]int{"Bearer token-of-c1": 200, "Bearer token-of-c2": 401, "Bearer ": 401, "bearer token-of-c1": 401, "": 401} {
		rec := w.ask("POST", "/token/refresh", "", nil, "Authorization", token)
		if rec.Code != want {
			t.Errorf("%q: %d %s, want %d", token, rec.Code, rec.Body, want)
		}
		if want == 200 && (rec.Header().Get("Cache-Control") != "no-store" || !strings.Contains(rec.Body.String(), `"bearerToken":"`+canary+`"`)) {
			t.Errorf("%v %s", rec.Header(), rec.Body)
		}
	}
	if len(w.did) != 1 {
		t.Errorf("did %q", w.did)
	}
}

// TestFailedLogins shows OT-18: each failure leaves an event with the address and the client, and neither there nor in the log
// is a key; who fails too often is told when to come again, and so is recorded.
func TestFailedLogins(t *testing.T) {
	w := newWorld(t, setup{})
	for range 5 {
		w.ask("POST", "/login", `{"clientID":"c1","authKey":"`+canary+`"}`, nil)
	}
	w.auth.fail = busy{errors.New("too many requests (failed_logins)")}
	if rec := w.ask("POST", "/login", `{"clientID":"c1","authKey":"`+canary+`"}`, nil); rec.Code != 429 || rec.Header().Get("Retry-After") != "2" {
		t.Errorf("slowed down: %d, Retry-After %q", rec.Code, rec.Header().Get("Retry-After"))
	}
	for i, e := range w.events {
		reason := "refused"
		if i == 5 {
			reason = "rate_limited"
		}
		if e.Type != "client.login" || e.Outcome == 0 || e.Client() != "c1" || e.Remote != "127.0.0.1:4711" || e.Reason != reason {
			t.Errorf("event %+v", e)
		}
	}
	if len(w.events) != 6 {
		t.Errorf("%d events, want 6", len(w.events))
	}
	if strings.Contains(w.logs.String()+fmt.Sprint(w.events), canary) {
		t.Error("the key shows")
	}
}

// TestBearerOnly shows OT-02: where keys are for login only, they are refused elsewhere with a reason, on the routes of the
// established protocol, too.
func TestBearerOnly(t *testing.T) {
	w := newWorld(t, setup{})
	w.auth.fail = api.Refuse(401, "use_bearer", errors.New("authentication failed: use a token"))
	for path, want := range map[string]string{
		"/ws": "use_bearer\n", "/calls/a/sessions": "use_bearer\n",
		"/calls": "{\"code\":\"401\",\"error\":\"authentication failed: use a token\",\"reason\":\"use_bearer\"}\n",
	} {
		if rec := w.ask("GET", path, "", c1); rec.Code != 401 || rec.Body.String() != want || rec.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %q, want 401 %q", path, rec.Code, rec.Body, want)
		}
	}
}

// TestRegistration shows WX-12: whoever registers himself gets no roles by asking for them, and that is recorded; a token
// and a network can be asked for.
func TestRegistration(t *testing.T) {
	nets := prefixes("192.0.2.0/24")
	tests := []struct {
		name, body, from string
		cfg              api.Config
		status           int
		detail           string // of the event, if it was done
	}{
		{"plain", `"x":"y"`, "198.51.100.1:1", open, 201, ""},
		{"roles as text", `"roles":"admin"`, "198.51.100.1:1", open, 201, "roles_ignored"},
		{"roles as a list", `"roles":["admin"]`, "198.51.100.1:1", open, 400, ""},
		{"token", `"registrationToken":"` + canary + `"`, "198.51.100.1:1", api.Config{AllowSelfRegistration: true, RegistrationToken: canary}, 201, ""},
		{"wrong token", `"registrationToken":"x"`, "198.51.100.1:1", api.Config{AllowSelfRegistration: true, RegistrationToken: canary}, 401, ""},
		{"no token", `"x":"y"`, "198.51.100.1:1", api.Config{AllowSelfRegistration: true, RegistrationToken: canary}, 401, ""},
		{"network", `"x":"y"`, "192.0.2.1:1", api.Config{AllowSelfRegistration: true, RegistrationNets: nets}, 201, ""},
		{"other network", `"x":"y"`, "198.51.100.1:1", api.Config{AllowSelfRegistration: true, RegistrationNets: nets}, 403, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, setup{cfg: tt.cfg})
			r := request("POST", "/register", `{"clientID":"n","authKey":"`+key1+`",`+tt.body+`}`)
			r.RemoteAddr = tt.from
			rec := w.send(w.public, r)
			if rec.Code != tt.status {
				t.Errorf("%d %s, want %d", rec.Code, rec.Body, tt.status)
			}
			if len(w.events) != 1 || (w.events[0].Reason != tt.detail && tt.status == 201) || w.events[0].Type != "client.register" {
				t.Errorf("events %+v", w.events)
			}
			if len(w.did) > 0 {
				t.Errorf("did %q: nothing but a registration was asked for", w.did)
			}
			if strings.Contains(w.logs.String()+fmt.Sprint(w.events)+rec.Body.String(), canary) {
				t.Error("the token shows")
			}
		})
	}
}

// TestReady shows OT-17: while the server drains, it is alive but not ready, and says so to whoever asks.
func TestReady(t *testing.T) {
	w := newWorld(t, setup{})
	w.readyErr = api.Refuse(503, "draining", errors.New("the server is stopping"))
	rec := w.ask("GET", "/ready", "", nil)
	if rec.Code != 503 || reason(t, rec) != "draining" || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.broken = w.readyErr
	if rec := w.ask("POST", "/calls", "", c1); rec.Code != 503 || reason(t, rec) != "draining" {
		t.Errorf("POST /calls: %d %s", rec.Code, rec.Body)
	}
	for _, path := range []string{"/healthz", "/system", "/calls", "/calls/a/sessions"} {
		if rec := w.ask("GET", path, "", c1); rec.Code != 200 {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
}

// TestOwnRoleOverREST shows WX-04 and WX-13: a role of the operator's invention opens exactly the route that asks for it, as
// soon as an account has it, and unknown ones are told of.
func TestOwnRoleOverREST(t *testing.T) {
	w := newWorld(t, setup{policy: policy.Config{Roles: map[string]string{"DELETE /calls/{callID}": "closer"}}})
	if rec := w.ask("DELETE", "/calls/a", "", c1); rec.Code != 403 || reason(t, rec) != "forbidden" {
		t.Errorf("before: %d %s", rec.Code, rec.Body)
	}
	rec := w.ask("PUT", "/admin/clients/c1/roles", `{"roles":["client","closer","recorder"]}`, admin)
	if rec.Code != 200 || rec.Body.String() != "{\"clientID\":\"c1\",\"code\":\"200\",\"unknownRoles\":[\"recorder\"]}\n" {
		t.Errorf("roles: %d %s", rec.Code, rec.Body)
	}
	if rec := w.ask("DELETE", "/calls/a", "", c1); rec.Code != 200 {
		t.Errorf("after: %d %s", rec.Code, rec.Body)
	}
	if rec := w.ask("PUT", "/admin/clients/c1/roles", `{"roles":["client","admin"]}`, c1); rec.Code != 403 {
		t.Errorf("by the client itself: %d %s", rec.Code, rec.Body)
	}
	w.ask("PUT", "/admin/clients/c1/roles", `{"roles":[]}`, admin)
	for _, path := range []string{"/ws", "/calls", "/calls/a/sessions"} {
		if rec := w.ask("GET", path, "", c1); rec.Code != http.StatusForbidden {
			t.Errorf("%s without a role: %d %s", path, rec.Code, rec.Body)
		}
	}
}

// A lateBody is a body that comes after something has happened.
type lateBody struct {
	io.Reader
	before func()
}

func (b *lateBody) Read(p []byte) (int, error) {
	if b.before != nil {
		b.before()
		b.before = nil
	}
	return b.Reader.Read(p)
}

// TestBodyAfterRevocation shows OT-03, and WX-13 for roles: who has begun a request and keeps its body back
// until his key is replaced, or his role taken, gets nothing done, be it another key.
func TestBodyAfterRevocation(t *testing.T) {
	requests := [][3]string{
		{"PUT", "/clients/self/key", `{"authKey":"` + key2 + `"}`}, {"POST", "/calls", ""}, {"POST", "/calls", "{}"},
		{"POST", "/calls/a/tokens", `{"userID":"u"}`}, {"POST", "/calls/a/moderate", `{"action":"mute_all"}`},
		{"POST", "/ws/tickets", ""}, {"POST", "/unregister", `{"clientID":"c1"}`},
	}
	for name, c := range map[string]struct {
		happens func(*world)
		status  int
	}{
		"nothing":        {func(*world) {}, 0},
		"another key":    {func(w *world) { w.auth.keys["c1"] = key2 }, 401},
		"another client": {func(w *world) { w.auth.fail = errors.New("authentication failed") }, 401},
		"another epoch":  {func(w *world) { w.tenants["c1"].Epoch++ }, 401},
		"no role":        {func(w *world) { w.tenants["c1"].Roles = nil }, 403},
	} {
		for _, q := range requests {
			w := newWorld(t, setup{cfg: api.Config{AllowSelfRegistration: true}})
			r := httptest.NewRequest(q[0], q[1], &lateBody{strings.NewReader(q[2]), func() { c.happens(w) }})
			r.SetBasicAuth("c1", key1)
			rec := w.send(w.public, r)
			switch {
			case c.status == 0 && rec.Code >= 300:
				t.Errorf("%s %s %q: %d %s", q[0], q[1], q[2], rec.Code, rec.Body)
			case c.status != 0 && (rec.Code != c.status || len(w.did) > 0):
				t.Errorf("%s, %s %s %q: %d, and it did %q", name, q[0], q[1], q[2], rec.Code, w.did)
			}
			if len(w.events) != 1 {
				t.Errorf("%s, %s %s: %d events", name, q[0], q[1], len(w.events))
			}
		}
	}
}
