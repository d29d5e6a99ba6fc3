package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A ReportFormat is what a report on a call is written in.
type ReportFormat string

// The formats.
const (
	ReportJSON ReportFormat = "json"
	ReportHTML ReportFormat = "html" // a page that needs nothing else
)

// Reports makes the reports on calls of clients, those that go on and those that are over.
type Reports interface {
	// Report returns a report on the latest call of that id, or on the one that began at a time, in
	// milliseconds since 1970. ErrNoReport: there is none. It may wait for others to be made.
	Report(ctx context.Context, clientID, callID string, started int64, f ReportFormat) ([]byte, error)
}

// ErrNoReport says that there is no such call, or that nothing is known of it any more.
var ErrNoReport = errors.New("no report")

// reportPolicy is the policy of pages for browsers that do not look into them: the page has one of its
// own, which is stricter.
const reportPolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// readReport serves GET /calls/{callID}/report.
func (x *exchange) readReport() { x.report(x.p.ClientID) }

// readReportOf serves GET /admin/calls/{clientID}/{callID}/report.
func (x *exchange) readReportOf() { x.report(x.vars["clientID"]) }

func (x *exchange) report(clientID string) {
	q, ok := x.query("format", "started")
	if !ok {
		return
	}
	format := ReportJSON
	switch f := q.Get("format"); {
	case f == string(ReportHTML), f == "" && prefersHTML(x.r.Header.Get("Accept")):
		format = ReportHTML
	case f != "" && f != string(ReportJSON):
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, `parameter "format" must be json or html`})
		return
	}
	started := int64(0)
	if text := q.Get("started"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil || at.Unix() <= 0 {
			x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, `parameter "started" must be a time such as 2026-01-02T15:04:05.678Z`})
			return
		}
		started = at.UnixMilli()
	}
	body, err := x.h.Reports.Report(x.r.Context(), clientID, x.vars["callID"], started, format)
	switch {
	case errors.Is(err, ErrNoReport):
		x.refuse(noCall)
		return
	case err != nil:
		x.fail(err)
		return
	}
	x.secret()
	h := x.w.Header()
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "application/json")
	if format == ReportHTML {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", reportPolicy)
		h.Set("Referrer-Policy", "no-referrer")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(body) // the peer may be gone; nobody else is to be told
}

// prefersHTML reports whether an Accept header names HTML, and JSON not before it.
func prefersHTML(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "text/html":
			return true
		case "application/json":
			return false
		}
	}
	return false
}
