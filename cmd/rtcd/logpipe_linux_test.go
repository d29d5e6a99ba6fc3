package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// Nobody reads standard output and the log floods it: signalling, media and the end of the server do
// not wait for it, and the loss shows.
func TestNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	ctx := within(t, 90*time.Second)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	c := &child{ports: newPorts(t), out: new(output), exited: make(chan struct{})}
	dir := t.TempDir()
	c.cmd = exec.Command(rtcd)
	c.cmd.Dir = dir
	c.cmd.Env = append(c.environ(dir), "RTCD_LOGGER_CONSOLELEVEL=STDLOG", "RTCD_SHUTDOWN_DRAINDEADLINE=1ms")
	c.cmd.Stdout, c.cmd.Stderr = w, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	c.awaitReady(t)

	// Requests until far more was logged than a pipe and a queue hold.
	b := servicetest.NewBackend(t, fmt.Sprintf("127.0.0.1:%d", c.api), "c1")
	b.Register(t)
	var flood sync.WaitGroup
	var stop atomic.Bool
	for range 8 {
		flood.Go(func() {
			for !stop.Load() {
				b.Get(t, "/calls/"+strings.Repeat("x", 100))
			}
		})
	}
	began := time.Now()
	for lostLines(t, c) == 0 {
		if time.Since(began) > 60*time.Second {
			t.Error("no line is lost: does it log requests?")
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop.Store(true)
	flood.Wait()
	t.Logf("lines are lost after %v", time.Since(began))
	b.Dial(t)
	e1 := b.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	e2 := b.Person(ctx, t, "call", "s2", rtctest.EndpointConfig{})
	speaker := servicetest.Speak(t, "voice", e1)
	if err := e2.Await(ctx, servicetest.HearsAll(50, "s1")); err != nil {
		t.Fatalf("no media: %v", err)
	}
	speaker.Stop(t)
	began = time.Now()
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	t.Logf("ended after %v", time.Since(began))
}

// lostLines is what the metrics say.
func lostLines(t *testing.T, c *child) (n float64) {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", c.admin))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	const series = `rtcd_log_lines_lost_total{target="console"} `
	_, value, ok := strings.Cut(string(text), series)
	if !ok {
		t.Fatalf("status %d, and no %s", resp.StatusCode, series)
	}
	if _, err := fmt.Sscan(value, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Whoever reads the log goes away: the server stays.
func TestTheReaderOfTheLogGoes(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{ports: newPorts(t), out: new(output), exited: make(chan struct{})}
	dir := t.TempDir()
	c.cmd = exec.Command(rtcd)
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = dir, c.environ(dir), w, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	c.awaitReady(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	servicetest.NewBackend(t, fmt.Sprintf("127.0.0.1:%d", c.api), "c1").Register(t) // logs a line
	for begin := time.Now(); lostLines(t, c) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("no line is lost")
		}
	}
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
}

// What is logged before a start that fails is printed.
func TestLinesOfAFailedStart(t *testing.T) {
	t.Parallel()
	held := start(t, t.TempDir())
	dir := t.TempDir()
	status, stdout, _ := finish(t, dir, nil, append(newPorts(t).environ(dir), fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", held.media)))
	if status != 1 || !strings.Contains(stdout, "start failed") {
		t.Errorf("status %d:\n%s", status, stdout)
	}
}
