package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

const (
	verifiedLifetime = 5 * time.Minute
	maxVerified      = 16_384
)

// A credential stands for an id and a key: their HMAC-SHA256 under a key that is in memory alone: of
// this process and of those that take over from it. The zero value stands for none.
type credential [sha256.Size]byte

// verifiedKeys remembers keys that were right, and the epoch in which they were. Nothing is ever
// remembered of a wrong one.
type verifiedKeys struct {
	secret []byte // fixed before the first use

	mu      sync.Mutex // guards the field below
	entries map[credential]*verifiedKey
}

type verifiedKey struct {
	id      string
	epoch   uint64
	expires time.Time
	held    int // connections that live with it; it does not expire while there are any
}

func newVerifiedKeys() *verifiedKeys {
	return &verifiedKeys{secret: random(sha256.Size), entries: make(map[credential]*verifiedKey)}
}

func (v *verifiedKeys) credential(id, key string) (c credential) {
	mac := hmac.New(sha256.New, v.secret)
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(id)))
	mac.Write(size[:])
	mac.Write([]byte(id))
	mac.Write([]byte(key))
	mac.Sum(c[:0])
	return c
}

// lookup returns the epoch in which c was right. The caller compares it with the present one, so that an
// entry outlives neither a change of the key, nor a removal, nor a registration anew.
func (v *verifiedKeys) lookup(c credential, now time.Time) (epoch uint64, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.entries[c]
	if !ok || e.expired(now) {
		return 0, false
	}
	return e.epoch, true
}

func (e *verifiedKey) expired(now time.Time) bool { return e.held == 0 && !now.Before(e.expires) }

func (v *verifiedKeys) add(c credential, id string, epoch uint64, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e, ok := v.entries[c]; ok {
		e.epoch, e.expires = max(e.epoch, epoch), now.Add(verifiedLifetime)
		return
	}
	if len(v.entries) >= maxVerified && !v.evict() {
		return
	}
	v.entries[c] = &verifiedKey{id: id, epoch: epoch, expires: now.Add(verifiedLifetime)}
}

// evict drops some entry that nobody holds. The caller holds mu.
func (v *verifiedKeys) evict() bool {
	for c, e := range v.entries {
		if e.held == 0 {
			delete(v.entries, c)
			return true
		}
	}
	return false
}

func (v *verifiedKeys) hold(c credential) (release func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.entries[c]
	if !ok {
		return func() {}
	}
	e.held++
	var once sync.Once
	return func() {
		once.Do(func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			e.held--
			e.expires = time.Now().Add(verifiedLifetime)
		})
	}
}

func (v *verifiedKeys) forget(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c, e := range v.entries {
		if e.id == id {
			delete(v.entries, c)
		}
	}
}

func (v *verifiedKeys) sweep(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c, e := range v.entries {
		if e.expired(now) {
			delete(v.entries, c)
		}
	}
}
