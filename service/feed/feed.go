// Package feed keeps what takes place in calls, in order, for backends that want to know: one log for
// each client, bounded, in memory or on disk as well. From it come pages, streams (package api serves
// them) and signed webhooks.
//
// An event is delivered only once it is safe where it is to be kept, so a server that is killed takes
// back nothing that it told: numbers go on, and calls that ran are ended in the log when it is opened
// again. Readers hold a cursor. Whatever they miss, because it is older than what is kept, stands in
// what they read as an event of type Gap.
package feed

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config holds the settings of a Feed. Zero values mean the defaults named with each field.
type Config struct {
	Dir         string        // "": in memory alone
	KeepBytes   int64         // 64 MiB on disk for each client
	TotalBytes  int64         // 1 GiB on disk for all clients
	KeepFor     time.Duration // 7 days
	MemoryBytes int64         // 16 MiB in memory for all clients, a sixteenth of that for one

	// Continued says that the calls of the log go on, in a process that tells of their ends: they are not
	// ended when it is opened.
	Continued bool

	Hooks []Hook
	// Own are the addresses that the server listens on, which webhooks must not reach.
	Own func() []string

	open opener // tests have a disk that fails
}

func (c Config) withDefaults() Config {
	for _, n := range []struct {
		value *int64
		or    int64
	}{{&c.KeepBytes, 64 << 20}, {&c.TotalBytes, 1 << 30}, {&c.MemoryBytes, 16 << 20}} {
		if *n.value <= 0 {
			*n.value = n.or
		}
	}
	if c.KeepFor <= 0 {
		c.KeepFor = 7 * 24 * time.Hour
	}
	if c.open == nil {
		c.open = openFile
	}
	return c
}

// Limits of how files are cut: an eighth of what a client may keep, within these.
const (
	minSegment = 64 << 10
	maxSegment = 8 << 20
	maxOpen    = 64 // files
)

func (c Config) segmentBytes() int64 { return min(max(c.KeepBytes/8, minSegment), maxSegment) }

// A Feed is the logs of all clients. Its methods are safe for concurrent use.
type Feed struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File

	wake chan struct{} // one slot: there is something to write
	quit chan struct{} // closed when the writer is to end
	done chan struct{} // closed when it has ended
	over chan struct{} // closed when streams are to end; see End
	end  sync.Once

	hooks []*hook

	// Held while files are written or removed, before mu.
	diskMu sync.Mutex

	mu      sync.Mutex
	clients map[string]*tenant
	memory  int64         // bytes of all entries
	quiet   chan struct{} // closed when nothing waits to be written; nil if nobody asks
	closed  bool
	stats   Stats
}

// A tenant is the log of one client.
type tenant struct {
	client  string
	lineage uint64
	next    uint64  // number of the next event
	safe    uint64  // the last number that may be delivered
	entries []entry // the newest ones, in order
	bytes   int64   // of entries
	calls   calls   // as the last event tells
	changed chan struct{}
	gone    bool // forgotten

	// With a disk.
	disk     *disk
	segments []segment
	written  calls // as the last event that is safe tells
	places   places
}

// An entry is an event in memory.
type entry struct {
	seq   uint64
	time  time.Time
	item  Item
	call  string
	event *Event // until it is safe
}

// memoryShare is the part of the memory that one client may have, so that a busy one leaves some to others.
const memoryShare = 16

// entryCost is what an entry takes beside its JSON.
const entryCost = 256

func (e *entry) cost() int64 { return int64(len(e.item.Data)) + entryCost }

// Stats are what a Feed counts.
type Stats struct {
	Events      uint64 // taken in since the start
	Lost        uint64 // of these, never written because that failed for too long
	Delayed     int    // wait to be written
	WriteErrors uint64
	Failing     bool // the last attempt to write failed
	DiskBytes   int64
	MemoryBytes int64
	Hooks       []HookStats
}

