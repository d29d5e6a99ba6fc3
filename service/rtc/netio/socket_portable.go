package netio

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v4"
)

// portableSocket is the twin of the Linux socket over any packet connection: one call per packet.
type portableSocket struct {
	conn    net.PacketConn
	fast    addrPortConn // conn, if it can do without allocations
	closing chan struct{}
	closed  atomic.Bool
	renew   atomic.Int64 // when the write deadline is to be moved, in Unix nanoseconds
}

// writePatience bounds how long a write waits for room, twice in a row at most.
const writePatience = 50 * time.Millisecond

// addrPortConn is what *net.UDPConn offers beyond net.PacketConn.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
}

// openPortable opens one socket with listen.
func openPortable(listen func(string, *net.UDPAddr) (transport.UDPConn, error), addr netip.AddrPort) ([]socket, netip.AddrPort, error) {
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	conn, err := listen(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	bound, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		_ = conn.Close()
		return nil, netip.AddrPort{}, errors.New("local address is not of UDP")
	}
	_ = conn.SetReadBuffer(wantedBuffer) // refusal is tolerated
	_ = conn.SetWriteBuffer(wantedBuffer)
	s := &portableSocket{conn: conn, closing: make(chan struct{})}
	s.fast, _ = conn.(addrPortConn)
	return []socket{s}, canonical(bound.AddrPort()), nil
}

func (s *portableSocket) serve(rx *receiver) {
	buf := make([]byte, maxDatagram+1) // one more shows what does not fit
	for {
		if err := s.receive(rx, buf); err == nil {
			continue
		} else if s.closed.Load() || errors.Is(err, net.ErrClosed) {
			return
		}
		// Some systems report here what happened to a packet sent. Nothing to repair, but an
		// error that stays must not spin.
		select {
		case <-s.closing:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// receive waits for one datagram and runs it to completion.
func (s *portableSocket) receive(rx *receiver, buf []byte) error {
	n, from, err := s.read(buf)
	if err != nil {
		return err
	}
	if n > maxDatagram {
		rx.counts.drop(DropTruncated)
	} else if from.IsValid() {
		from = canonical(from)
		rx.datagram(buf[:n:n], NewPath(int(rx.local)-1, from, false))
	}
	rx.flush()
	return nil
}

func (s *portableSocket) read(buf []byte) (int, netip.AddrPort, error) {
	if s.fast != nil {
		return s.fast.ReadFromUDPAddrPort(buf)
	}
	n, from, err := s.conn.ReadFrom(buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	addr, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, nil
	}
	return n, addr.AddrPort(), nil
}

func (s *portableSocket) sendBatch(b *Batch, local uint16, o *outlet) {
	full := false
	for i := range b.n {
		if !o.due(b, i, local) {
			continue
		}
		if full {
			o.tx.drop(DropSendBuffer, 1)
			continue
		}
		to, packet := &b.to[i], b.packet(i)
		if err := s.sendTo(packet, to.Remote()); err != nil {
			why := sendErrorReason(err)
			o.failed(to, why, 1)
			full = why == DropSendBuffer
			continue
		}
		o.sent(to, 1, len(packet), o.marks[i])
	}
}

// sendTo sends one packet. Packet connections wait for room in the socket buffer; that is bounded
// here, as there is no way to ask for none.
func (s *portableSocket) sendTo(b []byte, to netip.AddrPort) error {
	now := time.Now()
	if now.UnixNano() > s.renew.Load() {
		s.renewDeadline(now)
	}
	err := s.write(b, to)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Perhaps it had passed before we came to write.
		s.renewDeadline(time.Now())
		err = s.write(b, to)
	}
	return err
}

func (s *portableSocket) renewDeadline(now time.Time) {
	s.renew.Store(now.Add(writePatience / 2).UnixNano())
	_ = s.conn.SetWriteDeadline(now.Add(writePatience)) // refusal is tolerated
}

func (s *portableSocket) write(b []byte, to netip.AddrPort) error {
	var err error
	if s.fast != nil {
		_, err = s.fast.WriteToUDPAddrPort(b, to)
	} else {
		_, err = s.conn.WriteTo(b, net.UDPAddrFromAddrPort(to))
	}
	return err
}

func (s *portableSocket) segments() bool { return false }

func (s *portableSocket) buffers() (read, write int) { return 0, 0 }

func (s *portableSocket) stop() error {
	if s.closed.Swap(true) {
		return nil
	}
	close(s.closing)
	return s.conn.Close()
}

func (s *portableSocket) close() error { return nil }
