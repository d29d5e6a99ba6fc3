package audit_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rtcd/service/audit"
)

// sealedLog returns the folder of a closed log of about n records in several files.
func sealedLog(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	r := open(t, audit.Config{Dir: dir, MaxFileBytes: 8 << 10})
	record(t, r, n)
	closed(t, r)
	verified(t, dir)
	return dir
}

func lines(text []byte) [][]byte {
	all := bytes.SplitAfter(text, []byte("\n"))
	return all[:len(all)-1]
}

// TestVerifyNamesTheFault shows CR-14: edit, delete, reorder, insert, cut or replace anything, and verify names
// the record, its file and its line. Nobody here can compute hashes anew; TestVerifyRewritten is about who can.
func TestVerifyNamesTheFault(t *testing.T) {
	source := sealedLog(t, 60)
	paths := logs(t, source)
	if len(paths) < 3 {
		t.Fatalf("%d files", len(paths))
	}
	second := lines(read(t, paths[1]))
	firstOfSecond := bytes.Count(read(t, paths[0]), []byte("\n")) + 1
	total := int(verified(t, source).Records)
	lastFile := lines(read(t, paths[len(paths)-1]))
	edit := func(change func(l [][]byte) [][]byte) func(dir string) {
		return func(dir string) {
			path := logs(t, dir)[1]
			write(t, path, bytes.Join(change(lines(read(t, path))), nil))
		}
	}
	tests := map[string]struct {
		change func(dir string)
		file   int // -1: the head
		line   int
		seq    int
		reason string
	}{
		"edited": {edit(func(l [][]byte) [][]byte {
			l[3] = bytes.Replace(l[3], []byte("192.0.2.7"), []byte("192.0.2.8"), 1)
			return l
		}), 1, 4, firstOfSecond + 3, "hash"},
		"outcome edited": {edit(func(l [][]byte) [][]byte {
			for i := range l {
				if changed := bytes.Replace(l[i], []byte(`"outcome":12`), []byte(`"outcome":0`), 1); i >= 3 && len(changed) != len(l[i]) {
					l[i] = changed
					break
				}
			}
			return l
		}), 1, 0, 0, "hash"},
		"hash edited": {edit(func(l [][]byte) [][]byte {
			at := len(l[3]) - 5
			l[3][at] = "01"[(l[3][at]&1)^1]
			return l
		}), 1, 4, firstOfSecond + 3, "hash"},
		"white space":   {edit(func(l [][]byte) [][]byte { l[3] = append([]byte(" "), l[3]...); return l }), 1, 4, firstOfSecond + 3, "form"},
		"no record":     {edit(func(l [][]byte) [][]byte { l[3] = []byte("rubbish\n"); return l }), 1, 4, firstOfSecond + 3, "unfinished"},
		"overlong":      {edit(func(l [][]byte) [][]byte { l[3] = append(bytes.Repeat([]byte("x"), 99999), '\n'); return l }), 1, 4, firstOfSecond + 3, "bytes"},
		"deleted":       {edit(func(l [][]byte) [][]byte { return slices.Delete(l, 3, 4) }), 1, 4, firstOfSecond + 4, "missing"},
		"first deleted": {edit(func(l [][]byte) [][]byte { return l[1:] }), 1, 1, firstOfSecond, "begins"},
		"end deleted":   {edit(func(l [][]byte) [][]byte { return l[:len(l)-1] }), 2, 1, firstOfSecond + len(second), "missing"},
		"swapped":       {edit(func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }), 1, 4, firstOfSecond + 4, "missing"},
		"repeated":      {edit(func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[3]) }), 1, 5, firstOfSecond + 3, "after"},
		"file deleted":  {func(dir string) { _ = os.Remove(logs(t, dir)[1]) }, 2, 1, firstOfSecond + len(second), "missing"},
		"begin deleted": {func(dir string) { _ = os.Remove(logs(t, dir)[0]) }, 1, 1, firstOfSecond, "before it are missing"},
		"end cut": {func(dir string) {
			p := logs(t, dir)
			write(t, p[len(p)-1], bytes.Join(lastFile[:len(lastFile)-1], nil))
		}, -1, 0, total, "missing at the end"},
		"last file gone": {func(dir string) { p := logs(t, dir); _ = os.Remove(p[len(p)-1]) }, -1, 0, total - len(lastFile) + 1, "missing at the end"},
		"all files gone": {func(dir string) {
			for _, p := range logs(t, dir) {
				_ = os.Remove(p)
			}
		}, -1, 0, 1, "missing at the end"},
		"head gone":       {func(dir string) { _ = os.Remove(filepath.Join(dir, "head")) }, -1, 0, total, "head is missing"},
		"head unreadable": {func(dir string) { write(t, filepath.Join(dir, "head"), []byte("x")) }, -1, 0, total, "head is not readable"},
		"line broken off": {func(dir string) { p := logs(t, dir)[1]; x := read(t, p); write(t, p, x[:len(x)-1]) }, 1, len(second), firstOfSecond + len(second) - 1, "unfinished"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			test.change(dir)
			got := faulty(t, dir)
			file := "head"
			if test.file >= 0 {
				file = filepath.Base(paths[test.file])
			}
			if got.File != file || test.seq > 0 && (got.Line != test.line || got.Seq != uint64(test.seq)) || !strings.Contains(got.Reason, test.reason) {
				t.Errorf("got %v; want %s, line %d, record %d: %q", got, file, test.line, test.seq, test.reason)
			}
		})
	}
}

