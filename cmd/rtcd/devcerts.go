package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rtcd/config"
)

const devCertsUsage = `usage:
  rtcd dev-certs DIR [-hosts a,b] [-client ID]
Makes an authority (ca.pem), a pair for a server (server.pem, server-key.pem) and one for a backend
(client.pem, client-key.pem), for 30 days, in files that only their owner can read. The authority's
key is not kept. For development: production mode refuses this command, and the certificates.
`

const devCertsLifetime = 30 * 24 * time.Hour

// devCerts is "rtcd dev-certs".
func (c *cli) devCerts(args []string) int {
	flags := flag.NewFlagSet("rtcd dev-certs", flag.ContinueOnError)
	hosts := flags.String("hosts", "localhost,127.0.0.1,::1", "comma `list` of the server's names and addresses")
	client := flags.String("client", "backend", "`id` of the backend")
	rest, status, ok := c.parse(flags, devCertsUsage, args)
	switch {
	case !ok:
		return status
	case len(rest) != 1 || *hosts == "" || *client == "":
		return c.misuse(devCertsUsage, "dev-certs: want one folder, and hosts and a client that are not empty")
	}
	// Faults of the configuration do not matter here: it may name the very files that are to be made.
	cfg, _, err := config.Load(c.path, c.environ)
	var faults config.Faults
	switch {
	case err != nil && !errors.As(err, &faults):
		return c.end(err)
	case cfg.Mode.Production():
		return c.end(errors.New(`dev-certs: mode is "production", where certificates of an authority belong`))
	}
	if err := writeDevCerts(rest[0], strings.Split(*hosts, ","), *client, time.Now()); err != nil {
		return c.end(fmt.Errorf("dev-certs: %w", err))
	}
	return statusOK
}

// writeDevCerts makes the certificates in a folder, which it makes if missing. It overwrites nothing.
func writeDevCerts(dir string, hosts []string, client string, now time.Time) error {
	ca, caKey, caDER, err := devCert("authority", now, nil, nil, func(t *x509.Certificate) {
		t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
		t.KeyUsage = x509.KeyUsageCertSign
	})
	if err != nil {
		return err
	}
	_, serverKey, serverDER, err := devCert("server", now, ca, caKey, func(t *x509.Certificate) {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, host := range hosts {
			if ip := net.ParseIP(strings.TrimSpace(host)); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else {
				t.DNSNames = append(t.DNSNames, strings.TrimSpace(host))
			}
		}
	})
	if err != nil {
		return err
	}
	_, clientKey, clientDER, err := devCert(client, now, ca, caKey, func(t *x509.Certificate) {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		t.DNSNames = []string{client}
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		der  []byte
		key  crypto.PrivateKey
	}{
		{"ca.pem", caDER, nil},
		{"server-key.pem", nil, serverKey}, {"server.pem", serverDER, nil},
		{"client-key.pem", nil, clientKey}, {"client.pem", clientDER, nil},
	} {
		block := &pem.Block{Type: "CERTIFICATE", Bytes: file.der}
		if file.key != nil {
			der, err := x509.MarshalPKCS8PrivateKey(file.key)
			if err != nil {
				return fmt.Errorf("encode key: %w", err)
			}
			block = &pem.Block{Type: "PRIVATE KEY", Bytes: der}
		}
		if err := writeNew(filepath.Join(dir, file.name), pem.EncodeToMemory(block)); err != nil {
			return err
		}
	}
	return nil
}

// devCert makes a key and its certificate, signed by the parent or, without one, by itself.
func devCert(name string, now time.Time, parent *x509.Certificate, parentKey crypto.Signer, change func(*x509.Certificate)) (*x509.Certificate, crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{config.DevOrganization}, CommonName: name},
		NotBefore:    now.Add(-5 * time.Minute), // for clocks that are behind
		NotAfter:     now.Add(devCertsLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	change(template)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, der, err
}

// writeNew writes a file that is not there yet, for its owner alone.
func writeNew(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}
