// Package quietlog writes log lines that a peer could provoke at will: at most one per reason
// and interval, so that bad input does not fill a disk.
package quietlog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Interval is the time between two lines for the same reason.
const Interval = 10 * time.Second

// A Logger is safe for concurrent use.
type Logger struct {
	log *slog.Logger

	mu   sync.Mutex
	next map[string]time.Time
}

// New returns a Logger on top of log.
func New(log *slog.Logger) *Logger {
	return &Logger{log: log, next: make(map[string]time.Time)}
}

// Warn writes a line at level warn unless there was one for the same reason within Interval.
// The reason is a constant of the caller, never input: each gets an entry in a table.
func (l *Logger) Warn(reason string, args ...any) { l.write(slog.LevelWarn, reason, args) }

// Error is Warn at level error.
func (l *Logger) Error(reason string, args ...any) { l.write(slog.LevelError, reason, args) }

func (l *Logger) write(level slog.Level, reason string, args []any) {
	now := time.Now()
	l.mu.Lock()
	due := !now.Before(l.next[reason])
	if due {
		l.next[reason] = now.Add(Interval)
	}
	l.mu.Unlock()
	if due {
		l.log.Log(context.Background(), level, reason, args...)
	}
}
