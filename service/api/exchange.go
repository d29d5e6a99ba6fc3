package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"

	"rtcd/service/audit"
	"rtcd/service/policy"
)

// An exchange is one request and its answer.
type exchange struct {
	h      *handler
	w      *answer
	r      *http.Request
	route  *route            // nil: there is none
	vars   map[string]string // ids in the path, by name
	socket netip.Addr        // of the peer
	from   netip.Addr        // as a trusted proxy tells it, else socket
	p      Principal         // empty for guests
	text   string            // of the refusal, if it was one

	// Of the event: what the path does not say.
	object            audit.Object
	callID, sessionID string
	user              string
	reason            string // of the refusal, or what more there is to say of success
}

// An answer notes what became of a response.
type answer struct {
	http.ResponseWriter
	status   int // 0: nothing yet
	hijacked bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack implements http.Hijacker, for WebSockets.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	a.hijacked = err == nil
	return c, rw, err
}

// ServeHTTP implements http.Handler: every request goes through here, and nowhere else. Who asks is
// found out, what they may is looked up, what became of it is recorded, once.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{h: h, w: &answer{ResponseWriter: w}, r: r}
	x.route, x.vars = h.match(r)
	x.socket = socketAddr(r)
	x.from = h.sourceOf(r, x.socket)
	defer x.end()
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	x.run()
}

// run takes the steps of a request. A step that ends it has answered.
func (x *exchange) run() {
	if !x.guarded() {
		return
	}
	if x.route == nil {
		http.NotFound(x.w, x.r)
		return
	}
	role, known := x.h.policy.Required(x.route.key())
	if !known {
		x.refuse(problem{http.StatusForbidden, reasonForbidden, "forbidden"})
		return
	}
	if !x.noSecretInURL() || !x.recordable(role) || (x.route.gate != nil && !x.route.gate(x)) {
		return
	}
	if !x.private() || !x.authorized(role) {
		return
	}
	x.route.serve(x)
}

// end answers a request whose handler panicked, which is our bug and costs nobody else anything,
// and records what became of it.
func (x *exchange) end() {
	p := recover()
	if x.route != nil && x.route.line != "" {
		line := auditLine{name: x.route.line, code: x.w.status, clientID: x.object.ID}
		if x.text != "" {
			line.err = errors.New(x.text)
		}
		line.log(x.h, x.r)
	}
	if p == nil {
		x.record(outcomeOf(x.w.status))
		return
	}
	if p == http.ErrAbortHandler {
		x.record(audit.SeriousFailure)
		panic(p)
	}
	x.h.Metrics.HandlerPanicked()
	x.h.quiet.Error("request handler panicked", "method", x.r.Method, "url", clip(x.r.URL.EscapedPath(), lineURLBytes),
		"err", p, "stack", string(debug.Stack()))
	if x.w.status == 0 && !x.w.hijacked {
		http.Error(x.w, "internal error", http.StatusInternalServerError)
	}
	x.record(audit.SeriousFailure)
}

// recordable makes sure that nothing happens which cannot be recorded. What anybody may read is
// served all the same: whoever watches the server has to be able to.
func (x *exchange) recordable(role string) bool {
	if x.h.Recorder == nil || (role == policy.Guest && x.route.action == audit.Read) {
		return true
	}
	err := x.h.Recorder.Ready()
	if err == nil {
		return true
	}
	x.h.quiet.Warn("requests are refused: events cannot be recorded", "err", err)
	x.retryAfter(noRetryAfter)
	x.refuse(problem{http.StatusServiceUnavailable, reasonAuditDown, "events cannot be recorded"})
	return false
}

// authorized finds out who asks and whether they may.
func (x *exchange) authorized(role string) bool {
	if role == policy.Guest {
		return true
	}
	ok := x.authenticate()
	switch {
	case !ok:
		return false
	case x.route.client && x.p.ClientID == "":
		x.unauthorized(x.problemOfAuth(errUnauthorized))
		return false
	case x.h.policy.Allows(x.p.Roles, x.route.key()):
		return true
	case x.route.form == flatForm && role == policy.Admin:
		x.unauthorized(problem{http.StatusUnauthorized, reasonForbidden, "authentication failed: unauthorized"})
	default:
		x.refuse(problem{http.StatusForbidden, reasonForbidden, "forbidden"})
	}
	return false
}

