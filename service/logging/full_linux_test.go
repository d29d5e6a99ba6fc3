package logging

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A log file on a full volume delays nobody, and once there is room it goes on with whole lines and
// says what is missing.
func TestFullVolume(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("rtcd-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED: A FULL VOLUME CANNOT BE MADE WITHOUT ROOT: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "rtcd.log")
	log, out, err := New(Config{EnableConsole: true, ConsoleLevel: "fatal", Console: io.Discard, EnableFile: true, FileLevel: "info", FileLocation: path})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	for i := range n {
		log.Info(fmt.Sprintf("line %d", i))
	}
	lost := out.Targets()[1].Lost
	awaitTrue(t, func() bool { return lost() > 0 })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	log.Info(fmt.Sprintf("line %d", n))
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// One line may be there in part: the one that did not fit.
	var whole strings.Builder
	torn := 0
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, "caller=") || strings.Contains(l, " n=") {
			whole.WriteString(l)
		} else {
			torn++
		}
	}
	lines, missing := numbers(t, whole.String())
	if torn > 1 || lines+int(missing) != n+1 || missing != lost() {
		t.Errorf("%d lines, %d torn, %d missing, %d lost", lines, torn, missing, lost())
	}
}
