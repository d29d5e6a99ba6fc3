// Package auth tells who is asking: a registered client, by key or by token, or the admin.
//
// Keys are stored as bcrypt hashes, which are slow to check on purpose. So that nobody can use
// that against the server, checks run in small budgets, one for registrations and one for logins,
// with bounded queues; a key that was right is remembered for a while under a keyed hash; and
// who fails too often from one address waits. An unknown client and a wrong key take the same
// path, give the same error and cost the same time.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of credentials, in bytes (protocol, section 4.3).
const (
	maxIDBytes  = 64
	minKeyBytes = 32
	maxKeyBytes = 72 // bcrypt looks at no more
)

// Range and default of Config.BcryptCost.
const (
	MinBcryptCost     = 10
	MaxBcryptCost     = 14
	DefaultBcryptCost = 10
)

const (
	defaultTokenLifetime = 24 * time.Hour
	queueLength          = 64
	registerPatience     = 2 * time.Second
	loginPatience        = 10 * time.Second
	sweepInterval        = time.Minute
)

// A KeyStore keeps the hashes of registered clients. Its methods may be called by any number of
// goroutines. Errors are faults of the store, wrapping ErrUnavailable or ErrFull where they fit;
// what is or is not there is a result.
type KeyStore interface {
	// Hash returns a client's hash. It is called for every request and has to be fast.
	Hash(ctx context.Context, clientID string) (hash []byte, found bool, err error)
	// Add stores a client durably if the id is free. Of several calls at once one adds.
	Add(ctx context.Context, clientID string, hash []byte) (added bool, err error)
	// Replace stores another hash if the present one is old.
	Replace(ctx context.Context, clientID string, old, hash []byte) (replaced bool, err error)
	// Remove removes a client durably.
	Remove(ctx context.Context, clientID string) (removed bool, err error)
}

// Config sets up a Service. The zero value is the drop-in default without an admin.
type Config struct {
	// AdminKey is the admin's secret; empty means that there is no admin.
	AdminKey string
	// TokenLifetime is fixed at login and not extended by use; 0 means 24 h.
	TokenLifetime time.Duration
	// BcryptCost is that of new hashes, 10 to 14; 0 means 10. A hash of lower cost is replaced at
	// its client's next successful login.
	BcryptCost int
	// BcryptWorkers is how many bcrypt computations run at once, for registrations and for logins
	// each; 0 means half of the processors. One takes about 50 ms of a processor at cost 10.
	BcryptWorkers int
	// StrictIDs is for production mode: a new id may only have the characters 0x21 to 0x7e
	// without / \ : and ", and the admin has to come with an empty id.
	StrictIDs bool
	// OnRevoke, if set, is called after a client was removed and its tokens are dead, to cut its
	// connections and sessions. It runs on the caller of Unregister.
	OnRevoke func(clientID string)
}

// A Principal is who made a request.
type Principal struct {
	// ClientID is empty for the admin.
	ClientID string
	Admin    bool

	credential credential // the verified key, if it was one
}

// A Service authenticates. Its methods may be called by any number of goroutines.
type Service struct {
	// Fixed at creation.
	store         KeyStore
	log           *slog.Logger
	adminSum      [sha256.Size]byte
	admin         bool
	strict        bool
	tokenLifetime time.Duration
	onRevoke      func(string)
	hasher        *hasher
	registrations *budget
	logins        *budget
	verified      *verifiedKeys
	flights       *flights
	failures      *failures
	tokens        *tokens
	stop          chan struct{}
	stopOnce      sync.Once
	swept         sync.WaitGroup
}

