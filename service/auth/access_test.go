package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"rtcd/service/policy"
)

// testCertificate returns a certificate whose common name, and that of kind DNS, is name.
func testCertificate(t *testing.T, name string, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		// An attribute that nobody here knows (ITI-19).
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{5, 0}}},
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func sumOf(cert *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(cert.Raw) }

func fingerprint(cert *x509.Certificate) string {
	sum := sumOf(cert)
	return hex.EncodeToString(sum[:])
}

// Row CR-10: a certificate has to name the client it is used for, with each kind of binding.
func TestCertificateBinding(t *testing.T) {
	uri := &url.URL{Scheme: "urn", Opaque: "client:c1"}
	named, foreign := testCertificate(t, "c1"), testCertificate(t, "c2")
	bySAN := testCertificate(t, "else", func(c *x509.Certificate) { c.EmailAddresses = []string{"c1"} })
	byURI := testCertificate(t, "else", func(c *x509.Certificate) { c.URIs = []*url.URL{uri} })
	byCN := testCertificate(t, "c1", func(c *x509.Certificate) { c.DNSNames = nil })
	wildcard := testCertificate(t, "*")
	otherCase := testCertificate(t, "C1")
	list := map[string][]string{"c1": {fingerprint(foreign), strings.ToUpper(fingerprint(byCN))}, "c2": {fingerprint(named)}}
	for _, tc := range []struct {
		name string
		bind CertBind
		cert *x509.Certificate
		id   string
		ok   bool
	}{
		{"none", CertBindNone, foreign, "c1", true},
		{"san", CertBindSAN, named, "c1", true},
		{"san, e-mail", CertBindSAN, bySAN, "c1", true},
		{"san, URI", CertBindSAN, byURI, uri.String(), true},
		{"san, foreign", CertBindSAN, foreign, "c1", false},
		{"san, only the common name", CertBindSAN, byCN, "c1", false},
		{"san, wildcard", CertBindSAN, wildcard, "c1", false},
		{"san, other case", CertBindSAN, otherCase, "c1", false},
		{"cn", CertBindCN, byCN, "c1", true},
		{"cn, only another name", CertBindCN, bySAN, "c1", false},
		{"cn, foreign", CertBindCN, foreign, "c1", false},
		{"fingerprint", CertBindFingerprint, foreign, "c1", true},
		{"fingerprint in capitals", CertBindFingerprint, byCN, "c1", true},
		{"fingerprint of another client", CertBindFingerprint, named, "c1", false},
		{"no certificate", CertBindSAN, nil, "c1", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := start(t, Config{CertBind: tc.bind, CertFingerprints: list, AdminKey: "secret"})
			mustRegister(t, s, tc.id)
			// A good connection, which lets no other one in.
			token := mustLogin(t, s, tc.id)
			ticket, _, err := s.NewTicket(t.Context(), Principal{ClientID: tc.id, Epoch: 1}, Binding{Addr: here})
			if err != nil {
				t.Fatal(err)
			}
			_, login := s.Login(t.Context(), tc.id, key, Credentials{Remote: here, Certificate: tc.cert})
			if tc.ok { // it has replaced the token
				token = mustLogin(t, s, tc.id)
			}
			results := map[string]error{"login": login}
			credentials := map[string]Credentials{"bearer": {Authorization: "Bearer " + token}, "ticket": {Ticket: ticket}}
			if !strings.Contains(tc.id, ":") {
				credentials["basic"] = Credentials{Authorization: basic(tc.id, key)}
			}
			for how, c := range credentials {
				c.Remote, c.Certificate = here, tc.cert
				_, results[how] = s.Authenticate(t.Context(), c)
			}
			for how, err := range results {
				switch {
				case tc.ok && err != nil:
					t.Errorf("%s: %v", how, err)
				case !tc.ok && (!errors.Is(err, ErrCertificate) || errors.Is(err, ErrAuthentication) || statusOf(err) != 403):
					t.Errorf("%s: %v, want ErrCertificate, a 403", how, err)
				}
			}
			// It is about clients' ids, and the admin has none.
			if _, err := s.Authenticate(t.Context(), Credentials{Authorization: basic("", "secret"), Certificate: tc.cert, Remote: here}); err != nil {
				t.Errorf("admin: %v", err)
			}
		})
	}
}

// reasonOf returns what machines are told.
func reasonOf(err error) string {
	var r interface{ Reason() string }
	if !errors.As(err, &r) {
		return ""
	}
	return r.Reason()
}

func statusOf(err error) int {
	var s interface{ Status() int }
	if !errors.As(err, &s) {
		return 0
	}
	return s.Status()
}

