package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("198.51.100.9")
)

const (
	key      = "0123456789abcdef0123456789abcdef"
	otherKey = "ffffffffffffffffffffffffffffffff"
)

// memory is a KeyStore in memory. onAccount, if set, runs before each reading.
type memory struct {
	mu        sync.Mutex
	accounts  map[string]Account
	removed   uint64 // highest epoch of a removed client
	onAccount func(*memory, string)
	err       error
}

func newMemory() *memory { return &memory{accounts: make(map[string]Account)} }

// hash returns what is stored of a client's key.
func (m *memory) hash(id string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accounts[id].Hash
}

func (m *memory) Account(_ context.Context, id string) (Account, bool, error) {
	if m.onAccount != nil {
		m.onAccount(m, id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	account, ok := m.accounts[id]
	return account, ok, m.err
}

func (m *memory) Add(_ context.Context, id string, hash []byte, roles []string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.accounts[id]; taken || m.err != nil {
		return false, m.err
	}
	m.accounts[id] = Account{Hash: hash, Roles: roles, Epoch: m.removed + 1}
	return true, nil
}

func (m *memory) Replace(_ context.Context, id string, old, hash []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	account := m.accounts[id]
	if !bytes.Equal(account.Hash, old) || m.err != nil {
		return false, m.err
	}
	account.Hash = hash
	m.accounts[id] = account
	return true, nil
}

func (m *memory) Change(_ context.Context, id string, change func(*Account) error) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	account, ok := m.accounts[id]
	if !ok || m.err != nil {
		return false, m.err
	}
	if err := change(&account); err != nil {
		return true, err
	}
	m.accounts[id] = account
	return true, nil
}

func (m *memory) Remove(_ context.Context, id string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	account, ok := m.accounts[id]
	m.removed = max(m.removed, account.Epoch)
	delete(m.accounts, id)
	return ok, m.err
}

// start returns a Service that hashes at the least cost.
func start(t *testing.T, cfg Config) (*Service, *memory) {
	t.Helper()
	if cfg.BcryptCost == 0 {
		cfg.BcryptCost = bcrypt.MinCost
	}
	m := newMemory()
	s := newService(cfg, m, nil)
	t.Cleanup(s.Close)
	return s, m
}

func basic(id, key string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+key))
}

// header is the credentials of a request with that Authorization header.
func header(authorization string, remote netip.Addr) Credentials {
	return Credentials{Authorization: authorization, Remote: remote}
}

// from is what a login has beside id and key.
func from(remote netip.Addr) Credentials { return Credentials{Remote: remote} }

func wantErr(t *testing.T, what string, got, want error, text string) {
	t.Helper()
	if !errors.Is(got, want) || got == nil || got.Error() != text {
		t.Errorf("%s: got %v, want %q", what, got, text)
	}
}

func wantLimit(t *testing.T, what string, err error, limit string) {
	t.Helper()
	var le *LimitError
	if !errors.As(err, &le) || le.Limit != limit || le.RetryAfter <= 0 {
		t.Errorf("%s: got %v, want the limit %q", what, err, limit)
	}
}

func mustRegister(t *testing.T, s *Service, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Register(t.Context(), id, key); err != nil {
			t.Fatal(err)
		}
	}
}

func mustLogin(t *testing.T, s *Service, id string) string {
	t.Helper()
	token, err := s.Login(t.Context(), id, key, from(here))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestNewChecksItsConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"cost 9": {BcryptCost: 9}, "cost 15": {BcryptCost: 15}, "lifetime": {TokenLifetime: -1}, "workers": {BcryptWorkers: -1},
	} {
		if s, err := New(cfg, newMemory(), nil); err == nil {
			s.Close()
			t.Errorf("%s was accepted", name)
		}
	}
	m := newMemory()
	s, err := New(Config{}, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustRegister(t, s, "c1")
	if !strings.HasPrefix(string(m.hash("c1")), "$2a$10$") {
		t.Errorf("stored %q, want bcrypt at cost 10", m.hash("c1"))
	}
}

