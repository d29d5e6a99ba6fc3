//go:build !portable

package netio

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// privateNet moves the test to a network namespace of its own, with loopback up. What it opens
// from its own goroutine is there; sockets stay there when other goroutines use them.
func privateNet(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("NOT TESTED against a real kernel's refusals: ", err)
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("NOT TESTED against a real kernel's refusals, no network namespace: ", err)
	}
	ip(t, "link set lo up")
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

// Routes that refuse, and none at all.
func TestRoutesThatRefuse(t *testing.T) {
	privateNet(t)
	ip(t, "route add prohibit 10.9.0.1")
	ip(t, "route add blackhole 10.9.0.2")
	ip(t, "route add unreachable 10.9.0.3")
	for _, segments := range []int{1, 10} {
		m := listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}, MaxSegments: segments})
		good := peer(t)
		b := m.NewBatch()
		const rounds, run = 40, 3
		reasons := map[string]Drop{
			"10.9.0.1": DropForbidden, "10.9.0.2": DropSendError, "10.9.0.3": DropUnreachable, "10.9.0.4": DropUnreachable,
			"255.255.255.255": DropUnreachable,
		}
		for round := range rounds {
			for addr := range reasons {
				for range run {
					commit(b, string(rtp(0, 100)), mustPath(t, m, netip.AddrPortFrom(netip.MustParseAddr(addr), 9)))
				}
				commit(b, string(rtp(round, 100)), mustPath(t, m, addrOf(good)))
			}
			b.Flush()
			for _, got := range readAll(t, good, len(reasons)) {
				if got != string(rtp(round, 100)) {
					t.Fatalf("round %d: got %q", round, got[12:20])
				}
			}
		}
		s := m.Stats()
		var lost uint64
		for _, n := range s.Drops {
			lost += n
		}
		if lost != uint64(rounds*run*len(reasons)) || s.TxPackets != uint64(rounds*len(reasons)) || s.Drops[DropPaused] == 0 {
			t.Errorf("segments %d: sent %d, drops %v", segments, s.TxPackets, s.Drops)
		}
		faults := m.SendFaults()
		if len(faults) != len(reasons) || s.FailingDestinations != len(reasons) || s.UnsegmentedDestinations != 0 {
			t.Errorf("segments %d: faults %v, stats %+v", segments, faults, s)
		}
		for _, f := range faults {
			if f.Last != reasons[f.To.Remote().Addr().String()] || f.Packets < failuresInRow {
				t.Errorf("segments %d: %+v", segments, f)
			}
		}
		if s.GSO != (segments > 1) {
			t.Errorf("GSO %v", s.GSO)
		}

		// The way becomes free.
		ip(t, "route replace local 10.9.0.1 dev lo")
		to := mustPath(t, m, netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), everywhere(t).port))
		before := m.Stats().TxPackets
		commit(b, "other port", to)
		b.Flush()
		if m.Stats().TxPackets != before+1 {
			t.Error("a destination pays for another port's failures")
		}
		paused := mustPath(t, m, netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), 9))
		eventually(t, "the end of the pause", func() bool {
			before := m.Stats().TxPackets
			commit(b, "again", paused)
			b.Flush()
			return m.Stats().TxPackets > before
		})
		ip(t, "route del local 10.9.0.1 dev lo")
	}
}

// anySocket receives what is sent to a port of any of our addresses.
type anySocket struct {
	*net.UDPConn
	port uint16
}

func everywhere(t *testing.T) anySocket {
	t.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { _ = c.Close() })
	return anySocket{c, addrOf(c).Port()}
}

// Behind one route the packets fit, behind another they must be cut: the kernel refuses the
// segmented message with EMSGSIZE (EINVAL before 6.14), takes the packets, and only that
// destination loses segmentation, also if the route becomes narrow while we send.
func TestNarrowRoute(t *testing.T) {
	privateNet(t)
	ip(t, "route add local 10.8.0.1 dev lo")
	ip(t, "route add local 10.8.0.2 dev lo mtu 800")
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	if !m.Stats().GSO {
		t.Skip("no UDP segmentation here")
	}
	c := everywhere(t)
	b := m.NewBatch()
	send := func(messages int, addrs ...string) {
		t.Helper()
		before := m.Stats().TxMessages
		for _, addr := range addrs {
			for i := range 5 {
				commit(b, string(rtp(i, 1200-i/4*100)), mustPath(t, m, netip.AddrPortFrom(netip.MustParseAddr(addr), c.port)))
			}
		}
		b.Flush()
		for range addrs {
			for i, got := range readAll(t, c.UDPConn, 5) {
				if got != string(rtp(i, 1200-i/4*100)) {
					t.Errorf("packet %d differs", i)
				}
			}
		}
		if n := m.Stats().TxMessages - before; n != uint64(messages) {
			t.Errorf("%d messages to %v, want %d", n, addrs, messages)
		}
	}
	send(1+5, "10.8.0.1", "10.8.0.2")
	send(5+1, "10.8.0.2", "10.8.0.1")
	if s := m.Stats(); s.GSOFallbacks != 1 || s.UnsegmentedDestinations != 1 || !s.GSO || s.Drops != (Drops{}) {
		t.Errorf("stats %+v", s)
	}
	ip(t, "route replace local 10.8.0.1 dev lo mtu 1000")
	send(5+5, "10.8.0.1", "10.8.0.2")
	send(5, "10.8.0.1")
	if s := m.Stats(); s.GSOFallbacks != 2 || s.UnsegmentedDestinations != 2 || !s.GSO || s.Drops != (Drops{}) {
		t.Errorf("stats %+v", s)
	}
}

