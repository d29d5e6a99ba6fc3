package api_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/audit"
	"rtcd/service/metrics"
	"rtcd/service/policy"
)

// A world is a small server with everything there is, in memory.
type world struct {
	drain         api.DrainState
	drained       []api.DrainRequest
	status        api.StatusReport
	public, admin http.Handler

	auth    *fakeAuth
	policy  *policy.Table
	sockets *fakeSockets
	logs    *bytes.Buffer

	mu       sync.Mutex
	tenants  map[string]*api.Tenant
	calls    map[string][]api.CallInfo // by group
	did      []string                  // what was changed, in order
	events   []audit.Event
	queries  []auditQuery
	backups  []byte
	broken   error // of every part but auth
	late     bool  // broken only after the first byte of a backup
	auditErr error
	readyErr error
}

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	canary     = "canary-0123456789-0123456789-0123456789"
	auditorKey = "the-secret-key-of-the-auditor-0123456789"
)

// A rolesAuth is fakeAuth with roles of accounts, and an auditor.
type rolesAuth struct {
	*fakeAuth
	w *world
}

func (a rolesAuth) Authenticate(ctx context.Context, c api.Credentials) (api.Principal, error) {
	r := http.Request{Header: http.Header{"Authorization": {c.Authorization}}}
	if _, key, _ := r.BasicAuth(); key == auditorKey {
		return api.Principal{Auditor: true, Roles: a.w.policy.Auditor()}, nil
	}
	if c.Ticket != "" {
		if c.Ticket != "rtcdwt_id_secret" {
			return api.Principal{}, errors.New("authentication failed")
		}
		return api.Principal{ClientID: "c1", Roles: rolesOf(a.w.policy, policy.Client), Epoch: 7}, nil
	}
	p, err := a.fakeAuth.Authenticate(ctx, c)
	switch {
	case err != nil:
	case p.Admin:
		p.Roles = a.w.policy.Admin()
	default:
		a.w.mu.Lock()
		defer a.w.mu.Unlock()
		p.Roles, p.Epoch = rolesOf(a.w.policy, a.w.tenants[p.ClientID].Roles...), a.w.tenants[p.ClientID].Epoch
	}
	return p, err
}

type setup struct {
	cfg    api.Config
	admin  api.AdminConfig
	policy policy.Config
	bare   bool // only what the API cannot do without
}

