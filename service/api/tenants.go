package api

import (
	"net/http"
	"time"

	"rtcd/service/policy"
)

// maxAccountRoles bounds the roles of one account.
const maxAccountRoles = 16

// listTenants serves GET /admin/clients.
func (x *exchange) listTenants() {
	after, limit, ok := x.page(validClientID)
	if !ok {
		return
	}
	tenants, err := x.h.Tenants.List(x.r.Context(), after, limit+1)
	if err != nil {
		x.fail(err)
		return
	}
	next := ""
	if len(tenants) > limit {
		tenants = tenants[:limit]
		next = tenants[limit-1].ClientID
	}
	if tenants == nil {
		tenants = []Tenant{}
	}
	for i := range tenants {
		if tenants[i].Roles == nil {
			tenants[i].Roles = []string{}
		}
	}
	x.write(http.StatusOK, struct {
		Clients []Tenant `json:"clients"`
		Next    string   `json:"next,omitempty"`
	}{tenants, next})
}

// tenantID returns the id in the path. One that no client can have is not found.
func (x *exchange) tenantID() (string, bool) {
	id := x.vars["clientID"]
	if !validClientID(id) {
		x.refuse(noCall)
		return "", false
	}
	return id, true
}

// readTenant serves GET /admin/clients/{clientID}.
func (x *exchange) readTenant() {
	id, ok := x.tenantID()
	if !ok {
		return
	}
	t, found, err := x.h.Tenants.Tenant(x.r.Context(), id)
	switch {
	case err != nil:
		x.fail(err)
		return
	case !found:
		x.refuse(noCall)
		return
	}
	if t.Roles == nil {
		t.Roles = []string{}
	}
	x.write(http.StatusOK, t)
}

// rolesField is the roles of an account. Those of operators are told apart: see reserved.
func rolesField(into *[]string) field {
	return listField("roles", into, maxAccountRoles, "roles", policy.ValidRole)
}

// reserved refuses roles of operators, which no account ever has.
func (x *exchange) reserved(roles []string) bool {
	for _, r := range roles {
		if policy.Reserved(r) {
			x.refuse(problem{http.StatusForbidden, reasonReserved, "role " + r + " belongs to operators"})
			return true
		}
	}
	return false
}

// rolesDone answers with what in roles gives no right at all, which is likely a typing error.
func (x *exchange) rolesDone(status int, answer map[string]any, roles []string) {
	if _, unknown := x.h.policy.Set(roles); len(unknown) > 0 {
		answer["unknownRoles"] = unknown
		x.h.log.Warn("nothing asks for these roles", "clientID", answer["clientID"], "roles", unknown)
	}
	x.write(status, answer)
}

// addTenant serves POST /admin/clients.
func (x *exchange) addTenant() {
	var id, key string
	var roles []string
	if !x.decode(
		textField("clientID", &id, "an id of 1 to 64 bytes without control characters", validClientID).must(),
		keyField(&key).must(), rolesField(&roles),
	) {
		return
	}
	x.object = clientObject(id)
	if x.reserved(roles) {
		return
	}
	if err := x.h.Tenants.Add(x.r.Context(), id, key, roles); err != nil {
		x.fail(err)
		return
	}
	x.rolesDone(http.StatusCreated, map[string]any{"code": "201", "clientID": id}, roles)
	x.h.log.Info("client added", "clientID", id, "roles", roles)
}

// setRoles serves PUT /admin/clients/{clientID}/roles.
func (x *exchange) setRoles() {
	id, ok := x.tenantID()
	if !ok {
		return
	}
	var roles []string
	list := rolesField(&roles)
	orNull := field{name: list.name, required: true, set: func(v any) *problem {
		if v == nil { // the default role
			return nil
		}
		return list.set(v)
	}}
	if !x.decode(orNull) || x.reserved(roles) {
		return
	}
	if err := x.h.Tenants.SetRoles(x.r.Context(), id, roles); err != nil {
		x.fail(err)
		return
	}
	x.rolesDone(http.StatusOK, map[string]any{"code": "200", "clientID": id}, roles)
	x.h.log.Info("roles of client changed", "clientID", id, "roles", roles)
}

// rotateTenant serves POST /admin/clients/{clientID}/rotate.
func (x *exchange) rotateTenant() {
	if id, ok := x.tenantID(); ok {
		x.rotate(id, 0)
	}
}

// revokeTenant serves POST /admin/clients/{clientID}/revoke.
func (x *exchange) revokeTenant() {
	id, ok := x.tenantID()
	if !ok || !x.decode() {
		return
	}
	if err := x.h.Tenants.Revoke(x.r.Context(), id); err != nil {
		x.fail(err)
		return
	}
	x.done()
	x.h.log.Info("client revoked", "clientID", id)
}

// removeTenant serves DELETE /admin/clients/{clientID}.
func (x *exchange) removeTenant() {
	id, ok := x.tenantID()
	if !ok {
		return
	}
	if err := x.h.Tenants.Remove(x.r.Context(), id); err != nil {
		x.fail(err)
		return
	}
	x.done()
	x.h.log.Info("client removed", "clientID", id)
}

// backup serves POST /admin/store/backup: the copy is sent as it is made. If it cannot be
// finished, the connection breaks off, so that nobody takes a part for the whole.
func (x *exchange) backup() {
	if !x.decode() {
		return
	}
	x.secret()
	s := &streamed{x: x, control: http.NewResponseController(x.w.ResponseWriter)}
	err := x.h.Backup.Backup(x.r.Context(), s)
	switch {
	case err == nil && !s.began:
		s.begin()
	case err == nil:
	case !s.began:
		x.fail(err)
	default:
		x.h.log.Error("backup broke off", "err", err)
		x.reason = reasonInternal
		panic(http.ErrAbortHandler)
	}
}

// A streamed answer takes as long as it takes, as long as the peer takes what it is sent.
type streamed struct {
	x       *exchange
	control *http.ResponseController
	began   bool
}

// stallTime is how long a peer may take none of an answer.
const stallTime = time.Minute

func (s *streamed) begin() {
	s.began = true
	s.x.w.Header().Set("Content-Type", "application/octet-stream")
	s.x.w.WriteHeader(http.StatusOK)
}

// Write implements io.Writer.
func (s *streamed) Write(p []byte) (int, error) {
	if !s.began {
		s.begin()
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(stallTime)) // without deadlines there is none to move
	return s.x.w.Write(p)
}
