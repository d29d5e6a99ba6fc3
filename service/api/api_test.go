package api_test

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rtcd/service/api"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeAuth keeps keys in the clear and speaks the documented texts.
type fakeAuth struct {
	mu   sync.Mutex
	keys map[string]string
	fail error // returned by everything, if set
	from netip.Addr
	held int
}

func (a *fakeAuth) hold() (release func()) {
	a.held++
	return func() { a.held-- }
}

// The roles of the built-in policy.
var (
	table    = builtinPolicy(api.Exposure{})
	ordinary = rolesOf(table, policy.Client)
)

func builtinPolicy(e api.Exposure) *policy.Table {
	t, err := policy.Compile(policy.Config{}, e.Builtin())
	if err != nil {
		panic(err)
	}
	return t
}

func rolesOf(t *policy.Table, names ...string) policy.Roles {
	r, _ := t.Set(names)
	return r
}

const adminKey = "the-secret-key-of-the-administrator"

func (a *fakeAuth) Authenticate(_ context.Context, c api.Credentials) (api.Principal, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	authorization := c.Authorization
	a.from = c.Remote
	if a.fail != nil {
		return api.Principal{}, a.fail
	}
	r := http.Request{Header: http.Header{"Authorization": {authorization}}}
	id, key, ok := r.BasicAuth()
	switch {
	case authorization == "Bearer token-of-c1":
		return api.Principal{ClientID: "c1", Roles: ordinary}, nil
	case strings.HasPrefix(authorization, "Bearer "):
		return api.Principal{}, errors.New("authentication failed: token is invalid")
	case !ok:
		return api.Principal{}, errors.New("authentication failed: invalid auth header")
	case subtle.ConstantTimeCompare([]byte(key), []byte(adminKey)) == 1:
		return api.Principal{Admin: true, Roles: table.Admin()}, nil
	case a.keys[id] != "" && a.keys[id] == key:
		return api.Principal{ClientID: id, Roles: ordinary, Hold: a.hold}, nil
	}
	return api.Principal{}, errors.New("authentication failed")
}

func (a *fakeAuth) Register(_ context.Context, id, key string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.fail != nil:
		return a.fail
	case len(key) < 32:
		return errors.New("registration failed: key not long enough")
	case id == "":
		return errors.New("registration failed: error: empty key")
	case a.keys[id] != "":
		return errors.New("registration failed: already registered")
	}
	a.keys[id] = key
	return nil
}

func (a *fakeAuth) Login(_ context.Context, id, key string, _ api.Credentials) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return "", a.fail
	}
	if a.keys[id] == "" || a.keys[id] != key {
		return "", errors.New("login failed: authentication failed")
	}
	return "token-of-" + id, nil
}

func (a *fakeAuth) Unregister(_ context.Context, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return a.fail
	}
	if a.keys[id] == "" {
		return errors.New("unregister failed: error: not found")
	}
	delete(a.keys, id)
	return nil
}

type busy struct{ error }

func (busy) RetryAfter() time.Duration { return 1500 * time.Millisecond }

type storeDown struct{ error }

func (storeDown) Unavailable() bool { return true }

type fakeCalls map[string][]api.Session // by group and call

func (f fakeCalls) Sessions(group, call string) ([]api.Session, bool) {
	s, ok := f[group+"/"+call]
	return s, ok
}

type fakeSockets struct {
	served, dropped []string
	panics          bool
	during          func()
}

func (f *fakeSockets) Serve(w http.ResponseWriter, _ *http.Request, p api.Peer) {
	if f.panics {
		panic("bug with key " + adminKey)
	}
	f.served = append(f.served, p.ClientID)
	if f.during != nil {
		f.during()
	}
	w.WriteHeader(http.StatusTeapot)
}

func (f *fakeSockets) DropClient(clientID string) { f.dropped = append(f.dropped, clientID) }

// Remove removes a client the way package service does.
func (r *rig) Remove(ctx context.Context, clientID string) error {
	if err := r.auth.Unregister(ctx, clientID); err != nil {
		return err
	}
	r.sockets.DropClient(clientID)
	r.gone = append(r.gone, clientID)
	return nil
}