// authenticate finds out who sent the request, and writes a line of it. If nobody we know, the
// request has been answered.
func (x *exchange) authenticate() bool {
	line := auditLine{name: "authHandler", code: http.StatusOK}
	c, err := x.credentials()
	var p Principal
	if err == nil {
		p, err = x.h.Auth.Authenticate(x.r.Context(), c)
	}
	if err == nil && x.h.plane == admin && (p.Admin || p.Auditor) && !operatorName(x.r) {
		err = errUnauthorized
	}
	line.clientID, line.err = p.ClientID, err
	if err == nil {
		line.log(x.h, x.r)
		x.p = p
		return true
	}
	line.code = http.StatusUnauthorized
	line.log(x.h, x.r)
	if id, _, ok := x.r.BasicAuth(); ok && validClientID(id) {
		x.object = clientObject(id) // who it claims to be
	}
	x.h.quiet.Warn("failed authentication", "remoteAddr", clip(x.r.RemoteAddr, lineTextBytes), "err", err)
	x.unauthorized(x.problemOfAuth(err))
	return false
}

// stillAuthorized looks again once the body is there, which takes as long as the peer likes: who has
// begun a request before his key was replaced or revoked must not finish it after.
func (x *exchange) stillAuthorized() bool {
	if x.p.ClientID == "" {
		return true
	}
	c, err := x.credentials()
	var p Principal
	if err == nil {
		p, err = x.h.Auth.Authenticate(x.r.Context(), c)
	}
	switch {
	case err != nil:
		x.unauthorized(x.problemOfAuth(err))
	case p.ClientID != x.p.ClientID || p.Epoch != x.p.Epoch:
		x.unauthorized(x.problemOfAuth(errUnauthorized))
	case !x.h.policy.Allows(p.Roles, x.route.key()):
		x.refuse(problem{http.StatusForbidden, reasonForbidden, "forbidden"})
	default:
		return true
	}
	return false
}

// problemOfAuth returns the problem of failed authentication. Routes that answer in text say no
// more than that, unless there is something to be done about it.
func (x *exchange) problemOfAuth(err error) problem {
	p := x.established(err, http.StatusUnauthorized)
	if x.route.form != textForm {
		return p
	}
	switch {
	case p.reason == reasonUseBearer:
		p.text = p.reason
	case p.status == http.StatusUnauthorized:
		p.text = errUnauthorized.Error()
	default:
		p.text = http.StatusText(p.status)
	}
	return p
}

// reasonUseBearer is the reason of Auth for refusing keys where only tokens are taken.
const reasonUseBearer = "use_bearer"

// operatorName reports whether an operator's request names no client.
func operatorName(r *http.Request) bool {
	id, _, ok := r.BasicAuth()
	return ok && (id == "" || id == policy.Admin || id == policy.Auditor)
}

// unauthorized refuses, and says how to authenticate.
func (x *exchange) unauthorized(p problem) {
	if p.status == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", `Basic realm="rtcd", charset="UTF-8"`)
	}
	x.refuse(p)
}

// refuse answers with a problem, in the form of the route.
func (x *exchange) refuse(p problem) {
	x.reason, x.text = p.reason, p.text
	code := strconv.Itoa(p.status)
	switch {
	case x.route == nil || x.route.form == textForm:
		http.Error(x.w, p.text, p.status)
	case x.route.form == flatForm:
		x.write(p.status, map[string]string{"code": code, "error": p.text})
	default:
		x.write(p.status, map[string]string{"code": code, "error": p.text, "reason": p.reason})
	}
}

// fail answers with the problem of an error.
func (x *exchange) fail(err error) { x.refuse(x.problemOf(err)) }

// done answers a request that has no more to say than that.
func (x *exchange) done() { x.write(http.StatusOK, map[string]string{"code": "200"}) }

// write answers with v as JSON.
func (x *exchange) write(status int, v any) { writeBody(x.w, status, encodeJSON(v)) }

// secret keeps caches from keeping the answer.
func (x *exchange) secret() { x.w.Header().Set("Cache-Control", "no-store") }

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

// ticketProtocol precedes a ticket that is offered as a subprotocol. It is never chosen.
const ticketProtocol = "rtcd.ticket."

var errTwoTickets = errors.New("authentication failed: more than one ticket")

// tickets returns the tickets of a request, where tickets are taken: there should be one.
func (x *exchange) tickets() []string {
	if !x.route.ticket {
		return nil
	}
	tickets := x.r.URL.Query()["ticket"]
	for _, value := range x.r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(value, ",") {
			if t, ok := strings.CutPrefix(strings.TrimSpace(offered), ticketProtocol); ok {
				tickets = append(tickets, t)
			}
		}
	}
	return tickets
}

// credentials collects what the request says of its sender.
func (x *exchange) credentials() (Credentials, error) {
	c := Credentials{Authorization: x.r.Header.Get("Authorization"), Remote: x.from, Certificate: certificateOf(x.r)}
	switch tickets := x.tickets(); {
	case len(tickets) > 1:
		return c, errTwoTickets
	case len(tickets) == 1 && tickets[0] == "":
		return c, errUnauthorized
	case len(tickets) == 1:
		c.Ticket = tickets[0]
	}
	return c, nil
}
