//go:build !portable

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

// kernelSockets returns the sockets of the first address.
func kernelSockets(m *Mux) []*kernelSocket {
	var all []*kernelSocket
	for _, s := range m.groups[0].sockets {
		all = append(all, s.(*kernelSocket))
	}
	return all
}

// faults makes the kernel refuse messages: errno returns the error for a message, 0 to send it.
// It is called again each time the message is offered, from any goroutine that sends.
func faults(m *Mux, errno func(msg *unix.Mmsghdr) syscall.Errno) {
	for _, s := range kernelSockets(m) {
		s.send = func(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
			all := unsafe.Slice(msgs, n)
			for i := range all {
				switch e := errno(&all[i]); {
				case e == 0:
				case i == 0:
					return -1, e
				default: // the kernel tells only if it is the first
					return rawSendmmsg(fd, msgs, i)
				}
			}
			return rawSendmmsg(fd, msgs, n)
		}
	}
}

// addressee returns where a message goes.
func addressee(msg *unix.Mmsghdr) netip.AddrPort {
	addr, port, _ := getName((*unix.RawSockaddrInet6)(unsafe.Pointer(msg.Hdr.Name)))
	return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), port)
}

// sendRuns sends runs of four packets to each peer and checks that all arrive.
func sendRuns(t *testing.T, m *Mux, b *Batch, peers ...*net.UDPConn) {
	t.Helper()
	const run = 4
	for _, c := range peers {
		for i := range run {
			commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(c)))
		}
	}
	b.Flush()
	for _, c := range peers {
		for i, got := range readAll(t, c, run) {
			if got != string(rtp(i, 100)) {
				t.Fatalf("packet %d differs", i)
			}
		}
	}
}

// A real kernel refuses a socket without checksums segmented messages, in the middle of what we
// send. Nothing is lost, and after a few destinations the socket tries no more.
func TestRefusedSegmentsAreSentApart(t *testing.T) {
	m, _ := listenUDP(t, Config{SocketsPerAddr: 1})
	if !m.Stats().GSO {
		t.Skip("no UDP segmentation here")
	}
	s := kernelSockets(m)[0]
	b := m.NewBatch()
	peers := make([]*net.UDPConn, 10)
	for i := range peers {
		peers[i] = peer(t)
	}
	sendRuns(t, m, b, peers...)
	if s := m.Stats(); s.TxMessages != uint64(len(peers)) || s.GSOFallbacks != 0 {
		t.Fatalf("%d messages, %d fallbacks", s.TxMessages, s.GSOFallbacks)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		sendRuns(t, m, b, peers...)
	}
	got := m.Stats()
	// Messages that were built before the socket gave up are refused each by itself.
	if got.GSO || got.GSOFallbacks != uint64(len(peers)) || got.UnsegmentedDestinations != len(peers) {
		t.Errorf("GSO %v, fallbacks %d, %d destinations without", got.GSO, got.GSOFallbacks, got.UnsegmentedDestinations)
	}
	if want := uint64(4 * 4 * len(peers)); got.TxPackets != want || got.Drops != (Drops{}) || got.FailingDestinations != 0 {
		t.Errorf("sent %d, want %d; drops %v, %d failing", got.TxPackets, want, got.Drops, got.FailingDestinations)
	}
}

// Each way in which the kernel can refuse a segmented message to one destination costs it alone
// segmentation, and nobody a packet.
func TestSegmentsAreGivenUp(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
		t.Run(errno.Error(), func(t *testing.T) {
			m, _ := listenUDP(t, Config{})
			narrow, other := peer(t), peer(t)
			faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
				if msg.Hdr.Iovlen > 1 && addressee(msg) == addrOf(narrow) {
					return errno
				}
				return 0
			})
			b, second := m.NewBatch(), m.NewBatch() // on another socket, if there are several
			for range 3 {
				sendRuns(t, m, b, narrow, other)
				sendRuns(t, m, second, narrow, other)
			}
			s := m.Stats()
			if s.GSOFallbacks != 1 || !s.GSO || s.UnsegmentedDestinations != 1 || s.Drops != (Drops{}) {
				t.Errorf("fallbacks %d, GSO %v, %d destinations without, drops %v",
					s.GSOFallbacks, s.GSO, s.UnsegmentedDestinations, s.Drops)
			}
			if s.TxMessages != 6*4+6 {
				t.Errorf("%d messages", s.TxMessages)
			}
			if f := m.SendFaults(); len(f) != 1 || !f[0].Unsegmented || f[0].Packets != 0 || f[0].To != mustPath(t, m, addrOf(narrow)) {
				t.Errorf("faults %+v", f)
			}
		})
	}
}

// What is wrong with the destination is not held against segmentation.
func TestUnreachableRunIsNoFallback(t *testing.T) {
	m, _ := listenUDP(t, Config{SocketsPerAddr: 1})
	bad, other := peer(t), peer(t)
	faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
		if addressee(msg) == addrOf(bad) {
			return unix.ENETUNREACH
		}
		return 0
	})
	b := m.NewBatch()
	for i := range 4 {
		commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(bad)))
	}
	sendRuns(t, m, b, other)
	if s := m.Stats(); s.GSOFallbacks != 0 || !s.GSO || s.Drops != (Drops{DropUnreachable: 4}) || s.FailingDestinations != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestGSOComesBack(t *testing.T) {
	var g gsoState
	now := time.Second
	clock := func() time.Duration { return now }
	refuse := func(n int) {
		for range n {
			g.refused(now)
		}
	}
	refuse(maxRefusals - 1)
	if !g.on(clock) {
		t.Error("off too soon")
	}
	g.took()
	refuse(maxRefusals - 1)
	if !g.on(clock) {
		t.Error("refusals are not in a row")
	}
	refuse(3)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if g.on(clock) {
			t.Error("on after refusals")
		}
		now += pause*time.Minute - 1
		if g.on(clock) {
			t.Errorf("on before %d minutes", pause)
		}
		if now++; !g.on(clock) {
			t.Errorf("off after %d minutes", pause)
		}
		refuse(2)
	}
	now += time.Hour
	g.took()
	if !g.on(clock) || g.off.Load() != 0 {
		t.Error("not on again")
	}
	refuse(maxRefusals)
	if now += time.Minute; !g.on(clock) {
		t.Error("the pause did not begin anew")
	}
	g.off.Store(never)
	if now += 1000 * time.Hour; g.on(clock) {
		t.Error("on where there is none")
	}
}

// A full socket buffer drops the rest of the flush, counts packets and blocks nobody; the next
// flush tries again. An interrupted call is repeated.
func TestFullSendBufferDrops(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOBUFS} {
		m, _ := listenUDP(t, Config{SocketsPerAddr: 1, MaxSegments: 1})
		offered := 0
		faults(m, func(*unix.Mmsghdr) syscall.Errno {
			defer func() { offered++ }()
			switch offered {
			case 0, 5, 6: // the second time as the first of a call
				return unix.EINTR
			case 11, 12:
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
