package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// maxGrace bounds how long what an old key has opened may go on.
const maxGrace = 24 * time.Hour

// register serves /register.
func (x *exchange) register() {
	self := !x.p.Admin && x.p.ClientID == ""
	if self && len(x.h.cfg.RegistrationNets) > 0 && !within(x.h.cfg.RegistrationNets, x.from) {
		x.refuse(problem{http.StatusForbidden, reasonForbidden, "registration is not open to this address"})
		return
	}
	body, ok := x.stringsBody()
	if !ok {
		return
	}
	id := body["clientID"]
	x.object = clientObject(id)
	if _, ok := body["roles"]; ok {
		x.reason = "roles_ignored"
	}
	if self && !sameSecret(body["registrationToken"], x.h.cfg.RegistrationToken) {
		x.refuse(problem{http.StatusUnauthorized, reasonUnauthorized, "registration failed: unauthorized"})
		return
	}
	if err := x.h.Auth.Register(x.r.Context(), id, body["authKey"]); err != nil {
		x.refuse(x.established(err, http.StatusBadRequest))
		return
	}
	x.write(http.StatusCreated, map[string]string{"clientID": id, "code": "201"})
	x.h.perID.Info("client registered", "clientID", id)
}

// sameSecret compares in a time that tells nothing. No secret is the same as anything.
func sameSecret(got, want string) bool {
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	return want == "" || subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// login serves /login.
func (x *exchange) login() {
	body, ok := x.stringsBody()
	if !ok {
		return
	}
	id := body["clientID"]
	x.object = clientObject(id)
	from := Credentials{Remote: x.from, Certificate: certificateOf(x.r)}
	token, err := x.h.Auth.Login(x.r.Context(), id, body["authKey"], from)
	if err != nil {
		x.h.quiet.Warn("failed authentication", "remoteAddr", x.r.RemoteAddr, "clientID", clip(id, lineTextBytes), "err", err)
		x.refuse(x.established(err, http.StatusBadRequest))
		return
	}
	x.p.ClientID = id // who has shown the key
	x.secret()
	x.write(http.StatusOK, map[string]string{"bearerToken": token, "code": "200"})
	x.h.perID.Info("client logged in", "clientID", id)
}

// mayUnregister is the gate of /unregister.
func mayUnregister(x *exchange) bool {
	if x.h.cfg.EnableAdmin || x.h.cfg.AllowSelfRegistration {
		return true
	}
	x.refuse(problem{http.StatusForbidden, reasonForbidden, "unregister not enabled"})
	return false
}

// unregister serves /unregister.
func (x *exchange) unregister() {
	body, ok := x.stringsBody()
	if !ok {
		return
	}
	id := body["clientID"]
	x.object = clientObject(id)
	switch {
	case id == "":
		x.refuse(problem{http.StatusBadRequest, reasonMissing, "client id should not be empty"})
		return
	case !x.p.Admin && x.p.ClientID != id:
		x.refuse(problem{http.StatusForbidden, reasonForbidden, "client id not valid"})
		return
	}
	if err := x.h.Remover.Remove(x.r.Context(), id); err != nil {
		x.refuse(x.established(err, http.StatusBadRequest))
		return
	}
	x.done()
	x.h.perID.Info("client unregistered", "clientID", id)
}

// rotateSelf serves PUT /clients/self/key.
func (x *exchange) rotateSelf() { x.rotate(x.p.ClientID, x.p.Epoch) }

// rotate replaces the key of a client by what the body says, in that epoch or, if it is 0, in any.
func (x *exchange) rotate(id string, epoch uint64) {
	x.object = clientObject(id)
	var key string
	var grace time.Duration
	if !x.decode(keyField(&key).must(), secondsField("graceSeconds", &grace, 0, maxGrace)) {
		return
	}
	if err := x.h.Tenants.Rotate(x.r.Context(), id, key, epoch, grace); err != nil {
		x.unauthorized(x.problemOf(err))
		return
	}
	x.done()
	x.h.perID.Info("key of client replaced", "clientID", id, "grace", grace)
}

// refresh serves POST /token/refresh.
func (x *exchange) refresh() {
	token, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		x.refuse(problem{http.StatusBadRequest, "bearer_required", "only a token can be refreshed"})
		return
	}
	if !x.decode() {
		return
	}
	token, expires, err := x.h.Tokens.Refresh(x.r.Context(), token)
	if err != nil {
		x.unauthorized(x.established(err, http.StatusUnauthorized))
		return
	}
	x.secret()
	x.write(http.StatusOK, map[string]string{"code": "200", "bearerToken": token, "expiresAt": stamp(expires)})
}

// mintTicket serves POST /ws/tickets. The URL is a path: no header of the request is believed to
// name this server.
func (x *exchange) mintTicket() {
	if !x.decode() {
		return
	}
	x.object = clientObject(x.p.ClientID)
	ticket, expires, err := x.h.Tokens.Ticket(x.r.Context(), x.p, Credentials{Remote: x.from, Certificate: certificateOf(x.r)})
	if err != nil {
		x.fail(err)
		return
	}
	x.secret()
	x.write(http.StatusCreated, map[string]string{"code": "201", "ticket": ticket, "url": "/ws", "expiresAt": stamp(expires)})
}

// stamp writes a time for a peer: UTC, RFC 3339, milliseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// stringsBody reads a flat JSON object of strings. What follows the object is ignored. If there is
// none, the request has been answered.
func (x *exchange) stringsBody() (map[string]string, bool) {
	data, ok := x.body()
	if !ok {
		return nil, false
	}
	body, err := decodeStrings(data)
	if err != nil {
		x.refuse(problem{http.StatusBadRequest, reasonBadJSON, err.Error()})
		return nil, false
	}
	return body, true
}

var errNull = errors.New("json: cannot unmarshal null into Go value of type string")

func decodeStrings(data []byte) (map[string]string, error) {
	var values map[string]*string
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&values); err != nil {
		return nil, err
	}
	if values == nil {
		return nil, errNull
	}
	body := make(map[string]string, len(values))
	for k, v := range values {
		if v == nil {
			return nil, errNull
		}
		body[k] = *v
	}
	return body, nil
}
