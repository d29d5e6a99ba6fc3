package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// MaxLimit caps the events of one page; a limit of 0 means DefaultLimit.
const (
	MaxLimit     = 1000
	DefaultLimit = 100
)

// pageTime is how long one page may search. What it has found by then it returns, with a cursor to go on.
const pageTime = 50 * time.Millisecond

// A Filter chooses events; a zero field chooses all.
type Filter struct {
	Since   time.Time // at this time or later
	Until   time.Time // before this time
	Client  string    // of this client, as Event.Client says
	Type    string
	Action  Action
	Outcome *Outcome
}

// A Page is a piece of the answer to a query, oldest first.
type Page struct {
	Events []Event
	// Next is the cursor that continues behind this page. If More is false, the end of the log was
	// reached, and Next gives what is written later.
	Next string
	// More says that the log goes on. A page with More may hold fewer events than the limit, even none,
	// if finding the next one would take too long.
	More bool
}

// matches reports whether e is chosen.
func (f *Filter) matches(e *Event) bool {
	switch {
	case !f.Since.IsZero() && e.Time.Before(f.Since),
		!f.Until.IsZero() && !e.Time.Before(f.Until),
		f.Client != "" && e.Client() != f.Client,
		f.Type != "" && e.Type != f.Type,
		f.Action != "" && e.Action != f.Action,
		f.Outcome != nil && e.Outcome != *f.Outcome:
		return false
	}
	return true
}

// may reports whether a block may hold a chosen event.
func (f *Filter) may(b *block) bool {
	switch {
	case !f.Since.IsZero() && b.Latest < f.Since.UnixMilli(),
		!f.Until.IsZero() && b.Earliest > f.Until.UnixMilli(),
		f.Client != "" && !b.has(bloomOf('c', f.Client)),
		f.Type != "" && !b.has(bloomOf('t', f.Type)),
		f.Action != "" && b.Kinds&actionBit(f.Action) == 0,
		f.Outcome != nil && b.Kinds&outcomeBit(*f.Outcome) == 0:
		return false
	}
	return true
}

// check refuses what no event can have.
func (f *Filter) check() error {
	if f.Action != "" && !validAction(f.Action) {
		return fmt.Errorf("action %.10q is none of C, R, U, D, E", string(f.Action))
	}
	if f.Outcome != nil && !validOutcome(*f.Outcome) {
		return fmt.Errorf("outcome %d is none of 0, 4, 8, 12", *f.Outcome)
	}
	return nil
}

// needles returns what a line must contain to be worth decoding.
func (f *Filter) needles() (n [][]byte) {
	if f.Client != "" {
		n = append(n, appendField(nil, "id", capped(f.Client, MaxID)))
	}
	if f.Type != "" {
		n = append(n, appendField(nil, "type", f.Type))
	}
	if f.Action != "" {
		n = append(n, appendField(nil, "action", string(f.Action)))
	}
	if f.Outcome != nil {
		n = append(n, fmt.Appendf(nil, `,"outcome":%d,`, *f.Outcome))
	}
	return n
}

// Query returns a page of the chosen events, oldest first, after the cursor of the page before; an
// empty cursor starts at the beginning. What is written meanwhile comes after what was there. A cursor
// that is none of this log's gives ErrCursor. The limit is at most MaxLimit.
func (r *Recorder) Query(ctx context.Context, f Filter, cursor string, limit int) (Page, error) {
	if r == nil {
		return Page{}, ErrClosed
	}
	v, _ := r.committedView()
	return query(ctx, v, r.index, f, cursor, limit)
}

