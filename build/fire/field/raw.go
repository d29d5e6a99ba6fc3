//go:build linux

package field

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// RawSocket sends IP packets as they are.
type RawSocket struct{ fd int }

// Send sends an IPv4 packet, header included, to the destination in its header.
func (s *RawSocket) Send(packet []byte) error {
	if len(packet) < 20 {
		return fmt.Errorf("send an IP packet of %d bytes: too short", len(packet))
	}
	to := unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
	if err := unix.Sendto(s.fd, packet, 0, &to); err != nil {
		return fmt.Errorf("send an IP packet: %w", err)
	}
	return nil
}

// Close closes the socket.
func (s *RawSocket) Close() error { return unix.Close(s.fd) }

// AppendUDP appends an IPv4 packet with a datagram. The checksum of UDP is left out, as it may be
// (RFC 768); the kernel fills in that of the IP header.
func AppendUDP(b []byte, from, to netip.AddrPort, payload []byte) []byte {
	size := 28 + len(payload)
	b = append(b, 0x45, 0, byte(size>>8), byte(size), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	b = append(b, from.Addr().AsSlice()...)
	b = append(b, to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	return append(b, payload...)
}
