package api

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"unicode/utf8"

	"rtcd/service/audit"
	"rtcd/service/policy"
)

// A Recorder takes events; *audit.Recorder is one. Both methods are safe for concurrent use.
type Recorder interface {
	// Record keeps an event; it does not wait.
	Record(e audit.Event)
	// Ready says why events cannot be kept, if nothing may happen without.
	Ready() error
}

// An AuditLog finds events; *audit.Recorder is one.
type AuditLog interface {
	// Query returns a page of events. A cursor that is none of its own gives audit.ErrCursor.
	Query(ctx context.Context, f audit.Filter, cursor string, limit int) (audit.Page, error)
}

// outcomeOf returns the outcome that a status stands for. A denied right weighs more than a fault
// of the caller's.
func outcomeOf(status int) audit.Outcome {
	switch {
	case status >= 500, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return audit.SeriousFailure
	case status >= 400:
		return audit.MinorFailure
	}
	return audit.Success
}

// record hands the event of the request over. What became of a WebSocket is for its server to
// record, from the moment it has taken the connection over.
func (x *exchange) record(outcome audit.Outcome) {
	if x.h.Recorder == nil || x.w.hijacked {
		return
	}
	e := audit.Event{
		Actor: x.actor(), Remote: x.remote(), Type: "http.unknown", Action: audit.Read, Object: x.object,
		CallID: x.callID, SessionID: x.sessionID, User: x.user, Outcome: outcome, Reason: x.reason,
	}
	if x.route != nil {
		e.Type, e.Action = x.route.event, x.route.action
	}
	if e.CallID == "" {
		e.CallID = x.vars["callID"]
	}
	if e.SessionID == "" {
		e.SessionID = x.vars["sessionID"]
	}
	if id := x.vars["clientID"]; id != "" {
		e.Object = clientObject(id)
	}
	switch {
	case e.Object != (audit.Object{}):
	case e.SessionID != "":
		e.Object = audit.Object{Kind: "session", ID: e.SessionID}
	case e.CallID != "":
		e.Object = audit.Object{Kind: "call", ID: e.CallID}
	}
	if outcome != audit.Success && e.Reason == "" {
		e.Reason = defaultReason(x.w.status)
	}
	x.h.Recorder.Record(e)
}

// actor is who has shown who he is.
func (x *exchange) actor() audit.Actor {
	switch {
	case x.p.Admin:
		return audit.Actor{Kind: audit.Operator, ID: policy.Admin}
	case x.p.Auditor:
		return audit.Actor{Kind: audit.Operator, ID: policy.Auditor}
	case x.p.ClientID != "":
		return audit.Actor{Kind: audit.Client, ID: x.p.ClientID}
	}
	return audit.Actor{Kind: audit.Guest}
}

// remote is where a request came from: the socket, unless a proxy of ours tells more.
func (x *exchange) remote() string {
	if x.from == x.socket {
		return x.r.RemoteAddr
	}
	return x.from.String()
}

func clientObject(id string) audit.Object { return audit.Object{Kind: string(audit.Client), ID: id} }

// An auditLine collects what one debug line says about one request, or one authentication.
type auditLine struct {
	name     string
	code     int
	clientID string
	err      error
}

// Bounds of one debug line, so that a bad request cannot make a long one.
const (
	lineHeaders     = 8
	lineHeaderBytes = 32
	lineURLBytes    = 128
	lineTextBytes   = 64
)

// log writes the line. Headers that hold secrets stay out of it.
func (a *auditLine) log(h *handler, r *http.Request) {
	ctx := context.Background()
	if !h.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	var suppressed uint64
	if a.err != nil { // anybody can make requests that fail
		ok := false
		if ok, suppressed = h.refused.Allow(a.name + strconv.Itoa(a.code)); !ok {
			return
		}
	}
	attrs := []slog.Attr{
		slog.String("remoteAddr", r.RemoteAddr),
		slog.String("method", clip(r.Method, 16)),
		slog.String("url", clip(r.URL.EscapedPath(), lineURLBytes)),
		slog.Any("header", headersOf(r)),
		slog.String("host", clip(r.Host, lineTextBytes)),
		slog.Int("code", a.code),
		slog.String("clientID", clip(a.clientID, lineTextBytes)),
	}
	if a.err != nil {
		attrs = append(attrs, slog.String("status", "fail"), slog.String("error", clip(a.err.Error(), lineURLBytes)))
	} else {
		attrs = append(attrs, slog.String("status", "success"))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", suppressed))
	}
	h.log.LogAttrs(ctx, slog.LevelDebug, a.name, attrs...)
}

// headersOf returns the headers of a request that tell what it came from. Others, which could hold
// anything, are left out.
func headersOf(r *http.Request) map[string]string {
	out := make(map[string]string, lineHeaders)
	for _, name := range []string{
		"Accept", "Connection", "Content-Length", "Content-Type", "Origin", "Upgrade", "User-Agent", "X-Forwarded-For",
	} {
		if v := r.Header.Get(name); v != "" {
			out[name] = clip(v, lineHeaderBytes)
		}
	}
	return out
}

// clip returns what of s fits into n bytes, without cutting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
