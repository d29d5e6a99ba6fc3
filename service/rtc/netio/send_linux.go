package netio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendMessages  = 64     // of one sendmmsg
	maxRunBytes   = 65_000 // of one segmented message
	maxUnsegments = 1024   // paths remembered as not taking segmented messages
)

// sendState is the memory of one batch from which the kernel reads what to send: per message a
// header, an address and the size of its segments, per packet where it lies.
type sendState struct {
	msgs     [sendMessages]unix.Mmsghdr
	names    [sendMessages]unix.RawSockaddrInet6
	controls [sendMessages]segmentControl
	packets  [sendMessages]int // packets of the message
	bytes    [sendMessages]int // of the message
	to       [sendMessages]Path
	iov      []unix.Iovec
	n, iovs  int          // messages and packets in use
	one      unix.Mmsghdr // for one packet of a message

	// Paths whose route is too narrow for a segmented message of the size we sent. Made when
	// needed, emptied when full.
	unsegmented map[Path]struct{}
}

// segmentControl is the control message that carries UDP_SEGMENT.
type segmentControl struct {
	hdr  unix.Cmsghdr
	size uint16
	_    [6]byte // up to CMSG_SPACE
}

func newSendState(slots int) *sendState {
	st := &sendState{iov: make([]unix.Iovec, slots)}
	for i := range st.msgs {
		c := &st.controls[i]
		c.hdr.Level = unix.IPPROTO_UDP
		c.hdr.Type = unix.UDP_SEGMENT
		c.hdr.SetLen(unix.CmsgLen(2))
		st.msgs[i].Hdr.Name = (*byte)(unsafe.Pointer(&st.names[i]))
	}
	return st
}

// sendBatch builds messages from runs of packets and sends them, 64 with a call.
func (s *kernelSocket) sendBatch(b *Batch, local uint16, st *sendState, tx *txCounts) {
	gso := !s.noGSO.Load()
	for i := 0; i < b.n; {
		if to := &b.to[i]; to.local != local || to.TCP() {
			i++
			continue
		}
		run := 1
		if gso {
			run = s.run(b, i, st)
		}
		s.addMessage(b, i, run, st)
		i += run
		if st.n == sendMessages {
			s.sendMessages(st, tx)
		}
	}
	if st.n > 0 {
		s.sendMessages(st, tx)
	}
}

// run returns how many packets from i on can be one segmented message: one destination, one size,
// a shorter one only at the end.
func (s *kernelSocket) run(b *Batch, i int, st *sendState) int {
	to, size := &b.to[i], b.lens[i]
	end := min(b.n, i+s.maxSegments, i+maxRunBytes/size)
	j := i + 1
	for j < end && b.lens[j] <= size && b.to[j] == *to {
		j++
		if b.lens[j-1] < size {
			break
		}
	}
	if j > i+1 && len(st.unsegmented) > 0 {
		if _, narrow := st.unsegmented[*to]; narrow {
			return 1
		}
	}
	return j - i
}

// addMessage adds one message of run packets.
func (s *kernelSocket) addMessage(b *Batch, i, run int, st *sendState) {
	hdr := &st.msgs[st.n].Hdr
	hdr.Iov = &st.iov[st.iovs]
	hdr.SetIovlen(run)
	total := 0
	for _, n := range b.lens[i : i+run] {
		v := &st.iov[st.iovs]
		v.Base = &b.packet(i)[0]
		v.SetLen(n)
		total += n
		st.iovs++
		i++
	}
	first := i - run
	to := &b.to[first]
	hdr.Namelen = putName(&st.names[st.n], s.v6, to.addr, to.port)
	if run > 1 {
		c := &st.controls[st.n]
		c.size = uint16(b.lens[first])
		hdr.Control = (*byte)(unsafe.Pointer(c))
		hdr.SetControllen(unix.CmsgSpace(2))
	} else {
		hdr.Control = nil
		hdr.SetControllen(0)
	}
	st.packets[st.n], st.bytes[st.n], st.to[st.n] = run, total, *to
	st.n++
}

// sendMessages sends the messages of st and empties it. The kernel reports an error only for the
// first message it could not take: that one is dropped or taken apart, the rest goes on. When a
// buffer is full the rest is dropped; media does not wait.
func (s *kernelSocket) sendMessages(st *sendState, tx *txCounts) {
	n := st.n
	st.n, st.iovs = 0, 0

	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		st.dropFrom(0, n, DropNoPath, tx)
		return
	}
	for i := 0; i < n; {
		sent, errno := s.sendmmsg(&st.msgs[i], n-i)
		switch {
		case errno == 0:
			for range max(sent, 1) {
				tx.messages++
				tx.packets += uint64(st.packets[i])
				tx.bytes += uint64(st.bytes[i])
				i++
			}
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			st.dropFrom(i, n, DropSendBuffer, tx)
			return
		case st.packets[i] > 1 && refusesSegments(errno):
			s.sendApart(st, i, errno, tx)
			i++
		default:
			tx.drop(errnoReason(errno), st.packets[i])
			i++
		}
	}
}

func (st *sendState) dropFrom(i, n int, reason Drop, tx *txCounts) {
	for ; i < n; i++ {
		tx.drop(reason, st.packets[i])
	}
}

// refusesSegments reports whether errno may mean that a segmented message cannot be sent that
// could be sent in parts: EIO, the device has no checksum offload (kernels before 6.11);
// EMSGSIZE, a segment exceeds the route's MTU; EINVAL, too many segments, or either of the others
// on older kernels.
func refusesSegments(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE
}

// sendApart sends the packets of message i one by one, after the kernel refused them as one. If
// that works it was the segmentation: it is given up for the path if its MTU is too small, for
// the socket otherwise.
func (s *kernelSocket) sendApart(st *sendState, i int, why syscall.Errno, tx *txCounts) {
	tx.fallbacks++
	one := &st.one
	one.Hdr = st.msgs[i].Hdr
	one.Hdr.Control = nil
	one.Hdr.SetControllen(0)
	one.Hdr.SetIovlen(1)
	worked := false
	packets := unsafe.Slice(st.msgs[i].Hdr.Iov, st.packets[i])
	for k := range packets {
		one.Hdr.Iov = &packets[k]
		if _, errno := s.sendmmsg(one, 1); errno != 0 {
			tx.drop(errnoReason(errno), 1)
			continue
		}
		worked = true
		tx.messages++
		tx.packets++
		tx.bytes += uint64(packets[k].Len)
	}
	switch {
	case !worked:
	case why == unix.EMSGSIZE:
		if st.unsegmented == nil {
			st.unsegmented = make(map[Path]struct{})
		} else if len(st.unsegmented) >= maxUnsegments {
			clear(st.unsegmented)
		}
		st.unsegmented[st.to[i]] = struct{}{}
	default:
		s.noGSO.Store(true)
	}
}

// sendmmsg sends without waiting and returns how many messages were sent, or the error of the
// first.
func (s *kernelSocket) sendmmsg(msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
	for {
		sent, errno := s.send(s.fd, msgs, n)
		if errno != unix.EINTR {
			return sent, errno
		}
	}
}

// rawSendmmsg is the system call.
func rawSendmmsg(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(msgs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(sent), errno
}
