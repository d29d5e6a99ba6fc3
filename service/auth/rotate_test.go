package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"rtcd/service/policy"
)

// mustBasic authenticates with a key.
func mustBasic(t *testing.T, s *Service, id, key string) Principal {
	t.Helper()
	p, err := s.Authenticate(t.Context(), header(basic(id, key), here))
	if err != nil {
		t.Fatalf("%s with its key: %v", id, err)
	}
	return p
}

func mustTicket(t *testing.T, s *Service, p Principal) string {
	t.Helper()
	ticket, _, err := s.NewTicket(t.Context(), p, Binding{Addr: here})
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// by are the credentials of a request from here with a ticket.
func by(ticket string) Credentials { return Credentials{Ticket: ticket, Remote: here} }

// Row OT-03: when Rotate returns, the former key, token and tickets are dead and the new key works.
func TestRotate(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1", "c2")
	p, token := mustBasic(t, s, "c1", key), mustLogin(t, s, "c1")
	defer s.Hold(p)() // the verified-key cache has it, and a connection lives with it
	ticket, others := mustTicket(t, s, p), mustLogin(t, s, "c2")
	epoch, err := s.Rotate(t.Context(), "c1", otherKey)
	if err != nil || epoch <= p.Epoch {
		t.Fatalf("rotated to epoch %d, %v, want above %d", epoch, err, p.Epoch)
	}
	_, err = s.Authenticate(t.Context(), header(basic("c1", key), here))
	wantErr(t, "former key", err, ErrAuthentication, "authentication failed")
	_, err = s.Login(t.Context(), "c1", key, from(here))
	wantErr(t, "login with the former key", err, ErrAuthentication, "login failed: authentication failed")
	_, err = s.Authenticate(t.Context(), header("Bearer "+token, here))
	wantErr(t, "former token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	_, _, err = s.Refresh(t.Context(), token)
	wantErr(t, "refresh of the former token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	_, err = s.Authenticate(t.Context(), by(ticket))
	wantErr(t, "former ticket", err, ErrTicketInvalid, "authentication failed: ticket is invalid")
	_, _, err = s.NewTicket(t.Context(), p, Binding{})
	wantErr(t, "ticket for who came with the former key", err, ErrAuthentication, "authentication failed")
	if p := mustBasic(t, s, "c1", otherKey); p.Epoch != epoch {
		t.Errorf("with the new key: epoch %d, want %d", p.Epoch, epoch)
	}
	if _, err := s.Authenticate(t.Context(), header("Bearer "+others, here)); err != nil {
		t.Errorf("another client's token: %v", err)
	}
}

// Row OT-03: who has shown a key does not replace the one that came after it, nor what came of a revocation.
func TestRotateFrom(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	p := mustBasic(t, s, "c1", key)
	if _, err := s.Revoke(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.RotateFrom(t.Context(), "c1", otherKey, p.Epoch)
	wantErr(t, "rotate after revocation", err, ErrAuthentication, "rotation failed: authentication failed")
	_, err = s.Authenticate(t.Context(), header(basic("c1", otherKey), here))
	wantErr(t, "the key that was refused", err, ErrAuthentication, "authentication failed")
	if _, err := s.Rotate(t.Context(), "c1", otherKey); err != nil {
		t.Fatal(err)
	}
	p = mustBasic(t, s, "c1", otherKey)
	if _, err := s.RotateFrom(t.Context(), "c1", key, p.Epoch); err != nil {
		t.Error(err)
	}
	mustBasic(t, s, "c1", key)
}

// Row OT-03: a flood of registrations does not keep a client from replacing its key.
func TestRotateInAFlood(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	defer occupy(t, s.registrations)()
	if _, err := s.Rotate(t.Context(), "c1", otherKey); err != nil {
		t.Error(err)
	}
}

// Row OT-03: what cannot be rotated leaves the former key as it is.
func TestRotateRefuses(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	token := mustLogin(t, s, "c1")
	for _, tc := range []struct {
		id, key string
		want    error
		text    string
	}{
		{"c1", key[:31], ErrKeyShort, "rotation failed: key not long enough"},
		{"c1", "", ErrKeyShort, "rotation failed: key not long enough"},
		{"c1", strings.Repeat("k", 73), ErrKeyLong, "rotation failed: bcrypt: password length exceeds 72 bytes"},
		{"c2", otherKey, ErrUnknownClient, "rotation failed: error: not found"},
		{"", otherKey, ErrUnknownClient, "rotation failed: error: not found"},
	} {
		_, err := s.Rotate(t.Context(), tc.id, tc.key)
		wantErr(t, fmt.Sprintf("rotate %q", tc.id), err, tc.want, tc.text)
	}
	m.mu.Lock()
	m.err = ErrUnavailable
	m.mu.Unlock()
	if _, err := s.Rotate(t.Context(), "c1", otherKey); !errors.Is(err, ErrUnavailable) {
		t.Errorf("rotate on a full disk: %v", err)
	}
	m.mu.Lock()
	m.err = nil
	m.mu.Unlock()
	free := occupy(t, s.rotations)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Rotate(ended, "c1", otherKey); !errors.Is(err, context.Canceled) {
		t.Errorf("rotate in vain: %v", err)
	}
	free()
	if p := mustBasic(t, s, "c1", key); p.Epoch != 1 {
		t.Errorf("epoch %d after failed rotations, want 1", p.Epoch)
	}
	if _, err := s.Authenticate(t.Context(), header("Bearer "+token, here)); err != nil {
		t.Errorf("the token after failed rotations: %v", err)
	}
}

// Row OT-03: a request under way with the former key fails once Rotate has returned, wherever it was then.
func TestRotateDuringRequests(t *testing.T) {
	requests := map[string]func(s *Service) error{
		"basic": func(s *Service) error {
			_, err := s.Authenticate(context.Background(), header(basic("c1", key), here))
			return err
		},
		"login": func(s *Service) error {
			token, err := s.Login(context.Background(), "c1", key, from(here))
			if err != nil && token != "" {
				return errors.New("an error and a token")
			}
			return err
		},
	}
	for name, request := range requests {
		for _, cached := range []bool{false, true} {
			// The rotation takes place before the nth time that the request looks into the store.
			for n := 1; ; n++ {
				s, m := start(t, Config{})
				mustRegister(t, s, "c1")
				if cached {
					mustBasic(t, s, "c1", key)
				}
				looked := 0
				m.onAccount = func(m *memory, id string) {
					if looked++; looked == n {
						m.onAccount = nil
						if _, err := s.Rotate(context.Background(), id, otherKey); err != nil {
							t.Error(err)
						}
					}
				}
				err := request(s)
				if looked < n { // it looks no more often than that
					if err != nil || n < 2 {
						t.Errorf("%s, cached %v: %v without a rotation, after %d looks", name, cached, err, looked)
					}
					break
				}
				if !errors.Is(err, ErrAuthentication) {
					t.Errorf("%s, cached %v, rotated at look %d: got %v", name, cached, n, err)
				}
				if len(s.tokens.bySum) != 0 {
					t.Errorf("%s, cached %v, rotated at look %d: a token is left", name, cached, n)
				}
			}
		}
	}
}

// Row OT-03: of many logins that race with a rotation, none that ends after it has a token that works.
func TestRacingRotation(t *testing.T) {
	s, _ := start(t, Config{BcryptWorkers: 4})
	mustRegister(t, s, "c1")
	keys := []string{key, otherKey}
	for round := range 10 {
		former, next := keys[round%2], keys[(round+1)%2]
		var rotated atomic.Bool
		var wg sync.WaitGroup
		begin := make(chan struct{})
		tokens := make(chan string, 16)
		for i := range 16 {
			wg.Go(func() {
				<-begin
				if i%2 == 0 {
					s.verified.forget("c1")
				}
				after := rotated.Load()
				token, err := s.Login(t.Context(), "c1", former, from(here))
				if err == nil && after {
					t.Error("a login that began after the rotation succeeded")
				}
				tokens <- token
			})
		}
		close(begin)
		if _, err := s.Rotate(t.Context(), "c1", next); err != nil {
			t.Fatal(err)
		}
		rotated.Store(true)
		wg.Wait()
		close(tokens)
		for token := range tokens {
			if _, err := s.Authenticate(t.Context(), header("Bearer "+token, here)); err == nil {
				t.Error("a token of the former key works")
			}
		}
		s.failures.clear(source{"c1", network(here)})
		mustBasic(t, s, "c1", next)
	}
}

// Row OT-03: no key works after Revoke, not even the present one, until Rotate gives another.
func TestRevoke(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	p, token := mustBasic(t, s, "c1", key), mustLogin(t, s, "c1")
	ticket := mustTicket(t, s, p)
	epoch, err := s.Revoke(t.Context(), "c1")
	if err != nil || epoch <= p.Epoch || !m.accounts["c1"].Revoked {
		t.Fatalf("revoked to epoch %d, %v", epoch, err)
	}
	for _, c := range []Credentials{header(basic("c1", key), here), header("Bearer "+token, here), by(ticket)} {
		if _, err := s.Authenticate(t.Context(), c); !errors.Is(err, ErrAuthentication) {
			t.Errorf("after revocation: %v", err)
		}
	}
	// The id stays taken, and the hash is one of the present cost.
	if err := s.Register(t.Context(), "c1", key); !errors.Is(err, ErrAlreadyRegistered) {
		t.Errorf("register the revoked id: %v", err)
	}
	if cost, err := bcrypt.Cost(m.hash("c1")); err != nil || cost != bcrypt.MinCost {
		t.Errorf("the hash of a revoked client has cost %d, %v", cost, err)
	}
	if _, err := s.Rotate(t.Context(), "c1", otherKey); err != nil {
		t.Fatal(err)
	}
	if p := mustBasic(t, s, "c1", otherKey); p.Epoch <= epoch || m.accounts["c1"].Revoked {
		t.Errorf("rotated after revocation: %+v", p)
	}
	_, err = s.Revoke(t.Context(), "c2")
	wantErr(t, "unknown client", err, ErrUnknownClient, "revocation failed: error: not found")
}

// Row RT-05: registered anew, an id has nothing of what it had: no token, ticket or key of before.
func TestRegisteredAnew(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	p, token := mustBasic(t, s, "c1", key), mustLogin(t, s, "c1")
	ticket := mustTicket(t, s, p)
	if err := s.SetRoles(t.Context(), "c1", []string{"special"}); err != nil {
		t.Fatal(err)
	}
	// Removed behind the service's back, so that nothing but the epoch is against it.
	if _, err := m.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(t.Context(), "c1", otherKey); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Credentials{header(basic("c1", key), here), header("Bearer "+token, here), by(ticket)} {
		if _, err := s.Authenticate(t.Context(), c); !errors.Is(err, ErrAuthentication) {
			t.Errorf("with what the former client had: %v", err)
		}
	}
	if q := mustBasic(t, s, "c1", otherKey); q.Epoch <= p.Epoch || !slices.Equal(q.Roles, []string{policy.Client}) {
		t.Errorf("the new one is %+v, the former was %+v", q, p)
	}
}

// Row OT-02: a token is exchanged for a new one, once, and is dead then.
func TestRefresh(t *testing.T) {
	s, _ := start(t, Config{TokenLifetime: time.Hour})
	mustRegister(t, s, "c1")
	former := mustLogin(t, s, "c1")
	token, expires, err := s.Refresh(t.Context(), former)
	if err != nil || token == former || len(token) != tokenChars || time.Until(expires) > time.Hour || time.Until(expires) < 59*time.Minute {
		t.Fatalf("refreshed: %v, until %v", err, expires)
	}
	_, err = s.Authenticate(t.Context(), header("Bearer "+former, here))
	wantErr(t, "former token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	if p, err := s.Authenticate(t.Context(), header("Bearer "+token, here)); err != nil || p.ClientID != "c1" || p.Method != MethodBearer {
		t.Errorf("new token: %+v, %v", p, err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, _, err := s.Refresh(t.Context(), token); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 50 exchanges of one token succeeded, want 1", won.Load())
	}
	for _, bad := range []string{"", former, strings.Repeat("a", tokenChars), basic("c1", key)} {
		if _, _, err := s.Refresh(t.Context(), bad); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("refresh of %q: %v", bad, err)
		}
	}
	token = mustLogin(t, s, "c1")
	if err := s.Unregister(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Refresh(t.Context(), token)
	wantErr(t, "token of an ended client", err, ErrTokenInvalid, "authentication failed: token is invalid")
	_, err = s.Authenticate(t.Context(), header("Bearer "+token, here))
	wantErr(t, "token of an ended client", err, ErrTokenInvalid, "authentication failed: token is invalid")
}

// Row OT-02: of 200 tokens with one bit flipped none is accepted.
func TestFlippedTokens(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	for i := range 200 {
		token := []byte(mustLogin(t, s, "c1"))
		token[i%len(token)] ^= 1 << (i % 7)
		if _, err := s.Authenticate(t.Context(), header("Bearer "+string(token), here)); !errors.Is(err, ErrTokenInvalid) {
			t.Fatalf("token %d flipped: %v", i, err)
		}
	}
}

// Rows OT-02, C1: with the scope "login" a client's key is for login alone; operators' keys are not affected.
func TestBasicScope(t *testing.T) {
	s, _ := start(t, Config{BasicScope: BasicLogin, AdminKey: "secret"})
	mustRegister(t, s, "c1")
	for _, k := range []string{key, otherKey} { // whether it is right makes no difference
		_, err := s.Authenticate(t.Context(), header(basic("c1", k), here))
		wantErr(t, "basic", err, ErrUseBearer, "authentication failed: use a bearer token")
		var refused interface {
			Reason() string
			Status() int
		}
		if !errors.As(err, &refused) || refused.Reason() != "use_bearer" || refused.Status() != 401 {
			t.Errorf("basic: %v has no reason use_bearer or no status 401", err)
		}
	}
	if p, err := s.Authenticate(t.Context(), header("Bearer "+mustLogin(t, s, "c1"), here)); err != nil || p.ClientID != "c1" {
		t.Errorf("bearer: %+v, %v", p, err)
	}
	if p, err := s.Authenticate(t.Context(), header(basic("", "secret"), here)); err != nil || !p.Admin {
		t.Errorf("admin: %+v, %v", p, err)
	}
	all, _ := start(t, Config{BasicScope: BasicAll})
	mustRegister(t, all, "c1")
	mustBasic(t, all, "c1", key)
}
