package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// retentionType is the type of the record that announces the removal of old files. Its object is the
// anchor: the last record that went.
const retentionType = "audit.retention"

// An anchor names a record and what is before it.
type anchor struct {
	seq uint64
	sum sum
}

func (a anchor) String() string { return fmt.Sprintf("%d:%s", a.seq, a.sum) }

// parseAnchor reads "seq:hash".
func parseAnchor(text string) (anchor, error) {
	var a anchor
	digits, hash, _ := strings.Cut(text, ":")
	if n, err := fmt.Sscanf(digits, "%d", &a.seq); n != 1 || err != nil || fmt.Sprint(a.seq) != digits {
		return anchor{}, fmt.Errorf("anchor %.90q is not SEQ:HASH", text)
	}
	s, err := parseSum(hash)
	if err != nil {
		return anchor{}, fmt.Errorf("anchor %.90q is not SEQ:HASH", text)
	}
	a.sum = s
	return a, nil
}

// openJournal opens the log in dir, makes it if there is none, and takes away a last line that a crash left
// unfinished. Nothing that was committed is ever touched: if that is damaged, a new file is begun. The
// notes say what was found; they belong into the log first.
func openJournal(dir string, maxBytes int64, keep time.Duration, open opener, log *slog.Logger) (j *journal, notes []Event, err error) {
	j = &journal{dir: dir, maxBytes: maxBytes, keep: keep, open: open, log: log}
	head, m, known, headErr := openMark(filepath.Join(dir, headName), open)
	if head == nil {
		return nil, nil, headErr
	}
	j.head = head
	defer func() {
		if err != nil {
			err = errors.Join(err, j.close())
		}
	}()
	firsts, err := logFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	note := func(kind, text string, args ...any) {
		reason := fmt.Sprintf(text, args...)
		log.Warn("audit log: "+reason, "type", kind)
		notes = append(notes, serverEvent(kind, SeriousFailure, reason))
	}
	switch {
	case headErr != nil:
		note("audit.damaged", "the head is not readable")
	case !known && len(firsts) > 0:
		note("audit.damaged", "the head is missing")
	case !known:
		if err := head.write(mark{}); err != nil {
			return nil, nil, err
		}
	}
	for len(firsts) > 0 {
		first := firsts[len(firsts)-1]
		kept, err := j.resume(first, m, known, note)
		if err != nil {
			return nil, nil, err
		}
		if kept {
			break
		}
		firsts = firsts[:len(firsts)-1]
	}
	if err := j.addParts(firsts); err != nil {
		return nil, nil, err
	}
	if m.seq > j.seq {
		note("audit.damaged", "records %d to %d are missing at the end", j.seq+1, m.seq)
		j.seq, j.sum = m.seq, m.sum
		j.setAside()
	}
	return j, notes, nil
}

// setAside leaves the last file as it is; the next record begins another.
func (j *journal) setAside() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}

// addParts lists the files before and with the last one, whose state is known already.
func (j *journal) addParts(firsts []uint64) error {
	var last part
	if len(j.parts) > 0 {
		last = j.parts[0]
		j.parts = nil
	}
	for _, first := range firsts {
		p := part{first: first}
		if first == last.first {
			p = last
		} else {
			info, err := os.Stat(filepath.Join(j.dir, logName(first)))
			if err != nil {
				return err
			}
			p.size = info.Size()
			p.earliest = info.ModTime().UnixMilli()
			if r, err := firstRecord(j.dir, first); err == nil {
				p.earliest = r.Time.UnixMilli()
			}
		}
		j.parts = append(j.parts, p)
	}
	return nil
}

// A scan is what reading the last file gives.
type scan struct {
	chained anchor // the last record before the first fault
	last    anchor // the last record at all, perhaps behind damage
	good    int64  // where the first fault begins, or the file ends
	size    int64
	fault   error // of the line at good
	rest    int64 // bytes without a newline at the end
	first   time.Time
	index   index
	atHead  sum // of the record the head names, if it is here
	headHit bool
}

