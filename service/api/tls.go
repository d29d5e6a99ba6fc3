package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// recheckInterval is how often at most the files of a certificate are looked at.
const recheckInterval = time.Second

// A ClientAuth says whether a listener asks its peers for a certificate.
type ClientAuth uint8

// Values of ClientAuth. A certificate that a peer shows has to verify in any case but the first.
const (
	NoClientAuth ClientAuth = iota
	RequestClientAuth
	RequireClientAuth
)

// errNoClientUsage refuses certificates that are not said to be for clients.
var errNoClientUsage = errors.New("tls: client certificate without the extended key usage clientAuth")

// A tlsFiles names the files of a listener's TLS.
type tlsFiles struct {
	cert, key string
	clientCA  string // "" without client certificates
}

// certificates holds the TLS settings of a listener and makes them anew when their files change.
// Files that do not load, perhaps because they are half written, leave the former settings in use.
type certificates struct {
	files      tlsFiles
	clientAuth ClientAuth
	log        *slog.Logger

	current atomic.Pointer[loadedTLS]

	mu      sync.Mutex     // held by the one handshake that looks at the files
	version [3]fileVersion // of the files when they were last read
	failed  bool           // to read them then
	checked time.Time
}

// A loadedTLS is one version of the settings. One tls.Config serves all its handshakes, so that
// sessions can be resumed.
type loadedTLS struct {
	config   *tls.Config
	notAfter time.Time // of the certificate
}

// A fileVersion tells one content of a file from the next.
type fileVersion struct {
	modified time.Time
	size     int64
}

func loadCertificates(files tlsFiles, auth ClientAuth, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, clientAuth: auth, log: log}
	version := c.stat()
	loaded, err := c.load()
	if err != nil {
		return nil, err
	}
	c.current.Store(loaded)
	c.version, c.checked = version, time.Now()
	return c, nil
}

// config returns the settings to listen with: each handshake takes those that are in force then.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.get().config, nil },
	}
}

// load reads the files.
func (c *certificates) load() (*loadedTLS, error) {
	cert, err := tls.LoadX509KeyPair(c.files.cert, c.files.key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", c.files.cert, c.files.key, err)
	}
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"}, // a WebSocket takes the connection over
		Certificates: []tls.Certificate{cert},
	}
	if c.clientAuth != NoClientAuth {
		// Without a pool of its own, crypto/tls would take the roots of the system.
		if cfg.ClientCAs, err = loadPool(c.files.clientCA); err != nil {
			return nil, err
		}
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
		if c.clientAuth == RequireClientAuth {
			cfg.ClientAuth = tls.RequireAndVerifyClientCert
		}
		cfg.VerifyPeerCertificate = checkClientUsage
		// A resumed session would not be verified again: not after the pool has changed, either.
		cfg.SessionTicketsDisabled = true
	}
	return &loadedTLS{cfg, cert.Leaf.NotAfter}, nil
}

func loadPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load authorities of client certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("load authorities of client certificates %s: no certificate in it", file)
	}
	return pool, nil
}

// checkClientUsage refuses a certificate that leaves its use open; crypto/tls has refused those
// that are for something else only.
func checkClientUsage(_ [][]byte, chains [][]*x509.Certificate) error {
	if len(chains) > 0 && !slices.Contains(chains[0][0].ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return errNoClientUsage
	}
	return nil
}

func (c *certificates) stat() (v [3]fileVersion) {
	for i, name := range [3]string{c.files.cert, c.files.key, c.files.clientCA} {
		if info, err := os.Stat(name); err == nil {
			v[i] = fileVersion{info.ModTime(), info.Size()}
		}
	}
	return v
}

// get returns the settings in force. Handshakes do not wait for one another.
func (c *certificates) get() *loadedTLS {
	if c.mu.TryLock() {
		c.refresh(time.Now())
		c.mu.Unlock()
	}
	return c.current.Load()
}

// expiry returns when the certificate in force ends.
func (c *certificates) expiry() time.Time { return c.get().notAfter }

// refresh loads the files again if they have changed, or did not load before: a file may have been
// completed within the same tick of its clock.
func (c *certificates) refresh(now time.Time) {
	if now.Sub(c.checked) < recheckInterval {
		return
	}
	c.checked = now
	version := c.stat() // before reading: a change in between is seen next time
	changed := version != c.version
	if !changed && !c.failed {
		return
	}
	c.version = version
	loaded, err := c.load()
	c.failed = err != nil
	switch {
	case err == nil:
		c.current.Store(loaded)
		c.log.Info("certificate reloaded", "file", c.files.cert, "expires", loaded.notAfter.UTC().Format(time.RFC3339))
	case changed:
		c.log.Warn("certificate not reloaded, the former stays in use", "err", err)
	}
}