// Row RT-01: what can be registered, and the texts of refusals.
func TestRegister(t *testing.T) {
	for _, tc := range []struct {
		name, id, key string
		strict        bool
		want          error
		text          string
	}{
		{name: "plain", id: "c1", key: key},
		{name: "64-byte id, 72-byte key", id: strings.Repeat("i", 64), key: strings.Repeat("k", 72)},
		{name: "colon", id: "a:b", key: key},
		{name: "UTF-8", id: "日本 ü", key: key},
		{name: "strict", id: "aZ0-_.~!", key: key, strict: true},
		{name: "31-byte key", id: "c", key: key[:31], want: ErrKeyShort, text: "registration failed: key not long enough"},
		{name: "no key", id: "c", want: ErrKeyShort, text: "registration failed: key not long enough"},
		{name: "73-byte key", id: "c", key: strings.Repeat("k", 73), want: ErrKeyLong, text: "registration failed: bcrypt: password length exceeds 72 bytes"},
		{name: "no id", key: key, want: ErrIDEmpty, text: "registration failed: error: empty key"},
		{name: "65-byte id", id: strings.Repeat("i", 65), key: key, want: ErrIDLong, text: "registration failed: error: key too large"},
		{name: "taken", id: "taken", key: key, want: ErrAlreadyRegistered, text: "registration failed: already registered"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, m := start(t, Config{StrictIDs: tc.strict})
			m.accounts["taken"] = Account{Hash: []byte("hash"), Epoch: 1}
			err := s.Register(t.Context(), tc.id, tc.key)
			if tc.want != nil {
				wantErr(t, "register", err, tc.want, tc.text)
				if len(m.accounts) != 1 {
					t.Error("something was stored")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if bcrypt.CompareHashAndPassword(m.hash(tc.id), []byte(tc.key)) != nil {
				t.Error("the stored hash is not the key's")
			}
		})
	}
	for _, id := range []string{"a\n", "\x00", "a\x7f", "\x1b[31m", "a\u2028b", "a\u202eb", "\xff", "a\u0085"} {
		s, _ := start(t, Config{})
		if err := s.Register(t.Context(), id, key); !errors.Is(err, ErrIDInvalid) {
			t.Errorf("register %q: %v, want ErrIDInvalid", id, err)
		}
	}
	for _, id := range []string{"a:b", "../b", `a\b`, `a"b`, "a b", "ü"} {
		s, _ := start(t, Config{StrictIDs: true})
		if err := s.Register(t.Context(), id, key); !errors.Is(err, ErrIDInvalid) {
			t.Errorf("strictly register %q: %v, want ErrIDInvalid", id, err)
		}
	}
}

func TestRacingRegistrations(t *testing.T) {
	s, m := start(t, Config{})
	var won atomic.Int32
	var wg sync.WaitGroup
	begin := make(chan struct{})
	winner := make(chan string, 20)
	for i := range 20 {
		wg.Go(func() {
			<-begin
			k := fmt.Sprintf("%s%02d", key, i)
			switch err := s.Register(t.Context(), "c1", k); {
			case err == nil:
				won.Add(1)
				winner <- k
			case !errors.Is(err, ErrAlreadyRegistered):
				t.Error(err)
			}
		})
	}
	close(begin)
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d registrations succeeded, want 1", won.Load())
	}
	if bcrypt.CompareHashAndPassword(m.hash("c1"), []byte(<-winner)) != nil {
		t.Error("the stored hash is not the winner's")
	}
}

