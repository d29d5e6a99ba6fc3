//go:build !portable

package netio

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel begins to refuse segmented messages in the middle of a run: to all destinations, or
// to every third.
func TestDeliveryWhileSegmentsAreRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EIO, unix.EINVAL, unix.EMSGSIZE} {
		for _, every := range []uint16{1, 3} {
			t.Run(fmt.Sprintf("%v, 1 of %d", errno, every), func(t *testing.T) {
				m, _ := listenUDP(t, Config{})
				var offered atomic.Int64
				faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
					if offered.Add(1) > 3000 && msg.Hdr.Iovlen > 1 && addressee(msg).Port()%every == 0 {
						return errno
					}
					return 0
				})
				s := testDelivery(t, m)
				if s.GSOFallbacks == 0 || s.UnsegmentedDestinations == 0 || s.FailingDestinations != 0 {
					t.Errorf("%d fallbacks, %d destinations without segments, %d failing",
						s.GSOFallbacks, s.UnsegmentedDestinations, s.FailingDestinations)
				}
				if s.GSO && every == 1 {
					t.Error("the sockets still try")
				}
			})
		}
	}
}

// To every fifth destination sending fails in one of the ways it can. The others get everything,
// the failing ones are tried less and less, their errors are counted, and once the way is free
// again they get all that follows.
func TestDeliveryAmongFailingDestinations(t *testing.T) {
	for errno, reason := range map[syscall.Errno]Drop{
		unix.EPERM: DropForbidden, unix.EACCES: DropForbidden,
		unix.ENETUNREACH: DropUnreachable, unix.EHOSTUNREACH: DropUnreachable,
		unix.EMSGSIZE: DropTooLarge, unix.ECONNREFUSED: DropSendError,
		unix.EIO: DropSendError, unix.EINVAL: DropSendError,
	} {
		t.Run(errno.Error(), func(t *testing.T) { testFailing(t, errno, reason) })
	}
}

func testFailing(t *testing.T, errno syscall.Errno, reason Drop) {
	m, _ := listenUDP(t, Config{})
	c := newCrowd(t, m, 100)
	failing := make(map[uint16]bool)
	for i := 0; i < len(c.paths); i += 5 {
		failing[c.paths[i].Remote().Port()] = true
	}
	var broken atomic.Bool
	broken.Store(true)
	var tried atomic.Int64
	faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
		if broken.Load() && failing[addressee(msg).Port()] {
			tried.Add(1)
			return errno
		}
		return 0
	})
	total, lost := 0, 0
	c.receive(t, func() []int { return c.send(m, 2, 20) }, func(i int, got tally, sent int) {
		if bad := i%5 == 0; bad {
			lost += sent
			if got.packets != 0 {
				t.Errorf("receiver %d got %d packets", i, got.packets)
			}
		} else if got.packets != sent || got.gaps != 0 {
			t.Errorf("receiver %d got %d of %d packets", i, got.packets, sent)
		}
		total += sent
	})
	s := m.Stats()
	failed := s.Drops[reason]
	if s.TxPackets != uint64(total-lost) || failed+s.Drops[DropPaused] != uint64(lost) {
		t.Errorf("sent %d of %d, %d lost, drops %v", s.TxPackets, total, lost, s.Drops)
	}
	if s.Drops[DropPaused] == 0 || s.FailingDestinations != len(failing) || !s.GSO {
		t.Errorf("stats %+v", s)
	}
	var counted uint64
	for _, f := range m.SendFaults() {
		if !failing[f.To.Remote().Port()] || f.Last != reason || f.Unsegmented {
			t.Errorf("fault %+v", f)
		}
		counted += f.Packets
	}
	if counted != failed {
		t.Errorf("%d errors by destination, %d in all", counted, failed)
	}
	t.Logf("%d packets lost, %d of them tried; %d messages offered", lost, failed, tried.Load())

	broken.Store(false)
	b := m.NewBatch()
	for i := 0; i < len(c.paths); i += 5 {
		eventually(t, "the end of a pause", func() bool {
			before := m.Stats().TxPackets
			commit(b, "again", c.paths[i])
			b.Flush()
			return m.Stats().TxPackets > before
		})
		if body, _ := readPacket(t, c.conns[i]); body != "again" {
			t.Errorf("receiver %d got %q", i, body)
		}
	}
	if s := m.Stats(); s.FailingDestinations != 0 || s.PausedDestinations != 0 {
		t.Errorf("%d failing, %d paused", s.FailingDestinations, s.PausedDestinations)
	}
}

