package feed

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names in the folder of the feed.
//
//	lock                              held while a server runs
//	hooks/….pos                       how far a webhook has got
//	c-<client in hex>/                the log of one client:
//	    00000000000000000001.events   its files, each named after the first event in it
const (
	lockName     = "lock"
	hooksDir     = "hooks"
	clientPrefix = "c-"
	fileSuffix   = ".events"
)

// A segment is one file of a client's log.
type segment struct {
	first uint64    // number of its first event
	size  int64     // bytes that are safe
	last  time.Time // no event in it is later
}

// head is what a file begins with.
type head struct {
	Client  string    `json:"client"`
	Lineage uint64    `json:"lineage"`
	Time    time.Time `json:"time"`
	States  int       `json:"states"` // frames of state that follow
}

// file is what the log needs of an open file.
type file interface {
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// opener opens a file for writing. A test hands in one that fails.
type opener func(path string, flag int) (file, error)

func openFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// A disk writes the files of one client. It belongs to whoever holds the feed's diskMu.
type disk struct {
	dir      string
	head     head // without time and states
	maxBytes int64
	open     opener

	file   file  // nil: closed, or there is none yet
	base   int64 // bytes of the last file before its first event
	broken bool  // the last write failed: the file may hold more than is safe
	used   time.Time
}

func clientDir(dir, client string) string {
	return filepath.Join(dir, clientPrefix+hex.EncodeToString([]byte(client)))
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, fileSuffix))
}

// segmentFirsts returns the first numbers of the files in dir, in order.
func segmentFirsts(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), fileSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && first > 0 && segmentPath("", first) == e.Name() {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// begin makes a file whose first event will be first, with the state before it. It is safe once the
// first events are.
func (d *disk) begin(first uint64, state []callState, at time.Time) (segment, error) {
	h := d.head
	h.Time, h.States = at, len(state)
	buf, err := appendJSON(nil, kindHead, first, h)
	for _, s := range state {
		if err == nil {
			buf, err = appendJSON(buf, kindState, 0, s)
		}
	}
	if err != nil {
		return segment{}, err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return segment{}, err
	}
	path := segmentPath(d.dir, first)
	// One that is there is what an attempt before this one left: it has no event that is safe.
	f, err := d.open(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY)
	if err != nil {
		return segment{}, err
	}
	_, err = f.WriteAt(buf, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = errors.Join(syncDir(d.dir), syncDir(filepath.Dir(d.dir)))
	}
	if err != nil {
		return segment{}, errors.Join(err, f.Close(), os.Remove(path))
	}
	d.closeFile()
	d.file, d.base, d.broken = f, int64(len(buf)), false
	return segment{first: first, size: int64(len(buf)), last: at}, nil
}

// write makes frames safe behind the last safe byte of the last file.
func (d *disk) write(seg segment, frames []byte) error {
	d.used = time.Now()
	if d.file == nil {
		f, err := d.open(segmentPath(d.dir, seg.first), os.O_WRONLY)
		if err != nil {
			return err
		}
		d.file = f
	}
	if d.broken {
		if err := d.file.Truncate(seg.size); err != nil {
			return err
		}
		d.broken = false
	}
	_, err := d.file.WriteAt(frames, seg.size)
	if err == nil {
		err = d.file.Sync()
	}
	d.broken = err != nil
	return err
}

func (d *disk) closeFile() {
	if d.file != nil {
		_ = d.file.Close() // what was written is safe
		d.file = nil
	}
}

// appendJSON appends a frame, leaving out what no frame holds: streams of a session with thousands.
func appendJSON(buf []byte, kind byte, seq uint64, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if s, ok := v.(callState); ok && err == nil && len(body) > frameMax-frameMin {
		s.Streams = nil
		body, err = json.Marshal(s)
	}
	if err != nil {
		return buf, err
	}
	return appendFrame(buf, frame{kind, seq, body}), nil
}

// found is what is on disk of one client.
type found struct {
	head     head
	segments []segment
	base     int64  // of the last one
	next     uint64 // number of the next event
	calls    calls  // that run at the end
	cut      int64  // bytes of an unfinished write that were taken away
}

// load reads the log of a client and repairs its end. ok is false if there is none.
func load(dir string) (l found, ok bool, err error) {
	firsts, err := segmentFirsts(dir)
	if err != nil {
		return l, false, err
	}
	var floor uint64
	for len(firsts) > 0 {
		last := firsts[len(firsts)-1]
		ok, err := l.loadLast(dir, last)
		if err != nil {
			return l, false, err
		}
		if ok {
			break
		}
		// It was begun and never finished, so it has no event; or it was damaged, and numbers in it are
		// not used again.
		data, err := os.ReadFile(segmentPath(dir, last))
		if err == nil {
			err = os.Remove(segmentPath(dir, last))
		}
		if err != nil {
			return l, false, err
		}
		floor = max(floor, last, lastNumber(data)+1)
		firsts = firsts[:len(firsts)-1]
	}
	if len(firsts) == 0 {
		return l, false, nil
	}
	l.next = max(l.next, floor)
	later := l.segments[0].last
	if h, _, err := readHead(segmentPath(dir, l.segments[0].first)); err == nil {
		later = h.Time
	}
	for i := len(firsts) - 2; i >= 0; i-- {
		path := segmentPath(dir, firsts[i])
		h, size, err := readHead(path)
		if err != nil && !errors.Is(err, errDamaged) && !errors.Is(err, io.EOF) {
			return l, false, err
		}
		if err != nil || h.Lineage != l.head.Lineage {
			// Whoever is before it is told of a gap.
			if err := os.Remove(path); err != nil {
				return l, false, err
			}
			continue
		}
		l.segments = append(l.segments, segment{first: firsts[i], size: size, last: later})
		later = h.Time
	}
	slices.Reverse(l.segments)
	return l, true, nil
}

// readHead reads the head of a file, and its size.
func readHead(path string) (h head, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return h, 0, err
	}
	fr, err := newFrameReader(f).next()
	if err == nil {
		h, err = parseHead(fr)
	}
	return h, info.Size(), err
}