func query(ctx context.Context, v *view, cache *indexCache, f Filter, cursor string, limit int) (Page, error) {
	after, err := parseCursor(cursor)
	if err != nil {
		return Page{}, err
	}
	if after > v.seq {
		return Page{}, fmt.Errorf("%w: it lies behind the end of the log", ErrCursor)
	}
	if err := f.check(); err != nil {
		return Page{}, fmt.Errorf("query audit log: %w", err)
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	s := search{ctx: ctx, view: v, cache: cache, filter: f, needles: f.needles(), after: after,
		limit: min(limit, MaxLimit), deadline: time.Now().Add(pageTime)}
	if err := s.forward(); err != nil {
		return Page{}, fmt.Errorf("query audit log: %w", err)
	}
	return Page{Events: events(s.found), Next: formatCursor(s.after), More: s.after < v.seq}, nil
}

// A search goes through blocks.
type search struct {
	ctx      context.Context
	view     *view
	cache    *indexCache
	filter   Filter
	needles  [][]byte
	after    uint64 // all up to this one is done
	limit    int
	deadline time.Time
	found    []record
	buf      []byte
}

// forward searches from s.after on, until the page is full, its time is up or the log ends.
func (s *search) forward() error {
	parts := s.view.parts
	// The last file that begins at or before what is wanted; removed files are passed over.
	i, exact := slices.BinarySearchFunc(parts, s.after+1, func(p part, seq uint64) int {
		return compare(p.first, seq)
	})
	if !exact && i > 0 {
		i--
	}
	for ; i < len(parts); i++ {
		blocks, err := s.cache.blocks(s.view, i)
		if err != nil {
			return err
		}
		for k := range blocks {
			b := &blocks[k]
			if b.Last <= s.after {
				continue
			}
			if s.filter.may(b) {
				full, err := s.block(parts[i].first, b)
				if err != nil || full {
					return err
				}
			}
			s.after = b.Last
			if err := s.ctx.Err(); err != nil {
				return err
			}
			if time.Now().After(s.deadline) {
				return nil
			}
		}
	}
	s.after = s.view.seq
	return nil
}

// block searches one block and reports whether the page is full.
func (s *search) block(first uint64, b *block) (full bool, err error) {
	text, err := s.read(first, b)
	if err != nil {
		return false, err
	}
	for len(text) > 0 && !full {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		if r, ok := s.pick(text[:n]); ok && r.Seq > s.after {
			s.found = append(s.found, r)
			s.after = r.Seq
			full = len(s.found) >= s.limit
		}
		text = text[n:]
	}
	return full, nil
}

// read returns the bytes of a block; none if its file was removed meanwhile.
func (s *search) read(first uint64, b *block) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.cache.dir, logName(first)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	s.buf = slices.Grow(s.buf[:0], int(b.Bytes))[:b.Bytes]
	n, err := f.ReadAt(s.buf, b.Start)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return s.buf[:n], err
}

// pick returns the record of a line if it is chosen. A line that is none is Verify's to name.
func (s *search) pick(text []byte) (record, bool) {
	for _, n := range s.needles {
		if !bytes.Contains(text, n) {
			return record{}, false
		}
	}
	r, err := decodeRecord(text)
	return r, err == nil && s.filter.matches(&r.Event)
}

// backward finds the last n chosen events, in order.
func (s *search) backward(n int) error {
	for i := len(s.view.parts) - 1; i >= 0 && len(s.found) < n; i-- {
		blocks, err := s.cache.blocks(s.view, i)
		if err != nil {
			return err
		}
		for k := len(blocks) - 1; k >= 0 && len(s.found) < n; k-- {
			if !s.filter.may(&blocks[k]) {
				continue
			}
			s.after, s.limit = 0, int(blocks[k].Records)+1
			later := s.found
			s.found = nil
			if _, err := s.block(s.view.parts[i].first, &blocks[k]); err != nil {
				return err
			}
			s.found = append(s.found, later...)
			if err := s.ctx.Err(); err != nil {
				return err
			}
		}
	}
	s.found = s.found[max(0, len(s.found)-n):]
	return nil
}

func events(records []record) []Event {
	list := make([]Event, len(records))
	for i := range records {
		list[i] = records[i].Event
	}
	return list
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// A cursor is the last record that was passed, with a version and a checksum, so that what is not one
// of ours is told from the end of the log. It grants nothing.
const cursorVersion = 1

func formatCursor(after uint64) string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, after)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(text string) (after uint64, err error) {
	if text == "" {
		return 0, nil
	}
	const size = 1 + 8 + crc32.Size
	if len(text) != base64.RawURLEncoding.EncodedLen(size) {
		return 0, fmt.Errorf("%w: wrong length", ErrCursor)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != size || b[0] != cursorVersion ||
		binary.BigEndian.Uint32(b[size-crc32.Size:]) != crc32.ChecksumIEEE(b[:size-crc32.Size]) {
		return 0, fmt.Errorf("%w: not one of this server's", ErrCursor)
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

// cachedIndexes is how many files' indexes stay in memory, each about 150 KB at the default size.
const cachedIndexes = 16

// An indexCache keeps the indexes of the files that were asked for last.
type indexCache struct {
	dir string

	mu   sync.Mutex // guards the fields below
	kept []cachedIndex
}

type cachedIndex struct {
	part  part
	index index
}

func newIndexCache(dir string) *indexCache { return &indexCache{dir: dir} }

// blocks returns the blocks of the view's i-th file; none if the file was removed meanwhile.
func (c *indexCache) blocks(v *view, i int) ([]block, error) {
	p := v.parts[i]
	if i == len(v.parts)-1 {
		own := v.blocks()
		if n := len(own); n > 0 && own[n-1].Start+own[n-1].Bytes == p.size {
			return own, nil
		}
	}
	c.mu.Lock()
	at := slices.IndexFunc(c.kept, func(k cachedIndex) bool { return k.part == p })
	if at >= 0 {
		found := c.kept[at]
		c.kept = append(slices.Delete(c.kept, at, at+1), found)
		c.mu.Unlock()
		return found.index.Blocks, nil
	}
	c.mu.Unlock()
	x, err := indexOf(c.dir, p.first, p.size)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= cachedIndexes {
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, cachedIndex{p, x})
	return x.Blocks, nil
}