// A device with a small MTU under each destination, all refuse: the socket gives up segments.
func TestNarrowDevice(t *testing.T) {
	privateNet(t)
	ip(t, "link set lo mtu 900")
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}, SocketsPerAddr: 1})
	if !m.Stats().GSO {
		t.Skip("no UDP segmentation here")
	}
	c := newCrowd(t, m, 100)
	total := 0
	b := m.NewBatch()
	for round := range 3 {
		for i, to := range c.paths {
			for k := range 3 {
				commit(b, string(rtp(round*3+k, 1200)), to)
				total++
			}
			if i%8 == 7 {
				b.Flush()
			}
		}
		b.Flush()
	}
	for i, conn := range c.conns {
		for k, got := range readAll(t, conn, 9) {
			if got != string(rtp(k, 1200)) {
				t.Fatalf("receiver %d: packet %d differs", i, k)
			}
		}
	}
	if s := m.Stats(); s.GSO || s.GSOFallbacks != 8 || s.TxPackets != uint64(total) || s.Drops != (Drops{}) {
		t.Errorf("stats %+v", s)
	}
}

// A device that takes nothing (its neighbours do not answer) fills the socket's buffer: what does
// not fit is dropped at once.
func TestFullSocketBuffer(t *testing.T) {
	privateNet(t)
	if out, err := exec.Command("ip", strings.Fields("link add v0 type veth peer name v1")...).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED against a real full buffer, no veth: %v %s", err, out)
	}
	ip(t, "link set v0 up")
	ip(t, "link set v1 up")
	ip(t, "addr add 10.7.0.1/24 dev v0")
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}, SocketsPerAddr: 1})
	if err := unix.SetsockoptInt(kernelSockets(m)[0].fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil { // the least there is
		t.Fatal(err)
	}
	b := m.NewBatch()
	start := time.Now()
	for i := range 200 {
		addr := netip.AddrFrom4([4]byte{10, 7, 0, byte(2 + i%50)})
		commit(b, string(rtp(i, 1000)), mustPath(t, m, netip.AddrPortFrom(addr, 9)))
	}
	b.Flush()
	took := time.Since(start)
	s := m.Stats()
	if s.Drops[DropSendBuffer] < 100 || s.TxPackets+s.Drops[DropSendBuffer] != 200 || s.FailingDestinations != 0 {
		t.Errorf("stats %+v", s)
	}
	if took > time.Second {
		t.Errorf("took %v: it waited", took)
	}
}

// A firewall that drops what we send says so with EPERM.
func TestFirewall(t *testing.T) {
	privateNet(t)
	var rule [][]string
	switch {
	case has("nft"):
		rule = [][]string{
			{"nft", "add", "table", "ip", "t"},
			{"nft", "add", "chain", "ip", "t", "o", "{ type filter hook output priority 0; }"},
			{"nft", "add", "rule", "ip", "t", "o", "ip", "daddr", "127.0.0.9", "drop"},
		}
	case has("iptables"):
		rule = [][]string{{"iptables", "-A", "OUTPUT", "-d", "127.0.0.9", "-j", "DROP"}}
	default:
		t.Skip("NOT TESTED against a real firewall: neither nft nor iptables here; EPERM is injected elsewhere")
	}
	for _, args := range rule {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("NOT TESTED against a real firewall: %v: %v %s", args, err, out)
		}
	}
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	good := peer(t)
	bad := mustPath(t, m, netip.MustParseAddrPort("127.0.0.9:9"))
	b := m.NewBatch()
	for i := range 2 * failuresInRow {
		commit(b, string(rtp(i, 100)), bad)
		commit(b, fmt.Sprint(i), mustPath(t, m, addrOf(good)))
		b.Flush()
		if got, _ := readPacket(t, good); got != fmt.Sprint(i) {
			t.Errorf("got %q", got)
		}
	}
	if s := m.Stats(); s.Drops[DropForbidden] != failuresInRow || s.Drops[DropPaused] != failuresInRow || s.FailingDestinations != 1 {
		t.Errorf("stats %+v", s)
	}
}

func has(command string) bool {
	_, err := exec.LookPath(command)
	return err == nil
}
