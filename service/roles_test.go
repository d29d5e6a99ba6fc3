package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/api/wire"
)

// moderates has a socket mute a session of its client, and returns the reason why not; "" if it was done.
func moderates(ctx context.Context, t *testing.T, s *link, call, session string) string {
	t.Helper()
	s.send(t, wire.AppendModerate(nil, wire.Moderate{CallID: call, Action: wire.ActionMute, SessionID: session}))
	for _, m := range s.settle(ctx, t) {
		if d, err := wire.DecodeServer(m); err == nil && d.Type == wire.TypeError {
			return d.Error.Reason
		}
	}
	return ""
}

// setRoles has the operator change the roles of a client, and returns the answer.
func (e *estate) setRoles(t *testing.T, id string, roles ...string) told {
	t.Helper()
	body, err := json.Marshal(map[string]any{"roles": append([]string{}, roles...)})
	if err != nil {
		t.Fatal(err)
	}
	return inquire(t, e.admin, operator, "PUT /admin/clients/"+id+"/roles", string(body))
}

// TestRolesChangeOnLiveSockets shows WX-13 and WX-03: only the operator changes roles, and what he says holds for
// sockets, keys and tokens as soon as he is answered. Without the role of a client
// the sockets end; the sessions do not, for a client that gets it back. No account gets an operator's.
func TestRolesChangeOnLiveSockets(t *testing.T) {
	ctx := within(t, 60*time.Second)
	e := openEstate(t, nil, roles{"c": {"client", "moderate"}, "other": {"client", "moderate"}}, func(c *config.Config) {
		c.Policy.ClientIncludes = []string{"calls.create"}
	})
	c, other := tenant("c"), tenant("other")
	token := must(t, e.url, nobody, "POST /login", fmt.Sprintf(`{"clientID":"c","authKey":%q}`, key))["bearerToken"].(string)
	bearer := func(request string) int {
		return inquire(t, e.url, nobody, request, "", "Authorization", "Bearer "+token).status
	}
	v1, v2, spared := dial(t, e.url, c, false), dial(t, e.url, c, true), dial(t, e.url, other, true)
	for _, s := range []*link{v1, spared} {
		s.send(t, wire.AppendJoin(nil, wire.Join{CallID: "call", UserID: "u", SessionID: "s"}))
		s.settle(ctx, t)
	}
	if got := moderates(ctx, t, v2, "call", "s"); got != "" {
		t.Fatalf("a moderator may not: %q", got)
	}

	// Nobody but the operator changes them, and to nothing of an operator's.
	for _, as := range []asker{c, other, nobody, auditor} {
		if r := inquire(t, e.admin, as, "PUT /admin/clients/c/roles", `{"roles":["client"]}`); r.status != 401 && r.status != 403 {
			t.Errorf("%q changed roles: %v", as.id, r)
		}
		if r := inquire(t, e.url, as, "PUT /admin/clients/c/roles", `{"roles":["client"]}`); r.status != 404 {
			t.Errorf("%q changed roles: %v", as.id, r)
		}
	}
	for _, role := range []string{"admin", "auditor"} {
		if r := e.setRoles(t, "c", "client", role); r.status != 403 || !strings.Contains(r.body, "role_reserved") {
			t.Errorf("role %s: %v", role, r)
		}
	}
	for _, roles := range [][]string{{"client", "client"}, {"Client"}, {""}, {strings.Repeat("r", 33)}} {
		if r := e.setRoles(t, "c", roles...); r.status != 400 {
			t.Errorf("roles %q: %v", roles, r)
		}
	}
	if got := moderates(ctx, t, v2, "call", "s"); got != "" {
		t.Errorf("what was refused took a role: %q", got)
	}

	change := func(roles ...string) {
		t.Helper()
		if r := e.setRoles(t, "c", roles...); r.status != 200 {
			t.Fatalf("roles %q: %v", roles, r)
		}
	}
	change("client")
	if got := moderates(ctx, t, v2, "call", "s"); got != "forbidden" {
		t.Errorf("without the role: %q, want forbidden", got)
	}
	if r := inquire(t, e.url, c, "DELETE /calls/call/sessions/s", ""); r.status != 403 {
		t.Errorf("without the role, by key: %v", r)
	}
	if got := bearer("DELETE /calls/call/sessions/s"); got != 403 {
		t.Errorf("without the role, by a token of before: %d", got)
	}
	change("client", "moderate")
	if got := moderates(ctx, t, v2, "call", "s"); got != "" {
		t.Errorf("with the role again: %q", got)
	}

	change("moderate")
	begin := time.Now()
	for _, s := range []*link{v1, v2} {
		if code, err := s.ended(ctx); code != 4401 || time.Since(begin) > time.Second {
			t.Errorf("a socket of who is no client any more: code %d after %v, %v", code, time.Since(begin), err)
		}
	}
	if r := inquire(t, e.url, c, "GET /ws", ""); r.status != 403 {
		t.Errorf("a new socket: %v", r)
	}
	if got := bearer("GET /calls"); got != 403 {
		t.Errorf("calls, by token: %d", got)
	}
	if got := moderates(ctx, t, spared, "call", "s"); got != "" {
		t.Errorf("another client: %q", got)
	}
	change("client")
	back := dial(t, e.url, c, true)
	back.send(t, wire.AppendReconnect(nil, "s"))
	if got := back.settle(ctx, t); slices.ContainsFunc(got, func(m []byte) bool { return wire.Type(m) == wire.TypeError }) {
		t.Errorf("the session of before: %q", got)
	}
	if got := bearer("GET /calls/call/sessions/s"); got != 200 {
		t.Errorf("the session of before: %d", got)
	}
	changes := e.events(t, "client.roles", 4, func(ev event) bool { return ev.Outcome == 0 })
	denied := e.events(t, "client.roles", 6, func(ev event) bool { return ev.Outcome == 8 })
	if len(changes) != 4 || len(denied) != 6 {
		t.Errorf("%d changes of 4, %d denied of 6 on record", len(changes), len(denied))
	}
}

