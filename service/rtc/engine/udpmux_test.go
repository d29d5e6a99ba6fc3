package engine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/pion/stun/v4"
)

// fakeSocket is a socket of two channels.
type fakeSocket struct {
	net.PacketConn // nil: nothing else is to be called
	in             chan datagram
	sent           chan datagram
	closed         chan struct{}
	once           sync.Once
}

func newFakeSocket() *fakeSocket {
	return &fakeSocket{in: make(chan datagram), sent: make(chan datagram, 1), closed: make(chan struct{})}
}

func (s *fakeSocket) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (s *fakeSocket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-s.in:
		if d.b == nil {
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		}
		return copy(b, d.b), d.from, nil
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *fakeSocket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.sent <- datagram{b: b, from: to}
	return len(b), nil
}

func (s *fakeSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

var (
	placeA = netip.MustParseAddrPort("192.0.2.1:1000")
	placeB = netip.MustParseAddrPort("192.0.2.2:2000")
)

// check is a binding request to the agent of that name.
func check(t *testing.T, name string) []byte {
	t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest,
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{1, 2, 3, 4}}, stun.NewUsername(name+":remote"))
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func muxOf(t *testing.T) (*udpMux, *fakeSocket) {
	t.Helper()
	s := newFakeSocket()
	m, err := newUDPMux(s, newAliases())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, s
}

func connOf(t *testing.T, m *udpMux, name string) *udpConn {
	t.Helper()
	c, err := m.GetConn(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*udpConn)
}

func reads(t *testing.T, c *udpConn, want []byte, from netip.AddrPort) {
	t.Helper()
	b := make([]byte, maxDatagram)
	n, at, err := c.ReadFromAddrPort(b)
	if err != nil || string(b[:n]) != string(want) || at != from {
		t.Fatalf("%s read %x of %v, %v; want %x of %v", c.name, b[:n], at, err, want, from)
	}
}

func writes(t *testing.T, c *udpConn, s *fakeSocket, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToAddrPort([]byte("out"), to); err != nil {
		t.Fatal(err)
	}
	if d := <-s.sent; d.from.Addr() != to.Addr().Unmap() {
		t.Fatalf("sent to %v, want %v", d.from, to)
	}
}

// A request finds its agent by name, the rest by whom the source was sent to from; a source that is
// used again goes over to its new agent.
func TestUDPMuxHandsOut(t *testing.T) {
	m, s := muxOf(t)
	a, b := connOf(t, m, "a"), connOf(t, m, "b")
	s.in <- datagram{b: []byte{20, 1}, from: placeA} // of nobody
	s.in <- datagram{}                               // a deadline is no end
	s.in <- datagram{b: check(t, "nobody"), from: placeA}
	forA, forB := check(t, "a"), check(t, "b")
	s.in <- datagram{b: forB, from: placeB}
	s.in <- datagram{b: forA, from: placeA}
	reads(t, a, forA, placeA)
	reads(t, b, forB, placeB)
	writes(t, a, s, netip.AddrPortFrom(netip.AddrFrom16(placeA.Addr().As16()), placeA.Port()))
	writes(t, b, s, placeB)
	s.in <- datagram{b: []byte{20, 2}, from: placeB}
	s.in <- datagram{b: []byte{20, 3}, from: placeA}
	reads(t, a, []byte{20, 3}, placeA)
	reads(t, b, []byte{20, 2}, placeB)

	s.in <- datagram{b: forB, from: placeA}
	reads(t, b, forB, placeA)
	writes(t, b, s, placeA)
	s.in <- datagram{b: []byte{20, 4}, from: placeA}
	reads(t, b, []byte{20, 4}, placeA)

	if err := a.Close(); err != nil { // takes nothing from b
		t.Fatal(err)
	}
	s.in <- datagram{b: []byte{20, 5}, from: placeA}
	reads(t, b, []byte{20, 5}, placeA)
	connOf(t, m, "a")
	if _, err := m.GetConn("a", nil); !errors.Is(err, errNameTaken) {
		t.Errorf("a name that is taken was given once more: %v", err)
	}
}

// What waits for an agent, and what is remembered of it, is bounded.
func TestUDPMuxIsBounded(t *testing.T) {
	m, s := muxOf(t)
	c, other := connOf(t, m, "c"), connOf(t, m, "other")
	b := check(t, "c")
	for range maxQueued + 10 {
		s.in <- datagram{b: b, from: placeA}
	}
	last := check(t, "other")
	s.in <- datagram{b: last, from: placeB}
	reads(t, other, last, placeB) // all before it are handed out
	for range maxQueued {
		reads(t, c, b, placeA)
	}
	if c.first != nil || c.queued != 0 {
		t.Errorf("more than %d datagrams waited", maxQueued)
	}
	for i := range maxAddresses + 5 {
		writes(t, c, s, netip.AddrPortFrom(placeA.Addr(), uint16(1+i)))
	}
	if len(c.sentTo) != maxAddresses || len(m.known) != maxAddresses {
		t.Errorf("%d and %d addresses known", len(c.sentTo), len(m.known))
	}
	m.RemoveConnByUfrag("c")
	if len(m.known) != 0 || m.named["c"] != nil {
		t.Errorf("an agent that is removed is still known")
	}
}

// Closing ends reads, of one agent or of all.
func TestUDPMuxCloses(t *testing.T) {
	m, _ := muxOf(t)
	c, d := connOf(t, m, "c"), connOf(t, m, "d")
	ends := make(chan error)
	for _, conn := range []*udpConn{c, d} {
		go func() {
			_, _, err := conn.ReadFrom(make([]byte, 10))
			ends <- err
		}()
	}
	_ = c.Close()
	if err := <-ends; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	_ = m.Close()
	if err := <-ends; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close of all: %v", err)
	}
	if _, err := d.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(placeA)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := m.GetConn("e", nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("agent after close: %v", err)
	}
}

func FuzzUserName(f *testing.F) {
	f.Add([]byte{0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 3, 'a', ':', 'b', 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name := userName(b)
		m := &stun.Message{Raw: append([]byte(nil), b...)}
		if m.Decode() != nil {
			return
		}
		var want stun.Username
		if want.GetFrom(m) == nil && len(name) > len(want) {
			t.Fatalf("%q of %q", name, want)
		}
	})
}
