//go:build !portable

package netio

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// numbers is a data plane that notes the numbers of the packets of the paths it knows.
type numbers struct {
	mu    sync.Mutex
	known map[Path][]uint32
}

func (n *numbers) NewReader(*Batch) Reader { return numbersReader{n} }

func (n *numbers) Known(from Path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.known[from]
	return ok
}

func (n *numbers) know(p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[p] = []uint32{}
}

func (n *numbers) of(p Path) []uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known[p]
}

func (n *numbers) paths() (out []Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.known {
		out = append(out, p)
	}
	return out
}

type numbersReader struct{ *numbers }

func (n numbersReader) Receive(b []byte, from Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[from] = append(n.known[from], binary.BigEndian.Uint32(b[minMedia:]))
}

func (numbersReader) Flush() {}

// numbered returns a media packet with a number.
func numbered(number uint32) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{0x80}, make([]byte, minMedia-1)...), number)
}

// A relief is a mux with its data plane.
type relief struct {
	*Mux
	media *numbers
}

// relieve opens a mux, with the sockets of the one before if there is one.
func relieve(t *testing.T, addr netip.AddrPort, before *relief) *relief {
	t.Helper()
	r := &relief{media: &numbers{known: make(map[Path][]uint32)}}
	cfg := Config{Media: r.media, UDPAddrs: []netip.AddrPort{addr}, TCPAddrs: []netip.AddrPort{addr}}
	if before != nil {
		sockets, err := before.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		defer sockets.Close()
		if err := before.Connect(before.media.paths()); err != nil {
			t.Fatal(err)
		}
		cfg.Inherit = sockets
	}
	m, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Mux = m
	t.Cleanup(func() { _ = m.Close() })
	if before != nil {
		if err := m.Connect(nil); err != nil {
			t.Fatal(err)
		}
		before.SetStray(m.Inject)
		if err := before.Release(); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// freePort returns an address that nobody listens on, for UDP and TCP.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// Endpoints send all the time; again and again the listening sockets go to a new mux, and some new
// endpoints with them. Every packet comes to the mux that knows its path, once, and in its order.
func TestHandoverLosesNothing(t *testing.T) {
	const (
		swaps = 10
		each  = 8 // endpoints that begin at each mux
	)
	addr := freePort(t)
	stop := make(chan struct{})
	var senders sync.WaitGroup
	type sender struct {
		at   *relief
		path Path
		sent uint32
	}
	var all []*sender
	begin := func(at *relief) {
		for range each {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
			if err != nil {
				t.Fatal(err)
			}
			s := &sender{at: at, path: NewPath(0, addrOf(c), false)}
			at.media.know(s.path)
			all = append(all, s)
			// As ICE does when it is checked, which is before there is media.
			if _, err := at.groups[0].conn.WriteToAddrPort([]byte("answer"), addrOf(c)); err != nil {
				t.Fatal(err)
			}
			senders.Go(func() {
				defer c.Close()
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if _, err := c.Write(numbered(s.sent)); err != nil {
							t.Error(err)
							return
						}
						s.sent++
					case <-stop:
						return
					}
				}
			})
		}
	}
	r := relieve(t, addr, nil)
	begin(r)
	for range swaps {
		newest := all[len(all)-1]
		eventually(t, "packets of the newest", func() bool { return len(newest.at.media.of(newest.path)) > 5 })
		r = relieve(t, addr, r)
		begin(r)
	}
	newest := all[len(all)-1]
	eventually(t, "packets of the newest", func() bool { return len(newest.at.media.of(newest.path)) > 5 })
	close(stop)
	senders.Wait()
	total := 0
	for _, s := range all {
		eventually(t, "the last packet", func() bool { return uint32(len(s.at.media.of(s.path))) >= s.sent })
		for i, n := range s.at.media.of(s.path) {
			if n != uint32(i) {
				t.Fatalf("path %s: packet %d comes at place %d of %d", s.path, n, i, s.sent)
			}
		}
		total += int(s.sent)
	}
	t.Logf("%d packets of %d endpoints over %d swaps: all there, in order", total, len(all), swaps)
}

