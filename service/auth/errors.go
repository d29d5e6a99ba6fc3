package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Refusals of a request's credentials; the texts are those of the protocol, section 5.1. An
// unknown client, a wrong key and a revoked client give the same error.
var (
	ErrAuthentication = errors.New("authentication failed")
	ErrInvalidHeader  = fmt.Errorf("%w: invalid auth header", ErrAuthentication)
	ErrUnauthorized   = fmt.Errorf("%w: unauthorized", ErrAuthentication)
	ErrTokenInvalid   = fmt.Errorf("%w: token is invalid", ErrAuthentication)
	ErrTokenExpired   = fmt.Errorf("%w: session is expired", ErrAuthentication)
	// ErrTicketInvalid: there is no such ticket, not any more, or not for who came with it.
	ErrTicketInvalid error = &refusal{"ticket is invalid", "ticket_invalid", http.StatusUnauthorized, ErrAuthentication}
	// ErrUseBearer: a key is only for login and registration here (Config.BasicScope).
	ErrUseBearer error = &refusal{"use a bearer token", "use_bearer", http.StatusUnauthorized, ErrAuthentication}
	// ErrCertificate: the certificate of the connection does not name the client.
	ErrCertificate error = &refusal{text: "certificate does not name the client", reason: "certificate_mismatch", status: http.StatusForbidden}
	// ErrNoCertificate: the connection has no certificate, and clients need one.
	ErrNoCertificate error = &refusal{text: "client certificate required", reason: "certificate_required", status: http.StatusForbidden}
)

// What is wrong with a registration, a change or an end of one. Register and Unregister put
// "registration failed: " and "unregister failed: " in front (protocol, sections 4.3 and 4.5).
var (
	ErrKeyShort          = errors.New("key not long enough")
	ErrKeyLong           = errors.New("bcrypt: password length exceeds 72 bytes")
	ErrIDEmpty           = errors.New("error: empty key")
	ErrIDLong            = errors.New("error: key too large")
	ErrIDInvalid         = errors.New("error: client id has characters that are not allowed")
	ErrAlreadyRegistered = errors.New("already registered")
	ErrUnknownClient     = errors.New("error: not found")
	// ErrIDMissing stands without anything in front.
	ErrIDMissing = errors.New("client id should not be empty")
	// ErrRoleReserved: the role is one that no client has.
	ErrRoleReserved error = &refusal{text: "role is reserved for operators", reason: "role_reserved", status: http.StatusBadRequest}
	// ErrRoleInvalid: a role is not of the form [a-z0-9._-]{1,32}, is there twice, or there are too many.
	ErrRoleInvalid error = &refusal{text: "role is invalid", reason: "role_invalid", status: http.StatusBadRequest}
)

// What a KeyStore reports beside its results; an adapter wraps its store's own errors in these.
var (
	// ErrUnavailable: the store cannot do this now, as on a full disk. A case for status 503.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFull: the store takes no more clients.
	ErrFull = errors.New("too many registrations")
)

// A refusal is an error that knows its status and its machine-readable reason.
type refusal struct {
	text, reason string
	status       int
	kind         error // what it is a kind of, nil if of nothing
}

// Error implements error.
func (r *refusal) Error() string {
	if r.kind != nil {
		return r.kind.Error() + ": " + r.text
	}
	return r.text
}

// Unwrap returns what r is a kind of.
func (r *refusal) Unwrap() error { return r.kind }

// Status returns the status of HTTP that says so.
func (r *refusal) Status() int { return r.status }

// Reason returns the reason for machines, in snake case.
func (r *refusal) Reason() string { return r.reason }

// A LimitError says that a limit was hit and when it is worth trying again: a case for status
// 429 with Retry-After.
type LimitError struct {
	// Limit names what was hit: "bcrypt_registrations", "bcrypt_logins", "bcrypt_rotations", "failed_logins", "tokens",
	// "tickets_per_client" or "tickets".
	Limit string
	// RetryAfter is at least a second.
	RetryAfter time.Duration
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("too many requests (%s), retry in %v", e.Limit, e.RetryAfter.Round(time.Second))
}

// isContext reports whether err only says that a caller gave up.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
