package logging

import (
	"context"
	"log/slog"
	"slices"
)

// Burst is how many lines of one reason Quiet and NewBurstLimiter let through in 10 s: enough for what happens once to an
// endpoint or a backend and for a second try, too few to fill a disk.
const Burst = 3

// Quiet returns a logger for what peers can provoke at will: of the lines with the same message, and
// the same values of the attributes named, it writes Burst in 10 s; the next one after that has the
// number of those held back as suppressed. Loggers made from it by With share what they count. An
// attribute named has few values, or such as peers cannot choose: the 1024 first to come are told
// apart, all others share one reason.
func Quiet(log *slog.Logger, attrs ...string) *slog.Logger {
	return slog.New(&quietHandler{out: log.Handler(), limit: NewBurstLimiter(), keys: attrs})
}

type quietHandler struct {
	out   slog.Handler
	limit *Limiter
	keys  []string
	why   string // values of keys among the attributes of With
}

// Enabled implements slog.Handler.
func (h *quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.out.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *quietHandler) Handle(ctx context.Context, r slog.Record) error {
	why := r.Message + h.why
	if len(h.keys) > 0 {
		r.Attrs(func(a slog.Attr) bool {
			why = h.reason(why, a)
			return true
		})
	}
	ok, suppressed := h.limit.Allow(why)
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64("suppressed", suppressed))
	}
	return h.out.Handle(ctx, r)
}

func (h *quietHandler) reason(why string, a slog.Attr) string {
	if slices.Contains(h.keys, a.Key) {
		why += "\x00" + a.Value.String()
	}
	return why
}

// WithAttrs implements slog.Handler.
func (h *quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.out = h.out.WithAttrs(attrs)
	for _, a := range attrs {
		next.why = h.reason(next.why, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *quietHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.out = h.out.WithGroup(name)
	return &next
}