// Open opens the feed, and the logs in its folder, if it has one: what a server that was killed left
// unfinished is finished. Webhooks begin with Start.
func Open(cfg Config, log *slog.Logger) (*Feed, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Feed{
		cfg: cfg.withDefaults(), log: log, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		over: make(chan struct{}), clients: make(map[string]*tenant),
	}
	if f.cfg.Dir != "" {
		if err := f.openDir(); err != nil {
			if f.lock != nil {
				_ = f.lock.Close()
			}
			return nil, fmt.Errorf("open event feed %s: %w", f.cfg.Dir, err)
		}
	}
	if err := f.openHooks(); err != nil {
		if f.lock != nil {
			_ = f.lock.Close()
		}
		return nil, err
	}
	go f.run()
	f.poke()
	return f, nil
}

func (f *Feed) openDir() error {
	if err := os.MkdirAll(filepath.Join(f.cfg.Dir, hooksDir), 0o700); err != nil {
		return err
	}
	var err error
	if f.lock, err = lock(filepath.Join(f.cfg.Dir, lockName)); err != nil {
		return err
	}
	entries, err := os.ReadDir(f.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), clientPrefix)
		client, err := hex.DecodeString(text)
		if !ok || err != nil || !e.IsDir() {
			continue
		}
		if err := f.openClient(string(client)); err != nil {
			return err
		}
	}
	return nil
}

// openClient takes over the log of a client, and ends the calls that ran when it ended.
func (f *Feed) openClient(client string) error {
	dir := clientDir(f.cfg.Dir, client)
	l, ok, err := load(dir)
	if err != nil || !ok {
		return err
	}
	t := f.newTenant(client, l.head.Lineage)
	t.next, t.safe, t.segments = l.next, l.next-1, l.segments
	t.calls, t.written = l.calls, l.calls.clone()
	t.disk.base = l.base
	f.clients[client] = t
	for _, s := range l.segments {
		f.stats.DiskBytes += s.size
	}
	if l.cut > 0 {
		f.log.Info("event feed: the end of an unfinished write was removed", "clientID", client, "bytes", l.cut)
	}
	if f.cfg.Continued {
		return nil
	}
	lost := t.calls.lost(time.Now())
	for i := range lost {
		f.appendLocked(t, &lost[i])
	}
	if len(lost) > 0 {
		f.log.Info("event feed: calls of a server that is gone were ended", "clientID", client, "events", len(lost))
	}
	return nil
}

func (f *Feed) newTenant(client string, lineage uint64) *tenant {
	t := &tenant{client: client, lineage: lineage, next: 1, calls: newCalls(), changed: make(chan struct{})}
	if f.cfg.Dir != "" {
		t.written = newCalls()
		t.disk = &disk{
			dir: clientDir(f.cfg.Dir, client), head: head{Client: client, Lineage: lineage}, maxBytes: f.cfg.segmentBytes(),
			open: f.cfg.open,
		}
	}
	return t
}

// tenantLocked returns the log of a client, which is empty if there was none.
func (f *Feed) tenantLocked(client string) *tenant {
	t := f.clients[client]
	if t == nil {
		t = f.newTenant(client, uint64(time.Now().UnixNano()))
		f.clients[client] = t
	}
	return t
}

// Add takes in an event of a client. It waits for nothing.
func (f *Feed) Add(client string, e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	t := f.tenantLocked(client)
	if e.Type == CallEnded { // of a process that is gone, whose sessions nobody has ended
		for _, left := range t.calls.lostOf(e.CallID, e.Time) {
			f.appendLocked(t, &left)
			e.Reason = ServerLost
		}
	}
	f.appendLocked(t, &e)
}

// ReportReady tells that there is a report of a call that has ended.
func (f *Feed) ReportReady(client, callID string) {
	f.Add(client, Event{Type: CallReportReady, CallID: callID})
}

