package netio

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestRefusedSegmentsAreSentApart(t *testing.T) {
	m, _ := listenUDP(t, Config{MaxSegments: 200})
	if !m.Stats().GSO {
		t.Skip("no UDP segmentation here")
	}
	c := peer(t)
	to := mustPath(t, m, addrOf(c))
	b := m.NewBatch()
	var want []string
	for range 2 {
		for i := range 150 { // more than the 128 segments the kernel takes
			want = append(want, string(rtp(i, 20)))
			commit(b, want[len(want)-1], to)
		}
		b.Flush()
	}
	if got := readAll(t, c, len(want)); strings.Join(got, "") != strings.Join(want, "") {
		t.Error("not what was sent")
	}
	s := m.Stats()
	if s.GSOFallbacks != 1 || s.GSO || s.TxPackets != 300 || s.Drops != (Drops{}) {
		t.Errorf("fallbacks %d, GSO %v, sent %d, drops %v", s.GSOFallbacks, s.GSO, s.TxPackets, s.Drops)
	}
}

// faults makes the kernel refuse messages: errno returns the error for the i-th message ever
// offered (counted again each time it is offered), 0 to send it.
func faults(m *Mux, errno func(i int, msg *unix.Mmsghdr) syscall.Errno) {
	s := m.groups[0].sockets[0].(*kernelSocket)
	offered := 0
	s.send = func(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
		for i, msg := range unsafe.Slice(msgs, n) {
			e := errno(offered, &msg)
			offered++
			if e == 0 {
				_, e = rawSendmmsg(fd, &msg, 1)
			}
			if e != 0 {
				offered-- // the kernel tells only if it is the first; then it is offered again
				if i > 0 {
					return i, 0
				}
				offered++
				return -1, e
			}
		}
		return n, 0
	}
}

// Each way in which the kernel can refuse a segmented message, and what is given up for it.
func TestSegmentsAreGivenUp(t *testing.T) {
	for _, c := range []struct {
		errno     syscall.Errno
		fallbacks uint64
		segments  bool
	}{
		{unix.EIO, 1, false},        // for the socket
		{unix.EINVAL, 1, false},     // likewise
		{unix.EMSGSIZE, 1, true},    // for the path alone
		{unix.ENETUNREACH, 0, true}, // not the segments' fault
	} {
		t.Run(c.errno.Error(), func(t *testing.T) {
			m, _ := listenUDP(t, Config{SocketsPerAddr: 1})
			narrow := peer(t)
			faults(m, func(_ int, msg *unix.Mmsghdr) syscall.Errno {
				var port uint16
				_, port, _ = getName((*unix.RawSockaddrInet6)(unsafe.Pointer(msg.Hdr.Name)))
				if msg.Hdr.Iovlen > 1 && port == addrOf(narrow).Port() {
					return c.errno
				}
				return 0
			})
			other := peer(t)
			b := m.NewBatch()
			const rounds, run = 3, 4
			for range rounds {
				for i := range run {
					commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(narrow)))
				}
				for i := range run {
					commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(other)))
				}
				b.Flush()
			}
			readAll(t, other, rounds*run)
			s := m.Stats()
			if s.GSOFallbacks != c.fallbacks || s.GSO != c.segments {
				t.Errorf("fallbacks %d, want %d; segments %v, want %v", s.GSOFallbacks, c.fallbacks, s.GSO, c.segments)
			}
			if c.fallbacks == 0 {
				if s.Drops[DropUnreachable] != rounds*run {
					t.Errorf("drops %v", s.Drops)
				}
				return
			}
			readAll(t, narrow, rounds*run)
			if s.TxPackets != 2*rounds*run || s.Drops != (Drops{}) {
				t.Errorf("sent %d, drops %v", s.TxPackets, s.Drops)
			}
		})
	}
}

