package feed

import (
	"errors"
	"os"
	"slices"
	"time"
)

const (
	commitEvery = 5 * time.Millisecond // at most so often, so that events share the wait for the disk
	retryEvery  = time.Second          // after a failure
	expireEvery = time.Minute
	warnEvery   = 10 * time.Second
	batchBytes  = 1 << 20 // written at once for one client
)

// run writes until quit is closed.
func (f *Feed) run() {
	defer close(f.done)
	expire := time.NewTicker(min(expireEvery, max(f.cfg.KeepFor/8, time.Millisecond)))
	defer expire.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	var (
		wake   = f.wake
		warned time.Time
	)
	for {
		select {
		case <-f.quit:
			f.closeFiles()
			return
		case now := <-expire.C:
			f.expire(now)
		case <-timer.C:
			wake = f.wake
			f.poke()
		case <-wake:
			pause := commitEvery
			if err := f.commit(); err != nil {
				pause = retryEvery
				if time.Since(warned) >= warnEvery {
					warned = time.Now()
					f.log.Error("event feed cannot be written; events wait in memory", "dir", f.cfg.Dir, "err", err)
				}
			}
			wake = nil
			timer.Reset(pause)
		}
	}
}

// commit writes what waits, a batch for each client, and says what failed.
func (f *Feed) commit() error {
	var waiting []*tenant
	f.mu.Lock()
	for _, t := range f.clients {
		if t.disk != nil && t.safe+1 < t.next {
			waiting = append(waiting, t)
		}
	}
	f.mu.Unlock()
	var errs []error
	for _, t := range waiting {
		errs = append(errs, f.commitOf(t))
	}
	err := errors.Join(errs...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(waiting) > 0 {
		f.stats.Failing = err != nil
	}
	if err != nil {
		f.stats.WriteErrors++
	}
	return err
}

// commitOf writes a batch of one client.
func (f *Feed) commitOf(t *tenant) error {
	f.diskMu.Lock()
	defer f.diskMu.Unlock()
	var (
		frames []byte
		last   uint64
		latest time.Time
	)
	f.mu.Lock()
	if t.gone {
		f.mu.Unlock()
		return nil
	}
	for i := range t.entries {
		if e := &t.entries[i]; e.seq > t.safe && len(frames) < batchBytes {
			frames = appendFrame(frames, frame{kindEvent, e.seq, e.item.Data})
			last, latest = e.seq, e.time
		}
	}
	if last == 0 { // all were lost, the last one too
		t.safe = t.next - 1
		t.tell()
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	seg, err := f.room(t)
	if err == nil {
		err = t.disk.write(seg, frames)
	}
	if err != nil {
		return err
	}
	f.wrote(t, int64(len(frames)), last, latest)
	f.makeRoom(t)
	return nil
}

// wrote takes note of events that are safe now, and tells readers.
func (f *Feed) wrote(t *tenant, bytes int64, last uint64, latest time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for i := range t.entries {
		if e := &t.entries[i]; e.seq > t.safe && e.seq <= last {
			t.written.take(e.seq, e.event)
			e.event = nil
			n++
		}
	}
	t.safe = last
	f.delayedLocked(-n)
	s := &t.segments[len(t.segments)-1]
	s.size += bytes
	if latest.After(s.last) {
		s.last = latest
	}
	f.stats.DiskBytes += bytes
	t.tell()
}

// room returns the file that takes the next events, beginning one if need be. diskMu is held.
func (f *Feed) room(t *tenant) (segment, error) {
	f.mu.Lock()
	n := len(t.segments)
	if n > 0 {
		seg := t.segments[n-1]
		if seg.size-t.disk.base < t.disk.maxBytes || t.safe+1 <= seg.first {
			f.mu.Unlock()
			f.closeLeastUsed(t)
			return seg, nil
		}
	}
	f.mu.Unlock()
	return f.rotate(t)
}

// rotate begins a new file. diskMu is held.
func (f *Feed) rotate(t *tenant) (segment, error) {
	f.mu.Lock()
	first, state := t.safe+1, t.written.state()
	f.mu.Unlock()
	f.closeLeastUsed(t)
	seg, err := t.disk.begin(first, state, time.Now().UTC())
	if err != nil {
		return segment{}, err
	}
	f.mu.Lock()
	t.segments = append(t.segments, seg)
	f.stats.DiskBytes += seg.size
	f.mu.Unlock()
	return seg, nil
}

// makeRoom drops the oldest files beyond what a client, and all clients, may keep. diskMu is held.
func (f *Feed) makeRoom(t *tenant) {
	for {
		f.mu.Lock()
		var victim *tenant
		switch {
		case len(t.segments) > 1 && t.size() > f.cfg.KeepBytes-t.disk.maxBytes:
			victim = t
		case f.stats.DiskBytes > f.cfg.TotalBytes:
			victim = f.largestLocked()
		}
		f.mu.Unlock()
		if victim == nil || !f.dropSegment(victim) {
			return
		}
	}
}

// size is what the client has on disk.
func (t *tenant) size() (n int64) {
	for _, s := range t.segments {
		n += s.size
	}
	return n
}

// empty reports whether the client has no events on disk. mu is held.
func (t *tenant) empty() bool {
	return len(t.segments) == 0 || len(t.segments) == 1 && t.safe+1 <= t.segments[0].first
}

// largestLocked returns the client with the most on disk that has events there, or nil.
func (f *Feed) largestLocked() (most *tenant) {
	for _, t := range f.clients {
		if !t.empty() && (most == nil || t.size() > most.size()) {
			most = t
		}
	}
	return most
}

// dropSegment removes the oldest file of a client and reports whether it could. The last file says where
// numbers go on: another takes its place first. diskMu is held.
func (f *Feed) dropSegment(t *tenant) bool {
	f.mu.Lock()
	seg, last := t.segments[0], len(t.segments) == 1
	f.mu.Unlock()
	if last {
		if _, err := f.rotate(t); err != nil {
			f.log.Warn("event feed: a file past its time is kept for now", "err", err)
			return false
		}
	}
	if err := os.Remove(segmentPath(t.disk.dir, seg.first)); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Error("event feed: remove a file past its time", "err", err)
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.segments = slices.Delete(t.segments, 0, 1)
	f.stats.DiskBytes -= seg.size
	return true
}

// expire drops what is older than KeepFor.
func (f *Feed) expire(now time.Time) {
	oldest := now.Add(-f.cfg.KeepFor)
	f.mu.Lock()
	all := make([]*tenant, 0, len(f.clients))
	for _, t := range f.clients {
		for len(t.entries) > 0 && t.entries[0].seq <= t.safe && t.entries[0].time.Before(oldest) {
			f.dropLocked(t)
		}
		if t.disk != nil {
			all = append(all, t)
		}
	}
	f.mu.Unlock()
	for _, t := range all {
		f.expireFiles(t, oldest)
	}
}

func (f *Feed) expireFiles(t *tenant, oldest time.Time) {
	f.diskMu.Lock()
	defer f.diskMu.Unlock()
	for {
		f.mu.Lock()
		old := !t.gone && !t.empty() && t.segments[0].last.Before(oldest)
		f.mu.Unlock()
		if !old {
			return
		}
		if !f.dropSegment(t) {
			return
		}
	}
}

// closeLeastUsed keeps the number of open files low. diskMu is held.
func (f *Feed) closeLeastUsed(but *tenant) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var least *tenant
	n := 0
	for _, t := range f.clients {
		if t.disk != nil && t.disk.file != nil && t != but {
			if n++; least == nil || t.disk.used.Before(least.disk.used) {
				least = t
			}
		}
	}
	if n >= maxOpen {
		least.disk.closeFile()
	}
}

func (f *Feed) closeFiles() {
	f.diskMu.Lock()
	defer f.diskMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.clients {
		if t.disk != nil {
			t.disk.closeFile()
		}
	}
}
