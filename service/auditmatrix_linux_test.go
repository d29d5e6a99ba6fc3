package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/audit"
	"rtcd/service/policy"
)

// entry is an event as GET /admin/audit shows it.
type entry struct {
	Seq   uint64 `json:"seq"`
	Time  string `json:"time"`
	Actor struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"actor"`
	Remote string `json:"remote"`
	Type   string `json:"type"`
	Action string `json:"action"`
	Object struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"object"`
	Call    string `json:"call"`
	Session string `json:"session"`
	User    string `json:"user"`
	Outcome int    `json:"outcome"`
	Reason  string `json:"reason"`
}

// String is what a test says of an event beforehand: all but number, time, address and user.
func (e entry) String() string {
	return fmt.Sprintf("%s by %s:%s, %s on %s:%s in %s/%s: %d %s", e.Type, e.Actor.Kind, e.Actor.ID, e.Action,
		e.Object.Kind, e.Object.ID, e.Call, e.Session, e.Outcome, e.Reason)
}

// page is an answer of GET /admin/audit.
type page struct {
	Events []entry `json:"events"`
	Next   string  `json:"next"`
	More   bool    `json:"more"`
}

// auditPage asks for a page, from an address of its own.
func (w *recorded) auditPage(t *testing.T, query url.Values) page {
	t.Helper()
	a := probe{method: "GET", url: w.admin + "/admin/audit?" + query.Encode(), key: reviewerKey, from: readerAddr}.do(t)
	var p page
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != 200 {
		t.Fatalf("audit %s: %d %.200s %v", query.Encode(), a.status, a.body, err)
	}
	return p
}

// readerAddr is where the tests read the log from: what they do there is not what they look for.
const readerAddr = "127.99.0.1"

// A trail follows the log.
type trail struct {
	w      *recorded
	cursor string
	seen   map[string][]entry // by address and port
	all    []entry
}

// await reads on until there are n events from an address and port.
func (l *trail) await(t *testing.T, remote string, n int) []entry {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond) // an event is on record a moment after its answer
	defer tick.Stop()
	for len(l.seen[remote]) < n {
		<-tick.C
		query := url.Values{"limit": {"1000"}}
		if l.cursor != "" {
			query.Set("cursor", l.cursor)
		}
		p := l.w.auditPage(t, query)
		l.cursor = p.Next
		for _, e := range p.Events {
			l.seen[e.Remote] = append(l.seen[e.Remote], e)
			if !strings.HasPrefix(e.Remote, readerAddr+":") {
				l.all = append(l.all, e)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events from %s, want %d: %v", len(l.seen[remote]), remote, n, l.seen[remote])
		}
	}
	return l.seen[remote]
}

// A matrix asks for things, each from another address, and compares what the log says of it.
type matrix struct {
	*trail
	asked   int
	expect  []string // of every request, in order, if there was nothing else
	covered map[string]int
}

// ask makes a request, which has to give a status and to be the event that want says: "type by actor,
// action on object in call/session: outcome reason".
func (m *matrix) ask(t *testing.T, route string, p probe, status int, want string) answer {
	t.Helper()
	m.asked++
	m.covered[route]++
	p.from = fmt.Sprintf("127.1.%d.%d", m.asked/200, m.asked%200+1)
	if strings.HasPrefix(p.url, "/") {
		p.url = m.w.url + p.url
	}
	a := p.do(t)
	what := fmt.Sprintf("%s %s", p.method, strings.TrimPrefix(strings.TrimPrefix(p.url, m.w.url), m.w.admin))
	if a.status != status {
		t.Errorf("%s: %d %.200s, want %d", what, a.status, a.body, status)
	}
	e := m.await(t, a.remote, 1)[0]
	want = strings.ReplaceAll(want, "$id", e.Object.ID)
	if e.String() != want {
		t.Errorf("%s:\n got %s\nwant %s", what, e, want)
	}
	m.expect = append(m.expect, a.remote)
	return a
}

// facts are what is always the same about the events of a route.
type facts struct {
	admin  bool // on the admin listener alone
	event  string
	action string
}

