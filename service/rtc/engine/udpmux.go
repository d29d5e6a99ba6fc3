package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"

	"rtcd/service/rtc/netio"
)

// Bounds of one agent on a socket.
const (
	maxDatagram   = 2048 // bytes; netio passes on no larger one
	maxQueued     = 256  // datagrams that the agent has not read yet: an SCTP window of small ones
	maxAddresses  = 128  // that an agent has sent to and is handed the datagrams of
	typeUsername  = 0x0006
	stunHeaderLen = 20
)

var errNameTaken = errors.New("ice user name in use")

// udpMux shares a socket among ICE agents. A STUN request belongs to the agent whose user name
// it carries (RFC 8489 section 9.1.3), everything else to the one that sent to its source last.
//
// It does what pion's does, but has no goroutine for each agent, bounds what waits for one, and lets
// an address that is used again find its new agent with the first request.
type udpMux struct {
	conn    socket
	local   net.Addr
	aliases *aliases      // of agents
	ended   chan struct{} // no longer read

	mu     sync.Mutex
	closed bool
	named  map[string]*udpConn // by user name
	known  map[netip.AddrPort]*udpConn
}

// socket is what the mux reads and writes.
type socket interface {
	net.PacketConn
	ice.AddrPortReaderWriter
}

func newUDPMux(conn net.PacketConn, aliases *aliases) (*udpMux, error) {
	s, ok := conn.(socket)
	if !ok {
		return nil, fmt.Errorf("socket %v: cannot read and write with addresses as values", conn.LocalAddr())
	}
	m := &udpMux{
		conn: s, local: conn.LocalAddr(), aliases: aliases, ended: make(chan struct{}),
		named: make(map[string]*udpConn), known: make(map[netip.AddrPort]*udpConn),
	}
	if n, ok := conn.(interface{ NameAgents(func([]byte) []byte) }); ok {
		n.NameAgents(m.agent)
	}
	go m.read()
	return m, nil
}

// agent returns the name in a STUN message if it is that of an agent, else nil.
func (m *udpMux) agent(stun []byte) []byte {
	name := userName(stun)
	if name == nil {
		return nil
	}
	if m.aliases.find(name) != nil {
		return name
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.named[string(name)] == nil {
		return nil
	}
	return name
}

// read hands out datagrams until the socket is closed.
func (m *udpMux) read() {
	defer close(m.ended)
	b := make([]byte, maxDatagram)
	for {
		n, from, err := m.conn.ReadFromAddrPort(b)
		var timeout net.Error
		switch {
		case err == nil:
			m.deliver(b[:n], from)
		case errors.As(err, &timeout) && timeout.Timeout():
		default:
			return
		}
	}
}

// deliver hands a datagram to whom it belongs to.
func (m *udpMux) deliver(b []byte, from netip.AddrPort) {
	name := userName(b)
	if a := m.aliases.find(name); a != nil {
		m.translate(a, b, from)
		return
	}
	c := m.find(name, from)
	if c == nil {
		return
	}
	if g := c.guard.Load(); g != nil && isDTLS(b) {
		held, ok := g.admit(b)
		if !ok {
			m.refused()
			return
		}
		for _, part := range held {
			c.push(part, from)
		}
		if held != nil {
			return
		}
	}
	c.push(b, from)
}

// refused counts a datagram that a guard did not let pass.
func (m *udpMux) refused() {
	if n, ok := m.conn.(interface{ Dropped(netio.Drop) }); ok {
		n.Dropped(netio.DropForged)
	}
}

// translate hands a request to the agent that a is an alias of, if it is authentic.
func (m *udpMux) translate(a *alias, b []byte, from netip.AddrPort) {
	request := a.authentic(b)
	if request == nil {
		return
	}
	translated, agent, ready := a.in(request)
	if !ready {
		a.link.keep(waiting{m, b, from})
		return
	}
	if c := m.find([]byte(agent), from); c != nil && translated != nil {
		c.addressed(a, from)
		c.push(translated, from)
	}
}

// find returns who goes by a name, or without one who sent to an address, or nil.
func (m *udpMux) find(name []byte, from netip.AddrPort) *udpConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name != nil {
		return m.named[string(name)]
	}
	return m.known[from]
}

// userName returns the first half of the user name in a STUN message, which is the receiver's, or
// nil if b is none or has none.
func userName(b []byte) []byte {
	if len(b) < stunHeaderLen || b[0] > 3 {
		return nil
	}
	for b = b[stunHeaderLen:]; len(b) >= 4; {
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if length > len(b)-4 {
			return nil
		}
		if kind == typeUsername {
			name, _, _ := bytes.Cut(b[4:4+length], []byte(":"))
			return name
		}
		b = b[4+min((length+3)&^3, len(b)-4):]
	}
	return nil
}

// GetConn returns what the agent of that user name sends and receives with.
func (m *udpMux) GetConn(name string, _ net.Addr) (net.PacketConn, error) {
	c := &udpConn{mux: m, name: name, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, net.ErrClosed
	case m.named[name] != nil:
		return nil, errNameTaken
	}
	m.named[name] = c
	return c, nil
}

// RemoveConnByUfrag hands nothing out any more under the user name.
func (m *udpMux) RemoveConnByUfrag(name string) {
	m.mu.Lock()
	c := m.named[name]
	m.mu.Unlock()
	if c != nil {
		m.forget(c)
	}
}