type rig struct {
	http.Handler
	auth    *fakeAuth
	sockets *fakeSockets
	metrics *metrics.Metrics
	logs    *bytes.Buffer
	gone    []string
}

const (
	key1 = "key-of-c1-0123456789-0123456789-xyz"
	key2 = "key-of-c2-0123456789-0123456789-xyz"
)

func ptr[T any](v T) *T { return &v }

func newRig(cfg api.Config) *rig {
	r := &rig{
		auth:    &fakeAuth{keys: map[string]string{"c1": key1, "c2": key2}},
		sockets: &fakeSockets{},
		metrics: metrics.New(),
		logs:    &bytes.Buffer{},
	}
	calls := fakeCalls{
		"c1/call/1": {{GroupID: "c1", CallID: "call/1", UserID: "u", SessionID: "s"}},
		"c1/call": {
			{GroupID: "c1", CallID: "call", UserID: "u1", SessionID: "s1", Props: api.Props{AV1Support: ptr(true), ChannelID: ptr("ch")}},
			{GroupID: "c1", CallID: "call", UserID: "u2", SessionID: "s2", Props: api.Props{DCSignaling: ptr(false)}},
		},
		"c1/empty": {},
	}
	r.Handler = api.New(cfg, api.Deps{
		Auth: r.auth, Calls: calls, WebSockets: r.sockets, Metrics: r.metrics,
		Remover: r,
		Log:     slog.New(slog.NewJSONHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return r
}

type creds struct{ id, key string }

func (r *rig) do(method, path, body string, c *creds) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if c != nil {
		req.SetBasicAuth(c.id, c.key)
	}
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, req)
	return rec
}

var (
	c1    = &creds{"c1", key1}
	c2    = &creds{"c2", key2}
	admin = &creds{"", adminKey}
	wrong = &creds{"c1", "wrong"}
	open  = api.Config{AllowSelfRegistration: true}
	shut  = api.Config{}
	full  = api.Config{AllowSelfRegistration: true, EnableAdmin: true}
	adm   = api.Config{EnableAdmin: true}
)

// Every row of chapters 4 and 5 of the protocol that the API decides.
func TestConformance(t *testing.T) {
	const (
		text    = "text/plain; charset=utf-8"
		asJSON  = "application/json"
		missing = "404 page not found\n"
	)
	session1 := `{"GroupID":"c1","CallID":"call","UserID":"u1","SessionID":"s1","Props":{"av1Support":true,"channelID":"ch","dcSignaling":null}}`
	session2 := `{"GroupID":"c1","CallID":"call","UserID":"u2","SessionID":"s2","Props":{"av1Support":null,"channelID":null,"dcSignaling":false}}`
	reg := func(id, key string) string { return `{"clientID":"` + id + `","authKey":"` + key + `"}` }
	const noCall = "failed to get session configs: call not found\n"
	tests := []struct {
		name         string
		cfg          api.Config
		method, path string
		body         string
		creds        *creds
		status       int
		contentType  string
		want         string
	}{
		{"version", shut, "GET", "/version", "", nil, 200, asJSON, `{"buildDate":"","buildVersion":"v1.3.0","buildHash":"","goVersion":"` + runtime.Version() + `","goOS":"` + runtime.GOOS + `","goArch":"` + runtime.GOARCH + "\"}\n"},
		{"load", shut, "GET", "/system", "", nil, 200, asJSON, "{\"cpu_load\":0}\n"},
		{"version HEAD", shut, "HEAD", "/version", "", nil, 404, text, missing},
		{"version POST", shut, "POST", "/version", "", nil, 404, text, missing},
		{"register GET", open, "GET", "/register", "", nil, 404, text, missing},
		{"ws POST", open, "POST", "/ws", "", c1, 404, text, missing},
		{"calls POST", open, "POST", "/calls/call/sessions", "", c1, 404, text, missing},
		{"unknown path", shut, "GET", "/nothing", "", nil, 404, text, missing},
		{"root", shut, "GET", "/", "", nil, 404, text, missing},
		{"path not clean", shut, "GET", "//version", "", nil, 404, text, missing},
		{"pprof", full, "GET", "/debug/pprof/heap", "", admin, 404, text, missing}, // A8

		{"register", open, "POST", "/register", reg("new", key1), nil, 201, asJSON, "{\"clientID\":\"new\",\"code\":\"201\"}\n"},
		{"register, more keys and more data", open, "POST", "/register", `{"clientID":"new","authKey":"` + key1 + `","x":"y"} trailing`, nil, 201, asJSON, "{\"clientID\":\"new\",\"code\":\"201\"}\n"},
		{"register nothing", open, "POST", "/register", "", nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"EOF\"}\n"},
		{"register a number", open, "POST", "/register", `{"clientID":1}`, nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"json: cannot unmarshal number into Go value of type string\"}\n"},
		{"register a null", open, "POST", "/register", `{"clientID":"a","x":null}`, nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"json: cannot unmarshal null into Go value of type string\"}\n"},
		{"register null", open, "POST", "/register", `null`, nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"json: cannot unmarshal null into Go value of type string\"}\n"},
		{"register short key", open, "POST", "/register", reg("new", "short"), nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"registration failed: key not long enough\"}\n"},
		{"register taken id", open, "POST", "/register", reg("c1", key1), nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"registration failed: already registered\"}\n"},
		{"register no id", open, "POST", "/register", reg("", key1), nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"registration failed: error: empty key\"}\n"},
		{"register too much", open, "POST", "/register", reg("new", strings.Repeat("x", 5000)), nil, 413, asJSON, "{\"code\":\"413\",\"error\":\"request body too large\"}\n"}, // R7
		{"register, off", shut, "POST", "/register", reg("new", key1), nil, 401, asJSON, "{\"code\":\"401\",\"error\":\"authentication failed: invalid auth header\"}\n"},
		{"register, off, wrong key", shut, "POST", "/register", reg("new", key1), wrong, 401, asJSON, "{\"code\":\"401\",\"error\":\"authentication failed\"}\n"},
		{"register, off, by a client", adm, "POST", "/register", reg("new", key1), c1, 401, asJSON, "{\"code\":\"401\",\"error\":\"authentication failed: unauthorized\"}\n"}, // A3
		{"register, off, by the admin", adm, "POST", "/register", reg("new", key1), admin, 201, asJSON, "{\"clientID\":\"new\",\"code\":\"201\"}\n"},

		{"login", shut, "POST", "/login", reg("c1", key1), nil, 200, asJSON, "{\"bearerToken\":\"token-of-c1\",\"code\":\"200\"}\n"},
		{"login, wrong key", shut, "POST", "/login", reg("c1", key2), nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"login failed: authentication failed\"}\n"},
		{"login, unknown", shut, "POST", "/login", reg("c9", key2), nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"login failed: authentication failed\"}\n"}, // A5
		{"login, bad body", shut, "POST", "/login", "[]", nil, 400, asJSON, "{\"code\":\"400\",\"error\":\"json: cannot unmarshal array into Go value of type map[string]*string\"}\n"},

		{"unregister, disabled", shut, "POST", "/unregister", `{"clientID":"c1"}`, nil, 403, asJSON, "{\"code\":\"403\",\"error\":\"unregister not enabled\"}\n"},
		{"unregister, no credentials", open, "POST", "/unregister", `{"clientID":"c1"}`, nil, 401, asJSON, "{\"code\":\"401\",\"error\":\"authentication failed: invalid auth header\"}\n"},
		{"unregister oneself", open, "POST", "/unregister", `{"clientID":"c1"}`, c1, 200, asJSON, "{\"code\":\"200\"}\n"},
		{"unregister oneself, admin only", adm, "POST", "/unregister", `{"clientID":"c1"}`, c1, 200, asJSON, "{\"code\":\"200\"}\n"},
		{"unregister another", open, "POST", "/unregister", `{"clientID":"c1"}`, c2, 403, asJSON, "{\"code\":\"403\",\"error\":\"client id not valid\"}\n"},
		{"unregister nobody", open, "POST", "/unregister", `{}`, c1, 400, asJSON, "{\"code\":\"400\",\"error\":\"client id should not be empty\"}\n"},
		{"unregister, bad body", open, "POST", "/unregister", "", c1, 400, asJSON, "{\"code\":\"400\",\"error\":\"EOF\"}\n"},
		{"unregister by the admin", adm, "POST", "/unregister", `{"clientID":"c1"}`, admin, 200, asJSON, "{\"code\":\"200\"}\n"},
		{"unregister unknown", adm, "POST", "/unregister", `{"clientID":"c9"}`, admin, 400, asJSON, "{\"code\":\"400\",\"error\":\"unregister failed: error: not found\"}\n"},

		{"sessions", shut, "GET", "/calls/call/sessions", "", c1, 200, asJSON, "[" + session1 + "," + session2 + "]\n"},
		{"one session", shut, "GET", "/calls/call/sessions/s2", "", c1, 200, asJSON, session2 + "\n"},
		{"call with a slash", shut, "GET", "/calls/call%2F1/sessions/s", "", c1, 200, asJSON, `{"GroupID":"c1","CallID":"call/1","UserID":"u","SessionID":"s","Props":{"av1Support":null,"channelID":null,"dcSignaling":null}}` + "\n"},
		{"sessions, no credentials", shut, "GET", "/calls/call/sessions", "", nil, 401, text, "unauthorized\n"},
		{"sessions, wrong key", shut, "GET", "/calls/call/sessions", "", wrong, 401, text, "unauthorized\n"},
		{"sessions, admin", adm, "GET", "/calls/call/sessions", "", admin, 401, text, "unauthorized\n"},
		{"another's call", shut, "GET", "/calls/call/sessions", "", c2, 404, text, noCall}, // RT-08
		{"no such call", shut, "GET", "/calls/none/sessions", "", c1, 404, text, noCall},
		{"call without sessions", shut, "GET", "/calls/empty/sessions", "", c1, 404, text, noCall},
		{"no such session", shut, "GET", "/calls/call/sessions/s9", "", c1, 404, text, "failed to get session config: session not found\n"},
		{"no such path", shut, "GET", "/calls/call/other", "", c1, 404, text, missing},
		{"longer path", shut, "GET", "/calls/call/sessions/s1/x", "", c1, 404, text, missing},
		{"no call", shut, "GET", "/calls//sessions", "", c1, 404, text, missing},

		{"ws", shut, "GET", "/ws", "", c1, 418, "", ""},
		{"ws, no credentials", shut, "GET", "/ws", "", nil, 401, text, "unauthorized\n"}, // S17
		{"ws, wrong key", shut, "GET", "/ws", "", wrong, 401, text, "unauthorized\n"},
		{"ws, admin", adm, "GET", "/ws", "", admin, 401, text, "unauthorized\n"}, // A10
		{"metrics, production", api.Config{Production: true}, "GET", "/metrics", "", nil, 404, text, missing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := newRig(tt.cfg).do(tt.method, tt.path, tt.body, tt.creds)
			if rec.Code != tt.status || rec.Body.String() != tt.want {
				t.Errorf("got %d %q\nwant %d %q", rec.Code, rec.Body, tt.status, tt.want)
			}
			if got := rec.Header().Get("Content-Type"); got != tt.contentType {
				t.Errorf("content type %q, want %q", got, tt.contentType)
			}
			if challenged := rec.Header().Get("WWW-Authenticate") != ""; challenged != (tt.status == 401) {
				t.Errorf("WWW-Authenticate present: %v", challenged)
			}
		})
	}
}