// TestVerifyRewritten shows CR-14 against somebody who can compute hashes: a record written anew does not fit its
// successor, the last one does not fit the head, and a log written anew as a whole does not fit the anchor
// that was noted elsewhere.
func TestVerifyRewritten(t *testing.T) {
	dir := sealedLog(t, 60)
	anchor := verified(t, dir).Head
	paths := logs(t, dir)
	original := read(t, paths[1])
	l := lines(original)
	l[3] = audit.Rewritten(t, l[3], func(e *audit.Event) { e.Outcome = audit.Success; e.Reason = "fine" })
	write(t, paths[1], bytes.Join(l, nil))
	if got := faulty(t, dir); got.Line != 5 || !strings.Contains(got.Reason, "one of the two was replaced") {
		t.Errorf("got %v", got)
	}
	write(t, paths[1], original)
	last := paths[len(paths)-1]
	original = read(t, last)
	l = lines(original)
	l[len(l)-1] = audit.Rewritten(t, l[len(l)-1], func(e *audit.Event) { e.Reason = "other" })
	write(t, last, bytes.Join(l, nil))
	if got := faulty(t, dir); got.Line != len(l) || !strings.Contains(got.Reason, "head names another") {
		t.Errorf("got %v", got)
	}
	write(t, last, original)

	check := func(dir, anchor string, whole bool) {
		t.Helper()
		report, err := audit.VerifyAnchor(t.Context(), dir, anchor)
		if err != nil || (report.Fault == nil) != whole {
			t.Errorf("got %s, %v; want it whole: %v", report, err, whole)
		}
	}
	check(dir, anchor, true)
	check(sealedLog(t, 60), anchor, false)
	check(sealedLog(t, 10), anchor, false)
	for _, bad := range []string{"x", "1", "1:", "01:" + strings.Repeat("0", 64), "1:" + strings.Repeat("F", 64)} {
		if _, err := audit.VerifyAnchor(t.Context(), dir, bad); err == nil {
			t.Errorf("anchor %q was taken", bad)
		}
	}
}

// TestVerifyWhileWriting shows that verify is right about a log that grows.
func TestVerifyWhileWriting(t *testing.T) {
	dir := t.TempDir()
	r := open(t, audit.Config{Dir: dir, MaxFileBytes: 32 << 10})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 4000 {
			r.Record(event(i))
		}
	}()
	for range 20 {
		verified(t, dir)
	}
	<-done
	synced(t, r)
	verified(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audit.Verify(ctx, dir); err == nil {
		t.Error("a cancelled context was passed over")
	}
	if _, err := audit.Verify(t.Context(), filepath.Join(dir, "none")); err == nil {
		t.Error("no folder, no error")
	}
}