// A full socket buffer drops the rest of the flush, counts packets and blocks nobody; the next
// flush tries again. An interrupted call is repeated.
func TestFullSendBufferDrops(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOBUFS} {
		m, _ := listenUDP(t, Config{SocketsPerAddr: 1, MaxSegments: 1})
		faults(m, func(i int, _ *unix.Mmsghdr) syscall.Errno {
			switch i {
			case 0, 5:
				return unix.EINTR
			case 10:
				return errno
			}
			return 0
		})
		c := peer(t)
		b := m.NewBatch()
		for i := range 20 {
			commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(c)))
		}
		b.Flush()
		if s := m.Stats(); s.TxPackets != 8 || s.Drops[DropSendBuffer] != 12 {
			t.Errorf("sent %d, drops %v", s.TxPackets, s.Drops)
		}
		commit(b, "next", mustPath(t, m, addrOf(c)))
		b.Flush()
		if got := readAll(t, c, 9); got[8] != "next" {
			t.Errorf("got %q", got[8])
		}
	}
}

func TestReaderPauses(t *testing.T) {
	sockets, _, err := openKernel(loopback, 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	s := sockets[0].(*kernelSocket)
	start := time.Now()
	if !s.pause(time.Millisecond) || time.Since(start) < time.Millisecond {
		t.Error("did not pause")
	}
	if !s.pause(time.Millisecond) {
		t.Error("did not pause again")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if s.pause(time.Hour) {
		t.Error("went on after stop")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func TestErrnoReasons(t *testing.T) {
	for errno, want := range map[syscall.Errno]Drop{
		unix.EAGAIN: DropSendBuffer, unix.ENOBUFS: DropSendBuffer,
		unix.ENETUNREACH: DropUnreachable, unix.EHOSTUNREACH: DropUnreachable,
		unix.EPERM: DropForbidden, unix.EACCES: DropForbidden,
		unix.EMSGSIZE: DropTooLarge, unix.EINVAL: DropSendError,
	} {
		if got := errnoReason(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
	if got := sendErrorReason(errors.New("other")); got != DropSendError {
		t.Errorf("other: %v", got)
	}
}

// Two sockets share an address; the kernel keeps a 5-tuple on one of them, so its order holds.
func TestTwoSocketsKeepOrder(t *testing.T) {
	media := newFakeMedia()
	sockets, bound, err := openKernel(loopback, 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	m, _ := listenUDP(t, Config{Media: media})
	var wg sync.WaitGroup
	for _, s := range sockets {
		out := m.NewBatch()
		rx := &receiver{mux: m, queue: newControlQueue(4), local: 1, reader: media.NewReader(out), out: out}
		wg.Go(func() { s.serve(rx) })
	}
	defer func() {
		for _, s := range sockets {
			_ = s.stop()
		}
		wg.Wait()
		for _, s := range sockets {
			_ = s.close()
		}
	}()
	const peers, packets = 24, 15
	next := map[Path]int{}
	reader := map[Path]int{}
	used := map[int]bool{}
	senders := make([]*net.UDPConn, peers)
	for i := range senders {
		senders[i] = peer(t)
	}
	for i := range packets {
		for _, c := range senders {
			sendTo(t, c, rtp(i, 100), bound)
		}
	}
	for range peers * packets {
		p := receive(t, media.got)
		if want := string(rtp(next[p.from], 100)); p.body != want {
			t.Fatalf("%v: got %q, want number %d", p.from, p.body[12:20], next[p.from])
		}
		if next[p.from]++; next[p.from] > 1 && reader[p.from] != p.reader {
			t.Fatalf("%v changed its socket", p.from)
		}
		reader[p.from] = p.reader
		used[p.reader] = true
	}
	if len(used) != 2 {
		t.Errorf("%d sockets had something to read, want 2", len(used))
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	for _, n := range []int{1, 2} {
		first, bound, err := openKernel(loopback, n, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []netip.AddrPort{bound, netip.AddrPortFrom(netip.IPv4Unspecified(), bound.Port())} {
			for k := 1; k <= 2; k++ {
				_, _, err := openKernel(other, k, 10)
				if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "address already in use: is another instance running?") {
					t.Errorf("%d sockets on %v after %d: %v", k, other, n, err)
				}
			}
		}
		if _, err := Listen(Config{UDPAddrs: []netip.AddrPort{loopback, bound}}); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("Listen: %v", err)
		}
		for _, s := range first {
			_ = s.stop()
			_ = s.close()
		}
		again, _, err := openKernel(bound, n, 10)
		if err != nil {
			t.Fatalf("after close: %v", err)
		}
		for _, s := range again {
			_ = s.stop()
			_ = s.close()
		}
	}
}