// New returns a Service over store. Close ends it. A nil log discards.
func New(cfg Config, store KeyStore, log *slog.Logger) (*Service, error) {
	if cfg.BcryptCost == 0 {
		cfg.BcryptCost = DefaultBcryptCost
	}
	if cfg.BcryptCost < MinBcryptCost || cfg.BcryptCost > MaxBcryptCost {
		return nil, fmt.Errorf("bcrypt cost %d is outside %d to %d", cfg.BcryptCost, MinBcryptCost, MaxBcryptCost)
	}
	if cfg.TokenLifetime < 0 {
		return nil, fmt.Errorf("token lifetime %v is negative", cfg.TokenLifetime)
	}
	if cfg.BcryptWorkers < 0 {
		return nil, fmt.Errorf("number of bcrypt workers %d is negative", cfg.BcryptWorkers)
	}
	return newService(cfg, store, log), nil
}

// newService takes any cost that bcrypt does: tests use a low one.
func newService(cfg Config, store KeyStore, log *slog.Logger) *Service {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = defaultTokenLifetime
	}
	workers := cfg.BcryptWorkers
	if workers == 0 {
		workers = max(1, runtime.NumCPU()/2)
	}
	s := &Service{
		store:         store,
		log:           log,
		adminSum:      sha256.Sum256([]byte(cfg.AdminKey)),
		admin:         cfg.AdminKey != "",
		strict:        cfg.StrictIDs,
		tokenLifetime: cfg.TokenLifetime,
		onRevoke:      cfg.OnRevoke,
		hasher:        newHasher(cfg.BcryptCost),
		registrations: newBudget("bcrypt_registrations", workers, queueLength, registerPatience),
		logins:        newBudget("bcrypt_logins", workers, queueLength, loginPatience),
		verified:      newVerifiedKeys(),
		flights:       newFlights(),
		failures:      newFailures(),
		tokens:        newTokens(),
		stop:          make(chan struct{}),
	}
	s.swept.Go(s.sweep)
	return s
}

// Close ends the sweeping of what has expired. It may be called again.
func (s *Service) Close() {
	s.stopOnce.Do(func() { close(s.stop) })
	s.swept.Wait()
}

func (s *Service) sweep() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			now := time.Now()
			s.tokens.sweep(now)
			s.verified.sweep(now)
			s.failures.sweep(now)
		case <-s.stop:
			return
		}
	}
}

// Authenticate returns who sent an Authorization header from the address remote. Errors wrap
// ErrAuthentication, or are a *LimitError, ErrUnavailable or ctx's.
//
// A connection that lives on after its request has to be known to whoever OnRevoke tells before
// the result counts: call Authenticate once more after that; it costs nothing then.
func (s *Service) Authenticate(ctx context.Context, authorization string, remote netip.Addr) (Principal, error) {
	given, err := parseAuthorization(authorization)
	if err != nil {
		return Principal{}, err
	}
	if given.token != "" {
		clientID, err := s.tokens.lookup(given.token, time.Now())
		return Principal{ClientID: clientID}, err
	}
	if s.isAdmin(given.id, given.key) {
		return Principal{Admin: true}, nil
	}
	if given.id == "" {
		return Principal{}, ErrUnauthorized
	}
	proof, _, err := s.verify(ctx, given.id, given.key, remote)
	if err != nil {
		return Principal{}, err
	}
	return Principal{ClientID: given.id, credential: proof}, nil
}

// Hold keeps the key that a client authenticated with from being forgotten until release is
// called, so that a backend that was connected for hours comes back as fast as one that was
// here a minute ago. Removing the client still ends it.
func (s *Service) Hold(p Principal) (release func()) { return s.verified.hold(p.credential) }

// isAdmin compares in a time that does not depend on where the keys differ.
func (s *Service) isAdmin(id, key string) bool {
	sum := sha256.Sum256([]byte(key))
	same := subtle.ConstantTimeCompare(sum[:], s.adminSum[:]) == 1
	return same && s.admin && (id == "" || !s.strict)
}

