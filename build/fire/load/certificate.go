//go:build linux

package load

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Files of a server's certificate, in its folder.
const (
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// anybody takes any certificate: the network is ours alone.
func anybody() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// Certify gives the server a new certificate, in the place of the one it may have: the key first, each
// put in its place at once, as those do who renew certificates.
func (s *Server) Certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "rtcd under fire"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IPAddresses: []net.IP{s.cfg.Host.Addr.AsSlice()},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	if err := s.replace(keyFile, "PRIVATE KEY", secret); err != nil {
		return err
	}
	return s.replace(certFile, "CERTIFICATE", cert)
}

func (s *Server) replace(name, kind string, der []byte) error {
	path := filepath.Join(s.cfg.Dir, name)
	err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("replace a certificate: %w", err)
	}
	return nil
}
