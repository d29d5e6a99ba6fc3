package api

import (
	"net/http"
	"net/url"
	"strings"

	"rtcd/service/audit"
	"rtcd/service/policy"
)

// A plane is a listener that routes belong to.
type plane uint8

const (
	public plane = 1 << iota
	admin
)

// A form is how a route words a refusal.
type form uint8

const (
	restForm form = iota // {"error","code","reason"}
	flatForm             // {"error","code"}: /register, /login, /unregister
	textForm             // text: /calls/{callID}/sessions, /ws, metrics and profiles
)

// A route is one line of the table of all that can be asked for. There is no other way to a
// handler: what the policy has no role for is refused, and every request makes one event.
type route struct {
	planes  plane
	method  string
	pattern string // {name} stands for one escaped segment, a slash at the end for whatever follows
	role    string // built-in; Exposure may say otherwise
	event   string
	action  audit.Action
	serve   func(*exchange)

	line      string // name of the debug line of each request, if it has one
	form      form
	anyMethod bool                 // and not only method
	client    bool                 // operators have no such thing: they are not authorized
	exact     bool                 // a slash at the end stands for nothing but itself
	keyInBody bool                 // the body carries a key, to be kept from plaintext
	ticket    bool                 // takes tickets
	gate      func(*exchange) bool // before credentials are looked at
	has       func(*handler) bool  // whether what the route stands on is there
}

// key is the name of a route in the policy.
func (r *route) key() string {
	if r == nil {
		return "none"
	}
	return r.method + " " + r.pattern
}

const (
	get  = http.MethodGet
	post = http.MethodPost
	put  = http.MethodPut
	del  = http.MethodDelete
)

