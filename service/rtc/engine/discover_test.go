package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

func packetConn(t *testing.T, ip string) net.PacketConn {
	t.Helper()
	conn, err := net.ListenPacket("udp4", ip+":0")
	if err != nil {
		t.Skipf("no second loopback address here: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// stunServer answers binding requests on loopback: reply says what with, for the nth request.
func stunServer(t *testing.T, reply func(n int, request *stun.Message, from netip.AddrPort) [][]byte) net.Addr {
	t.Helper()
	conn := packetConn(t, "127.0.0.1").(*net.UDPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			request := &stun.Message{Raw: append([]byte(nil), buf[:size]...)}
			if err := request.Decode(); err != nil || request.Type != stun.BindingRequest {
				t.Errorf("not a binding request: %x", buf[:size])
				continue
			}
			for _, b := range reply(n, request, from) {
				_, _ = conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr()
}

func success(id [stun.TransactionIDSize]byte, ip netip.Addr) []byte {
	m, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: ip.AsSlice(), Port: 4242})
	if err != nil {
		panic(err)
	}
	return m.Raw
}

// external is what the test servers see an address as.
func external(from netip.Addr) netip.Addr {
	b := from.As4()
	return netip.AddrFrom4([4]byte{203, 0, 113, b[3]})
}

// TestDiscoverAsksAllAtOnce: the server answers nobody before all have asked.
func TestDiscoverAsksAllAtOnce(t *testing.T) {
	t.Parallel()
	conns := []net.PacketConn{packetConn(t, "127.0.0.1"), packetConn(t, "127.0.0.2"), packetConn(t, "127.0.0.3")}
	asked := make(map[netip.AddrPort]bool)
	server := stunServer(t, func(_ int, m *stun.Message, from netip.AddrPort) [][]byte {
		asked[from] = true
		if len(asked) < len(conns) {
			return nil // it will ask again
		}
		return [][]byte{success(m.TransactionID, external(from.Addr()))}
	})
	found, err := Discover(deadline(t, 10*time.Second), conns, server)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(map[netip.Addr]netip.Addr{
		addr("127.0.0.1"): addr("203.0.113.1"), addr("127.0.0.2"): addr("203.0.113.2"), addr("127.0.0.3"): addr("203.0.113.3"),
	})
	if got := fmt.Sprint(found); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestDiscoverAsksAgain: requests and answers may be lost, and what does not belong to the
// transaction is passed over.
func TestDiscoverAsksAgain(t *testing.T) {
	t.Parallel()
	server := stunServer(t, func(n int, m *stun.Message, from netip.AddrPort) [][]byte {
		if n < 2 {
			return nil
		}
		other := m.TransactionID
		other[0] ^= 1
		return [][]byte{
			[]byte("not stun at all"), {}, m.Raw[:10],
			success(other, addr("192.0.2.66")),
			success(m.TransactionID, external(from.Addr())),
		}
	})
	found, err := Discover(deadline(t, 10*time.Second), []net.PacketConn{packetConn(t, "127.0.0.1")}, server)
	if err != nil || found[loopback] != addr("203.0.113.1") {
		t.Errorf("got %v, %v", found, err)
	}
}

// TestDiscoverDeadServer (C4): a server that does not answer costs the time of one transaction,
// however many addresses there are; an address that was answered is found all the same.
func TestDiscoverDeadServer(t *testing.T) {
	t.Parallel()
	if DiscoverTime > 4*time.Second {
		t.Errorf("discovery may take %v, want at most 4 s", DiscoverTime)
	}
	server := stunServer(t, func(_ int, m *stun.Message, from netip.AddrPort) [][]byte {
		if from.Addr() == addr("127.0.0.2") {
			return [][]byte{success(m.TransactionID, external(from.Addr()))}
		}
		return nil
	})
	conns := []net.PacketConn{
		packetConn(t, "127.0.0.1"), packetConn(t, "127.0.0.2"), packetConn(t, "127.0.0.3"), packetConn(t, "127.0.0.4"),
	}
	const limit = 400 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	found, err := Discover(ctx, conns, server)
	if took := time.Since(start); took > 3*limit {
		t.Errorf("took %v with a limit of %v", took, limit)
	}
	if err == nil {
		t.Error("no error although addresses were not answered")
	}
	if got, want := fmt.Sprint(found), "map[127.0.0.2:203.0.113.2]"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}

func TestDiscoverCanBeCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	server := stunServer(t, func(int, *stun.Message, netip.AddrPort) [][]byte {
		cancel()
		return nil
	})
	start := time.Now()
	if _, err := Discover(ctx, []net.PacketConn{packetConn(t, "127.0.0.1")}, server); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v to stop", took)
	}
}

// TestDiscoverRefused: an error response, or a success without an address, is an answer: there is
// nothing to wait for.
func TestDiscoverRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range []stun.MessageType{stun.BindingError, stun.BindingSuccess} {
		server := stunServer(t, func(_ int, m *stun.Message, _ netip.AddrPort) [][]byte {
			r, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), kind)
			if err != nil {
				panic(err)
			}
			return [][]byte{r.Raw}
		})
		start := time.Now()
		found, err := Discover(deadline(t, 10*time.Second), []net.PacketConn{packetConn(t, "127.0.0.1")}, server)
		if err == nil || len(found) != 0 {
			t.Errorf("%v: got %v, %v, want an error", kind, found, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%v: took %v", kind, took)
		}
	}
}
