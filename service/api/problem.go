package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// A problem is why a request is refused, or failed.
type problem struct {
	status int
	reason string // machine-readable
	text   string // for people
}

// A refusal is an error that says what to tell the peer.
type refusal struct {
	problem
	cause error
}

func (r *refusal) Error() string  { return r.text }
func (r *refusal) Status() int    { return r.status }
func (r *refusal) Reason() string { return r.reason }
func (r *refusal) Unwrap() error  { return r.cause }

// Refuse makes of err, whose text the peer is told, a refusal with a status from 400 to 599 and a
// machine-readable reason. The status of a busy server, 429, and of one that cannot do it, 503,
// get a Retry-After.
func Refuse(status int, reason string, err error) error {
	return &refusal{problem{status, reason, err.Error()}, err}
}

// Reasons of refusals that are the API's own.
const (
	reasonBadJSON      = "bad_json"
	reasonBadQuery     = "bad_query"
	reasonUnknownField = "unknown_field"
	reasonDuplicate    = "duplicate_field"
	reasonMissing      = "missing_field"
	reasonWrongType    = "wrong_type"
	reasonOutOfRange   = "out_of_range"
	reasonTooLarge     = "body_too_large"
	reasonSecretInURL  = "secret_in_url"
	reasonUnauthorized = "unauthorized"
	reasonForbidden    = "forbidden"
	reasonTLSRequired  = "tls_required"
	reasonNotFound     = "not_found"
	reasonReserved     = "role_reserved"
	reasonRateLimited  = "rate_limited"
	reasonUnavailable  = "unavailable"
	reasonAuditDown    = "audit_unavailable"
	reasonInternal     = "internal"
)

// noRetryAfter is what a client waits that is not told how long it will take.
const noRetryAfter = 5 * time.Second

// noCall is the answer for calls and sessions that are not there, or not the client's.
var noCall = problem{http.StatusNotFound, reasonNotFound, "not found"}

var (
	errUnauthorized = errors.New("unauthorized")
	errBodyTooLarge = errors.New("request body too large")
)

// problemOf returns the problem of an error that is a refusal; any other is one of the server.
func (x *exchange) problemOf(err error) problem {
	p, ok := x.refusalOf(err)
	if ok {
		return p
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		x.retryAfter(noRetryAfter)
		return problem{http.StatusServiceUnavailable, reasonUnavailable, "the server could not do it in time"}
	}
	x.h.quiet.Error("request failed", "route", x.route.key(), "err", err)
	return problem{http.StatusInternalServerError, reasonInternal, "internal error"}
}

// refusalOf returns the problem that an error says it is, and sets Retry-After where one belongs.
func (x *exchange) refusalOf(err error) (problem, bool) {
	var (
		withStatus interface{ Status() int }
		withReason interface{ Reason() string }
		busy       interface{ RetryAfter() time.Duration }
		down       interface{ Unavailable() bool }
	)
	p := problem{text: err.Error()}
	wait := noRetryAfter
	if errors.As(err, &withStatus) && withStatus.Status() >= 400 && withStatus.Status() < 600 {
		p.status = withStatus.Status()
	}
	if errors.As(err, &busy) {
		wait = busy.RetryAfter()
		if p.status == 0 {
			p.status = http.StatusTooManyRequests
		}
	}
	if p.status == 0 && errors.As(err, &down) && down.Unavailable() {
		p.status = http.StatusServiceUnavailable
	}
	if errors.As(err, &withReason) {
		p.reason = withReason.Reason()
	}
	if p.reason == "" {
		p.reason = defaultReason(p.status)
	}
	if p.status == http.StatusTooManyRequests || p.status == http.StatusServiceUnavailable {
		x.retryAfter(wait)
	}
	return p, p.status != 0
}

// established returns the problem of an error on a route of the established protocol, which fixes
// the status. Only what is nobody's fault, and what that protocol does not know, has its own.
func (x *exchange) established(err error, status int) problem {
	p, ok := x.refusalOf(err)
	switch {
	case !ok:
		p.status = status
	case p.status == http.StatusTooManyRequests, p.status == http.StatusServiceUnavailable, p.status == http.StatusForbidden:
	default:
		p.status = status
	}
	if p.reason == "" {
		p.reason = defaultReason(p.status)
	}
	return p
}

func defaultReason(status int) string {
	switch status {
	case 0:
		return ""
	case http.StatusUnauthorized:
		return reasonUnauthorized
	case http.StatusForbidden:
		return reasonForbidden
	case http.StatusNotFound:
		return reasonNotFound
	case http.StatusTooManyRequests:
		return reasonRateLimited
	case http.StatusServiceUnavailable:
		return reasonUnavailable
	case http.StatusInternalServerError:
		return reasonInternal
	}
	return "refused"
}

// retryAfter sets the header: whole seconds, at least one.
func (x *exchange) retryAfter(d time.Duration) {
	x.w.Header().Set("Retry-After", strconv.Itoa(int(max((d+time.Second-1)/time.Second, 1))))
}
