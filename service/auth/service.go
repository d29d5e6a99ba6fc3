// Package auth tells who is asking: a registered client, by key, by token or by ticket, or an operator.
//
// Keys are stored as bcrypt hashes, which are slow to check on purpose. So that nobody can use
// that against the server, checks run in small budgets, one each for registrations, logins and new
// keys, with bounded queues; a key that was right is remembered for a while under a keyed hash; and
// who fails too often from one address waits. An unknown client and a wrong key take the same
// path, give the same error and cost the same time.
//
// Each client has an epoch, which grows when its key is replaced or revoked. Whatever was made in a
// former one is dead: the store is asked for the present one after everything else was checked.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"rtcd/service/policy"
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

// A KeyStore keeps the accounts of registered clients. Its methods may be called by any number of
// goroutines. Errors are faults of the store, wrapping ErrUnavailable or ErrFull where they fit;
// what is or is not there is a result. A rule about rights of the store: of these methods Remove alone
// removes, and one client at a time.
type KeyStore interface {
	// Account returns what is stored of a client. It is called for every request and has to be fast.
	Account(ctx context.Context, clientID string) (account Account, found bool, err error)
	// Add stores a client durably if the id is free. Of several calls at once one adds. The store
	// chooses an epoch above all that the id had before.
	Add(ctx context.Context, clientID string, hash []byte, roles []string) (added bool, err error)
	// Replace stores another hash of the same key if the present one is old.
	Replace(ctx context.Context, clientID string, old, hash []byte) (replaced bool, err error)
	// Change changes an account durably and atomically, as change does to a copy.
	Change(ctx context.Context, clientID string, change func(*Account) error) (found bool, err error)
	// Remove removes a client durably.
	Remove(ctx context.Context, clientID string) (removed bool, err error)
}

// Config sets up a Service. The zero value is the drop-in default without an admin.
type Config struct {
	// AdminKey is the admin's secret; empty means that there is no admin.
	AdminKey string
	// AuditorKey is the secret of the auditor, who may read the audit log and nothing else. It comes
	// with the id "auditor" or an empty one, and is not the admin's. Empty means that there is none.
	AuditorKey string
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
	// DefaultRole is that of clients who register and of those nobody gave roles to; empty means
	// "client". It cannot be an operator's.
	DefaultRole string
	// BasicScope says what a client's key is good for; empty means BasicAll.
	BasicScope BasicScope
	// TicketTTL is how long a ticket can be used, up to an hour; 0 means a minute.
	TicketTTL time.Duration
	// TicketBind says what a ticket is bound to: "client", which always is, and "addr". nil means both.
	TicketBind []string
	// CertBind says what of a certificate has to name the client it is used for; empty means
	// CertBindNone.
	CertBind CertBind
	// CertFingerprints are the SHA-256 sums, in hexadecimal, of each client's certificates, for
	// CertBindFingerprint.
	CertFingerprints map[string][]string
	// RequireCert refuses clients whose connection has no certificate.
	RequireCert bool
}

// A BasicScope says what keys are good for.
type BasicScope string

// Scopes of keys.
const (
	// BasicAll: for every request (protocol, section 5.1).
	BasicAll BasicScope = "all"
	// BasicLogin: for Login alone. Operators' keys are not affected.
	BasicLogin BasicScope = "login"
)

// Credentials are what a request says of who sent it.
type Credentials struct {
	// Authorization is the value of the header of that name.
	Authorization string
	// Ticket is one of NewTicket. With it, there has to be no Authorization.
	Ticket string
	// Remote is the address of the peer.
	Remote netip.Addr
	// Certificate is the verified leaf that the peer presented, nil without one.
	Certificate *x509.Certificate
}

// A Method says how someone authenticated.
type Method string

// Methods of authentication.
const (
	MethodBasic    Method = "basic"
	MethodBearer   Method = "bearer"
	MethodTicket   Method = "ticket"
	MethodOperator Method = "operator"
)

// A Principal is who made a request.
type Principal struct {
	// ClientID is empty for operators.
	ClientID string
	Admin    bool
	Auditor  bool
	// Roles are a client's at this moment. They are not to be changed.
	Roles []string
	// Epoch is that of the client whose credentials were used.
	Epoch  uint64
	Method Method

	credential credential // the verified key, if it was one
}

// A Service authenticates. Its methods may be called by any number of goroutines.
type Service struct {
	// Fixed at creation.
	store         KeyStore
	log           *slog.Logger
	admin         secretKey
	auditor       secretKey
	strict        bool
	unassigned    []string // roles of clients nobody gave any to
	basicScope    BasicScope
	tokenLifetime time.Duration
	ticketTTL     time.Duration
	ticketAnyAddr bool
	certBind      CertBind
	requireCert   bool
	fingerprints  map[string][][sha256.Size]byte
	hasher        *hasher
	registrations *budget
	rotations     *budget
	logins        *budget
	verified      *verifiedKeys
	flights       *flights
	failures      *failures
	tokens        *tokens
	tickets       *tickets
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
	if err := cfg.checkAccess(); err != nil {
		return nil, err
	}
	return newService(cfg, store, log), nil
}

