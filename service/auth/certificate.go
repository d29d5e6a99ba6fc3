package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A CertBind says what of a client's certificate has to be the client's id (ITI-19, IHE ATNA).
type CertBind string

// What of a certificate is compared.
const (
	// CertBindNone: nothing; the certificate only opens the connection.
	CertBindNone CertBind = "none"
	// CertBindSAN: one of the subject's alternative names (RFC 5280, section 4.2.1.6) of the kinds DNS,
	// e-mail and URI. Wildcards do not count.
	CertBindSAN CertBind = "san"
	// CertBindCN: the common name of the subject.
	CertBindCN CertBind = "cn"
	// CertBindFingerprint: its SHA-256 is among those of the client in Config.CertFingerprints.
	CertBindFingerprint CertBind = "fingerprint"
)

// parseFingerprints decodes hexadecimal SHA-256 sums, with or without colons.
func parseFingerprints(texts map[string][]string) (map[string][][sha256.Size]byte, error) {
	sums := make(map[string][][sha256.Size]byte, len(texts))
	for clientID, list := range texts {
		for _, text := range list {
			b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
			if err != nil || len(b) != sha256.Size {
				return nil, fmt.Errorf("certificate fingerprint of client %q: not 64 hexadecimal digits", clientID)
			}
			sums[clientID] = append(sums[clientID], [sha256.Size]byte(b))
		}
	}
	return sums, nil
}

// checkCertificate says whether a connection with cert, nil if it has none, is the client's. It is asked
// for each request: that one was good says nothing about the next. Names are compared byte by byte.
func (s *Service) checkCertificate(clientID string, cert *x509.Certificate) error {
	if cert == nil {
		if s.requireCert {
			return ErrNoCertificate
		}
		return nil
	}
	named := false
	switch s.certBind {
	case CertBindNone:
		return nil
	case CertBindSAN:
		named = slices.Contains(cert.DNSNames, clientID) || slices.Contains(cert.EmailAddresses, clientID)
		for _, uri := range cert.URIs {
			named = named || uri.String() == clientID
		}
	case CertBindCN:
		named = cert.Subject.CommonName == clientID
	case CertBindFingerprint:
		named = slices.Contains(s.fingerprints[clientID], sha256.Sum256(cert.Raw))
	}
	if !named {
		return ErrCertificate
	}
	return nil
}
