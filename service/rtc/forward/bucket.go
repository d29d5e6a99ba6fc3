package forward

import "time"

// bucket is a token bucket. It holds units times nanoseconds, so that refilling loses nothing.
type bucket struct {
	credit int64
	at     time.Duration
	filled bool // has had its first, full, load
}

// take takes n units at a rate per second, with bursts of one second's worth. now must not run
// backwards.
func (b *bucket) take(n int, rate int64, now time.Duration) bool {
	full := rate * int64(time.Second)
	if since := now - b.at; !b.filled || since >= time.Second {
		b.credit, b.filled = full, true
	} else if since > 0 {
		b.credit = min(full, b.credit+int64(since)*rate)
	}
	b.at = max(b.at, now)
	cost := int64(n) * int64(time.Second)
	if b.credit < cost {
		return false
	}
	b.credit -= cost
	return true
}