// forget hands nothing out to c any more.
func (m *udpMux) forget(c *udpConn) {
	addresses := c.addresses()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.named[c.name] == c {
		delete(m.named, c.name)
	}
	for _, a := range addresses {
		if m.known[a] == c {
			delete(m.known, a)
		}
	}
}

// know hands c what comes from an address, and no longer what comes from another one.
func (m *udpMux) know(c *udpConn, address, other netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known[other] == c {
		delete(m.known, other)
	}
	if !m.closed && m.named[c.name] == c {
		m.known[address] = c
	}
}

// GetListenAddresses returns the address of the socket.
func (m *udpMux) GetListenAddresses() []net.Addr { return []net.Addr{m.local} }

// Close ends all agents' use of the socket, closes it and waits until it is no longer read.
func (m *udpMux) Close() error {
	m.mu.Lock()
	m.closed = true
	var all []*udpConn
	for _, c := range m.named {
		all = append(all, c)
	}
	m.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
	err := m.conn.Close()
	<-m.ended
	return err
}

// udpConn is one agent's share of the socket.
type udpConn struct {
	mux  *udpMux
	name string
	wake chan struct{} // has something when there may be something to read
	gone chan struct{} // closed by Close

	guard atomic.Pointer[guard] // of the peer; nil: none

	mu     sync.Mutex
	closed bool
	first  *datagram // of the queue
	last   *datagram
	queued int
	sentTo []netip.AddrPort          // the latest last
	via    map[netip.AddrPort]*alias // by which requests come from there
}

// datagram is one that waits to be read.
type datagram struct {
	b    []byte
	from netip.AddrPort
	next *datagram
}

// datagrams are kept for those to come: one that arrives allocates nothing.
var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// push queues a datagram; without room it is lost.
func (c *udpConn) push(b []byte, from netip.AddrPort) {
	d := datagrams.Get().(*datagram)
	d.b, d.from, d.next = append(d.b[:0], b...), from, nil
	c.mu.Lock()
	room := !c.closed && c.queued < maxQueued
	switch {
	case !room:
	case c.last == nil:
		c.first, c.last, c.queued = d, d, 1
	default:
		c.last.next, c.last = d, d
		c.queued++
	}
	c.mu.Unlock()
	if !room {
		datagrams.Put(d)
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ReadFromAddrPort waits for a datagram.
func (c *udpConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		c.mu.Lock()
		d := c.first
		if d != nil {
			c.queued--
			if c.first = d.next; c.first == nil {
				c.last = nil
			}
		}
		c.mu.Unlock()
		if d != nil {
			n, from, short := copy(b, d.b), d.from, len(d.b) > len(b)
			datagrams.Put(d)
			if short {
				return n, from, io.ErrShortBuffer
			}
			return n, from, nil
		}
		select {
		case <-c.wake:
		case <-c.gone:
			return 0, netip.AddrPort{}, net.ErrClosed
		}
	}
}

// addressed notes that requests from an address come by an alias.
func (c *udpConn) addressed(a *alias, from netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.via == nil || len(c.via) >= maxAddresses {
		c.via = make(map[netip.AddrPort]*alias)
	}
	c.via[from] = a
}

// translated returns what the agent sends to an address as the endpoint is to get it; nil: not at all.
func (c *udpConn) translated(b []byte, to netip.AddrPort) []byte {
	if len(b) < stunHeaderLen || b[0] > 3 {
		return b
	}
	l := c.mux.aliases.of(c.name)
	if l == nil {
		return b
	}
	c.mu.Lock()
	a := c.via[to]
	c.mu.Unlock()
	return l.out(a, b)
}

// WriteToAddrPort sends at once.
func (c *udpConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port()) // as netio tells sources
	size := len(b)
	if g := c.guard.Load(); g != nil && isDTLS(b) {
		g.sent(b)
	}
	if b = c.translated(b, to); b == nil {
		return size, nil
	}
	var oldest netip.AddrPort
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	fresh := !slices.Contains(c.sentTo, to)
	if fresh {
		if len(c.sentTo) == maxAddresses {
			oldest = c.sentTo[0]
			c.sentTo = slices.Delete(c.sentTo, 0, 1)
		}
		c.sentTo = append(c.sentTo, to)
	}
	c.mu.Unlock()
	if fresh {
		c.mux.know(c, to, oldest)
	}
	if _, err := c.mux.conn.WriteToAddrPort(b, to); err != nil {
		return 0, err
	}
	return size, nil
}

func (c *udpConn) addresses() []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sentTo)
}

// ReadFrom is ReadFromAddrPort.
func (c *udpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteTo is WriteToAddrPort.
func (c *udpConn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: no udp address", to)
	}
	return c.WriteToAddrPort(b, a.AddrPort())
}

// Close ends the agent's share.
func (c *udpConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.first, c.last = nil, nil
	c.mu.Unlock()
	close(c.gone)
	c.mux.forget(c)
	return nil
}

// LocalAddr returns the address of the socket.
func (c *udpConn) LocalAddr() net.Addr { return c.mux.local }

// SetDeadline does nothing: agents set one only before they close.
func (c *udpConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *udpConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *udpConn) SetWriteDeadline(time.Time) error { return nil }

// at reports whether the socket may be that of an address of ours.
func (m *udpMux) at(address string) bool {
	local, ok := m.local.(*net.UDPAddr)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddr(address)
	return local.IP.IsUnspecified() || err == nil && addr.Unmap() == local.AddrPort().Addr().Unmap()
}