// A check that names nobody here is shown to the other processes; what came to a socket before it was
// connected goes to the one that listens.
func TestStraysArePassedOn(t *testing.T) {
	addr := freePort(t)
	first := relieve(t, addr, nil)
	first.groups[0].conn.NameAgents(func([]byte) []byte { return []byte("old") })
	second := relieve(t, addr, first)
	strays := make(chan Stray, 10)
	second.SetStray(func(s Stray) {
		s.Data = append([]byte(nil), s.Data...)
		strays <- s
	})
	c := peer(t)
	sendTo(t, c, stunRequest(7), addr)
	s := receive(t, strays)
	if s.Local != addr || s.Remote.Port() != addrOf(c).Port() || string(s.Data) != string(stunRequest(7)) {
		t.Fatalf("stray %v", s)
	}
	first.Inject(s)
	buf := make([]byte, maxDatagram)
	n, from, err := first.groups[0].conn.ReadFromAddrPort(buf)
	if err != nil || string(buf[:n]) != string(stunRequest(7)) || from != s.Remote {
		t.Fatalf("read %q from %s: %v", buf[:n], from, err)
	}
	// Its answer opens a path of the first one's.
	if _, err := first.groups[0].conn.WriteToAddrPort([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if n := first.Connected(); n != 1 {
		t.Fatalf("%d paths are connected", n)
	}
	sendTo(t, c, dtlsRecord(22, 0, "hello"), addr)
	if n, _, err = first.groups[0].conn.ReadFromAddrPort(buf); err != nil || classify(buf[:n]) != kindDTLS {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	// What is not from where its socket is connected to is another process's.
	foreign := NewPath(0, netip.MustParseAddrPort("127.0.0.1:9"), false)
	got := make(chan Stray, 1)
	first.SetStray(func(s Stray) { got <- s })
	rx := first.newReceiver(0, 0)
	rx.released, rx.own = true, NewPath(0, from, false)
	rx.datagram(numbered(1), foreign)
	if s := receive(t, got); s.Remote != foreign.Remote() {
		t.Fatalf("stray of %s", s.Remote)
	}
	// Junk, and what was passed on before, is not.
	second.Inject(Stray{addr, addrOf(c), stunRequest(8)})
	sendTo(t, peer(t), []byte("junk"), addr)
	sendTo(t, peer(t), numbered(3), addr)
	other := peer(t)
	sendTo(t, other, stunRequest(9), addr)
	if s := receive(t, strays); s.Remote.Port() != addrOf(other).Port() {
		t.Fatalf("stray of %s", s.Remote)
	}
}

// Strays are bounded, whatever comes.
func TestStraysAreBounded(t *testing.T) {
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{loopback}, Media: &numbers{}, SourceRate: 1e6, GlobalRate: 1e6})
	n := 0
	m.SetStray(func(Stray) { n++ })
	rx := m.newReceiver(0, 0)
	began := time.Now()
	for i := range 4 * strayRate {
		rx.datagram(stunRequest(1), near(i%60_000+1))
		rx.flush()
	}
	most := int(float64(strayRate) * (1.1 + time.Since(began).Seconds()))
	if n < strayRate/2 || n > most {
		t.Errorf("%d strays, want at most %d", n, most)
	}
}

// Sockets of paths that are over close; those of known paths stay.
func TestConnectedSocketsGoWithTheirPaths(t *testing.T) {
	media := &numbers{known: make(map[Path][]uint32)}
	m, addr := listenUDP(t, Config{Media: media})
	if err := m.Connect(nil); err != nil {
		t.Fatal(err)
	}
	a, b := peer(t), peer(t)
	media.know(NewPath(0, addrOf(a), false))
	for _, c := range []*net.UDPConn{a, b, a} {
		if _, err := m.groups[0].conn.WriteToAddrPort([]byte("x"), addrOf(c)); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Connected(); n != 2 {
		t.Fatalf("%d sockets", n)
	}
	m.listeners(func(l listener) { l.sweep(m.now()+1, media.Known) })
	if n := m.Connected(); n != 1 {
		t.Fatalf("%d sockets", n)
	}
	sendTo(t, a, numbered(0), addr)
	eventually(t, "the packet", func() bool { return len(media.of(NewPath(0, addrOf(a), false))) == 1 })
	m.Settle()
	if _, err := m.groups[0].conn.WriteToAddrPort([]byte("x"), addrOf(peer(t))); err != nil {
		t.Fatal(err)
	}
	if n := m.Connected(); n != 1 {
		t.Fatalf("%d sockets", n)
	}
}

// A listener that is handed over refuses nobody; connections stay where they are.
func TestTCPListenerIsHandedOver(t *testing.T) {
	addr := freePort(t)
	first := relieve(t, addr, nil)
	old, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	eventually(t, "the connection", func() bool { return first.Stats().TCPConns == 1 })
	second := relieve(t, addr, first)
	fresh, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	eventually(t, "the connection", func() bool { return second.Stats().TCPConns == 1 })
	if n := first.Stats().TCPConns; n != 1 {
		t.Errorf("the first one has %d connections", n)
	}
}

// What is on a virtual network, or bound to no address of its own, is not handed over.
func TestHandoverNeedsTheKernelsNetwork(t *testing.T) {
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{loopback}, Net: newStdNet(t)})
	if _, err := m.Sockets(); err == nil {
		t.Error("sockets of a virtual network")
	}
	if err := m.Connect(nil); err == nil {
		t.Error("connected sockets of a virtual network")
	}
	m = listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}})
	if err := m.Connect(nil); err == nil {
		t.Error("connected sockets beside one of any address")
	}
}