// routes are all there are.
var routes = []route{
	{planes: public, method: get, pattern: "/version", role: policy.Guest, event: "server.version", action: audit.Read, serve: (*exchange).version},
	{planes: public, method: get, pattern: "/system", role: policy.Guest, event: "server.load", action: audit.Read, serve: (*exchange).system},
	{planes: public | admin, method: get, pattern: "/healthz", role: policy.Guest, event: "server.health", action: audit.Read, serve: (*exchange).healthy},
	{planes: public | admin, method: get, pattern: "/ready", role: policy.Guest, event: "server.ready", action: audit.Read, serve: (*exchange).ready, has: hasReady},

	{planes: public, method: post, pattern: "/register", role: policy.Admin, event: "client.register", action: audit.Create, serve: (*exchange).register, line: "registerClient", form: flatForm, keyInBody: true},
	{planes: public, method: post, pattern: "/login", role: policy.Guest, event: "client.login", action: audit.Execute, serve: (*exchange).login, line: "loginClient", form: flatForm, keyInBody: true},
	{planes: public, method: post, pattern: "/unregister", role: policy.Client, event: "client.unregister", action: audit.Delete, serve: (*exchange).unregister, line: "unregisterClient", form: flatForm, gate: mayUnregister, has: hasRemover},
	{planes: public, method: put, pattern: "/clients/self/key", role: policy.Client, event: "client.rotate", action: audit.Update, serve: (*exchange).rotateSelf, client: true, keyInBody: true, has: hasTenants},
	{planes: public, method: post, pattern: "/token/refresh", role: policy.Client, event: "token.refresh", action: audit.Update, serve: (*exchange).refresh, client: true, has: hasTokens},

	{planes: public, method: get, pattern: "/calls", role: policy.Client, event: "call.list", action: audit.Read, serve: (*exchange).listCalls, client: true, has: hasOverview},
	{planes: public, method: post, pattern: "/calls", role: policy.CreateCalls, event: "call.create", action: audit.Create, serve: (*exchange).createCall, client: true, has: hasManaged},
	{planes: public, method: get, pattern: "/calls/{callID}", role: policy.Client, event: "call.read", action: audit.Read, serve: (*exchange).readCall, client: true, has: hasOverview},
	{planes: public, method: del, pattern: "/calls/{callID}", role: policy.CreateCalls, event: "call.end", action: audit.Delete, serve: (*exchange).endCall, client: true, has: hasManaged},
	{planes: public, method: get, pattern: "/calls/{callID}/report", role: policy.Client, event: "call.report", action: audit.Read, serve: (*exchange).readReport, client: true, has: hasReports},
	{planes: public, method: post, pattern: "/calls/{callID}/tokens", role: policy.CreateTokens, event: "token.mint", action: audit.Create, serve: (*exchange).mintToken, client: true, has: hasManaged},
	{planes: public, method: get, pattern: "/calls/{callID}/sessions", role: policy.Client, event: "session.list", action: audit.Read, serve: (*exchange).listSessions, form: textForm, client: true},
	{planes: public, method: get, pattern: "/calls/{callID}/sessions/{sessionID}", role: policy.Client, event: "session.read", action: audit.Read, serve: (*exchange).readSession, form: textForm, client: true},
	{planes: public, method: del, pattern: "/calls/{callID}/sessions/{sessionID}", role: policy.Moderate, event: "session.disconnect", action: audit.Execute, serve: (*exchange).disconnect, client: true, has: hasModerator},
	{planes: public, method: post, pattern: "/calls/{callID}/moderate", role: policy.Moderate, event: "call.moderate", action: audit.Execute, serve: (*exchange).moderate, client: true, has: hasModerator},

	{planes: public, method: get, pattern: "/events", role: policy.Client, event: "events.read", action: audit.Read, serve: (*exchange).readEvents, client: true, has: hasFeed},

	{planes: public, method: post, pattern: "/ws/tickets", role: policy.Client, event: "ticket.mint", action: audit.Create, serve: (*exchange).mintTicket, client: true, has: hasTokens},
	{planes: public, method: get, pattern: "/ws", role: policy.Client, event: "ws.open", action: audit.Execute, serve: (*exchange).webSocket, form: textForm, client: true, ticket: true},

	{planes: public, method: get, pattern: "/probe", role: policy.Guest, event: "probe.page", action: audit.Read, serve: (*exchange).probePage, has: hasProbes},
	{planes: public, method: post, pattern: "/probe", role: policy.Guest, event: "probe.offer", action: audit.Execute, serve: (*exchange).offerProbe, has: hasProbes},
	{planes: public, method: post, pattern: "/probe/result", role: policy.Guest, event: "probe.report", action: audit.Execute, serve: (*exchange).reportProbe, has: hasProbes},
	{planes: public, method: post, pattern: "/probes", role: policy.Client, event: "probe.invite", action: audit.Create, serve: (*exchange).invite, client: true, has: hasProbes},

	{planes: public, method: get, pattern: "/metrics", role: policy.Guest, event: "metrics.read", action: audit.Read, serve: (*exchange).metrics, form: textForm, anyMethod: true, has: hasPublicMetrics},
	{planes: admin, method: get, pattern: "/metrics", role: policy.Guest, event: "metrics.read", action: audit.Read, serve: (*exchange).metrics, form: textForm, anyMethod: true},
	{planes: admin, method: get, pattern: "/debug/pprof/", role: policy.Guest, event: "profile.read", action: audit.Read, serve: (*exchange).profile, form: textForm, anyMethod: true},

	{planes: admin, method: get, pattern: "/admin/clients", role: policy.Admin, event: "client.list", action: audit.Read, serve: (*exchange).listTenants, has: hasTenants},
	{planes: admin, method: post, pattern: "/admin/clients", role: policy.Admin, event: "client.add", action: audit.Create, serve: (*exchange).addTenant, keyInBody: true, has: hasTenants},
	{planes: admin, method: get, pattern: "/admin/clients/{clientID}", role: policy.Admin, event: "client.get", action: audit.Read, serve: (*exchange).readTenant, has: hasTenants},
	{planes: admin, method: del, pattern: "/admin/clients/{clientID}", role: policy.Admin, event: "client.remove", action: audit.Delete, serve: (*exchange).removeTenant, has: hasTenants},
	{planes: admin, method: put, pattern: "/admin/clients/{clientID}/roles", role: policy.Admin, event: "client.roles", action: audit.Update, serve: (*exchange).setRoles, has: hasTenants},
	{planes: admin, method: post, pattern: "/admin/clients/{clientID}/rotate", role: policy.Admin, event: "client.rotate", action: audit.Update, serve: (*exchange).rotateTenant, keyInBody: true, has: hasTenants},
	{planes: admin, method: post, pattern: "/admin/clients/{clientID}/revoke", role: policy.Admin, event: "client.revoke", action: audit.Update, serve: (*exchange).revokeTenant, has: hasTenants},
	{planes: admin, method: get, pattern: "/admin/calls/{clientID}/{callID}/report", role: policy.Admin, event: "call.report", action: audit.Read, serve: (*exchange).readReportOf, has: hasReports},
	{planes: admin, method: post, pattern: "/admin/probes", role: policy.Admin, event: "probe.invite", action: audit.Create, serve: (*exchange).invite, has: hasProbes},
	{planes: admin, method: get, pattern: "/admin/probes", role: policy.Admin, event: "probe.list", action: audit.Read, serve: (*exchange).listProbes, has: hasProbes},
	{planes: admin, method: get, pattern: "/admin/audit", role: policy.Auditor, event: "audit.read", action: audit.Read, serve: (*exchange).readAudit, has: hasAuditLog},
	{planes: admin, method: get, pattern: "/admin/", exact: true, role: policy.Guest, event: "status.page", action: audit.Read, serve: (*exchange).showStatus, form: textForm, has: hasStatus},
	{planes: admin, method: get, pattern: "/admin/status", role: policy.Guest, event: "status.read", action: audit.Read, serve: (*exchange).readStatus, has: hasStatus},
	{planes: admin, method: get, pattern: "/admin/drain", role: policy.Admin, event: "drain.read", action: audit.Read, serve: (*exchange).readDrain, has: hasDrainer},
	{planes: admin, method: post, pattern: "/admin/drain", role: policy.Admin, event: "drain.start", action: audit.Execute, serve: (*exchange).startDrain, has: hasDrainer},
	{planes: admin, method: del, pattern: "/admin/drain", role: policy.Admin, event: "drain.end", action: audit.Execute, serve: (*exchange).endDrain, has: hasDrainer},
	{planes: admin, method: post, pattern: "/admin/store/backup", role: policy.Admin, event: "store.backup", action: audit.Read, serve: (*exchange).backup, has: hasBackup},
}

