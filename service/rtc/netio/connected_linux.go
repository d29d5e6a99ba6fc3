//go:build !portable

package netio

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connected are the sockets of a kernelSocket that are bound to its address and connected to one
// remote address each. They are read by its goroutine and never sent with.
type connected struct {
	some     atomic.Bool // whether there ever were any
	released atomic.Bool // the socket itself is not read any more

	// mu is held while one of the descriptors is read, so that the number of a closed one is never
	// used. Reading does not wait.
	mu     sync.Mutex
	closed bool
	byPath map[Path]*connectedSocket
	byFD   map[int32]*connectedSocket
}

type connectedSocket struct {
	fd   int
	path Path
	used time.Duration // Mux.now of the last use
}

// duplicate returns a second descriptor of the socket, which others may then bind beside.
func (s *kernelSocket) duplicate() (int, error) {
	if err := s.reusePort(); err != nil {
		return 0, err
	}
	return unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
}

// adoptKernel takes over sockets of a former process, all bound to one address.
func adoptKernel(fds []int, maxSegments int) ([]socket, netip.AddrPort, error) {
	var sockets []socket
	var bound netip.AddrPort
	for _, fd := range fds {
		s, at, err := adoptSocket(fd, maxSegments)
		if err != nil {
			for _, s := range sockets {
				_ = s.stop()
				_ = s.close()
			}
			return nil, netip.AddrPort{}, err
		}
		bound = at
		sockets = append(sockets, s)
	}
	return sockets, bound, nil
}

// adoptSocket takes over a duplicate of one socket.
func adoptSocket(fd, maxSegments int) (*kernelSocket, netip.AddrPort, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, netip.AddrPort{}, os.NewSyscallError("fcntl", err)
	}
	s := newKernelSocket(own, maxSegments)
	bound, err := s.name()
	if err == nil {
		s.v6 = bound.Addr().Is6()
		err = s.openPoll()
	}
	if err != nil {
		_ = unix.Close(own)
		return nil, netip.AddrPort{}, err
	}
	s.tune()
	return s, bound, nil
}

func (s *kernelSocket) connect(path Path, now time.Duration) error {
	c := &s.connected
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.byPath[path]; known != nil {
		known.used = now
		return nil
	}
	switch {
	case c.closed:
		return net.ErrClosed
	case len(c.byPath) >= maxConnected:
		return fmt.Errorf("connect a socket to %s: %d are connected", path, maxConnected)
	}
	fd, err := s.openConnected(path.Remote())
	if err != nil {
		return fmt.Errorf("connect a socket to %s: %w", path, err)
	}
	if c.byPath == nil {
		c.byPath, c.byFD = make(map[Path]*connectedSocket), make(map[int32]*connectedSocket)
	}
	cs := &connectedSocket{fd: fd, path: path, used: now}
	c.byPath[path], c.byFD[int32(fd)] = cs, cs
	c.some.Store(true) // before there can be input
	if err := s.watch(unix.EPOLL_CTL_ADD, fd); err != nil {
		c.dropLocked(cs)
		return err
	}
	return nil
}

