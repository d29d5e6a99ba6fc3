package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// The columns of the table: who asks.
const (
	nobodyAsks   = iota // no credentials
	forgerAsks          // a wrong key of a client or an operator, or a wrong token
	otherAsks           // a client, for what is another's
	ownerAsks           // whose it is, a client with the role referee as well
	lesserAsks          // an account without roles
	customAsks          // an account that is nothing but a referee
	operatorAsks        // the admin
	auditorAsks
	numAskers
)

var askerNames = [numAskers]string{"nobody", "forger", "other", "owner", "lesser", "custom", "admin", "auditor"}

// A door is one line of the table: a route, on the listener that it is on, and what each gets.
type door struct {
	route, request, body string
	want                 [numAskers]int
}

// The walk's server has one route that asks for a role of its operator's invention.
const refereeRoute = "POST /calls/{callID}/moderate"

func everyone(status int) (all [numAskers]int) {
	for i := range all {
		all[i] = status
	}
	return all
}

// nobody forger other owner lesser custom admin auditor
var publicDoors = []door{
	{"GET /version", "GET /version", "", everyone(200)},
	{"GET /system", "GET /system", "", everyone(200)},
	{"GET /healthz", "GET /healthz", "", everyone(200)},
	{"GET /ready", "GET /ready", "", everyone(200)},
	{"GET /metrics", "GET /metrics", "", everyone(200)}, // as established clients expect it; not in production
	{"POST /login", "POST /login", `{"clientID":"owner","authKey":"` + key + `"}`, everyone(200)},
	{"POST /register", "POST /register", `{"clientID":"{new}","authKey":"` + key + `"}`, [...]int{401, 401, 401, 401, 401, 401, 201, 401}},
	{"POST /token/refresh", "POST /token/refresh", "", [...]int{401, 401, 400, 400, 403, 403, 401, 401}}, // 400: a key is no token
	{"GET /calls", "GET /calls", "", [...]int{401, 401, 200, 200, 403, 403, 401, 401}},
	{"POST /calls", "POST /calls", "", [...]int{401, 401, 201, 201, 403, 403, 401, 401}},
	{"GET /calls/{callID}", "GET /calls/{call}", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"GET /calls/{callID}/sessions", "GET /calls/{call}/sessions", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"GET /calls/{callID}/sessions/{sessionID}", "GET /calls/{call}/sessions/{session}", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"GET /calls/{callID}/report", "GET /calls/{call}/report", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"GET /events", "GET /events?wait=0", "", [...]int{401, 401, 200, 200, 403, 403, 401, 401}},
	{"POST /probes", "POST /probes", "", [...]int{401, 401, 201, 201, 403, 403, 401, 401}},
	{"GET /probe", "GET /probe", "", everyone(200)},
	{"POST /probe", "POST /probe", "{}", everyone(400)}, // what counts is the token in the body, and that is missing
	{"POST /probe/result", "POST /probe/result", "{}", everyone(400)},
	{"POST /calls/{callID}/tokens", "POST /calls/{call}/tokens", `{"userID":"u"}`, [...]int{401, 401, 404, 201, 403, 403, 401, 401}},
	{refereeRoute, "POST /calls/{call}/moderate", `{"action":"mute_all"}`, [...]int{401, 401, 403, 200, 403, 404, 401, 401}}, // 404: a referee, but not of this call
	{"POST /ws/tickets", "POST /ws/tickets", "", [...]int{401, 401, 201, 201, 403, 403, 401, 401}},
	{"GET /ws", "GET /ws", "", [...]int{401, 401, 101, 101, 403, 403, 401, 401}},
	{"DELETE /calls/{callID}/sessions/{sessionID}", "DELETE /calls/{call}/sessions/{session}", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"DELETE /calls/{callID}", "DELETE /calls/{call}", "", [...]int{401, 401, 404, 200, 403, 403, 401, 401}},
	{"PUT /clients/self/key", "PUT /clients/self/key", `{"authKey":"` + key + `"}`, [...]int{401, 401, 200, 200, 403, 403, 401, 401}}, // each its own
	{"POST /unregister", "POST /unregister", `{"clientID":"owner"}`, [...]int{401, 401, 403, 200, 403, 403, 400, 403}},                // 400: the owner was first
}

var adminDoors = []door{
	{"GET /healthz", "GET /healthz", "", everyone(200)},
	{"GET /ready", "GET /ready", "", everyone(200)},
	{"GET /metrics", "GET /metrics", "", everyone(200)}, // on loopback; see TestGuardedDebug in package api
	{"GET /debug/pprof/", "GET /debug/pprof/cmdline", "", everyone(200)},
	{"GET /admin/", "GET /admin/", "", everyone(200)}, // likewise
	{"GET /admin/status", "GET /admin/status", "", everyone(200)},
	{"GET /admin/drain", "GET /admin/drain", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"POST /admin/drain", "POST /admin/drain", `{"deadline":-1}`, [...]int{401, 401, 403, 403, 403, 403, 400, 403}}, // a good one would end the walk
	{"DELETE /admin/drain", "DELETE /admin/drain", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"POST /admin/probes", "POST /admin/probes", "", [...]int{401, 401, 403, 403, 403, 403, 201, 403}},
	{"GET /admin/probes", "GET /admin/probes", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"GET /admin/calls/{clientID}/{callID}/report", "GET /admin/calls/owner/{call}/report", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"GET /admin/clients", "GET /admin/clients", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"GET /admin/clients/{clientID}", "GET /admin/clients/other", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"GET /admin/audit", "GET /admin/audit", "", [...]int{401, 401, 403, 403, 403, 403, 403, 200}},
	{"POST /admin/store/backup", "POST /admin/store/backup", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"POST /admin/clients", "POST /admin/clients", `{"clientID":"{new}","authKey":"` + key + `"}`, [...]int{401, 401, 403, 403, 403, 403, 201, 403}},
	{"PUT /admin/clients/{clientID}/roles", "PUT /admin/clients/victim/roles", `{"roles":["referee"]}`, [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"POST /admin/clients/{clientID}/rotate", "POST /admin/clients/victim/rotate", `{"authKey":"` + key + `"}`, [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"POST /admin/clients/{clientID}/revoke", "POST /admin/clients/victim/revoke", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
	{"DELETE /admin/clients/{clientID}", "DELETE /admin/clients/victim", "", [...]int{401, 401, 403, 403, 403, 403, 200, 403}},
}

// walker is the server of a walk, and the owner's call that the walk is about.
type walker struct {
	*estate
	owner         *link
	calls         int
	call, session string
	asked         int // requests, of which each comes from another address
	forged        int
}

func newWalker(t *testing.T) *walker {
	t.Helper()
	accounts := roles{"owner": {"client", "referee"}, "other": nil, "lesser": {}, "custom": {"referee"}, "victim": {}}
	e := openEstate(t, nil, accounts, func(c *config.Config) {
		c.Policy.Roles = map[string]string{refereeRoute: "referee"}
	})
	return &walker{estate: e}
}

// ready gives the owner a new call with a session. It does not last long: nobody connects.
func (w *walker) ready(ctx context.Context, t *testing.T) {
	t.Helper()
	if w.owner == nil {
		w.owner = dial(t, w.url, tenant("owner"), false)
	}
	w.calls++
	w.call, w.session = fmt.Sprintf("call%d", w.calls), fmt.Sprintf("session%d", w.calls)
	w.owner.send(t, wire.AppendJoin(nil, wire.Join{CallID: w.call, UserID: "u", SessionID: w.session}))
	w.owner.settle(ctx, t)
	if !w.alive(t) {
		t.Fatal("the owner has no call")
	}
}

func (w *walker) alive(t *testing.T) bool {
	t.Helper()
	return inquire(t, w.url, tenant("owner"), "GET /calls/"+w.call+"/sessions/"+w.session, "").status == 200
}

// ask asks as one of the columns.
func (w *walker) ask(t *testing.T, url string, d door, as int) told {
	t.Helper()
	w.asked++
	headers := []string{"X-Forwarded-For", fmt.Sprintf("198.51.%d.%d", w.asked/250, w.asked%250+1)}
	a := [numAskers]asker{nobody, nobody, tenant("other"), tenant("owner"), tenant("lesser"), tenant("custom"), operator, auditor}[as]
	if as == forgerAsks {
		w.forged++
		switch w.forged % 4 {
		case 0:
			a = asker{"owner", "short and wrong"}
		case 1:
			a = asker{"", adminKey + "x"}
		case 2:
			a = asker{"nobody-here", ""}
		default:
			headers = append(headers, "Authorization", "Bearer "+strings.Repeat("0", 32))
		}
	}
	names := strings.NewReplacer("{call}", w.call, "{session}", w.session, "{new}", fmt.Sprintf("new%d", w.asked))
	return inquire(t, url, a, names.Replace(d.request), names.Replace(d.body), headers...)
}

// TestWalk shows OT-01, WX-01, WX-02, WX-03, WX-04 and CR-14: every route of both listeners, asked by nobody, with
// wrong credentials, by another client, by the one whose it is, by an account without the role that
// it takes, by one with a role of the operator's invention, by the admin and by the auditor. What is
// denied has no effect. A listener has nothing of the other's, for nobody.
func TestWalk(t *testing.T) {
	ctx := within(t, 120*time.Second)
	w := newWalker(t)
	planes := map[string][]door{w.url: publicDoors, w.admin: adminDoors}
	known := map[string]bool{}
	for url, doors := range planes {
		here := map[string]bool{}
		for _, d := range doors {
			known[d.route], here[d.route] = true, true
		}
		for other, strange := range planes {
			for _, d := range strange {
				if other == url || here[d.route] {
					continue
				}
				for as := range numAskers {
					if r := w.ask(t, url, d, as); r.status != 404 || r.body != "404 page not found\n" || r.header.Get("WWW-Authenticate") != "" {
						t.Errorf("%s on the other listener, by %s: %v", d.request, askerNames[as], r)
					}
				}
			}
		}
	}
	for key := range (api.Exposure{}).Builtin() {
		if !known[key] && !strings.HasPrefix(key, "ws:") {
			t.Errorf("%s has no line in the table", key)
		}
	}
	for _, url := range []string{w.admin, w.url} {
		for _, d := range planes[url] {
			w.ready(ctx, t)
			ended := false
			for _, as := range []int{nobodyAsks, forgerAsks, otherAsks, lesserAsks, customAsks, auditorAsks, ownerAsks, operatorAsks} {
				r := w.ask(t, url, d, as)
				if r.status != d.want[as] {
					t.Errorf("%s by %s: %v, want %d", d.request, askerNames[as], r, d.want[as])
				}
				if (r.status == 401) != (r.header.Get("WWW-Authenticate") != "") {
					t.Errorf("%s by %s: %v: a challenge belongs to 401", d.request, askerNames[as], r)
				}
				if as == ownerAsks {
					ended = slices.Contains([]string{"DELETE /calls/{callID}", "DELETE /calls/{callID}/sessions/{sessionID}", "PUT /clients/self/key", "POST /unregister"}, d.route)
				}
				if !ended && !w.alive(t) {
					t.Errorf("%s by %s ended the owner's call", d.request, askerNames[as])
				}
			}
			if d.route == "PUT /clients/self/key" {
				if code, err := w.owner.ended(ctx); code != 4401 {
					t.Errorf("the connection of the old key was closed with %d, %v", code, err)
				}
				w.owner = nil
			}
		}
	}
}

// TestWrongKey shows WX-02 and RT-03 with a key that could be right: it is refused, and alike whether there is
// such a client or not.
func TestWrongKey(t *testing.T) {
	e := openEstate(t, nil, roles{"c": nil}, nil)
	wrong := strings.Repeat("w", len(key))
	a, b := inquire(t, e.url, asker{"d", wrong}, "GET /ws", ""), inquire(t, e.url, asker{"c", wrong}, "GET /ws", "")
	if a.status != 401 || !same(a, b) {
		t.Errorf("no such client: %v\na wrong key: %v", a, b)
	}
}

// TestOpenRegistration shows WX-02 and WX-12: where anybody may register, whoever does gets the default role, also
// if he asks for others, and that he asked is on record.
func TestOpenRegistration(t *testing.T) {
	e := openEstate(t, nil, nil, func(c *config.Config) {
		c.API.Security.AllowSelfRegistration = true
		c.Policy.DefaultRole = "newcomer"
		c.Policy.Roles = map[string]string{"GET /calls": "newcomer"}
	})
	// A value that is no text fails anywhere, by the established protocol.
	list := inquire(t, e.url, nobody, "POST /register", fmt.Sprintf(`{"clientID":"self","authKey":%q,"roles":["client","admin"]}`, key))
	if list.status != 400 {
		t.Fatalf("register with a list of roles: %v", list)
	}
	r := inquire(t, e.url, nobody, "POST /register", fmt.Sprintf(`{"clientID":"self","authKey":%q,"roles":"admin"}`, key))
	if r.status != 201 {
		t.Fatalf("register: %v", r)
	}
	if got := must(t, e.admin, operator, "GET /admin/clients/self", ""); fmt.Sprint(got["roles"]) != "[newcomer]" {
		t.Errorf("it has roles %v", got["roles"])
	}
	for request, want := range map[string]int{"GET /calls": 200, "POST /calls": 403, "GET /ws": 403} {
		if r := inquire(t, e.url, tenant("self"), request, ""); r.status != want {
			t.Errorf("%s: %v, want %d", request, r, want)
		}
	}
	if r := inquire(t, e.admin, tenant("self"), "GET /admin/clients", ""); r.status != 403 {
		t.Errorf("it is the admin: %v", r)
	}
	found := e.events(t, "client.register", 1, func(ev event) bool { return ev.Object.ID == "self" })
	if len(found) != 1 || found[0].Outcome != 0 || found[0].Reason != "roles_ignored" {
		t.Errorf("on record as %+v", found)
	}
}

// An event is what of one the tests look at.
type event struct {
	Type, Remote, Reason string
	Outcome              int
	Actor, Object        struct{ Kind, ID string }
}

// events waits for n events of a type of which ok says so, and for all that was recorded before now, and
// returns those of which ok says so.
func (e *estate) events(t *testing.T, typ string, n int, ok func(event) bool) []event {
	t.Helper()
	if e.marks++; inquire(t, e.url, nobody, "GET /version", "").status != 200 {
		t.Fatal("no version")
	}
	ctx := within(t, 30*time.Second)
	for {
		marks := len(e.page(t, "server.version", func(event) bool { return true }))
		out := e.page(t, typ, ok)
		if marks >= e.marks && len(out) >= n || ctx.Err() != nil {
			return out
		}
	}
}

// page reads the events of a type that are on record.
func (e *estate) page(t *testing.T, typ string, ok func(event) bool) []event {
	t.Helper()
	var out []event
	for cursor := ""; ; {
		r := inquire(t, e.admin, auditor, "GET /admin/audit?limit=1000&type="+typ+cursor, "")
		var body struct {
			Events []event
			Next   string
			More   bool
		}
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != 200 {
			t.Fatalf("audit: %v: %v", r, err)
		}
		out = append(out, slices.DeleteFunc(body.Events, func(ev event) bool { return !ok(ev) })...)
		if !body.More {
			return out
		}
		cursor = "&cursor=" + body.Next
	}
}

// TestNoSecretInAnyURL shows TK-01: on every route of both listeners a query with a key, a token or a ticket is
// refused before anybody is asked who he is, and is in no log, no event and no answer. Tickets open
// /ws and nothing else.
func TestNoSecretInAnyURL(t *testing.T) {
	const canary = "canary-7351-in-the-url"
	log := new(safeBuffer)
	e := openEstate(t, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug - 8})), roles{"owner": nil}, nil)
	e.setRoles(t, "owner", "client")
	names := []string{"authKey", "authkey", "AUTHKEY", "token", "Token", "key", "ticket", "%61uthKey", "auth%4bey", "a=b&token", "a=b;key", "&&ticket"}
	for url, doors := range map[string][]door{e.url: publicDoors, e.admin: adminDoors} {
		for _, d := range doors {
			request := strings.NewReplacer("{call}", "c").Replace(d.request)
			if !strings.Contains(request, "?") {
				request += "?"
			}
			for _, name := range names {
				for _, as := range []asker{nobody, tenant("owner"), operator} {
					want := 400
					if d.route == "GET /ws" && strings.HasSuffix(name, "ticket") {
						want = 401 // looked at, and no good
					}
					r := inquire(t, url, as, request+"&"+name+"="+canary, strings.ReplaceAll(d.body, "{new}", "new"))
					if r.status != want || want == 400 && !strings.Contains(r.body, "secret_in_url") {
						t.Errorf("%s&%s= by %q: %v, want %d", request, name, as.id, r, want)
					}
					if strings.Contains(r.String(), canary) {
						t.Errorf("%s&%s= by %q is echoed: %v", request, name, as.id, r)
					}
				}
			}
		}
	}
	if r := inquire(t, e.admin, operator, "GET /admin/clients/new", ""); r.status != 404 {
		t.Errorf("what was refused was done all the same: %v", r)
	}
	refused := e.events(t, "call.list", 3*len(names), func(ev event) bool { return ev.Reason == "secret_in_url" && ev.Outcome == 4 })
	if len(refused) != 3*len(names) {
		t.Errorf("%d refusals of one route on record, of %d", len(refused), 3*len(names))
	}
	if !strings.Contains(log.String(), "roles of client changed") {
		t.Error("the log is empty")
	}
	if strings.Contains(log.String(), canary) {
		t.Error("a secret of a URL is in the log")
	}
	files, err := filepath.Glob(filepath.Join(e.audit, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the record: %v, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || strings.Contains(string(b), canary) {
			t.Errorf("a secret of a URL is in the record: %v", err)
		}
	}
}

// TestForwardedAddresses shows OT-04: what X-Forwarded-For says is on record only if a proxy of ours said it, for
// requests, failed logins and WebSockets alike; and no header of a request makes a URL.
func TestForwardedAddresses(t *testing.T) {
	tests := []struct {
		name      string
		trusted   []string
		forwarded string
		want      string
	}{
		{"another is trusted", []string{"10.0.0.0/8"}, "203.0.113.9", "127.0.0.1"},
		{"ours, and before it somebody's word", []string{"127.0.0.0/8"}, "192.0.2.1, 203.0.113.9", "203.0.113.9"},
		{"two of ours", []string{"127.0.0.0/8", "10.0.0.0/8"}, "192.0.2.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"},
		{"no address", []string{"127.0.0.0/8"}, "evil\t\x7f", "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := openEstate(t, nil, roles{"c": nil}, func(c *config.Config) {
				c.API.HTTP.TrustedProxies = tt.trusted
				c.API.Security.RequireTLS = true
			})
			c := tenant("c")
			headers := []string{"X-Forwarded-For", strings.ReplaceAll(tt.forwarded, "\x7f", ""), "X-Forwarded-Host", "evil.example", "Forwarded", "for=192.0.2.66;host=evil.example", "X-Real-IP", "192.0.2.66"}
			r := inquire(t, e.url, c, "POST /ws/tickets", "", headers...)
			if r.status != 201 || !strings.Contains(r.body, `"url":"/ws"`) || strings.Contains(r.String(), "evil") {
				t.Errorf("ticket: %v", r)
			}
			inquire(t, e.url, nobody, "GET /calls", "", headers...)
			inquire(t, e.admin, operator, "GET /admin/clients", "", headers...)
			inquire(t, e.url, nobody, "POST /login", `{"clientID":"c","authKey":"wrong"}`, headers...)
			dial(t, e.url, c, false, headers...)
			for _, typ := range []string{"ticket.mint", "call.list", "client.list", "client.login", "ws.open"} {
				found := e.events(t, typ, 1, func(event) bool { return true })
				if len(found) != 1 || strings.Split(found[0].Remote, ":")[0] != tt.want {
					t.Errorf("%s is on record as %+v, want from %s", typ, found, tt.want)
				}
			}
			// Over what the request came, only a proxy of ours knows.
			plain := inquire(t, e.url, c, "GET /calls", "", "X-Forwarded-Proto", "http")
			if trusted := slices.Contains(tt.trusted, "127.0.0.0/8"); (plain.status == 403) != trusted {
				t.Errorf("said to have come in the clear: %v, the proxy being trusted: %v", plain, trusted)
			}
		})
	}
}

