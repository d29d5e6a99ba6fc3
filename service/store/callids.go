package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/dgraph-io/badger/v4"
)

// Bounds of the call ids that are kept.
const (
	// DefaultMaxCallIDs is the number of used call ids a store takes, of all groups together.
	DefaultMaxCallIDs = 400_000
	// callIDShare is the part of them that one group may have: 1 of so many.
	callIDShare = 4
	// maxCallIDBytes bounds a call id.
	maxCallIDBytes = 128
	// sweepEvery is how often expired call ids are dropped from memory, at most.
	sweepEvery = time.Minute
)

// ErrCallIDs: the cap on used call ids is reached, of the group or of the store. It passes as they
// expire.
var ErrCallIDs = errors.New("too many used call ids")

// callIDs holds the used call ids of each group until they expire. A call id counts by the first half of
// its SHA-256: 2^64 tries of one group to find two that collide would only cost itself an id.
type callIDs struct {
	max     int
	byGroup map[string]map[callSum]int64 // to expiry, Unix seconds
	count   int
	swept   time.Time
}

type callSum [sha256.Size / 2]byte

func sumOf(call string) (s callSum) {
	full := sha256.Sum256([]byte(call))
	copy(s[:], full[:])
	return s
}

func newCallIDs(limit int) callIDs {
	if limit <= 0 {
		limit = DefaultMaxCallIDs
	}
	return callIDs{max: limit, byGroup: make(map[string]map[callSum]int64)}
}

func (c *callIDs) used(group string, sum callSum, now time.Time) bool {
	until, ok := c.byGroup[group][sum]
	return ok && now.Unix() < until
}

func (c *callIDs) add(group string, sum callSum, until int64) {
	sums := c.byGroup[group]
	if sums == nil {
		sums = make(map[callSum]int64)
		c.byGroup[group] = sums
	}
	if _, known := sums[sum]; !known {
		c.count++
	}
	sums[sum] = until
}

// full reports whether there is no room for one more of a group.
func (c *callIDs) full(group string) bool {
	return c.count >= c.max || len(c.byGroup[group]) >= max(c.max/callIDShare, 1)
}

// sweep drops what has expired, not more often than each sweepEvery.
func (c *callIDs) sweep(now time.Time) {
	if now.Sub(c.swept).Abs() < sweepEvery {
		return
	}
	c.swept = now
	for group, sums := range c.byGroup {
		for sum, until := range sums {
			if until <= now.Unix() {
				delete(sums, sum)
				c.count--
			}
		}
		if len(sums) == 0 {
			delete(c.byGroup, group)
		}
	}
}

// callIDPrefix begins the key of a used call id; 1 byte length of the group, the group and the sum of
// the call id follow. Badger drops the entry when it expires.
var callIDPrefix = []byte("callid/")

func callIDKey(group string, sum callSum) []byte {
	b := append(make([]byte, 0, len(callIDPrefix)+1+len(group)+len(sum)), callIDPrefix...)
	b = append(b, byte(len(group)))
	return append(append(b, group...), sum[:]...)
}

func parseCallIDKey(key []byte) (group string, sum callSum, err error) {
	rest := key[len(callIDPrefix):]
	if len(rest) == 0 || len(rest) != 1+int(rest[0])+len(sum) {
		return "", sum, errRecordForm
	}
	group = string(rest[1 : 1+rest[0]])
	copy(sum[:], rest[1+rest[0]:])
	return group, sum, checkGroup(group)
}

func checkGroup(group string) error {
	if group == "" || len(group) > maxIDBytes || !utf8.ValidString(group) {
		return fmt.Errorf("%w: group of %d bytes", ErrInvalid, len(group))
	}
	return nil
}

// encodeCallID returns the value: version, checksum that covers the key, 8 bytes of Unix seconds. Badger's
// own note of the expiry has no checksum that covers the key.
func encodeCallID(key []byte, until int64) []byte {
	b := make([]byte, epochRecordSize)
	b[0] = recordVersion
	binary.BigEndian.PutUint64(b[5:], uint64(until))
	binary.BigEndian.PutUint32(b[1:], recordChecksum(string(key), b))
	return b
}

func decodeCallID(key, b []byte) (until int64, err error) {
	if err := sound(string(key), b, epochRecordSize); err != nil {
		return 0, err
	}
	if len(b) != epochRecordSize {
		return 0, errRecordForm
	}
	return int64(binary.BigEndian.Uint64(b[5:])), nil
}

// UseCallID notes that a group has used a call id, for so long as until says, and returns ErrConflict if
// it was used before and that has not expired. Of several calls with one id exactly one succeeds. When it
// returns nil, the note is on disk. Other errors: ErrCallIDs, ErrInvalid, and those of Insert.
func (s *Store) UseCallID(ctx context.Context, group, call string, until time.Time) error {
	if err := checkGroup(group); err != nil {
		return err
	}
	if call == "" || len(call) > maxCallIDBytes {
		return fmt.Errorf("%w: call id of %d bytes", ErrInvalid, len(call))
	}
	sum := sumOf(call)
	// Rounded up, so that it never ends early; it is kept in seconds.
	expires := until.Add(time.Second - 1).Unix()
	return s.write(ctx, func() error {
		now := time.Now()
		s.mu.Lock()
		used := s.callIDs.used(group, sum, now)
		full := s.callIDs.full(group)
		if full {
			s.callIDs.sweep(now)
			full = s.callIDs.full(group)
		}
		s.mu.Unlock()
		switch {
		case used:
			return ErrConflict
		case expires <= now.Unix():
			return nil // expired already
		case full:
			return fmt.Errorf("%w: the limit is %d, and %d for one group", ErrCallIDs, s.callIDs.max, max(s.callIDs.max/callIDShare, 1))
		}
		key := callIDKey(group, sum)
		return s.commit(func(txn *badger.Txn) error {
			entry := badger.NewEntry(key, encodeCallID(key, expires))
			entry.ExpiresAt = uint64(expires)
			return txn.SetEntry(entry)
		}, func() { s.callIDs.add(group, sum, expires) })
	})
}

// CallIDUsed reports whether a group has used a call id, and that has not expired.
func (s *Store) CallIDUsed(group, call string) (bool, error) {
	sum := sumOf(call)
	now := time.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false, ErrClosed
	}
	return s.callIDs.used(group, sum, now), nil
}
