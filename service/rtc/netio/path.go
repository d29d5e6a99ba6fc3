package netio

import (
	"fmt"
	"net/netip"
)

// pathTCP marks a path whose datagrams are RFC 4571 frames of a TCP connection.
const pathTCP uint16 = 1

// Path names where one endpoint's datagrams come from and go to: one of our local addresses and
// a remote address, over UDP or TCP. It is comparable and holds no pointers, so it makes a cheap
// map key. The zero Path leads nowhere.
type Path struct {
	addr  [16]byte // IPv4 in its mapped form
	port  uint16
	local uint16 // one more than the index of the local address, so that 0 is no path
	flags uint16
}

// NewPath returns the path from the local address with the given index (0 is the first address
// of its Config) to remote. It is meant for tests of a data plane that runs without sockets;
// Mux.Path finds the path of an ICE candidate pair.
func NewPath(local int, remote netip.AddrPort, tcp bool) Path {
	p := Path{addr: remote.Addr().As16(), port: remote.Port(), local: uint16(local + 1)}
	if tcp {
		p.flags = pathTCP
	}
	return p
}

// Remote returns the address at the far end, IPv4 unmapped.
func (p Path) Remote() netip.AddrPort {
	return netip.AddrPortFrom(p.remoteAddr(), p.port)
}

// TCP reports whether the path is a TCP connection.
func (p Path) TCP() bool { return p.flags&pathTCP != 0 }

// IsZero reports whether p is the zero Path.
func (p Path) IsZero() bool { return p == Path{} }

// Spread returns a number that differs between many paths, for tables in parts.
func (p Path) Spread() uint8 {
	return uint8(p.port) ^ uint8(p.port>>8) ^ p.addr[15] ^ p.addr[14]
}

// String returns the path in a form for logs, such as "udp0:192.0.2.7:4000".
func (p Path) String() string {
	if p.IsZero() {
		return "none"
	}
	network := "udp"
	if p.TCP() {
		network = "tcp"
	}
	return fmt.Sprintf("%s%d:%s", network, int(p.local)-1, p.Remote())
}

func (p Path) remoteAddr() netip.Addr {
	return netip.AddrFrom16(p.addr).Unmap()
}

// canonical returns a with an IPv4-mapped address unmapped and without a zone.
func canonical(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// sourceKey is the part of an address that limits per source are counted by: an IPv4 address, or
// the /64 an IPv6 host can choose its addresses from.
func sourceKey(addr [16]byte) [16]byte {
	if !netip.AddrFrom16(addr).Is4In6() {
		clear(addr[8:])
	}
	return addr
}
