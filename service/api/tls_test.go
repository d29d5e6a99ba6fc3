package api_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/metrics"
)

// An authority signs certificates of tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue signs a certificate that ends at notAfter and is for the usages.
func (a *authority) issue(t *testing.T, name string, notAfter time.Time, usage ...x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter, ExtKeyUsage: usage,
		// ITI-19 nodes carry attributes that nobody here knows.
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{5, 0}}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// writeLater writes a file with a time that is later than the former's.
func writeLater(t *testing.T, name string, data []byte, later time.Duration) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(later)
	if err := os.Chtimes(name, when, when); err != nil {
		t.Fatal(err)
	}
}

// whoAmI answers with the common name of the verified certificate.
var whoAmI = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.VerifiedChains) > 0 {
		_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
	}
})

// ask connects with the certificate, which it shows whomever the server asks for, and returns who
// the server takes it for, "" for nobody. The connection stays open until the test ends.
func ask(t *testing.T, s *api.Server, cert *tls.Certificate, version uint16) (string, *tls.Conn, error) {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, MaxVersion: version}
	if cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", s.Addr().String(), cfg)
	if err != nil {
		return "", nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	name, err := again(c)
	return name, c, err
}

func again(c *tls.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// TestClientCertificates shows OT-05 and CR-10: three settings by what a client shows. Only
// certificates of the named authorities that are in force and for clients pass the handshake;
// unknown extensions do not matter.
func TestClientCertificates(t *testing.T) {
	own, foreign := newAuthority(t, "own"), newAuthority(t, "own") // of the same name
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	shown := map[string]*tls.Certificate{
		"none":         nil,
		"good":         own.issue(t, "node", soon, x509.ExtKeyUsageClientAuth),
		"foreign":      foreign.issue(t, "node", soon, x509.ExtKeyUsageClientAuth),
		"expired":      own.issue(t, "node", past, x509.ExtKeyUsageClientAuth),
		"for servers":  own.issue(t, "node", soon, x509.ExtKeyUsageServerAuth),
		"without uses": own.issue(t, "node", soon),
	}
	const refused = "refused"
	all := func(answer string) map[string]string {
		m := map[string]string{}
		for name := range shown {
			m[name] = answer
		}
		return m
	}
	request, require := all(refused), all(refused)
	request["none"], request["good"], require["good"] = "", "node", "node"
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	ca := filepath.Join(dir, "ca.pem")
	writeLater(t, ca, own.pem, 0)
	for _, tt := range []struct {
		name string
		auth api.ClientAuth
		want map[string]string
	}{
		{"none", api.NoClientAuth, all("")},
		{"request", api.RequestClientAuth, request},
		{"require", api.RequireClientAuth, require},
	} {
		s := listen(t, api.ServerConfig{CertFile: cert, KeyFile: key, ClientAuth: tt.auth, ClientCAFile: ca}, whoAmI, nil, nil)
		for name, c := range shown {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				got, _, err := ask(t, s, c, version)
				if err != nil {
					got = refused
				}
				if got != tt.want[name] {
					t.Errorf("client_auth %s, certificate %q, %s: %q, want %q (%v)", tt.name, name, tls.VersionName(version), got, tt.want[name], err)
				}
			}
		}
	}
}

