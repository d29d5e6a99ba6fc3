package logging

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func openTest(t *testing.T, path string, max int64) *rotatingFile {
	t.Helper()
	f, err := openRotating(path, max, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// contents returns the text of the file and all its predecessors, the oldest first, and the names.
func contents(t *testing.T, path string) (string, []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	var all strings.Builder
	for _, name := range append(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == filepath.Base(path) }), filepath.Base(path)) {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, compressSuffix) {
			gz, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if data, err = io.ReadAll(gz); err != nil {
				t.Fatal(err)
			}
		}
		all.Write(data)
	}
	return all.String(), names
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rtcd.log")
	var want strings.Builder
	for range 3 { // three processes, one after the other
		f := openTest(t, path, 100)
		for i := range 25 {
			line := fmt.Sprintf("line %02d %s\n", i, strings.Repeat("x", i))
			want.WriteString(line)
			if _, err := f.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Error("second Close:", err)
		}
	}
	// The start after that finishes what the Close before it broke off.
	f := openTest(t, path, 100)
	f.work.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, names := contents(t, path)
	if got != want.String() {
		t.Errorf("lines lost, doubled or out of order:\n%s", got)
	}
	if len(names) < 10 {
		t.Errorf("only %d files", len(names))
	}
	for _, name := range names {
		if name != "rtcd.log" && !strings.HasSuffix(name, ".log.gz") {
			t.Errorf("left %s", name)
		}
	}
}

func TestConcurrentWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	f := openTest(t, path, 500)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if _, err := f.Write([]byte("0123456789\n")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.work.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ := contents(t, path)
	if got != strings.Repeat("0123456789\n", 400) {
		t.Errorf("%d bytes, want %d", len(got), 400*11)
	}
}

func TestLeftoversAreOnlyOurs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rtcd.log")
	for _, name := range []string{"rtcd-2026-11-22T02-30-09.976.log", "rtcd-notes.log", "other-2026-11-22T02-30-09.976.log", "rtcd-2026-11-22T02-30-09.976.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := openTest(t, path, 100)
	f.work.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, names := contents(t, path)
	want := "other-2026-11-22T02-30-09.976.log rtcd-2026-11-22T02-30-09.976.log.gz rtcd-2026-11-22T02-30-09.976.txt rtcd-notes.log rtcd.log"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A rotation that fails is reported, and the lines go on into the same file.
func TestRotationThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "rtcd.log")
	var troubles []error
	f, err := openRotating(path, 20, func(err error) { troubles = append(troubles, err) })
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		n, _ := f.Write([]byte("123456789\n"))
		if n != 10 {
			t.Fatalf("wrote %d bytes", n)
		}
	}
	if len(troubles) != 2 {
		t.Errorf("%d troubles, want one for each 20 bytes after the first: %v", len(troubles), troubles)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(moved, "rtcd.log")); err != nil || string(data) != strings.Repeat("123456789\n", 6) {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestBackupNamesDoNotCollide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rtcd.log")
	now := time.Date(2026, 11, 22, 2, 30, 9, 976e6, time.UTC)
	first := backupName(path, now)
	if want := strings.TrimSuffix(path, ".log") + "-2026-11-22T02-30-09.976.log"; first != want {
		t.Errorf("got %s, want %s", first, want)
	}
	if err := os.WriteFile(first+compressSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if second := backupName(path, now); !strings.HasSuffix(second, "09.977.log") {
		t.Errorf("got %s", second)
	}
}
