package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"sync"
	"time"
)

// A Query says what to read of a client's events.
type Query struct {
	After string // a cursor; "": from the oldest on; Now: nothing that has been
	Call  string // of this call id alone, if set
	Limit int    // events; at least 1
}

// Bounds of a page beside its limit, so that no reader holds much.
const (
	pageBytes    = 1 << 20
	pageExamined = 20_000 // events looked at
)

// A Page is events in order.
type Page struct {
	Items []Item
	Next  string // the cursor behind them and behind what was left out
	More  bool   // there is more already
}

// Changed returns a channel that is closed when there is something new for the client.
func (f *Feed) Changed(client string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tenantLocked(client).changed
}

// Read returns what comes after a cursor. It gives ErrCursor for one that no feed made.
func (f *Feed) Read(client string, q Query) (Page, error) {
	var at cursor
	if q.After != "" && q.After != Now {
		var err error
		if at, err = parseCursor(q.After); err != nil {
			return Page{}, err
		}
	}
	f.mu.Lock()
	p := newPage(f.tenantLocked(client), q)
	if q.After == Now {
		p.pos = p.t.safe
	}
	p.place(at)
	more := true
	for !p.full && more {
		if more = p.memoryLocked(); more || p.full {
			continue
		}
		segs := p.filesLocked()
		if segs == nil {
			continue
		}
		f.mu.Unlock()
		err := p.files(segs)
		f.mu.Lock()
		if err != nil {
			f.mu.Unlock()
			return Page{}, fmt.Errorf("read events: %w", err)
		}
		more = true
	}
	defer f.mu.Unlock()
	return Page{Items: p.items, Next: cursor{p.t.lineage, p.pos}.String(), More: p.pos < p.t.safe}, nil
}

// A paging collects a page. Its methods whose names end with Locked need the feed's mu, as does place.
type paging struct {
	t     *tenant
	q     Query
	pos   uint64 // the number of the last event that was looked at
	items []Item
	bytes int
	seen  int
	full  bool
}

func newPage(t *tenant, q Query) *paging {
	q.Limit = max(q.Limit, 1)
	return &paging{t: t, q: q}
}

// oldestLocked returns the number of the first event there is.
func (p *paging) oldestLocked() uint64 {
	oldest := p.t.next
	if len(p.t.entries) > 0 {
		oldest = p.t.entries[0].seq
	}
	if len(p.t.segments) > 0 {
		oldest = min(oldest, p.t.segments[0].first)
	}
	return oldest
}

// place begins behind a cursor; if events are missing there, with a gap.
func (p *paging) place(at cursor) {
	t, oldest := p.t, p.oldestLocked()
	switch {
	case p.q.After == Now:
	case p.q.After == "":
		p.pos = oldest - 1
	case at.lineage == t.lineage && at.seq <= t.safe:
		if p.pos = at.seq; p.pos+1 < oldest {
			p.gap(oldest, Expired)
		}
	case at.seq == 0 && t.disk != nil && at.lineage < t.lineage && t.next == 1:
		// Nothing was there, and nothing is.
	default:
		p.pos = oldest - 1
		p.add(gapItem(t.lineage, oldest, 0, UnknownCursor, time.Now()))
	}
}

// gap tells of what is missing up to the event with the number next.
func (p *paging) gap(next uint64, reason string) {
	p.add(gapItem(p.t.lineage, next, next-p.pos-1, reason, time.Now()))
	p.pos = next - 1
}

func (p *paging) add(i Item) {
	p.items = append(p.items, i)
	p.bytes += len(i.Data)
	p.full = p.full || len(p.items) >= p.q.Limit || p.bytes >= pageBytes
}

// take looks at an event, behind a gap if some are missing before it.
func (p *paging) take(seq uint64, call string, i Item) {
	if seq > p.pos+1 {
		if p.gap(seq, Overflow); p.full {
			return
		}
	}
	p.pos = seq
	if p.seen++; p.seen >= pageExamined {
		p.full = true
	}
	if p.q.Call == "" || p.q.Call == call {
		p.add(i)
	}
}

// memoryLocked takes what memory has, and reports whether it had what comes next.
func (p *paging) memoryLocked() (progress bool) {
	t := p.t
	from := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].seq > p.pos })
	for i := from; i < len(t.entries); i++ {
		e := &t.entries[i]
		if e.seq > t.safe || p.full {
			break
		}
		if i == 0 && e.seq > p.pos+1 && len(t.segments) > 0 && t.segments[0].first < e.seq {
			return false // the files have what is before
		}
		p.take(e.seq, e.call, e.item)
		progress = true
	}
	return progress
}

// filesLocked returns the files that hold what comes next, or nil if there is nothing to come.
func (p *paging) filesLocked() []segment {
	t := p.t
	if p.pos >= t.safe || t.gone {
		return nil
	}
	if len(t.segments) == 0 {
		p.gap(t.safe+1, Overflow)
		return nil
	}
	from := 0
	for i, s := range t.segments {
		if s.first <= p.pos+1 {
			from = i
		}
	}
	if from == 0 && t.segments[0].first > p.pos+1 {
		if p.gap(t.segments[0].first, Expired); p.full {
			return nil
		}
	}
	// Behind the last file, and missing in memory: it was lost before it was written.
	out := append([]segment(nil), t.segments[from:min(from+2, len(t.segments))]...)
	if len(out) == 1 {
		out = append(out, segment{first: t.safe + 1})
	}
	return out
}

// files reads the first of two files; where it has less than it should, there is a gap up to the second.
func (p *paging) files(segs []segment) error {
	seg, next := segs[0], segs[1].first
	if err := p.file(seg); err != nil {
		return err
	}
	if !p.full && p.pos+1 < next {
		p.gap(next, Overflow)
	}
	return nil
}

func (p *paging) file(seg segment) error {
	f, err := os.Open(segmentPath(p.t.disk.dir, seg.first))
	if errors.Is(err, os.ErrNotExist) {
		return nil // past its time just now: a gap
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	start := p.t.places.offset(seg.first, p.pos)
	r := newFrameReader(io.NewSectionReader(f, start, seg.size-start))
	at := place{file: seg.first}
	defer func() { p.t.places.note(at) }()
	for !p.full {
		fr, err := r.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		if fr.kind != kindEvent || fr.seq <= p.pos {
			continue
		}
		var e struct {
			ID     string `json:"id"`
			Type   string `json:"type"`
			CallID string `json:"callID"`
		}
		if json.Unmarshal(fr.body, &e) != nil {
			return nil
		}
		p.take(fr.seq, e.CallID, Item{ID: e.ID, Type: e.Type, Data: fr.body})
		if p.pos == fr.seq { // and not a gap before it
			at.seq, at.offset = fr.seq, start+r.good
		}
	}
	return nil
}

// A place says where in a file the events behind a number stand.
type place struct {
	file, seq uint64
	offset    int64
}

// places are where readers were last, so that the next page need not begin at the head of a file.
type places struct {
	mu   sync.Mutex
	list []place // the newest last
}

const maxPlaces = 16 // of a client

func (p *places) note(at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) >= maxPlaces {
		p.list = slices.Delete(p.list, 0, 1)
	}
	p.list = append(p.list, at)
}

// offset returns from where on to read a file for the events behind seq.
func (p *places) offset(file, seq uint64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best place
	for _, at := range p.list {
		if at.file == file && at.seq <= seq && at.seq >= best.seq {
			best = at
		}
	}
	return best.offset
}