// openConnected opens a socket beside s. Between bind and connect it gets datagrams from anywhere:
// who reads it looks at their sources.
func (s *kernelSocket) openConnected(to netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if s.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	bound, err := s.name()
	if err == nil {
		beside := &kernelSocket{fd: fd, v6: s.v6}
		growBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
		if _, err = beside.bind(bound, true, true); err == nil {
			err = os.NewSyscallError("connect", unix.Connect(fd, sockaddr(to, s.v6)))
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// watch changes what the socket's epoll instance waits for.
func (s *kernelSocket) watch(op, fd int) error {
	raw, err := s.poll.SyscallConn()
	if err != nil {
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	var ctl error
	if err := raw.Control(func(ep uintptr) { ctl = unix.EpollCtl(int(ep), op, fd, &event) }); err != nil {
		return err
	}
	return os.NewSyscallError("epoll_ctl", ctl)
}

func (s *kernelSocket) release() error {
	if s.connected.released.Swap(true) {
		return nil
	}
	s.connected.some.Store(true)
	return s.watch(unix.EPOLL_CTL_DEL, s.fd)
}

func (s *kernelSocket) sweep(since time.Duration, keep func(Path) bool) {
	c := &s.connected
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, cs := range c.byPath {
		if cs.used < since && !keep(p) {
			c.dropLocked(cs)
		}
	}
}

func (s *kernelSocket) connectedPaths() int {
	s.connected.mu.Lock()
	defer s.connected.mu.Unlock()
	return len(s.connected.byPath)
}

func (c *connected) dropLocked(cs *connectedSocket) {
	delete(c.byPath, cs.path)
	delete(c.byFD, int32(cs.fd))
	_ = unix.Close(cs.fd)
}

func (c *connected) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, cs := range c.byPath {
		c.dropLocked(cs)
	}
}

const pollBatch = 64 // sockets of one epoll_wait

// receiveAll reads the socket and those connected beside it until there is nothing. The socket itself
// comes first: a path may have datagrams there that are older than those of its own.
func (s *kernelSocket) receiveAll(ep uintptr, rx *receiver, st *recvState) {
	if !s.connected.released.Load() {
		s.drain(s.fd, Path{}, rx, st)
	}
	var events [pollBatch]unix.EpollEvent
	for {
		read := false
		for i := range pollNow(ep, &events) {
			if fd := events[i].Fd; int(fd) == s.fd {
				read = s.drain(s.fd, Path{}, rx, st) || read
			} else {
				read = s.connected.drain(s, fd, rx, st) || read
			}
		}
		if !read {
			return
		}
	}
}

// drain reads a connected socket until there is nothing, and reports whether there was something.
func (c *connected) drain(s *kernelSocket, fd int32, rx *receiver, st *recvState) (read bool) {
	for {
		c.mu.Lock()
		cs := c.byFD[fd]
		if cs == nil {
			c.mu.Unlock()
			return read
		}
		path := cs.path
		n, errno := s.recvFrom(cs.fd, st)
		c.mu.Unlock()
		if !s.handOn(n, errno, path, rx, st) {
			return read || n > 0
		}
		read = true
	}
}

// drain reads the socket until there is nothing, and reports whether there was something.
func (s *kernelSocket) drain(fd int, path Path, rx *receiver, st *recvState) (read bool) {
	for {
		n, errno := s.recvFrom(fd, st)
		if !s.handOn(n, errno, path, rx, st) {
			return read || n > 0
		}
		read = true
	}
}

// handOn delivers what was read and reports whether there may be more. What is not from path, if one
// is given, came before the socket was connected.
func (s *kernelSocket) handOn(n int, errno syscall.Errno, path Path, rx *receiver, st *recvState) bool {
	if errno != 0 {
		// Of a connected socket that may be what became of a packet sent to it, told once.
		return errno == unix.ECONNREFUSED || errno == unix.EHOSTUNREACH || errno == unix.ENETUNREACH
	}
	rx.released = s.connected.released.Load()
	for i := range n {
		rx.own = path
		st.deliver(rx, i)
	}
	rx.own = Path{}
	rx.flush()
	return n == recvBatch
}

// pollNow is epoll_wait without waiting.
func pollNow(ep uintptr, events *[pollBatch]unix.EpollEvent) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, ep, uintptr(unsafe.Pointer(&events[0])), pollBatch, 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// sockaddr returns an address in the form of package unix.
func sockaddr(a netip.AddrPort, v6 bool) unix.Sockaddr {
	if v6 {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: as4(a.Addr()), Port: int(a.Port())}
}

// duplicateListener returns a second descriptor of a listener.
func duplicateListener(l net.Listener) (fd int, err error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return 0, ErrNoHandover
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return 0, cerr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// adoptListener returns a listener over a duplicate of a descriptor.
func adoptListener(fd int) (net.Listener, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// The descriptor does not wait, which os.File finds out and leaves so: it shares that with the
	// other process.
	f := os.NewFile(uintptr(own), "tcp listener")
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

func closeFD(fd int) { _ = unix.Close(fd) }

var _ listener = (*kernelSocket)(nil)
