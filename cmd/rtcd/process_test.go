package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rtcd/client"
	"rtcd/service/rtc/rtctest"
)

// rtcd is the server's binary as users run it, built once.
var rtcd string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rtcd-test")
	if err != nil {
		panic(err)
	}
	rtcd = filepath.Join(dir, "rtcd")
	if out, err := exec.Command("go", "build", "-o", rtcd, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines stay behind:", err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// ports are those of one child.
type ports struct{ api, admin, media uint16 }

func newPorts(t *testing.T) ports {
	t.Helper()
	p := ports{api: rtctest.FreePort(t), admin: rtctest.FreePort(t)}
	for {
		// The configuration allows media ports up to 49151.
		if p.media = rtctest.FreePort(t); p.media <= 49151 {
			return p
		}
	}
}

func (p ports) url() string { return fmt.Sprintf("http://127.0.0.1:%d", p.api) }

// environ is the configuration of a child whose store is in dir.
func (p ports) environ(dir string) []string {
	return []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"),
		fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=127.0.0.1:%d", p.api),
		fmt.Sprintf("RTCD_API_ADMIN_LISTENADDRESS=127.0.0.1:%d", p.admin),
		fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", p.media),
		fmt.Sprintf("RTCD_RTC_ICEPORTTCP=%d", p.media),
		"RTCD_RTC_ICEADDRESSUDP=127.0.0.1",
		"RTCD_RTC_ICEADDRESSTCP=127.0.0.1",
		"RTCD_STORE_DATASOURCE=" + filepath.Join(dir, "data"),
		"RTCD_LOGGER_ENABLEFILE=false",
		"RTCD_API_SECURITY_ALLOWSELFREGISTRATION=true",
	}
}

// child is a running server.
type child struct {
	ports
	cmd    *exec.Cmd
	out    *output
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// output collects what a child prints.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed at the next write; nil if nobody waits
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.b.Write(p)
}

// await waits until text was printed. What a running child wrote before it answered a request may
// still be on its way through the pipe when the answer is here.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		o.mu.Lock()
		if bytes.Contains(o.b.Bytes(), []byte(text)) {
			o.mu.Unlock()
			return
		}
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-timeout:
			t.Errorf("%q was not printed:\n%s", text, o)
			return
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// launch starts a child without waiting for anything.
func launch(t *testing.T, p ports, dir string, args []string, environ ...string) *child {
	t.Helper()
	c := &child{ports: p, out: new(output), exited: make(chan struct{})}
	c.cmd = exec.Command(rtcd, args...)
	c.cmd.Dir = dir
	c.cmd.Env = append(p.environ(dir), environ...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
		if strings.Contains(c.out.String(), "panic:") {
			t.Errorf("the server panicked:\n%s", c.out)
		}
	})
	return c
}

// start starts a child and waits until it answers.
func start(t *testing.T, dir string, environ ...string) *child {
	t.Helper()
	c := launch(t, newPorts(t), dir, nil, environ...)
	c.awaitReady(t)
	return c
}

func (c *child) awaitReady(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if resp, err := http.Get(c.url() + "/version"); err == nil {
			_ = resp.Body.Close()
			return
		}
		select {
		case <-c.exited:
			t.Fatalf("the server ended at once: %v\n%s", c.err, c.out)
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("the server does not answer\n%s", c.out)
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end and returns the status.
func (c *child) exit(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-c.exited:
	case <-time.After(within):
		t.Fatalf("still running after %v\n%s", within, c.out)
	}
	var status *exec.ExitError
	if errors.As(c.err, &status) {
		return status.ExitCode()
	}
	return 0
}

// connect registers a client and opens its WebSocket.
func (c *child) connect(t *testing.T, id string) *rtctest.Remote {
	t.Helper()
	cl, err := client.New(client.Config{URL: c.url(), ClientID: id, AuthKey: key, AutoRegister: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.CloseIdleConnections)
	conn, err := cl.Connect(context.Background())
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, c.out)
	}
	return rtctest.NewRemote(t, conn)
}

