package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a request may say.
const (
	maxBodyBytes  = 4 << 10 // the largest legitimate body is below 1 KiB
	maxQueryBytes = 2 << 10
	maxIDBytes    = 128 // of calls, sessions, users and streams
	maxClientID   = 64
	minKeyBytes   = 32
	maxKeyBytes   = 72
	maxNameBytes  = 64 // of a field, where an error names it
	maxPage       = 1000
	defaultPage   = 100
)

// A field is one thing that the JSON object of a request may hold. set takes its value: a string,
// json.Number, bool, or []string.
type field struct {
	name     string
	required bool
	set      func(value any) *problem
}

func (f field) must() field { f.required = true; return f }

func wrongType(name, want string) *problem {
	return &problem{http.StatusBadRequest, reasonWrongType, fmt.Sprintf("field %q is not %s", name, want)}
}

func outOfRange(name, want string) *problem {
	return &problem{http.StatusBadRequest, reasonOutOfRange, fmt.Sprintf("field %q is not %s", name, want)}
}

// textField is a string that valid accepts; want says what that is.
func textField(name string, into *string, want string, valid func(string) bool) field {
	return field{name: name, set: func(v any) *problem {
		s, ok := v.(string)
		switch {
		case !ok:
			return wrongType(name, "a string")
		case !valid(s):
			return outOfRange(name, want)
		}
		*into = s
		return nil
	}}
}

// idField is an id: 1 to 128 bytes without control characters.
func idField(name string, into *string) field {
	return textField(name, into, "an id of 1 to 128 bytes without control characters", validID)
}

// enumField is one of a few strings.
func enumField(name string, into *string, values ...string) field {
	return textField(name, into, "one of "+strings.Join(values, ", "), func(s string) bool {
		for _, v := range values {
			if s == v {
				return true
			}
		}
		return false
	})
}

// keyField is the key of a client.
func keyField(into *string) field {
	return textField("authKey", into, "a key of 32 to 72 bytes", func(s string) bool {
		return len(s) >= minKeyBytes && len(s) <= maxKeyBytes
	})
}

func boolField(name string, into *bool) field {
	return field{name: name, set: func(v any) *problem {
		b, ok := v.(bool)
		if !ok {
			return wrongType(name, "true or false")
		}
		*into = b
		return nil
	}}
}

// intField is a whole number from low to high, written without fraction and exponent.
func intField(name string, into *int, low, high int64) field {
	return field{name: name, set: func(v any) *problem {
		n, ok := v.(json.Number)
		if !ok || strings.ContainsAny(n.String(), ".eE") {
			return wrongType(name, "a whole number")
		}
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil || i < low || i > high {
			return outOfRange(name, fmt.Sprintf("from %d to %d", low, high))
		}
		*into = int(i)
		return nil
	}}
}

// secondsField is a number of seconds from low to high.
func secondsField(name string, into *time.Duration, low, high time.Duration) field {
	var seconds int
	f := intField(name, &seconds, int64(low/time.Second), int64(high/time.Second))
	return field{name: name, set: func(v any) *problem {
		if p := f.set(v); p != nil {
			return p
		}
		*into = time.Duration(seconds) * time.Second
		return nil
	}}
}

// listField is a list of at most count different strings that valid accepts.
func listField(name string, into *[]string, count int, want string, valid func(string) bool) field {
	return field{name: name, set: func(v any) *problem {
		list, ok := v.([]string)
		if !ok {
			return wrongType(name, "a list of strings")
		}
		if len(list) > count {
			return outOfRange(name, fmt.Sprintf("a list of at most %d", count))
		}
		seen := make(map[string]bool, len(list))
		for _, s := range list {
			if !valid(s) || seen[s] {
				return outOfRange(name, "a list of different "+want)
			}
			seen[s] = true
		}
		*into = list
		return nil
	}}
}

// validID reports whether s can be an id.
func validID(s string) bool { return validText(s, maxIDBytes) && s != "" }

func validClientID(s string) bool { return validText(s, maxClientID) && s != "" }

// validText reports whether s has at most n bytes, all of them UTF-8 without control characters.
func validText(s string, n int) bool {
	return len(s) <= n && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// body reads the body, which may be empty. If it cannot be had, or the client's credentials have not
// outlived the wait for it, the request has been answered.
func (x *exchange) body() ([]byte, bool) {
	if x.r.ContentLength > maxBodyBytes {
		x.w.Header().Set("Connection", "close")
		x.tooLarge()
		return nil, false
	}
	data, err := io.ReadAll(http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, maxBodyBytes))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			x.tooLarge()
		} else {
			x.refuse(problem{http.StatusBadRequest, reasonBadJSON, err.Error()})
		}
		return nil, false
	}
	if x.r.ContentLength != 0 && !x.stillAuthorized() {
		return nil, false
	}
	return data, true
}

