package audit_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/audit"
)

// authority makes certificates for 127.0.0.1.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// ca is the path of the authority's certificate.
func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	write(t, a.ca(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns the paths of a certificate and its key.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return certFile, keyFile
}

// A collector is a syslog server that reads strictly.
type collector struct {
	listener net.Listener
	running  sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	conns    []net.Conn
	messages []syslogMessage
	faults   []error
	bytes    int
	checked  []uint64 // the records of the first messages
}

// collect listens at address, over TLS if there is a setting, and takes in order what comes.
func collect(t *testing.T, address string, settings *tls.Config) *collector {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if settings != nil {
		l = tls.NewListener(l, settings)
	}
	c := &collector{listener: l}
	c.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			c.running.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(c.stop)
	return c
}

// stop ends the server and breaks its connections.
func (c *collector) stop() {
	_ = c.listener.Close()
	c.mu.Lock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.running.Wait()
}

func (c *collector) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		text, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			return
		}
		var m syslogMessage
		if err == nil {
			m, err = parseSyslog(text)
		}
		c.mu.Lock()
		c.bytes += len(text)
		if err != nil {
			c.faults = append(c.faults, err)
			c.mu.Unlock()
			return
		}
		c.messages = append(c.messages, m)
		c.mu.Unlock()
	}
}

// readFrame reads a frame of RFC 5425 strictly: a length without leading zeros, a space, so many bytes.
func readFrame(in *bufio.Reader) ([]byte, error) {
	digits, err := in.ReadString(' ')
	if err != nil {
		if digits == "" {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("frame %.20q: %w", digits, err)
	}
	n, err := strconv.Atoi(digits[:len(digits)-1])
	if err != nil || n <= 0 || n > 64<<10 || strconv.Itoa(n)+" " != digits {
		return nil, fmt.Errorf("frame of %.20q bytes", digits)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(in, text)
	if err != nil {
		return nil, io.EOF // broken off: it counts as not come
	}
	return text, nil
}

// seqs returns the records that came, in order.
func (c *collector) seqs(t *testing.T) []uint64 {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range c.faults {
		if !errors.Is(err, io.EOF) {
			t.Errorf("collector: %v", err)
		}
	}
	for _, m := range c.messages[len(c.checked):] {
		c.checked = append(c.checked, seqOf(t, m.body))
	}
	return slices.Clone(c.checked)
}

// seqOf checks a message and returns its record's number.
func seqOf(t *testing.T, body []byte) uint64 {
	t.Helper()
	if err := validAuditMessage(body); err != nil {
		t.Errorf("%v in %s", err, body)
	}
	_, rest, _ := strings.Cut(string(body), `type="seq" value="`)
	encoded, _, _ := strings.Cut(rest, `"`)
	text, _ := base64.StdEncoding.DecodeString(encoded)
	seq, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		t.Errorf("%v in %s", err, body)
	}
	return seq
}

// complete checks that records from to to came, each for the first time in order; those that were sent again after
// a break may come twice.
func complete(t *testing.T, seqs []uint64, from, to uint64) {
	t.Helper()
	next := from
	for _, seq := range seqs {
		if seq == next {
			next++
		} else if seq > next {
			t.Fatalf("record %d came when %d was due", seq, next)
		}
	}
	if next != to+1 {
		t.Fatalf("records up to %d came, want %d", next-1, to)
	}
}

func serverTLS(t *testing.T, a *authority, clients *x509.CertPool) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(t, "collector"))
	if err != nil {
		t.Fatal(err)
	}
	settings := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		settings.ClientAuth, settings.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	return settings
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// TestSinkDown shows CR-15 for TLS and TCP: whatever the server misses while it is away, and whatever was under
// way when it broke off, arrives later, in order; a restart of ours in between changes nothing; and what has arrived
// for good is not sent again.
func TestSinkDown(t *testing.T) {
	for _, transport := range []string{audit.TLS, audit.TCP} {
		t.Run(transport, func(t *testing.T) {
			a := newAuthority(t)
			var settings *tls.Config
			sink := audit.SinkConfig{Transport: transport, Address: freeAddress(t), Settle: 300 * time.Millisecond, RetryMax: 100 * time.Millisecond}
			if transport == audit.TLS {
				pool := x509.NewCertPool()
				pool.AddCert(a.cert)
				settings = serverTLS(t, a, pool)
				sink.CAFile = a.ca()
				sink.CertFile, sink.KeyFile = a.issue(t, "rtcd")
			}
			dir := t.TempDir()
			cfg := audit.Config{Dir: dir, MaxFileBytes: 32 << 10, Sinks: []audit.SinkConfig{sink}}
			r := open(t, cfg)
			record(t, r, 100)
			var seqs []uint64
			for range 3 {
				c := collect(t, sink.Address, settings)
				until := r.Stats().Written
				eventually(t, "the server catches up", 10*time.Second, func() bool { return slices.Contains(c.seqs(t), until) })
				record(t, r, 50)
				c.stop()
				seqs = append(seqs, c.seqs(t)...)
				record(t, r, 50)
			}
			closed(t, r)
			last := verified(t, dir).Records
			c := collect(t, sink.Address, settings)
			r = open(t, cfg)
			record(t, r, 5)
			eventually(t, "all is delivered", 10*time.Second, func() bool { return r.Stats().Sinks[0].Unsent == 0 })
			s := r.Stats().Sinks[0]
			if !s.Connected || s.Skipped != 0 || s.Spool > 64<<10 {
				t.Errorf("got %+v", s)
			}
			closed(t, r)
			c.stop()
			seqs = append(seqs, c.seqs(t)...)
			complete(t, seqs, 1, last+7)

			c = collect(t, sink.Address, settings)
			r = open(t, cfg)
			synced(t, r)
			eventually(t, "all is delivered", 10*time.Second, func() bool { return r.Stats().Sinks[0].Unsent == 0 })
			if got := c.seqs(t); !slices.Equal(got, []uint64{last + 8}) {
				t.Errorf("after a clean end: got %v, want %d alone", got, last+8)
			}
		})
	}
}

