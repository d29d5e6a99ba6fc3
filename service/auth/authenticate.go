package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"time"

	"rtcd/service/policy"
)

// A secretKey is an operator's, of which the SHA-256 alone is kept.
type secretKey struct {
	sum [sha256.Size]byte
	set bool
}

func newSecretKey(key string) secretKey {
	return secretKey{sum: sha256.Sum256([]byte(key)), set: key != ""}
}

// is compares in a time that does not depend on where the keys differ.
func (k secretKey) is(sum [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(sum[:], k.sum[:]) == 1 && k.set
}

// Authenticate returns who sent a request. Errors wrap ErrAuthentication, or are ErrCertificate,
// ErrNoCertificate, a *LimitError, ErrUnavailable or ctx's.
//
// A connection that lives on after its request has to be known to whoever is told of removals and of new
// epochs before the result counts: compare the epoch, or call Authenticate once more after that; with a
// key or a token it costs nothing then. A ticket is used up by the first call.
func (s *Service) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	if c.Ticket != "" {
		if c.Authorization != "" {
			return Principal{}, ErrInvalidHeader
		}
		return s.byTicket(ctx, c)
	}
	given, err := parseAuthorization(c.Authorization)
	if err != nil {
		return Principal{}, err
	}
	if given.token != "" {
		return s.byToken(ctx, given.token, c)
	}
	return s.byKey(ctx, given.id, given.key, c)
}

// byKey is basic authentication.
func (s *Service) byKey(ctx context.Context, id, key string, c Credentials) (Principal, error) {
	operator, ok, err := s.operator(id, key, c.Remote)
	if ok || err != nil {
		return operator, err
	}
	p := Principal{ClientID: id, Method: MethodBasic}
	switch {
	case id == "":
		return Principal{}, ErrUnauthorized
	case s.basicScope == BasicLogin:
		return Principal{}, ErrUseBearer
	}
	if err := s.checkCertificate(id, c.Certificate); err != nil {
		return Principal{}, err
	}
	proof, account, err := s.verify(ctx, id, key, c.Remote)
	if err != nil {
		return Principal{}, err
	}
	p.credential, p.Roles, p.Epoch = proof, s.roles(account), account.Epoch
	return p, nil
}

// operator reports whether id and key are an operator's. Who fails too often with the empty id, which is
// theirs alone, waits like a client would. Both keys are compared, whichever it is.
func (s *Service) operator(id, key string, remote netip.Addr) (Principal, bool, error) {
	p := Principal{Method: MethodOperator}
	from := source{addr: network(remote)}
	slowed := id == "" && (s.admin.set || s.auditor.set)
	if slowed {
		if wait := s.failures.wait(from, time.Now()); wait > 0 {
			return Principal{}, false, &LimitError{Limit: limitFailedLogins, RetryAfter: wait}
		}
	}
	sum := sha256.Sum256([]byte(key))
	admin := s.admin.is(sum) && (id == "" || !s.strict)
	auditor := s.auditor.is(sum) && (id == "" || id == policy.Auditor)
	switch {
	case admin:
		p.Admin = true
	case auditor:
		p.Auditor = true
	case slowed:
		if s.failures.add(from, time.Now()) {
			s.log.Warn("operator is slowed down after failed logins", "remote", from.addr)
		}
	}
	ok := admin || auditor
	if ok && slowed {
		s.failures.clear(from)
	}
	return p, ok, nil
}

// byToken is bearer authentication.
func (s *Service) byToken(ctx context.Context, token string, c Credentials) (Principal, error) {
	e, err := s.tokens.lookup(token, time.Now())
	p := Principal{ClientID: e.clientID, Method: MethodBearer}
	if err != nil {
		return Principal{}, err
	}
	if err := s.checkCertificate(e.clientID, c.Certificate); err != nil {
		return Principal{}, err
	}
	return s.present(ctx, p, e.epoch, ErrTokenInvalid)
}

// byTicket uses a ticket up. Coming from the wrong place with the right one uses it up too: somebody
// else has seen it.
func (s *Service) byTicket(ctx context.Context, c Credentials) (Principal, error) {
	e, err := s.tickets.take(c.Ticket, time.Now())
	p := Principal{ClientID: e.clientID, Method: MethodTicket}
	if err != nil {
		return Principal{}, err
	}
	if e.network.IsValid() && e.network != network(c.Remote) {
		return Principal{}, ErrTicketInvalid
	}
	if e.cert != ([sha256.Size]byte{}) && (c.Certificate == nil || sha256.Sum256(c.Certificate.Raw) != e.cert) {
		return Principal{}, ErrTicketInvalid
	}
	if err := s.checkCertificate(e.clientID, c.Certificate); err != nil {
		return Principal{}, err
	}
	return s.present(ctx, p, e.epoch, ErrTicketInvalid)
}

