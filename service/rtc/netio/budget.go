package netio

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	budgetSets = 1024 // sets of the source table
	budgetWays = 4    // sources in a set
)

// budget limits control packets of paths that have proven nothing yet: a rate for each source
// and one for all. Its memory is fixed: 4,096 sources, the one that was quiet longest in its set
// makes room. A source that was pushed out starts again with a full bucket, so a flood of forged
// addresses takes nothing from an honest one.
type budget struct {
	perSource, all int64 // packets per second, also the burst
	seed           maphash.Seed

	mu      sync.Mutex
	global  bucket
	sources [budgetSets][budgetWays]source // guarded by mu
}

type source struct {
	key    [16]byte
	bucket bucket
	used   bool
}

func newBudget(perSource, all int) *budget {
	return &budget{
		perSource: int64(perSource),
		all:       int64(all),
		seed:      maphash.MakeSeed(),
		global:    bucket{credit: int64(all) * int64(time.Second)},
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

// allow takes one packet of addr from the budget, and tells why if there is none. now is any
// clock that does not run backwards.
func (b *budget) allow(addr [16]byte, now time.Duration) (why Drop, ok bool) {
	key := sourceKey(addr)
	set := &b.sources[maphash.Bytes(b.seed, key[:])%budgetSets]

	b.mu.Lock()
	defer b.mu.Unlock()
	if !find(set, key, now, b.perSource).take(now, b.perSource) {
		return DropSourceBudget, false
	}
	if !b.global.take(now, b.all) {
		return DropGlobalBudget, false
	}
	return 0, true
}

// find returns the bucket of key, a new full one in the place of the oldest if there is none.
func find(set *[budgetWays]source, key [16]byte, now time.Duration, rate int64) *bucket {
	oldest := 0
	for i := range set {
		s := &set[i]
		if s.used && s.key == key {
			return &s.bucket
		}
		if !s.used || set[oldest].used && s.bucket.at < set[oldest].bucket.at {
			oldest = i
		}
	}
	set[oldest] = source{key: key, used: true, bucket: bucket{credit: rate * int64(time.Second), at: now}}
	return &set[oldest].bucket
}
