package netio

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// A faultyNet is the kernel's network whose UDP connections fail to write as told.
type faultyNet struct {
	*stdnet.Net
	fault func(to netip.AddrPort) error
	fast  bool // offer the calls of *net.UDPConn that do not allocate
}

func (n *faultyNet) ListenUDP(network string, addr *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := net.ListenUDP(network, addr)
	if err != nil {
		return nil, err
	}
	slow := faultyConn{UDPConn: conn, fault: n.fault}
	if n.fast {
		return &fastFaultyConn{slow, conn}, nil
	}
	return &slow, nil
}

type faultyConn struct {
	transport.UDPConn
	fault func(to netip.AddrPort) error
}

func (c *faultyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.fault(canonical(to.(*net.UDPAddr).AddrPort())); err != nil {
		return 0, err
	}
	return c.UDPConn.WriteTo(b, to)
}

type fastFaultyConn struct {
	faultyConn
	conn *net.UDPConn
}

func (c *fastFaultyConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.conn.ReadFromUDPAddrPort(b)
}

func (c *fastFaultyConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if err := c.fault(to); err != nil {
		return 0, err
	}
	return c.conn.WriteToUDPAddrPort(b, to)
}

func opError(errno syscall.Errno) error {
	return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", errno)}
}

// The portable twin treats failing destinations and full buffers like the sockets of Linux.
func TestPortableFaults(t *testing.T) {
	for name, fast := range map[string]bool{"plain": false, "fast": true} {
		for errno, reason := range map[syscall.Errno]Drop{
			syscall.EPERM: DropForbidden, syscall.ENETUNREACH: DropUnreachable, syscall.EMSGSIZE: DropTooLarge,
			syscall.ECONNREFUSED: DropSendError, syscall.EIO: DropSendError,
		} {
			t.Run(name+"/"+errno.Error(), func(t *testing.T) { testPortableFault(t, fast, errno, reason) })
		}
	}
}

func testPortableFault(t *testing.T, fast bool, errno syscall.Errno, reason Drop) {
	var bad atomic.Pointer[netip.AddrPort]
	m, _ := listenUDP(t, Config{Net: &faultyNet{Net: newStdNet(t), fast: fast, fault: func(to netip.AddrPort) error {
		if at := bad.Load(); at != nil && *at == to {
			return opError(errno)
		}
		return nil
	}}})
	c := newCrowd(t, m, 5)
	broken := c.paths[2].Remote()
	bad.Store(&broken)
	lost := 0
	c.receive(t, func() []int { return c.send(m, 2, 20) }, func(i int, got tally, sent int) {
		switch {
		case i == 2:
			lost = sent
			if got.packets != 0 {
				t.Errorf("got %d packets", got.packets)
			}
		case got.packets != sent || got.gaps != 0:
			t.Errorf("receiver %d got %d of %d packets", i, got.packets, sent)
		}
	})
	s := m.Stats()
	if s.Drops[reason]+s.Drops[DropPaused] != uint64(lost) || s.Drops[DropPaused] == 0 || s.FailingDestinations != 1 {
		t.Errorf("lost %d; stats %+v", lost, s)
	}
	if f := m.SendFaults(); len(f) != 1 || f[0].To != c.paths[2] || f[0].Packets != s.Drops[reason] || f[0].Last != reason {
		t.Errorf("faults %+v", f)
	}

	// ICE is told, and a packet of it that gets through ends the pause.
	conn := m.UDPConns()[0]
	if _, err := conn.WriteTo(stunRequest(1), c.conns[2].LocalAddr()); err == nil {
		t.Error("no error for ICE")
	}
	if f := m.SendFaults(); len(f) != 1 || f[0].Packets != s.Drops[reason]+1 {
		t.Errorf("faults %+v", f)
	}
	bad.Store(nil)
	if _, err := conn.WriteTo(stunRequest(1), c.conns[2].LocalAddr()); err != nil {
		t.Errorf("WriteTo: %v", err)
	}
	b := m.NewBatch()
	commit(b, "again", c.paths[2])
	b.Flush()
	if got := readAll(t, c.conns[2], 2); got[1] != "again" {
		t.Errorf("got %q", got)
	}
	if s := m.Stats(); s.FailingDestinations != 0 {
		t.Errorf("%d failing", s.FailingDestinations)
	}
}

// No room: the rest of the flush is dropped without waiting for each packet of it, and nobody is
// blamed. A deadline that passed before the write began is no such thing.
func TestPortableFullBuffer(t *testing.T) {
	full := map[string]error{
		"EAGAIN": opError(syscall.EAGAIN), "ENOBUFS": opError(syscall.ENOBUFS),
		"deadline": &net.OpError{Op: "write", Net: "udp", Err: os.ErrDeadlineExceeded},
	}
	for name, err := range full {
		t.Run(name, func(t *testing.T) {
			writes, from := 0, 10
			m, _ := listenUDP(t, Config{Net: &faultyNet{Net: newStdNet(t), fast: true, fault: func(netip.AddrPort) error {
				writes++
				if writes > from || name == "deadline" && writes == 5 {
					return err
				}
				return nil
			}}})
			c := peer(t)
			b := m.NewBatch()
			for i := range 20 {
				commit(b, string(rtp(i, 100)), mustPath(t, m, addrOf(c)))
			}
			b.Flush()
			sent, tried := 10, 11
			if name == "deadline" { // two writes for each that fails so
				sent, tried = 9, 12
			}
			if s := m.Stats(); s.TxPackets != uint64(sent) || s.Drops != (Drops{DropSendBuffer: uint64(20 - sent)}) || s.FailingDestinations != 0 {
				t.Errorf("stats %+v", s)
			}
			if writes != tried {
				t.Errorf("%d writes, want %d", writes, tried)
			}
			from = 1 << 30
			commit(b, "next", mustPath(t, m, addrOf(c)))
			b.Flush()
			got := readAll(t, c, sent+1)
			for i := range sent {
				if got[i] != string(rtp(i, 100)) {
					t.Errorf("packet %d differs", i)
				}
			}
			if got[sent] != "next" {
				t.Errorf("got %q", got[sent])
			}
		})
	}
}
