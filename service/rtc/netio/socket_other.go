//go:build !linux || portable

package netio

import (
	"net"
	"net/netip"

	"github.com/pion/transport/v4"
)

// sendState is what a batch needs for sending with few calls: nothing here.
type sendState struct{}

func newSendState(int) *sendState { return nil }

// adoptKernel cannot take over sockets.
func adoptKernel([]int, int) ([]socket, netip.AddrPort, error) {
	return nil, netip.AddrPort{}, ErrNoHandover
}

// duplicateListener cannot either.
func duplicateListener(net.Listener) (int, error) { return 0, ErrNoHandover }

// adoptListener cannot either.
func adoptListener(int) (net.Listener, error) { return nil, ErrNoHandover }

func closeFD(int) {}

// openKernel opens one socket of the kernel's network.
func openKernel(addr netip.AddrPort, _, _ int) ([]socket, netip.AddrPort, error) {
	return openPortable(func(network string, a *net.UDPAddr) (transport.UDPConn, error) {
		return net.ListenUDP(network, a)
	}, addr)
}