// Login returns a new token for a client, which replaces its former one. The token has 32
// characters of URL-safe base64. Errors read "login failed: …" and wrap as Authenticate's do.
func (s *Service) Login(ctx context.Context, clientID, authKey string, remote netip.Addr) (string, error) {
	token, err := s.login(ctx, clientID, authKey, remote)
	if err != nil {
		return "", fmt.Errorf("login failed: %w", err)
	}
	return token, nil
}

func (s *Service) login(ctx context.Context, clientID, authKey string, remote netip.Addr) (string, error) {
	_, hash, err := s.verify(ctx, clientID, authKey, remote)
	if err != nil {
		return "", err
	}
	token, err := s.tokens.issue(clientID, time.Now().Add(s.tokenLifetime))
	if err != nil {
		return "", err
	}
	// A removal between the check and the issue has not seen this token.
	current, found, err := s.store.Hash(ctx, clientID)
	if err == nil && (!found || string(current) != hash) {
		err = ErrAuthentication
	}
	if err != nil {
		s.tokens.revoke(token)
		return "", err
	}
	return token, nil
}

// Register adds a client. Of several calls with one id exactly one succeeds. Errors read
// "registration failed: …" and wrap one of the Err values, *LimitError or ctx's.
//
// An id with ':' is accepted unless ids are strict, and works with Login alone: basic
// authentication ends the id at the first colon.
func (s *Service) Register(ctx context.Context, clientID, authKey string) error {
	if err := s.register(ctx, clientID, authKey); err != nil {
		return fmt.Errorf("registration failed: %w", err)
	}
	return nil
}

func (s *Service) register(ctx context.Context, clientID, authKey string) error {
	if err := s.checkRegistration(clientID, authKey); err != nil {
		return err
	}
	// An id that is taken costs no bcrypt.
	_, taken, err := s.store.Hash(ctx, clientID)
	if err != nil {
		return err
	}
	if taken {
		return ErrAlreadyRegistered
	}
	if err := s.registrations.acquire(ctx, netip.Prefix{}); err != nil {
		return err
	}
	hash, err := s.hasher.hash(authKey)
	s.registrations.release()
	if err != nil {
		return err
	}
	added, err := s.store.Add(ctx, clientID, hash)
	if err == nil && !added {
		err = ErrAlreadyRegistered
	}
	return err
}

func (s *Service) checkRegistration(clientID, authKey string) error {
	switch {
	case len(authKey) < minKeyBytes:
		return ErrKeyShort
	case len(authKey) > maxKeyBytes:
		return ErrKeyLong
	case clientID == "":
		return ErrIDEmpty
	case len(clientID) > maxIDBytes:
		return ErrIDLong
	case !utf8.ValidString(clientID):
		return ErrIDInvalid
	}
	for _, r := range clientID {
		if !s.allowed(r) {
			return ErrIDInvalid
		}
	}
	return nil
}

// allowed reports whether an id may have r: no control characters, and none that reorder or
// break lines where ids are printed.
func (s *Service) allowed(r rune) bool {
	if s.strict {
		return r >= 0x21 && r <= 0x7e && r != '/' && r != '\\' && r != ':' && r != '"'
	}
	return !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Unregister removes a client, then its token and what is remembered of its key, then calls
// OnRevoke. Whether the caller may do so is for the API to say. Errors: ErrIDMissing, or
// "unregister failed: …" with ErrUnknownClient or the store's.
func (s *Service) Unregister(ctx context.Context, clientID string) error {
	if clientID == "" {
		return ErrIDMissing
	}
	removed, err := s.store.Remove(ctx, clientID)
	if err == nil && !removed {
		err = ErrUnknownClient
	}
	if err != nil {
		return fmt.Errorf("unregister failed: %w", err)
	}
	s.tokens.revokeClient(clientID)
	s.verified.forget(clientID)
	if s.onRevoke != nil {
		s.onRevoke(clientID)
	}
	return nil
}

// random returns n bytes from the system's source, which does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never returns an error (crypto/rand, Go 1.24)
	return b
}

// isContext reports whether err only says that a caller gave up.
func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