// routeFacts has every route there is. What is missing here fails the test.
var routeFacts = map[string]facts{
	"GET /version":               {false, "server.version", "R"},
	"GET /system":                {false, "server.load", "R"},
	"GET /healthz":               {false, "server.health", "R"},
	"GET /ready":                 {false, "server.ready", "R"},
	"POST /register":             {false, "client.register", "C"},
	"POST /login":                {false, "client.login", "E"},
	"POST /unregister":           {false, "client.unregister", "D"},
	"PUT /clients/self/key":      {false, "client.rotate", "U"},
	"POST /token/refresh":        {false, "token.refresh", "U"},
	"GET /calls":                 {false, "call.list", "R"},
	"POST /calls":                {false, "call.create", "C"},
	"GET /calls/{callID}":        {false, "call.read", "R"},
	"GET /calls/{callID}/report": {false, "call.report", "R"},
	"GET /admin/calls/{clientID}/{callID}/report": {true, "call.report", "R"},
	"DELETE /calls/{callID}":                      {false, "call.end", "D"},
	"POST /calls/{callID}/tokens":                 {false, "token.mint", "C"},
	"GET /calls/{callID}/sessions":                {false, "session.list", "R"},
	"GET /calls/{callID}/sessions/{sessionID}":    {false, "session.read", "R"},
	"DELETE /calls/{callID}/sessions/{sessionID}": {false, "session.disconnect", "E"},
	"POST /calls/{callID}/moderate":               {false, "call.moderate", "E"},
	"GET /events":                                 {false, "events.read", "R"},
	"POST /ws/tickets":                            {false, "ticket.mint", "C"},
	"GET /ws":                                     {false, "ws.open", "E"},
	"GET /metrics":                                {true, "metrics.read", "R"},
	"GET /debug/pprof/":                           {true, "profile.read", "R"},
	"GET /admin/clients":                          {true, "client.list", "R"},
	"POST /admin/clients":                         {true, "client.add", "C"},
	"GET /admin/clients/{clientID}":               {true, "client.get", "R"},
	"DELETE /admin/clients/{clientID}":            {true, "client.remove", "D"},
	"PUT /admin/clients/{clientID}/roles":         {true, "client.roles", "U"},
	"POST /admin/clients/{clientID}/rotate":       {true, "client.rotate", "U"},
	"POST /admin/clients/{clientID}/revoke":       {true, "client.revoke", "U"},
	"GET /probe":                                  {false, "probe.page", "R"},
	"POST /probe":                                 {false, "probe.offer", "E"},
	"POST /probe/result":                          {false, "probe.report", "E"},
	"POST /probes":                                {false, "probe.invite", "C"},
	"POST /admin/probes":                          {true, "probe.invite", "C"},
	"GET /admin/probes":                           {true, "probe.list", "R"},
	"GET /admin/audit":                            {true, "audit.read", "R"},
	"GET /admin/":                                 {true, "status.page", "R"},
	"GET /admin/status":                           {true, "status.read", "R"},
	"GET /admin/drain":                            {true, "drain.read", "R"},
	"POST /admin/drain":                           {true, "drain.start", "E"},
	"DELETE /admin/drain":                         {true, "drain.end", "E"},
	"POST /admin/store/backup":                    {true, "store.backup", "R"},
}