func scanFile(path string, first uint64, m mark) (scan, error) {
	f, err := os.Open(path)
	if err != nil {
		return scan{}, err
	}
	defer func() { _ = f.Close() }()
	var s scan
	s.rest, err = eachLine(f, func(text []byte, at, n int64) error {
		r, err := parseRecord(text)
		s.size = at + n
		s.index.add(r.Event, n)
		switch {
		case err == nil && s.fault == nil && s.last.seq == 0 && r.Seq != first:
			err = fmt.Errorf("record %d in a file that begins with %d", r.Seq, first)
		case err == nil && s.fault == nil && s.last.seq != 0 && (r.Seq != s.last.seq+1 || r.prev != s.last.sum):
			err = fmt.Errorf("record %d does not follow %d", r.Seq, s.last.seq)
		}
		if err != nil {
			if s.fault == nil {
				s.fault, s.good = err, at
			}
			return nil
		}
		if s.last.seq == 0 {
			s.first = r.Time
		}
		if r.Seq == m.seq {
			s.atHead, s.headHit = r.sum, true
		}
		if r.Seq > s.last.seq {
			s.last = anchor{r.Seq, r.sum}
		}
		if s.fault == nil {
			s.good, s.chained = at+n, s.last
		}
		return nil
	})
	return s, err
}

// resume takes up the file that begins with first as the last one. It reports false if there is
// nothing in it, and removes it then.
func (j *journal) resume(first uint64, m mark, known bool, note func(kind, text string, args ...any)) (bool, error) {
	path := filepath.Join(j.dir, logName(first))
	s, err := scanFile(path, first, m)
	if err != nil {
		return false, err
	}
	total := s.size + s.rest
	// What lies behind the head was never acknowledged: a crash may have left anything there.
	torn := s.rest > 0 && s.fault == nil && (!known || m.file != first || s.good >= m.end)
	if known && s.fault != nil && (m.file == first && s.good >= m.end || m.seq == first-1) {
		torn = true
	}
	switch {
	case torn:
		if err := j.repair(path, first, s, total, note); err != nil {
			return false, err
		}
	case s.fault != nil || s.rest > 0:
		reason := "an unfinished line inside what was committed"
		if s.fault != nil {
			reason = s.fault.Error()
		}
		note("audit.damaged", "%s: at byte %d: %s", logName(first), s.good, reason)
	case s.headHit && s.atHead != m.sum:
		note("audit.damaged", "%s: record %d is not the one the head names", logName(first), m.seq)
	}
	if s.good == 0 && (torn || total == 0) {
		j.setAside()
		return false, os.Remove(path)
	}
	j.seq, j.sum = s.last.seq, s.last.sum
	j.parts = []part{{first: first, earliest: s.first.UnixMilli(), size: s.good}}
	if torn {
		j.seq, j.sum = s.chained.seq, s.chained.sum
	}
	if !torn && (s.fault != nil || s.rest > 0) {
		j.parts[0].size = total
		j.seq = max(j.seq, first) // never the name of a file that is there
		return true, nil
	}
	j.index = s.index
	if torn {
		// The index counted what is gone now.
		if j.index, err = indexOf(j.dir, first, s.good); err != nil {
			return false, err
		}
	}
	j.file, err = j.open(path, os.O_WRONLY, 0o600)
	return true, err
}

// repair takes away what a crash left behind the last whole record, and has it noted.
func (j *journal) repair(path string, first uint64, s scan, total int64, note func(kind, text string, args ...any)) error {
	note("audit.repaired", "%s: %d bytes of an unfinished write after byte %d removed", logName(first), total-s.good, s.good)
	f, err := j.open(path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(s.good), f.Sync(), f.Close())
}

// firstRecord returns the first record of a file.
func firstRecord(dir string, first uint64) (record, error) {
	f, err := os.Open(filepath.Join(dir, logName(first)))
	if err != nil {
		return record{}, err
	}
	defer func() { _ = f.Close() }()
	var (
		r     record
		found bool
	)
	_, err = eachLine(io.LimitReader(f, maxLine), func(text []byte, _, _ int64) error {
		if found {
			return io.ErrUnexpectedEOF
		}
		found = true
		r, err = parseRecord(text)
		return err
	})
	if found && errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err == nil && !found {
		err = errors.New("no whole line")
	}
	if err != nil {
		return record{}, fmt.Errorf("read the first record of %s: %w", logName(first), err)
	}
	return r, nil
}