// policyOf loads a configuration file with no more than a policy.
func policyOf(t *testing.T, toml string) (config.Policy, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	c, report, err := config.Load(path, nil)
	if err == nil {
		err = report.Err
	}
	return c.Policy, err
}

// TestRolesOfTheConfiguration shows WX-04, WX-01 and WX-16: roles that only the configuration knows, from the file to
// what each account can do with routes and messages.
func TestRolesOfTheConfiguration(t *testing.T) {
	ctx := within(t, 60*time.Second)
	policy, err := policyOf(t, `
[policy]
client_includes = ["tokens.create"]
[policy.roles]
"GET /calls" = "front.desk"
"POST /calls" = "planner_2"
"POST /calls/{callID}/moderate" = "referee"
"ws:moderate" = "referee"
"ws:leave" = "door-keeper"
[[policy.in_ok]]
type = "join"
[[policy.in_ok]]
type_re = "leave|reconnect|rtc"
[[policy.in_ok]]
type = "moderate"
role = "chief"
`)
	if err != nil {
		t.Fatal(err)
	}
	accounts := map[string][]string{
		"plain": {"client"}, "clerk": {"front.desk"}, "planner": {"client", "planner_2"}, "referee": {"client", "referee"},
		"chief": {"client", "referee", "chief", "door-keeper"}, "none": {},
	}
	without := roles{}
	for id := range accounts {
		without[id] = nil
	}
	e := openEstate(t, nil, without, func(c *config.Config) { c.Policy = policy })
	for id, roles := range accounts {
		if r := e.setRoles(t, id, roles...); r.status != 200 {
			t.Fatalf("roles of %s: %v", id, r)
		}
	}
	for request, may := range map[string]map[string]int{
		"GET /version":           {"plain": 200, "clerk": 200, "planner": 200, "referee": 200, "chief": 200, "none": 200},
		"GET /calls":             {"clerk": 200},
		"POST /calls":            {"planner": 201},
		"DELETE /calls/x":        {}, // of calls.create, which nobody has here
		"POST /calls/x/tokens":   {"plain": 404, "planner": 404, "referee": 404, "chief": 404},
		"POST /calls/x/moderate": {"referee": 404, "chief": 404},
		"GET /calls/x":           {"plain": 404, "planner": 404, "referee": 404, "chief": 404},
		"GET /ws":                {"plain": 101, "planner": 101, "referee": 101, "chief": 101},
	} {
		for id := range accounts {
			want := may[id]
			if want == 0 {
				want = 403
			}
			body := map[string]string{"POST /calls/x/tokens": `{"userID":"u"}`, "POST /calls/x/moderate": `{"action":"mute_all"}`}[request]
			if r := inquire(t, e.url, tenant(id), request, body); r.status != want {
				t.Errorf("%s by %s: %v, want %d", request, id, r, want)
			}
		}
	}
	for id, want := range map[string]string{"plain": "forbidden", "referee": "forbidden", "chief": ""} {
		s := dial(t, e.url, tenant(id), true)
		s.send(t, wire.AppendJoin(nil, wire.Join{CallID: "call", UserID: "u", SessionID: "s"}))
		if got := moderates(ctx, t, s, "call", "s"); got != want {
			t.Errorf("moderate by %s: %q, want %q", id, got, want)
		}
		s.send(t, wire.AppendLeave(nil, "s"))
		s.settle(ctx, t)
		gone := inquire(t, e.url, tenant(id), "GET /calls/call/sessions/s", "").status == 404
		if gone != (id == "chief") {
			t.Errorf("leave by %s: the session is gone: %v", id, gone)
		}
	}
	// A role that nothing asks for gives no right, and is pointed out. Another case is another role.
	if r := e.setRoles(t, "none", "recorder"); r.status != 200 || !strings.Contains(r.body, `"unknownRoles":["recorder"]`) {
		t.Errorf("a role that nothing asks for: %v", r)
	}
	if r := inquire(t, e.url, tenant("none"), "GET /calls", ""); r.status != 403 {
		t.Errorf("a role that nothing asks for opens the calls: %v", r)
	}
	if r := e.setRoles(t, "none", "Front.Desk"); r.status != 400 {
		t.Errorf("a role in capitals: %v", r)
	}
}