// refused asks for every route that asks for a role in a way that is refused.
func (m *matrix) refused(t *testing.T, table map[string]string, as probe, status int, actor, reason string) {
	t.Helper()
	for _, route := range slices.Sorted(mapKeys(table)) {
		f, known := routeFacts[route]
		switch {
		case strings.HasPrefix(route, "ws:"):
			continue
		case !known:
			t.Errorf("route %q has no case here", route)
			continue
		case table[route] == policy.Guest && reason != "secret_in_url":
			continue
		}
		method, path, _ := strings.Cut(route, " ")
		object, where := ":", "/"
		switch {
		case strings.Contains(path, "{clientID}/{callID}"): // whose call it is
			object, where = "client:someone", "room/"
		case strings.Contains(path, "{sessionID}"):
			object, where = "session:sess", "room/sess"
		case strings.Contains(path, "{callID}"):
			object, where = "call:room", "room/"
		case strings.Contains(path, "{clientID}"):
			object = "client:someone"
		}
		p := as
		p.method = method
		p.url += strings.NewReplacer("{callID}", "room", "{sessionID}", "sess", "{clientID}", "someone").Replace(path)
		if f.admin {
			p.url = m.w.admin + p.url
		}
		if reason == "secret_in_url" {
			p.url += "?authKey=x"
		}
		outcome := 8
		if status == 400 {
			outcome = 4
		}
		m.ask(t, route, p, status, fmt.Sprintf("%s by %s, %s on %s in %s: %d %s", f.event, actor, f.action, object, where, outcome, reason))
	}
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// speakers is the role that the messages of the WebSocket ask for in these tests.
const speakers = "speaker"

// startMatrix returns a matrix over a server with two clients: a, which may do everything, and b.
func startMatrix(t *testing.T) (m *matrix, table map[string]string, tokenA, tokenB string) {
	t.Helper()
	w := startRecorded(t, nil, func(c *config.Config) {
		c.Policy.Roles = map[string]string{}
		for _, typ := range []string{"join", "leave", "reconnect", "rtc", "moderate"} {
			c.Policy.Roles["ws:"+typ] = speakers
		}
	})
	m = &matrix{trail: &trail{w: w, seen: make(map[string][]entry)}, covered: make(map[string]int)}
	account := func(id string) string { return fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key) }
	m.ask(t, "POST /register", probe{method: "POST", url: "/register", body: account("a")}, 201,
		"client.register by guest:, C on client:a in /: 0 ")
	m.ask(t, "POST /register", probe{method: "POST", url: "/register", body: account("a")}, 400,
		"client.register by guest:, C on client:a in /: 4 refused")
	m.ask(t, "POST /register", probe{method: "POST", url: "/register", body: `{`}, 400,
		"client.register by guest:, C on : in /: 4 bad_json")
	m.ask(t, "POST /admin/clients", probe{method: "POST", url: w.admin + "/admin/clients", key: adminKey, body: account("b")}, 201,
		"client.add by operator:admin, C on client:b in /: 0 ")
	m.ask(t, "POST /admin/clients", probe{method: "POST", url: w.admin + "/admin/clients", key: adminKey, body: account("b")}, 409,
		"client.add by operator:admin, C on client:b in /: 4 already_registered")
	m.ask(t, "PUT /admin/clients/{clientID}/roles", probe{method: "PUT", url: w.admin + "/admin/clients/a/roles", key: adminKey,
		body: `{"roles":["client","speaker"]}`}, 200, "client.roles by operator:admin, U on client:a in /: 0 ")
	m.ask(t, "PUT /admin/clients/{clientID}/roles", probe{method: "PUT", url: w.admin + "/admin/clients/a/roles", key: adminKey,
		body: `{"roles":["admin"]}`}, 403, "client.roles by operator:admin, U on client:a in /: 8 role_reserved")
	tokenA = m.ask(t, "POST /login", probe{method: "POST", url: "/login", body: account("a")}, 200,
		"client.login by client:a, E on client:a in /: 0 ").field(t, "bearerToken")
	tokenB = m.ask(t, "POST /login", probe{method: "POST", url: "/login", body: account("b")}, 200,
		"client.login by client:b, E on client:b in /: 0 ").field(t, "bearerToken")
	m.ask(t, "POST /login", probe{method: "POST", url: "/login", body: `{"clientID":"a","authKey":"` + adminKey + `"}`}, 400,
		"client.login by guest:, E on client:a in /: 4 refused")
	return m, api.Exposure{SelfRegistration: true}.Builtin(), tokenA, tokenB
}

