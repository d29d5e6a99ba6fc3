package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"rtcd/service/access"
	"rtcd/service/api"
	"rtcd/service/api/ws"
	"rtcd/service/auth"
	"rtcd/service/feed"
	"rtcd/service/metrics"
	"rtcd/service/policy"
	"rtcd/service/store"
)

// tenants changes accounts: what a method does has taken effect on credentials, tokens, connections
// and sessions when it returns. It is api.Tenants.
type tenants struct {
	auth    *auth.Service
	store   *store.Store
	access  *access.Service
	ws      *ws.Server
	calls   *fleet
	policy  *policy.Table
	feed    *feed.Feed
	reports *reports // nil without them
	metrics *metrics.Metrics
	log     *slog.Logger
	refusal func(error) error // of authenticator
	later   *later

	roleMu sync.Mutex // held while roles change, so that connections get those that are stored

	mu     sync.Mutex
	graces map[string]int // times of grace that have not ended, by client
}

// maxGraces bounds how many times of grace of one client go on: each is remembered for up to a day.
const maxGraces = 8

// limitGraces counts rotations that asked for one more.
const limitGraces metrics.Limit = "graces_per_client"

var errGraces = errors.New("too many times of grace go on: rotate without one")

// Rotate replaces a client's key. The former key, its bearer token, its tickets and join tokens are
// dead at once; what they had opened goes on for the time of grace, or ends now if there is none. After
// the grace the connections end, and the sessions unless the client has connected with the new key. Who
// asks for it with credentials of an epoch gets it in that epoch alone; 0 is any.
func (t *tenants) Rotate(ctx context.Context, id, key string, from uint64, grace time.Duration) error {
	if grace > 0 && !t.beginGrace(id) {
		t.metrics.LimitHit(limitGraces)
		return api.Refuse(http.StatusTooManyRequests, "limit_"+string(limitGraces), errGraces)
	}
	epoch, err := t.auth.RotateFrom(ctx, id, key, from)
	if err != nil {
		if grace > 0 {
			t.endGrace(id)
		}
		return t.refuse(err)
	}
	t.access.DropTokens(id)
	if grace <= 0 {
		t.cut(id, epoch)
		return nil
	}
	// Sessions go on after the grace, too, for a backend that has come back with the new key. If none
	// has, they may be those of whoever else knows the old one.
	t.later.after(grace, func() {
		defer t.endGrace(id)
		if !t.ws.CutBefore(id, epoch) {
			t.calls.EndGroup(id)
		}
	})
	return nil
}

// beginGrace notes a time of grace, if the client may have one more.
func (t *tenants) beginGrace(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.graces[id] >= maxGraces {
		return false
	}
	if t.graces == nil {
		t.graces = make(map[string]int)
	}
	t.graces[id]++
	return true
}

func (t *tenants) endGrace(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.graces[id]--; t.graces[id] <= 0 {
		delete(t.graces, id)
	}
}

// Revoke leaves a client without a key and ends all it has.
func (t *tenants) Revoke(ctx context.Context, id string) error {
	epoch, err := t.auth.Revoke(ctx, id)
	if err != nil {
		return t.refuse(err)
	}
	t.access.DropTokens(id)
	t.cut(id, epoch)
	return nil
}

// cut ends what credentials of an earlier epoch have opened.
func (t *tenants) cut(id string, epoch uint64) {
	t.ws.CutBefore(id, epoch)
	t.calls.EndGroup(id)
}

// SetRoles gives a client other roles, its open connections included.
func (t *tenants) SetRoles(ctx context.Context, id string, roles []string) error {
	t.roleMu.Lock()
	defer t.roleMu.Unlock()
	if err := t.auth.SetRoles(ctx, id, roles); err != nil {
		return t.refuse(err)
	}
	t.ws.SetRoles(id, t.roles(id, roles))
	return nil
}

// roles returns the rights of roles, nil being the default one, and warns of roles that give none.
func (t *tenants) roles(id string, names []string) policy.Roles {
	set, unknown := t.policy.Set(rolesOf(names, t.policy.DefaultRole()))
	if len(unknown) > 0 {
		t.log.Warn("client has roles that no route or message asks for", "clientID", id, "roles", unknown)
	}
	return set
}

// Remove removes a client and all it has.
func (t *tenants) Remove(ctx context.Context, id string) error {
	if err := t.auth.Unregister(ctx, id); err != nil {
		return t.refuse(err)
	}
	t.ws.DropClient(id)
	t.access.DropGroup(id)
	t.calls.EndGroup(id)
	t.forget(id)
	t.metrics.Forget(id)
	return nil
}

// Add adds a client.
func (t *tenants) Add(ctx context.Context, id, key string, roles []string) error {
	if err := t.auth.Add(ctx, id, key, roles); err != nil {
		return t.refuse(err)
	}
	t.roles(id, roles) // for its warning
	return nil
}

// List returns clients by id.
func (t *tenants) List(_ context.Context, after string, limit int) ([]api.Tenant, error) {
	list, err := t.store.List(after, limit)
	if err != nil {
		return nil, t.fault(err)
	}
	return tenantsOf(list, t.policy.DefaultRole()), nil
}

// Tenant returns one client and reports whether there is one.
func (t *tenants) Tenant(_ context.Context, id string) (api.Tenant, bool, error) {
	c, err := t.store.Get(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return api.Tenant{}, false, nil
	case err != nil:
		return api.Tenant{}, false, t.fault(err)
	}
	return tenantOf(c, t.policy.DefaultRole()), true, nil
}

// tenantsOf shows clients to operators; see tenantOf.
func tenantsOf(list []store.Client, defaultRole string) []api.Tenant {
	out := make([]api.Tenant, len(list))
	for i, c := range list {
		out[i] = tenantOf(c, defaultRole)
	}
	return out
}

// tenantOf shows a client to operators, with the roles that it has.
func tenantOf(c store.Client, defaultRole string) api.Tenant {
	return api.Tenant{
		ClientID: c.ID, Roles: rolesOf(c.Roles, defaultRole), Created: c.Created, Epoch: c.Epoch, Revoked: c.Revoked,
	}
}

// rolesOf returns the roles of an account: the default one if nobody gave it any.
func rolesOf(roles []string, defaultRole string) []string {
	if roles == nil {
		return []string{defaultRole}
	}
	return roles
}

// refuse gives an error of package auth what the API looks for.
func (t *tenants) refuse(err error) error {
	for _, r := range []struct {
		of     error
		status int
		reason string
	}{
		{auth.ErrAuthentication, http.StatusUnauthorized, "unauthorized"},
		{auth.ErrUnknownClient, http.StatusNotFound, "not_found"},
		{auth.ErrAlreadyRegistered, http.StatusConflict, "already_registered"},
		{auth.ErrKeyShort, http.StatusBadRequest, "key_short"},
		{auth.ErrKeyLong, http.StatusBadRequest, "key_long"},
		{auth.ErrIDEmpty, http.StatusBadRequest, "id_invalid"},
		{auth.ErrIDLong, http.StatusBadRequest, "id_invalid"},
		{auth.ErrIDInvalid, http.StatusBadRequest, "id_invalid"},
		{auth.ErrIDMissing, http.StatusBadRequest, "id_invalid"},
	} {
		if errors.Is(err, r.of) {
			return api.Refuse(r.status, r.reason, err)
		}
	}
	return t.refusal(err)
}

func (t *tenants) fault(err error) error { return t.refusal(keyStore{t.store, t.log}.fault(err)) }
