// Package handover connects processes of one server on one host: a new one that takes over, and those
// before it that go on with the calls they have.
//
// They meet at a Unix socket. Both ends have to belong to the same user. First one side asks and the
// other answers, message by message, with open descriptors beside them (Conn). Once the server has
// passed on, the connection becomes a Link, over which both talk at any time.
//
// What the messages mean is not known here.
package handover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// MaxMessage bounds one message, in bytes.
	MaxMessage = 256 << 20

	// MaxDescriptors bounds what goes with one message.
	MaxDescriptors = 4096

	// perCarrier is how many descriptors the kernel takes at once (SCM_MAX_FD is 253).
	perCarrier = 200

	headerLen = 4 + 1 + 4 // length, kind, descriptors or id
)

// Errors of connections.
var (
	// ErrNobody says that no process listens.
	ErrNobody = errors.New("no server to take over from")
	// ErrStranger says that the other process belongs to another user.
	ErrStranger = errors.New("peer belongs to another user")
	// ErrTooLarge says that a message exceeds its bound.
	ErrTooLarge = errors.New("message too large")
)

// A Message is one of a Conn.
type Message struct {
	Kind uint8
	Body []byte
	FDs  []int // the receiver's own
}

// CloseFDs closes the descriptors.
func (m *Message) CloseFDs() {
	for _, fd := range m.FDs {
		_ = syscall.Close(fd)
	}
	m.FDs = nil
}

// A Conn is a connection to another process. One goroutine may send and another one receive.
type Conn struct{ conn *net.UnixConn }

// Dial connects to the process that listens at path. It returns ErrNobody if there is none.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNobody
	case err != nil:
		return nil, err
	}
	return admit(c.(*net.UnixConn))
}

// Adopt makes a Conn of a descriptor, which it closes or takes over.
func Adopt(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "link")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d is none", fd)
	}
	defer func() { _ = f.Close() }()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over link: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("take over link: no unix socket")
	}
	return &Conn{u}, nil
}

// Pair returns both ends of a connection within this process.
func Pair() (a, b *Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	a, err = Adopt(fds[0])
	b, errB := Adopt(fds[1])
	if err = errors.Join(err, errB); err != nil {
		for _, c := range []*Conn{a, b} {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return a, b, nil
}

// TCPListener returns a listener over a duplicate of a descriptor.
func TCPListener(fd int) (*net.TCPListener, error) {
	own, err := duplicate(uintptr(fd))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "listener")
	defer func() { _ = f.Close() }()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over listener: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return nil, errors.New("take over listener: not one of TCP")
	}
	return tcp, nil
}

// Duplicate returns a duplicate of an open descriptor, to be sent or closed.
func Duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(own uintptr) { fd, err = duplicate(own) }); cerr != nil {
		return 0, cerr
	}
	return fd, err
}

// admit lets only processes of our own user in.
func admit(c *net.UnixConn) (*Conn, error) {
	uid, err := peerUID(c)
	if err == nil && uid != os.Geteuid() {
		err = ErrStranger
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &Conn{c}, nil
}

// Send sends one message, and duplicates of the descriptors.
func (c *Conn) Send(ctx context.Context, m Message) error {
	if len(m.Body) > MaxMessage || len(m.FDs) > MaxDescriptors {
		return ErrTooLarge
	}
	defer c.until(ctx)()
	head := appendHeader(make([]byte, 0, headerLen+len(m.Body)), len(m.Body), m.Kind, uint32(len(m.FDs)))
	if _, err := c.conn.Write(append(head, m.Body...)); err != nil {
		return fmt.Errorf("send to other process: %w", err)
	}
	for fds := m.FDs; len(fds) > 0; {
		n := min(len(fds), perCarrier)
		if _, _, err := c.conn.WriteMsgUnix([]byte{0}, rights(fds[:n]), nil); err != nil {
			return fmt.Errorf("send descriptors to other process: %w", err)
		}
		fds = fds[n:]
	}
	return nil
}

// Receive waits for one message.
func (c *Conn) Receive(ctx context.Context) (m Message, err error) {
	defer c.until(ctx)()
	var head [headerLen]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return Message{}, fmt.Errorf("receive from other process: %w", err)
	}
	size, n := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[5:])
	if size > MaxMessage || n > MaxDescriptors {
		return Message{}, ErrTooLarge
	}
	m = Message{Kind: head[4], Body: make([]byte, size)}
	defer func() {
		if err != nil {
			m.CloseFDs()
		}
	}()
	if _, err := io.ReadFull(c.conn, m.Body); err != nil {
		return m, fmt.Errorf("receive from other process: %w", err)
	}
	for uint32(len(m.FDs)) < n {
		fds, err := c.receiveFDs()
		m.FDs = append(m.FDs, fds...)
		if err == nil && (len(fds) == 0 || uint32(len(m.FDs)) > n) {
			err = errors.New("descriptors are missing")
		}
		if err != nil {
			return m, fmt.Errorf("receive descriptors from other process: %w", err)
		}
	}
	return m, nil
}

func (c *Conn) receiveFDs() ([]int, error) {
	var carrier [1]byte
	oob := make([]byte, syscall.CmsgSpace(4*perCarrier))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(carrier[:], oob)
	if err != nil {
		return nil, err
	}
	fds, err := descriptors(oob[:oobn])
	if err == nil && (n == 0 || flags&syscall.MSG_CTRUNC != 0) {
		err = io.ErrUnexpectedEOF
	}
	return fds, err
}

// until bounds what follows by ctx; the function that it returns ends that.
func (c *Conn) until(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !stop() {
			_ = c.conn.SetDeadline(time.Time{})
		}
	}
}

// FD returns a duplicate of the connection's descriptor.
func (c *Conn) FD() (fd int, err error) { return Duplicate(c.conn) }

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// A Listener is where the next process asks.
type Listener struct {
	ln   *net.UnixListener
	path string
	once sync.Once
}

// Listen listens at path from now on, in the place of whoever did, for processes of this user.
func Listen(path string) (*Listener, error) {
	tmp := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	_ = os.Remove(tmp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &Listener{ln: ln, path: path}, nil
}

// Accept waits for the next process. Strangers are turned away; they are no error.
func (l *Listener) Accept() (*Conn, error) {
	for {
		c, err := l.ln.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if conn, err := admit(c); err == nil {
			return conn, nil
		}
	}
}

// Close ends the listening. The path stays: it may be another process's already, and who finds it
// dead takes it for nobody.
func (l *Listener) Close() (err error) {
	l.once.Do(func() { err = l.ln.Close() })
	return err
}

func appendHeader(b []byte, size int, kind uint8, n uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return binary.BigEndian.AppendUint32(append(b, kind), n)
}
