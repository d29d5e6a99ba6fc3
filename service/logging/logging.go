// Package logging builds the server's logger: lines on standard output, in a file, or both, each
// with its own level, as JSON or as plain text.
//
// A JSON line is an object with timestamp, level, msg and caller, then the attributes. A plain line
// is
//
//	info  [2026-11-22 03:49:23.272 Z] message padded to 45 characters               caller=file.go:12 key=value key="value with blanks"
//
// In both, whatever a peer may have sent (line breaks, terminal escapes, bidirectional controls) is
// escaped, so that it can neither start a line nor change how one looks. Attributes of groups are
// written flat, as group.key; one that is named like a field of the line itself gets the prefix
// "field." so that it cannot be taken for it. A value with a LogValue method (slog.LogValuer)
// decides itself what is shown of it.
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Levels beyond those of slog. A lower one includes all higher ones.
const (
	LevelStdlog = slog.Level(-12) // everything
	LevelTrace  = slog.Level(-8)
	LevelFatal  = slog.Level(12)
	LevelPanic  = slog.Level(16)
)

var levelNames = []struct {
	name  string
	level slog.Level
}{
	{"panic", LevelPanic},
	{"fatal", LevelFatal},
	{"error", slog.LevelError},
	{"warn", slog.LevelWarn},
	{"info", slog.LevelInfo},
	{"debug", slog.LevelDebug},
	{"trace", LevelTrace},
	{"stdlog", LevelStdlog},
}

// ParseLevel returns the level of a name, in any letter case.
func ParseLevel(name string) (slog.Level, error) {
	for _, l := range levelNames {
		if strings.EqualFold(name, l.name) {
			return l.level, nil
		}
	}
	return 0, fmt.Errorf("parse log level: unknown name %q", name)
}

// levelName returns the name of the highest level that l reaches.
func levelName(l slog.Level) string {
	for _, n := range levelNames {
		if l >= n.level {
			return n.name
		}
	}
	return "stdlog"
}

// Config says where lines go. Levels are names as ParseLevel takes them.
type Config struct {
	EnableConsole bool
	ConsoleJSON   bool
	ConsoleLevel  string
	EnableColor   bool // of the level, on a plain console

	EnableFile   bool
	FileJSON     bool
	FileLevel    string
	FileLocation string // path; its folder is made if missing

	// RedactAddresses cuts every address in a line to its /24 or /48, without its port, but for those
	// of OwnAddresses, which are of this machine.
	RedactAddresses bool
	OwnAddresses    []netip.Addr

	// Console replaces standard output, for tests.
	Console io.Writer
}

// redacted returns the writer that lines for out go to.
func (c *Config) redacted(out io.Writer) io.Writer {
	if !c.RedactAddresses {
		return out
	}
	return newRedactor(out, c.OwnAddresses)
}

// New returns a logger and what closes it. Whoever writes a line never waits for where it goes: each
// target has a queue of its own, which drops lines when it is full (see Output).
//
// A file that cannot be written does not stop the start: the console says so and, if it was off,
// takes the lines instead. Errors are about the levels alone.
func New(cfg Config) (*slog.Logger, *Output, error) {
	if cfg.Console == nil {
		cfg.Console = os.Stdout
	}
	var consoleLevel, fileLevel slog.Level
	var err error
	if cfg.EnableConsole {
		if consoleLevel, err = ParseLevel(cfg.ConsoleLevel); err != nil {
			return nil, nil, fmt.Errorf("console: %w", err)
		}
	}
	if cfg.EnableFile {
		if fileLevel, err = ParseLevel(cfg.FileLevel); err != nil {
			return nil, nil, fmt.Errorf("file: %w", err)
		}
	}
	consoleFormat := plainFormat(cfg.EnableColor)
	if cfg.ConsoleJSON {
		consoleFormat = jsonFormat
	}
	if !cfg.EnableConsole && !cfg.EnableFile {
		return slog.New(slog.DiscardHandler), &Output{}, nil
	}
	out := &Output{console: newQueue(cfg.Console, consoleFormat, maxQueuedBytes)}
	console := cfg.redacted(out.console)
	var handlers []slog.Handler
	if cfg.EnableConsole {
		handlers = append(handlers, newHandler(console, consoleFormat, consoleLevel))
	}
	if cfg.EnableFile {
		complaints := slog.New(newHandler(console, consoleFormat, slog.LevelWarn))
		file, err := openFile(cfg.FileLocation, complaints)
		if err != nil {
			complaints.Warn("log file cannot be written", "location", cfg.FileLocation, "err", err)
			if !cfg.EnableConsole {
				handlers = append(handlers, newHandler(console, consoleFormat, fileLevel))
			}
		} else {
			fileFormat := plainFormat(false)
			if cfg.FileJSON {
				fileFormat = jsonFormat
			}
			out.files, out.file = file, newQueue(file, fileFormat, maxQueuedBytes)
			handlers = append(handlers, newHandler(cfg.redacted(out.file), fileFormat, fileLevel))
		}
	}
	if len(handlers) == 1 {
		return slog.New(handlers[0]), out, nil
	}
	return slog.New(slog.NewMultiHandler(handlers...)), out, nil
}

// openFile opens the log file, which reports later trouble to log, once in a while.
func openFile(path string, log *slog.Logger) (*rotatingFile, error) {
	if path == "" {
		return nil, errors.New("no location given")
	}
	every := NewLimiter(defaultInterval)
	return openRotating(path, maxFileBytes, func(err error) {
		every.Log(context.Background(), log, slog.LevelWarn, "file", "log file cannot be written", slog.String("location", path), slog.Any("err", err))
	})
}

// A handler formats records and writes each with one call.
type handler struct {
	out    io.Writer // for any goroutine
	format format
	level  slog.Level
	prefix string // of keys, "" or ending in '.'
	attrs  []byte // those of WithAttrs, formatted
}

func newHandler(out io.Writer, f format, level slog.Level) *handler {
	return &handler{out: out, format: f, level: level}
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	buf := buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooledBytes {
			buffers.Put(buf)
		}
	}()
	line := h.format.head((*buf)[:0], r)
	line = append(line, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		line = appendAttr(line, h.format, h.prefix, a)
		return true
	})
	line = h.format.tail(line)
	*buf = line
	_, err := h.out.Write(line)
	return err
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		next.attrs = appendAttr(next.attrs, h.format, h.prefix, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix = h.prefix + name + "."
	return &next
}

const maxPooledBytes = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// timeLayout is for UTC times, in milliseconds.
const timeLayout = "2006-01-02 15:04:05.000 Z"

func appendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, timeLayout) }
