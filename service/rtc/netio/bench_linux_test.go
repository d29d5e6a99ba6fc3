//go:build !portable

package netio

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkReceive reads datagrams that wait already, so many in each socket, next to one recvfrom
// for each. Many sockets make the time long enough to take.
func BenchmarkReceive(b *testing.B) {
	for _, waiting := range []int{1, 8, 64} {
		for _, backend := range []string{"recvmmsg", "portable"} {
			b.Run(fmt.Sprintf("waiting-%d/%s", waiting, backend), func(b *testing.B) {
				benchmarkReceive(b, waiting, backend == "portable")
			})
		}
	}
}

func benchmarkReceive(b *testing.B, waiting int, portable bool) {
	const sockets = 32
	m, _ := listenUDP(b, Config{})
	out := m.NewBatch()
	plain := make([]int, sockets)
	read := make([]func(), sockets)
	addrs := make([]netip.AddrPort, 0, 2*sockets)
	st := newRecvState() // of one goroutine, which reads one socket
	for i := range sockets {
		var at netip.AddrPort
		if read[i], at = reading(b, m, out, st, waiting, portable); at.IsValid() {
			addrs = append(addrs, at)
		}
		all, at, err := openKernel(loopback, 1, 1)
		if err != nil {
			b.Fatal(err)
		}
		addrs = append(addrs, at)
		plain[i] = all[0].(*kernelSocket).fd
		b.Cleanup(func() { _ = all[0].stop(); _ = all[0].close() })
	}
	sender := m.NewBatch()
	packet, buf := rtp(1, 1000), make([]byte, maxDatagram)
	b.ResetTimer()
	var ours, theirs time.Duration
	for range b.N {
		for _, at := range addrs {
			to := mustPath(b, m, at)
			for range waiting {
				sender.Commit(copy(sender.Slot()[:slotSize], packet), to)
			}
		}
		sender.Flush()
		start := cpuTime()
		for _, f := range read {
			f()
		}
		middle := cpuTime()
		for _, fd := range plain {
			for range waiting {
				if n, errno := rawRecvfrom(fd, buf); n != len(packet) {
					b.Fatalf("recvfrom: %d bytes, %v", n, errno)
				}
			}
		}
		ours += middle - start
		theirs += cpuTime() - middle
	}
	n := float64(b.N * sockets * waiting)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ours)/n, "cpu-ns/packet")
	b.ReportMetric(float64(theirs)/n, "recvfrom-cpu-ns/packet")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

// rawRecvfrom is the bare system call.
func rawRecvfrom(fd int, buf []byte) (int, syscall.Errno) {
	var name unix.RawSockaddrInet6
	size := uint32(unix.SizeofSockaddrInet6)
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
	return int(n), errno
}

// reading opens a socket and returns a function that does what its goroutine does with so many
// datagrams that wait.
func reading(b *testing.B, m *Mux, out *Batch, st *recvState, waiting int, portable bool) (func(), netip.AddrPort) {
	b.Helper()
	rx := &receiver{mux: m, queue: newControlQueue(1), local: 1, out: out}
	var sockets []socket
	var at netip.AddrPort
	var err error
	if portable {
		sockets, at, err = openPortable(newStdNet(b).ListenUDP, loopback)
	} else {
		sockets, at, err = openKernel(loopback, 1, 1)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sockets[0].stop(); _ = sockets[0].close() })
	media := &countingAll{}
	rx.reader = media
	check := func() {
		if media.n != waiting {
			b.Fatalf("%d datagrams, want %d", media.n, waiting)
		}
		media.n = 0
	}
	if s, ok := sockets[0].(*portableSocket); ok {
		buf := st.buf[0][:]
		return func() {
			for range waiting {
				_ = s.receive(rx, buf)
			}
			check()
		}, at
	}
	s := sockets[0].(*kernelSocket)
	raw, err := s.poll.SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var n int
	receive := func(uintptr) bool {
		n, _ = s.recv(st)
		return true
	}
	return func() {
		_ = raw.Read(receive)
		for i := range n {
			st.deliver(rx, i)
		}
		rx.flush()
		check()
	}, at
}

type countingAll struct{ n int }

func (c *countingAll) Known(Path) bool      { return true }
func (c *countingAll) Receive([]byte, Path) { c.n++ }
func (c *countingAll) Flush()               {}
