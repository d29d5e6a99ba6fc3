package policy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"rtcd/service/policy"
)

// builtin is a small server.
func builtin() map[string]string {
	return map[string]string{
		"GET /version":                  policy.Guest,
		"POST /register":                policy.Admin,
		"GET /ws":                       policy.Client,
		"GET /calls":                    policy.Client,
		"POST /calls":                   policy.CreateCalls,
		"POST /calls/{callID}/tokens":   policy.CreateTokens,
		"POST /calls/{callID}/moderate": policy.Moderate,
		"GET /admin/clients":            policy.Admin,
		"GET /admin/audit":              policy.Auditor,
		"ws:join":                       policy.Client,
		"ws:leave":                      policy.Client,
		"ws:reconnect":                  policy.Client,
		"ws:rtc":                        policy.Client,
		"ws:moderate":                   policy.Moderate,
	}
}

func compile(t *testing.T, cfg policy.Config) *policy.Table {
	t.Helper()
	table, err := policy.Compile(cfg, builtin())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func set(table *policy.Table, names ...string) policy.Roles {
	r, _ := table.Set(names)
	return r
}

// TestMatrix shows WX-01 and WX-03: every role against every route, of the built-in policy. The
// admin has every row but the WebSocket, its messages, and what is the auditor's (CR-14).
func TestMatrix(t *testing.T) {
	table := compile(t, policy.Config{})
	who := []struct {
		name  string
		roles policy.Roles
		may   string
	}{
		{"nobody", policy.Roles{}, ""},
		{"guest", table.Guest(), "GET /version"},
		{"account without roles", set(table), "GET /version"},
		{"client", set(table, "client"), "GET /version|GET /ws|GET /calls|POST /calls|POST /calls/{callID}/tokens|" +
			"POST /calls/{callID}/moderate|ws:join|ws:leave|ws:reconnect|ws:rtc|ws:moderate"},
		{"calls.create", set(table, "calls.create"), "GET /version|POST /calls"},
		{"tokens.create", set(table, "tokens.create"), "GET /version|POST /calls/{callID}/tokens"},
		{"moderate", set(table, "moderate"), "GET /version|POST /calls/{callID}/moderate|ws:moderate"},
		{"account that calls itself admin", set(table, "admin", "auditor"), "GET /version"},
		{"unknown", set(table, "recorder"), "GET /version"},
		{"other case", set(table, "Client", "CLIENT", "client "), "GET /version"},
		{"auditor", table.Auditor(), "GET /version|GET /admin/audit"},
		{"admin", table.Admin(), "GET /version|POST /register|GET /calls|POST /calls|POST /calls/{callID}/tokens|" +
			"POST /calls/{callID}/moderate|GET /admin/clients"},
	}
	for _, w := range who {
		allowed := strings.Split(w.may, "|")
		for route := range builtin() {
			want := false
			for _, a := range allowed {
				want = want || a == route
			}
			if got := table.Allows(w.roles, route); got != want {
				t.Errorf("%s, %s: allowed %v, want %v", w.name, route, got, want)
			}
		}
	}
}

// TestWhatIsNotNamedIsDenied shows WX-01: a route without a required role is closed to everybody,
// the admin too.
func TestWhatIsNotNamedIsDenied(t *testing.T) {
	table := compile(t, policy.Config{})
	all := set(table, "client", "calls.create", "tokens.create", "moderate")
	for _, r := range []policy.Roles{{}, table.Guest(), all, table.Auditor(), table.Admin()} {
		for _, route := range []string{"", "GET", "GET /other", "get /version", "GET /version ", "POST /version", "ws:", "ws:vad", "join"} {
			if table.Allows(r, route) {
				t.Errorf("%q is allowed", route)
			}
			if _, ok := table.Required(route); ok {
				t.Errorf("%q has a role", route)
			}
		}
	}
	if role, ok := table.Required("POST /calls"); role != "calls.create" || !ok {
		t.Errorf("POST /calls: %q, %v", role, ok)
	}
	if n := len(table.Routes()); n != len(builtin()) {
		t.Errorf("%d routes, want %d", n, len(builtin()))
	}
}

// TestRefusedConfigurations shows WX-01, WX-04, WX-12 and WX-16: what does not fit the server, or
// would open it, is refused, and the error names the key.
func TestRefusedConfigurations(t *testing.T) {
	many := map[string]string{}
	large := builtin()
	for i := range 70 {
		large[fmt.Sprintf("GET /%d", i)] = policy.Client
		many[fmt.Sprintf("GET /%d", i)] = fmt.Sprintf("role%d", i)
	}
	roles := func(key, role string) policy.Config { return policy.Config{Roles: map[string]string{key: role}} }
	in := func(r ...policy.Rule) policy.Config { return policy.Config{In: r} }
	without := builtin()
	without["GET /calls"] = ""
	tests := []struct {
		name    string
		cfg     policy.Config
		builtin map[string]string
		want    string
	}{
		{"unknown route", roles("GET /nothing", "client"), nil, "policy.roles: there is no route or message \"GET /nothing\""},
		{"method in lower case", roles("get /calls", "client"), nil, `"get /calls"`},
		{"unknown message", roles("ws:dance", "client"), nil, `"ws:dance"`},
		{"server's message", roles("ws:vad", "client"), nil, `"ws:vad"`},
		{"two roles for a route", roles("GET /calls", "client,recorder"), nil, `"GET /calls"`},
		{"two roles, blank between", roles("GET /calls", "client recorder"), nil, `"GET /calls"`},
		{"no role", roles("GET /calls", ""), nil, `"GET /calls"`},
		{"upper case", roles("GET /calls", "Recorder"), nil, `"GET /calls"`},
		{"long role", roles("GET /calls", strings.Repeat("r", 33)), nil, `"GET /calls"`},
		{"route of the server without a role", policy.Config{}, without, `"GET /calls"`},
		{"opened to guests", roles("GET /calls", "guest"), nil, "guests"},
		{"admin's opened to guests", roles("GET /admin/clients", "guest"), nil, "guests"},
		{"admin's given to clients", roles("GET /admin/clients", "client"), nil, "operators"},
		{"audit given to clients", roles("GET /admin/audit", "reader"), nil, "operators"},
		{"registration given to clients", roles("POST /register", "client"), nil, "operators"},
		{"too many roles", policy.Config{Roles: many}, large, "64"},
		{"default role admin", policy.Config{DefaultRole: "admin"}, nil, "policy.default_role"},
		{"default role auditor", policy.Config{DefaultRole: "auditor"}, nil, "policy.default_role"},
		{"default role malformed", policy.Config{DefaultRole: "Client"}, nil, "policy.default_role"},
		{"client includes admin", policy.Config{ClientIncludes: []string{"admin"}}, nil, "policy.client_includes"},
		{"client includes nothing named", policy.Config{ClientIncludes: []string{""}}, nil, "policy.client_includes"},
		{"client includes twice", policy.Config{ClientIncludes: []string{"moderate", "moderate"}}, nil, "twice"},
		{"bad expression", in(policy.Rule{TypeRE: "("}), nil, "policy.in_ok[0]: type_re"},
		{"unanchored by brackets", in(policy.Rule{TypeRE: "join)|(?:.*"}), nil, "policy.in_ok[0]: type_re"},
		{"look-ahead is not RE2", in(policy.Rule{TypeRE: "(?=join)"}), nil, "policy.in_ok[0]: type_re"},
		{"long expression", in(policy.Rule{TypeRE: strings.Repeat("a", 257)}), nil, "policy.in_ok[0]: type_re"},
		{"repetition bomb", in(policy.Rule{TypeRE: "((a{1000}){1000}){1000}"}), nil, "policy.in_ok[0]: type_re"},
		{"neither", in(policy.Rule{Type: "join"}, policy.Rule{Role: "x"}), nil, "policy.in_ok[1]"},
		{"both", in(policy.Rule{Type: "join", TypeRE: "join"}), nil, "policy.in_ok[0]"},
		{"rule twice", in(policy.Rule{Type: "join"}, policy.Rule{Type: "join"}), nil, "policy.in_ok[1]"},
		{"unknown type", in(policy.Rule{Type: "joinx"}), nil, `"joinx"`},
		{"role of a rule", in(policy.Rule{Type: "join", Role: "X"}), nil, "policy.in_ok[0]: role"},
		{"too many rules", in(make([]policy.Rule, 257)...), nil, "policy.in_ok"},
		{"unknown type out", policy.Config{Out: []policy.Rule{{Type: "debug"}}}, nil, "policy.out_ok[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			real := tt.builtin
			if real == nil {
				real = builtin()
			}
			_, err := policy.Compile(tt.cfg, real)
			if !errors.Is(err, policy.ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestOwnRoles shows WX-04: a role of the operator's own invention gives what asks for it, and an
// account with a role that nothing asks for has no rights by it and is told of.
func TestOwnRoles(t *testing.T) {
	table := compile(t, policy.Config{
		Roles:       map[string]string{"POST /calls": "scheduler", "ws:join": "door.keeper"},
		DefaultRole: "newcomer",
	})
	if table.DefaultRole() != "newcomer" {
		t.Errorf("default role %q", table.DefaultRole())
	}
	scheduler := set(table, "scheduler")
	if !table.Allows(scheduler, "POST /calls") || table.Allows(scheduler, "GET /calls") {
		t.Error("scheduler does not have exactly its route")
	}
	client := set(table, "client")
	if table.Allows(client, "POST /calls") || table.In(client, "join") || !table.In(client, "leave") {
		t.Error("client has what was given to another role")
	}
	if !table.In(set(table, "door.keeper"), "join") {
		t.Error("door.keeper cannot join")
	}
	_, unknown := table.Set([]string{"client", "recorder", "Scheduler", "newcomer", "admin"})
	if fmt.Sprint(unknown) != "[recorder Scheduler admin]" {
		t.Errorf("unknown %v", unknown)
	}
}

// TestDefaultRole shows WX-12: who registers without more gets a client's rights by default, less
// if so configured, and never those of operators.
func TestDefaultRole(t *testing.T) {
	if got := compile(t, policy.Config{}).DefaultRole(); got != policy.Client {
		t.Errorf("default role %q", got)
	}
	table := compile(t, policy.Config{DefaultRole: policy.Guest, ClientIncludes: []string{}})
	lowest := set(table, table.DefaultRole())
	for _, route := range table.Routes() {
		if table.Allows(lowest, route) && route != "GET /version" {
			t.Errorf("a newcomer is allowed %s", route)
		}
	}
	if table.Allows(set(table, "client"), "POST /calls") {
		t.Error("client has a role that it does not include")
	}
}

// TestIn shows WX-16: only messages that exist, that the list names whole, and that the role is
// enough for come in.
func TestIn(t *testing.T) {
	free := compile(t, policy.Config{})
	strict := compile(t, policy.Config{In: []policy.Rule{
		{TypeRE: "jo.n|le(ave)?"}, {Type: "rtc", Role: "speaker"}, {TypeRE: ".*", Role: "trusted"},
	}})
	tests := []struct {
		table *policy.Table
		roles string
		in    string // of all asked
	}{
		{free, "client", "join leave reconnect rtc moderate"},
		{free, "moderate", "moderate"},
		{free, "guest", ""},
		{strict, "client", "join leave"},
		{strict, "client speaker", "join leave rtc"},
		{strict, "client trusted", "join leave reconnect rtc moderate"},
		{strict, "trusted", ""},
	}
	asked := []string{
		"join", "leave", "reconnect", "rtc", "moderate", "", "vad", "hello", "close", "stats", "debug", "joinx", "xjoin",
		"join\x00", "\x00join", "join\n", "\njoin", "Join", "joi", "jo\xffn", "ws:join", strings.Repeat("join", 1<<16),
	}
	for _, tt := range tests {
		roles := set(tt.table, strings.Fields(tt.roles)...)
		var got []string
		for _, typ := range asked {
			if tt.table.In(roles, typ) {
				got = append(got, typ)
			}
		}
		if strings.Join(got, " ") != tt.in {
			t.Errorf("%q: %q come in, want %q", tt.roles, got, tt.in)
		}
	}
	if free.In(free.Admin(), "join") || free.In(policy.Roles{}, "join") {
		t.Error("the admin or nobody may join")
	}
}

// TestOut shows WX-17: only messages of the protocol go out, and of them those the list names.
func TestOut(t *testing.T) {
	free := compile(t, policy.Config{})
	strict := compile(t, policy.Config{Out: []policy.Rule{{TypeRE: "hello|rtc|close"}, {Type: "vad", Role: "listener"}}})
	for _, tt := range []struct {
		table *policy.Table
		roles string
		out   string
	}{
		{free, "client", "hello rtc close vad error stats"},
		{strict, "client", "hello rtc close"},
		{strict, "client listener", "hello rtc close vad"},
	} {
		roles := set(tt.table, strings.Fields(tt.roles)...)
		var got []string
		for _, typ := range []string{"hello", "rtc", "close", "vad", "error", "stats", "debug", "join", "", "close\x00", "closer"} {
			if tt.table.Out(roles, typ) {
				got = append(got, typ)
			}
		}
		if strings.Join(got, " ") != tt.out {
			t.Errorf("%q: %q go out, want %q", tt.roles, got, tt.out)
		}
	}
}

// TestNothingIsAllocated shows WX-16: a flood of blocked messages costs no memory.
func TestNothingIsAllocated(t *testing.T) {
	table := compile(t, policy.Config{
		In:  []policy.Rule{{TypeRE: "(jo|le|re).*"}, {TypeRE: "rtc", Role: "speaker"}},
		Out: []policy.Rule{{TypeRE: "h.*|r.*"}},
	})
	roles := set(table, "client", "speaker")
	long := strings.Repeat("x", 1<<20)
	if n := testing.AllocsPerRun(1000, func() {
		table.In(roles, "join")
		table.In(roles, "rtc")
		table.In(roles, long)
		table.In(roles, "vad")
		table.Out(roles, "rtc")
		table.Out(roles, "debug")
		table.Allows(roles, "POST /calls/{callID}/tokens")
		table.Allows(roles, "GET /nothing")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzCompile shows WX-22: whatever is configured and asked, nothing panics, nobody gets more than
// the admin, and nothing opens to guests.
func FuzzCompile(f *testing.F) {
	f.Add("GET /calls", "recorder", "client", "jo.n", "join", "x")
	f.Add("ws:join", "admin", "admin", "(", "vad", "client")
	f.Add("", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, route, role, def, re, typ, own string) {
		table, err := policy.Compile(policy.Config{
			Roles: map[string]string{route: role}, DefaultRole: def,
			In: []policy.Rule{{TypeRE: re, Role: own}}, Out: []policy.Rule{{TypeRE: re}},
		}, builtin())
		if err != nil {
			if !errors.Is(err, policy.ErrConfig) {
				t.Fatalf("error %v does not wrap ErrConfig", err)
			}
			return
		}
		roles, _ := table.Set([]string{role, def, own, typ})
		for _, r := range append(table.Routes(), typ, route) {
			if table.Allows(roles, r) && strings.Contains(r, "/admin/") {
				t.Fatalf("an account is allowed %s", r)
			}
			if table.Allows(table.Guest(), r) && r != "GET /version" {
				t.Fatalf("a guest is allowed %s", r)
			}
		}
		if _, known := table.Required("ws:" + typ); !known && table.In(roles, typ) {
			t.Fatalf("%q comes in", typ)
		}
		table.Out(roles, typ)
	})
}

func BenchmarkIn(b *testing.B) {
	table, err := policy.Compile(policy.Config{In: []policy.Rule{{Type: "join"}, {TypeRE: "r.*"}}}, builtin())
	if err != nil {
		b.Fatal(err)
	}
	roles, _ := table.Set([]string{"client"})
	types := []string{"join", "rtc", "vad", "joinx"}
	i := rand.IntN(len(types))
	b.ReportAllocs()
	for b.Loop() {
		table.In(roles, types[i&3])
		i++
	}
}