const key = "0123456789abcdef0123456789abcdef"

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func (c *child) get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestStopWithoutCalls(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		c := start(t, t.TempDir())
		c.connect(t, "c1")
		c.signal(t, sig)
		if status := c.exit(t, 5*time.Second); status != 0 {
			t.Errorf("%v: status %d\n%s", sig, status, c.out)
		}
	}
}

// call makes two people of one call hear each other.
func call(ctx context.Context, t *testing.T, r *rtctest.Remote) map[string]*rtctest.Endpoint {
	t.Helper()
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range []string{"s1", "s2"} {
		e := r.Join(t, "call", name, rtctest.EndpointConfig{})
		if err := e.Connect(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := e.Publish(ctx, "voice_"+name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = e
	}
	return all
}

// more waits until e has heard n more packets of a sender.
func more(ctx context.Context, t *testing.T, e *rtctest.Endpoint, sender string, n int) {
	t.Helper()
	have := e.Heard(sender).Packets
	err := e.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard(sender).Packets >= have+n })
	if err != nil {
		t.Fatalf("no more packets of %s: %v", sender, err)
	}
}

// D1, D3: while it drains the server goes on with what there is, and takes no new calls. R5: no
// message of that time brings it down.
func TestDrain(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir())
	r := c.connect(t, "c1")
	all := call(ctx, t, r)
	rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 10)

	c.signal(t, syscall.SIGTERM)
	// The refusal of a new call says that the drain has begun.
	if err := r.Conn.Join(client.Join{CallID: "new call", UserID: "u", SessionID: "refused"}); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitClosed(ctx, "refused"); err != nil {
		t.Fatalf("join to a new call while draining: %v\n%s", err, c.out)
	}
	late := r.Join(t, "call", "s3", rtctest.EndpointConfig{})
	if err := late.Connect(ctx); err != nil {
		t.Fatalf("join to the running call while draining: %v", err)
	}
	more(ctx, t, late, "s1", 20)
	more(ctx, t, all["s1"], "s2", 20)
	if status, body := c.get(t, c.url()+"/system"); status != 200 || !strings.Contains(body, "cpu_load") {
		t.Errorf("/system while draining: %d %q", status, body)
	}
	stop := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = r.Conn.Mute("s1")
				_ = r.Conn.SendSignal("s2", client.SignalType(2), []byte(`{"type":"offer","sdp":"v=0"}`))
			}
		}
	})
	for _, name := range []string{"s1", "s2", "s3"} {
		if err := r.Conn.Leave(name); err != nil && !errors.Is(err, client.ErrQueueFull) {
			t.Fatal(err)
		}
	}
	status := c.exit(t, 15*time.Second)
	close(stop)
	flood.Wait()
	if status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
}

// D1: at the deadline every session left is told, and the server ends.
func TestDrainDeadline(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir(), "RTCD_SHUTDOWN_DRAINDEADLINE=1s")
	r := c.connect(t, "c1")
	call(ctx, t, r)
	begin := time.Now()
	c.signal(t, syscall.SIGTERM)
	for _, name := range []string{"s1", "s2"} {
		if err := r.AwaitClosed(ctx, name); err != nil {
			t.Errorf("%s was not told: %v", name, err)
		}
	}
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	if d := time.Since(begin); d < time.Second || d > 6*time.Second {
		t.Errorf("ended after %v, with a deadline of 1 s", d)
	}
}

// D2: a second signal does not wait.
func TestSecondSignal(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir())
	r := c.connect(t, "c1")
	call(ctx, t, r)
	c.signal(t, syscall.SIGTERM)
	if err := r.Conn.Join(client.Join{CallID: "new call", UserID: "u", SessionID: "refused"}); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitClosed(ctx, "refused"); err != nil {
		t.Fatal(err)
	}
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 2*time.Second); status == 0 {
		t.Error("a forced end has status 0")
	}
}