// Row CR-10: where certificates are required, a client without one is refused whatever else it has.
func TestCertificateIsRequired(t *testing.T) {
	s, _ := start(t, Config{CertBind: CertBindCN, RequireCert: true})
	mustRegister(t, s, "c1")
	cert := testCertificate(t, "c1")
	with := Credentials{Authorization: basic("c1", key), Remote: here, Certificate: cert}
	if _, err := s.Authenticate(t.Context(), with); err != nil {
		t.Fatal(err)
	}
	_, err := s.Authenticate(t.Context(), header(basic("c1", key), here))
	if !errors.Is(err, ErrNoCertificate) || statusOf(err) != 403 || reasonOf(err) != "certificate_required" {
		t.Errorf("basic without one: %v", err)
	}
	if _, err := s.Login(t.Context(), "c1", key, from(here)); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("login without one: %v", err)
	}
}

// Rows WX-12, WX-13, WX-04: roles come from an operator alone, are case-sensitive, never an operator's, and count
// from the next request on.
func TestRoles(t *testing.T) {
	s, m := start(t, Config{})
	mustRegister(t, s, "c1")
	token := mustLogin(t, s, "c1")
	want := func(what string, want ...string) {
		t.Helper()
		for _, c := range []Credentials{header(basic("c1", key), here), header("Bearer "+token, here)} {
			if p, err := s.Authenticate(t.Context(), c); err != nil || !slices.Equal(p.Roles, want) {
				t.Errorf("%s: roles %q, %v, want %q", what, p.Roles, err, want)
			}
		}
	}
	want("registered", "client")
	if m.accounts["c1"].Roles != nil {
		t.Error("the default role was stored")
	}
	set := func(roles ...string) error { return s.SetRoles(t.Context(), "c1", roles) }
	if err := set("client", "Ward.7"); !errors.Is(err, ErrRoleInvalid) {
		t.Errorf("a role in capitals: %v", err)
	}
	if err := set("ward.7_a-b", "client"); err != nil {
		t.Fatal(err)
	}
	want("custom", "ward.7_a-b", "client")
	full := make([]string, maxRoles)
	for i := range full {
		full[i] = fmt.Sprintf("%0*d", policy.MaxRoleBytes, i)
	}
	for _, tc := range []struct {
		roles  []string
		want   error
		reason string
	}{
		{[]string{"client", "admin"}, ErrRoleReserved, "role_reserved"},
		{[]string{"auditor"}, ErrRoleReserved, "role_reserved"},
		{[]string{"a", "a"}, ErrRoleInvalid, "role_invalid"},
		{[]string{""}, ErrRoleInvalid, "role_invalid"},
		{[]string{"ä"}, ErrRoleInvalid, "role_invalid"},
		{[]string{strings.Repeat("r", policy.MaxRoleBytes+1)}, ErrRoleInvalid, "role_invalid"},
		{append(slices.Clone(full), "one-more"), ErrRoleInvalid, "role_invalid"},
	} {
		if err := set(tc.roles...); !errors.Is(err, tc.want) || reasonOf(err) != tc.reason || statusOf(err) != 400 {
			t.Errorf("roles %q: %v", tc.roles, err)
		}
		if err := s.Add(t.Context(), "c2", key, tc.roles); !errors.Is(err, tc.want) {
			t.Errorf("add with roles %q: %v", tc.roles, err)
		}
	}
	want("after refusals", "ward.7_a-b", "client")
	if err := set(full...); err != nil {
		t.Error(err)
	}
	if err := s.SetRoles(t.Context(), "c1", []string{}); err != nil {
		t.Error(err)
	}
	want("all taken away")
	if err := s.SetRoles(t.Context(), "c1", nil); err != nil {
		t.Error(err)
	}
	want("the default again", "client")
	if err := s.SetRoles(t.Context(), "c2", nil); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("roles of an unknown client: %v", err)
	}
	if err := s.Add(t.Context(), "c2", key, []string{"special"}); err != nil {
		t.Fatal(err)
	}
	if p := mustBasic(t, s, "c2", key); !slices.Equal(p.Roles, []string{"special"}) {
		t.Errorf("added with a role: %q", p.Roles)
	}
}

// Row WX-12: who registers gets the default role of then, and it can be no operator's.
func TestDefaultRole(t *testing.T) {
	m := newMemory()
	s := newService(Config{BcryptCost: bcrypt.MinCost, DefaultRole: "newcomer"}, m, nil)
	t.Cleanup(s.Close)
	m.accounts["old"] = Account{Hash: []byte("hash"), Epoch: 1}
	mustRegister(t, s, "c1")
	if p := mustBasic(t, s, "c1", key); !slices.Equal(p.Roles, []string{"newcomer"}) {
		t.Errorf("roles %q, want the default", p.Roles)
	}
	if got := m.accounts["c1"].Roles; !slices.Equal(got, []string{"newcomer"}) {
		t.Errorf("stored %q: another default tomorrow would change it", got)
	}
	for _, role := range []string{"admin", "auditor", "Client", strings.Repeat("r", 33)} {
		if s, err := New(Config{DefaultRole: role}, m, nil); err == nil {
			s.Close()
			t.Errorf("the default role %q was accepted", role)
		}
	}
}

