package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A link leads to a network namespace that has nothing else. What goes in can be limited.
type link struct {
	namespace string
	outside   string // our interface
	address   string // of it
}

// run runs a program of iproute2.
func run(t *testing.T, args ...string) {
	t.Helper()
	if err := try(args...); err != nil {
		t.Fatal(err)
	}
}

func try(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

const namespacePrefix = "rtcd-test-"

// newLink makes a link, or skips where that is not possible. Its addresses are of the network that
// RFC 2544 sets aside for tests.
func newLink(t *testing.T) *link {
	t.Helper()
	const untested = "; what a browser sees over a narrow link was NOT tested"
	if os.Geteuid() != 0 {
		t.Skip("NOT ROOT: no network namespace" + untested)
	}
	for _, name := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("NO " + name + " HERE (Debian: iproute2)" + untested)
		}
	}
	sweep(t)
	pid := os.Getpid()
	l := &link{namespace: namespacePrefix + strconv.Itoa(pid), outside: fmt.Sprintf("rtcd%da", pid)}
	inside := fmt.Sprintf("rtcd%db", pid)
	address := func(host int) string { return fmt.Sprintf("198.18.%d.%d", pid/64%256, pid%64*4+host) }
	l.address = address(1)
	t.Cleanup(func() { l.remove(t) })
	if err := try("ip", "netns", "add", l.namespace); err != nil {
		t.Skipf("NO NETWORK NAMESPACES HERE: %v%s", err, untested)
	}
	if err := try("ip", "link", "add", l.outside, "type", "veth", "peer", "name", inside, "netns", l.namespace); err != nil {
		t.Skipf("NO VETH HERE: %v%s", err, untested)
	}
	run(t, "ip", "address", "add", l.address+"/30", "dev", l.outside)
	run(t, "ip", "link", "set", l.outside, "up")
	run(t, "ip", "-n", l.namespace, "address", "add", address(2)+"/30", "dev", inside)
	run(t, "ip", "-n", l.namespace, "link", "set", inside, "up")
	run(t, "ip", "-n", l.namespace, "link", "set", "lo", "up")
	if err := l.limit(); err != nil {
		t.Skipf("NO TBF HERE: %v%s", err, untested)
	}
	l.unlimit(t)
	return l
}

// limit lets 300 kbit/s in.
func (l *link) limit() error {
	return try("tc", "qdisc", "add", "dev", l.outside, "root", "tbf", "rate", "300kbit", "burst", "16kb", "latency", "200ms")
}

func (l *link) unlimit(t *testing.T) {
	t.Helper()
	run(t, "tc", "qdisc", "delete", "dev", l.outside, "root")
}

func (l *link) remove(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/sys/class/net/" + l.outside); err == nil {
		if err := try("ip", "link", "delete", l.outside); err != nil { // and its other end
			t.Error(err)
		}
	}
	if _, err := os.Stat("/run/netns/" + l.namespace); err == nil {
		if err := try("ip", "netns", "delete", l.namespace); err != nil {
			t.Error(err)
		}
	}
}

// sweep removes what test processes left behind that were killed.
func sweep(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob("/run/netns/" + namespacePrefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), namespacePrefix))
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		(&link{namespace: filepath.Base(path), outside: fmt.Sprintf("rtcd%da", pid)}).remove(t)
	}
}

// inside returns the path of a program that starts a browser in the namespace.
func (l *link) inside(t *testing.T, browser string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "browser")
	script := fmt.Sprintf("#!/bin/sh\nexec ip netns exec '%s' '%s' \"$@\"\n", l.namespace, browser)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// Bert's link becomes too narrow for all of Anna: he sees less of her, but goes on seeing her, and
// all of her again once the link is as before.
func TestNarrowLink(t *testing.T) {
	path := chromium(t)
	l := newLink(t)
	d := startDemoAt(t, "0.0.0.0")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	anna := open(ctx, t, path, d.link, "Anna", smallerCamera)
	explain(t, anna)
	// A page that is neither on https nor on localhost gets no microphone; it can listen without.
	bert := open(ctx, t, l.inside(t, path), strings.Replace(d.link, "127.0.0.1", l.address, 1), "Bert", "")
	id := hears(t, bert, "Bert").id("Anna")
	do(t, anna, `void huddle.camera(true)`)

	start := time.Now()
	height := func(what string, ok func(int) bool) {
		t.Helper()
		s := until(t, bert, what, func(s stats) bool { return s.decoded("video", id) > 0 && ok(s.video("video", id).Height) })
		t.Logf("%s after %v: %+v", what, time.Since(start).Round(100*time.Millisecond), s.video("video", id))
		sees(t, bert, what+", which moves", "video", id)
		start = time.Now()
	}
	full := func(h int) bool { return h == cameraHeight }
	height("Bert sees all of Anna", full)
	if err := l.limit(); err != nil {
		t.Fatal(err)
	}
	height("Bert sees less of Anna", func(h int) bool { return h > 0 && h < cameraHeight })
	n := look(t, bert).decoded("video", id)
	until(t, bert, "Bert goes on seeing Anna", func(s stats) bool { return s.decoded("video", id) > n+40 })
	l.unlimit(t)
	height("Bert sees all of Anna again", full)
	if state, err := chromedp.Run(bert, chromedp.Evaluate[string](`app.call.pc.connectionState`)); err != nil || state != "connected" {
		t.Errorf("Bert's connection: %s, %v", state, err)
	}
}
