package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rtcd/service/audit"
)

// maxCursorBytes bounds the cursor of a query.
const maxCursorBytes = 256

// readAudit serves GET /admin/audit.
func (x *exchange) readAudit() {
	values, ok := x.query("since", "until", "client", "type", "action", "outcome", "cursor", "limit")
	if !ok {
		return
	}
	f := audit.Filter{
		Client: values.Get("client"), Type: values.Get("type"), Action: audit.Action(values.Get("action")),
	}
	cursor := values.Get("cursor")
	bad := func(name, want string) {
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, fmt.Sprintf("parameter %q is not %s", name, want)})
	}
	for name, into := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
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
	case values.Has("client") && !validClientID(f.Client):
		bad("client", "an id")
		return
	case values.Has("type") && !validType(f.Type):
		bad("type", "a type of events")
		return
	case values.Has("action") && (len(f.Action) != 1 || !strings.Contains("CRUDE", string(f.Action))):
		bad("action", "one of C, R, U, D, E")
		return
	case values.Has("cursor") && (cursor == "" || !validText(cursor, maxCursorBytes)):
		bad("cursor", "one of an answer")
		return
	}
	if values.Has("outcome") {
		n, err := strconv.Atoi(values.Get("outcome"))
		if err != nil || (n != 0 && n != 4 && n != 8 && n != 12) {
			bad("outcome", "one of 0, 4, 8, 12")
			return
		}
		outcome := audit.Outcome(n)
		f.Outcome = &outcome
	}
	limit, ok := x.limit(values)
	if !ok {
		return
	}
	page, err := x.h.AuditLog.Query(x.r.Context(), f, cursor, limit)
	switch {
	case errors.Is(err, audit.ErrCursor):
		x.refuse(problem{http.StatusBadRequest, "bad_cursor", `parameter "cursor" is not one of an answer`})
		return
	case err != nil:
		x.fail(err)
		return
	}
	if page.Events == nil {
		page.Events = []audit.Event{}
	}
	x.write(http.StatusOK, struct {
		Events []audit.Event `json:"events"`
		Next   string        `json:"next,omitempty"`
		More   bool          `json:"more"`
	}{page.Events, page.Next, page.More})
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
