//go:build !portable

package netio

import (
	"math"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendMessages = 64     // of one sendmmsg
	maxRunBytes  = 65_000 // of one segmented message

	// Destinations in a row that take no segmented messages, before a socket tries none.
	maxRefusals = 4
	// How long it tries none: doubled each time, until one takes.
	firstGSOPause   = time.Minute
	longestGSOPause = time.Hour
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
	marks    [sendMessages]mark
	iov      []unix.Iovec
	n, iovs  int          // messages and packets in use
	one      unix.Mmsghdr // for one packet of a message
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
func (s *kernelSocket) sendBatch(b *Batch, local uint16, o *outlet) {
	st := o.state
	gso := s.gso.on(o.mux.now)
	for i := 0; i < b.n; {
		if !o.due(b, i, local) {
			i++
			continue
		}
		run := 1
		if gso && o.marks[i]&markWhole == 0 {
			run = s.run(b, i)
		}
		s.addMessage(b, i, run, st)
		st.marks[st.n-1] = o.marks[i]
		i += run
		if st.n == sendMessages {
			s.sendMessages(st, o)
		}
	}
	if st.n > 0 {
		s.sendMessages(st, o)
	}
}

// run returns how many packets from i on can be one segmented message: one destination, one size,
// a shorter one only at the end.
func (s *kernelSocket) run(b *Batch, i int) int {
	to, size := &b.to[i], b.lens[i]
	end := min(b.n, i+s.maxSegments, i+maxRunBytes/size)
	j := i + 1
	for j < end && b.lens[j] <= size && b.to[j] == *to {
		j++
		if b.lens[j-1] < size {
			break
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
func (s *kernelSocket) sendMessages(st *sendState, o *outlet) {
	n := st.n
	st.n, st.iovs = 0, 0

	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		st.dropFrom(0, n, DropNoPath, &o.tx)
		return
	}
	for i := 0; i < n; {
		sent, errno := s.sendmmsg(&st.msgs[i], n-i)
		switch {
		case errno == 0:
			for range max(sent, 1) {
				o.sent(&st.to[i], st.packets[i], st.bytes[i], st.marks[i])
				if st.packets[i] > 1 {
					s.gso.took()
				}
				i++
			}
		case isFull(errno):
			st.dropFrom(i, n, DropSendBuffer, &o.tx)
			return
		case st.packets[i] > 1 && refusesSegments(errno):
			if !s.sendApart(st, i, o) {
				st.dropFrom(i+1, n, DropSendBuffer, &o.tx)
				return
			}
			i++
		default:
			o.failed(&st.to[i], errnoReason(errno), st.packets[i])
			i++
		}
	}
}

func (st *sendState) dropFrom(i, n int, reason Drop, tx *txCounts) {
	for ; i < n; i++ {
		tx.drop(reason, st.packets[i])
	}
}

// isFull reports whether errno says that we have sent more than leaves, to whomever.
func isFull(errno syscall.Errno) bool { return errnoReason(errno) == DropSendBuffer }

// refusesSegments reports whether errno may mean that a segmented message cannot be sent that
// could be sent in parts: EIO, the device has no checksum offload (kernels before 6.11) or the
// route encrypts; EMSGSIZE, a segment exceeds the route's MTU; EINVAL, the same on older kernels,
// or the socket has no checksums.
func refusesSegments(errno syscall.Errno) bool {
	return errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE
}

// sendApart sends the packets of message i one by one, after the kernel refused them as one. If
// that works it was the segmentation, which is then given up for the destination, and for the
// socket if it happens with one destination after the other. It reports false if the buffer
// is full.
func (s *kernelSocket) sendApart(st *sendState, i int, o *outlet) bool {
	o.tx.fallbacks++
	one := &st.one
	one.Hdr = st.msgs[i].Hdr
	one.Hdr.Control = nil
	one.Hdr.SetControllen(0)
	one.Hdr.SetIovlen(1)
	packets := unsafe.Slice(st.msgs[i].Hdr.Iov, st.packets[i])
	sent, bytes, failed, left := 0, 0, 0, 0
	var last Drop
	for k := range packets {
		one.Hdr.Iov = &packets[k]
		_, errno := s.sendmmsg(one, 1)
		if isFull(errno) {
			left = len(packets) - k
			break
		}
		if errno != 0 {
			failed++
			last = errnoReason(errno)
			continue
		}
		sent++
		bytes += int(packets[k].Len)
	}
	o.tx.drop(DropSendBuffer, left)
	if failed > 0 {
		o.failed(&st.to[i], last, failed)
	}
	if sent > 0 {
		o.tx.messages += uint64(sent - 1)
		o.sent(&st.to[i], sent, bytes, st.marks[i]|markFailing)
		now := o.mux.now()
		o.mux.dests.refusedSegments(st.to[i], now)
		s.gso.refused(now)
	}
	return left == 0
}

// gsoState says whether a socket sends segmented messages. Its methods are safe for concurrent
// use.
type gsoState struct {
	off      atomic.Int64 // Mux.now until which there are none; 0: there are; never
	pause    atomic.Int64 // length of the latest pause
	refusals atomic.Int32 // destinations in a row that did not take them
}

// never is a gsoState.off of sockets that cannot.
const never = math.MaxInt64

func (g *gsoState) on(now func() time.Duration) bool {
	off := g.off.Load()
	return off == 0 || off != never && int64(now()) >= off
}

// took notes that a segmented message was sent.
func (g *gsoState) took() {
	if g.refusals.Load() != 0 {
		g.refusals.Store(0)
		g.pause.Store(0)
		g.off.Store(0)
	}
}

// refused notes that one destination did not take a segmented message.
func (g *gsoState) refused(now time.Duration) {
	if g.refusals.Add(1) < maxRefusals {
		return
	}
	if off := g.off.Load(); off == 0 || int64(now) >= off {
		pause := min(max(firstGSOPause, 2*time.Duration(g.pause.Load())), longestGSOPause)
		g.pause.Store(int64(pause))
		g.off.Store(int64(now + pause))
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
