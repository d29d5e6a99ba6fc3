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
	h := &hasher{cost: cost, dummy: make(map[int][]byte)}
	for c := bcrypt.MinCost; c <= cost; c++ {
		h.dummy[c] = unmatched(c)
	}
	return h
}

// unmatched returns a hash of a cost that no key has.
func unmatched(cost int) []byte {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	// Salt and sum, 22 and 31 characters. A random sum is as good as one of a random key, and
	// does not have to be computed.
	rest := random(22 + 31)
	for i, b := range rest {
		rest[i] = alphabet[b%64]
	}
	return append(fmt.Appendf(nil, "$2a$%02d$", cost), rest...)
}

// unmatched returns a hash that no key has. A key checked against it costs as much as any.
func (h *hasher) unmatched() []byte { return unmatched(h.cost) }

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

// limitFailedLogins is LimitError's name for those who failed too often.
const limitFailedLogins = "failed_logins"

// verify checks a client's key and returns its keyed hash and the account that it is the key of. A key
// that was right lately is answered at once, and never slowed down by others' failures. The checks before
// bcrypt do not depend on whether the client exists.
func (s *Service) verify(ctx context.Context, id, key string, remote netip.Addr) (credential, Account, error) {
	fits := id != "" && len(id) <= maxIDBytes && len(key) >= minKeyBytes && len(key) <= maxKeyBytes
	source := source{addr: network(remote)}
	if len(id) <= maxIDBytes {
		source.id = id
	}
	var proof credential
	if fits {
		proof = s.verified.credential(id, key)
		account, ok, err := s.remembered(ctx, id, proof)
		if ok || err != nil {
			return proof, account, err
		}
	}
	if wait := s.failures.wait(source, time.Now()); wait > 0 {
		return credential{}, Account{}, &LimitError{Limit: limitFailedLogins, RetryAfter: wait}
	}
	err := ErrAuthentication
	var account Account
	if fits {
		account, err = s.compute(ctx, id, key, proof, source.addr)
	}
	switch {
	case err == nil:
		s.failures.clear(source)
		return proof, account, nil
	case errors.Is(err, ErrAuthentication) && s.failures.add(source, time.Now()):
		s.log.Warn("client is slowed down after failed logins", "client", source.id, "remote", source.addr)
	}
	return credential{}, Account{}, err
}

// remembered reports whether proof was verified lately, in the epoch that is now.
func (s *Service) remembered(ctx context.Context, id string, proof credential) (Account, bool, error) {
	epoch, ok := s.verified.lookup(proof, time.Now())
	if !ok {
		return Account{}, false, nil
	}
	account, found, err := s.store.Account(ctx, id)
	if err != nil {
		return Account{}, false, err
	}
	return account, found && account.Epoch == epoch, nil
}

// compute is verify's slow path. Requests with the same key share one computation, as long as what
// is stored is the same: one that began before the client was registered knows nothing of that. The key
// was right if the epoch is still the one that it began in: then the hash is at most another one of the
// same key.
func (s *Service) compute(ctx context.Context, id, key string, proof credential, addr netip.Prefix) (Account, error) {
	stored, found, err := s.store.Account(ctx, id)
	if err != nil {
		return Account{}, err
	}
	if !found {
		stored = Account{}
	}
	err = s.flights.do(ctx, question{proof, string(stored.Hash), stored.Epoch}, func() error {
		return s.check(ctx, id, key, stored, proof, addr)
	})
	if err != nil {
		return Account{}, err
	}
	now, found, err := s.store.Account(ctx, id)
	if err == nil && (!found || now.Epoch != stored.Epoch) {
		err = ErrAuthentication
	}
	return now, err
}

// check is bcrypt, within the budget of logins.
func (s *Service) check(ctx context.Context, id, key string, stored Account, proof credential, addr netip.Prefix) error {
	if err := s.logins.acquire(ctx, addr); err != nil {
		return err
	}
	defer s.logins.release()
	if !s.hasher.matches(stored.Hash, key) {
		return ErrAuthentication
	}
	if s.hasher.outdated(stored.Hash) {
		s.upgrade(ctx, id, key, stored.Hash)
	}
	s.verified.add(proof, id, stored.Epoch, time.Now())
	return nil
}

// upgrade replaces the hash of a client by one of the present cost. The login goes on if it cannot.
func (s *Service) upgrade(ctx context.Context, id, key string, stored []byte) {
	hash, err := s.hasher.hash(key)
	if err == nil {
		_, err = s.store.Replace(ctx, id, stored, hash)
	}
	if err != nil {
		s.log.Warn("hash of a client was not upgraded", "client", id, "err", err)
	}
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
	epoch  uint64
}

// A flight is a computation under way. err is set before done is closed.
type flight struct {
	done chan struct{}
	err  error
}

func newFlights() *flights { return &flights{flying: make(map[question]*flight)} }

// do returns the result of compute, of this call or of one under way for the same key. If the
// caller who computes gives up, another takes its place.
func (f *flights) do(ctx context.Context, q question, compute func() error) error {
	for {
		f.mu.Lock()
		other, flying := f.flying[q]
		own := &flight{done: make(chan struct{})}
		if !flying {
			f.flying[q] = own
		}
		f.mu.Unlock()
		if !flying {
			own.err = compute()
			f.mu.Lock()
			delete(f.flying, q)
			f.mu.Unlock()
			close(own.done)
			return own.err
		}
		select {
		case <-other.done:
			if !isContext(other.err) {
				return other.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
