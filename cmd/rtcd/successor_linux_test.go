package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"
)

var mainPID = regexp.MustCompile(`(?s)^READY=1\nMAINPID=(\d+)\n$`)

// notified waits for a process to tell the service manager that it serves, and returns its pid.
func notified(t *testing.T, manager *net.UnixConn) int {
	t.Helper()
	if err := manager.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1000)
	n, err := manager.Read(b)
	if err != nil {
		t.Fatalf("the service manager is not told: %v", err)
	}
	m := mainPID.FindSubmatch(b[:n])
	if m == nil {
		t.Fatalf("the service manager is told %q", b[:n])
	}
	pid, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// SIGHUP makes the program that stands at the path now take over, and the service manager is told whom
// to look after.
func TestHangupStartsSuccessor(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	ctx := within(t, 60*time.Second)
	c := start(t, dir, "RTCD_UPGRADE_SOCKET="+filepath.Join(dir, "upgrade"), "NOTIFY_SOCKET="+name)
	if pid := notified(t, manager); pid != c.cmd.Process.Pid {
		t.Errorf("main pid %d, want %d", pid, c.cmd.Process.Pid)
	}
	r := c.connect(t, "c1")
	f := talk(ctx, t, r, "call0")

	c.signal(t, syscall.SIGHUP)
	next := notified(t, manager)
	t.Cleanup(func() { _ = syscall.Kill(next, syscall.SIGKILL) })
	if next == c.cmd.Process.Pid {
		t.Fatal("there is no new process")
	}
	c.out.await(t, "upgrade: the successor serves")
	reconnected(ctx, t, r, 0)
	if err := f.speak(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"call0-a", "call0-b"} {
		if err := r.Conn.Leave(s); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	// The former process ends; it held our end of the pipe that the new one prints to as well.
	eventuallyGone(t, c.cmd.Process.Pid)
	if err := syscall.Kill(next, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := c.exit(t, 20*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
}

// eventuallyGone waits until a process has ended, reaped or not.
func eventuallyGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return
		}
	}
	t.Fatalf("process %d is still there", pid)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(b, []byte(") Z "))
}

// Without a socket to take over at, a reload by the service manager ends nothing: it is an error in the log.
func TestHangupWithoutSocket(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	c := start(t, dir, "NOTIFY_SOCKET="+name)
	notified(t, manager)
	c.signal(t, syscall.SIGHUP)
	c.out.await(t, "upgrade.socket is not set")
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 20*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
}
