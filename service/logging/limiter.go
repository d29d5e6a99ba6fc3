package logging

import (
	"context"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"time"
)

const (
	defaultInterval = 10 * time.Second
	// maxReasons bounds the reasons that are remembered; those beyond share one.
	maxReasons   = 1024
	otherReasons = "other"
)

// A Limiter lets one line per reason through in an interval, or a few, and counts the others. Its
// methods are safe for concurrent use.
type Limiter struct {
	interval time.Duration
	burst    int // lines in an interval

	mu      sync.Mutex         // guards reasons
	reasons map[string]*reason // nil at first
}

type reason struct {
	last       time.Time // when its interval began
	lines      int       // in it
	suppressed uint64
}

// NewLimiter returns a limiter; an interval of 0 means 10 s.
func NewLimiter(interval time.Duration) *Limiter {
	if interval <= 0 {
		interval = defaultInterval
	}
	return newLimiter(interval, 1)
}

// NewBurstLimiter returns a limiter that lets Burst lines through in 10 s.
func NewBurstLimiter() *Limiter { return newLimiter(defaultInterval, Burst) }

func newLimiter(interval time.Duration, burst int) *Limiter {
	return &Limiter{interval: interval, burst: burst}
}

// Allow reports whether a line with this reason may be written now, and how many have not been
// since the last that was. A reason is a constant of the program, not something a peer sent.
func (l *Limiter) Allow(why string) (ok bool, suppressed uint64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.reasons[why]
	if r == nil {
		if len(l.reasons) >= maxReasons {
			l.forgetLocked(now)
		}
		if len(l.reasons) >= maxReasons {
			why = otherReasons
			r = l.reasons[why]
		}
		if r == nil {
			if l.reasons == nil {
				l.reasons = make(map[string]*reason)
			}
			l.reasons[why] = &reason{last: now, lines: 1}
			return true, 0
		}
	}
	if now.Sub(r.last) >= l.interval {
		suppressed = r.suppressed
		*r = reason{last: now, lines: 1}
		return true, suppressed
	}
	if r.lines < l.burst {
		r.lines++
		return true, 0
	}
	r.suppressed++
	return false, 0
}

// forgetLocked makes room: reasons whose interval is over and that have held nothing back are as if
// they had never come.
func (l *Limiter) forgetLocked(now time.Time) {
	maps.DeleteFunc(l.reasons, func(_ string, r *reason) bool { return r.suppressed == 0 && now.Sub(r.last) >= l.interval })
}

// Log writes a line if Allow lets it, with the attribute suppressed if others were held back. The
// caller of Log is the caller that the line names.
func (l *Limiter) Log(ctx context.Context, log *slog.Logger, level slog.Level, why, msg string, attrs ...slog.Attr) {
	if !log.Enabled(ctx, level) {
		return
	}
	if ok, suppressed := l.Allow(why); ok {
		r := newRecord(3, level, msg)
		r.AddAttrs(attrs...)
		write(ctx, log, r, suppressed)
	}
}

// Write is Log for a message that is its own reason, with arguments as those of slog.Logger.Log. The
// line names the caller's caller, which is what a wrapper wants.
func (l *Limiter) Write(log *slog.Logger, level slog.Level, msg string, args ...any) {
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	if ok, suppressed := l.Allow(msg); ok {
		r := newRecord(4, level, msg)
		r.Add(args...)
		write(ctx, log, r, suppressed)
	}
}

// newRecord returns the record of a line that names a caller as runtime.Callers counts them.
func newRecord(skip int, level slog.Level, msg string) slog.Record {
	var pcs [1]uintptr
	runtime.Callers(skip, pcs[:])
	return slog.NewRecord(time.Now(), level, msg, pcs[0])
}

func write(ctx context.Context, log *slog.Logger, r slog.Record, suppressed uint64) {
	if suppressed > 0 {
		r.AddAttrs(slog.Uint64("suppressed", suppressed))
	}
	// A line that cannot be written has nowhere else to go.
	_ = log.Handler().Handle(ctx, r)
}

// Flush writes a line for each reason that has held lines back since its last one, for the end of
// the process or a regular report.
func (l *Limiter) Flush(ctx context.Context, log *slog.Logger) {
	l.mu.Lock()
	held := map[string]uint64{}
	for why, r := range l.reasons {
		if r.suppressed > 0 {
			held[why], r.suppressed = r.suppressed, 0
		}
	}
	l.mu.Unlock()
	for why, n := range held {
		log.LogAttrs(ctx, slog.LevelWarn, "log lines were suppressed", slog.String("reason", why), slog.Uint64("suppressed", n))
	}
}