func newWorld(tb testing.TB, s setup) *world {
	tb.Helper()
	w := &world{
		auth:    &fakeAuth{keys: map[string]string{"c1": key1, "c2": key2, "low": key2 + "low", "maker": key1 + "maker"}},
		sockets: &fakeSockets{},
		logs:    &bytes.Buffer{},
		tenants: map[string]*api.Tenant{
			"c1":    {ClientID: "c1", Roles: []string{"client"}, Created: now, Epoch: 1},
			"c2":    {ClientID: "c2", Roles: []string{"client"}, Created: now, Epoch: 1},
			"low":   {ClientID: "low", Created: now, Epoch: 1},
			"maker": {ClientID: "maker", Roles: []string{"calls.create"}, Created: now, Epoch: 1},
		},
		calls: map[string][]api.CallInfo{
			"c1": {
				{CallID: "a", Participants: 2, Publishers: 1, Subscribers: 1, Streams: []api.Stream{{ID: "v", Source: "voice", SessionID: "s1", Subscribers: 1}}},
				{CallID: "b/1", Participants: 1}, {CallID: "c"},
			},
			"c2": {{CallID: "z"}},
		},
		backups: []byte("the whole store"),
	}
	exposure := s.admin.Exposure
	exposure.SelfRegistration = s.cfg.AllowSelfRegistration
	var err error
	if w.policy, err = policy.Compile(s.policy, exposure.Builtin()); err != nil {
		tb.Fatal(err)
	}
	sessions := fakeCalls{"c1/a": {{GroupID: "c1", CallID: "a", UserID: "u", SessionID: "s1"}}}
	deps := api.Deps{
		Auth: rolesAuth{w.auth, w}, Remover: w, Calls: sessions, WebSockets: w.sockets, Policy: w.policy, Metrics: metrics.New(),
		Recorder: w, Log: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if !s.bare {
		deps.Tokens, deps.Tenants, deps.Overview, deps.Managed, deps.Moderator = w, w, w, w, w
		deps.Backup, deps.AuditLog, deps.Probes = w, w, w
		deps.Feed = newFeed(tb)
		deps.Drainer, deps.Status, deps.Reports = w, w, fakeReports{}
		deps.Ready = func() error { return w.readyErr }
	}
	w.public = api.New(s.cfg, deps)
	s.admin.Exposure = exposure
	w.admin = api.NewAdmin(s.admin, deps)
	return w
}

// ask sends a request to the listener that has its path.
func (w *world) ask(method, path, body string, c *creds, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4711"
	h := w.public
	if strings.HasPrefix(path, "/admin") || strings.HasPrefix(path, "/debug") {
		h = w.admin
		r.Host = "localhost:8046"
	}
	if c != nil {
		r.SetBasicAuth(c.id, c.key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return w.send(h, r)
}

func (w *world) send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func (w *world) note(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	w.did = append(w.did, fmt.Sprintf(format, args...))
	return nil
}

var errNotFound = api.Refuse(404, "not_found", errors.New("no such thing here"))

func (w *world) find(id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tenants[id] == nil {
		return errNotFound
	}
	return nil
}

// Tokens.

func (w *world) Refresh(_ context.Context, token string) (string, time.Time, error) {
	if token != "token-of-c1" {
		return "", time.Time{}, errors.New("authentication failed: token is invalid")
	}
	return canary, now, w.note("refresh")
}

func (w *world) Ticket(_ context.Context, p api.Principal, from api.Credentials) (string, time.Time, error) {
	return canary, now, w.note("ticket %s %s", p.ClientID, from.Remote)
}

// Tenants.

func (w *world) Remove(_ context.Context, id string) error {
	if w.find(id) != nil {
		return api.Refuse(404, "not_found", errors.New("unregister failed: error: not found"))
	}
	return w.note("remove %s", id)
}

func (w *world) Rotate(_ context.Context, id, key string, epoch uint64, grace time.Duration) error {
	if err := w.find(id); err != nil {
		return err
	}
	if len(key) < 32 {
		return errors.New("short key reached the tenants")
	}
	if epoch != 0 {
		return w.note("rotate %s %s from %d", id, grace, epoch)
	}
	return w.note("rotate %s %s", id, grace)
}

func (w *world) Revoke(_ context.Context, id string) error {
	if err := w.find(id); err != nil {
		return err
	}
	return w.note("revoke %s", id)
}

func (w *world) SetRoles(_ context.Context, id string, roles []string) error {
	if err := w.find(id); err != nil {
		return err
	}
	names := strings.Join(roles, "+")
	if roles == nil {
		names = "default"
	}
	if err := w.note("roles %s %s", id, names); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tenants[id].Roles = roles
	return nil
}

func (w *world) Add(_ context.Context, id, _ string, roles []string) error {
	if w.find(id) == nil {
		return api.Refuse(409, "already_registered", errors.New("already registered"))
	}
	return w.note("add %s %v", id, roles)
}

func (w *world) List(_ context.Context, after string, limit int) ([]api.Tenant, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []api.Tenant
	for _, t := range w.tenants {
		if t.ClientID > after {
			out = append(out, *t)
		}
	}
	slices.SortFunc(out, func(a, b api.Tenant) int { return cmp.Compare(a.ClientID, b.ClientID) })
	return out[:min(limit, len(out))], w.broken
}

func (w *world) Tenant(_ context.Context, id string) (api.Tenant, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.tenants[id]; t != nil {
		return *t, true, w.broken
	}
	return api.Tenant{}, false, w.broken
}

// Calls.

func (w *world) Calls(group, after string, limit int) []api.CallInfo {
	var out []api.CallInfo
	for _, c := range w.calls[group] {
		if c.CallID > after && len(out) < limit {
			c.Streams = nil
			out = append(out, c)
		}
	}
	return out
}

func (w *world) Call(group, call string) (api.CallInfo, bool) {
	for _, c := range w.calls[group] {
		if c.CallID == call {
			return c, true
		}
	}
	return api.CallInfo{}, false
}

func (w *world) known(group, call string) error {
	if _, ok := w.Call(group, call); !ok {
		return errNotFound
	}
	return nil
}

func (w *world) Create(_ context.Context, group string, o api.CallOptions) (string, error) {
	return "made", w.note("create %s %+v", group, o)
}

func (w *world) End(group, call string) error {
	if err := w.known(group, call); err != nil {
		return err
	}
	return w.note("end %s %s", group, call)
}

func (w *world) Token(_ context.Context, group, call string, r api.TokenRequest) (api.Token, error) {
	if err := w.known(group, call); err != nil {
		return api.Token{}, err
	}
	return api.Token{Token: canary, ID: "id", ExpiresAt: now}, w.note("token %s %s %+v", group, call, r)
}

func (w *world) Moderate(group, call string, m api.Moderation) error {
	if err := w.known(group, call); err != nil {
		return err
	}
	if m.SessionID == "nobody" {
		return api.Refuse(404, "not_found", errors.New("no such session"))
	}
	return w.note("moderate %s %s %+v", group, call, m)
}

// Audit and backup.

func (w *world) Record(e audit.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *world) Ready() error { return w.auditErr }

type auditQuery struct {
	filter  audit.Filter
	outcome int // -1: any
	cursor  string
	limit   int
}

func (w *world) Query(_ context.Context, f audit.Filter, cursor string, limit int) (audit.Page, error) {
	q := auditQuery{f, -1, cursor, limit}
	if f.Outcome != nil {
		q.outcome, q.filter.Outcome = int(*f.Outcome), nil
	}
	w.queries = append(w.queries, q)
	if cursor == "bad" {
		return audit.Page{}, fmt.Errorf("page: %w", audit.ErrCursor)
	}
	return audit.Page{Events: []audit.Event{{Seq: 1, Time: now, Type: "x"}}, Next: "cursor", More: true}, w.broken
}

func (w *world) Backup(_ context.Context, out io.Writer) error {
	if w.broken != nil && !w.late {
		return w.broken
	}
	if _, err := out.Write(w.backups); err != nil {
		return err
	}
	return w.broken
}

// reason returns the reason in an answer, and fails unless it has the form of a refusal.
func reason(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var answer map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer["error"] == "" || answer["code"] != fmt.Sprint(rec.Code) {
		t.Fatalf("status %d, body %q is no refusal: %v", rec.Code, rec.Body, err)
	}
	return answer["reason"]
}