func (x *exchange) tooLarge() {
	x.h.Metrics.LimitHit(LimitBody)
	x.refuse(problem{http.StatusRequestEntityTooLarge, reasonTooLarge, errBodyTooLarge.Error()})
}

// decode reads one JSON object with nothing but these fields in it, each at most once, and nothing
// behind it. No body is an object without fields. If that fails, the request has been answered.
func (x *exchange) decode(fields ...field) bool {
	data, ok := x.body()
	if !ok {
		return false
	}
	if p := decodeFields(data, fields); p != nil {
		x.refuse(*p)
		return false
	}
	return true
}

// decodeFields is decode on bytes.
func decodeFields(data []byte, fields []field) *problem {
	seen := make([]bool, len(fields))
	if len(bytes.TrimSpace(data)) > 0 {
		if p := readObject(data, fields, seen); p != nil {
			return p
		}
	}
	for i, f := range fields {
		if f.required && !seen[i] {
			return &problem{http.StatusBadRequest, reasonMissing, fmt.Sprintf("field %q is missing", f.name)}
		}
	}
	return nil
}

func badJSON(text string) *problem {
	return &problem{http.StatusBadRequest, reasonBadJSON, text}
}

func readObject(data []byte, fields []field, seen []bool) *problem {
	if !utf8.Valid(data) {
		return badJSON("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return badJSON("the body is not a JSON object")
	}
	for dec.More() {
		t, err := dec.Token()
		name, isString := t.(string)
		if err != nil || !isString {
			return badJSON("the body is not valid JSON")
		}
		i := indexOf(fields, name)
		if i < 0 {
			return &problem{http.StatusBadRequest, reasonUnknownField, fmt.Sprintf("unknown field %q", clip(name, maxNameBytes))}
		}
		if seen[i] {
			return &problem{http.StatusBadRequest, reasonDuplicate, fmt.Sprintf("field %q is there twice", name)}
		}
		seen[i] = true
		value, p := readValue(dec, name)
		if p == nil {
			p = fields[i].set(value)
		}
		if p != nil {
			return p
		}
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return badJSON("the body is not valid JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return badJSON("something follows the JSON object")
	}
	return nil
}

func indexOf(fields []field, name string) int {
	for i := range fields {
		if fields[i].name == name {
			return i
		}
	}
	return -1
}

// readValue reads a value no deeper than a list of strings.
func readValue(dec *json.Decoder, name string) (any, *problem) {
	t, err := dec.Token()
	switch {
	case err != nil:
		return nil, badJSON("the body is not valid JSON")
	case t == json.Delim('{'):
		return nil, wrongType(name, "what it has to be, but an object")
	case t != json.Delim('['):
		return t, nil
	}
	list := []string{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, badJSON("the body is not valid JSON")
		}
		s, ok := t.(string)
		if !ok {
			return nil, wrongType(name, "a list of strings")
		}
		list = append(list, s)
	}
	if _, err := dec.Token(); err != nil {
		return nil, badJSON("the body is not valid JSON")
	}
	return list, nil
}

// query reads the parameters of a request, of which there are none but these, each at most once.
// If that fails, the request has been answered.
func (x *exchange) query(names ...string) (url.Values, bool) {
	refuse := func(reason, text string) (url.Values, bool) {
		x.refuse(problem{http.StatusBadRequest, reason, text})
		return nil, false
	}
	if len(x.r.URL.RawQuery) > maxQueryBytes {
		return refuse(reasonBadQuery, "the query is too long")
	}
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return refuse(reasonBadQuery, "the query is malformed")
	}
	for name, values := range q {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		switch {
		case !known:
			return refuse(reasonUnknownField, fmt.Sprintf("unknown parameter %q", clip(name, maxNameBytes)))
		case len(values) > 1:
			return refuse(reasonDuplicate, fmt.Sprintf("parameter %q is there twice", name))
		}
	}
	return q, true
}

// page reads where a list begins, and how much of it is wanted. ids says what can be an id.
func (x *exchange) page(ids func(string) bool) (after string, limit int, ok bool) {
	q, ok := x.query("after", "limit")
	if !ok {
		return "", 0, false
	}
	after = q.Get("after")
	if after != "" && !ids(after) {
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, `parameter "after" is not an id`})
		return "", 0, false
	}
	limit, ok = x.limit(q)
	return after, limit, ok
}

// limit reads the parameter of that name.
func (x *exchange) limit(q url.Values) (int, bool) {
	if !q.Has("limit") {
		return defaultPage, true
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > maxPage {
		x.refuse(problem{http.StatusBadRequest, reasonOutOfRange, fmt.Sprintf(`parameter "limit" is not from 1 to %d`, maxPage)})
		return 0, false
	}
	return n, true
}
