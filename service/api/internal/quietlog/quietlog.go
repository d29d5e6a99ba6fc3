// Package quietlog writes log lines that a peer could provoke at will: at most one per reason
// and interval, so that bad input does not fill a disk.
package quietlog

import (
	"log/slog"
	"time"

	"rtcd/service/logging"
)

// Interval is the time between two lines for the same reason.
const Interval = 10 * time.Second

// A Logger is safe for concurrent use.
type Logger struct {
	log   *slog.Logger
	limit *logging.Limiter
}

// New returns a Logger on top of log.
func New(log *slog.Logger) *Logger {
	return &Logger{log: log, limit: logging.NewLimiter(Interval)}
}

// Warn writes a line at level warn unless there was one for the same reason within Interval; the
// next one says how many there would have been. The reason is a constant of the caller, never input.
func (l *Logger) Warn(reason string, args ...any) {
	l.limit.Write(l.log, slog.LevelWarn, reason, args...)
}

// Error is Warn at level error.
func (l *Logger) Error(reason string, args ...any) {
	l.limit.Write(l.log, slog.LevelError, reason, args...)
}
