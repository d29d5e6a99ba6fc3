package api

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// recheckInterval is how often at most the files of a certificate are looked at.
const recheckInterval = time.Second

// certificates holds the certificate of a listener and loads it again when its files change.
// A pair that does not load, perhaps because it is half written, leaves the former in use.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu      sync.Mutex     // held by the one handshake that looks at the files
	version [2]fileVersion // of the files when they were last read
	checked time.Time
}

// A fileVersion tells one content of a file from the next.
type fileVersion struct {
	modified time.Time
	size     int64
}

func loadCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log}
	version := c.stat()
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", certFile, keyFile, err)
	}
	c.current.Store(&cert)
	c.version, c.checked = version, time.Now()
	return c, nil
}

func (c *certificates) stat() (v [2]fileVersion) {
	for i, name := range [2]string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			v[i] = fileVersion{info.ModTime(), info.Size()}
		}
	}
	return v
}

// get implements tls.Config.GetCertificate. Handshakes do not wait for one another.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		c.refresh(time.Now())
		c.mu.Unlock()
	}
	return c.current.Load(), nil
}

// refresh loads the certificate again if its files have changed.
func (c *certificates) refresh(now time.Time) {
	if now.Sub(c.checked) < recheckInterval {
		return
	}
	c.checked = now
	version := c.stat() // before reading: a change in between is seen next time
	if version == c.version {
		return
	}
	c.version = version
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn("certificate not reloaded, the former stays in use", "err", err)
		return
	}
	c.current.Store(&cert)
	c.log.Info("certificate reloaded", "file", c.certFile)
}
