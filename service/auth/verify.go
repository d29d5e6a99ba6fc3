package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// A hasher computes bcrypt at one cost.
type hasher struct {
	cost  int
	dummy map[int][]byte // hashes that no key has, by cost
}

func newHasher(cost int) *hasher {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	h := &hasher{cost: cost, dummy: make(map[int][]byte)}
	for c := bcrypt.MinCost; c <= cost; c++ {
		// Salt and sum, 22 and 31 characters. A random sum is as good as one of a random key, and
		// does not have to be computed.
		rest := random(22 + 31)
		for i, b := range rest {
			rest[i] = alphabet[b%64]
		}
		h.dummy[c] = append(fmt.Appendf(nil, "$2a$%02d$", c), rest...)
	}
	return h
}

func (h *hasher) hash(key string) ([]byte, error) {
	return bcrypt.GenerateFromPassword([]byte(key), h.cost)
}

// matches reports whether key is the one of hash; a nil hash matches none. "No" takes as long
// as one computation at h.cost whatever the hash: one of the lower cost c is followed by some of
// the costs c, c+1, …, h.cost-1, since 2^c + 2^c + 2^(c+1) + … = 2^h.cost.
func (h *hasher) matches(hash []byte, key string) bool {
	if hash == nil {
		_ = bcrypt.CompareHashAndPassword(h.dummy[h.cost], []byte(key))
		return false
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(key)) == nil {
		return true
	}
	cost, err := bcrypt.Cost(hash)
	if err != nil { // no computation took place
		_ = bcrypt.CompareHashAndPassword(h.dummy[h.cost], []byte(key))
		return false
	}
	for c := cost; c < h.cost; c++ {
		_ = bcrypt.CompareHashAndPassword(h.dummy[c], []byte(key))
	}
	return false
}

func (h *hasher) outdated(hash []byte) bool {
	cost, err := bcrypt.Cost(hash)
	return err == nil && cost < h.cost
}

// verify checks a client's key and returns its keyed hash and the stored hash that it matches.
// A key that was right lately is answered at once, and never slowed down by others' failures.
// The checks before bcrypt do not depend on whether the client exists.
func (s *Service) verify(ctx context.Context, id, key string, remote netip.Addr) (credential, string, error) {
	fits := id != "" && len(id) <= maxIDBytes && len(key) >= minKeyBytes && len(key) <= maxKeyBytes
	source := source{addr: network(remote)}
	if len(id) <= maxIDBytes {
		source.id = id
	}
	var proof credential
	if fits {
		proof = s.verified.credential(id, key)
		hash, ok, err := s.remembered(ctx, id, proof)
		if ok || err != nil {
			return proof, hash, err
		}
	}
	if wait := s.failures.wait(source, time.Now()); wait > 0 {
		return credential{}, "", &LimitError{Limit: "failed_logins", RetryAfter: wait}
	}
	err := ErrAuthentication
	var hash string
	if fits {
		hash, err = s.compute(ctx, id, key, proof, source.addr)
	}
	switch {
	case err == nil:
		s.failures.clear(source)
		return proof, hash, nil
	case errors.Is(err, ErrAuthentication) && s.failures.add(source, time.Now()):
		s.log.Warn("client is slowed down after failed logins", "client", source.id, "remote", source.addr)
	}
	return credential{}, "", err
}

// remembered reports whether proof was verified lately, against the hash that is stored now.
func (s *Service) remembered(ctx context.Context, id string, proof credential) (string, bool, error) {
	hash, ok := s.verified.lookup(proof, time.Now())
	if !ok {
		return "", false, nil
	}
	current, found, err := s.store.Hash(ctx, id)
	if err != nil {
		return "", false, err
	}
	return hash, found && string(current) == hash, nil
}

// compute is verify's slow path. Requests with the same key share one computation, as long as what
// is stored is the same: one that began before the client was registered knows nothing of that.
func (s *Service) compute(ctx context.Context, id, key string, proof credential, addr netip.Prefix) (string, error) {
	stored, found, err := s.store.Hash(ctx, id)
	if err != nil {
		return "", err
	}
	if !found {
		stored = nil
	}
	return s.flights.do(ctx, question{proof, string(stored)}, func() (string, error) {
		return s.check(ctx, id, key, stored, proof, addr)
	})
}

// check is bcrypt, within the budget of logins.
func (s *Service) check(ctx context.Context, id, key string, stored []byte, proof credential, addr netip.Prefix) (string, error) {
	if err := s.logins.acquire(ctx, addr); err != nil {
		return "", err
	}
	defer s.logins.release()
	if !s.hasher.matches(stored, key) {
		return "", ErrAuthentication
	}
	if s.hasher.outdated(stored) {
		stored = s.upgrade(ctx, id, key, stored)
	}
	s.verified.add(proof, id, string(stored), time.Now())
	return string(stored), nil
}

// upgrade replaces the hash of a client by one of the present cost and returns what is stored
// then. The login goes on if it cannot.
func (s *Service) upgrade(ctx context.Context, id, key string, stored []byte) []byte {
	hash, err := s.hasher.hash(key)
	if err != nil {
		s.log.Warn("hash of a client was not upgraded", "client", id, "err", err)
		return stored
	}
	replaced, err := s.store.Replace(ctx, id, stored, hash)
	if err != nil {
		s.log.Warn("hash of a client was not upgraded", "client", id, "err", err)
	}
	if !replaced {
		return stored
	}
	return hash
}

// flights lets requests that come together with the same key share one computation, as the
// nodes of one backend do.
type flights struct {
	mu     sync.Mutex // guards the field below
	flying map[question]*flight
}

// A question is whether a key is that of a stored hash.
type question struct {
	proof  credential
	stored string
}

// A flight is a computation under way. hash and err are set before done is closed.
type flight struct {
	done chan struct{}
	hash string
	err  error
}

func newFlights() *flights { return &flights{flying: make(map[question]*flight)} }

// do returns the result of compute, of this call or of one under way for the same key. If the
// caller who computes gives up, another takes its place.
func (f *flights) do(ctx context.Context, q question, compute func() (string, error)) (string, error) {
	for {
		f.mu.Lock()
		other, flying := f.flying[q]
		own := &flight{done: make(chan struct{})}
		if !flying {
			f.flying[q] = own
		}
		f.mu.Unlock()
		if !flying {
			own.hash, own.err = compute()
			f.mu.Lock()
			delete(f.flying, q)
			f.mu.Unlock()
			close(own.done)
			return own.hash, own.err
		}
		select {
		case <-other.done:
			if !isContext(other.err) {
				return other.hash, other.err
			}
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
