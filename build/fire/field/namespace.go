//go:build linux

package field

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a host of the field.
type Namespace struct {
	Name string     // in the field, such as "cli1"
	Addr netip.Addr // its own; zero for the router

	moves bool // has been moved at least once
	moved bool // is where it was not at first

	full string // as ip netns knows it
	work chan func()
	done chan struct{}
}

// newNamespace makes a namespace and a thread that lives in it.
func newNamespace(prefix, name string) (*Namespace, error) {
	n := &Namespace{Name: name, full: prefix + name, work: make(chan func()), done: make(chan struct{})}
	if err := run("ip", "netns", "add", n.full); err != nil {
		return nil, err
	}
	entered := make(chan error, 1)
	go n.live(entered)
	if err := <-entered; err != nil {
		<-n.done
		_ = run("ip", "netns", "del", n.full)
		return nil, err
	}
	if err := n.Run("ip", "link", "set", "lo", "up"); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// live enters the namespace with its thread and does there what it is given. The thread is never
// unlocked: it ends with the goroutine, and with it the processes that it started.
func (n *Namespace) live(entered chan<- error) {
	defer close(n.done)
	runtime.LockOSThread()
	fd, err := unix.Open(filepath.Join(netnsDir, n.full), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		_ = unix.Close(fd)
	}
	if err != nil {
		entered <- fmt.Errorf("enter namespace %s: %w", n.full, err)
		return
	}
	entered <- nil
	for f := range n.work {
		f()
	}
}

// Do runs f inside the namespace, on a thread that is there, and waits for it. What f opens or starts
// on that thread belongs to the namespace; what it leaves to other goroutines does not.
func (n *Namespace) Do(f func()) {
	done := make(chan struct{})
	n.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// Run runs a command in the namespace to its end.
func (n *Namespace) Run(name string, args ...string) (err error) {
	n.Do(func() { err = run(name, args...) })
	return err
}

// Start starts a process in the namespace. It is killed when the namespace ends, or this process does.
func (n *Namespace) Start(cmd *exec.Cmd) (err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	n.Do(func() { err = cmd.Start() })
	return err
}

// dialTimeout bounds a connection's making; meanwhile nothing else is done in its namespace.
const dialTimeout = 4 * time.Second

// DialContext opens a connection from the namespace to a literal address. The socket is made inside;
// the waiting is done elsewhere.
func (n *Namespace) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.Name, err)
	}
	if network != "tcp" && network != "tcp4" {
		var conn net.Conn
		n.Do(func() { conn, err = net.Dial(network, addr) })
		return conn, err
	}
	fd, err := n.socket(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	return connect(ctx, fd, to)
}

// socket makes a socket in the namespace.
func (n *Namespace) socket(kind int) (fd int, err error) {
	n.Do(func() {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	})
	if err != nil {
		return 0, fmt.Errorf("make a socket in %s: %w", n.Name, err)
	}
	return fd, nil
}

// connect connects a socket and gives it to the runtime.
func connect(ctx context.Context, fd int, to netip.AddrPort) (net.Conn, error) {
	err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	for end := time.Now().Add(dialTimeout); err == unix.EINPROGRESS; {
		if ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		if time.Now().After(end) {
			err = os.ErrDeadlineExceeded
			break
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		ready, perr := unix.Poll(poll, 50)
		if perr != nil && perr != unix.EINTR {
			err = perr
		} else if ready > 0 {
			var code int
			if code, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
				err = syscall.Errno(code)
			}
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	file := os.NewFile(uintptr(fd), to.String())
	defer func() { _ = file.Close() }()
	return net.FileConn(file)
}

// ListenUDP opens a socket in the namespace, on its own address and the port; 0 is any.
func (n *Namespace) ListenUDP(port uint16) (conn *net.UDPConn, err error) {
	n.Do(func() {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.Addr, port)))
	})
	return conn, err
}

// Raw opens a socket that sends whole IP packets, with any source.
func (n *Namespace) Raw() (*RawSocket, error) {
	var fd int
	var err error
	n.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
	if err != nil {
		return nil, fmt.Errorf("make a raw socket in %s: %w", n.Name, err)
	}
	return &RawSocket{fd: fd}, nil
}

// close ends the namespace, the thread in it and what was started there.
func (n *Namespace) close() {
	close(n.work)
	<-n.done
	_ = run("ip", "netns", "del", n.full)
}

// Overflows returns how many datagrams were dropped in the namespace because the buffer of a socket was
// full.
func (n *Namespace) Overflows() (count int, err error) {
	var b []byte
	n.Do(func() { b, err = os.ReadFile("/proc/thread-self/net/snmp") })
	if err != nil {
		return 0, fmt.Errorf("read the counters of %s: %w", n.Name, err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RcvbufErrors" && i < len(fields) {
				return strconv.Atoi(fields[i])
			}
		}
	}
	return 0, fmt.Errorf("read the counters of %s: no RcvbufErrors", n.Name)
}
