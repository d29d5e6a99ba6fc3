package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// registerClient serves /register.
func (h *handler) registerClient(w http.ResponseWriter, r *http.Request) {
	a := h.audit("registerClient", r)
	defer a.log()
	if !h.cfg.AllowSelfRegistration {
		p, ok := h.authenticate(w, r, a)
		if !ok {
			return
		}
		if !p.Admin {
			a.refuse(w, http.StatusUnauthorized, errors.New("authentication failed: unauthorized"))
			return
		}
	}
	body, ok := a.readBody(w, r)
	if !ok {
		return
	}
	a.clientID = body["clientID"]
	if err := h.auth.Register(r.Context(), body["clientID"], body["authKey"]); err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	a.succeed(w, http.StatusCreated, map[string]string{"clientID": body["clientID"]})
	h.log.Info("client registered", "clientID", a.clientID)
}

// loginClient serves /login.
func (h *handler) loginClient(w http.ResponseWriter, r *http.Request) {
	a := h.audit("loginClient", r)
	defer a.log()
	body, ok := a.readBody(w, r)
	if !ok {
		return
	}
	a.clientID = body["clientID"]
	token, err := h.auth.Login(r.Context(), body["clientID"], body["authKey"], remoteAddr(r))
	if err != nil {
		h.quiet.Warn("failed authentication", "remoteAddr", r.RemoteAddr, "clientID", a.clientID, "err", err)
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	a.succeed(w, http.StatusOK, map[string]string{"bearerToken": token})
	h.log.Info("client logged in", "clientID", a.clientID)
}

// unregisterClient serves /unregister.
func (h *handler) unregisterClient(w http.ResponseWriter, r *http.Request) {
	a := h.audit("unregisterClient", r)
	defer a.log()
	if !h.cfg.EnableAdmin && !h.cfg.AllowSelfRegistration {
		a.refuse(w, http.StatusForbidden, errors.New("unregister not enabled"))
		return
	}
	p, ok := h.authenticate(w, r, a)
	if !ok {
		return
	}
	body, ok := a.readBody(w, r)
	if !ok {
		return
	}
	clientID := body["clientID"]
	a.clientID = clientID
	switch {
	case clientID == "":
		a.refuse(w, http.StatusBadRequest, errors.New("client id should not be empty"))
		return
	case !p.Admin && p.ClientID != clientID:
		a.refuse(w, http.StatusForbidden, errors.New("client id not valid"))
		return
	}
	if err := h.auth.Unregister(r.Context(), clientID); err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return
	}
	h.ws.DropClient(clientID)
	if h.gone != nil {
		h.gone(clientID)
	}
	h.metrics.Forget(clientID)
	a.succeed(w, http.StatusOK, map[string]string{})
	h.log.Info("client unregistered", "clientID", clientID)
}

// serveCalls serves /calls/{callID}/sessions and /calls/{callID}/sessions/{sessionID}. A call
// that goes on is never reported as not found: backends would end it.
func (h *handler) serveCalls(w http.ResponseWriter, r *http.Request) {
	callID, sessionID, single, ok := callPath(r.URL.EscapedPath())
	if !ok {
		http.NotFound(w, r)
		return
	}
	p, ok := h.authenticateClient(w, r)
	if !ok {
		return
	}
	sessions, ok := h.calls.Sessions(p.ClientID, callID)
	if !ok || len(sessions) == 0 {
		http.Error(w, "failed to get session configs: call not found", http.StatusNotFound)
		return
	}
	if !single {
		writeBody(w, http.StatusOK, encodeJSON(sessions))
		return
	}
	for i := range sessions {
		if sessions[i].SessionID == sessionID {
			writeBody(w, http.StatusOK, encodeJSON(sessions[i]))
			return
		}
	}
	http.Error(w, "failed to get session config: session not found", http.StatusNotFound)
}

// callPath takes an escaped path apart. An id may hold escaped slashes, and is not empty.
func callPath(path string) (callID, sessionID string, single, ok bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/calls/"), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[1] != "sessions" {
		return "", "", false, false
	}
	callID, err := url.PathUnescape(parts[0])
	if err != nil || callID == "" {
		return "", "", false, false
	}
	if len(parts) == 2 {
		return callID, "", false, true
	}
	sessionID, err = url.PathUnescape(parts[2])
	return callID, sessionID, true, err == nil && sessionID != ""
}

