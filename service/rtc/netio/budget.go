package netio

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"
)

const (
	budgetSets = 1024 // sets of the table of a budget
	budgetWays = 4    // entries in a set

	// checkRate is how many checks per second one source may send to one ICE agent that it names, and
	// how many at once. An endpoint checks a pair 20 times a second at most (RFC 8445 section 14.3),
	// and has few pairs with us.
	checkRate = 50

	// provenTime is for how long a path counts as proven that ICE has written to: consent to send
	// lasts as long (RFC 7675 section 5.1).
	provenTime = 30 * time.Second
)

// budgets limit the control packets of paths whose endpoints are not attached yet. Each kind has a
// budget of its own, so that none can use up what another one needs:
//
//   - A path that ICE has written to is proven: that is what a check with the right password leads to.
//     It has the rate that a source has, so that endpoints which join behind one address at once do
//     not take each other's.
//   - A check that names an agent of ours may be the first of an endpoint. Names are told over
//     signalling alone, which makes this a budget of those who know one, for each source and name.
//   - All else counts as junk, by its source.
type budgets struct {
	junk, checks, proven *budget
}

func newBudgets(perSource, all int) budgets {
	return budgets{
		junk:   newBudget(perSource, all),
		checks: newBudget(min(perSource, checkRate), all),
		proven: newBudget(perSource, all),
	}
}

// allow takes one packet of a path from the budget that it belongs to, and tells why if there is
// none. name is the agent that it names, if that is one of ours, else nil. now is any clock that
// does not run backwards.
func (b *budgets) allow(from Path, name []byte, now time.Duration) (why Drop, ok bool) {
	if why, ok, proven := b.proven.allowKnown(pathShare(from), now); proven {
		return why, ok
	}
	if name != nil {
		return b.checks.allow(b.checks.nameShare(from, name), now)
	}
	return b.junk.allow(sourceShare(from), now)
}

// prove notes that ICE has written to a path.
func (b *budgets) prove(to Path, now time.Duration) { b.proven.note(pathShare(to), now) }

// isProven reports whether prove was called for a path not too long ago.
func (b *budgets) isProven(p Path, now time.Duration) bool {
	return b.proven.isNoted(pathShare(p), now)
}

// shareKey says whose share of a budget is meant.
type shareKey struct {
	addr [16]byte
	id   uint64
}

func sourceShare(p Path) shareKey { return shareKey{addr: sourceKey(p.addr)} }

func pathShare(p Path) shareKey {
	var b [8]byte
	binary.BigEndian.PutUint16(b[0:], p.port)
	binary.BigEndian.PutUint16(b[2:], p.local)
	binary.BigEndian.PutUint16(b[4:], p.flags)
	return shareKey{addr: p.addr, id: binary.BigEndian.Uint64(b[:])}
}

// nameShare is that of a source which names an agent.
func (b *budget) nameShare(p Path, name []byte) shareKey {
	return shareKey{addr: sourceKey(p.addr), id: maphash.Bytes(b.seed, name)}
}

// budget is a rate for each share and one for all. Its memory is fixed: 4,096 shares, the one that
// was quiet longest in its set makes room. One that was pushed out starts again with a full bucket,
// so a flood of forged addresses takes nothing from an honest one.
type budget struct {
	each, all int64 // packets per second, also the burst
	seed      maphash.Seed

	mu     sync.Mutex
	global bucket                        // guarded by mu
	sets   [budgetSets][budgetWays]share // guarded by mu
}

type share struct {
	key    shareKey
	bucket bucket
	noted  time.Duration // when it was noted last
	used   bool
}

func newBudget(each, all int) *budget {
	return &budget{
		each:   int64(each),
		all:    int64(all),
		seed:   maphash.MakeSeed(),
		global: bucket{credit: int64(all) * int64(time.Second)},
	}
}

// bucket is a token bucket. credit is in packets times nanoseconds, so that refilling is a
// multiplication and loses nothing.
type bucket struct {
	credit int64
	at     time.Duration // when credit was last brought up to date
}

// take takes one packet at a rate, with bursts of one second's worth.
func (b *bucket) take(now time.Duration, rate int64) bool {
	full := rate * int64(time.Second)
	if since := now - b.at; since >= time.Second {
		b.credit = full
	} else if since > 0 {
		b.credit = min(full, b.credit+int64(since)*rate)
	}
	b.at = max(b.at, now)
	if b.credit < int64(time.Second) {
		return false
	}
	b.credit -= int64(time.Second)
	return true
}

// allow takes one packet of a share from the budget.
func (b *budget) allow(key shareKey, now time.Duration) (why Drop, ok bool) {
	set := b.set(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeLocked(find(set, key, now, b.each), now)
}

// allowKnown is allow for a share that was noted not too long ago; known is false for others.
func (b *budget) allowKnown(key shareKey, now time.Duration) (why Drop, ok, known bool) {
	set := b.set(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range set {
		if s := &set[i]; s.used && s.key == key && now-s.noted < provenTime {
			why, ok = b.takeLocked(s, now)
			return why, ok, true
		}
	}
	return 0, false, false
}

// isNoted reports whether a share was noted not too long ago.
func (b *budget) isNoted(key shareKey, now time.Duration) bool {
	set := b.set(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range set {
		if s := &set[i]; s.used && s.key == key && s.noted > 0 && now-s.noted < provenTime {
			return true
		}
	}
	return false
}

// note makes a share known.
func (b *budget) note(key shareKey, now time.Duration) {
	set := b.set(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	find(set, key, now, b.each).noted = now
}

func (b *budget) takeLocked(s *share, now time.Duration) (why Drop, ok bool) {
	if !s.bucket.take(now, b.each) {
		return DropSourceBudget, false
	}
	if !b.global.take(now, b.all) {
		return DropGlobalBudget, false
	}
	return 0, true
}

// set returns the set that a share is in; b.mu guards it.
func (b *budget) set(key shareKey) *[budgetWays]share {
	return &b.sets[maphash.Comparable(b.seed, key)%budgetSets]
}

// find returns the share of key, a new full one in the place of the one that was quiet longest if
// there is none.
func find(set *[budgetWays]share, key shareKey, now time.Duration, rate int64) *share {
	oldest := 0
	for i := range set {
		s := &set[i]
		if s.used && s.key == key {
			return s
		}
		if !s.used || set[oldest].used && s.quietSince() < set[oldest].quietSince() {
			oldest = i
		}
	}
	set[oldest] = share{key: key, used: true, bucket: bucket{credit: rate * int64(time.Second), at: now}}
	return &set[oldest]
}

func (s *share) quietSince() time.Duration { return max(s.bucket.at, s.noted) }
