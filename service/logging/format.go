package logging

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A format writes the parts of a line.
type format struct {
	head func(b []byte, r slog.Record) []byte
	key  func(b []byte, key string) []byte // with what separates it from the part before
	text func(b []byte, s string) []byte
	// raw writes an encoded JSON value.
	raw  func(b []byte, s string) []byte
	tail func(b []byte) []byte
}

const (
	minMessage = 45 // characters of a plain line's message, padded
	minLevel   = 5
)

var jsonFormat = format{
	head: func(b []byte, r slog.Record) []byte {
		b = append(b, '{')
		if !r.Time.IsZero() {
			b = append(b, `"timestamp":"`...)
			b = appendTime(b, r.Time)
			b = append(b, `",`...)
		}
		b = append(b, `"level":"`...)
		b = append(b, levelName(r.Level)...)
		b = append(b, `","msg":`...)
		b = appendJSONString(b, r.Message)
		if caller := caller(r.PC); caller != "" {
			b = append(b, `,"caller":`...)
			b = appendJSONString(b, caller)
		}
		return b
	},
	key: func(b []byte, key string) []byte {
		b = append(b, ',')
		b = appendJSONString(b, key)
		return append(b, ':')
	},
	text: appendJSONString,
	raw:  func(b []byte, s string) []byte { return appendEscaped(b, s, escapeJSON) },
	tail: func(b []byte) []byte { return append(b, "}\n"...) },
}

// plainFormat returns the format for people.
func plainFormat(color bool) format {
	return format{
		head: func(b []byte, r slog.Record) []byte {
			name := levelName(r.Level)
			if color {
				b = append(b, colorOf(name)...)
			}
			b = append(b, name...)
			b = appendBlanks(b, minLevel-len(name))
			if color {
				b = append(b, "\x1b[0m"...)
			}
			b = append(b, ' ')
			if !r.Time.IsZero() {
				b = append(b, '[')
				b = appendTime(b, r.Time)
				b = append(b, "] "...)
			}
			start := len(b)
			b = appendEscaped(b, r.Message, escapeGo)
			b = appendBlanks(b, minMessage-utf8.RuneCount(b[start:]))
			if caller := caller(r.PC); caller != "" {
				b = append(b, " caller="...)
				b = appendPlain(b, caller)
			}
			return b
		},
		key: func(b []byte, key string) []byte {
			b = append(b, ' ')
			b = appendPlain(b, key)
			return append(b, '=')
		},
		text: appendPlain,
		raw:  appendPlain,
		tail: func(b []byte) []byte {
			for len(b) > 0 && b[len(b)-1] == ' ' {
				b = b[:len(b)-1]
			}
			return append(b, '\n')
		},
	}
}

func appendBlanks(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

func colorOf(level string) string {
	switch level {
	case "panic", "fatal", "error":
		return "\x1b[31m" // red
	case "warn":
		return "\x1b[33m" // yellow
	case "info":
		return "\x1b[36m" // cyan
	default:
		return "\x1b[90m" // grey
	}
}

// caller returns file.go:line.
func caller(pc uintptr) string {
	if pc == 0 {
		return ""
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	if frame.File == "" {
		return ""
	}
	return filepath.Base(frame.File) + ":" + strconv.Itoa(frame.Line)
}

// appendAttr writes an attribute, and those of a group each.
func appendAttr(b []byte, f format, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			b = appendAttr(b, f, prefix, member)
		}
		return b
	}
	if a.Key == "" && v.Equal(slog.Value{}) {
		return b
	}
	key := prefix + a.Key
	switch key {
	case "timestamp", "level", "msg", "caller":
		key = "field." + key
	}
	return appendValue(f.key(b, key), f, v)
}

func appendValue(b []byte, f format, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return f.text(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindFloat64:
		x := v.Float64()
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return f.text(b, strconv.FormatFloat(x, 'g', -1, 64)) // JSON has no such numbers
		}
		return strconv.AppendFloat(b, x, 'g', -1, 64)
	case slog.KindDuration:
		return f.text(b, v.Duration().String())
	case slog.KindTime:
		return f.text(b, v.Time().UTC().Format(timeLayout))
	default:
		return appendAny(b, f, v.Any())
	}
}

// appendAny writes a value of any type: as the text it says it is, else as JSON.
func appendAny(b []byte, f format, v any) []byte {
	text, isJSON := describe(v)
	if isJSON {
		return f.raw(b, text)
	}
	return f.text(b, text)
}

// describe calls methods of foreign values: a panic there becomes text.
func describe(v any) (text string, isJSON bool) {
	defer func() {
		if p := recover(); p != nil {
			text, isJSON = fmt.Sprintf("!PANIC: %v", p), false
		}
	}()
	switch v := v.(type) {
	case nil:
		return "null", true
	case error:
		return v.Error(), false
	case fmt.Stringer:
		return v.String(), false
	case encoding.TextMarshaler:
		t, err := v.MarshalText()
		if err != nil {
			return "!ERROR: " + err.Error(), false
		}
		return string(t), false
	case []byte:
		return string(v), false
	}
	j, err := json.Marshal(v)
	if err != nil {
		return "!ERROR: " + err.Error(), false
	}
	return string(j), true
}

// appendPlain writes a text, quoted if it has to be for a line to be read back.
func appendPlain(b []byte, s string) []byte {
	quote := s == "" || strings.ContainsAny(s, " \"=\\")
	for _, r := range s {
		quote = quote || !printable(r)
	}
	if !quote && utf8.ValidString(s) {
		return append(b, s...)
	}
	b = append(b, '"')
	for {
		i := strings.IndexAny(s, "\"\\")
		if i < 0 {
			break
		}
		b = appendEscaped(b, s[:i], escapeGo)
		b = append(b, '\\', s[i])
		s = s[i+1:]
	}
	b = appendEscaped(b, s, escapeGo)
	return append(b, '"')
}

func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for {
		i := strings.IndexAny(s, "\"\\")
		if i < 0 {
			break
		}
		b = appendEscaped(b, s[:i], escapeJSON)
		b = append(b, '\\', s[i])
		s = s[i+1:]
	}
	b = appendEscaped(b, s, escapeJSON)
	return append(b, '"')
}

// printable reports whether r shows as what it is: no control, no format character (bidirectional
// overrides, zero-width ones), no blank that is not U+0020.
func printable(r rune) bool {
	return r < utf8.RuneSelf && r >= ' ' && r != 0x7f || r >= utf8.RuneSelf && unicode.IsPrint(r)
}

// appendEscaped writes s with all that is not printable replaced by escape.
func appendEscaped(b []byte, s string, escape func(b []byte, r rune, raw string) []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if printable(r) && !(r == utf8.RuneError && size == 1) {
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		b = escape(b, r, s[i:i+size])
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// escapeGo writes a character as Go source does.
func escapeGo(b []byte, _ rune, raw string) []byte {
	q := strconv.Quote(raw)
	return append(b, q[1:len(q)-1]...)
}

// escapeJSON writes a character as JSON does, bytes that are not UTF-8 as the replacement character.
func escapeJSON(b []byte, r rune, _ string) []byte {
	switch r {
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	if r > 0xffff {
		r -= 0x10000
		return fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}
