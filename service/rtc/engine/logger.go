package engine

import (
	"context"
	"fmt"
	"log/slog"

	pionlog "github.com/pion/logging"

	"rtcd/service/logging"
)

// loggerFactory turns pion's logs into debug lines. Endpoints can provoke any of them, so none is
// more to an operator than that, and each comes a few times in 10 s at most.
type loggerFactory struct {
	log   *slog.Logger
	limit *logging.Limiter
}

func newLoggerFactory(log *slog.Logger) loggerFactory {
	return loggerFactory{log, logging.NewBurstLimiter()}
}

func (f loggerFactory) NewLogger(scope string) pionlog.LeveledLogger {
	return pionLogger{f, scope}
}

// pionLogger is one of some twenty of a peer connection, so it adds the scope to a line when there
// is one.
type pionLogger struct {
	loggerFactory
	scope string
}

func (pionLogger) Trace(string)          {}
func (pionLogger) Tracef(string, ...any) {}
func (pionLogger) Debug(string)          {}
func (pionLogger) Debugf(string, ...any) {}
func (pionLogger) Info(string)           {}
func (pionLogger) Infof(string, ...any)  {}

func (l pionLogger) Warn(msg string)                   { l.write(msg, func() string { return msg }) }
func (l pionLogger) Warnf(format string, args ...any)  { l.debugf(format, args) }
func (l pionLogger) Error(msg string)                  { l.write(msg, func() string { return msg }) }
func (l pionLogger) Errorf(format string, args ...any) { l.debugf(format, args) }

func (l pionLogger) debugf(format string, args []any) {
	l.write(format, func() string { return fmt.Sprintf(format, args...) })
}

// write writes a line unless there were too many of its scope and format.
func (l pionLogger) write(format string, text func() string) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	ok, suppressed := l.limit.Allow(l.scope + "\x00" + format)
	if !ok {
		return
	}
	attrs := []slog.Attr{slog.String("scope", l.scope)}
	if suppressed > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", suppressed))
	}
	l.log.LogAttrs(ctx, slog.LevelDebug, text(), attrs...)
}