func hasReady(h *handler) bool         { return h.Ready != nil }
func hasRemover(h *handler) bool       { return h.Remover != nil }
func hasTenants(h *handler) bool       { return h.Tenants != nil }
func hasTokens(h *handler) bool        { return h.Tokens != nil }
func hasOverview(h *handler) bool      { return h.Overview != nil }
func hasManaged(h *handler) bool       { return h.Managed != nil }
func hasModerator(h *handler) bool     { return h.Moderator != nil }
func hasAuditLog(h *handler) bool      { return h.AuditLog != nil }
func hasFeed(h *handler) bool          { return h.Feed != nil }
func hasReports(h *handler) bool       { return h.Reports != nil }
func hasBackup(h *handler) bool        { return h.Backup != nil }
func hasPublicMetrics(h *handler) bool { return !h.cfg.Production }

// messages are the WebSocket messages of a client, with their built-in roles.
var messages = map[string]string{
	"ws:join": policy.Client, "ws:leave": policy.Client, "ws:reconnect": policy.Client, "ws:rtc": policy.Client,
	"ws:moderate": policy.Moderate,
}

// An Exposure says what is open to whom by the configuration of the server.
type Exposure struct {
	SelfRegistration bool // anybody may register
	GuardDebug       bool // metrics and profiles need the admin's credentials
	GuardStatus      bool // so does the status page, which names calls and sessions
}

// Builtin returns every route and message there is, for policy.Compile, with its built-in role.
func (e Exposure) Builtin() map[string]string {
	out := make(map[string]string, len(routes)+len(messages))
	for key, role := range messages {
		out[key] = role
	}
	for i := range routes {
		out[routes[i].key()] = routes[i].role
	}
	if e.SelfRegistration {
		out["POST /register"] = policy.Guest
	}
	if e.GuardStatus {
		out["GET /admin/"], out["GET /admin/status"] = policy.Admin, policy.Admin
	}
	if e.GuardDebug {
		out["GET /metrics"], out["GET /debug/pprof/"] = policy.Admin, policy.Admin
	}
	return out
}

// routesOf returns the routes of a plane that h can serve.
func routesOf(p plane, h *handler) []*route {
	var out []*route
	for i := range routes {
		if r := &routes[i]; r.planes&p != 0 && (r.has == nil || r.has(h)) {
			out = append(out, r)
		}
	}
	return out
}

// match finds the route of a request, and what stands for the names in its pattern. A path is
// taken as it is: there are no redirects. An id may hold escaped slashes, and is not empty.
func (h *handler) match(r *http.Request) (*route, map[string]string) {
	path := r.URL.EscapedPath()
	for _, candidate := range h.routes {
		if r.Method != candidate.method && !candidate.anyMethod {
			continue
		}
		if vars, ok := matchPattern(candidate.pattern, path); ok && (!candidate.exact || path == candidate.pattern) {
			return candidate, vars
		}
	}
	return nil, nil
}

func matchPattern(pattern, path string) (vars map[string]string, ok bool) {
	if strings.HasSuffix(pattern, "/") {
		return nil, strings.HasPrefix(path, pattern)
	}
	for {
		var want, got string
		var more, left bool
		want, pattern, more = strings.Cut(pattern, "/")
		got, path, left = strings.Cut(path, "/")
		if more != left {
			return nil, false
		}
		segment, err := url.PathUnescape(got)
		if err != nil {
			return nil, false
		}
		if name, isVar := strings.CutPrefix(want, "{"); isVar {
			if segment == "" {
				return nil, false
			}
			if vars == nil {
				vars = make(map[string]string, 2)
			}
			vars[strings.TrimSuffix(name, "}")] = segment
		} else if want != segment {
			return nil, false
		}
		if !more {
			return vars, true
		}
	}
}
