//go:build !portable

package netio

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const recvBatch = 64 // datagrams of one recvmmsg

// recvState is the memory of one reading goroutine that the kernel writes to.
type recvState struct {
	msgs  [recvBatch]unix.Mmsghdr
	iov   [recvBatch]unix.Iovec
	names [recvBatch]unix.RawSockaddrInet6
	buf   [recvBatch][maxDatagram]byte
}

func newRecvState() *recvState {
	st := new(recvState)
	for i := range st.msgs {
		st.iov[i].Base = &st.buf[i][0]
		st.iov[i].SetLen(maxDatagram)
		hdr := &st.msgs[i].Hdr
		hdr.Name = (*byte)(unsafe.Pointer(&st.names[i]))
		hdr.Namelen = unix.SizeofSockaddrInet6
		hdr.Iov = &st.iov[i]
		hdr.SetIovlen(1)
	}
	return st
}

func (s *kernelSocket) serve(rx *receiver) {
	raw, err := s.poll.SyscallConn()
	if err != nil {
		return // closed already
	}
	st := newRecvState()
	var errno syscall.Errno
	receive := func(ep uintptr) bool { // false: wait for the next datagram
		var n int
		if s.connected.some.Load() {
			errno = 0
			s.receiveAll(ep, rx, st)
			return false
		}
		if n, errno = s.recv(st); errno != 0 {
			return errno != unix.EAGAIN
		}
		for i := range n {
			st.deliver(rx, i)
		}
		rx.flush()
		// Less than a whole batch is all there was. What has come since raised the edge that ends
		// the wait, so there is no need to ask whether there is nothing.
		return n == recvBatch
	}
	failed := false
	for {
		if raw.Read(receive) != nil {
			return // closed
		}
		if errno != 0 {
			// What became of a packet sent, which is told once; or not of the peers' making:
			// memory, most likely. The next wait comes at once, so that it must not spin.
			if failed && !s.pause(10*time.Millisecond) {
				return
			}
			failed = true
			continue
		}
		failed = false
	}
}

// recv reads what is there, without waiting.
func (s *kernelSocket) recv(st *recvState) (int, syscall.Errno) { return s.recvFrom(s.fd, st) }

// recvFrom is recv of another descriptor.
func (s *kernelSocket) recvFrom(fd int, st *recvState) (int, syscall.Errno) {
	for {
		n, errno := s.receive(fd, &st.msgs[0], recvBatch)
		switch errno {
		case 0:
			for i := range n { // for the next time; the address tells its own length
				st.msgs[i].Hdr.Namelen = unix.SizeofSockaddrInet6
			}
			return n, 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// rawRecvmmsg is the system call.
func rawRecvmmsg(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(msgs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(got), errno
}

func (st *recvState) deliver(rx *receiver, i int) {
	m := &st.msgs[i]
	if m.Hdr.Flags&unix.MSG_TRUNC != 0 {
		rx.counts.drop(DropTruncated)
		return
	}
	addr, port, ok := getName(&st.names[i])
	if !ok {
		return
	}
	n := min(int(m.Len), maxDatagram)
	rx.datagram(st.buf[i][:n:n], Path{addr: addr, port: port, local: rx.local})
}

// pause waits, and reports false if the socket is being closed.
func (s *kernelSocket) pause(d time.Duration) bool {
	if err := s.poll.SetReadDeadline(time.Now().Add(d)); err != nil {
		return false
	}
	raw, err := s.poll.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(uintptr) bool { return false })
	if !os.IsTimeout(err) {
		return false
	}
	return s.poll.SetReadDeadline(time.Time{}) == nil
}
