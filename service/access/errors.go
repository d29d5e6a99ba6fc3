package access

import (
	"fmt"
	"net/http"
	"time"
)

// An Error is a refusal. It says nothing of whether what was named exists for somebody else.
type Error struct {
	reason string
	status int
	text   string
	retry  time.Duration
}

// Error implements error.
func (e *Error) Error() string { return e.text }

// Reason returns the word for programs, in snake_case.
func (e *Error) Reason() string { return e.reason }

// Status returns the HTTP status that fits.
func (e *Error) Status() int { return e.status }

// RetryAfter returns when the same may work, 0 if that is not known.
func (e *Error) RetryAfter() time.Duration { return e.retry }

// Is makes two refusals for the same reason equal, whatever their texts.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.reason == e.reason
}

// Refusals, by reason.
var (
	ErrTokenRequired = &Error{reason: "token_required", status: http.StatusUnauthorized, text: "join token required"}
	// ErrTokenInvalid: there is no such token for this call. That it is unknown, expired, used up,
	// or of another call or client is not told apart.
	ErrTokenInvalid  = &Error{reason: "token_invalid", status: http.StatusUnauthorized, text: "join token is not valid"}
	ErrTokenMismatch = &Error{reason: "token_mismatch", status: http.StatusUnauthorized, text: "join is not what its token is for"}
	ErrCallEnded     = &Error{reason: "call_ended", status: http.StatusUnauthorized, text: "call has ended"}
	ErrEjected       = &Error{reason: "ejected", status: http.StatusUnauthorized, text: "disconnected from this call by a moderator"}
	ErrRateLimited   = &Error{reason: "rate_limited", status: http.StatusTooManyRequests, text: "too many tries", retry: time.Minute}
	ErrManagedOnly   = &Error{reason: "managed_only", status: http.StatusForbidden, text: "call has to be created first"}
	ErrRoleUnknown   = &Error{reason: "role_unknown", status: http.StatusBadRequest, text: "no such call role"}

	ErrNotFound     = &Error{reason: "not_found", status: http.StatusNotFound, text: "call not found"}
	ErrBadRequest   = &Error{reason: "bad_request", status: http.StatusBadRequest, text: "request is not valid"}
	ErrPersonalData = &Error{reason: "personal_data", status: http.StatusBadRequest, text: "token data must not be personal"}
	ErrNotSupported = &Error{reason: "not_supported", status: http.StatusConflict, text: "option is not supported"}
	ErrCallIDUsed   = &Error{reason: "call_id_used", status: http.StatusConflict, text: "call id was used before"}
	ErrTooMany      = &Error{reason: "too_many", status: http.StatusTooManyRequests, text: "too many calls or tokens", retry: time.Minute}
)

// bad returns ErrBadRequest with what is wrong: a constant text and a limit, never input.
func bad(format string, args ...any) *Error {
	return &Error{reason: ErrBadRequest.reason, status: ErrBadRequest.status, text: fmt.Sprintf(format, args...)}
}
