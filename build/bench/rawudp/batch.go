//go:build linux && (amd64 || arm64)

package main

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxIn    = 64     // datagrams of a recvmmsg
	maxOut   = 64     // messages of a sendmmsg
	maxRun   = 64     // datagrams of a message
	maxBytes = 65_000 // of a message
	slot     = 2048   // bytes for a datagram
	udpGSO   = 103    // UDP_SEGMENT
	ctrlLen  = 16 + 8 // a control message with two bytes in it
)

// mmsghdr is struct mmsghdr of the kernel on 64-bit machines.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   uint32
}

// batch forwards what comes together.
type batch struct {
	fd int
	to routes

	in      [maxIn]mmsghdr
	inVec   [maxIn]unix.Iovec
	from    [maxIn]unix.RawSockaddrInet4
	data    [maxIn][slot]byte
	pending int // messages in out

	out     [maxOut]mmsghdr
	outVec  [maxOut][maxRun]unix.Iovec
	control [maxOut][ctrlLen]byte
}

func newBatch(fd int, to routes) *batch {
	b := &batch{fd: fd, to: to}
	for i := range b.in {
		b.inVec[i] = unix.Iovec{Base: &b.data[i][0], Len: slot}
		b.in[i].hdr.Iov, b.in[i].hdr.Iovlen = &b.inVec[i], 1
		b.in[i].hdr.Name = (*byte)(unsafe.Pointer(&b.from[i]))
	}
	for i := range b.control {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.control[i]))
		h.Level, h.Type, h.Len = unix.SOL_UDP, udpGSO, unix.SizeofCmsghdr+2
	}
	return b
}

func (b *batch) run() error {
	for {
		for i := range b.in {
			b.in[i].hdr.Namelen = uint32(unsafe.Sizeof(b.from[i]))
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.in)), maxIn,
			unix.MSG_WAITFORONE, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("recvmmsg: %w", errno)
		}
		for i := 0; i < int(n); {
			j := i + 1
			for j < int(n) && b.from[j] == b.from[i] {
				j++
			}
			b.forward(addrPort(&b.from[i]), i, j)
			i = j
		}
		b.flush()
	}
}

// forward sends datagrams i to j of one source to its destinations, in runs as the kernel allows:
// of one length, the last may be shorter.
func (b *batch) forward(from netip.AddrPort, i, j int) {
	dests := b.to[from]
	for d := range dests {
		for k := i; k < j; {
			segment := b.in[k].n
			end, total := k+1, segment
			for end < j && end-k < maxRun && b.in[end-1].n == segment && b.in[end].n <= segment && total+b.in[end].n <= maxBytes {
				total += b.in[end].n
				end++
			}
			b.message(&dests[d], k, end, uint16(segment))
			k = end
		}
	}
}

func (b *batch) message(to *unix.RawSockaddrInet4, i, j int, segment uint16) {
	m := &b.out[b.pending].hdr
	for k := i; k < j; k++ {
		b.outVec[b.pending][k-i] = unix.Iovec{Base: &b.data[k][0], Len: uint64(b.in[k].n)}
	}
	m.Name, m.Namelen = (*byte)(unsafe.Pointer(to)), uint32(unsafe.Sizeof(*to))
	m.Iov, m.Iovlen = &b.outVec[b.pending][0], uint64(j-i)
	m.Control, m.Controllen = nil, 0
	if j-i > 1 {
		c := &b.control[b.pending]
		*(*uint16)(unsafe.Pointer(&c[unix.SizeofCmsghdr])) = segment
		m.Control, m.Controllen = &c[0], ctrlLen
	}
	b.pending++
	if b.pending == maxOut {
		b.flush()
	}
}

func (b *batch) flush() {
	for i := 0; i < b.pending; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.out[i])), uintptr(b.pending-i),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			i += int(n)
		case unix.EINTR:
		default: // the first is refused; it is missing in the count of what arrived
			i++
		}
	}
	b.pending = 0
}
