package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

const (
	tokenBytes = 24
	tokenChars = 32 // base64 of tokenBytes
	maxTokens  = 16_384
)

// tokens holds one token per client (protocol, section 5.3), by its SHA-256 alone: what is found
// in memory opens nothing, and a lookup's time says nothing about a token. Times carry the
// monotonic clock, so that setting the wall clock neither ends nor revives one.
type tokens struct {
	mu       sync.Mutex // guards the fields below
	bySum    map[tokenSum]tokenEntry
	byClient map[string]tokenSum
}

type tokenSum [sha256.Size]byte

type tokenEntry struct {
	clientID string
	epoch    uint64
	expires  time.Time
}

func newTokens() *tokens {
	return &tokens{bySum: make(map[tokenSum]tokenEntry), byClient: make(map[string]tokenSum)}
}

// newToken returns a token and its sum.
func newToken() (string, tokenSum) {
	token := base64.RawURLEncoding.EncodeToString(random(tokenBytes))
	return token, sha256.Sum256([]byte(token))
}

// issue returns a new token, which replaces the client's former one, unless that is of a later epoch: then
// the new one is dead anyway.
func (t *tokens) issue(e tokenEntry) (string, error) {
	token, sum := newToken()
	t.mu.Lock()
	defer t.mu.Unlock()
	former, had := t.byClient[e.clientID]
	switch {
	case had && t.bySum[former].epoch > e.epoch:
		return token, nil
	case !had && len(t.bySum) >= maxTokens:
		return "", &LimitError{Limit: "tokens", RetryAfter: sweepInterval}
	}
	t.replace(former, sum, e)
	return token, nil
}

// replace puts one token in the place of another. The caller holds mu.
func (t *tokens) replace(former, sum tokenSum, e tokenEntry) {
	delete(t.bySum, former)
	t.bySum[sum] = e
	t.byClient[e.clientID] = sum
}

// refresh exchanges a token that is alive for a new one, atomically, and returns what it says. Errors are
// lookup's.
func (t *tokens) refresh(former string, now, expires time.Time) (string, tokenEntry, error) {
	token, sum := newToken()
	old := tokenSum(sha256.Sum256([]byte(former)))
	t.mu.Lock()
	defer t.mu.Unlock()
	e, err := t.find(old, now)
	if err != nil {
		return "", tokenEntry{}, err
	}
	e.expires = expires
	t.replace(old, sum, e)
	return token, e, nil
}

// lookup returns what a token says, ErrTokenInvalid or ErrTokenExpired.
func (t *tokens) lookup(token string, now time.Time) (tokenEntry, error) {
	sum := tokenSum(sha256.Sum256([]byte(token)))
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(sum, now)
}

// find is lookup by the sum. The caller holds mu.
func (t *tokens) find(sum tokenSum, now time.Time) (tokenEntry, error) {
	e, ok := t.bySum[sum]
	switch {
	case !ok:
		return tokenEntry{}, ErrTokenInvalid
	case !now.Before(e.expires):
		t.drop(sum)
		return tokenEntry{clientID: e.clientID}, ErrTokenExpired
	}
	return e, nil
}

// drop removes a token. The caller holds mu.
func (t *tokens) drop(sum tokenSum) {
	e, ok := t.bySum[sum]
	if !ok {
		return
	}
	delete(t.bySum, sum)
	if t.byClient[e.clientID] == sum {
		delete(t.byClient, e.clientID)
	}
}

func (t *tokens) revoke(token string) {
	sum := tokenSum(sha256.Sum256([]byte(token)))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(sum)
}

func (t *tokens) revokeClient(clientID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if sum, ok := t.byClient[clientID]; ok {
		t.drop(sum)
	}
}

func (t *tokens) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sum, e := range t.bySum {
		if !now.Before(e.expires) {
			t.drop(sum)
		}
	}
}
