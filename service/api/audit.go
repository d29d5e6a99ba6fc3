package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"time"
	"unicode/utf8"
)

// What a request does to its object.
const (
	actionCreate  = "C"
	actionRead    = "R"
	actionUpdate  = "U"
	actionDelete  = "D"
	actionExecute = "E"
)

// Outcomes of a request (RFC 3881, 5.1.4).
const (
	OutcomeSuccess = 0
	OutcomeRefused = 4  // minor failure: the server did not do it
	OutcomeFailed  = 8  // serious failure: the server could not do it
	OutcomeFault   = 12 // major failure: a fault of the server itself
)

// An Event is what became of one request. It holds no secret. Fields from a peer are clipped to
// 128 bytes.
type Event struct {
	Type      string // what was asked for, as in "client.register"
	Action    string // C, R, U, D or E
	Outcome   int
	Status    int        // of the answer
	Reason    string     // machine-readable, empty on success
	Actor     string     // client id, "admin" or "auditor"; empty if not known
	Remote    netip.Addr // of the peer, or as a trusted proxy tells it
	ClientID  string     // whose record or call it is about
	CallID    string
	SessionID string
	Detail    string
}

// A Recorder takes events. Both methods are safe for concurrent use.
type Recorder interface {
	// Record keeps an event; it does not wait for long.
	Record(Event)
	// Ready says why events cannot be kept, if nothing may happen without.
	Ready() error
}

// An AuditQuery says which events are wanted. Empty fields do not restrict.
type AuditQuery struct {
	Since, Until time.Time // from Since on, before Until
	ClientID     string    // as actor or object
	Type         string
	Action       string
	Outcome      int    // one of the Outcomes, or -1
	Cursor       string // Next of a page before
	Limit        int
}

// An AuditPage is a part of the answer to an AuditQuery.
type AuditPage struct {
	Events []json.RawMessage
	Next   string // where the next page begins; empty if there is none now
}

// An AuditLog finds events. A query that it cannot make sense of is an error with status 400.
type AuditLog interface {
	Query(ctx context.Context, q AuditQuery) (AuditPage, error)
}

// outcomeOf returns the outcome that a status stands for.
func outcomeOf(status int) int {
	switch {
	case status >= 500:
		return OutcomeFailed
	case status >= 400:
		return OutcomeRefused
	}
	return OutcomeSuccess
}

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
