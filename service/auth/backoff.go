package auth

import (
	"net/netip"
	"sync"
	"time"
)

const (
	freeFailures   = 10 // within failureWindow
	failureWindow  = 30 * time.Second
	firstDelay     = time.Second
	maxDelay       = 25 * time.Second
	maxSources     = 8_192
	evictionSample = 16
)

// A source is who failed: an id as claimed, whether it exists or not, from one network. Failures
// elsewhere do not count, so that nobody can keep a client's owner out.
type source struct {
	id   string
	addr netip.Prefix
}

// network returns what one customer of a network provider controls: an IPv4 address or an
// IPv6 /64.
func network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address
	}
	return prefix
}

// failures slows down sources that fail too often: after freeFailures in failureWindow each
// further one doubles the time that the source has to stay away.
type failures struct {
	mu      sync.Mutex // guards the field below
	sources map[source]failure
}

type failure struct {
	count   int
	since   time.Time     // start of the window
	delay   time.Duration // 0 while free
	blocked time.Time     // no attempt before
	expires time.Time
}

func newFailures() *failures { return &failures{sources: make(map[source]failure)} }

// wait returns how long s has to stay away, at least a second if at all.
func (f *failures) wait(s source, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.sources[s]
	if !ok || !now.Before(e.blocked) {
		return 0
	}
	return max(e.blocked.Sub(now), time.Second)
}

// add counts a failure and reports whether it is the one that makes s wait for the first time.
func (f *failures) add(s source, now time.Time) (slowed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.sources[s]
	if !ok || !now.Before(e.expires) {
		if !ok && len(f.sources) >= maxSources {
			f.evict(now)
		}
		e = failure{}
	}
	if e.delay == 0 && now.Sub(e.since) >= failureWindow {
		e.count, e.since = 0, now
	}
	e.count++
	e.expires = now.Add(failureWindow)
	if e.count >= freeFailures {
		slowed = e.delay == 0
		e.delay = min(max(2*e.delay, firstDelay), maxDelay)
		e.blocked = now.Add(e.delay)
		e.expires = e.blocked.Add(failureWindow)
	}
	f.sources[s] = e
	return slowed
}

// evict makes room: of some entries it drops the one that matters for the shortest time. The
// caller holds mu.
func (f *failures) evict(now time.Time) {
	var victim source
	var earliest time.Time
	seen := 0
	for s, e := range f.sources {
		if seen == 0 || e.expires.Before(earliest) {
			victim, earliest = s, e.expires
		}
		if seen++; seen == evictionSample || !now.Before(earliest) {
			break
		}
	}
	delete(f.sources, victim)
}

func (f *failures) clear(s source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sources, s)
}

func (f *failures) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s, e := range f.sources {
		if !now.Before(e.expires) {
			delete(f.sources, s)
		}
	}
}
