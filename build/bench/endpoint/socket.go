//go:build linux

package endpoint

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket on loopback that can have the kernel drop media before it is queued, and
// count it. It is a net.PacketConn for pion.
type Socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn

	stamped bool // times are wanted
	oob     []byte

	mu     sync.Mutex
	stamps []Stamp // guarded by mu
}

// Stamp is when an RTP packet left or came. One that left is stamped right before the system call,
// one that came by the kernel when it was received.
type Stamp struct {
	SSRC     uint32
	Sequence uint16
	At       time.Time
}

// opened is how many sockets there were.
var opened atomic.Uint32

// nextAddr returns an address of loopback. Servers limit what comes from one address before it has
// proven anything, and people do not all have the same.
func nextAddr() net.IP {
	const addrs, blocks = 250, 250
	n := opened.Add(1)
	return net.IPv4(127, 1, byte(n/addrs%blocks), byte(1+n%addrs))
}

// NewSocket opens a socket. One with stamps keeps the times of the RTP packets it sends and
// receives, and passes none of those that it receives on.
func NewSocket(stamps bool) (*Socket, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: nextAddr()})
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	s := &Socket{conn: conn, stamped: stamps}
	_ = conn.SetReadBuffer(1 << 20)
	if s.raw, err = conn.SyscallConn(); err == nil && stamps {
		s.oob = make([]byte, 128)
		err = s.setInt(unix.SO_TIMESTAMPNS, 1)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("set up a socket: %w", err)
	}
	return s, nil
}

func (s *Socket) setInt(option, value int) error {
	var err error
	if e := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value) }); e != nil {
		return e
	}
	return err
}

// Programs of classic BPF. The kernel runs them on the datagram with its UDP header, of 8 bytes.
var (
	// dropRTP drops what begins as RTP does and has no payload type of RTCP (RFC 5761 section 4).
	dropRTP = []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 8},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 5, K: 128},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, Jt: 4, Jf: 0, K: 191},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 1, K: 192},
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, Jt: 0, Jf: 1, K: 223},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18},
	}
	dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
)

// DropRTP makes the kernel drop the RTP packets that come from now on, but not RTCP.
func (s *Socket) DropRTP() error { return s.attach(dropRTP) }

// DropAll makes the kernel drop everything that comes from now on.
func (s *Socket) DropAll() error { return s.attach(dropAll) }

func (s *Socket) attach(program []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	var err error
	e := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &p)
	})
	if e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("attach a filter to a socket: %w", err)
	}
	return nil
}

// Dropped returns how many datagrams the kernel has dropped at the socket, be it by the filter or
// because nobody read them in time.
func (s *Socket) Dropped() (uint64, error) {
	const numMeminfo, drops = 9, 8 // SK_MEMINFO_VARS, SK_MEMINFO_DROPS
	var info [numMeminfo]uint32
	size := uint32(unsafe.Sizeof(info))
	var errno unix.Errno
	err := s.raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return 0, fmt.Errorf("ask for the drops of a socket: %w", err)
	}
	return uint64(info[drops]), nil
}

// Addr returns the address of the socket.
func (s *Socket) Addr() netip.AddrPort {
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Stamps returns the times of the RTP packets that were sent and received since the last call.
func (s *Socket) Stamps() []Stamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stamps
	s.stamps = nil
	return out
}

func isRTP(b []byte) bool {
	return len(b) >= 12 && b[0] >= 128 && b[0] <= 191 && (b[1] < 192 || b[1] > 223)
}

func (s *Socket) stamp(b []byte, at time.Time) {
	s.mu.Lock()
	s.stamps = append(s.stamps, Stamp{SSRC: binary.BigEndian.Uint32(b[8:]), Sequence: binary.BigEndian.Uint16(b[2:]), At: at})
	s.mu.Unlock()
}

// ReadFromAddrPort reads a datagram. It is for one goroutine at a time.
func (s *Socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	if !s.stamped {
		return s.conn.ReadFromUDPAddrPort(b)
	}
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(b, s.oob)
		if err != nil || !isRTP(b[:n]) {
			return n, from, err
		}
		if at, ok := kernelTime(s.oob[:oobn]); ok {
			s.stamp(b[:n], at)
		}
	}
}

// kernelTime returns the time that the kernel put beside a datagram.
func kernelTime(oob []byte) (time.Time, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(ts.Unix()), true
		}
	}
	return time.Time{}, false
}

// WriteToAddrPort sends a datagram.
func (s *Socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if s.stamped && isRTP(b) {
		s.stamp(b, time.Now())
	}
	return s.conn.WriteToUDPAddrPort(b, to)
}

// ReadFrom reads a datagram.
func (s *Socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteTo sends a datagram.
func (s *Socket) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: not an address of UDP", to)
	}
	return s.WriteToAddrPort(b, addr.AddrPort())
}

// Close closes the socket.
func (s *Socket) Close() error { return s.conn.Close() }

// LocalAddr returns the address of the socket.
func (s *Socket) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// SetDeadline is that of net.UDPConn, as are the two below.
func (s *Socket) SetDeadline(t time.Time) error { return s.conn.SetDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }
