package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Fault is the first thing Verify found wrong.
type Fault struct {
	File   string // its name in the folder
	Line   int    // from 1 on; 0 if it is not about a line
	Seq    uint64 // the record that stands there, or should
	Reason string
}

func (f Fault) Error() string {
	where := f.File
	if f.Line > 0 {
		where += fmt.Sprintf(", line %d", f.Line)
	}
	return fmt.Sprintf("%s (record %d): %s", where, f.Seq, f.Reason)
}

// A Report is what Verify found.
type Report struct {
	Files   int
	Records uint64
	First   uint64 // the first record that is kept; those before were removed by age
	// Head is the last record as "seq:hash". Noted down elsewhere, it proves later, as the anchor of
	// VerifyAnchor, that the log up to there is the same.
	Head string
	// Unfinished is the length of a last line that a crash broke off. It was never acknowledged, and the
	// next start removes it.
	Unfinished int64
	// Fault is the first fault; nil if the log is whole.
	Fault *Fault
}

// Verify reads the whole log in dir and reports the first record that is not as it was written or not where
// it was written. It needs no key and may run while a server writes. The error is about reading; what is
// wrong with the log is in the report.
func Verify(ctx context.Context, dir string) (Report, error) {
	return VerifyAnchor(ctx, dir, "")
}

// VerifyAnchor verifies and also demands that a record is the one named "seq:hash", as a Report's Head or a
// sink has noted it. An empty anchor demands nothing.
func VerifyAnchor(ctx context.Context, dir, want string) (Report, error) {
	v := verifier{dir: dir}
	if want != "" {
		a, err := parseAnchor(want)
		if err != nil {
			return Report{}, err
		}
		v.want = append(v.want, demand{a, "the anchor is of another record"})
	}
	// The head is read first: a server may write meanwhile, but never shortens anything.
	m, _, known, headErr := readMark(filepath.Join(dir, headName))
	if errors.Is(headErr, fs.ErrPermission) {
		return Report{}, headErr
	}
	firsts, err := logFiles(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	if known {
		v.want = append(v.want, demand{anchor{m.seq, m.sum}, "the head names another record"})
	}
	for i, first := range firsts {
		if err := v.file(ctx, first, i == len(firsts)-1); err != nil {
			return v.report, fmt.Errorf("verify audit log: %w", err)
		}
		if v.report.Fault != nil {
			return v.report, nil
		}
	}
	switch {
	case headErr != nil:
		v.report.Fault = &Fault{File: headName, Seq: v.last.seq, Reason: "the head is not readable"}
	case !known && len(firsts) > 0:
		v.report.Fault = &Fault{File: headName, Seq: v.last.seq, Reason: "the head is missing"}
	default:
		v.conclude()
	}
	return v.report, nil
}

// A demand is a record that must be in the log as it says.
type demand struct {
	anchor
	reason string
}

type verifier struct {
	dir    string
	want   []demand
	last   anchor
	start  anchor // what the first record says is before it
	cuts   []anchor
	report Report
}

// file verifies one file.
func (v *verifier) file(ctx context.Context, first uint64, isLast bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := logName(first)
	f, err := os.Open(filepath.Join(v.dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	line := 0
	fault := func(seq uint64, reason string) error {
		v.report.Fault = &Fault{File: name, Line: line, Seq: seq, Reason: reason}
		return *v.report.Fault
	}
	v.report.Files++
	rest, err := eachLine(f, func(text []byte, _, _ int64) error {
		line++
		if line%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := parseRecord(text)
		if err != nil {
			return fault(v.last.seq+1, err.Error())
		}
		if line == 1 && r.Seq != first {
			return fault(first, fmt.Sprintf("the file begins with record %d", r.Seq))
		}
		if reason := v.next(&r); reason != "" {
			return fault(r.Seq, reason)
		}
		return nil
	})
	if v.report.Fault != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if rest > 0 && !isLast {
		line++
		_ = fault(v.last.seq+1, "an unfinished line")
	}
	v.report.Unfinished = rest
	return nil
}

// next takes the record that comes next and says what is wrong with its place.
func (v *verifier) next(r *record) string {
	switch {
	case v.report.Records == 0:
		v.report.First, v.start = r.Seq, anchor{r.Seq - 1, r.prev}
	case r.Seq <= v.last.seq:
		return fmt.Sprintf("it comes after record %d", v.last.seq)
	case r.Seq > v.last.seq+1:
		return fmt.Sprintf("records %d to %d before it are missing", v.last.seq+1, r.Seq-1)
	case r.prev != v.last.sum:
		return fmt.Sprintf("it does not follow record %d: one of the two was replaced", v.last.seq)
	}
	v.last = anchor{r.Seq, r.sum}
	v.report.Records++
	v.report.Head = v.last.String()
	for _, w := range v.want {
		if w.seq == r.Seq && w.sum != r.sum {
			return w.reason
		}
	}
	if r.Type == retentionType && r.Actor.Kind == Server {
		if cut, err := parseAnchor(r.Object.ID); err == nil {
			v.cuts = append(v.cuts, cut)
		}
	}
	return ""
}

// conclude judges both ends of the log.
func (v *verifier) conclude() {
	for _, w := range v.want {
		switch {
		case w.seq > v.last.seq:
			v.report.Fault = &Fault{Seq: v.last.seq + 1, File: headName,
				Reason: fmt.Sprintf("records %d to %d are missing at the end", v.last.seq+1, w.seq)}
			return
		case v.start.seq == w.seq && v.start.sum != w.sum:
			v.report.Fault = &Fault{Seq: w.seq, File: headName, Reason: w.reason}
			return
		}
	}
	if v.start == (anchor{}) {
		return
	}
	// Old files may go, if the chain says so: exactly up to where it begins, or further, if removing
	// them was interrupted.
	for _, cut := range v.cuts {
		if cut == v.start || cut.seq > v.start.seq {
			return
		}
	}
	reason := fmt.Sprintf("records before it are missing, and no record of type %s names %s", retentionType, v.start)
	v.report.Fault = &Fault{File: logName(v.report.First), Line: 1, Seq: v.report.First, Reason: reason}
}

// String returns the report as text for people, in one line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d records in %d files", r.Records, r.Files)
	if r.First > 1 {
		fmt.Fprintf(&b, ", from record %d on", r.First)
	}
	if r.Unfinished > 0 {
		fmt.Fprintf(&b, ", %d bytes of a line not finished", r.Unfinished)
	}
	if r.Fault != nil {
		return b.String() + ": " + r.Fault.Error()
	}
	if r.Head == "" {
		return "no records"
	}
	return b.String() + ", all in order, head " + r.Head
}
