package service_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/rtc/rtctest"
)

// A pki is an authority that a server trusts, or not.
type pki struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate, signed by the authority or, while there is none, by itself.
func (p *pki) issue(change func(*x509.Certificate)) tls.Certificate {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		p.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t}
	ca := p.issue(func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	p.cert, p.key = ca.Leaf, ca.PrivateKey.(*ecdsa.PrivateKey)
	return p
}

// backend makes a certificate of a backend.
func (p *pki) backend(id string, change ...func(*x509.Certificate)) *tls.Certificate {
	p.t.Helper()
	cert := p.issue(func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{id}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		for _, f := range change {
			f(c)
		}
	})
	return &cert
}

// file writes a certificate, or a key if there is one, and returns the path.
func (p *pki) file(dir, name, kind string, der []byte) string {
	p.t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// serve configures a server with a certificate that asks backends for theirs.
func (p *pki) serve(auth config.ClientAuth) func(*config.Config) {
	p.t.Helper()
	dir := p.t.TempDir()
	cert := p.issue(func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		p.t.Fatal(err)
	}
	return func(c *config.Config) {
		c.API.HTTP.TLS = config.TLS{
			Enable: true, CertFile: p.file(dir, "cert", "CERTIFICATE", cert.Certificate[0]), CertKey: p.file(dir, "key", "PRIVATE KEY", key),
			ClientAuth: auth, ClientCAFile: p.file(dir, "ca", "CERTIFICATE", p.cert.Raw), ClientCertBind: config.CertBindSAN,
		}
	}
}

// with is TLS to a server of this authority with a certificate, nil for none. It is shown whatever the
// server asks for.
func (p *pki) with(cert *tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(p.cert)
	return &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}}
}

// over makes requests over connections of their own with a certificate.
func (c caller) over(conf *tls.Config) caller {
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	return c
}

// socket opens a WebSocket with a certificate and returns the status, 0 if it came to none.
func (c caller) socket(conf *tls.Config, header http.Header, protocols ...string) int {
	d := websocket.Dialer{TLSClientConfig: conf, HandshakeTimeout: 30 * time.Second, Subprotocols: protocols}
	ws, resp, err := d.Dial("ws"+strings.TrimPrefix(c.url, "http")+"/ws", header)
	if err == nil {
		_ = ws.Close()
	}
	if resp == nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestMutualTLS shows OT-05 and CR-10 from end to end: whom the server lets connect for which certificate,
// under its three settings, and as whom. A certificate that is not the client's is refused by request and
// WebSocket, with the client's own key, and that is on record. People talk over a connection whose
// certificate is good.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ctx := within(t, 90*time.Second)
	ours, theirs := newPKI(t), newPKI(t)
	a, b := ours.backend("a"), ours.backend("b", func(c *x509.Certificate) {
		// Whatever else stands in it (ITI-19).
		c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{5, 0}}}
	})
	bad := map[string]*tls.Certificate{
		"foreign":     theirs.backend("a"),
		"expired":     ours.backend("a", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }),
		"of a server": ours.backend("a", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
	}
	for _, auth := range []config.ClientAuth{config.ClientAuthNone, config.ClientAuthRequest, config.ClientAuthRequire} {
		t.Run(string(auth), func(t *testing.T) {
			dir := t.TempDir()
			conf := ours.serve(auth)
			s := start(t, nil, func(c *config.Config) {
				conf(c)
				c.Audit.Enable, c.Audit.Dir = "on", dir
			})
			s.url = "https://" + s.Addr().String()
			register := func(id string, cert *tls.Certificate) {
				caller{t: t, url: s.url}.over(ours.with(cert)).must(201, "POST", "/register", `{"clientID":"`+id+`","authKey":"`+key+`"}`)
			}
			register("a", a)
			asA, header := s.as(t, "a", key), http.Header{"Authorization": {basic("a", key)}}
			asA.over(ours.with(a)).must(200, "GET", "/calls", "")

			// One good connection unlocks no other.
			asked := auth != config.ClientAuthNone
			for name, cert := range bad {
				r, err := asA.over(ours.with(cert)).try("GET", "/calls", "")
				if asked != (err != nil) {
					t.Errorf("a certificate that is %s: %d, %v", name, r.status, err)
				}
				if status := asA.socket(ours.with(cert), header); (status == 101) == asked {
					t.Errorf("a WebSocket with a certificate that is %s: %d", name, status)
				}
			}
			r, err := asA.over(ours.with(nil)).try("GET", "/calls", "")
			if none := auth == config.ClientAuthRequire; none != (err != nil) || !none && r.status != 200 {
				t.Errorf("no certificate: %d, %v", r.status, err)
			}
			if status := asA.socket(ours.with(nil), header); (status == 101) == (auth == config.ClientAuthRequire) {
				t.Errorf("a WebSocket without certificate: %d", status)
			}
			if !asked {
				asA.over(ours.with(b)).must(200, "GET", "/calls", "") // nobody looked at it
				return
			}
			asA.over(ours.with(b)).refused(403, "certificate_mismatch", "GET", "/calls", "")
			caller{t: t, url: s.url, authorization: "Bearer " + asA.over(ours.with(a)).login()}.
				over(ours.with(b)).refused(403, "certificate_mismatch", "GET", "/calls", "")
			if status := asA.socket(ours.with(b), header); status != 403 {
				t.Errorf("a WebSocket of a with the certificate of b: %d", status)
			}
			if auth == config.ClientAuthRequire {
				tickets(t, s, ours, a, b)
				talk(ctx, t, s, ours.with(a))
			}
			s.stop()
			err = <-s.done
			s.done <- err
			record := auditText(t, dir)
			for _, kind := range []string{"call.list", "ws.open"} {
				found := false
				for line := range strings.Lines(record) {
					found = found || strings.Contains(line, kind) && strings.Contains(line, "certificate_mismatch") && strings.Contains(line, `"a"`)
				}
				if !found {
					t.Errorf("no event %s of a wrong certificate", kind)
				}
			}
		})
	}
}

// tickets checks that a ticket is for the certificate it was made with, and burnt by any other, also one
// of the same client.
func tickets(t *testing.T, s *server, ours *pki, a, b *tls.Certificate) {
	t.Helper()
	asA, again := s.as(t, "a", key), ours.backend("a")
	ticket := func() string {
		return "rtcd.ticket." + asA.over(ours.with(a)).must(201, "POST", "/ws/tickets", "").field("ticket")
	}
	if status := asA.socket(ours.with(a), nil, ticket()); status != 101 {
		t.Errorf("a ticket with its certificate: %d", status)
	}
	for name, cert := range map[string]*tls.Certificate{"another client": b, "the same client": again} {
		one := ticket()
		if status := asA.socket(ours.with(cert), nil, one); status != 401 {
			t.Errorf("a ticket with a certificate of %s: %d", name, status)
		}
		if status := asA.socket(ours.with(a), nil, one); status != 401 {
			t.Errorf("a ticket after it came with a certificate of %s: %d", name, status)
		}
	}
}

// talk makes two people talk whose backend connects with that.
func talk(ctx context.Context, t *testing.T, s *server, conf *tls.Config) {
	t.Helper()
	c, err := client.New(client.Config{URL: s.url, ClientID: "a", AuthKey: key, TLS: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	conn, err := c.Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	all := people(ctx, t, rtctest.NewRemote(t, conn), "call", "s1", "s2")
	stop := rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 20)
	stop()
	if list, err := c.Sessions(ctx, "call"); err != nil || len(list) != 2 {
		t.Errorf("sessions %v: %v", list, err)
	}
}
