package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rtcd/service/api"
)

// On a volume that is really full no part of a report is left, what was written before stays, and in
// memory everything goes on.
func TestReportsOnFullVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can mount a volume to fill")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("NOT TESTED: no volume to fill: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	files, err := openReportFiles(dir, 1<<30, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[api.ReportFormat][]byte{api.ReportJSON: make([]byte, 20<<10), api.ReportHTML: make([]byte, 20<<10)}
	if err := files.write("a", "c", anyTime, bodies); !errors.Is(err, errVolumeFull) {
		t.Errorf("a volume that is small: %v", err)
	}
	files.free = func(string) (uint64, error) { return 1 << 40, nil } // others fill it in between
	written := 0
	for {
		err := files.write("a", fmt.Sprint(written), anyTime, bodies)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil || written > 10 {
			t.Fatalf("after %d: %v", written, err)
		}
		written++
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Size() != 20<<10 {
			t.Errorf("%s has %d bytes, %v", path, info.Size(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	r, l := keeping(t, func(c *reportsConfig) { c.files, c.keepCalls = files, 100 })
	for i := range 20 {
		r.add("b", recordOf(fmt.Sprint("m", i), anyTime))
	}
	for i := range 20 {
		if !has(t, r, "b", fmt.Sprint("m", i)) {
			t.Errorf("m%d is lost", i)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if l.of(LimitReportWrites) != 0 {
		t.Error("a full volume has filled the queue")
	}
	for i := range written {
		if _, err := files.read("a", fmt.Sprint(i), 0, api.ReportJSON); err != nil {
			t.Errorf("report %d is gone: %v", i, err)
		}
	}
}
