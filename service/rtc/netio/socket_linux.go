//go:build !portable

package netio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSocket is a UDP socket of the kernel that Go's poller does not know. It waits for input
// through an epoll instance of its own, which asks for EPOLLIN alone and which the poller does
// know. All its system calls are non-blocking and raw: the scheduler need not be told of them,
// and the longest (64 messages) takes about 0.1 ms.
type kernelSocket struct {
	fd          int
	v6          bool
	poll        *os.File // the epoll instance
	maxSegments int
	gso         gsoState
	read, write int // buffer sizes granted

	// send and receive are rawSendmmsg and rawRecvmmsg; tests put a kernel with other faults in
	// their place.
	send, receive func(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno)

	// Held shared for the length of a sending call, so that the number of a closed socket is
	// never used. That is the one lock here that is held over a system call.
	mu     sync.RWMutex
	closed bool // guarded by mu

	connected connected
}

func newKernelSocket(fd, maxSegments int) *kernelSocket {
	return &kernelSocket{fd: fd, maxSegments: maxSegments, send: rawSendmmsg, receive: rawRecvmmsg}
}

// openKernel opens up to n sockets on one address.
func openKernel(addr netip.AddrPort, n, maxSegments int) ([]socket, netip.AddrPort, error) {
	var sockets []socket
	bound := addr
	for i := range n {
		s, at, err := openSocket(bound, i > 0, n > 1, maxSegments)
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

// openSocket opens and binds one socket. The first of an address binds exclusively, so that it
// fails if anybody is there already; only then it opens the address to those that join.
func openSocket(addr netip.AddrPort, join, shared bool, maxSegments int) (*kernelSocket, netip.AddrPort, error) {
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, netip.AddrPort{}, os.NewSyscallError("socket", err)
	}
	s := newKernelSocket(fd, maxSegments)
	s.v6 = family == unix.AF_INET6
	bound, err := s.bind(addr, join, shared)
	if err == nil {
		err = s.openPoll()
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, netip.AddrPort{}, err
	}
	s.tune()
	return s, bound, nil
}

// tune asks for buffers and finds out what the socket can.
func (s *kernelSocket) tune() {
	s.read = growBuffer(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	s.write = growBuffer(s.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	if _, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil || s.maxSegments < 2 {
		s.gso.off.Store(never)
	}
}

func (s *kernelSocket) bind(addr netip.AddrPort, join, shared bool) (netip.AddrPort, error) {
	if s.v6 {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return netip.AddrPort{}, os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	if join {
		if err := s.reusePort(); err != nil {
			return netip.AddrPort{}, err
		}
	}
	if err := unix.Bind(s.fd, sockaddr(addr, s.v6)); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return netip.AddrPort{}, fmt.Errorf("%w: is another instance running?", os.NewSyscallError("bind", err))
		}
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	if shared && !join {
		if err := s.reusePort(); err != nil {
			return netip.AddrPort{}, err
		}
	}
	return s.name()
}

// name returns what the socket is bound to.
func (s *kernelSocket) name() (netip.AddrPort, error) {
	got, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(got.Addr), uint16(got.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(got.Addr), uint16(got.Port)), nil
	default:
		return netip.AddrPort{}, fmt.Errorf("getsockname: unexpected %T", got)
	}
}

func (s *kernelSocket) reusePort() error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT",
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

func (s *kernelSocket) openPoll() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		_ = unix.Close(ep)
		return os.NewSyscallError("epoll_ctl", err)
	}
	if err := unix.SetNonblock(ep, true); err != nil {
		_ = unix.Close(ep)
		return os.NewSyscallError("fcntl", err)
	}
	s.poll = os.NewFile(uintptr(ep), "udp input")
	return nil
}

// growBuffer asks for the wanted buffer, first beyond the system's limit, and returns what it got
// in the measure it was asked in (the kernel doubles it for its own bookkeeping).
func growBuffer(fd, force, plain int) int {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, wantedBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, wantedBuffer)
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
	if err != nil {
		return 0
	}
	return got / 2
}

func (s *kernelSocket) segments() bool { return s.gso.off.Load() == 0 }

func (s *kernelSocket) buffers() (read, write int) { return s.read, s.write }

// sendTo sends one packet at once.
func (s *kernelSocket) sendTo(b []byte, to netip.AddrPort) error {
	if len(b) == 0 {
		return nil
	}
	var name unix.RawSockaddrInet6
	size := putName(&name, s.v6, to.Addr().As16(), to.Port())

	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return net.ErrClosed
	}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&name)), uintptr(size))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// stop wakes serve for the last time.
func (s *kernelSocket) stop() error {
	if err := s.poll.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close udp poll: %w", err)
	}
	return nil
}

func (s *kernelSocket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.connected.close()
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// putName writes a socket address of the kernel's form and returns its size.
func putName(name *unix.RawSockaddrInet6, v6 bool, addr [16]byte, port uint16) uint32 {
	if v6 {
		*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: addr}
		putPort(&name.Port, port)
		return unix.SizeofSockaddrInet6
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(addr[12:])}
	putPort(&v4.Port, port)
	return unix.SizeofSockaddrInet4
}

// getName reads a socket address of the kernel's form.
func getName(name *unix.RawSockaddrInet6) (addr [16]byte, port uint16, ok bool) {
	switch name.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		addr[10], addr[11] = 0xff, 0xff
		copy(addr[12:], v4.Addr[:])
		return addr, getPort(&v4.Port), true
	case unix.AF_INET6:
		return name.Addr, getPort(&name.Port), true
	default:
		return addr, 0, false
	}
}

// Ports stand in network byte order, whatever ours is.
func putPort(field *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(field))
	b[0], b[1] = byte(port>>8), byte(port)
}

func getPort(field *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(field))
	return uint16(b[0])<<8 | uint16(b[1])
}

// as4 returns an IPv4 address, zero for what is none.
func as4(a netip.Addr) [4]byte {
	if a = a.Unmap(); a.Is4() {
		return a.As4()
	}
	return [4]byte{}
}