// A buffer that is full now and then costs packets, all of them counted; the order of the others
// holds and nobody is blamed.
func TestDeliveryThroughFullBuffers(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOBUFS} {
		for _, segments := range []int{1, 10} {
			t.Run(fmt.Sprintf("%v, segments=%d", errno, segments), func(t *testing.T) {
				m, _ := listenUDP(t, Config{MaxSegments: segments})
				c := newCrowd(t, m, 100)
				var offered atomic.Int64
				faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
					switch n := offered.Add(1); {
					case n%97 < 3: // the second offer of a message is the one that is told
						return errno
					case n%31 == 0 && msg.Hdr.Iovlen > 1:
						return unix.EIO // so that the buffer can be full amid a message sent apart
					}
					return 0
				})
				got, sent := 0, 0
				c.receive(t, func() []int { return c.send(m, 2, 10) }, func(_ int, g tally, n int) {
					got += g.packets
					sent += n
				})
				s := m.Stats()
				if s.TxPackets != uint64(got) || s.Drops != (Drops{DropSendBuffer: uint64(sent - got)}) || got == 0 || sent == got {
					t.Errorf("sent %d, got %d of %d, drops %v", s.TxPackets, got, sent, s.Drops)
				}
				if s.FailingDestinations != 0 {
					t.Errorf("%d failing destinations", s.FailingDestinations)
				}
			})
		}
	}
}

// The order within a stream holds, and memory is not shared, while many goroutines send through
// the same sockets, segments are refused, destinations fail and buffers are full.
func TestSendersAndFaultsAtOnce(t *testing.T) {
	m, _ := listenUDP(t, Config{})
	c := newCrowd(t, m, 50)
	errnos := []syscall.Errno{unix.EPERM, unix.EIO, unix.ENOBUFS, unix.EINTR, unix.EMSGSIZE, unix.EAGAIN, unix.ENETUNREACH}
	var offered atomic.Int64
	faults(m, func(*unix.Mmsghdr) syscall.Errno {
		if n := offered.Add(1); n%11 == 0 {
			return errnos[n/11%int64(len(errnos))]
		}
		return 0
	})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = m.Stats()
				_ = m.SendFaults()
				m.dests.forget(m.now())
			}
		}
	})
	got, sent := 0, 0
	c.receive(t, func() []int { return c.send(m, 6, 10) }, func(_ int, g tally, n int) {
		got += g.packets
		sent += n
	})
	close(stop)
	wg.Wait()
	var dropped uint64
	s := m.Stats()
	for _, n := range s.Drops {
		dropped += n
	}
	if s.TxPackets != uint64(got) || dropped != uint64(sent-got) {
		t.Errorf("sent %d, got %d of %d, dropped %d", s.TxPackets, got, sent, dropped)
	}
}

