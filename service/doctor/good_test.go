package doctor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"maps"
	"math"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"rtcd/config"
)

// adminKey is one that nobody guesses.
const adminKey = "p9Xv2LqT7mZc4RwKb8YhN3sDf6GjE1aU5oViQ0x"

// givenPorts are those that freePort has returned.
var givenPorts sync.Map

// freePort returns a port that nobody has or was given, for TCP and UDP, of those that media may have.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(20_000))
		if err != nil {
			t.Fatal(err)
		}
		port := 20_000 + int(n.Int64())
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if _, given := givenPorts.Load(port); given {
			continue
		}
		if bind(t.Context(), "tcp", address) == nil && bind(t.Context(), "udp", address) == nil {
			givenPorts.Store(port, true)
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// diskDir returns a folder of the test's that is on a disk.
func diskDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if v, err := volumeOf(dir); err != nil || v.Type != "tmpfs" {
		return dir
	}
	dir, err := os.MkdirTemp(".", "testdata-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	dir, err = filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// An issuer makes certificates.
type issuer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{key, cert}
}

// issue writes a certificate for a key, and the key, and returns their paths.
func (i issuer) issue(t *testing.T, key crypto.Signer, from, to time.Time, names ...string) (cert, private string) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, private = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, private: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, private
}

func newKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A setup is a server that is to be, and the host it is to be on. All of the host is the machine that
// the test runs on, but what may well be wrong there.
type setup struct {
	Options
	files map[string]string // what is read in place of what there is; "": there is no such file
	toml  string            // more for the file of the configuration
	env   []string
}

// good is a set-up with which nothing is wrong.
func good(t *testing.T) *setup {
	t.Helper()
	c := config.Default()
	dir := filepath.Join(diskDir(t), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Store.DataSource = dir
	c.API.HTTP.ListenAddress = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	c.API.Admin.ListenAddress = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	c.API.HTTP.TLS.Enable = true
	c.API.HTTP.TLS.CertFile, c.API.HTTP.TLS.CertKey = newIssuer(t).issue(t, newKey(t, elliptic.P256()),
		time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour), "rtcd.example.com")
	c.API.Security.EnableAdmin, c.API.Security.AdminSecretKey = true, adminKey
	c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = "127.0.0.1", "127.0.0.1"
	c.RTC.ICEPortUDP = freePort(t)
	c.RTC.ICEPortTCP = c.RTC.ICEPortUDP
	c.RTC.ICEHostOverride = "203.0.113.7"
	c.Logger.EnableFile = false

	s := &setup{files: map[string]string{
		"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "max 100000\n",
		"/proc/sys/net/netfilter/nf_conntrack_max": "", "/proc/sys/net/netfilter/nf_conntrack_count": "",
	}}
	h := ThisHost()
	real := *h
	h.ReadFile = func(path string) ([]byte, error) {
		if text, ok := s.files[path]; ok {
			if text == "" {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		}
		return real.ReadFile(path)
	}
	h.Synchronised = func() (bool, error) { return true, nil }
	h.Buffers = func(want int) (int, int, error) { return want, want, nil }
	h.OpenFiles = func() (uint64, error) { return 65536, nil }
	h.GoMemory = func() int64 { return math.MaxInt64 }
	s.Options = Options{Config: c, Host: h}
	return s
}

// addresses replaces the addresses of the host.
func (s *setup) addresses(texts ...string) {
	s.Host.Addresses = func() ([]local, error) {
		var out []local
		for _, text := range texts {
			out = append(out, local{netip.MustParseAddr(text), "eth7"})
		}
		return out, nil
	}
}

// bound are addresses that can be listened on, whatever the machine has.
func (s *setup) bound() {
	s.Host.Bind = func(ctx ctx, network, address string) error { return nil }
}

// examine makes all checks, with the configuration as it is read from its file.
func (s *setup) examine(t *testing.T) []Finding {
	t.Helper()
	text, err := s.Config.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, append(text, s.toml...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Config, s.Report, _ = config.Load(path, s.env)
	return Run(t.Context(), s.Options)
}

func mapOf(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func (s *setup) have(pairs ...string) { maps.Copy(s.files, mapOf(pairs...)) }
