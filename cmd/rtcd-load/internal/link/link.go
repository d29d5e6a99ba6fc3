// Package link impairs what a load run's own sockets send and receive, and counts what is lost in
// them: the part of a run's loss that is no server's fault.
package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// An Impairment is what happens to the datagrams of one direction. The zero value does nothing.
type Impairment struct {
	Loss   float64       // share that is lost, 0 to 1, each datagram on its own
	Delay  time.Duration // added to each
	Jitter time.Duration // at most added to Delay, evenly distributed; datagrams may overtake others
}

func (i *Impairment) delays() bool { return i.Delay > 0 || i.Jitter > 0 }

// Counts is what the sockets of a run have done.
type Counts struct {
	Sent      atomic.Uint64 // datagrams
	Received  atomic.Uint64
	LostUp    atomic.Uint64 // by the impairment of what is sent
	LostDown  atomic.Uint64 // by that of what is received
	Refused   atomic.Uint64 // datagrams that the kernel did not take
	Overflows atomic.Uint64 // datagrams that waited for their delay when too many did already
}

// A Net is the kernel's network with sockets that are impaired and counted.
type Net struct {
	transport.Net
	up, down Impairment
	counts   *Counts
	ports    *Ports
	delay    *delayer
	sources  *Sources
}

// Sources are local addresses that sockets are bound to in turn, in place of the one that is asked
// for: servers limit what one address may do. It may be nil, or empty, and is safe for concurrent use.
type Sources struct {
	Addresses []net.IP
	next      atomic.Uint64
}

// pick returns the next address, nil if there are none.
func (s *Sources) pick() net.IP {
	if s == nil || len(s.Addresses) == 0 {
		return nil
	}
	return s.Addresses[(s.next.Add(1)-1)%uint64(len(s.Addresses))]
}

// receiveBuffer is that of a socket, in bytes.
const receiveBuffer = 1 << 20

// New returns a network. The counts, ports and sources may be shared by several. Run must run if
// anything is delayed.
func New(up, down Impairment, counts *Counts, ports *Ports, sources *Sources) (*Net, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return &Net{
		Net: n, up: up, down: down, counts: counts, ports: ports, delay: newDelayer(counts), sources: sources,
	}, nil
}

// Run delivers what is delayed until ctx is done.
func (n *Net) Run(ctx context.Context) {
	if n.up.delays() || n.down.delays() {
		n.delay.run(ctx)
	}
}

// ListenUDP implements transport.Net.
func (n *Net) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	if source := n.sources.pick(); source != nil && local != nil {
		local = &net.UDPAddr{IP: source, Port: local.Port}
	}
	c, err := n.Net.ListenUDP(network, local)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(receiveBuffer) // the kernel may grant less
	port := 0
	if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
		port = a.Port
		n.ports.add(port)
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %v: got a %T", local, c)
	}
	out := &conn{UDPConn: udp, net: n, port: port}
	if n.down.delays() {
		out.arrived, out.ended = make(chan arrival, arrivals), make(chan struct{})
		go out.read()
	}
	return out, nil
}

// ListenPacket implements transport.Net.
func (n *Net) ListenPacket(network, address string) (net.PacketConn, error) {
	a, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return nil, err
	}
	return n.ListenUDP(network, a)
}

// arrivals is how many datagrams wait to be read from a socket whose datagrams are delayed.
const arrivals = 512

type arrival struct {
	data []byte
	from netip.AddrPort
}

// conn is an impaired socket. It implements ice.AddrPortReaderWriter, which costs no allocations.
type conn struct {
	*net.UDPConn
	net  *Net
	port int

	// If what is received is delayed, a goroutine reads for the reader.
	arrived chan arrival
	ended   chan struct{} // closed once it has ended
	err     error         // why; read after ended
}

// read reads until the socket is closed.
func (c *conn) read() {
	defer close(c.ended)
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			c.err = err
			return
		}
		c.net.counts.Received.Add(1)
		down := &c.net.down
		if c.lost(down.Loss, &c.net.counts.LostDown) {
			continue
		}
		a := arrival{append([]byte(nil), b[:n]...), from}
		c.net.delay.after(down.pick(), func() {
			select {
			case c.arrived <- a:
			default:
				c.net.counts.Overflows.Add(1)
			}
		})
	}
}

func (c *conn) lost(share float64, count *atomic.Uint64) bool {
	if share <= 0 || rand.Float64() >= share {
		return false
	}
	count.Add(1)
	return true
}

// WriteToAddrPort writes a datagram. What is lost or delayed counts as written.
func (c *conn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.net.counts.Sent.Add(1)
	up := &c.net.up
	if c.lost(up.Loss, &c.net.counts.LostUp) {
		return len(b), nil
	}
	if up.delays() {
		data := append([]byte(nil), b...)
		c.net.delay.after(up.pick(), func() { _, _ = c.write(data, to) }) // write counts what fails
		return len(b), nil
	}
	return c.write(b, to)
}

func (c *conn) write(b []byte, to netip.AddrPort) (int, error) {
	n, err := c.WriteToUDPAddrPort(b, to)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.net.counts.Refused.Add(1)
	}
	return n, err
}

// ReadFromAddrPort reads a datagram that is not lost.
func (c *conn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	if c.net.down.delays() {
		select {
		case a := <-c.arrived:
			return copy(b, a.data), a.from, nil
		case <-c.ended:
			return 0, netip.AddrPort{}, c.err
		}
	}
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return n, from, err
		}
		c.net.counts.Received.Add(1)
		if !c.lost(c.net.down.Loss, &c.net.counts.LostDown) {
			return n, from, nil
		}
	}
}

// WriteTo implements net.PacketConn.
func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write to %v: no UDP address", to)
	}
	return c.WriteToUDP(b, a)
}

// WriteToUDP implements transport.UDPConn.
func (c *conn) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) {
	a := to.AddrPort()
	return c.WriteToAddrPort(b, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
}

// ReadFrom implements net.PacketConn.
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDP(b)
	if err != nil {
		return n, nil, err
	}
	return n, from, nil
}

// ReadFromUDP implements transport.UDPConn.
func (c *conn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// Close implements net.PacketConn.
func (c *conn) Close() error {
	err := c.UDPConn.Close()
	if c.ended != nil {
		<-c.ended
	}
	c.net.ports.remove(c.port)
	return err
}
