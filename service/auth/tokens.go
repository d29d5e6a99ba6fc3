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
	expires  time.Time
}

func newTokens() *tokens {
	return &tokens{bySum: make(map[tokenSum]tokenEntry), byClient: make(map[string]tokenSum)}
}

// issue returns a new token, which replaces the client's former one.
func (t *tokens) issue(clientID string, expires time.Time) (string, error) {
	token := base64.RawURLEncoding.EncodeToString(random(tokenBytes))
	sum := tokenSum(sha256.Sum256([]byte(token)))
	t.mu.Lock()
	defer t.mu.Unlock()
	former, had := t.byClient[clientID]
	if !had && len(t.bySum) >= maxTokens {
		return "", &LimitError{Limit: "tokens", RetryAfter: sweepInterval}
	}
	delete(t.bySum, former)
	t.bySum[sum] = tokenEntry{clientID, expires}
	t.byClient[clientID] = sum
	return token, nil
}

// lookup returns whose token it is, ErrTokenInvalid or ErrTokenExpired.
func (t *tokens) lookup(token string, now time.Time) (clientID string, err error) {
	sum := tokenSum(sha256.Sum256([]byte(token)))
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.bySum[sum]
	switch {
	case !ok:
		return "", ErrTokenInvalid
	case !now.Before(e.expires):
		t.drop(sum)
		return "", ErrTokenExpired
	}
	return e.clientID, nil
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
