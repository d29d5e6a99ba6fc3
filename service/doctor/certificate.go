package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"rtcd/config"
)

// renewTime is how long before its end a certificate should have been renewed.
const renewTime = 14 * 24 * time.Hour

// checkCertificate judges the certificate that both listeners share.
func checkCertificate(_ context.Context, v *visit) {
	t := v.Config.API.HTTP.TLS
	if !t.Enable && !v.Config.API.Admin.TLS.Enable {
		return
	}
	leaf := v.loadPair(t)
	if leaf == nil {
		return
	}
	now := v.host.Now()
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		v.add(certExpired, "%s ended at %s", t.CertFile, at(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		v.add(certNotYet, "%s begins at %s, and it is %s here", t.CertFile, at(leaf.NotBefore), at(now))
	case left < renewTime:
		v.add(certExpiring, "%s ends at %s, in %d days", t.CertFile, at(leaf.NotAfter), int(left/(24*time.Hour)))
	}
	for _, name := range v.ownNames() {
		if leaf.VerifyHostname(name) != nil {
			v.add(certName, "%s is for %s, not for %s", t.CertFile, certNames(leaf), name)
			break
		}
	}
	if weak := weakness(leaf); weak != "" {
		v.add(certWeak, "%s %s", t.CertFile, weak)
	}
}

// loadPair returns the certificate if it and its key can be used.
func (v *visit) loadPair(t config.TLS) *x509.Certificate {
	cert, err := v.host.ReadFile(t.CertFile)
	if err != nil {
		v.add(certUnreadable, "api.http.tls.cert_file: %v", err)
		return nil
	}
	key, err := v.host.ReadFile(t.CertKey)
	if err != nil {
		v.add(certUnreadable, "api.http.tls.cert_key: %v", err)
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	switch {
	case err == nil:
		return pair.Leaf
	case parses(cert) && strings.Contains(err.Error(), "does not match"):
		v.add(certKeyMismatch, "%s is not the key of %s: %v", t.CertKey, t.CertFile, err)
	default:
		v.add(certUnreadable, "%s with %s: %v", t.CertFile, t.CertKey, err)
	}
	return nil
}

func parses(cert []byte) bool {
	block, _ := pem.Decode(cert)
	if block == nil {
		return false
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return err == nil
}

// ownNames are the names and addresses that the configuration has for this server, but those that
// mean this machine or all its addresses.
func (v *visit) ownNames() []string {
	var names []string
	if host, _, err := net.SplitHostPort(v.Config.API.HTTP.ListenAddress); err == nil && host != "" && host != "localhost" {
		if a, err := netip.ParseAddr(host); err != nil || !a.IsUnspecified() && !a.IsLoopback() {
			names = append(names, host)
		}
	}
	if o, err := v.Config.RTC.HostOverride(); err == nil && o.Kind == config.HostOverrideName {
		names = append(names, strings.TrimSuffix(o.Name, "."))
	}
	return names
}

func certNames(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names[:min(len(names), 8)], ", ")
}

// weakness says what of a certificate is too weak, or "".
func weakness(c *x509.Certificate) string {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return "is signed with " + c.SignatureAlgorithm.String()
	}
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Sprintf("has an RSA key of %d bits", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Sprintf("has an elliptic-curve key of %d bits", bits)
		}
	}
	return ""
}
