//go:build linux

package field

import (
	"fmt"
	"net"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// Net is the namespace as pion wants networks.
func (n *Namespace) Net() (transport.Net, error) {
	var std *stdnet.Net
	var err error
	n.Do(func() { std, err = stdnet.NewNet() })
	if err != nil {
		return nil, fmt.Errorf("look at the interfaces of %s: %w", n.Name, err)
	}
	return &insideNet{Net: std, n: n}, nil
}

// patientBuffer is that of an endpoint's sockets, which one machine has to read beside all others: what they
// drop says nothing about the server.
const patientBuffer = 4 << 20

// insideNet makes its sockets in a namespace.
type insideNet struct {
	*stdnet.Net
	n *Namespace
}

// Interfaces looks anew: hosts move.
func (i *insideNet) Interfaces() ([]*transport.Interface, error) {
	var std *stdnet.Net
	var err error
	i.n.Do(func() { std, err = stdnet.NewNet() })
	if err != nil {
		return nil, err
	}
	return std.Interfaces()
}

func (i *insideNet) ListenPacket(network, addr string) (conn net.PacketConn, err error) {
	i.n.Do(func() { conn, err = i.Net.ListenPacket(network, addr) })
	return conn, err
}

func (i *insideNet) ListenUDP(network string, addr *net.UDPAddr) (conn transport.UDPConn, err error) {
	i.n.Do(func() { conn, err = i.Net.ListenUDP(network, addr) })
	if err == nil {
		_ = conn.SetReadBuffer(patientBuffer) // as much of it as there may be
	}
	return conn, err
}

func (i *insideNet) Dial(network, addr string) (conn net.Conn, err error) {
	i.n.Do(func() { conn, err = i.Net.Dial(network, addr) })
	return conn, err
}

func (i *insideNet) DialUDP(network string, laddr, raddr *net.UDPAddr) (conn transport.UDPConn, err error) {
	i.n.Do(func() { conn, err = i.Net.DialUDP(network, laddr, raddr) })
	return conn, err
}

func (i *insideNet) DialTCP(network string, laddr, raddr *net.TCPAddr) (conn transport.TCPConn, err error) {
	i.n.Do(func() { conn, err = i.Net.DialTCP(network, laddr, raddr) })
	return conn, err
}

func (i *insideNet) CreateDialer(d *net.Dialer) transport.Dialer {
	return insideDialer{n: i.n, Dialer: i.Net.CreateDialer(d)}
}

// insideDialer dials from a namespace.
type insideDialer struct {
	transport.Dialer
	n *Namespace
}

func (d insideDialer) Dial(network, addr string) (conn net.Conn, err error) {
	d.n.Do(func() { conn, err = d.Dialer.Dial(network, addr) })
	return conn, err
}