// TestEveryTransactionIsOnRecord shows CR-12 (and OT-18: failed logins are on record with their address): each route, read
// or write, done or refused, and each message of a WebSocket makes exactly one event of the whole server's log, with actor,
// address and port, action, object, outcome as it was, and time in UTC; in the order in which things happened. The log verifies
// afterwards, and no user's id stands in it in plain (CR-14).
func TestEveryTransactionIsOnRecord(t *testing.T) {
	t.Parallel()
	begin := time.Now().Truncate(time.Millisecond)
	m, table, tokenA, tokenB := startMatrix(t)
	w := m.w
	admin := func(method, path, body string) probe {
		return probe{method: method, url: w.admin + path, key: adminKey, body: body}
	}
	as := func(method, path, body string) probe {
		return probe{method: method, url: path, token: tokenA, body: body}
	}

	// Who shows nothing, or a secret in the wrong place.
	m.refused(t, table, probe{}, 401, "guest:", "unauthorized")
	m.refused(t, table, probe{}, 400, "guest:", "secret_in_url")
	for _, route := range []string{"version", "system", "healthz", "ready", "metrics"} {
		m.ask(t, "GET /"+route, probe{method: "GET", url: "/" + route}, 200, routeFacts["GET /"+route].event+" by guest:, R on : in /: 0 ")
	}
	for _, path := range []string{"metrics", "debug/pprof/goroutine?debug=2"} {
		route := "GET /" + path
		if path != "metrics" {
			route = "GET /debug/pprof/"
		}
		m.ask(t, route, probe{method: "GET", url: w.admin + "/" + path}, 200, routeFacts[route].event+" by guest:, R on : in /: 0 ")
	}
	m.ask(t, "", probe{method: "GET", url: "/nothing"}, 404, "http.unknown by guest:, R on : in /: 4 not_found")
	foreign := admin("GET", "/admin/clients", "")
	foreign.header = http.Header{"Origin": {"http://elsewhere.example"}}
	m.ask(t, "GET /admin/clients", foreign, 403, "client.list by guest:, R on : in /: 8 forbidden")

	m.messages(t, tokenA, tokenB)

	// Calls.
	m.ask(t, "GET /calls", as("GET", "/calls", ""), 200, "call.list by client:a, R on : in /: 0 ")
	m.ask(t, "POST /calls", as("POST", "/calls", `{"callID":"room"}`), 201, "call.create by client:a, C on call:room in room/: 0 ")
	m.ask(t, "POST /calls", as("POST", "/calls", `{"nonsense":1}`), 400, "call.create by client:a, C on : in /: 4 unknown_field")
	m.ask(t, "POST /calls", as("POST", "/calls", `{"e2ee":true}`), 409, "call.create by client:a, C on : in /: 4 not_supported")
	m.ask(t, "GET /calls/{callID}", as("GET", "/calls/room", ""), 200, "call.read by client:a, R on call:room in room/: 0 ")
	m.ask(t, "GET /calls/{callID}/report", as("GET", "/calls/live/report", ""), 200, "call.report by client:a, R on call:live in live/: 0 ")
	m.ask(t, "GET /calls/{callID}/report", as("GET", "/calls/none/report", ""), 404, "call.report by client:a, R on call:none in none/: 4 not_found")
	m.ask(t, "GET /events", as("GET", "/events?wait=0&call=room", ""), 200, "events.read by client:a, R on call:room in room/: 0 ")
	m.ask(t, "GET /events", as("GET", "/events?after=x", ""), 400, "events.read by client:a, R on : in /: 4 bad_cursor")
	m.ask(t, "GET /calls/{callID}", as("GET", "/calls/none", ""), 404, "call.read by client:a, R on call:none in none/: 4 not_found")
	minted := m.ask(t, "POST /calls/{callID}/tokens", as("POST", "/calls/room/tokens", `{"userID":"user-in-plain"}`), 201,
		"token.mint by client:a, C on token:$id in room/: 0 ")
	if e := m.seen[minted.remote][0]; e.Object.ID != minted.field(t, "tokenID") || e.User == "" {
		t.Errorf("token %s, but the event is about %s and user %q", minted.field(t, "tokenID"), e.Object.ID, e.User)
	}
	m.ask(t, "POST /calls/{callID}/tokens", as("POST", "/calls/none/tokens", `{"userID":"user-in-plain"}`), 404,
		"token.mint by client:a, C on call:none in none/: 4 not_found")
	m.ask(t, "GET /calls/{callID}/sessions", as("GET", "/calls/live/sessions", ""), 200, "session.list by client:a, R on call:live in live/: 0 ")
	m.ask(t, "GET /calls/{callID}/sessions", as("GET", "/calls/room/sessions", ""), 404,
		"session.list by client:a, R on call:room in room/: 4 not_found")
	m.ask(t, "GET /calls/{callID}/sessions/{sessionID}", as("GET", "/calls/live/sessions/s2", ""), 200,
		"session.read by client:a, R on session:s2 in live/s2: 0 ")
	m.ask(t, "POST /calls/{callID}/moderate", as("POST", "/calls/live/moderate", `{"action":"mute","sessionID":"s2"}`), 200,
		"call.moderate by client:a, E on session:s2 in live/s2: 0 mute")
	m.ask(t, "POST /calls/{callID}/moderate", as("POST", "/calls/live/moderate", `{"action":"unpublish","streamID":"none"}`), 404,
		"call.moderate by client:a, E on stream:none in live/: 4 not_found")
	m.ask(t, "DELETE /calls/{callID}/sessions/{sessionID}", as("DELETE", "/calls/live/sessions/s2", ""), 200,
		"session.disconnect by client:a, E on session:s2 in live/s2: 0 disconnect")
	m.ask(t, "DELETE /calls/{callID}/sessions/{sessionID}", as("DELETE", "/calls/live/sessions/s9", ""), 404,
		"session.disconnect by client:a, E on session:s9 in live/s9: 4 not_found")
	m.ask(t, "DELETE /calls/{callID}", as("DELETE", "/calls/room", ""), 200, "call.end by client:a, D on call:room in room/: 0 ")
	m.ask(t, "DELETE /calls/{callID}", as("DELETE", "/calls/none", ""), 404, "call.end by client:a, D on call:none in none/: 4 not_found")

	// Tokens and tickets.
	ticket := m.ask(t, "POST /ws/tickets", as("POST", "/ws/tickets", ""), 201, "ticket.mint by client:a, C on client:a in /: 0 ").field(t, "ticket")
	m.ask(t, "GET /ws", probe{method: "GET", url: "/ws?ticket=" + ticket}, 401, "ws.open by guest:, E on : in /: 8 ticket_invalid") // another address
	m.ask(t, "GET /ws", as("GET", "/ws", ""), 400, "ws.open by client:a, E on : in /: 4 refused")                                   // no upgrade
	m.ask(t, "GET /probe", probe{method: "GET", url: "/probe"}, 200, "probe.page by guest:, R on : in /: 0 ")
	m.ask(t, "POST /probe", probe{method: "POST", url: "/probe", body: `{"token":"x","transport":"udp","sdp":"v"}`}, 401,
		"probe.offer by guest:, E on : in /: 8 probe_token")
	m.ask(t, "POST /probe/result", probe{method: "POST", url: "/probe/result", body: `{"token":"x","udp":true,"tcp":true}`}, 401,
		"probe.report by guest:, E on : in /: 8 probe_token")
	m.ask(t, "POST /probes", as("POST", "/probes", ""), 201, "probe.invite by client:a, C on probe:$id in /: 0 ")
	m.ask(t, "POST /probes", as("POST", "/probes", `{"origin":"x"}`), 400, "probe.invite by client:a, C on : in /: 4 out_of_range")
	former := tokenA
	tokenA = m.ask(t, "POST /token/refresh", as("POST", "/token/refresh", ""), 200, "token.refresh by client:a, U on : in /: 0 ").field(t, "bearerToken")
	m.ask(t, "POST /token/refresh", probe{method: "POST", url: "/token/refresh", token: former}, 401,
		"token.refresh by guest:, U on : in /: 8 unauthorized")
	m.ask(t, "PUT /clients/self/key", as("PUT", "/clients/self/key", `{"authKey":"short"}`), 400,
		"client.rotate by client:a, U on client:a in /: 4 out_of_range")
	m.ask(t, "PUT /clients/self/key", as("PUT", "/clients/self/key", `{"authKey":"`+key+`-new"}`), 200,
		"client.rotate by client:a, U on client:a in /: 0 ")

	// The operator.
	m.ask(t, "PUT /admin/clients/{clientID}/roles", admin("PUT", "/admin/clients/b/roles", `{"roles":["low"]}`), 200,
		"client.roles by operator:admin, U on client:b in /: 0 ")
	m.refused(t, table, probe{token: tokenB}, 403, "client:b", "forbidden")
	m.ask(t, "POST /admin/probes", admin("POST", "/admin/probes", ""), 201, "probe.invite by operator:admin, C on probe:$id in /: 0 ")
	m.ask(t, "GET /admin/calls/{clientID}/{callID}/report", admin("GET", "/admin/calls/a/none/report", ""), 404, "call.report by operator:admin, R on client:a in none/: 4 not_found")
	m.ask(t, "GET /admin/probes", admin("GET", "/admin/probes", ""), 200, "probe.list by operator:admin, R on : in /: 0 ")
	m.ask(t, "GET /admin/clients", admin("GET", "/admin/clients", ""), 200, "client.list by operator:admin, R on : in /: 0 ")
	m.ask(t, "GET /admin/clients/{clientID}", admin("GET", "/admin/clients/b", ""), 200, "client.get by operator:admin, R on client:b in /: 0 ")
	m.ask(t, "GET /admin/clients/{clientID}", admin("GET", "/admin/clients/none", ""), 404,
		"client.get by operator:admin, R on client:none in /: 4 not_found")
	m.ask(t, "POST /admin/clients/{clientID}/rotate", admin("POST", "/admin/clients/b/rotate", `{"authKey":"`+key+`-new"}`), 200,
		"client.rotate by operator:admin, U on client:b in /: 0 ")
	m.ask(t, "POST /admin/clients/{clientID}/revoke", admin("POST", "/admin/clients/b/revoke", ""), 200,
		"client.revoke by operator:admin, U on client:b in /: 0 ")
	m.ask(t, "DELETE /admin/clients/{clientID}", admin("DELETE", "/admin/clients/b", ""), 200,
		"client.remove by operator:admin, D on client:b in /: 0 ")
	m.ask(t, "DELETE /admin/clients/{clientID}", admin("DELETE", "/admin/clients/b", ""), 404,
		"client.remove by operator:admin, D on client:b in /: 4 not_found")
	m.ask(t, "POST /admin/store/backup", admin("POST", "/admin/store/backup", ""), 200, "store.backup by operator:admin, R on : in /: 0 ")
	m.ask(t, "POST /admin/store/backup", probe{method: "POST", url: w.admin + "/admin/store/backup", key: reviewerKey}, 403,
		"store.backup by operator:auditor, R on : in /: 8 forbidden")
	m.ask(t, "GET /admin/audit", admin("GET", "/admin/audit", ""), 403, "audit.read by operator:admin, R on : in /: 8 forbidden")
	m.ask(t, "POST /admin/drain", admin("POST", "/admin/drain", `{"deadline":-1}`), 400, "drain.start by operator:admin, E on : in /: 4 out_of_range")
	m.ask(t, "POST /admin/drain", admin("POST", "/admin/drain", `{"exit":false}`), 200, "drain.start by operator:admin, E on : in /: 0 ")
	m.ask(t, "GET /admin/", probe{method: "GET", url: w.admin + "/admin/"}, 200, "status.page by guest:, R on : in /: 0 ")
	m.ask(t, "GET /admin/status", probe{method: "GET", url: w.admin + "/admin/status"}, 200, "status.read by guest:, R on : in /: 0 ")
	m.ask(t, "GET /admin/drain", admin("GET", "/admin/drain", ""), 200, "drain.read by operator:admin, R on : in /: 0 ")
	m.ask(t, "DELETE /admin/drain", admin("DELETE", "/admin/drain", ""), 200, "drain.end by operator:admin, E on : in /: 0 ")
	reader := probe{method: "GET", url: w.admin + "/admin/audit?limit=1", key: reviewerKey}
	m.ask(t, "GET /admin/audit", reader, 200, "audit.read by operator:auditor, R on : in /: 0 ")
	reader.url = w.admin + "/admin/audit?cursor=AAAA"
	m.ask(t, "GET /admin/audit", reader, 400, "audit.read by operator:auditor, R on : in /: 4 bad_cursor")
	m.ask(t, "POST /unregister", probe{method: "POST", url: "/unregister", key: adminKey, body: `{"clientID":"a"}`}, 200,
		"client.unregister by operator:admin, D on client:a in /: 0 ")
	m.ask(t, "POST /unregister", probe{method: "POST", url: "/unregister", key: adminKey, body: `{"clientID":"a"}`}, 400,
		"client.unregister by operator:admin, D on client:a in /: 4 not_found")

	for route := range table {
		if m.covered[route] == 0 {
			t.Errorf("nobody asked for %s", route)
		}
	}
	w.finish(t)
	m.judge(t, begin)
}

