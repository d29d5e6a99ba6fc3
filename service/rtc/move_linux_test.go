package rtc_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"golang.org/x/sys/unix"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// movesVariable is how many times an endpoint moves in TestMoveBetweenNetworks; a few if it is not set.
const movesVariable = "RTCD_TEST_MOVES"

// A host that can move is in a namespace behind a router, which is in another one; the server is in
// the test's own.
const (
	movingServer  = "10.99.0.1"
	movingOutside = "10.99.0.2" // of the router
	movingInside  = "10.99.1.1"
)

// movingGround is that network.
type movingGround struct{ router, host, other string }

func newMovingGround(t *testing.T) *movingGround {
	t.Helper()
	const untested = "; what becomes of a call whose endpoint moves was NOT tested in a real network"
	if os.Geteuid() != 0 {
		t.Skip("NOT ROOT: no network namespaces" + untested)
	}
	for _, tool := range []string{"ip", "nft", "conntrack"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("NO " + tool + " HERE (Debian: iproute2, nftables, conntrack)" + untested)
		}
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("NO NETWORK NAMESPACES HERE: ", err, untested)
	}
	name := func(role string) string { return fmt.Sprintf("h3-%d-%s", os.Getpid(), role) }
	g := &movingGround{router: name("r"), host: name("c"), other: name("o")}
	for _, ns := range []string{g.router, g.host, g.other} {
		command(t, "ip netns add "+ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns).Run() })
		command(t, "ip -n "+ns+" link set lo up")
	}
	command(t, "ip link set lo up")
	command(t, "ip link add srv type veth peer name out netns "+g.router)
	command(t, "ip address add "+movingServer+"/24 dev srv")
	command(t, "ip link set srv up")
	command(t, "ip route add default via "+movingOutside)
	command(t, "ip -n "+g.router+" address add "+movingOutside+"/24 dev out")
	command(t, "ip -n "+g.router+" link set out up")
	command(t, "ip -n "+g.router+" link add in type veth peer name net netns "+g.host)
	command(t, "ip -n "+g.router+" address add "+movingInside+"/24 dev in")
	command(t, "ip -n "+g.router+" link set in up")
	command(t, "ip -n "+g.router+" link add in2 type veth peer name net netns "+g.other)
	command(t, "ip -n "+g.router+" address add 10.99.2.1/24 dev in2")
	command(t, "ip -n "+g.router+" link set in2 up")
	command(t, "ip -n "+g.other+" address add 10.99.2.2/24 dev net")
	command(t, "ip -n "+g.other+" link set net up")
	command(t, "ip -n "+g.other+" route add default via 10.99.2.1")
	command(t, "ip netns exec "+g.router+" sysctl -qw net.ipv4.ip_forward=1")
	return g
}

func command(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// address gives the host an address, in the place of any other.
func (g *movingGround) address(t *testing.T, last int) {
	t.Helper()
	command(t, "ip -n "+g.host+" address flush dev net")
	command(t, fmt.Sprintf("ip -n %s address add 10.99.1.%d/24 dev net", g.host, last))
	command(t, "ip -n "+g.host+" link set net up")
	command(t, "ip -n "+g.host+" route replace default via "+movingInside)
}

// translate makes the host's datagrams come from a port of the router, which forgets all others.
func (g *movingGround) translate(t *testing.T, port int) {
	t.Helper()
	rules := fmt.Sprintf("table ip nat { chain post { type nat hook postrouting priority 100; }; }; flush table ip nat; "+
		"table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 10.99.1.0/24 meta l4proto udp snat to %s:%d-%d; }; }",
		movingOutside, port, port+9)
	command(t, "ip netns exec "+g.router+" nft '"+rules+"'")
	command(t, "ip netns exec "+g.router+" conntrack -F 2>/dev/null")
}

// within runs f in a namespace.
func within(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// hostNet is the network of a namespace, as it is when it is asked.
type hostNet struct {
	transport.Net
	ns    string
	check atomic.Int64 // when a connectivity check was sent first, in nanoseconds; 0: wanted; -1: not
}

func newHostNet(t *testing.T, ns string) *hostNet {
	t.Helper()
	h := &hostNet{ns: ns}
	h.check.Store(-1)
	if err := within(ns, func() (err error) { h.Net, err = stdnet.NewNet(); return err }); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hostNet) Interfaces() (list []*transport.Interface, err error) {
	err = within(h.ns, func() error {
		n, err := stdnet.NewNet()
		if err == nil {
			list, err = n.Interfaces()
		}
		return err
	})
	return list, err
}

func (h *hostNet) ListenUDP(network string, a *net.UDPAddr) (c transport.UDPConn, err error) {
	err = within(h.ns, func() error {
		u, err := net.ListenUDP(network, a)
		c = &hostConn{u, h}
		return err
	})
	return c, err
}

func (h *hostNet) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = within(h.ns, func() error { c, err = net.ListenPacket(network, address); return err })
	return c, err
}

func (h *hostNet) DialTCP(network string, l, r *net.TCPAddr) (c transport.TCPConn, err error) {
	err = within(h.ns, func() error { c, err = net.DialTCP(network, l, r); return err })
	return c, err
}

type hostConn struct {
	*net.UDPConn
	host *hostNet
}

func (c *hostConn) note(b []byte) {
	if len(b) >= 20 && binary.BigEndian.Uint16(b) == 1 && b[0] == 0 {
		c.host.check.CompareAndSwap(0, time.Now().UnixNano())
	}
}

func (c *hostConn) WriteTo(b []byte, a net.Addr) (int, error) {
	c.note(b)
	return c.UDPConn.WriteTo(b, a)
}

func (c *hostConn) WriteToAddrPort(b []byte, a netip.AddrPort) (int, error) {
	c.note(b)
	return c.UDPConn.WriteToUDPAddrPort(b, a)
}

// ear notes when the packets of a sound come.
type ear struct {
	mu      sync.Mutex
	times   []time.Time
	changed chan struct{}
}

func newEar() *ear { return &ear{changed: make(chan struct{})} }

func (e *ear) sound(string, uint32, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.times = append(e.times, time.Now())
	close(e.changed)
	e.changed = make(chan struct{})
}

// again waits for n packets after a time, and returns the longest gap between one and the next from
// then on, and when it ended.
func (e *ear) again(ctx context.Context, since time.Time, n int) (gap time.Duration, end time.Time, err error) {
	for {
		e.mu.Lock()
		changed := e.changed
		i := len(e.times)
		for i > 0 && e.times[i-1].After(since) {
			i--
		}
		after := slices.Clone(e.times[max(i-1, 0):])
		e.mu.Unlock()
		gap = 0
		for j := 1; j < len(after); j++ {
			if d := after[j].Sub(after[j-1]); d > gap {
				gap, end = d, after[j]
			}
		}
		if len(after) > n && time.Since(since) > 400*time.Millisecond && gap > 100*time.Millisecond {
			return gap, end, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return gap, end, fmt.Errorf("only %d packets: %w", len(after), ctx.Err())
		}
	}
}

// figures are of many runs.
type figures []time.Duration

func (f figures) String() string {
	if len(f) == 0 {
		return "none"
	}
	s := slices.Sorted(slices.Values(f))
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + " ms" }
	return fmt.Sprintf("p50 %s, p95 %s, max %s of %d", ms(s[len(s)/2]), ms(s[min(len(s)-1, len(s)*95/100)]), ms(s[len(s)-1]), len(s))
}

