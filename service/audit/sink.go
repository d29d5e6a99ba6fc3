package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Transports of a sink.
const (
	TLS = "tls" // RFC 5425
	TCP = "tcp" // RFC 6587 with octet counting; for a network of one's own
	UDP = "udp" // RFC 5426; what the network loses is lost
)

// Defaults of SinkConfig.
const (
	DefaultSettle   = 5 * time.Second
	DefaultRetryMax = 30 * time.Second
)

const (
	sinkRetryFirst = 250 * time.Millisecond
	sinkDial       = 10 * time.Second
	sinkWrite      = 10 * time.Second
	sinkFarewell   = 2 * time.Second
	sinkBatch      = 128 // records in one write
)

// A SinkConfig is a syslog server that is sent every event.
type SinkConfig struct {
	// Type is "syslog"; so is empty.
	Type string
	// Transport is TLS (also if empty), TCP or UDP.
	Transport string
	// Address is "host:port". With TLS the certificate must be the host's.
	Address string
	// CAFile holds the certificates (PEM) that vouch for the server; empty means those of the system.
	CAFile string
	// CertFile and KeyFile are what we show; both or neither.
	CertFile, KeyFile string
	// SpoolBytes is how much of the log may wait to be sent; beyond it the oldest is skipped.
	// 0 means DefaultSpoolBytes.
	SpoolBytes int64
	// Settle is how long a connection must have stood after an event was sent for it to count as
	// delivered, for syslog has no receipts. After a break all later ones are sent again. 0 means DefaultSettle.
	Settle time.Duration
	// RetryMax is the longest pause between two attempts to connect; 0 means DefaultRetryMax.
	RetryMax time.Duration
}

// SinkStats is a snapshot of one sink.
type SinkStats struct {
	Name      string // "tls:host:port"
	Connected bool
	Sent      uint64 // events written to a connection, those sent again included
	Skipped   uint64 // events never sent because the spool was full
	Failures  uint64 // connections that failed or broke
	Unsent    uint64 // events in the log that are not delivered yet
	Spool     int64  // bytes of the log that are not sent yet
}

// A sink sends the log, which is its spool, to one server.
type sink struct {
	// Fixed at creation.
	cfg  SinkConfig
	name string
	host string // this machine, in the header
	r    *Recorder
	log  *slog.Logger

	ending     chan struct{} // closed: send what there is, then end
	endingOnce sync.Once

	// Owned by the loop.
	pos   *markFile
	sent  uint64 // up to here written to the present connection
	marks []sentMark
	buf   []byte

	mu        sync.Mutex // guards the fields below
	stats     SinkStats
	confirmed uint64 // up to here delivered, durably noted
}

// A sentMark says when everything up to seq had been written.
type sentMark struct {
	seq   uint64
	since time.Time // when the first of what it covers was written
	at    time.Time // when the last was
	end   int64     // bytes written to the connection then
}

func newSinks(cfg Config, r *Recorder) (sinks []*sink, err error) {
	defer func() {
		if err != nil {
			for _, s := range sinks {
				err = errors.Join(err, s.pos.close())
			}
			sinks = nil
		}
	}()
	host := cfg.Source
	if host == "" {
		if host, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	for _, c := range cfg.Sinks {
		s := &sink{cfg: c, host: host, r: r, ending: make(chan struct{})}
		if err := s.cfg.normal(); err != nil {
			return sinks, fmt.Errorf("audit sink %s: %w", c.Address, err)
		}
		s.name = s.cfg.Transport + ":" + s.cfg.Address
		s.stats.Name = s.name
		s.log = r.log.With("sink", s.name)
		if err := s.openPosition(cfg.Dir); err != nil {
			return sinks, fmt.Errorf("audit sink %s: %w", s.name, err)
		}
		sinks = append(sinks, s)
	}
	return sinks, nil
}

func (c *SinkConfig) normal() error {
	if c.Type != "" && c.Type != "syslog" {
		return fmt.Errorf("type %q is not \"syslog\"", c.Type)
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return err
	}
	if c.SpoolBytes <= 0 {
		c.SpoolBytes = DefaultSpoolBytes
	}
	if c.Settle <= 0 {
		c.Settle = DefaultSettle
	}
	if c.RetryMax <= 0 {
		c.RetryMax = DefaultRetryMax
	}
	switch c.Transport {
	case "":
		c.Transport = TLS
	case TLS, TCP, UDP:
	default:
		return fmt.Errorf("transport %q is none of %q, %q, %q", c.Transport, TLS, TCP, UDP)
	}
	if c.Transport == TLS {
		_, err := c.tls()
		return err
	}
	return nil
}

// openPosition reads how far the sink has come. A new sink begins with what comes now.
func (s *sink) openPosition(dir string) error {
	id := sha256.Sum256([]byte(s.name))
	path := filepath.Join(dir, "sink-"+hex.EncodeToString(id[:8])+".pos")
	pos, m, known, err := openMark(path, openFile)
	if pos == nil {
		return err
	}
	s.pos = pos
	v := s.r.view
	switch {
	case err != nil:
		s.log.Warn("the place a sink had reached is lost; it is sent everything again", "err", err)
	case !known:
		m.seq = v.seq
	case m.seq > v.seq:
		s.log.Warn("a sink had reached more than the log holds; it is sent everything again")
		m = mark{}
	}
	s.sent, s.confirmed = m.seq, m.seq
	if err := s.pos.write(mark{seq: m.seq}); err != nil {
		return errors.Join(err, pos.close())
	}
	return nil
}

// finish lets the sink end once it has sent what there is, or cannot.
func (s *sink) finish() { s.endingOnce.Do(func() { close(s.ending) }) }

func (s *sink) isEnding() bool {
	select {
	case <-s.ending:
		return true
	default:
		return false
	}
}

func (s *sink) snapshot(v *view) SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Unsent = v.seq - min(s.confirmed, v.seq)
	return st
}

