package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// smallVolume mounts a tmpfs of that size, or skips the test with a reason that stands out.
func smallVolume(t *testing.T, bytes string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT SHOWN: the disk-full test mounts a tmpfs and needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes+",mode=0700"); err != nil {
		t.Skipf("SKIPPED, NOT SHOWN: the disk-full test needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space there is and returns the file that holds it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return path
}

// A full disk refuses writes, serves reads, survives closing and reopening, and recovers without
// a restart (fault F4). A SIGBUS would end this very process.
func TestFullDisk(t *testing.T) {
	dir := smallVolume(t, "30m")
	cfg := Config{Dir: dir, MinFreeBytes: 10 << 20}
	s := mustOpen(t, cfg)
	mustInsert(t, s, "before")

	filler := fill(t, dir)
	err := s.Insert(t.Context(), testClient("refused"))
	wantErr(t, "insert on a full disk", err, ErrNoSpace)
	if err == nil || !strings.Contains(err.Error(), "min_free_bytes") || !strings.Contains(err.Error(), dir) {
		t.Errorf("the error names neither limit nor path: %v", err)
	}
	wantErr(t, "delete on a full disk", s.Delete(t.Context(), "before"), ErrNoSpace)
	if _, err := s.Get("before"); err != nil {
		t.Errorf("read on a full disk: %v", err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	mustInsert(t, s, "after")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("recovery took %v", took)
	}

	// Closing flushes to disk. The ballast makes room for that, and for opening.
	fill(t, dir)
	if err := s.Close(); err != nil {
		t.Fatalf("close on a full disk: %v", err)
	}
	again := mustOpen(t, cfg)
	if n := again.Count(); n != 2 {
		t.Errorf("%d clients after reopening, want 2", n)
	}
	wantErr(t, "insert on an almost full disk", again.Insert(t.Context(), testClient("refused")), ErrNoSpace)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustInsert(t, again, "recovered")
	if !again.folder.ballast {
		t.Error("the ballast was not restored")
	}
}

// The guard looks before a write; what another process takes between is covered by blocks that
// the write-ahead file has from the start.
func TestWriteAheadFileCannotRunOutOfBlocks(t *testing.T) {
	dir := smallVolume(t, "20m")
	s := mustOpen(t, Config{Dir: dir, MinFreeBytes: 2 << 20})
	mustInsert(t, s, "before")
	fill(t, dir)
	s.folder.minFree = 0 // as if the disk had filled up just behind the guard
	for i := range 1000 {
		hash := []byte{byte(i), byte(i >> 8), 1}
		old, err := s.Get("before")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.UpdateHash(t.Context(), "before", old.Hash, hash); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	dir := smallVolume(t, "6m")
	fill(t, dir)
	_, err := Open(Config{Dir: dir}, nil)
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("open: %v, want an error that names the folder", err)
	}
}