// present completes p from what the store says now, or returns dead if that is another epoch. It comes
// last of all checks: what Rotate, Revoke and Unregister did before counts.
func (s *Service) present(ctx context.Context, p Principal, epoch uint64, dead error) (Principal, error) {
	account, found, err := s.store.Account(ctx, p.ClientID)
	if err != nil {
		return Principal{}, err
	}
	if !found || account.Epoch != epoch {
		return Principal{}, dead
	}
	p.Roles, p.Epoch = s.roles(account), epoch
	return p, nil
}

// Hold keeps the key that a client authenticated with from being forgotten until release is
// called, so that a backend that was connected for hours comes back as fast as one that was
// here a minute ago. Removing the client still ends it.
func (s *Service) Hold(p Principal) (release func()) { return s.verified.hold(p.credential) }

// Login returns a new token for a client, which replaces its former one. The token has 32
// characters of URL-safe base64. Of from, Authorization and Ticket are not looked at. Errors read
// "login failed: …" and wrap as Authenticate's do.
func (s *Service) Login(ctx context.Context, clientID, authKey string, from Credentials) (string, error) {
	token, err := s.login(ctx, clientID, authKey, from)
	if err != nil {
		return "", fmt.Errorf("login failed: %w", err)
	}
	return token, nil
}

func (s *Service) login(ctx context.Context, clientID, authKey string, from Credentials) (string, error) {
	if err := s.checkCertificate(clientID, from.Certificate); err != nil {
		return "", err
	}
	_, account, err := s.verify(ctx, clientID, authKey, from.Remote)
	if err != nil {
		return "", err
	}
	token, err := s.tokens.issue(tokenEntry{clientID, account.Epoch, time.Now().Add(s.tokenLifetime)})
	if err != nil {
		return "", err
	}
	// A removal or a new epoch between the check and the issue has not seen this token.
	if _, err := s.present(ctx, Principal{ClientID: clientID}, account.Epoch, ErrAuthentication); err != nil {
		s.tokens.revoke(token)
		return "", err
	}
	return token, nil
}

// Refresh exchanges a token that is alive for a new one, which lives as long as one of Login. Of several
// calls with one token exactly one succeeds, and the former token is dead when it returns. Errors: ErrTokenInvalid,
// ErrTokenExpired, ErrUnavailable and ctx's.
func (s *Service) Refresh(ctx context.Context, bearer string) (token string, expires time.Time, err error) {
	now := time.Now()
	expires = now.Add(s.tokenLifetime)
	token, e, err := s.tokens.refresh(bearer, now, expires)
	if err == nil {
		_, err = s.present(ctx, Principal{ClientID: e.clientID}, e.epoch, ErrTokenInvalid)
		if err != nil {
			s.tokens.revoke(token)
		}
	}
	if err != nil {
		return "", time.Time{}, err
	}
	return token, expires, nil
}

// NewTicket returns a ticket for one WebSocket of the client p, which can be used once, before expires and
// as bind says. Not for those who came with a ticket themselves, or are no client: ErrUnauthorized. Other
// errors: ErrAuthentication if p's credentials are dead by now, *LimitError if the client has too many
// tickets that it has not used, ErrUnavailable and ctx's.
func (s *Service) NewTicket(ctx context.Context, p Principal, bind Binding) (ticket string, expires time.Time, err error) {
	if p.ClientID == "" || p.Method == MethodTicket {
		return "", time.Time{}, ErrUnauthorized
	}
	if _, err := s.present(ctx, p, p.Epoch, ErrAuthentication); err != nil {
		return "", time.Time{}, err
	}
	now := time.Now()
	e := ticketEntry{clientID: p.ClientID, epoch: p.Epoch, expires: now.Add(s.ticketTTL), cert: bind.CertSHA256}
	if !s.ticketAnyAddr {
		e.network = network(bind.Addr)
	}
	ticket, err = s.tickets.issue(e, now)
	if err != nil {
		return "", time.Time{}, err
	}
	return ticket, e.expires, nil
}
