package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Values of Config.OnFailure: what happens to transactions while events cannot be written.
const (
	// Drop lets them go on; events that find no place are counted and the gap is put on record.
	Drop = "drop"
	// Block makes Ready return an error, so that callers refuse them.
	Block = "block"
)

// Defaults of Config.
const (
	DefaultMaxFileBytes = 64 << 20
	DefaultQueue        = 8192
	DefaultSpoolBytes   = 64 << 20
)

const (
	// commitEvery is the least time between two commits, so that the disk is not asked more often than
	// needed; what waits longer than that never waits for more than one commit.
	commitEvery = 50 * time.Millisecond
	commitMax   = 1024 // events in one commit
	commitSoon  = 256  // events that do not wait for commitEvery

	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second

	retainEvery = time.Hour
)

// Errors a caller acts on.
var (
	// ErrUnavailable: events cannot be written and Config.OnFailure is Block.
	ErrUnavailable = errors.New("audit log unavailable")
	// ErrCursor: a cursor is not one that Query has given out for this log.
	ErrCursor = errors.New("bad cursor")
	// ErrLocked: another process writes this log.
	ErrLocked = errors.New("audit log held by another process")
	// ErrClosed: the recorder was closed.
	ErrClosed = errors.New("audit log closed")
)

// Config says where the log lives and what it keeps.
type Config struct {
	// Dir is the folder of the log and nothing else; made (0700) if missing.
	Dir string
	// UserID says how ids of users are kept: HashUsers (also if empty), PlainUsers, OmitUsers.
	UserID string
	// OnFailure is Drop (also if empty) or Block.
	OnFailure string
	// MaxFileBytes is the size at which a file is followed by another; 0 means DefaultMaxFileBytes.
	MaxFileBytes int64
	// KeepDays is the age at which files are removed; 0 keeps all.
	KeepDays int
	// Queue caps the events that wait to be written; 0 means DefaultQueue.
	Queue int
	// Sinks are sent all events, in order.
	Sinks []SinkConfig
	// Source names this server to the sinks; empty means the host's name.
	Source string
}

// Stats is a snapshot of what a recorder did.
type Stats struct {
	Written uint64 // events in the log since Open
	Dropped uint64 // events lost because the queue was full or the recorder closed
	Errors  uint64 // attempts to write that failed
	Queued  int    // events that wait to be written
	Failing bool   // the last attempt to write failed
	Sinks   []SinkStats
}

// A Recorder takes events for the log. A nil *Recorder takes and has none, so that callers need not
// ask whether there is one. Its methods may be called by any number of goroutines.
type Recorder struct {
	// Fixed at creation.
	dir   string
	block bool
	queue int
	users userIDs
	log   *slog.Logger
	lock  *os.File
	quit  chan struct{} // closed: write what waits and end
	wake  chan struct{} // one slot: there is something to write
	soon  chan struct{} // one slot: somebody waits for it
	sinks []*sink
	index *indexCache

	stopSinks context.CancelFunc
	running   sync.WaitGroup
	closing   sync.Once
	closed    chan struct{} // everything has ended; closeErr may be read
	closeErr  error

	journal *journal // belongs to the loop

	mu      sync.Mutex // guards the fields below
	pending []Event
	waiting map[Actor]int // of pending, by whose they are
	taken   uint64        // events taken in ever
	done    uint64        // of those, committed or given up
	stats   Stats
	lost    uint64 // dropped and not on record yet
	failing error
	ended   bool
	view    *view
	changed chan struct{} // closed and replaced after each commit
}

// Open opens the log in cfg.Dir and starts to write. What it finds damaged or missing it puts on
// record and leaves to Verify. A nil log discards.
func Open(cfg Config, log *slog.Logger) (*Recorder, error) {
	return openRecorder(cfg, log, openFile)
}