// checkAccess checks who may come and how.
func (cfg Config) checkAccess() error {
	if cfg.AuditorKey != "" && cfg.AuditorKey == cfg.AdminKey {
		return errors.New("the keys of admin and auditor are the same")
	}
	if cfg.DefaultRole != "" {
		if err := CheckRoles([]string{cfg.DefaultRole}); err != nil {
			return fmt.Errorf("default role %q: %w", cfg.DefaultRole, err)
		}
	}
	switch cfg.BasicScope {
	case "", BasicAll, BasicLogin:
	default:
		return fmt.Errorf("scope of basic authentication %q is not all or login", cfg.BasicScope)
	}
	if cfg.TicketTTL < 0 || cfg.TicketTTL > maxTicketTTL {
		return fmt.Errorf("lifetime of tickets %v is outside 0 to %v", cfg.TicketTTL, maxTicketTTL)
	}
	for _, bind := range cfg.TicketBind {
		if bind != bindClient && bind != bindAddr {
			return fmt.Errorf("tickets cannot be bound to %q, only to client and addr", bind)
		}
	}
	switch cfg.CertBind {
	case "", CertBindNone, CertBindSAN, CertBindCN, CertBindFingerprint:
	default:
		return fmt.Errorf("certificates cannot be bound by %q, only by none, san, cn and fingerprint", cfg.CertBind)
	}
	_, err := parseFingerprints(cfg.CertFingerprints)
	return err
}

// What a ticket can be bound to.
const (
	bindClient = "client"
	bindAddr   = "addr"
)

// newService takes any cost that bcrypt does: tests use a low one. Everything else is checked.
func newService(cfg Config, store KeyStore, log *slog.Logger) *Service {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.TokenLifetime == 0 {
		cfg.TokenLifetime = defaultTokenLifetime
	}
	if cfg.TicketTTL == 0 {
		cfg.TicketTTL = DefaultTicketTTL
	}
	if cfg.CertBind == "" {
		cfg.CertBind = CertBindNone
	}
	if cfg.DefaultRole == "" {
		cfg.DefaultRole = policy.Client
	}
	fingerprints, _ := parseFingerprints(cfg.CertFingerprints)
	workers := cfg.BcryptWorkers
	if workers == 0 {
		workers = max(1, runtime.NumCPU()/2)
	}
	s := &Service{
		store:         store,
		log:           log,
		admin:         newSecretKey(cfg.AdminKey),
		auditor:       newSecretKey(cfg.AuditorKey),
		strict:        cfg.StrictIDs,
		unassigned:    []string{cfg.DefaultRole},
		basicScope:    cfg.BasicScope,
		ticketTTL:     cfg.TicketTTL,
		ticketAnyAddr: cfg.TicketBind != nil && !slices.Contains(cfg.TicketBind, bindAddr),
		certBind:      cfg.CertBind,
		requireCert:   cfg.RequireCert,
		fingerprints:  fingerprints,
		tokenLifetime: cfg.TokenLifetime,
		hasher:        newHasher(cfg.BcryptCost),
		registrations: newBudget("bcrypt_registrations", workers, queueLength, registerPatience),
		rotations:     newBudget("bcrypt_rotations", 1, queueLength, loginPatience),
		logins:        newBudget("bcrypt_logins", workers, queueLength, loginPatience),
		verified:      newVerifiedKeys(),
		flights:       newFlights(),
		failures:      newFailures(),
		tokens:        newTokens(),
		tickets:       newTickets(),
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
			s.tickets.sweep(now)
			s.verified.sweep(now)
			s.failures.sweep(now)
		case <-s.stop:
			return
		}
	}
}

// Register adds a client with the default role. Of several calls with one id exactly one succeeds. Errors
// read "registration failed: …" and wrap one of the Err values, *LimitError or ctx's.
//
// An id with ':' is accepted unless ids are strict, and works with Login alone: basic
// authentication ends the id at the first colon.
func (s *Service) Register(ctx context.Context, clientID, authKey string) error {
	return s.Add(ctx, clientID, authKey, nil)
}

func (s *Service) register(ctx context.Context, clientID, authKey string, roles []string) error {
	if err := s.checkRegistration(clientID, authKey); err != nil {
		return err
	}
	// An id that is taken costs no bcrypt.
	_, taken, err := s.store.Account(ctx, clientID)
	if err != nil {
		return err
	}
	if taken {
		return ErrAlreadyRegistered
	}
	hash, err := s.newHash(ctx, s.registrations, authKey)
	if err != nil {
		return err
	}
	if roles == nil && s.unassigned[0] != policy.Client {
		// What an operator once had as the default stays with those who came meanwhile. The built-in
		// default is not noted: it is what clients have who came before there were roles.
		roles = slices.Clone(s.unassigned)
	}
	added, err := s.store.Add(ctx, clientID, hash, roles)
	if err == nil && !added {
		err = ErrAlreadyRegistered
	}
	return err
}

func (s *Service) checkRegistration(clientID, authKey string) error {
	if err := checkKey(authKey); err != nil {
		return err
	}
	return s.checkID(clientID)
}

func (s *Service) checkID(clientID string) error {
	switch {
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

// Unregister removes a client, then its token, its tickets and what is remembered of its key. To cut what
// it has open is up to the caller. Whether the caller may do so is for the API to say. Errors: ErrIDMissing, or
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
	s.forget(clientID)
	return nil
}

// random returns n bytes from the system's source, which does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never returns an error (crypto/rand, Go 1.24)
	return b
}
