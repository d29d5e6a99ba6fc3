package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A part is one file of the log as readers see it.
type part struct {
	first    uint64 // its first record
	earliest int64  // the time of that, milliseconds since 1970
	size     int64  // bytes that are committed
}

// A view is what is committed, published after each commit. It never changes.
type view struct {
	parts  []part  // in order; the last one may be open for writing
	seq    uint64  // the last record
	closed []block // of the last part
	open   block   // of the last part
}

// blocks returns the index of the last part.
func (v *view) blocks() []block {
	if v.open.Records == 0 {
		return v.closed
	}
	return append(slices.Clip(v.closed), v.open)
}

// A journal is the log on disk. It belongs to one goroutine.
type journal struct {
	// Fixed at creation.
	dir      string
	maxBytes int64
	keep     time.Duration // 0 keeps everything
	open     opener
	log      *slog.Logger

	head  *markFile
	seq   uint64 // the last record and its hash
	sum   sum
	parts []part
	index index // of the last part

	file   file // nil: the next record starts a file
	broken bool // the last write failed: the file may hold more than is committed
}

// view returns what is committed.
func (j *journal) view() *view {
	v := &view{parts: slices.Clone(j.parts), seq: j.seq}
	if n := len(j.index.Blocks); n > 0 {
		// All but the last block are never touched again.
		v.closed, v.open = j.index.Blocks[:n-1:n-1], j.index.Blocks[n-1]
	}
	return v
}

// append writes events in order and makes them durable. It returns how many are committed; the others
// may be handed in again. The notes say what else the chain should hold, about what was found on the way.
func (j *journal) append(events []Event) (n int, notes []Event, err error) {
	for n < len(events) {
		note, err := j.ready(events[n].Time)
		if note.Type != "" {
			notes = append(notes, note)
		}
		if err != nil {
			return n, notes, err
		}
		more, err := j.commit(events[n:])
		n += more
		if err != nil {
			j.broken = true
			return n, notes, err
		}
	}
	return n, notes, nil
}

// ready sees to it that there is a file to write to that ends where the last commit ended. A file
// that others took away or changed is left as it is, for Verify to name, and a new one begun.
func (j *journal) ready(at time.Time) (note Event, err error) {
	if j.file != nil {
		if fault := j.touched(); fault != "" {
			note = serverEvent("audit.damaged", SeriousFailure, fault)
			j.log.Error("audit log was changed by others", "fault", fault)
			j.seal()
		}
	}
	if j.file != nil && j.broken {
		if err := j.file.Truncate(j.last().size); err != nil {
			return note, fmt.Errorf("truncate audit log: %w", err)
		}
		j.broken = false
	}
	if j.file != nil && j.last().size >= j.maxBytes {
		j.seal()
	}
	if j.file != nil {
		return note, nil
	}
	first := j.seq + 1
	path := filepath.Join(j.dir, logName(first))
	f, err := j.open(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return note, fmt.Errorf("start audit log file: %w", err)
	}
	if err := syncDir(j.dir); err != nil {
		return note, fmt.Errorf("start audit log file: %w", errors.Join(err, f.Close(), os.Remove(path)))
	}
	j.file, j.broken, j.index = f, false, index{}
	j.parts = append(j.parts, part{first: first, earliest: at.UnixMilli()})
	return note, nil
}

func (j *journal) last() *part { return &j.parts[len(j.parts)-1] }

// touched says what happened to the open file that was not us; empty if nothing did.
func (j *journal) touched() string {
	name := logName(j.last().first)
	mine, err := j.file.Stat()
	if err != nil {
		return fmt.Sprintf("%s: %v", name, err)
	}
	named, err := os.Stat(filepath.Join(j.dir, name))
	switch {
	case err != nil:
		return fmt.Sprintf("%s is gone", name)
	case !os.SameFile(mine, named):
		return fmt.Sprintf("%s was replaced", name)
	case named.Size() != j.last().size && !j.broken:
		return fmt.Sprintf("%s has %d bytes, %d were written", name, named.Size(), j.last().size)
	case named.Size() < j.last().size:
		return fmt.Sprintf("%s was cut", name)
	}
	return ""
}

// commit writes as many events as the file takes, syncs it and moves the head.
func (j *journal) commit(events []Event) (int, error) {
	var (
		p   = j.last()
		seq = j.seq
		s   = j.sum
		buf []byte
		end []int
	)
	for i := range events {
		if p.size+int64(len(buf)) >= j.maxBytes {
			break
		}
		seq++
		events[i].Seq = seq
		buf, s = appendRecord(buf, events[i], s)
		end = append(end, len(buf))
	}
	if _, err := j.file.WriteAt(buf, p.size); err != nil {
		return 0, fmt.Errorf("write audit log: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return 0, fmt.Errorf("sync audit log: %w", err)
	}
	j.seq, j.sum = seq, s
	p.size += int64(len(buf))
	from := 0
	for i, to := range end {
		j.index.add(events[i], int64(to-from))
		from = to
	}
	// The records are safe. A head that stays behind only shows less of a cut tail.
	if err := j.head.write(mark{seq: seq, sum: s, file: p.first, end: p.size}); err != nil {
		return len(end), err
	}
	return len(end), nil
}

// seal ends the open file; the next record starts another.
func (j *journal) seal() {
	p := j.last()
	if err := writeIndex(filepath.Join(j.dir, indexName(p.first)), j.index); err != nil {
		j.log.Warn("audit log index not written; it will be made again when needed", "err", err)
	}
	if err := j.file.Close(); err != nil {
		j.log.Warn("close audit log file", "err", err)
	}
	j.file = nil
}

// expired returns the record that announces which files are past their time, and how many; 0 if none is.
func (j *journal) expired(now time.Time) (Event, int) {
	if j.keep <= 0 {
		return Event{}, 0
	}
	oldest := now.Add(-j.keep).UnixMilli()
	n := 0
	// A file is past its time when its successor's first record is.
	for n+1 < len(j.parts) && j.parts[n+1].earliest < oldest {
		n++
	}
	if n == 0 {
		return Event{}, 0
	}
	next, err := firstRecord(j.dir, j.parts[n].first)
	if err != nil {
		j.log.Error("audit log files past their time are kept: the one after them cannot be read", "err", err)
		return Event{}, 0
	}
	e := serverEvent(retentionType, Success, fmt.Sprintf("older than %d days", int(j.keep/(24*time.Hour))))
	e.Action = Delete
	e.Object = Object{Kind: "audit", ID: anchor{next.Seq - 1, next.prev}.String()}
	return e, n
}

// remove deletes the first n files, which a record in the chain has announced.
func (j *journal) remove(n int) {
	for i := range n {
		first := j.parts[i].first
		err := os.Remove(filepath.Join(j.dir, logName(first)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			j.log.Error("remove audit log file past its time", "err", err)
			n = i
			break
		}
		_ = os.Remove(filepath.Join(j.dir, indexName(first)))
	}
	j.parts = slices.Delete(j.parts, 0, n)
}

// close ends the log; what was appended is durable already.
func (j *journal) close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
		j.file = nil
	}
	return errors.Join(err, j.head.close())
}

// serverEvent is an event of the log itself.
func serverEvent(kind string, outcome Outcome, reason string) Event {
	return Event{
		Actor: Actor{Kind: Server}, Type: kind, Action: Execute, Object: Object{Kind: "audit"},
		Outcome: outcome, Reason: reason,
	}.normal(time.Now())
}