func openRecorder(cfg Config, log *slog.Logger, open opener) (_ *Recorder, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.normal(); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open audit log %s: %w", filepath.Clean(cfg.Dir), err)
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, lockName))
	if err != nil {
		return nil, err
	}
	r := &Recorder{
		dir: cfg.Dir, block: cfg.OnFailure == Block, queue: cfg.Queue, log: log, lock: lock,
		quit: make(chan struct{}), wake: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		closed: make(chan struct{}), changed: make(chan struct{}), waiting: make(map[Actor]int), index: newIndexCache(cfg.Dir),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if r.users, err = newUserIDs(cfg.UserID, filepath.Join(cfg.Dir, keyName)); err != nil {
		return nil, err
	}
	keep := time.Duration(cfg.KeepDays) * 24 * time.Hour
	j, notes, err := openJournal(cfg.Dir, cfg.MaxFileBytes, keep, open, log)
	if err != nil {
		return nil, err
	}
	r.journal, r.view = j, j.view()
	if r.sinks, err = newSinks(cfg, r); err != nil {
		return nil, errors.Join(err, j.close())
	}
	for _, e := range append(notes, serverEvent("audit.start", Success, "")) {
		r.Record(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stopSinks = cancel
	for _, s := range r.sinks {
		r.running.Go(func() { s.run(ctx) })
	}
	go r.end()
	return r, nil
}

func (c *Config) normal() error {
	if c.Dir == "" {
		return errors.New("no folder given")
	}
	switch c.OnFailure {
	case "":
		c.OnFailure = Drop
	case Drop, Block:
	default:
		return fmt.Errorf("on_failure %q is neither %q nor %q", c.OnFailure, Drop, Block)
	}
	if c.MaxFileBytes <= 0 {
		c.MaxFileBytes = DefaultMaxFileBytes
	}
	if c.Queue <= 0 {
		c.Queue = DefaultQueue
	}
	if c.KeepDays < 0 {
		return fmt.Errorf("keep_days %d is negative", c.KeepDays)
	}
	return nil
}

// Record takes e for the log and returns at once. It is durable within 100 ms while the disk keeps up.
// If the queue is full, e is counted as dropped, and once the log can be written again it will hold how
// many were.
func (r *Recorder) Record(e Event) {
	if r == nil {
		return
	}
	e = e.normal(time.Now())
	e.User = r.users.apply(e.User)
	r.mu.Lock()
	full := r.ended || len(r.pending) >= r.queue
	if full {
		r.stats.Dropped++
		r.lost++
	} else {
		r.pending = append(r.pending, e)
		r.waiting[e.Actor]++
		r.taken++
	}
	many := len(r.pending) >= commitSoon
	r.mu.Unlock()
	poke(r.wake)
	if many {
		poke(r.soon)
	}
}

// Ready returns nil if a transaction may go on, or, with OnFailure = Block, ErrUnavailable if its
// event might be lost: the last write failed, half of the queue is in use, or the recorder is closed.
// The other half is for what was let through before.
func (r *Recorder) Ready() error {
	if r == nil || !r.block {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ended:
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
	case r.failing != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, r.failing)
	case len(r.pending) > r.queue/2:
		return fmt.Errorf("%w: %d events wait to be written", ErrUnavailable, len(r.pending))
	}
	return nil
}

// Sync waits until everything recorded so far is durable.
func (r *Recorder) Sync(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	target := r.taken
	r.mu.Unlock()
	for {
		r.mu.Lock()
		done, changed := r.done >= target, r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		poke(r.soon)
		select {
		case <-changed:
		case <-r.closed:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("sync audit log: %w", ctx.Err())
		}
	}
}

// Stats returns a snapshot.
func (r *Recorder) Stats() Stats {
	if r == nil {
		return Stats{}
	}
	r.mu.Lock()
	s := r.stats
	s.Queued, s.Failing = len(r.pending), r.failing != nil
	v := r.view
	r.mu.Unlock()
	for _, k := range r.sinks {
		s.Sinks = append(s.Sinks, k.snapshot(v))
	}
	return s
}

// Close writes what was recorded, tries to send it to the sinks until ctx is done, and ends. What the
// sinks have not got they get after the next Open. Events recorded later are dropped.
func (r *Recorder) Close(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.closing.Do(func() {
		r.Record(serverEvent("audit.stop", Success, ""))
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		close(r.quit)
	})
	select {
	case <-r.closed:
	case <-ctx.Done():
		r.stopSinks()
		<-r.closed
	}
	return r.closeErr
}

// end runs the loop and then ends everything, in order.
func (r *Recorder) end() {
	left := r.run()
	for _, s := range r.sinks {
		s.finish()
	}
	r.running.Wait()
	r.stopSinks()
	err := r.journal.close()
	if left > 0 {
		err = errors.Join(err, fmt.Errorf("%d events were not written", left))
	}
	r.closeErr = errors.Join(err, r.lock.Close())
	close(r.closed)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
