package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// DevOrganization is the subject of certificates that "rtcd dev-certs" makes. Production mode
// refuses them.
const DevOrganization = "rtcd development"

const (
	maxPEMBytes = 1 << 20
	certKey     = "api.http.tls.cert_file"
	keyKey      = "api.http.tls.cert_key"
	clientCAKey = "api.http.tls.client_ca_file"
	// renewBefore is how long before its end a certificate should have been renewed.
	renewBefore = 30 * 24 * time.Hour
)

// usesTLS reports whether a listener needs the certificate.
func (k *checking) usesTLS() bool { return k.API.HTTP.TLS.Enable || k.API.Admin.TLS.Enable }

// checkTLS applies the rules for both listeners, which share the files.
func (k *checking) checkTLS() {
	t, admin := k.API.HTTP.TLS, k.API.Admin.TLS
	none, request, require := string(ClientAuthNone), string(ClientAuthRequest), string(ClientAuthRequire)
	k.oneOf("api.http.tls.client_auth", string(t.ClientAuth), none, request, require)
	k.oneOf("api.admin.tls.client_auth", string(admin.ClientAuth), none, request, require)
	k.oneOf("api.http.tls.client_cert_bind", string(t.ClientCertBind), string(CertBindSAN), string(CertBindCN), string(CertBindFingerprint))
	if prints, err := t.Fingerprints(); err != nil {
		k.fault("api.http.tls.client_fingerprints", t.ClientFingerprints, "must be a list of clientID=SHA-256 of the certificate: "+err.Error())
	} else if t.ClientCertBind == CertBindFingerprint && t.ClientAuth != ClientAuthNone && len(prints) == 0 {
		k.fault("api.http.tls.client_fingerprints", t.ClientFingerprints, "must not be empty with api.http.tls.client_cert_bind = \"fingerprint\"")
	}
	if t.ClientAuth != ClientAuthNone && !t.Enable {
		k.fault("api.http.tls.client_auth", t.ClientAuth, "needs api.http.tls.enable on")
	}
	if admin.ClientAuth != ClientAuthNone && !admin.Enable {
		k.fault("api.admin.tls.client_auth", admin.ClientAuth, "needs api.admin.tls.enable on")
	}
	if t.Enable && t.ClientAuth != ClientAuthNone || admin.Enable && admin.ClientAuth != ClientAuthNone {
		k.checkClientCA(t.ClientCAFile)
	}
	if k.usesTLS() {
		k.checkCertificate(t)
	}
}

// checkCertificate loads the pair, and says of which file a problem is.
func (k *checking) checkCertificate(t TLS) {
	cert, certOK := k.readPEM(certKey, t.CertFile)
	key, keyOK := k.readPEM(keyKey, t.CertKey)
	var chain []*x509.Certificate
	if certOK {
		var err error
		if chain, err = parseChain(cert); err != nil {
			k.fault(certKey, t.CertFile, "must be a certificate: "+err.Error())
			certOK = false
		}
	}
	if !certOK || !keyOK {
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		k.fault(keyKey, t.CertKey, "must load together with "+certKey+": "+err.Error())
		return
	}
	k.judgeChain(t.CertFile, chain, time.Now())
}

// judgeChain finds certificates that do not belong before users.
func (k *checking) judgeChain(file string, chain []*x509.Certificate, now time.Time) {
	leaf := chain[0]
	switch {
	case slices.ContainsFunc(chain, isDevelopment):
		k.weakness(certKey, file, "is for development only (its subject or issuer is O="+DevOrganization+")")
	case selfSigned(leaf):
		k.weakness(certKey, file, "is self-signed: no client can tell it from another; use one of a certificate authority")
	}
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		k.weakness(certKey, file, "expired at "+leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		k.weakness(certKey, file, "is not valid before "+leaf.NotBefore.UTC().Format(time.RFC3339))
	case left < renewBefore:
		k.doubt(certKey, "expires at "+leaf.NotAfter.UTC().Format(time.RFC3339)+", in less than 30 days")
	}
}

func isDevelopment(c *x509.Certificate) bool {
	return slices.Contains(c.Subject.Organization, DevOrganization) || slices.Contains(c.Issuer.Organization, DevOrganization)
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// checkClientCA loads the authorities whose client certificates are accepted.
func (k *checking) checkClientCA(path string) {
	if path == "" {
		k.fault(clientCAKey, "", "must not be empty with client_auth other than none")
		return
	}
	data, ok := k.readPEM(clientCAKey, path)
	if !ok {
		return
	}
	chain, err := parseChain(data)
	if err != nil {
		k.fault(clientCAKey, path, "must be certificates: "+err.Error())
		return
	}
	if slices.ContainsFunc(chain, isDevelopment) {
		k.weakness(clientCAKey, path, "is for development only (its subject or issuer is O="+DevOrganization+")")
	}
}

// parseChain parses the certificates of a PEM file, of which there is at least one.
func parseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if data = rest; block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("no PEM block of a certificate")
	}
	return chain, nil
}

func (k *checking) readPEM(key, path string) ([]byte, bool) {
	if path == "" {
		k.fault(key, "", "must not be empty with TLS on")
		return nil, false
	}
	data, err := readRegular(path, maxPEMBytes)
	if err != nil {
		k.fault(key, path, "must be a readable file: "+err.Error())
		return nil, false
	}
	return data, true
}

// readRegular reads a file of a sensible size. Its errors do not have the path, which stands beside
// the rule already.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	var data []byte
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Size() > limit:
		err = fmt.Errorf("larger than %d bytes", limit)
	default:
		data, err = os.ReadFile(path)
	}
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		err = pathErr.Err
	}
	return data, err
}
