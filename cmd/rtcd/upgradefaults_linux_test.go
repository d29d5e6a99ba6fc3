package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/service/handover"
	"rtcd/service/rtc/rtctest"
)

// upgradable starts a server that can be upgraded, with a call that somebody speaks in.
func upgradable(ctx context.Context, t *testing.T) (c *child, dir string, environ []string, r *rtctest.Remote, f *flow) {
	t.Helper()
	dir = t.TempDir()
	environ = []string{"RTCD_UPGRADE_SOCKET=" + filepath.Join(dir, "upgrade")}
	c = start(t, dir, environ...)
	r = c.connect(t, "c1")
	f = talk(ctx, t, r, "call0")
	voices := newChoir(t)
	voices.add(f)
	return c, dir, environ, r, f
}

// works checks that a call goes on, can be joined, and that new ones begin.
func works(ctx context.Context, t *testing.T, c *child, r *rtctest.Remote, f *flow, name string) {
	t.Helper()
	more(ctx, t, f.to, f.name, 10)
	late := r.Join(t, "call0", name, rtctest.EndpointConfig{})
	if err := late.Connect(ctx); err != nil {
		t.Fatalf("join to the call that runs: %v\n%s", err, c.out)
	}
	more(ctx, t, late, f.name, 5)
	fresh := talk(ctx, t, r, "fresh-"+name)
	more(ctx, t, fresh.to, f.name, 0)
	if m := f.measure(); m.again > 0 || m.late > 0 {
		t.Errorf("what the call lost: %+v", m)
	}
	if status, body := c.get(t, c.url()+"/version"); status != 200 {
		t.Errorf("/version: %d %s", status, body)
	}
}

// A successor that fails, at any moment, leaves everything as it was, and the next one takes over.
func TestUpgradeThatFailsChangesNothing(t *testing.T) {
	ctx := within(t, 90*time.Second)
	c, dir, environ, r, f := upgradable(ctx, t)
	socket := filepath.Join(dir, "upgrade")
	dial := func() *handover.Conn {
		t.Helper()
		for {
			conn, err := handover.Dial(ctx, socket)
			if err == nil {
				t.Cleanup(func() { _ = conn.Close() })
				return conn
			}
			if ctx.Err() != nil {
				t.Fatalf("nobody listens for a successor: %v\n%s", err, c.out)
			}
		}
	}
	ask := func(conn *handover.Conn, protocol int) handover.Message {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"Protocol": protocol, "Build": "test"})
		if err := conn.Send(ctx, handover.Message{Kind: 1, Body: body}); err != nil {
			t.Fatal(err)
		}
		m, err := conn.Receive(ctx)
		if err != nil {
			t.Fatalf("no answer: %v\n%s", err, c.out)
		}
		m.CloseFDs()
		return m
	}
	// One of another protocol is told so, and one that says nothing sensible is not answered.
	if m := ask(dial(), 99); m.Kind != 7 || len(m.Body) == 0 {
		t.Errorf("an unknown protocol is answered with %d %q", m.Kind, m.Body)
	}
	c.out.await(t, "upgrade refused")
	// One asks and dies.
	conn := dial()
	if m := ask(conn, 1); m.Kind != 2 {
		t.Fatalf("answer %d %q", m.Kind, m.Body)
	}
	_ = conn.Close()
	c.out.await(t, "the successor does not take over")
	works(ctx, t, c, r, f, "l1")
	if n := r.Conn.Stats().Reconnects; n != 0 {
		t.Errorf("the backend lost its connection %d times", n)
	}
	// One dies when it has all that there is.
	conn = dial()
	ask(conn, 1)
	if err := conn.Send(ctx, handover.Message{Kind: 3}); err != nil {
		t.Fatal(err)
	}
	if m, err := conn.Receive(ctx); err != nil || m.Kind != 4 {
		t.Fatalf("message %d: %v\n%s", m.Kind, err, c.out)
	}
	_ = conn.Close()
	c.out.await(t, "the successor has failed, going on without it")
	reconnected(ctx, t, r, 0)
	works(ctx, t, c, r, f, "l2")
	// A real one cannot open what it was told to.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before := r.Conn.Stats().Reconnects
	bad := launch(t, c.ports, dir, nil, append(environ, "RTCD_API_HTTP_LISTENADDRESS="+taken.Addr().String())...)
	if status := bad.exit(t, 20*time.Second); status == 0 {
		t.Errorf("a successor without an address ends with status 0\n%s", bad.out)
	}
	reconnected(ctx, t, r, before)
	works(ctx, t, c, r, f, "l3")
	// And one that is well takes over, of all that happened in between too.
	before = r.Conn.Stats().Reconnects
	next := c.upgrade(t, dir, environ...)
	reconnected(ctx, t, r, before)
	works(ctx, t, next, r, f, "l4")
	if m := f.measure(); m.again > 0 {
		t.Errorf("%+v", m)
	}
	c.signal(t, syscall.SIGTERM)
	next.signal(t, syscall.SIGTERM)
	for _, s := range []string{"call0-a", "call0-b", "l1", "l2", "l3", "l4"} {
		_ = r.Conn.Leave(s)
	}
	for i := 1; i <= 4; i++ {
		_ = r.Conn.Leave(fmt.Sprintf("fresh-l%d-a", i))
		_ = r.Conn.Leave(fmt.Sprintf("fresh-l%d-b", i))
	}
	for _, p := range []*child{c, next} {
		if status := p.exit(t, 20*time.Second); status != 0 {
			t.Errorf("status %d\n%s", status, p.out)
		}
	}
}

