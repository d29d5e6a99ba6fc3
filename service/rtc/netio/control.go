package netio

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4/deadline"
)

// maxDatagram is the longest datagram that is read. Longer ones are dropped: nothing that a
// WebRTC endpoint sends comes near.
const maxDatagram = 2048

// controlQueue holds the STUN and DTLS datagrams of one local address until ICE reads them. It
// is bounded: both protocols retransmit, so what does not fit is dropped.
type controlQueue struct {
	wake chan struct{} // has room for one; sent to when the queue becomes readable
	done chan struct{} // closed by close

	mu     sync.Mutex
	ring   []*controlDatagram // guarded by mu, as is the rest
	head   int
	n      int
	free   []*controlDatagram
	closed bool
}

type controlDatagram struct {
	from netip.AddrPort
	n    int
	buf  [maxDatagram]byte
}

func newControlQueue(size int) *controlQueue {
	return &controlQueue{
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
		ring: make([]*controlDatagram, size),
	}
}

// push copies b into the queue and reports whether it had room.
func (q *controlQueue) push(b []byte, from Path) bool {
	q.mu.Lock()
	if q.closed || q.n == len(q.ring) {
		q.mu.Unlock()
		return false
	}
	var d *controlDatagram
	if last := len(q.free) - 1; last >= 0 {
		d, q.free = q.free[last], q.free[:last]
	} else {
		d = new(controlDatagram)
	}
	d.from, d.n = from.Remote(), copy(d.buf[:], b)
	q.ring[(q.head+q.n)%len(q.ring)] = d
	q.n++
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// pop copies the oldest datagram into b.
func (q *controlQueue) pop(b []byte) (n int, from netip.AddrPort, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return 0, netip.AddrPort{}, false
	}
	d := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	n, from = copy(b, d.buf[:d.n]), d.from
	q.free = append(q.free, d)
	if q.n > 0 { // for a second reader, should there be one
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return n, from, true
}

func (q *controlQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.done)
	}
}

// packetConn is what ICE sees of one local UDP address: STUN and DTLS alone. It implements
// net.PacketConn and ice.AddrPortReaderWriter.
type packetConn struct {
	mux      *Mux
	local    int // index of the address
	queue    *controlQueue
	socket   socket // for sending
	addr     *net.UDPAddr
	v6       bool
	deadline *deadline.Deadline // for reading

	agents atomic.Pointer[func(stun []byte) (name []byte)] // set by NameAgents
}

// NameAgents tells how to find out which of ICE's agents a STUN message is for: f returns its name
// as in the message, or nil. Such messages do not take from what other unknown ones have. f is
// called from any goroutine and must not block.
func (c *packetConn) NameAgents(f func(stun []byte) (name []byte)) { c.agents.Store(&f) }

// agent returns the name of the agent that a STUN message is for, nil if there is none.
func (c *packetConn) agent(stun []byte) []byte {
	if f := c.agents.Load(); f != nil {
		return (*f)(stun)
	}
	return nil
}

// Dropped counts a datagram that was handed to ICE and dropped before it had it.
func (c *packetConn) Dropped(reason Drop) { c.mux.counters.drop(reason) }

// ReadFromAddrPort waits for a control datagram.
func (c *packetConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		select {
		case <-c.queue.done:
			return 0, netip.AddrPort{}, c.opError("read", net.ErrClosed)
		default:
		}
		select {
		case <-c.deadline.Done():
			return 0, netip.AddrPort{}, c.opError("read", os.ErrDeadlineExceeded)
		default:
		}
		if n, from, ok := c.queue.pop(b); ok {
			return n, from, nil
		}
		select {
		case <-c.queue.wake:
		case <-c.queue.done:
		case <-c.deadline.Done():
		}
	}
}

// ReadFrom is ReadFromAddrPort with a net.Addr.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteToAddrPort sends b at once. A full socket buffer is no error: the packet is lost as it
// might be on the way.
func (c *packetConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	to = canonical(to)
	if !to.IsValid() || to.Addr().Is6() != c.v6 {
		return 0, c.opError("write", fmt.Errorf("address %s does not fit the socket", to))
	}
	dests, path := &c.mux.dests, NewPath(c.local, to, false)
	c.mux.proven(path) // before the answer to what is sent can be here
	err := c.socket.sendTo(b, to)
	if err == nil {
		if dests.n.Load() > 0 {
			dests.sent(path)
		}
		return len(b), nil
	}
	reason := sendErrorReason(err)
	c.mux.counters.drop(reason)
	if reason.ofDestination() {
		dests.failed(path, reason, 1, c.mux.now())
	}
	if reason != DropSendBuffer {
		return 0, c.opError("write", fmt.Errorf("to %s: %w", to, err))
	}
	return len(b), nil
}

// WriteTo is WriteToAddrPort with a *net.UDPAddr.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", fmt.Errorf("address %v is not of UDP", to))
	}
	return c.WriteToAddrPort(b, addr.AddrPort())
}

// Close ends the reading of control datagrams. The sockets stay open, for media too, until the
// mux is closed.
func (c *packetConn) Close() error {
	c.queue.close()
	return nil
}

// LocalAddr returns the bound address, a *net.UDPAddr.
func (c *packetConn) LocalAddr() net.Addr { return c.addr }

// SetDeadline sets the read deadline; writing does not block.
func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline sets the time at which reading gives up.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.deadline.Set(t)
	return nil
}

// SetWriteDeadline does nothing: writing does not block.
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

func (c *packetConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.addr, Err: err}
}