func TestBearer(t *testing.T) {
	r := newRig(shut)
	for token, want := range map[string]int{"token-of-c1": 200, "token-of-c2": 401} {
		req := httptest.NewRequest("GET", "/calls/call/sessions", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, req)
		if rec.Code != want {
			t.Errorf("%s: status %d, want %d", token, rec.Code, want)
		}
	}
}

func TestBuildInformation(t *testing.T) {
	r := newRig(api.Config{Build: api.Build{Version: "v9.8.7", Hash: "abc", Date: "today"}})
	var got map[string]string
	if err := json.Unmarshal(r.do("GET", "/version", "", nil).Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 6 || got["buildVersion"] != "v9.8.7" || got["buildHash"] != "abc" || got["buildDate"] != "today" {
		t.Errorf("got %v", got)
	}
}

func TestMetricsOnTheAPIPort(t *testing.T) {
	r := newRig(shut)
	for _, method := range []string{"GET", "POST"} {
		rec := r.do(method, "/metrics", "", nil)
		if rec.Code != 200 || !strings.Contains(rec.Body.String(), "rtcd_process_open_fds") ||
			!strings.HasPrefix(rec.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
			t.Errorf("%s /metrics: %d %s", method, rec.Code, rec.Header())
		}
	}
}

func TestServerSideTrouble(t *testing.T) {
	paths := []struct{ method, path, body string }{
		{"POST", "/register", `{"clientID":"x"}`}, {"POST", "/login", `{"clientID":"x"}`},
		{"POST", "/unregister", `{"clientID":"c1"}`}, {"GET", "/ws", ""}, {"GET", "/calls/call/sessions", ""},
	}
	for _, tt := range []struct {
		err        error
		status     int
		retryAfter string
	}{
		{busy{errors.New("too many requests")}, 429, "2"},
		{storeDown{errors.New("store is full")}, 503, "5"},
	} {
		for _, p := range paths {
			r := newRig(full)
			r.auth.fail = tt.err
			rec := r.do(p.method, p.path, p.body, c1)
			if rec.Code != tt.status || rec.Header().Get("Retry-After") != tt.retryAfter {
				t.Errorf("%s: %d, Retry-After %q; want %d, %q", p.path, rec.Code, rec.Header().Get("Retry-After"), tt.status, tt.retryAfter)
			}
			if p.method == "POST" && !strings.Contains(rec.Body.String(), tt.err.Error()) {
				t.Errorf("%s: body %q lacks the error", p.path, rec.Body)
			}
		}
	}
}

func TestUnregisterEndsEverything(t *testing.T) { // A7
	r := newRig(open)
	r.do("POST", "/unregister", `{"clientID":"c1"}`, c2) // refused: nothing ends
	if len(r.sockets.dropped) != 0 {
		t.Fatal("a refused request dropped connections")
	}
	r.do("POST", "/unregister", `{"clientID":"c1"}`, c1)
	if len(r.sockets.dropped) != 1 || r.sockets.dropped[0] != "c1" || len(r.gone) != 1 || r.gone[0] != "c1" {
		t.Errorf("dropped %v, gone %v; want c1 each", r.sockets.dropped, r.gone)
	}
}

func TestAuditLines(t *testing.T) {
	r := newRig(full)
	r.do("POST", "/register", `{"clientID":"new","authKey":"`+key1+`"}`, nil)
	r.do("POST", "/login", `{"clientID":"c1","authKey":"`+key1+`"}`, nil)
	r.do("POST", "/unregister", `{"clientID":"c2"}`, c1)
	r.do("GET", "/ws", "", wrong)
	logs := r.logs.String()
	for _, secret := range []string{key1, "Basic", "token-of-c1"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	seen := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(logs), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		if m["level"] != "DEBUG" {
			continue
		}
		for _, k := range []string{"remoteAddr", "method", "url", "header", "host", "code", "clientID", "status"} {
			if _, ok := m[k]; !ok {
				t.Errorf("%s lacks %s", m["msg"], k)
			}
		}
		seen[m["msg"].(string)] += m["status"].(string) + " "
	}
	want := map[string]string{"registerClient": "success ", "loginClient": "success ", "unregisterClient": "fail ", "authHandler": "success fail "}
	for name, status := range want {
		if seen[name] != status {
			t.Errorf("%s: %q, want %q", name, seen[name], status)
		}
	}
}

func TestFailedAuthenticationIsLoggedSparingly(t *testing.T) {
	r := newRig(shut)
	for range 100 {
		r.do("GET", "/ws", "", wrong)
	}
	if n := strings.Count(r.logs.String(), `"msg":"failed authentication"`); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

func TestCredentialsAreHeldWhileConnected(t *testing.T) {
	r := newRig(shut)
	during := 0
	r.sockets.during = func() { during = r.auth.held }
	r.do("GET", "/ws", "", c1)
	if during != 1 || r.auth.held != 0 {
		t.Errorf("held %d during the connection and %d after it, want 1 and 0", during, r.auth.held)
	}
}

func TestPanicCostsOneRequest(t *testing.T) {
	r := newRig(shut)
	r.sockets.panics = true
	if rec := r.do("GET", "/ws", "", c1); rec.Code != 500 {
		t.Errorf("status %d, want 500", rec.Code)
	}
	if rec := r.do("GET", "/version", "", nil); rec.Code != 200 {
		t.Errorf("next request: status %d", rec.Code)
	}
}

func TestRemoteAddressReachesAuth(t *testing.T) {
	r := newRig(shut)
	req := httptest.NewRequest("GET", "/ws", nil)
	req.RemoteAddr = "[::ffff:192.0.2.7]:1234"
	r.ServeHTTP(httptest.NewRecorder(), req)
	if r.auth.from != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("address %v", r.auth.from)
	}
}

func TestAdminHandler(t *testing.T) {
	h := api.NewAdmin(api.AdminConfig{Hosts: []string{"ops.example"}}, api.Deps{})
	tests := []struct {
		name, host, path string
		header           map[string]string
		status           int
	}{
		{"index", "127.0.0.1:8046", "/debug/pprof/", nil, 200},
		{"goroutines", "localhost:8046", "/debug/pprof/goroutine", nil, 200},
		{"heap by IPv6", "[::1]:8046", "/debug/pprof/heap", nil, 200},
		{"metrics", "localhost", "/metrics", nil, 200},
		{"own name", "OPS.example:1", "/metrics", nil, 200},
		{"rebound name", "evil.example:8046", "/metrics", nil, 403},
		{"no host", "", "/metrics", nil, 403},
		{"foreign page", "127.0.0.1:8046", "/metrics", map[string]string{"Origin": "http://evil.example"}, 403},
		{"foreign image", "127.0.0.1:8046", "/debug/pprof/heap", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"own page", "127.0.0.1:8046", "/metrics", map[string]string{"Origin": "http://127.0.0.1:8046", "Sec-Fetch-Site": "same-origin"}, 200},
		{"other path", "127.0.0.1:8046", "/version", nil, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest("GET", tt.path, nil)
			req.Host = tt.host
			for k, v := range tt.header {
				req.Header.Set(k, v)
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			if rec.Code != tt.status {
				t.Errorf("status %d, want %d", rec.Code, tt.status)
			}
		})
	}
}

func FuzzHTTP(f *testing.F) {
	for _, body := range []string{"", "{}", `{"clientID":"c1","authKey":"` + key1 + `"}`, "null", `{"a":1}`, "{\"\xff\":\"\xfe\"}", strings.Repeat("[", 4000)} {
		for _, auth := range []string{"", "Basic YzE6eA==", "Basic !", "Bearer ", "Bearer token-of-c1", "bearer x", "Basic " + strings.Repeat("A", 1000)} {
			f.Add(body, auth, "/calls/a%2Fb/sessions/c")
		}
	}
	r := newRig(full)
	text := regexp.MustCompile(`^\d{3}$`)
	f.Fuzz(func(t *testing.T, body, auth, path string) {
		for _, p := range []string{"/register", "/login", "/unregister", path} {
			method := "POST"
			if p == path {
				method = "GET"
			}
			req, err := http.NewRequest(method, "http://host", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if u, err := req.URL.Parse(p); err == nil {
				req.URL = u
			}
			req.RemoteAddr = "192.0.2.1:1"
			req.Header["Authorization"] = []string{auth}
			rec := httptest.NewRecorder()
			r.ServeHTTP(rec, req)
			if rec.Code >= 500 || rec.Code < 200 {
				t.Fatalf("%s %s: status %d", method, p, rec.Code)
			}
			if method == "GET" {
				continue
			}
			data, _ := io.ReadAll(rec.Body)
			var answer map[string]string
			if err := json.Unmarshal(data, &answer); err != nil || !text.MatchString(answer["code"]) {
				t.Fatalf("%s: body %q is not flat JSON with a code: %v", p, data, err)
			}
		}
		r.logs.Reset()
	})
}
