package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/api"
	"rtcd/service/metrics"
)

const patience = 20 * time.Second

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// listen serves h until the test ends.
func listen(t *testing.T, cfg api.ServerConfig, h http.Handler, m *metrics.Metrics, w io.Writer) *api.Server {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	if w == nil {
		w = io.Discard
	}
	s, err := api.Listen(t.Context(), cfg, h, m, slog.New(slog.NewTextHandler(w, nil)))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx) // cuts what tests leave open
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func dial(t *testing.T, s *api.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// status reads the status of an answer, and 0 if the connection ends instead.
func status(c net.Conn) int {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestRawRequests(t *testing.T) { // F26
	r := newRig(open)
	s := listen(t, api.ServerConfig{HeaderTimeout: 200 * time.Millisecond, BodyTimeout: 200 * time.Millisecond}, r, r.metrics, nil)
	post := func(rest string) string { return "POST /register HTTP/1.1\r\nHost: x\r\n" + rest }
	tests := []struct {
		name, send string
		want       int
	}{
		{"good", "GET /version HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"header never ends", "GET /version HTTP/1.1\r\nHost: x\r\n", 0},
		{"nothing", "", 0},
		{"body never ends", post("Content-Length: 100\r\n\r\n{"), 400},
		{"200 MB announced", post("Content-Length: 200000000\r\n\r\n"), 413},
		{"chunked without end", post("Transfer-Encoding: chunked\r\n\r\n2000\r\n" + strings.Repeat("x", 0x2000)), 413},
		{"huge header", "GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + strings.Repeat("A", 64<<10) + "\r\n\r\n", 431},
		{"bad method", "G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		{"not HTTP", "\x16\x03\x01\x00\x00\r\n\r\n", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, s)
			go func() { _, _ = io.WriteString(c, tt.send) }()
			if got := status(c); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
		})
	}
}

func TestLargeBodiesCostNoMemory(t *testing.T) { // R7
	r := newRig(open)
	s := listen(t, api.ServerConfig{}, r, r.metrics, nil)
	chunk := []byte("100000\r\n" + strings.Repeat("x", 1<<20) + "\r\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 5 {
		c := dial(t, s)
		_, _ = io.WriteString(c, "POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 200 { // the server stops reading long before
			if _, err := c.Write(chunk); err != nil {
				break
			}
		}
		_ = c.Close()
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for bodies of up to 200 MB", grown)
	}
}

func TestConnectionLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   api.ServerConfig
		limit metrics.Limit
	}{
		{"per address", api.ServerConfig{MaxConnectionsPerAddress: 2}, api.LimitAddressConnections},
		{"in total", api.ServerConfig{MaxConnections: 2, MaxConnectionsPerAddress: -1}, api.LimitListenerConnections},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(shut)
			var logs syncBuffer
			s := listen(t, tt.cfg, r, r.metrics, &logs)
			get := func(c net.Conn) int {
				_, _ = io.WriteString(c, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
				return status(c)
			}
			first, second := dial(t, s), dial(t, s)
			if a, b := get(first), get(second); a != 200 || b != 200 {
				t.Fatalf("within the limit: %d, %d", a, b)
			}
			for range 5 {
				if got := get(dial(t, s)); got != 0 {
					t.Fatalf("beyond the limit: status %d", got)
				}
			}
			if n := strings.Count(logs.String(), "too many"); n != 1 {
				t.Errorf("%d log lines, want 1", n)
			}
			families, err := r.metrics.Registry().Gather()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(fmt.Sprint(families), string(tt.limit)) {
				t.Errorf("no hit of %s", tt.limit)
			}
			_ = first.Close()
			deadline := time.Now().Add(patience)
			for get(dial(t, s)) != 200 { // the place is free once the server has seen the end
				if time.Now().After(deadline) {
					t.Fatal("a closed connection does not give its place back")
				}
			}
		})
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-leave
	})
	s, err := api.Listen(t.Context(), api.ServerConfig{Address: "127.0.0.1:0"}, h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := dial(t, s)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	close(leave)
	if got := status(c); got != 200 {
		t.Errorf("request in flight: status %d", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	taken := listen(t, api.ServerConfig{}, http.NotFoundHandler(), nil, nil)
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	_, other := writePair(t, t.TempDir(), 2)
	for name, cfg := range map[string]api.ServerConfig{
		"port taken":     {Address: taken.Addr().String()},
		"no such file":   {Address: "127.0.0.1:0", CertFile: cert, KeyFile: filepath.Join(dir, "none")},
		"only one file":  {Address: "127.0.0.1:0", CertFile: cert},
		"foreign key":    {Address: "127.0.0.1:0", CertFile: cert, KeyFile: other},
		"not an address": {Address: "nowhere"},
	} {
		if s, err := api.Listen(t.Context(), cfg, nil, nil, nil); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Shutdown(t.Context())
		} else if strings.Contains(err.Error(), key) && name == "port taken" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// writePair writes a certificate with a serial number, and its key.
func writePair(t *testing.T, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		// A time of its own, however coarse the clock of the file system is.
		when := time.Now().Add(time.Duration(serial) * time.Minute)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestTLS(t *testing.T) { // RT-07, F34
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1)
	r := newRig(shut)
	var logs syncBuffer
	s := listen(t, api.ServerConfig{CertFile: cert, KeyFile: key, HeaderTimeout: time.Second}, r, r.metrics, &logs)
	handshake := func(maxVersion uint16) (*tls.Conn, error) {
		d := &net.Dialer{Timeout: patience}
		return tls.DialWithDialer(d, "tcp", s.Addr().String(), &tls.Config{
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: maxVersion, NextProtos: []string{"h2", "http/1.1"}})
	}
	serial := func() int64 {
		c, err := handshake(0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Fatalf("protocol %q: a WebSocket needs HTTP/1.1", p)
		}
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if c, err := handshake(tls.VersionTLS11); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is accepted")
	}
	old, err := handshake(tls.VersionTLS12)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	_ = old.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(old, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || status(old) != 200 {
		t.Fatalf("first connection: %v", err)
	}
	if got := serial(); got != 1 {
		t.Fatalf("serial %d, want 1", got)
	}

	// Half a pair: the old one stays.
	pair2 := t.TempDir()
	cert2, key2 := writePair(t, pair2, 2)
	copyFile(t, cert2, cert)
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(logs.String(), "not reloaded") {
		if got := serial(); got != 1 {
			t.Fatalf("serial %d from half a pair", got)
		}
		if time.Now().After(deadline) {
			t.Fatal("the broken pair is not noticed within 10 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
	copyFile(t, key2, key)
	for serial() != 2 {
		if time.Now().After(deadline) {
			t.Fatal("the new pair is not used within 10 s")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := io.WriteString(old, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || status(old) != 200 {
		t.Errorf("the old connection ended with the old certificate: %v", err)
	}
}

// copyFile copies content and time.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(to, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