// TestAuthoritiesReload shows RT-07 and CR-10: the authorities of clients are read again, too, half
// a file keeps the former ones, and connections stay.
func TestAuthoritiesReload(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	soon := time.Now().Add(time.Hour)
	one := first.issue(t, "one", soon, x509.ExtKeyUsageClientAuth)
	two := second.issue(t, "two", soon, x509.ExtKeyUsageClientAuth)
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	ca := filepath.Join(dir, "ca.pem")
	writeLater(t, ca, first.pem, 0)
	var logs syncBuffer
	s := listen(t, api.ServerConfig{CertFile: cert, KeyFile: key, ClientAuth: api.RequireClientAuth, ClientCAFile: ca}, whoAmI, nil, &logs)
	name, old, err := ask(t, s, one, 0)
	if name != "one" {
		t.Fatalf("first authority: %q, %v", name, err)
	}
	if _, _, err := ask(t, s, two, 0); err == nil {
		t.Fatal("an authority that is not in the file is taken")
	}
	deadline := time.Now().Add(10 * time.Second)
	until := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			if time.Now().After(deadline) {
				t.Fatalf("not within 10 s: %s", what)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	writeLater(t, ca, second.pem[:len(second.pem)/2], time.Minute)
	until("notice half a file", func() bool {
		if name, _, err := ask(t, s, one, 0); name != "one" {
			t.Fatalf("half a file: %q, %v", name, err)
		}
		return strings.Contains(logs.String(), "not reloaded")
	})
	writeLater(t, ca, second.pem, 2*time.Minute)
	until("take the new authority", func() bool { name, _, _ := ask(t, s, two, 0); return name == "two" })
	if _, _, err := ask(t, s, one, 0); err == nil {
		t.Error("the former authority is still taken")
	}
	if name, err := again(old); name != "one" {
		t.Errorf("the former connection ended: %q, %v", name, err)
	}
	if n := strings.Count(logs.String(), "not reloaded"); n != 1 {
		t.Errorf("%d warnings of half a file, want 1", n)
	}
}

// TestClientAuthorityFile shows CR-10: without authorities of its own a listener does not open; the
// roots of the system would be taken instead.
func TestClientAuthorityFile(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	empty := filepath.Join(dir, "empty.pem")
	writeLater(t, empty, []byte("no PEM"), 0)
	for name, cfg := range map[string]api.ServerConfig{
		"no file":    {CertFile: cert, KeyFile: key, ClientAuth: api.RequireClientAuth},
		"missing":    {CertFile: cert, KeyFile: key, ClientAuth: api.RequestClientAuth, ClientCAFile: filepath.Join(dir, "none")},
		"empty":      {CertFile: cert, KeyFile: key, ClientAuth: api.RequestClientAuth, ClientCAFile: empty},
		"a key":      {CertFile: cert, KeyFile: key, ClientAuth: api.RequestClientAuth, ClientCAFile: key},
		"plain HTTP": {ClientAuth: api.RequireClientAuth, ClientCAFile: cert},
	} {
		cfg.Address = "127.0.0.1:0"
		if s, err := api.Listen(t.Context(), cfg, whoAmI, nil, nil); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Shutdown(t.Context())
		}
	}
}

// TestCertificateExpiryMetric shows OT-06: rtcd_tls_cert_expiry_seconds is of the certificate in
// force, also after it was renewed without a handshake.
func TestCertificateExpiryMetric(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1) // for an hour
	m := metrics.New()
	value := func() (float64, bool) {
		families, err := m.Registry().Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "rtcd_tls_cert_expiry_seconds" {
				return f.GetMetric()[0].GetGauge().GetValue(), true
			}
		}
		return 0, false
	}
	if _, ok := value(); ok {
		t.Error("there is a certificate without TLS")
	}
	listen(t, api.ServerConfig{CertFile: cert, KeyFile: key}, whoAmI, m, nil)
	if v, _ := value(); v < 3500 || v > 3600 {
		t.Errorf("%v seconds, want an hour", v)
	}
	a := newAuthority(t, "later")
	renewed := a.issue(t, "localhost", time.Now().Add(1000*time.Hour), x509.ExtKeyUsageServerAuth)
	der, err := x509.MarshalPKCS8PrivateKey(renewed.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeLater(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: renewed.Certificate[0]}), time.Minute)
	writeLater(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), time.Minute)
	deadline := time.Now().Add(10 * time.Second)
	for v := 0.0; v < 900*3600; v, _ = value() {
		if time.Now().After(deadline) {
			t.Fatalf("%v seconds, want 1000 hours", v)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
