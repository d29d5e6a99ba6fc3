package audit_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rtcd/service/audit"
)

// alarms counts what a log calls errors.
func alarms(t *testing.T) (*slog.Logger, *atomic.Int64) {
	var n atomic.Int64
	w := writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("level=ERROR")) {
			n.Add(1)
		}
		return t.Output().Write(b)
	})
	return slog.New(slog.NewTextHandler(w, nil)), &n
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestDiskFails shows CR-14 for each call to the disk that can fail: nothing is lost or doubled, and what a
// failed write left in the file is gone.
func TestDiskFails(t *testing.T) {
	for name, set := range map[string]func(d *audit.Disk, fails bool){
		"write":              func(d *audit.Disk, fails bool) { d.WriteFails.Store(fails) },
		"sync":               func(d *audit.Disk, fails bool) { d.SyncFails.Store(fails) },
		"write and truncate": func(d *audit.Disk, fails bool) { d.WriteFails.Store(fails); d.TruncateFails.Store(fails) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log, _ := alarms(t)
			var disk audit.Disk
			r, err := audit.OpenOn(&disk, audit.Config{Dir: dir, OnFailure: audit.Block, MaxFileBytes: 4 << 10}, log)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = shut(r) })
			record(t, r, 5)
			for round := range 3 {
				set(&disk, true)
				r.Record(event(1))
				eventually(t, "it fails twice", 5*time.Second, func() bool { return r.Stats().Errors >= uint64(2*round+2) })
				r.Record(event(2))
				set(&disk, false)
				record(t, r, 20)
			}
			got := types(all(t, r, audit.Filter{}))
			if got["audit.recovered"] != 3 || got["ws.leave"]+got["ws.join"]+got["call.list"] != 5+3*22 || got["audit.damaged"] != 0 {
				t.Errorf("on record: %v", got)
			}
			closed(t, r)
			verified(t, dir)
		})
	}
}

// TestCloseWithoutDisk shows that Close ends, and says what was lost, when the disk fails to the end.
func TestCloseWithoutDisk(t *testing.T) {
	log, _ := alarms(t)
	var disk audit.Disk
	r, err := audit.OpenOn(&disk, audit.Config{Dir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	synced(t, r)
	disk.WriteFails.Store(true)
	r.Record(event(0))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := r.Sync(ctx); err == nil {
		t.Error("Sync waited for nothing")
	}
	if err := shut(r); err == nil || !strings.Contains(err.Error(), "events were not written") {
		t.Errorf("got %v", err)
	}
}

// TestTouchedWhileOpen shows CR-14: what others do to the open file is noticed at the next event, is on record and
// alarmed, and verify names it.
func TestTouchedWhileOpen(t *testing.T) {
	for name, touch := range map[string]func(path string){
		"removed": func(path string) { _ = os.Remove(path) },
		"cut":     func(path string) { _ = os.Truncate(path, 100) },
		"longer":  func(path string) { write(t, path, append(read(t, path), "x\n"...)) },
		"replaced": func(path string) {
			text := read(t, path)
			_ = os.Remove(path)
			write(t, path, text)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			log, raised := alarms(t)
			r, err := audit.Open(audit.Config{Dir: dir}, log)
			if err != nil {
				t.Fatal(err)
			}
			record(t, r, 5)
			touch(logs(t, dir)[0])
			record(t, r, 5)
			if raised.Load() == 0 {
				t.Error("no alarm")
			}
			got := all(t, r, audit.Filter{Type: "audit.damaged"})
			if len(got) != 1 || got[0].Outcome != audit.SeriousFailure {
				t.Errorf("on record: %+v", got)
			}
			closed(t, r)
			report, err := audit.Verify(t.Context(), dir)
			if whole := report.Fault == nil; err != nil || whole != (name == "replaced") {
				t.Errorf("got %s, %v", report, err)
			}
		})
	}
}
