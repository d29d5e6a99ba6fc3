package rtctest

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/deadline"
)

// arrivalQueue is how many datagrams wait to be read from a socket.
const arrivalQueue = 2048

// impairedNet is a network whose UDP passes a link.
type impairedNet struct {
	transport.Net
	link *Link
}

func (n *impairedNet) ListenPacket(network, address string) (net.PacketConn, error) {
	conn, err := n.Net.ListenPacket(network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(transport.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s %s: not UDP", network, address)
	}
	return n.link.impair(udp), nil
}

func (n *impairedNet) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := n.Net.ListenUDP(network, local)
	if err != nil {
		return nil, err
	}
	return n.link.impair(conn), nil
}

func (n *impairedNet) DialUDP(network string, local, remote *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := n.Net.DialUDP(network, local, remote)
	if err != nil {
		return nil, err
	}
	return n.link.impair(conn), nil
}

func (n *impairedNet) Dial(network, address string) (net.Conn, error) {
	conn, err := n.Net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	if udp, ok := conn.(transport.UDPConn); ok {
		return n.link.impair(udp), nil
	}
	return conn, nil
}

// impairedConn is a socket behind a link. A goroutine reads for it until it is closed.
type impairedConn struct {
	transport.UDPConn
	link *Link

	arrived chan arrival
	read    *deadline.Deadline
	closing sync.Once
	closed  chan struct{}
	done    chan struct{} // the goroutine has ended
}

type arrival struct {
	data []byte
	from net.Addr
}

func (l *Link) impair(conn transport.UDPConn) *impairedConn {
	c := &impairedConn{
		UDPConn: conn, link: l,
		arrived: make(chan arrival, arrivalQueue), read: deadline.New(),
		closed: make(chan struct{}), done: make(chan struct{}),
	}
	go func() {
		defer close(c.done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			l.Down.send(datagram{conn: c, data: b[:n], addr: from})
		}
	}()
	return c
}

// arrive queues a datagram for the reader. It reports whether there was room.
func (c *impairedConn) arrive(data []byte, from net.Addr) bool {
	select {
	case c.arrived <- arrival{append([]byte(nil), data...), from}:
		return true
	default:
		return false
	}
}

// transmit sends a datagram behind the link. It reports whether that went well.
func (c *impairedConn) transmit(data []byte, to net.Addr) bool {
	var err error
	if to == nil {
		_, err = c.UDPConn.Write(data)
	} else {
		_, err = c.UDPConn.WriteTo(data, to)
	}
	return err == nil
}

func (c *impairedConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-c.read.Done():
		return 0, nil, c.fault("read", os.ErrDeadlineExceeded)
	case <-c.closed:
		return 0, nil, c.fault("read", net.ErrClosed)
	default:
	}
	select {
	case a := <-c.arrived:
		n := copy(b, a.data)
		if n < len(a.data) {
			return n, a.from, io.ErrShortBuffer
		}
		return n, a.from, nil
	case <-c.read.Done():
		return 0, nil, c.fault("read", os.ErrDeadlineExceeded)
	case <-c.closed:
		return 0, nil, c.fault("read", net.ErrClosed)
	}
}

func (c *impairedConn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Addr: c.LocalAddr(), Err: err}
}

func (c *impairedConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

func (c *impairedConn) ReadFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, from, err := c.ReadFrom(b)
	udp, _ := from.(*net.UDPAddr)
	return n, udp, err
}

func (c *impairedConn) ReadMsgUDP([]byte, []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	return 0, 0, 0, nil, transport.ErrNotSupported
}

func (c *impairedConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, c.fault("write", net.ErrClosed)
	default:
	}
	c.link.Up.send(datagram{conn: c, data: b, addr: to})
	return len(b), nil
}

func (c *impairedConn) WriteToUDP(b []byte, to *net.UDPAddr) (int, error) { return c.WriteTo(b, to) }

func (c *impairedConn) Write(b []byte) (int, error) { return c.WriteTo(b, nil) }

func (c *impairedConn) WriteMsgUDP([]byte, []byte, *net.UDPAddr) (n, oobn int, err error) {
	return 0, 0, transport.ErrNotSupported
}

func (c *impairedConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *impairedConn) SetReadDeadline(t time.Time) error {
	c.read.Set(t)
	return nil
}

func (c *impairedConn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		close(c.closed)
		err = c.UDPConn.Close()
		c.read.Set(time.Time{})
	})
	<-c.done
	return err
}