// TestOpenDamaged shows CR-14: a start on a damaged log keeps what is there as it is, goes on behind it, puts the
// damage on record, and verify goes on naming it.
func TestOpenDamaged(t *testing.T) {
	tests := map[string]struct {
		change func(dir string)
		want   string // in the reason of the event
	}{
		"tail cut": {func(dir string) {
			p := logs(t, dir)
			l := lines(read(t, p[len(p)-1]))
			write(t, p[len(p)-1], bytes.Join(l[:len(l)-2], nil))
		}, "missing at the end"},
		"last file gone": {func(dir string) { p := logs(t, dir); _ = os.Remove(p[len(p)-1]) }, "missing at the end"},
		"all files gone": {func(dir string) {
			for _, p := range logs(t, dir) {
				_ = os.Remove(p)
			}
		}, "missing at the end"},
		"head gone":   {func(dir string) { _ = os.Remove(filepath.Join(dir, "head")) }, "head is missing"},
		"head broken": {func(dir string) { write(t, filepath.Join(dir, "head"), make([]byte, 512)) }, "head is not readable"},
		"edited": {func(dir string) {
			p := logs(t, dir)
			x := read(t, p[len(p)-1])
			write(t, p[len(p)-1], bytes.Replace(x, []byte("192.0.2.7"), []byte("192.0.2.8"), 1))
		}, "hash"},
		"all edited": {func(dir string) {
			p := logs(t, dir)
			x := read(t, p[len(p)-1])
			write(t, p[len(p)-1], bytes.ReplaceAll(x, []byte("time"), []byte("tide")))
		}, "not a"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := sealedLog(t, 35)
			test.change(dir)
			kept := map[string][]byte{}
			for _, p := range logs(t, dir) {
				kept[p] = read(t, p)
			}
			r := open(t, audit.Config{Dir: dir, MaxFileBytes: 8 << 10})
			record(t, r, 3)
			found := all(t, r, audit.Filter{Type: "audit.damaged"})
			closed(t, r)
			if len(found) == 0 || !strings.Contains(found[len(found)-1].Reason, test.want) && !strings.Contains(found[0].Reason, test.want) {
				t.Errorf("on record: %+v", found)
			}
			for p, text := range kept {
				if !bytes.HasPrefix(read(t, p), text) {
					t.Errorf("%s was changed", p)
				}
			}
			if report, err := audit.Verify(t.Context(), dir); err != nil || report.Fault == nil && name[:4] != "head" {
				t.Errorf("verify: %s, %v", report, err)
			}
			// And once more: it goes on from there.
			r = open(t, audit.Config{Dir: dir, MaxFileBytes: 8 << 10})
			record(t, r, 3)
		})
	}
}

// TestCrash shows CR-14: whatever a crash left behind the last commit is taken away at the next start, on
// record and not in silence, and the chain is whole.
func TestCrash(t *testing.T) {
	for name, rest := range map[string]string{
		"half a line": `{"seq":24,"time":"2026-`, "zeros": strings.Repeat("\x00", 4096), "rubbish": "x\ny\nz", "a whole line of rubbish": "rubbish\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := sealedLog(t, 20)
			before := verified(t, dir)
			paths := logs(t, dir)
			last := paths[len(paths)-1]
			text := read(t, last)
			write(t, last, append(slices.Clone(text), rest...))
			r := open(t, audit.Config{Dir: dir})
			found := all(t, r, audit.Filter{Type: "audit.repaired"})
			closed(t, r)
			if len(found) != 1 || found[0].Seq != before.Records+1 || found[0].Outcome == audit.Success {
				t.Errorf("on record: %+v", found)
			}
			if !bytes.HasPrefix(read(t, last), append(slices.Clone(text), `{"seq":`...)) {
				t.Error("what was committed was changed, or the rest is still there")
			}
			if got := verified(t, dir); got.Records != before.Records+3 {
				t.Errorf("before %s, now %s", before, got)
			}
		})
	}
	t.Run("a file without a line", func(t *testing.T) {
		for _, rest := range []string{"", `{"seq":`} {
			dir := sealedLog(t, 20)
			before := verified(t, dir)
			write(t, filepath.Join(dir, audit.LogName(before.Records+1)), []byte(rest))
			r := open(t, audit.Config{Dir: dir})
			record(t, r, 2)
			closed(t, r)
			verified(t, dir)
		}
	})
	t.Run("lines the head does not know", func(t *testing.T) {
		dir := t.TempDir()
		r := open(t, audit.Config{Dir: dir})
		record(t, r, 5)
		old := read(t, filepath.Join(dir, "head"))
		record(t, r, 5)
		closed(t, r)
		write(t, filepath.Join(dir, "head"), old)
		before := verified(t, dir)
		r = open(t, audit.Config{Dir: dir})
		record(t, r, 1)
		if got := verified(t, dir); got.Records != before.Records+2 {
			t.Errorf("before %s, now %s", before, got)
		}
	})
}