// TestMoveBetweenNetworks (P17, F15): the endpoint's address changes, or its NAT forgets it, in the
// middle of a call, in a real network. Audio comes back both ways within 5 s, and the session stays.
func TestMoveBetweenNetworks(t *testing.T) {
	runs := 1
	if n, err := strconv.Atoi(os.Getenv(movesVariable)); err == nil && n > 0 {
		runs = n
	}
	for _, c := range []struct {
		name    string
		channel bool // signals over the data channel
		nat     bool // moves in the NAT alone
		full    bool
		after   time.Duration
	}{
		{name: "address"},
		{name: "address, signalling over the channel", channel: true},
		{name: "port of the NAT", nat: true},
		{name: "port of the NAT, no restarts", nat: true, after: -1},
		{name: "port of the NAT, no restarts, full ICE", nat: true, after: -1, full: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newMovingGround(t)
			g.address(t, 2)
			if c.nat {
				g.translate(t, 40000)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(runs)*10*time.Second+10*time.Second)
			t.Cleanup(cancel)
			addr := netip.AddrPortFrom(netip.MustParseAddr(movingServer), rtctest.FreePort(t))
			b := rtctest.NewBackend(t, func(cfg *rtc.Config) {
				cfg.UDPAddrs, cfg.TCPAddrs = []netip.AddrPort{addr}, []netip.AddrPort{addr}
				cfg.Engine.Local = []netip.Addr{addr.Addr()}
				cfg.Lite, cfg.RestartAfter = !c.full, c.after
			})
			host, ann, ben := newHostNet(t, g.host), newEar(), newEar()
			anna := b.Join(t, "g", "call", "ann", rtctest.EndpointConfig{Net: host, ChannelSignalling: c.channel, OnSound: ann.sound})
			bent := b.Join(t, "g", "call", "ben", rtctest.EndpointConfig{Net: newHostNet(t, g.other), OnSound: ben.sound})
			connectAndPublish(ctx, t, anna, "ann")
			connectAndPublish(ctx, t, bent, "ben")
			rtctest.Talk(t, map[string]*rtctest.Endpoint{"ann": anna, "ben": bent})
			var up, down, follow figures
			inTime := 0
			for i := range runs {
				if _, _, err := ben.again1(ctx, 150); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if c.nat {
					g.translate(t, 40000+(i+1)%100*10)
				} else {
					g.address(t, 2+(i+1)%200)
				}
				host.check.Store(0)
				u, heard, err := ben.again(ctx, start, 30)
				d, _, err2 := ann.again(ctx, start, 30)
				if err != nil || err2 != nil {
					t.Errorf("run %d: %v, %v", i, err, err2)
					break
				}
				if check := host.check.Swap(-1); check > 0 && c.nat {
					follow = append(follow, heard.Sub(time.Unix(0, check)))
				}
				up, down = append(up, u), append(down, d)
				if max(u, d) <= 5*time.Second {
					inTime++
				}
			}
			t.Logf("gap of what it says: %v; of what it hears: %v; after its first check: %v; in time: %d", up, down, follow, inTime)
			if inTime*100 < runs*95 {
				t.Errorf("audio was back in time in %d of %d runs", inTime, runs)
			}
			if !b.Server.Exists("g", "ann") || slices.ContainsFunc(b.Events("ann"), func(e rtc.Event) bool { return e.Kind == rtc.Closed }) {
				t.Error("the session has ended")
			}
		})
	}
}

// again1 waits for n packets more.
func (e *ear) again1(ctx context.Context, n int) (time.Duration, time.Time, error) {
	start := time.Now()
	for {
		e.mu.Lock()
		changed, got := e.changed, 0
		for i := len(e.times) - 1; i >= 0 && e.times[i].After(start); i-- {
			got++
		}
		e.mu.Unlock()
		if got >= n {
			return 0, start, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, start, ctx.Err()
		}
	}
}
