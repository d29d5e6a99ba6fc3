package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const forTests = 10 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), forTests)
	t.Cleanup(cancel)
	return ctx
}

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "upgrade")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = Dial(within(t), path); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestNobodyListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upgrade")
	if _, err := Dial(within(t), path); !errors.Is(err, ErrNobody) {
		t.Errorf("without a file: %v", err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(within(t), path); !errors.Is(err, ErrNobody) {
		t.Errorf("with a dead file: %v", err)
	}
}

// The next one listens in the place of the former.
func TestListenReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upgrade")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	a, err := Dial(within(t), path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
}

func TestDescriptorsGoWithMessages(t *testing.T) {
	a, b := pair(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fds []int
	for range 2*perCarrier + 1 {
		fds = append(fds, int(f.Fd()))
	}
	sent := make(chan error, 1)
	go func() {
		err := a.Send(within(t), Message{Kind: 7, Body: []byte("sockets"), FDs: fds})
		if err == nil {
			err = a.Send(within(t), Message{Kind: 8})
		}
		sent <- err
	}()
	m, err := b.Receive(within(t))
	if err != nil || m.Kind != 7 || string(m.Body) != "sockets" || len(m.FDs) != len(fds) {
		t.Fatalf("kind %d, %d descriptors, %v", m.Kind, len(m.FDs), err)
	}
	got, err := net.FileListener(os.NewFile(uintptr(m.FDs[len(fds)-1]), "listener"))
	if err != nil || got.Addr().String() != ln.Addr().String() {
		t.Fatalf("listener %v: %v", got, err)
	}
	_ = got.Close()
	m.CloseFDs()
	if m, err := b.Receive(within(t)); err != nil || m.Kind != 8 || len(m.Body) != 0 {
		t.Fatalf("kind %d: %v", m.Kind, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestReceiveGivesUp(t *testing.T) {
	_, b := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.Receive(ctx); err == nil {
		t.Error("something came")
	}
	raw, c := pair(t)
	if _, err := raw.conn.Write([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(within(t)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a message without bound: %v", err)
	}
}

// A collector notes the bodies of frames in their order and answers those that wait.
type collector struct {
	mu   sync.Mutex
	got  []string
	more chan struct{}
}

func (c *collector) handle(l *Link, f Frame) {
	c.mu.Lock()
	c.got = append(c.got, string(f.Body))
	c.mu.Unlock()
	if f.ID != 0 {
		var err error
		if string(f.Body) == "bad" {
			err = errors.New("not good")
		}
		l.Reply(f, append([]byte("re: "), f.Body...), err)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// await waits for n frames.
func (c *collector) await(t *testing.T, n int) []string {
	t.Helper()
	for {
		c.mu.Lock()
		got := c.got
		c.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-c.more:
		case <-within(t).Done():
			t.Fatalf("%d of %d frames", len(got), n)
		}
	}
}

func linkOf(c *Conn) (*Link, *collector) {
	col := &collector{more: make(chan struct{}, 1)}
	return NewLink(c, col.handle), col
}

func TestLinkAsksAndTells(t *testing.T) {
	a, b := pair(t)
	front, told := linkOf(a)
	back, asked := linkOf(b)
	defer func() { _, _ = front.Close(), back.Close() }()
	back.Post(FirstKind, []byte("event"))
	if got := told.await(t, 1); got[0] != "event" {
		t.Errorf("told %q", got)
	}
	body, err := front.Ask(within(t), FirstKind, []byte("question"))
	if err != nil || string(body) != "re: question" {
		t.Errorf("answer %q: %v", body, err)
	}
	var fault Fault
	if _, err := front.Ask(within(t), FirstKind, []byte("bad")); !errors.As(err, &fault) || fault != "not good" {
		t.Errorf("answer %v", err)
	}
	if got := asked.await(t, 2); len(got) != 2 {
		t.Errorf("asked %q", got)
	}
	back.Abort()
	if _, err := front.Ask(within(t), FirstKind, nil); !errors.Is(err, ErrGone) {
		t.Errorf("asked nobody: %v", err)
	}
	<-front.Done()
}

// One end of a link goes from one owner to the next; what the other end says meanwhile is not lost,
// doubled or changed in order.
func TestLinkIsHandedOn(t *testing.T) {
	const owners, each = 5, 200
	a, b := pair(t)
	back, asked := linkOf(b)
	defer func() { _ = back.Close() }()
	said := make(chan struct{})
	go func() {
		defer close(said)
		for i := range owners * each {
			back.Post(FirstKind, fmt.Append(nil, i))
		}
	}()
	var all []string
	conn := a
	for owner := range owners {
		front, told := linkOf(conn)
		if owner > 0 {
			front.Resume()
		}
		if owner == owners-1 {
			all = append(all, told.await(t, owners*each-len(all))...)
			_ = front.Close()
			break
		}
		front.Post(FirstKind, fmt.Append(nil, owner))
		held, err := front.Hold(within(t))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, told.await(t, 0)...)
		fd, err := held.FD()
		if err != nil {
			t.Fatal(err)
		}
		_ = held.Close()
		if conn, err = Adopt(fd); err != nil {
			t.Fatal(err)
		}
	}
	<-said
	for i, got := range all {
		if got != fmt.Sprint(i) {
			t.Fatalf("frame %d is %s", i, got)
		}
	}
	if len(all) != owners*each {
		t.Errorf("%d frames", len(all))
	}
	if got := asked.await(t, owners-1); len(got) != owners-1 || got[0] != "0" {
		t.Errorf("told %q", got)
	}
}