func parseHead(f frame) (h head, err error) {
	if f.kind != kindHead {
		return h, errDamaged
	}
	if err := json.Unmarshal(f.body, &h); err != nil {
		return h, errDamaged
	}
	return h, nil
}

// loadLast reads the last file whole. ok is false if it is not even begun.
func (l *found) loadLast(dir string, first uint64) (ok bool, err error) {
	path := segmentPath(dir, first)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	r := newFrameReader(f)
	ok, err = l.scan(r, first)
	if !ok || err != nil && !errors.Is(err, errDamaged) {
		return false, errOrNil(err)
	}
	if errors.Is(err, errDamaged) {
		if err := l.repair(f, r.good); err != nil {
			return false, err
		}
	}
	l.segments[0].size = r.good
	return true, nil
}

func errOrNil(err error) error {
	if errors.Is(err, errDamaged) {
		return nil
	}
	return err
}

// scan reads a file up to its end or to what is damaged, which is the error then. ok is false if that is
// before its first event can stand.
func (l *found) scan(r *frameReader, first uint64) (ok bool, err error) {
	fr, err := r.next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errDamaged
		}
		return false, err
	}
	if l.head, err = parseHead(fr); err != nil || fr.seq != first {
		return false, errDamaged
	}
	l.calls, l.next = newCalls(), first
	for range l.head.States {
		fr, err := r.next()
		if err != nil || fr.kind != kindState {
			return false, errDamaged
		}
		var s callState
		if json.Unmarshal(fr.body, &s) != nil {
			return false, errDamaged
		}
		l.calls.restore(s)
	}
	l.base = r.good
	l.segments = []segment{{first: first, last: l.head.Time}}
	for {
		before := r.good
		fr, err := r.next()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		var e Event
		if fr.kind != kindEvent || fr.seq < l.next || json.Unmarshal(fr.body, &e) != nil {
			r.good = before
			return true, errDamaged
		}
		l.next = fr.seq + 1
		l.calls.take(fr.seq, &e)
		if e.Time.After(l.segments[0].last) {
			l.segments[0].last = e.Time
		}
	}
}

// repair takes away what stands behind the last whole frame. It was never delivered, unless it was
// damaged later: then numbers that stand in it are not used again, and readers are told of a gap.
func (l *found) repair(f *os.File, good int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	l.cut = info.Size() - good
	rest := make([]byte, min(l.cut, 64<<20))
	if _, err := f.ReadAt(rest, good); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	l.next = max(l.next, lastNumber(rest)+1)
	return errors.Join(f.Truncate(good), f.Sync())
}

// syncDir makes names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeWhole makes a small file with what is in text, whole or not at all.
func writeWhole(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
