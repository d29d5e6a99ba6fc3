package stream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of the kernel's tcp_states.h: reset or timed out.
const tcpClose = 7

// unacknowledged returns how many bytes handed to the kernel the peer has not acknowledged, and
// whether the connection is still able to deliver them.
func unacknowledged(c net.Conn) (pending int64, alive, ok bool) {
	sc, isSyscall := c.(syscall.Conn)
	if !isSyscall {
		return 0, false, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false, false
	}
	err = raw.Control(func(fd uintptr) {
		// State first: once it is closed the number is final.
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		if err != nil {
			return
		}
		pending, alive, ok = int64(n), info.State != tcpClose, true
	})
	return pending, alive, ok && err == nil
}