// TestNothingOfOthersIsHeard shows OT-01: while one client's calls are busy, with joins, media, speech, screens,
// moderation and ends, another's connections get not one message, of either protocol.
func TestNothingOfOthersIsHeard(t *testing.T) {
	ctx := within(t, 90*time.Second)
	e := openEstate(t, nil, roles{"a": nil, "b": nil}, nil)
	a, b := tenant("a"), tenant("b")
	v1, v2 := dial(t, e.url, b, false), dial(t, e.url, b, true)
	r := connect(t, e.url, a.id)
	mine := dial(t, e.url, a, true)
	for round := range 3 {
		call := fmt.Sprintf("call%d", round)
		all := people(ctx, t, r, call, fmt.Sprintf("r%ds1", round), fmt.Sprintf("r%ds2", round))
		names := slices.Sorted(maps.Keys(all))
		stop := rtctest.Talk(t, all)
		more(ctx, t, all[names[0]], names[1], 30)
		for _, err := range []error{
			r.Conn.ScreenOn(names[0], "screen"), r.Conn.Mute(names[1]), r.Conn.Unmute(names[1]), r.Conn.ScreenOff(names[0]),
			r.Conn.Leave("nobody"), r.Conn.Flush(ctx),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		mine.send(t, wire.AppendModerate(nil, wire.Moderate{CallID: call, Action: wire.ActionMuteAll}),
			wire.AppendModerate(nil, wire.Moderate{CallID: call, Action: wire.ActionDisconnect, SessionID: "nobody"}))
		must(t, e.url, a, "DELETE /calls/"+call+"/sessions/"+names[1], "")
		stop()
		must(t, e.url, a, "DELETE /calls/"+call, "")
		for _, name := range names {
			if err := r.AwaitClosed(ctx, name); err != nil {
				t.Fatalf("the end of %s: %v", name, err)
			}
		}
	}
	if got := mine.settle(ctx, t); len(got) < 4 {
		t.Errorf("the client itself was told %q: there was no load", got)
	}
	for _, s := range []*link{v1, v2} {
		if got := s.settle(ctx, t); len(got) > 0 {
			t.Errorf("another client was told %q", got)
		}
	}
}