// serveWebSocket serves /ws.
func (h *handler) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	p, ok := h.authenticateClient(w, r)
	if !ok {
		return
	}
	if p.Hold != nil {
		defer p.Hold()()
	}
	h.ws.Serve(w, r, p.ClientID)
}

var errUnauthorized = errors.New("unauthorized")

// authenticate finds out who sent a request that is answered in JSON. If nobody we know, the
// request has been answered.
func (h *handler) authenticate(w http.ResponseWriter, r *http.Request, a *auditLine) (Principal, bool) {
	p, err := h.principal(r)
	if err != nil {
		a.refuse(w, http.StatusUnauthorized, err)
		return Principal{}, false
	}
	return p, true
}

// authenticateClient finds out which client sent a request that is answered in text. The admin
// is no client.
func (h *handler) authenticateClient(w http.ResponseWriter, r *http.Request) (p Principal, ok bool) {
	p, err := h.principal(r)
	if err == nil && (p.Admin || p.ClientID == "") {
		err = errUnauthorized
	}
	if err == nil {
		return p, true
	}
	status := statusOf(w, err, http.StatusUnauthorized)
	text := errUnauthorized.Error()
	if status == http.StatusUnauthorized {
		challenge(w)
	} else {
		text = http.StatusText(status)
	}
	http.Error(w, text, status)
	return Principal{}, false
}

// principal authenticates a request and writes its audit line.
func (h *handler) principal(r *http.Request) (Principal, error) {
	a := h.audit("authHandler", r)
	defer a.log()
	p, err := h.auth.Authenticate(r.Context(), r.Header.Get("Authorization"), remoteAddr(r))
	a.clientID, a.err = p.ClientID, err
	a.code = http.StatusOK
	if err != nil {
		a.code = http.StatusUnauthorized
		h.quiet.Warn("failed authentication", "remoteAddr", r.RemoteAddr, "err", err)
	}
	return p, err
}

func challenge(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Basic realm="rtcd", charset="UTF-8"`)
}

// statusOf returns the status for an error, refused unless the error says that it is not the
// request's fault, and sets Retry-After where one belongs.
func statusOf(w http.ResponseWriter, err error, refused int) int {
	var busy interface{ RetryAfter() time.Duration }
	var unavailable interface{ Unavailable() bool }
	switch {
	case errors.As(err, &busy):
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(busy.RetryAfter())))
		return http.StatusTooManyRequests
	case errors.As(err, &unavailable) && unavailable.Unavailable():
		w.Header().Set("Retry-After", "5")
		return http.StatusServiceUnavailable
	}
	return refused
}

// remoteAddr returns the address of the peer, without port and zone.
func remoteAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// readBody reads a flat JSON object of strings. What follows the object is ignored. If there is
// none, the request has been answered.
func (a *auditLine) readBody(w http.ResponseWriter, r *http.Request) (map[string]string, bool) {
	if r.ContentLength > maxBodyBytes {
		w.Header().Set("Connection", "close")
		a.refuse(w, http.StatusRequestEntityTooLarge, errBodyTooLarge)
		return nil, false
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			a.refuse(w, http.StatusRequestEntityTooLarge, errBodyTooLarge)
		} else {
			a.refuse(w, http.StatusBadRequest, err)
		}
		return nil, false
	}
	body, err := decodeStrings(data)
	if err != nil {
		a.refuse(w, http.StatusBadRequest, err)
		return nil, false
	}
	return body, true
}

var (
	errBodyTooLarge = errors.New("request body too large")
	errNull         = errors.New("json: cannot unmarshal null into Go value of type string")
)

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

// encodeJSON returns v as JSON with a newline at its end.
func encodeJSON(v any) []byte {
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(v); err != nil {
		panic(err) // our own types: strings, booleans, finite numbers
	}
	return buf.Bytes()
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the peer may be gone; nobody else is to be told
}
