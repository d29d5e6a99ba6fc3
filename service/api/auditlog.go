package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxCursorBytes = 256
	anyOutcome     = -1
)

// readAudit serves GET /admin/audit.
func (x *exchange) readAudit() {
	values, ok := x.query("since", "until", "client", "type", "action", "outcome", "cursor", "limit")
	if !ok {
		return
	}
	q := AuditQuery{
		ClientID: values.Get("client"), Type: values.Get("type"), Action: values.Get("action"),
		Cursor: values.Get("cursor"), Outcome: anyOutcome,
	}
	bad := func(name, want string) {
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, fmt.Sprintf("parameter %q is not %s", name, want)})
	}
	for name, into := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if !values.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339, values.Get(name))
		if err != nil {
			bad(name, "a time as in RFC 3339")
			return
		}
		*into = t
	}
	switch {
	case values.Has("client") && !validClientID(q.ClientID):
		bad("client", "an id")
		return
	case values.Has("type") && !validType(q.Type):
		bad("type", "a type of events")
		return
	case values.Has("action") && (len(q.Action) != 1 || !strings.Contains("CRUDE", q.Action)):
		bad("action", "one of C, R, U, D, E")
		return
	case values.Has("cursor") && (q.Cursor == "" || !validText(q.Cursor, maxCursorBytes)):
		bad("cursor", "one of an answer")
		return
	}
	if values.Has("outcome") {
		n, err := strconv.Atoi(values.Get("outcome"))
		if err != nil || (n != OutcomeSuccess && n != OutcomeRefused && n != OutcomeFailed && n != OutcomeFault) {
			bad("outcome", "one of 0, 4, 8, 12")
			return
		}
		q.Outcome = n
	}
	if q.Limit, ok = x.limit(values); !ok {
		return
	}
	page, err := x.h.AuditLog.Query(x.r.Context(), q)
	if err != nil {
		x.fail(err)
		return
	}
	if page.Events == nil {
		page.Events = []json.RawMessage{}
	}
	x.write(http.StatusOK, struct {
		Events []json.RawMessage `json:"events"`
		Next   string            `json:"next,omitempty"`
	}{page.Events, page.Next})
}

// validType reports whether s can be a type of events: 1 to 64 of a-z, 0-9, dot and underscore.
func validType(s string) bool {
	if s == "" || len(s) > maxNameBytes {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
