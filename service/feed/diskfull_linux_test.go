package feed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestDiskFull shows on a real full disk that nothing is delivered which is not safe, that whoever adds events
// does not notice, and that all comes in order once there is space.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can mount a small disk")
	}
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=512k,mode=700"); err != nil {
		t.Skipf("SKIPPED: mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mount, syscall.MNT_DETACH) })
	dir := filepath.Join(mount, "events")
	f := open(t, Config{Dir: dir, KeepBytes: 1 << 20}, nil)
	talk(f, "a", "before", 1, true)
	flush(t, f)
	_, next := all(t, f, "a", "")
	ballast, err := os.Create(filepath.Join(mount, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = ballast.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	for i := 0; !f.Stats().Failing; i++ {
		talk(f, "a", fmt.Sprint("full", i), 1, true)
		if i > 100_000 {
			t.Fatal("the disk does not fail")
		}
	}
	_, at := all(t, f, "a", next)
	talk(f, "b", "new", 1, true) // a client without a file
	if got, _ := all(t, f, "b", ""); len(got) != 0 {
		t.Errorf("delivered before it was safe: %s", shorts(got))
	}
	s := f.Stats()
	if s.WriteErrors == 0 || s.Delayed == 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	// What a server that is killed now leaves opens, and ends where readers were.
	killed := copyDir(t, dir)
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		t.Fatal(err)
	}
	flush(t, f)
	got, _ := all(t, f, "a", "")
	checkCalls(t, got)
	if b, _ := all(t, f, "b", ""); len(b) != 6 {
		t.Errorf("b has %s", shorts(b))
	}
	if s := f.Stats(); s.Failing || s.Lost != 0 || uint64(len(got)+6) != s.Events {
		t.Errorf("%d events, %+v", len(got), s)
	}
	k := open(t, Config{Dir: killed}, nil)
	flush(t, k)
	if rest, _ := all(t, k, "a", at); len(rest) > 0 && (rest[0].Type == Gap || rest[len(rest)-1].Type != CallEnded) {
		t.Errorf("after the kill: %s", shorts(rest))
	}
}