// messages sends each message of a WebSocket in a way that has an effect, one that has none, and one
// that the policy does not let in.
func (m *matrix) messages(t *testing.T, tokenA, tokenB string) {
	t.Helper()
	w := m.w
	type sent struct {
		route   string // "" for what is no message of the protocol
		message []byte
		want    string // of the event, without type's "ws." and the actor
	}
	join := func(call, session string) []byte {
		return wire.AppendJoin(nil, wire.Join{CallID: call, SessionID: session, UserID: "user-in-plain-" + session})
	}
	moderate := func(x wire.Moderate) []byte { return wire.AppendModerate(nil, x) }
	signal := func(session string, typ wire.SignalType) []byte {
		return wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: typ})
	}
	run := func(s *peer, actor string, list []sent) {
		t.Helper()
		m.await(t, s.remote, 1)
		for _, x := range list {
			if x.message == nil { // stands for a text frame
				if err := s.WriteMessage(websocket.TextMessage, []byte("text")); err != nil {
					t.Fatal(err)
				}
				s.send(t)
			} else {
				s.send(t, x.message)
			}
			m.covered[x.route]++
		}
		events := m.await(t, s.remote, 1+len(list))
		conn := events[0].Object.ID
		want := []string{fmt.Sprintf("ws.open by client:%s, E on connection:%s in /: 0 ", actor, conn)}
		for _, x := range list {
			typ, rest, _ := strings.Cut(x.want, " ")
			rest = strings.ReplaceAll(rest, "$conn", conn)
			want = append(want, fmt.Sprintf("ws.%s by client:%s, %s", typ, actor, rest))
		}
		_ = s.Close()
		want = append(want, fmt.Sprintf("ws.close by client:%s, E on connection:%s in /: 0 closed_by_peer", actor, conn))
		events = m.await(t, s.remote, 2+len(list))
		for i, e := range events {
			if i >= len(want) || e.String() != want[i] {
				t.Errorf("event %d of %s's connection:\n got %s\nwant %s", i, actor, e, want[min(i, len(want)-1)])
			}
			if joined := e.Type == "ws.join" && e.Reason != "blocked"; joined != (e.User != "") {
				t.Errorf("user of %s: %q", e, e.User)
			}
		}
	}
	v2 := w.mustOpen(t, "127.2.0.1", withToken(tokenA), "", wire.SubprotocolV2)
	run(v2, "a", []sent{
		{"ws:join", join("live", "s1"), "join C on session:s1 in live/s1: 0 "},
		{"ws:join", join("live", "s2"), "join C on session:s2 in live/s2: 0 "},
		{"ws:join", join("other", "s1"), "join C on session:s1 in other/s1: 4 other_call"},
		{"ws:reconnect", wire.AppendReconnect(nil, "s1"), "reconnect E on session:s1 in /s1: 0 "},
		{"ws:reconnect", wire.AppendReconnect(nil, "s9"), "reconnect E on session:s9 in /s9: 4 not_found"},
		{"ws:rtc", signal("s1", wire.SignalMute), "signal E on session:s1 in /s1: 0 "},
		{"ws:rtc", signal("s9", wire.SignalMute), "signal E on session:s9 in /s9: 4 not_found"},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMute, SessionID: "s1"}), "moderate E on session:s1 in live/s1: 0 "},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMuteAll}), "moderate E on call:live in live/: 0 "},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMuteState}), "moderate E on call:live in live/: 0 "},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionUnpublish, StreamID: "v"}), "moderate E on stream:v in live/: 4 not_found"},
		{"ws:moderate", moderate(wire.Moderate{CallID: "none", Action: wire.ActionMute, SessionID: "s1"}), "moderate E on session:s1 in none/s1: 4 not_found"},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMute}), "moderate E on session: in live/: 4 bad_request"},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionDisconnect, SessionID: "s1"}), "moderate E on session:s1 in live/s1: 0 "},
		{"ws:leave", wire.AppendLeave(nil, "s9"), "leave D on session:s9 in /s9: 4 not_found"},
		{"", []byte("\xa4what\x80"), "unknown E on connection:$conn in /: 4 unknown_type"},
		{"", []byte("\xc1"), "undecodable E on connection:$conn in /: 4 undecodable"},
		{"", nil, "undecodable E on connection:$conn in /: 4 text_frame"},
	})
	v1 := w.mustOpen(t, "127.2.0.2", withToken(tokenA), "")
	run(v1, "a", []sent{
		{"ws:join", join("live", "s3"), "join C on session:s3 in live/s3: 0 "},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMuteAll}), "unknown E on connection:$conn in /: 4 unknown_type"},
		{"ws:leave", wire.AppendLeave(nil, "s3"), "leave D on session:s3 in /s3: 0 "},
	})
	low := w.mustOpen(t, "127.2.0.3", withToken(tokenB), "", wire.SubprotocolV2)
	run(low, "b", []sent{
		{"ws:join", join("live", "s1"), "join C on session: in /: 4 blocked"},
		{"ws:leave", wire.AppendLeave(nil, "s1"), "leave D on session: in /: 4 blocked"},
		{"ws:reconnect", wire.AppendReconnect(nil, "s1"), "reconnect E on session: in /: 4 blocked"},
		{"ws:rtc", signal("s1", wire.SignalMute), "signal E on session: in /: 4 blocked"},
		{"ws:moderate", moderate(wire.Moderate{CallID: "live", Action: wire.ActionMute, SessionID: "s1"}), "moderate E on session: in /: 4 blocked"},
	})
	m.expect = append(m.expect, v2.remote, v1.remote, low.remote)
}

