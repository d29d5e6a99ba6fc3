package engine

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// loggerFactory turns pion's logs into debug lines. Endpoints can provoke any of them, so none is
// more to an operator than that.
type loggerFactory struct{ log *slog.Logger }

func (f loggerFactory) NewLogger(scope string) logging.LeveledLogger {
	return pionLogger{f.log, scope}
}

// pionLogger is one of some twenty of a peer connection, so it adds the scope to a line when there
// is one.
type pionLogger struct {
	log   *slog.Logger
	scope string
}

func (pionLogger) Trace(string)          {}
func (pionLogger) Tracef(string, ...any) {}
func (pionLogger) Debug(string)          {}
func (pionLogger) Debugf(string, ...any) {}
func (pionLogger) Info(string)           {}
func (pionLogger) Infof(string, ...any)  {}

func (l pionLogger) Warn(msg string)                   { l.log.Debug(msg, "scope", l.scope) }
func (l pionLogger) Warnf(format string, args ...any)  { l.debugf(format, args) }
func (l pionLogger) Error(msg string)                  { l.log.Debug(msg, "scope", l.scope) }
func (l pionLogger) Errorf(format string, args ...any) { l.debugf(format, args) }

func (l pionLogger) debugf(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...), "scope", l.scope)
	}
}
