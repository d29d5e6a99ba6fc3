package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// What an error can be asked for with errors.Is.
var (
	// ErrAlreadyRegistered: the client id is taken.
	ErrAlreadyRegistered = errors.New("already registered")
	// ErrUnauthorized: the server does not know the client, or its key is wrong; it does not say which.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrForbidden: the server does not allow this to anybody, or not to this client.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: there is no such call, session or client. Of a call it proves that it is over.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the server is busy or cannot do it now; the same request may work later.
	ErrUnavailable = errors.New("unavailable")

	// ErrClosed: the Conn has ended.
	ErrClosed = errors.New("connection closed")
	// ErrQueueFull: too much waits to be sent already.
	ErrQueueFull = errors.New("send queue full")
	// ErrTooLarge: the message is larger than the server takes.
	ErrTooLarge = errors.New("message too large")
)

// An APIError is an answer of the server that is not a success.
type APIError struct {
	Op         string        // what was tried, such as "register"
	Status     int           // HTTP status
	Text       string        // what the server said, at most 256 bytes, without control characters
	RetryAfter time.Duration // when to try again, 0 if the server does not say
}

// Error implements error.
func (e *APIError) Error() string {
	text := e.Text
	if text == "" {
		text = http.StatusText(e.Status)
	}
	return fmt.Sprintf("%s: server answered %d: %s", e.Op, e.Status, text)
}

// Is makes errors.Is work with the error values of this package.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrAlreadyRegistered:
		return e.Op == opRegister && strings.Contains(e.Text, "already registered")
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized ||
			e.Op == opLogin && e.Status == http.StatusBadRequest && strings.Contains(e.Text, "authentication failed")
	case ErrForbidden:
		return e.Status == http.StatusForbidden
	case ErrNotFound:
		return e.Status == http.StatusNotFound ||
			e.Op == opUnregister && e.Status == http.StatusBadRequest && strings.Contains(e.Text, "not found")
	case ErrUnavailable:
		return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
	}
	return false
}

// apiError makes an error of an answer and the start of its body, which is JSON with an error
// in it, or text.
func apiError(op string, resp *http.Response, body []byte) *APIError {
	var refusal struct {
		Error string `json:"error"`
	}
	text := string(body)
	if json.Unmarshal(body, &refusal) == nil && refusal.Error != "" {
		text = refusal.Error
	}
	e := &APIError{Op: op, Status: resp.StatusCode, Text: printable(text)}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 3600)) * time.Second
	}
	return e
}

// printable returns the first 256 bytes of s as one line that can stand in a log.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 256)], "")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}