// TestSinkUDP shows CR-15 over UDP.
func TestSinkUDP(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := open(t, audit.Config{Dir: t.TempDir(), Sinks: []audit.SinkConfig{{Transport: audit.UDP, Address: conn.LocalAddr().String()}}})
	record(t, r, 20)
	var seqs []uint64
	buf := make([]byte, 64<<10)
	for len(seqs) < 21 {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseSyslog(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, seqOf(t, m.body))
	}
	complete(t, seqs, 1, 21)
}

// TestSinkUnverified shows CR-15: a server whose certificate another authority signed, or that is of another name, or
// is none at all, gets not one byte of the log.
func TestSinkUnverified(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	for name, test := range map[string]struct {
		ca   string
		host string
	}{"another authority": {other.ca(), "127.0.0.1"}, "another name": {a.ca(), "localhost"}} {
		t.Run(name, func(t *testing.T) {
			c := collect(t, "127.0.0.1:0", serverTLS(t, a, nil))
			_, port, _ := net.SplitHostPort(c.listener.Addr().String())
			r := open(t, audit.Config{Dir: t.TempDir(), Sinks: []audit.SinkConfig{{
				Address: net.JoinHostPort(test.host, port), CAFile: test.ca, RetryMax: 50 * time.Millisecond,
			}}})
			record(t, r, 10)
			eventually(t, "it fails three times", 10*time.Second, func() bool { return r.Stats().Sinks[0].Failures >= 3 })
			if s := r.Stats().Sinks[0]; s.Sent != 0 || s.Unsent != 11 || s.Connected {
				t.Errorf("got %+v", s)
			}
			closed(t, r)
			c.stop()
			if c.bytes != 0 || len(c.messages) != 0 {
				t.Errorf("the server got %d bytes", c.bytes)
			}
		})
	}
}

// TestSinkSpoolFull shows CR-15: beyond the spool's cap the oldest events are skipped, counted, and an alert says
// which; the newest arrive in order.
func TestSinkSpoolFull(t *testing.T) {
	dir := t.TempDir()
	sink := audit.SinkConfig{Transport: audit.TCP, Address: freeAddress(t), SpoolBytes: 200 << 10, RetryMax: 50 * time.Millisecond, Settle: 100 * time.Millisecond}
	r := open(t, audit.Config{Dir: dir, MaxFileBytes: 100 << 10, Sinks: []audit.SinkConfig{sink}})
	record(t, r, 3000) // about 1.4 MB
	eventually(t, "events are skipped", 10*time.Second, func() bool { s := r.Stats().Sinks[0]; return s.Skipped > 0 && s.Spool <= sink.SpoolBytes })
	synced(t, r)
	c := collect(t, sink.Address, nil)
	eventually(t, "the rest is delivered", 10*time.Second, func() bool { return r.Stats().Sinks[0].Unsent == 0 })
	skipped := r.Stats().Sinks[0].Skipped
	seqs := c.seqs(t)
	if len(seqs) == 0 || seqs[0] != skipped+1 {
		t.Fatalf("%d skipped; got %d, from %d on", skipped, len(seqs), seqs[0])
	}
	complete(t, seqs, skipped+1, r.Stats().Written)
	alerts := all(t, r, audit.Filter{Type: "audit.sink_skipped"})
	if len(alerts) == 0 || !strings.Contains(alerts[0].Reason, "records 1 to ") {
		t.Errorf("on record: %+v", alerts)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	priorities := map[int]int{}
	for _, m := range c.messages {
		priorities[m.priority]++
	}
	if priorities[84] == 0 {
		t.Errorf("no alert among the messages: %v", priorities)
	}
}

// TestSinkConfig shows what a sink's configuration must not be.
func TestSinkConfig(t *testing.T) {
	a := newAuthority(t)
	certFile, keyFile := a.issue(t, "rtcd")
	for name, c := range map[string]audit.SinkConfig{
		"type": {Type: "fhir", Address: "h:1"}, "transport": {Transport: "sctp", Address: "h:1"}, "address": {Address: "h"},
		"no authority": {Address: "h:1", CAFile: filepath.Join(a.dir, "none")}, "empty authority": {Address: "h:1", CAFile: keyFile},
		"certificate without key": {Address: "h:1", CertFile: certFile}, "key of another": {Address: "h:1", CertFile: a.ca(), KeyFile: keyFile},
	} {
		if r, err := audit.Open(audit.Config{Dir: t.TempDir(), Sinks: []audit.SinkConfig{c}}, nil); err == nil {
			closed(t, r)
			t.Errorf("%s was taken", name)
		}
	}
}

// TestFrame shows CR-15: a message of 32 KiB, counted in octets and not in characters, is read whole.
func TestFrame(t *testing.T) {
	message := []byte(strings.Repeat("ü", 16<<10))
	got, err := readFrame(bufio.NewReader(strings.NewReader(string(audit.AppendFrame(nil, message)) + "5 after")))
	if err != nil || string(got) != string(message) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestSinkSlow shows that a server that reads nothing does not hold up callers, nor Close beyond its deadline.
func TestSinkSlow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := open(t, audit.Config{Dir: t.TempDir(), Sinks: []audit.SinkConfig{{Transport: audit.TCP, Address: l.Addr().String()}}})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	record(t, r, 5000) // 15 MB of messages
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
}
