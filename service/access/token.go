package access

import (
	"container/heap"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"rtcd/service/api/wire"
)

const (
	tokenPrefix = "rtcdjt_"
	idLen       = 26 // of 128 bits in base32
	secretLen   = 43 // of 256 bits in base64
)

// A token is what is kept of one that was handed out.
type token struct {
	entry
	id      string
	hash    [sha256.Size]byte // of the secret
	call    *call
	user    string
	role    wire.CallRole
	data    string
	expires time.Time
	uses    int // left
}

// A TokenRequest says for whom a token is wanted.
type TokenRequest struct {
	UserID  string
	Role    wire.CallRole
	TTL     int64  // seconds, 1 to MaxTTL
	Data    string // see Config.TokenData
	MaxUses int    // 1 to 1,000 sessions; 0 means 1
}

// A Token is one that was made. Token itself is the secret, which is for the participant alone and
// not kept; ID may be logged.
type Token struct {
	ID      string
	Token   string
	Expires time.Time
}

// Mint makes a token for a call that is going on, or was created and waits. Its error is an *Error:
// ErrNotFound for a call that the client does not have, ErrBadRequest, ErrPersonalData,
// ErrRoleUnknown, ErrRateLimited or ErrTooMany.
func (s *Service) Mint(groupID, callID string, r TokenRequest) (Token, error) {
	if r.MaxUses == 0 {
		r.MaxUses = 1
	}
	secret, hash := newSecret()
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidy(now)
	c := s.callOf(groupID, callID)
	if c == nil || s.unusedTooLong(c, now) {
		return Token{}, ErrNotFound
	}
	switch {
	case !checkID(r.UserID):
		return Token{}, bad("userID is no id")
	case !r.Role.Valid():
		return Token{}, ErrRoleUnknown
	case r.TTL < 1 || r.TTL > MaxTTL:
		return Token{}, bad("ttl is not 1 to %d seconds", MaxTTL)
	case r.MaxUses < 1 || r.MaxUses > maxUses:
		return Token{}, bad("maxUses is not 1 to %d", maxUses)
	}
	if err := s.cfg.TokenData.check(r.Data); err != nil {
		return Token{}, err
	}
	g := s.groups[groupID]
	if err := s.mayMint(g, c, now); err != nil {
		return Token{}, err
	}
	t := &token{
		id: newID(), hash: hash, call: c, user: r.UserID, role: plain(r.Role), data: r.Data,
		expires: now.Add(time.Duration(r.TTL) * time.Second), uses: r.MaxUses,
	}
	t.entry = entry{at: t.expires, token: t}
	s.tokens[t.id] = t
	c.tokens[t.id] = t
	g.tokens++
	heap.Push(&s.expiry, &t.entry)
	return Token{ID: t.id, Token: tokenPrefix + t.id + "_" + secret, Expires: t.expires}, nil
}

// mayMint says whether the client may have one more token.
func (s *Service) mayMint(g *group, c *call, now time.Time) error {
	for _, l := range []struct {
		name     string
		n, limit int
	}{
		{LimitTokensPerCall, len(c.tokens), s.cfg.TokensPerCall},
		{LimitTokensPerClient, g.tokens, s.cfg.TokensPerClient},
		{LimitTokens, len(s.tokens), s.cfg.Tokens},
	} {
		if l.n >= l.limit {
			s.cfg.OnLimit(l.name)
			return ErrTooMany
		}
	}
	if g.minting == nil {
		g.minting = rate.NewLimiter(rate.Limit(float64(s.cfg.TokensPerMinute)/60), s.cfg.TokensPerMinute)
	}
	g.mintedAt = now
	next := g.minting.ReserveN(now, 1)
	if wait := next.DelayFrom(now); wait > 0 {
		next.CancelAt(now)
		s.cfg.OnLimit(LimitTokensPerMinute)
		limited := *ErrRateLimited
		limited.retry = wait
		return &limited
	}
	return nil
}

// DropTokens makes all tokens of a client dead, as is due when its key changes. Calls go on.
func (s *Service) DropTokens(groupID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[groupID]; g != nil {
		for _, c := range g.calls {
			for _, t := range c.tokens {
				s.kill(t)
			}
		}
	}
}

func newSecret() (secret string, hash [sha256.Size]byte) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	secret = base64.RawURLEncoding.EncodeToString(b[:])
	return secret, sha256.Sum256([]byte(secret))
}

// splitToken returns the parts of a token; of what is none, parts that belong to nothing.
func splitToken(s string) (id, secret string) {
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(rest) != idLen+1+secretLen || rest[idLen] != '_' {
		return "", ""
	}
	return rest[:idLen], rest[idLen+1:]
}

// nobody's hash is compared where there is no token, so that this takes as long.
var nobody = token{hash: sha256.Sum256([]byte("a text that is no secret"))}

// find returns the token that s is, if it is one for the call and still good. Every other one
// takes the same way through here: a hash, a look-up, a comparison.
func (s *Service) find(groupID, callID, text string, now time.Time) *token {
	id, secret := splitToken(text)
	hash := sha256.Sum256([]byte(secret))
	t, found := s.tokens[id]
	if !found {
		t = &nobody
	}
	same := subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1
	if !found || !same || t.call.group != groupID || t.call.id != callID || !now.Before(t.expires) {
		return nil
	}
	return t
}

// plain is the one name of a role that has two.
func plain(r wire.CallRole) wire.CallRole {
	if r == wire.RolePublisher {
		return wire.RoleFull
	}
	return r
}