// TestPolicyThatDoesNotFit shows WX-01, WX-04, WX-12 and WX-16: a server does not start with a policy that names what
// is not there, leaves something open, or gives away an operator's role; the error names the key.
func TestPolicyThatDoesNotFit(t *testing.T) {
	for toml, want := range map[string]string{
		`roles = {"GET /recordings" = "a"}`:                        "GET /recordings",
		`roles = {"get /calls" = "a"}`:                             "get /calls",
		`roles = {"ws:shout" = "a"}`:                               "ws:shout",
		`roles = {"GET /calls" = ""}`:                              "GET /calls",
		`roles = {"GET /calls" = "A"}`:                             "GET /calls",
		`roles = {"GET /calls" = "guest"}`:                         "GET /calls",
		`roles = {"GET /admin/audit" = "client"}`:                  "GET /admin/audit",
		`roles = {"GET /calls" = "a", "GET /calls" = "b"}`:         "GET /calls",
		`default_role = "admin"`:                                   "policy.default_role",
		`default_role = "auditor"`:                                 "policy.default_role",
		`client_includes = ["admin"]`:                              "policy.client_includes",
		`in_ok = [{type = "shout"}]`:                               "in_ok",
		`in_ok = [{type_re = "("}]`:                                "in_ok",
		`in_ok = [{type_re = "` + strings.Repeat("a", 257) + `"}]`: "in_ok",
		`out_ok = [{type = "hello", type_re = "h.*"}]`:             "out_ok",
	} {
		policy, err := policyOf(t, "[policy]\n"+toml)
		if err == nil {
			cfg := config.Default()
			cfg.API.HTTP.ListenAddress, cfg.API.Admin.ListenAddress = "127.0.0.1:0", ""
			cfg.Policy = policy
			var s *service.Server
			if s, err = service.New(t.Context(), cfg, service.Options{MemoryStore: true}); err == nil {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				_ = s.Run(ctx)
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error that names %s", toml, err, want)
		}
	}
}