// Errors do not allocate either.
func TestFaultsDoNotAllocate(t *testing.T) {
	m, _ := listenUDP(t, Config{})
	paths := newCrowd(t, m, 8).paths
	faults(m, func(msg *unix.Mmsghdr) syscall.Errno {
		switch {
		case addressee(msg) == paths[0].Remote():
			return unix.EPERM
		case addressee(msg) == paths[1].Remote() && msg.Hdr.Iovlen > 1:
			return unix.EMSGSIZE
		}
		return 0
	})
	b := m.NewBatch()
	packet := rtp(1, 1000)
	if n := testing.AllocsPerRun(50, func() {
		for _, to := range paths {
			for range 5 {
				b.Commit(copy(b.Slot()[:slotSize], packet), to)
			}
		}
		b.Flush()
		m.dests.mu.Lock()
		for to, known := range m.dests.known { // as if the pause were over
			known.until, known.whole = 0, 0
			m.dests.known[to] = known
		}
		m.dests.mu.Unlock()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if s := m.Stats(); s.Drops[DropForbidden] == 0 || s.GSOFallbacks == 0 {
		t.Errorf("stats %+v", s)
	}
}

// What ICE sends is tried at any time, and its success ends the pause of media.
func TestControlEndsAPause(t *testing.T) {
	m, _ := listenUDP(t, Config{SocketsPerAddr: 1})
	c := peer(t)
	to := mustPath(t, m, addrOf(c))
	var broken atomic.Bool
	broken.Store(true)
	faults(m, func(*unix.Mmsghdr) syscall.Errno {
		if broken.Load() {
			return unix.EPERM
		}
		return 0
	})
	b := m.NewBatch()
	for range failuresInRow {
		commit(b, string(rtp(1, 100)), to)
		b.Flush()
	}
	commit(b, string(rtp(1, 100)), to)
	b.Flush()
	if s := m.Stats(); s.PausedDestinations != 1 || s.Drops[DropForbidden] != failuresInRow || s.Drops[DropPaused] != 1 {
		t.Fatalf("stats %+v", s)
	}
	broken.Store(false)
	if _, err := m.UDPConns()[0].WriteTo(stunRequest(1), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	commit(b, "media", to)
	b.Flush()
	if got := readAll(t, c, 2); got[1] != "media" {
		t.Errorf("got %q", got)
	}
	if s := m.Stats(); s.PausedDestinations != 0 || s.FailingDestinations != 0 {
		t.Errorf("stats %+v", s)
	}
}

// An error of receiving stops nobody from reading on.
func TestReceiveErrors(t *testing.T) {
	sockets, bound, err := openKernel(loopback, 1, 10)
	if err != nil {
		t.Fatal(err)
	}
	s := sockets[0].(*kernelSocket)
	errnos := []syscall.Errno{0, unix.ECONNREFUSED, 0, unix.EINTR, unix.ENOMEM, unix.ENOMEM, unix.ENOMEM, 0, unix.EHOSTUNREACH}
	s.receive = func(fd int, msgs *unix.Mmsghdr, n int) (int, syscall.Errno) {
		if len(errnos) > 0 {
			errno := errnos[0]
			errnos = errnos[1:]
			if errno != 0 {
				return -1, errno
			}
		}
		return rawRecvmmsg(fd, msgs, n)
	}
	media := newFakeMedia()
	m, _ := listenUDP(t, Config{Media: media})
	out := m.NewBatch()
	rx := &receiver{mux: m, queue: newControlQueue(4), local: 1, reader: media.NewReader(out), out: out}
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(rx) })
	c := peer(t)
	for i := range 20 {
		sendTo(t, c, rtp(i, 100), bound)
		if got := receive(t, media.got); got.body != string(rtp(i, 100)) {
			t.Errorf("packet %d differs", i)
		}
	}
	_ = s.stop()
	wg.Wait()
	_ = s.close()
	if len(errnos) != 0 {
		t.Errorf("%d errors left", len(errnos))
	}
}

// Go's poller knows the epoll instance of a socket but not the socket, and that instance asks
// for input alone: nothing wakes when a packet has left.
func TestPollerSeesInputAlone(t *testing.T) {
	m, _ := listenUDP(t, Config{})
	for _, s := range kernelSockets(m) {
		entries, err := os.ReadDir("/proc/self/fdinfo")
		if err != nil {
			t.Skip("no /proc here: ", err)
		}
		watchers, poll := 0, fmt.Sprint(s.poll.Fd()) // Fd leaves the mode of what never blocked
		for _, e := range entries {
			info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
			for line := range strings.Lines(string(info)) {
				var fd int
				var events uint32
				if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &fd, &events); n != 2 || fd != s.fd {
					continue
				}
				watchers++
				if e.Name() != poll {
					t.Errorf("epoll instance %s watches the socket, not %s alone", e.Name(), poll)
				}
				if events&^(unix.EPOLLERR|unix.EPOLLHUP) != unix.EPOLLIN {
					t.Errorf("events %#x", events)
				}
			}
		}
		if watchers != 1 {
			t.Errorf("%d watchers", watchers)
		}
	}
	// The plain socket of package net, to show that the test sees what it looks for.
	c := peer(t)
	if !watchedForOutput(t, c) {
		t.Error("package net does not watch for output: this test proves nothing")
	}
}

func watchedForOutput(t *testing.T, c *net.UDPConn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	_ = raw.Control(func(want uintptr) {
		entries, _ := os.ReadDir("/proc/self/fdinfo")
		for _, e := range entries {
			info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
			for line := range strings.Lines(string(info)) {
				var fd int
				var events uint32
				if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &fd, &events); n == 2 && fd == int(want) {
					found = found || events&unix.EPOLLOUT != 0
				}
			}
		}
	})
	return found
}
