package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// demoEnv makes run start the test binary as its rtcd, on free ports.
func demoEnv(t *testing.T, mode string) (args []string) {
	t.Helper()
	t.Setenv("HUDDLE_TEST_CHILD", mode)
	t.Setenv("RTCD_API_HTTP_LISTENADDRESS", freeAddr(t))
	t.Setenv("TMPDIR", t.TempDir())
	for _, name := range []string{"RTCD_RTC_ICEPORTTCP", "RTCD_RTC_ICEPORTUDP"} {
		_, port, _ := net.SplitHostPort(freeAddr(t))
		t.Setenv(name, port)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-start", self, "-listen", "127.0.0.1:0"}
}

// From the command line to the link, a participant, and Ctrl-C.
func TestDemo(t *testing.T) {
	for _, mode := range []string{"good", "deaf"} {
		args := demoEnv(t, mode)
		d := startDemo(t, args)
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+d.host+"/ws?room=lobby&name=Ann", nil)
		if err != nil {
			t.Fatal(err)
		}
		d.interrupt()
		(&browser{t: t, ws: ws}).wantGone()
		_ = ws.Close()
		if err := d.stop(); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) != 0 {
			t.Errorf("%s: left behind: %v", mode, left)
		}
	}
}

// A demo is a run that has printed its link.
type demo struct {
	t         *testing.T
	host      string
	interrupt context.CancelFunc // Ctrl-C
	ended     chan error
}

var linkLine = regexp.MustCompile(`http://(\S+)/\?room`)

func startDemo(t *testing.T, args []string) *demo {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	d := &demo{t: t, interrupt: interrupt, ended: make(chan error, 1)}
	out, in := io.Pipe()
	var stderr bytes.Buffer
	go func() {
		d.ended <- run(ctx, args, in, &stderr)
		_ = in.Close()
	}()
	links := make(chan string, 1)
	go func() {
		var all []byte
		buf := make([]byte, 1024)
		for {
			n, err := out.Read(buf)
			all = append(all, buf[:n]...)
			if m := linkLine.FindSubmatch(all); m != nil {
				links <- string(m[1])
				all = nil
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case d.host = <-links:
	case err := <-d.ended:
		t.Fatalf("ended with %v\n%s", err, &stderr)
	}
	return d
}

func (d *demo) stop() error {
	d.t.Helper()
	d.interrupt()
	return within(d.t, d.ended, "end")
}

func TestDemoFailures(t *testing.T) {
	crash := demoEnv(t, "crash")
	err := run(t.Context(), crash, io.Discard, io.Discard)
	if err == nil || strings.Count(err.Error(), "stopped by itself") != 1 || !strings.Contains(err.Error(), "something is wrong") {
		t.Errorf("rtcd that crashes: %v", err)
	}
	for _, name := range []string{"RTCD_API_HTTP_LISTENADDRESS", "RTCD_RTC_ICEPORTTCP"} {
		t.Run(name, func(t *testing.T) {
			args := demoEnv(t, "good")
			l, err := net.Listen("tcp", ":0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			if name == "RTCD_API_HTTP_LISTENADDRESS" {
				port = ":" + port
			}
			t.Setenv(name, port)
			err = run(t.Context(), args, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), "taken by another program") || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := run(t.Context(), []string{"-listen", l.Addr().String()}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "-listen") {
		t.Errorf("port of the page taken: %v", err)
	}
	if err := run(t.Context(), []string{"-start", "/nonexistent", "-listen", "127.0.0.1:0"}, io.Discard, io.Discard); err == nil {
		t.Error("no such binary: no error")
	}
	if err := run(t.Context(), []string{"x"}, io.Discard, io.Discard); err == nil {
		t.Error("stray argument: no error")
	}
}
