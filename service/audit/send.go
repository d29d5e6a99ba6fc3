package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// tls returns the settings of the connection. Files are read anew each time, so that renewed ones count.
func (c *SinkConfig) tls() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("no certificate in %s", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("a certificate needs its key and the other way round")
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s: %w", c.CertFile, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// dial connects. With TLS it returns only once the server has proven who it is.
func (s *sink) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, sinkDial)
	defer cancel()
	network := "tcp"
	if s.cfg.Transport == UDP {
		network = "udp"
	}
	d := net.Dialer{Control: func(network, _ string, c syscall.RawConn) error {
		if network == "udp4" || network == "udp6" {
			return nil
		}
		// Shorter than Settle: a peer that is gone must show before its events count as delivered.
		return boundUnacknowledged(c, s.cfg.Settle*3/5)
	}}
	conn, err := d.DialContext(ctx, network, s.cfg.Address)
	if err != nil || s.cfg.Transport == UDP {
		return conn, err
	}
	conn = &counted{Conn: conn}
	if s.cfg.Transport != TLS {
		return conn, nil
	}
	settings, err := s.cfg.tls()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	secured := tls.Client(conn, settings)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls handshake: %w", errors.Join(err, conn.Close()))
	}
	return secured, nil
}

// counted counts what is written to a TCP connection.
type counted struct {
	net.Conn
	written atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// written and acknowledged return how many bytes were written to the connection and how many of them
// have reached the peer's machine, as far as the system tells: all of them where it does not.
func (w *watched) written() int64 {
	if c := w.tcp(); c != nil {
		return c.written.Load()
	}
	return 0
}

func (w *watched) acknowledged() int64 {
	c := w.tcp()
	if c == nil {
		return 0
	}
	if s, ok := c.Conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			return c.written.Load() - unacknowledged(raw)
		}
	}
	return c.written.Load()
}

func (w *watched) tcp() *counted {
	conn := w.Conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, _ := conn.(*counted)
	return c
}

// A line to the server, and who watches whether it still stands.
type watched struct {
	net.Conn
	broken chan struct{} // closed when the peer has closed or the connection failed
	err    error         // why, to be read after broken; io.EOF if the peer closed in order
}

func watch(conn net.Conn) *watched {
	w := &watched{Conn: conn, broken: make(chan struct{})}
	go func() {
		defer close(w.broken)
		// Syslog servers say nothing; whatever one does say is passed over.
		buf := make([]byte, 512)
		for {
			if _, w.err = conn.Read(buf); w.err != nil {
				return
			}
		}
	}()
	return w
}

// connectAndSend sends over one connection until it breaks, or until the sink is to finish and all is sent;
// then it reports ended.
func (s *sink) connectAndSend(ctx context.Context) (ended bool, err error) {
	if v, _ := s.r.committedView(); s.isEnding() && v.seq <= s.confirmedUpTo() {
		return true, nil
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return false, err
	}
	w := watch(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close()
		<-w.broken
	}()
	s.mu.Lock()
	s.stats.Connected = true
	s.mu.Unlock()
	s.log.Info("audit sink connected")
	for {
		s.settle(w)
		s.trim()
		v, changed := s.r.committedView()
		if s.sent < v.seq {
			if err := s.sendBatch(ctx, w, v); err != nil {
				return false, err
			}
			continue
		}
		if s.isEnding() {
			return true, s.farewell(w)
		}
		if err := s.idle(ctx, w, changed); err != nil {
			return false, err
		}
	}
}

func (s *sink) confirmedUpTo() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}

// idle waits until there is something to do.
func (s *sink) idle(ctx context.Context, w *watched, changed <-chan struct{}) error {
	var due <-chan time.Time
	if len(s.marks) > 0 {
		t := time.NewTimer(time.Until(s.marks[0].at.Add(s.cfg.Settle)))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-changed:
	case <-due:
	case <-s.ending:
	case <-w.broken:
		return fmt.Errorf("connection ended: %w", w.err)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// settle confirms what was sent long enough ago on a connection that stands, and was acknowledged.
func (s *sink) settle(w *watched) {
	select {
	case <-w.broken:
		return
	default:
	}
	var upTo uint64
	for len(s.marks) > 0 && time.Since(s.marks[0].at) >= s.cfg.Settle {
		if w.acknowledged() < s.marks[0].end { // to be looked at again
			s.marks[0].at = time.Now().Add(-s.cfg.Settle * 3 / 4)
			break
		}
		upTo = s.marks[0].seq
		s.marks = s.marks[1:]
	}
	if upTo > 0 {
		s.confirm(upTo)
	}
}

// sendBatch writes the records that come next.
func (s *sink) sendBatch(ctx context.Context, w *watched, v *view) error {
	q := search{ctx: ctx, view: v, cache: s.r.index, after: s.sent, limit: sinkBatch, deadline: time.Now().Add(pageTime)}
	if err := q.forward(); err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	s.noteGap(q.found)
	if err := w.SetWriteDeadline(time.Now().Add(sinkWrite)); err != nil {
		return err
	}
	frames := s.buf[:0]
	for i := range q.found {
		message, err := appendSyslog(nil, &q.found[i], s.host)
		if err != nil {
			return fmt.Errorf("record %d: %w", q.found[i].Seq, err)
		}
		if s.cfg.Transport != UDP {
			frames = appendFrame(frames, message)
		} else if _, err := w.Write(message); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	s.buf = frames
	if len(frames) > 0 {
		if _, err := w.Write(frames); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	s.sent = q.after
	now := time.Now()
	if n := len(s.marks); n > 0 && now.Sub(s.marks[n-1].since) < s.cfg.Settle/16 {
		// Marks stay few: a later time for earlier records only delays them.
		s.marks[n-1].seq, s.marks[n-1].at, s.marks[n-1].end = s.sent, now, w.written()
	} else {
		s.marks = append(s.marks, sentMark{seq: s.sent, since: now, at: now, end: w.written()})
	}
	s.mu.Lock()
	s.stats.Sent += uint64(len(q.found))
	s.mu.Unlock()
	return nil
}

// noteGap puts on record that what should come before these records is not in the log any more.
func (s *sink) noteGap(next []record) {
	if len(next) == 0 || next[0].Seq == s.sent+1 {
		return
	}
	s.skipped(s.sent+1, next[0].Seq-1, "they are not in the log any more")
}

// farewell ends a connection on which all is sent. If the server closes its side in return, it has read
// everything; else what is not settled is sent again next time.
func (s *sink) farewell(w *watched) error {
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if !ok {
		// A datagram has no farewell.
		s.confirm(s.sent)
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if tcp, ok := tcpOf(w.Conn); ok {
		_ = tcp.CloseWrite()
	}
	t := time.NewTimer(sinkFarewell)
	defer t.Stop()
	select {
	case <-w.broken:
		if errors.Is(w.err, io.EOF) {
			s.confirm(s.sent)
		}
	case <-t.C:
	}
	return nil
}

// tcpOf returns the TCP connection below TLS: a server may wait for the end of that one.
func tcpOf(conn net.Conn) (*net.TCPConn, bool) {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return nil, false
	}
	tcp, ok := t.NetConn().(*net.TCPConn)
	return tcp, ok
}