// A former process that dies takes its calls along, and nothing else: their backend is told.
func TestFormerProcessDies(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c, dir, environ, r, _ := upgradable(ctx, t)
	next := c.upgrade(t, dir, environ...)
	reconnected(ctx, t, r, 0)
	fresh := talk(ctx, t, r, "fresh")
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"call0-a", "call0-b"} {
		if err := r.AwaitClosed(ctx, s); err != nil {
			t.Fatalf("nobody is told of %s: %v\n%s", s, err, next.out)
		}
	}
	// The call can be made anew.
	again := talk(ctx, t, r, "call0")
	for range 10 {
		for _, f := range []*flow{again, fresh} {
			if err := f.speak(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range []*flow{again, fresh} {
		if err := f.to.Await(ctx, func(func(string) rtctest.Heard) bool { return f.measure().lost == 0 }); err != nil {
			t.Errorf("%s: %+v", f.name, f.measure())
		}
	}
}

// When the process in front dies there is nobody to speak for the calls of the former ones: they end,
// and everything can be started anew at once, as after the death of a single process.
func TestFrontProcessDies(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c, dir, environ, r, _ := upgradable(ctx, t)
	next := c.upgrade(t, dir, environ...)
	reconnected(ctx, t, r, 0)
	if err := next.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	after := launch(t, c.ports, dir, nil, environ...)
	after.awaitReady(t)
	for _, s := range []string{"call0-a", "call0-b"} { // the backend finds out by itself
		err := r.Await(ctx, func(events []client.Event) bool {
			for _, e := range events {
				if e, ok := e.(client.Closed); ok && e.SessionID == s {
					return true
				}
			}
			return false
		})
		if err != nil {
			t.Fatalf("nobody is told of %s: %v\n%s", s, err, after.out)
		}
	}
	talk(ctx, t, r, "call0")
}

// The socket is for the server's own user.
func TestUpgradeSocketIsPrivate(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir, "RTCD_UPGRADE_SOCKET="+filepath.Join(dir, "upgrade"))
	info, err := os.Stat(filepath.Join(dir, "upgrade"))
	if err != nil {
		t.Fatalf("%v\n%s", err, c.out)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT SHOWN, needs root: that processes of other users are turned away")
	}
	if err := os.Chmod(filepath.Join(dir, "upgrade"), 0o666); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&1 == 0 {
			if err := os.Chmod(d, info.Mode().Perm()|0o111); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Whoever connects as another user is cut off without a word.
	probe := strangerReads(t, filepath.Join(dir, "upgrade"))
	if probe != 0 {
		t.Errorf("a stranger got %d bytes", probe)
	}
}

// strangerReads asks at the socket as nobody and returns how many bytes come.
func strangerReads(t *testing.T, path string) int {
	t.Helper()
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	go func() {
		// The credentials of a thread count; this one is thrown away with it.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- result{0, errno}
			return
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			done <- result{0, err}
			return
		}
		defer func() { _ = syscall.Close(fd) }()
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
			done <- result{0, err}
			return
		}
		_, _ = syscall.Write(fd, []byte{0, 0, 0, 2, 1, 0, 0, 0, 0, '{', '}'})
		n, _ := syscall.Read(fd, make([]byte, 100))
		done <- result{max(n, 0), nil}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.n
}
