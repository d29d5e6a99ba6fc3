package auth

import (
	"errors"
	"fmt"
	"time"
)

// Refusals of a request's credentials; the texts are those of the protocol, section 5.1. An
// unknown client and a wrong key give the same error.
var (
	ErrAuthentication = errors.New("authentication failed")
	ErrInvalidHeader  = fmt.Errorf("%w: invalid auth header", ErrAuthentication)
	ErrUnauthorized   = fmt.Errorf("%w: unauthorized", ErrAuthentication)
	ErrTokenInvalid   = fmt.Errorf("%w: token is invalid", ErrAuthentication)
	ErrTokenExpired   = fmt.Errorf("%w: session is expired", ErrAuthentication)
)

// What is wrong with a registration or its end. Register and Unregister put "registration
// failed: " and "unregister failed: " in front (protocol, sections 4.3 and 4.5).
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
)

// What a KeyStore reports beside its results; an adapter wraps its store's own errors in these.
var (
	// ErrUnavailable: the store cannot do this now, as on a full disk. A case for status 503.
	ErrUnavailable = errors.New("store unavailable")
	// ErrFull: the store takes no more clients.
	ErrFull = errors.New("too many registrations")
)

// A LimitError says that a limit was hit and when it is worth trying again: a case for status
// 429 with Retry-After.
type LimitError struct {
	// Limit names what was hit: "bcrypt_registrations", "bcrypt_logins", "failed_logins" or "tokens".
	Limit string
	// RetryAfter is at least a second.
	RetryAfter time.Duration
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("too many requests (%s), retry in %v", e.Limit, e.RetryAfter.Round(time.Second))
}
