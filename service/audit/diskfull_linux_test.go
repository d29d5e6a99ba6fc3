package audit_test

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"rtcd/service/audit"
)

// TestDiskFull shows CR-14 on a real full disk: with "block" callers are told to refuse, with "drop" they go on;
// both alarm, lose nothing that the queue holds, and once there is space again the chain is whole and says what
// happened and how many events are missing.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can mount a small disk")
	}
	for _, mode := range []string{audit.Block, audit.Drop} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700"); err != nil {
				t.Skipf("SKIPPED: mount a small disk: %v", err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			log, raised := alarms(t)
			r, err := audit.Open(audit.Config{Dir: dir, OnFailure: mode, Queue: 100}, log)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = shut(r) })
			record(t, r, 10)
			if err := r.Ready(); err != nil {
				t.Fatal(err)
			}
			ballast := dir + "/ballast"
			fill(t, ballast)
			var taken uint64
			for r.Stats().Dropped < 5 {
				r.Record(event(0))
				taken++
			}
			eventually(t, "the disk fails", 5*time.Second, func() bool { return r.Stats().Failing })
			ready := r.Ready()
			if blocked := errors.Is(ready, audit.ErrUnavailable); blocked != (mode == audit.Block) {
				t.Errorf("Ready: %v", ready)
			}
			if mode == audit.Block && !errors.Is(ready, syscall.ENOSPC) {
				t.Errorf("Ready does not say why: %v", ready)
			}
			if raised.Load() != 1 {
				t.Errorf("%d alarms", raised.Load())
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it recovers", 10*time.Second, func() bool { s := r.Stats(); return !s.Failing && s.Queued == 0 })
			if err := r.Ready(); err != nil {
				t.Error(err)
			}
			got := types(all(t, r, audit.Filter{}))
			dropped := r.Stats().Dropped
			if got["ws.join"] != int(taken-dropped)+4 || got["audit.recovered"] != 1 || got["audit.dropped"] != 1 {
				t.Errorf("taken %d, dropped %d, on record %v", taken, dropped, got)
			}
			closed(t, r)
			verified(t, dir)
		})
	}
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, neverEnding{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	_ = f.Close()
}

type neverEnding struct{}

func (neverEnding) Read(b []byte) (int, error) { return min(len(b), 1024), nil }