func (f *Feed) appendLocked(t *tenant, e *Event) {
	e.clean()
	seq := t.next
	t.next++
	e.ID, e.Missed = cursor{t.lineage, seq}.String(), 0
	t.calls.number(e)
	t.calls.take(seq, e)
	n := entry{seq: seq, time: e.Time, call: e.CallID, item: Item{ID: e.ID, Type: e.Type, Data: e.encode()}}
	f.stats.Events++
	if t.disk == nil {
		t.safe = seq
	} else {
		n.event = e
		f.stats.Delayed++
	}
	t.entries = append(t.entries, n)
	t.bytes += n.cost()
	f.memory += n.cost()
	f.shrinkLocked(t)
	if t.disk == nil {
		t.tell()
		return
	}
	f.poke()
}

// tell wakes who waits for events of the client.
func (t *tenant) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// shrinkLocked keeps to the bounds of memory: those of the client, and those of all, for which the
// client with the most gives something.
func (f *Feed) shrinkLocked(t *tenant) {
	for t.bytes > f.cfg.MemoryBytes/memoryShare && len(t.entries) > 1 {
		f.dropLocked(t)
	}
	for f.memory > f.cfg.MemoryBytes {
		for _, other := range f.clients {
			if other.bytes > t.bytes {
				t = other
			}
		}
		for goal := t.bytes * 7 / 8; t.bytes > goal && len(t.entries) > 0; {
			f.dropLocked(t)
		}
	}
}

// dropLocked takes the oldest event out of memory. One that is not safe yet is lost.
func (f *Feed) dropLocked(t *tenant) {
	e := &t.entries[0]
	t.bytes -= e.cost()
	f.memory -= e.cost()
	if e.seq > t.safe {
		f.stats.Lost++
		f.delayedLocked(-1)
		t.written.take(e.seq, e.event)
	}
	t.entries[0] = entry{}
	t.entries = t.entries[1:]
}

func (f *Feed) delayedLocked(n int) {
	f.stats.Delayed += n
	if f.stats.Delayed == 0 && f.quiet != nil {
		close(f.quiet)
		f.quiet = nil
	}
}

// Forget removes all there is of a client, for good.
func (f *Feed) Forget(client string) error {
	f.diskMu.Lock()
	defer f.diskMu.Unlock()
	f.mu.Lock()
	t := f.clients[client]
	delete(f.clients, client)
	if t != nil {
		t.gone = true
		for len(t.entries) > 0 {
			if e := &t.entries[0]; e.seq > t.safe {
				f.stats.Lost-- // nobody is to have it
			}
			f.dropLocked(t)
		}
		for _, s := range t.segments {
			f.stats.DiskBytes -= s.size
		}
		t.segments = nil
		t.tell()
	}
	f.mu.Unlock()
	if t == nil || t.disk == nil {
		return nil
	}
	t.disk.closeFile()
	if err := os.RemoveAll(t.disk.dir); err != nil {
		return fmt.Errorf("remove events of a client: %w", err)
	}
	return syncDir(f.cfg.Dir)
}

// Stats returns what was counted.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	s := f.stats
	s.MemoryBytes = f.memory
	f.mu.Unlock()
	for _, h := range f.hooks {
		s.Hooks = append(s.Hooks, h.stats())
	}
	return s
}

// Flush waits until all events are safe.
func (f *Feed) Flush(ctx context.Context) error {
	f.mu.Lock()
	if f.stats.Delayed == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.quiet == nil {
		f.quiet = make(chan struct{})
	}
	quiet := f.quiet
	f.mu.Unlock()
	f.poke()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Over is closed when those who read streams are to take what is left, and end.
func (f *Feed) Over() <-chan struct{} { return f.over }

// End makes streams and webhooks end, once they have what there is.
func (f *Feed) End(ctx context.Context) error {
	err := f.Flush(ctx)
	f.end.Do(func() { close(f.over) })
	return err
}

// Close ends the feed: it writes what is left, unless the disk fails or ctx is done, and waits for the
// webhooks to end, which they do within a moment, or when ctx is done.
func (f *Feed) Close(ctx context.Context) error {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	if again {
		return nil
	}
	err := f.End(ctx)
	f.stopHooks(ctx)
	close(f.quit)
	<-f.done
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

func (f *Feed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}