// The auditor has a key of its own, which opens nothing else.
func TestAuditor(t *testing.T) {
	s, _ := start(t, Config{AdminKey: "secret", AuditorKey: "another secret"})
	mustRegister(t, s, "c1")
	for _, id := range []string{"", "auditor"} {
		if p, err := s.Authenticate(t.Context(), header(basic(id, "another secret"), here)); err != nil || !p.Auditor || p.Admin || p.ClientID != "" || p.Method != MethodOperator {
			t.Errorf("id %q: %+v, %v", id, p, err)
		}
	}
	if p, err := s.Authenticate(t.Context(), header(basic("c1", "another secret"), here)); err == nil {
		t.Errorf("with a client's id: %+v", p)
	}
	if p, err := s.Authenticate(t.Context(), header(basic("auditor", "secret"), here)); err != nil || !p.Admin || p.Auditor {
		t.Errorf("the admin's key: %+v, %v", p, err)
	}
	none, _ := start(t, Config{AdminKey: "secret"})
	if p, err := none.Authenticate(t.Context(), header(basic("auditor", ""), here)); err == nil {
		t.Errorf("an empty key: %+v", p)
	}
	if s, err := New(Config{AdminKey: "same", AuditorKey: "same"}, newMemory(), nil); err == nil {
		s.Close()
		t.Error("one key for admin and auditor was accepted")
	}
}

func TestNewChecksAccess(t *testing.T) {
	for name, cfg := range map[string]Config{
		"scope": {BasicScope: "some"}, "ticket lifetime": {TicketTTL: time.Hour + 1}, "negative lifetime": {TicketTTL: -1},
		"ticket binding": {TicketBind: []string{"addr", "cookie"}}, "certificate binding": {CertBind: "issuer"},
		"fingerprint": {CertFingerprints: map[string][]string{"c1": {"00"}}},
	} {
		if s, err := New(cfg, newMemory(), nil); err == nil {
			s.Close()
			t.Errorf("%s was accepted", name)
		}
	}
	s, err := New(Config{TicketTTL: time.Hour, TicketBind: []string{"addr"}, CertBind: CertBindFingerprint, CertFingerprints: map[string][]string{"c1": {strings.Repeat("AA:", 31) + "AA"}}}, newMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// Rows OT-18, C12: who guesses an operator's key waits longer and longer; the operator elsewhere does not.
func TestOperatorGuessesAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(Config{BcryptCost: bcrypt.MinCost, AdminKey: "secret"}, newMemory(), nil)
		defer s.Close()
		try := func(key string, remote netip.Addr) error {
			_, err := s.Authenticate(t.Context(), header(basic("", key), remote))
			return err
		}
		for range freeFailures {
			if err := try("guess", there); !errors.Is(err, ErrUnauthorized) {
				t.Fatal(err)
			}
		}
		wantLimit(t, "a guess more", try("guess", there), "failed_logins")
		wantLimit(t, "the right key from there", try("secret", there), "failed_logins")
		if err := try("secret", here); err != nil {
			t.Errorf("the right key from elsewhere: %v", err)
		}
		time.Sleep(firstDelay)
		if err := try("secret", there); err != nil {
			t.Errorf("the right key after waiting: %v", err)
		}
	})
}

// Row OT-19: a million tokens that have expired take no room: there are never more than the cap, and none
// once they were swept.
func TestExpiredTokensTakeNoRoom(t *testing.T) {
	k, now := newTokens(), time.Now()
	for i := range manyTokens {
		id := fmt.Sprint(i)
		_, err := k.issue(tokenEntry{id, 1, now.Add(time.Second)})
		var limit *LimitError
		if errors.As(err, &limit) {
			now = now.Add(limit.RetryAfter)
			k.sweep(now)
			if len(k.bySum)+len(k.byClient) != 0 {
				t.Fatalf("%d tokens are left", len(k.bySum))
			}
			_, err = k.issue(tokenEntry{id, 1, now.Add(time.Second)})
		}
		if err != nil || len(k.bySum) > maxTokens {
			t.Fatalf("token %d: %v, %d are held", i, err, len(k.bySum))
		}
	}
}

// Row RT-03: a thousand requests with a good key take less than a second.
func TestGoodKeysAreFast(t *testing.T) {
	s, _ := start(t, Config{})
	mustRegister(t, s, "c1")
	mustBasic(t, s, "c1", key)
	defer occupy(t, s.logins)() // none of them computes
	begin := time.Now()
	for range 1000 {
		mustBasic(t, s, "c1", key)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("1000 requests took %v", took)
	}
}