// run sends until ctx is done or it was told to finish and has nothing left to send.
func (s *sink) run(ctx context.Context) {
	defer func() {
		if err := s.pos.close(); err != nil {
			s.log.Warn("close the place of a sink", "err", err)
		}
	}()
	pause := sinkRetryFirst
	down := false
	for ctx.Err() == nil {
		before := s.confirmedUpTo()
		s.sent, s.marks = before, nil
		s.trim()
		ended, err := s.connectAndSend(ctx)
		s.mu.Lock()
		s.stats.Connected = false
		if err != nil {
			s.stats.Failures++
		}
		s.mu.Unlock()
		if ended || ctx.Err() != nil {
			return
		}
		if s.confirmedUpTo() > before {
			pause, down = sinkRetryFirst, false
		}
		if !down {
			s.log.Warn("audit sink is not reached; its events wait in the log", "err", err)
			down = true
		}
		if s.isEnding() {
			return
		}
		s.wait(ctx, pause/2+rand.N(pause/2+1))
		pause = min(2*pause, s.cfg.RetryMax)
	}
}

// wait pauses until d has passed or the sink is to end.
func (s *sink) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ending:
	case <-ctx.Done():
	}
}

// trim skips the oldest unsent events while more than the spool's cap waits, and has that put on record.
func (s *sink) trim() {
	v, _ := s.r.committedView()
	waiting, upTo, err := s.backlog(v)
	if err != nil {
		s.log.Warn("measure what waits for a sink", "err", err)
		return
	}
	s.mu.Lock()
	s.stats.Spool = waiting
	s.mu.Unlock()
	if upTo <= s.sent {
		return
	}
	from := s.sent + 1
	s.sent, s.marks = upTo, nil
	s.confirm(upTo)
	s.skipped(from, upTo, "the spool is full")
}

// skipped counts records that are never sent and puts that on record, as an alert.
func (s *sink) skipped(first, last uint64, why string) {
	s.mu.Lock()
	s.stats.Skipped += last - first + 1
	s.mu.Unlock()
	s.log.Error("audit sink misses events", "first", first, "last", last, "why", why)
	s.r.Record(serverEvent("audit.sink_skipped", SeriousFailure,
		fmt.Sprintf("%s: records %d to %d are not sent: %s", s.name, first, last, why)))
}

// backlog returns how many bytes wait, and up to which record they have to be skipped to respect the cap;
// 0 if none has.
func (s *sink) backlog(v *view) (waiting int64, skip uint64, err error) {
	for i := len(v.parts) - 1; i >= 0; i-- {
		p := v.parts[i]
		whole := p.first > s.sent
		if whole && waiting+p.size <= s.cfg.SpoolBytes {
			waiting += p.size
			continue
		}
		blocks, err := s.r.index.blocks(v, i)
		if err != nil {
			return waiting, 0, err
		}
		for k := len(blocks) - 1; k >= 0; k-- {
			b := &blocks[k]
			if b.Last <= s.sent {
				return waiting, 0, nil
			}
			bytes := b.Bytes
			if unsent := b.Last - s.sent; unsent < uint64(b.Records) {
				bytes = bytes * int64(unsent) / int64(b.Records)
			}
			if waiting+bytes > s.cfg.SpoolBytes {
				return waiting, b.Last, nil
			}
			waiting += bytes
		}
		if !whole {
			return waiting, 0, nil
		}
	}
	return waiting, 0, nil
}

// confirm notes durably that everything up to seq need not be sent again.
func (s *sink) confirm(seq uint64) {
	s.mu.Lock()
	known := seq <= s.confirmed
	s.confirmed = max(s.confirmed, seq)
	s.mu.Unlock()
	if known {
		return
	}
	if err := s.pos.write(mark{seq: seq}); err != nil {
		s.log.Warn("the place of a sink is not noted; after a restart it is sent some events again", "err", err)
	}
}
