package audit

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A Reader reads a log from its folder, also while a server writes it. It is for one goroutine.
type Reader struct {
	dir   string
	cache *indexCache

	// The last file, read up to size.
	last  part
	index index
	seq   uint64
}

// NewReader returns a reader of the log in dir.
func NewReader(dir string) *Reader { return &Reader{dir: dir, cache: newIndexCache(dir)} }

// Query is like Recorder.Query.
func (r *Reader) Query(ctx context.Context, f Filter, cursor string, limit int) (Page, error) {
	v, err := r.view()
	if err != nil {
		return Page{}, fmt.Errorf("read audit log: %w", err)
	}
	return query(ctx, v, r.cache, f, cursor, limit)
}

// Last returns the last n chosen events, oldest first, and the cursor that gives what comes after them.
func (r *Reader) Last(ctx context.Context, f Filter, n int) (Page, error) {
	v, err := r.view()
	if err != nil {
		return Page{}, fmt.Errorf("read audit log: %w", err)
	}
	if err := f.check(); err != nil {
		return Page{}, fmt.Errorf("read audit log: %w", err)
	}
	s := search{ctx: ctx, view: v, cache: r.cache, filter: f, needles: f.needles()}
	if err := s.backward(max(n, 0)); err != nil {
		return Page{}, fmt.Errorf("read audit log: %w", err)
	}
	return Page{Events: events(s.found), Next: formatCursor(v.seq)}, nil
}

// view looks at what is in the folder now.
func (r *Reader) view() (*view, error) {
	firsts, err := logFiles(r.dir)
	if err != nil {
		return nil, err
	}
	v := &view{}
	for i, first := range firsts {
		if i == len(firsts)-1 {
			if err := r.grow(first); err != nil {
				return nil, err
			}
			v.parts = append(v.parts, r.last)
			break
		}
		info, err := os.Stat(filepath.Join(r.dir, logName(first)))
		if os.IsNotExist(err) {
			continue // past its time just now
		}
		if err != nil {
			return nil, err
		}
		v.parts = append(v.parts, part{first: first, size: info.Size()})
	}
	v.seq, v.closed = r.seq, r.index.Blocks
	return v, nil
}

// grow takes in what was added to the last file.
func (r *Reader) grow(first uint64) error {
	if r.last.first != first {
		r.last, r.index, r.seq = part{first: first}, index{}, first-1
	}
	f, err := os.Open(filepath.Join(r.dir, logName(first)))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < r.last.size {
		// Only the repair after a crash makes a file shorter.
		r.last, r.index, r.seq = part{first: first}, index{}, first-1
	}
	added := io.NewSectionReader(f, r.last.size, info.Size()-r.last.size)
	_, err = eachLine(added, func(text []byte, _, n int64) error {
		record, _ := decodeRecord(text)
		r.index.add(record.Event, n)
		r.last.size += n
		r.seq = max(r.seq, record.Seq)
		return nil
	})
	return err
}

// Text returns the event as one line for people. What does not print is escaped.
func (e Event) Text() string {
	line := fmt.Sprintf("%s %d %s %s %d", e.Time.UTC().Format(timeLayout), e.Seq, printable(e.Type), e.Action, e.Outcome)
	for _, f := range []struct{ key, value string }{
		{"actor", string(e.Actor.Kind)}, {"id", e.Actor.ID}, {"remote", e.Remote}, {e.Object.Kind, e.Object.ID},
		{"call", e.CallID}, {"session", e.SessionID}, {"user", e.User}, {"reason", e.Reason},
	} {
		if f.value != "" {
			line += " " + printable(f.key) + "=" + string(appendString(nil, f.value))
		}
	}
	return line
}

// Follow calls visit with each chosen event after the cursor, and then with those to come, until ctx is done
// or visit returns an error. It looks every interval.
func (r *Reader) Follow(ctx context.Context, f Filter, cursor string, interval time.Duration, visit func(Event) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p, err := r.Query(ctx, f, cursor, MaxLimit)
		if err != nil {
			return err
		}
		for _, e := range p.Events {
			if err := visit(e); err != nil {
				return err
			}
		}
		if cursor = p.Next; p.More {
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