// Row RT-03: texts of the protocol, section 5.1.
func TestAuthenticate(t *testing.T) {
	s, _ := start(t, Config{AdminKey: "the admin's secret"})
	mustRegister(t, s, "c1", "with:colon", "gone")
	if err := s.Unregister(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	token := mustLogin(t, s, "c1")
	flipped := []byte(token)
	flipped[5] ^= 1
	for _, tc := range []struct {
		name, header string
		want         Principal
		err          error
		text         string
	}{
		{name: "basic", header: basic("c1", key), want: Principal{ClientID: "c1"}},
		{name: "scheme in lower case", header: "basic" + basic("c1", key)[5:], want: Principal{ClientID: "c1"}},
		{name: "bearer", header: "Bearer " + token, want: Principal{ClientID: "c1"}},
		{name: "admin", header: basic("", "the admin's secret"), want: Principal{Admin: true}},
		{name: "admin with any id", header: basic("c1", "the admin's secret"), want: Principal{Admin: true}},
		{name: "nothing", err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "other scheme", header: "Digest x", err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "bad base64", header: "Basic !", err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "no colon", header: "Basic YWJj", err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "64 KiB", header: basic("c1", strings.Repeat("k", 48<<10)), err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "empty id", header: basic("", key), err: ErrUnauthorized, text: "authentication failed: unauthorized"},
		{name: "unknown id", header: basic("c2", key), err: ErrAuthentication, text: "authentication failed"},
		{name: "wrong key", header: basic("c1", otherKey), err: ErrAuthentication, text: "authentication failed"},
		{name: "short key", header: basic("c1", key[:31]), err: ErrAuthentication, text: "authentication failed"},
		{name: "long key", header: basic("c1", strings.Repeat("k", 73)), err: ErrAuthentication, text: "authentication failed"},
		{name: "empty key", header: basic("c1", ""), err: ErrAuthentication, text: "authentication failed"},
		{name: "long id", header: basic(strings.Repeat("i", 65), key), err: ErrAuthentication, text: "authentication failed"},
		{name: "removed", header: basic("gone", key), err: ErrAuthentication, text: "authentication failed"},
		{name: "id with a colon", header: basic("with:colon", key), err: ErrAuthentication, text: "authentication failed"},
		{name: "flipped token", header: "Bearer " + string(flipped), err: ErrTokenInvalid, text: "authentication failed: token is invalid"},
		{name: "two blanks", header: "Bearer  " + token, err: ErrTokenInvalid, text: "authentication failed: token is invalid"},
		{name: "bearer in lower case", header: "bearer " + token, err: ErrInvalidHeader, text: "authentication failed: invalid auth header"},
		{name: "empty token", header: "Bearer ", err: ErrTokenInvalid, text: "authentication failed: token is invalid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := s.Authenticate(t.Context(), header(tc.header, here))
			if tc.err != nil {
				wantErr(t, "authenticate", err, tc.err, tc.text)
			} else if err != nil {
				t.Error(err)
			}
			if got.ClientID != tc.want.ClientID || got.Admin != tc.want.Admin {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestAdmin(t *testing.T) {
	none, _ := start(t, Config{})
	for _, h := range []string{basic("", ""), basic("admin", "")} {
		if p, err := none.Authenticate(t.Context(), header(h, here)); err == nil || p.Admin {
			t.Errorf("%s: an empty admin key let %+v in", h, p)
		}
	}
	strict, _ := start(t, Config{AdminKey: "secret", StrictIDs: true})
	if p, err := strict.Authenticate(t.Context(), header(basic("", "secret"), here)); err != nil || !p.Admin {
		t.Errorf("strict admin: %+v, %v", p, err)
	}
	if p, err := strict.Authenticate(t.Context(), header(basic("c1", "secret"), here)); err == nil || p.Admin {
		t.Errorf("strict admin with an id: %+v, %v", p, err)
	}
}

// Row RT-04, protocol sections 4.4 and 5.3.
func TestLogin(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1", "c2")
	for name, pair := range map[string][2]string{
		"wrong key": {"c1", otherKey}, "unknown": {"c3", key}, "empty": {"", key}, "no key": {"c1", ""},
	} {
		_, err := s.Login(t.Context(), pair[0], pair[1], from(here))
		wantErr(t, name, err, ErrAuthentication, "login failed: authentication failed")
	}
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`)
	first := mustLogin(t, s, "c1")
	other := mustLogin(t, s, "c2")
	second := mustLogin(t, s, "c1")
	if !form.MatchString(first) || first == second {
		t.Errorf("tokens %q and %q", first, second)
	}
	_, err := s.Authenticate(t.Context(), header("Bearer "+first, here))
	wantErr(t, "replaced token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	for token, want := range map[string]string{second: "c1", other: "c2"} {
		if p, err := s.Authenticate(t.Context(), header("Bearer "+token, here)); err != nil || p.ClientID != want {
			t.Errorf("token of %s: %+v, %v", want, p, err)
		}
	}
}

// Row RT-05: what a removal ends.
func TestUnregister(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1", "c2")
	token, other := mustLogin(t, s, "c1"), mustLogin(t, s, "c2")
	wantErr(t, "no id", s.Unregister(t.Context(), ""), ErrIDMissing, "client id should not be empty")
	wantErr(t, "unknown", s.Unregister(t.Context(), "c3"), ErrUnknownClient, "unregister failed: error: not found")
	if err := s.Unregister(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Authenticate(t.Context(), header("Bearer "+token, here))
	wantErr(t, "its token", err, ErrTokenInvalid, "authentication failed: token is invalid")
	if _, err := s.Authenticate(t.Context(), header("Bearer "+other, here)); err != nil {
		t.Errorf("another's token: %v", err)
	}
	// Registered anew with another key, the former one is worth nothing.
	if err := s.Register(t.Context(), "c1", otherKey); err != nil {
		t.Fatal(err)
	}
	_, err = s.Authenticate(t.Context(), header(basic("c1", key), here))
	wantErr(t, "the former key", err, ErrAuthentication, "authentication failed")
}

// A client that is removed while its login is under way gets no token that lives.
func TestRemovalDuringLogin(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	readings := 0
	m.onAccount = func(m *memory, id string) {
		if readings++; readings == 2 { // the second is the one after the token was issued
			m.onAccount = nil
			if err := s.Unregister(context.Background(), id); err != nil {
				t.Error(err)
			}
		}
	}
	_, err := s.Login(t.Context(), "c1", key, from(here))
	wantErr(t, "login", err, ErrAuthentication, "login failed: authentication failed")
	if len(s.tokens.bySum) != 0 {
		t.Error("a token lives")
	}
}

func TestStoreFaultsReachTheCaller(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	m.err = fmt.Errorf("%w: disk full", ErrUnavailable)
	if err := s.Register(t.Context(), "c2", key); !errors.Is(err, ErrUnavailable) {
		t.Errorf("register: %v", err)
	}
	if _, err := s.Login(t.Context(), "c1", key, from(here)); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrAuthentication) {
		t.Errorf("login: %v", err)
	}
	if err := s.Unregister(t.Context(), "c1"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("unregister: %v", err)
	}
}

// Row RT-02: a hash of lower cost is replaced at the next login, and every wrong key costs the
// same until then.
func TestHashUpgrade(t *testing.T) {
	old, m := start(t, Config{BcryptCost: 4})
	mustRegister(t, old, "c1")
	s := newService(Config{BcryptCost: 6}, m, nil)
	t.Cleanup(s.Close)
	if _, err := s.Login(t.Context(), "c1", otherKey, from(here)); err == nil {
		t.Fatal("a wrong key was accepted")
	}
	if cost, _ := bcrypt.Cost(m.hash("c1")); cost != 4 {
		t.Errorf("cost %d after a failed login, want 4", cost)
	}
	token := mustLogin(t, s, "c1")
	if cost, _ := bcrypt.Cost(m.hash("c1")); cost != 6 {
		t.Errorf("cost %d after a login, want 6", cost)
	}
	for _, h := range []string{basic("c1", key), "Bearer " + token} {
		if _, err := s.Authenticate(t.Context(), header(h, here)); err != nil {
			t.Error(err)
		}
	}
}

// Neither keys nor tokens reach the log.
func TestNoSecretsInLogs(t *testing.T) {
	var out bytes.Buffer
	m := newMemory()
	s := newService(Config{BcryptCost: bcrypt.MinCost, AdminKey: "secret"},
		m, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer s.Close()
	mustRegister(t, s, "c1")
	token := mustLogin(t, s, "c1")
	var texts []string
	for range freeFailures + 3 {
		_, err := s.Login(t.Context(), "c1", otherKey, from(here))
		texts = append(texts, err.Error())
	}
	all := out.String() + strings.Join(texts, "\n")
	if !strings.Contains(out.String(), "192.0.2.1") {
		t.Errorf("the log does not name the address: %s", out.String())
	}
	for _, secret := range []string{key, otherKey, token, string(m.hash("c1"))} {
		if strings.Contains(all, secret) {
			t.Errorf("%q was written: %s", secret, all)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("Bearer " + strings.Repeat("a", tokenChars))
	f.Add("Bearer  x")
	f.Add(basic("c1", key))
	f.Add("basic OnNlY3JldA==")
	f.Add("Basic =")
	f.Add(strings.Repeat("B", maxHeaderBytes+1))
	f.Fuzz(func(t *testing.T, header string) {
		got, err := parseAuthorization(header)
		if err != nil {
			if !errors.Is(err, ErrAuthentication) || got != (given{}) {
				t.Fatalf("error %v with %+v", err, got)
			}
			return
		}
		switch {
		case len(header) > maxHeaderBytes:
			t.Fatal("an endless header was accepted")
		case got.token != "":
			if header != "Bearer "+got.token || len(got.token) != tokenChars {
				t.Fatalf("token %q of %q", got.token, header)
			}
		default:
			plain, err := base64.StdEncoding.DecodeString(header[len("Basic "):])
			if err != nil || string(plain) != got.id+":"+got.key || strings.Contains(got.id, ":") {
				t.Fatalf("id %q and key %q of %q", got.id, got.key, header)
			}
		}
	})
}