// utc is a time in UTC of 24 hours, as in RFC 3339.
var utc = regexp.MustCompile(`^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\d\.\d{3}Z$`)

// judge looks at the log as a whole, once the server has ended.
func (m *matrix) judge(t *testing.T, begin time.Time) {
	t.Helper()
	counts := make(map[string]int)
	var order []string
	var last uint64
	for _, e := range logged(t, m.w.cfg.Audit.Dir) {
		at, err := time.Parse(time.RFC3339, e.Time)
		if err != nil || !utc.MatchString(e.Time) || at.Before(begin) || at.After(time.Now()) {
			t.Errorf("time of %s: %s", e, e.Time)
		}
		if e.Seq != last+1 {
			t.Errorf("event %d comes after %d", e.Seq, last)
		}
		last = e.Seq
		if strings.HasPrefix(e.Remote, readerAddr+":") {
			if e.String() != "audit.read by operator:auditor, R on : in /: 0 " {
				t.Errorf("reading is recorded as %s", e)
			}
			continue
		}
		if e.Actor.Kind == "server" {
			continue
		}
		counts[e.Remote]++
		if !strings.HasPrefix(e.Type, "ws.") || e.Outcome != 0 {
			order = append(order, e.Remote)
		}
	}
	sockets := 0
	for i, remote := range m.expect {
		if strings.HasPrefix(remote, "127.2.") {
			sockets++
			continue
		}
		if counts[remote] != 1 {
			t.Errorf("%d events of request %d", counts[remote], i)
		}
		delete(counts, remote)
	}
	for remote, n := range counts {
		if !strings.HasPrefix(remote, "127.2.") {
			t.Errorf("%d events that nobody caused, from %q", n, remote)
		}
	}
	var requests, expected []string
	for _, r := range order {
		if strings.HasPrefix(r, "127.1.") {
			requests = append(requests, r)
		}
	}
	for _, r := range m.expect {
		if strings.HasPrefix(r, "127.1.") {
			expected = append(expected, r)
		}
	}
	if !slices.Equal(requests, expected) {
		t.Errorf("the events are not in the order of the requests")
	}
	report, err := audit.Verify(t.Context(), m.w.cfg.Audit.Dir)
	if err != nil || report.Fault != nil || report.Records != last {
		t.Errorf("verify: %v %v", report, err)
	}
	t.Logf("%d requests, %d connections, %d records", len(expected), sockets, last)
	absent(t, "the audit folder", folder(t, m.w.cfg.Audit.Dir), map[string]string{"a user's id": "user-in-plain"})
}
