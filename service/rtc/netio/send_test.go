package netio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// readAll reads n packets from c.
func readAll(t testing.TB, c *net.UDPConn, n int) []string {
	t.Helper()
	var all []string
	for range n {
		body, _ := readPacket(t, c)
		all = append(all, body)
	}
	return all
}

// isPortable reports whether the portable twin is at work.
func isPortable(m *Mux) bool {
	_, ok := m.groups[0].sockets[0].(*portableSocket)
	return ok
}

func TestBatchKeepsOrderPerDestination(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		for _, segments := range []int{1, 10} {
			cfg.MaxSegments = segments
			m, _ := listenUDP(t, cfg)
			peers := []*net.UDPConn{peer(t), peer(t), peer(t)}
			b := m.NewBatch()
			// Runs of all kinds: equal, shorter last, growing, single, of 12 (more than one
			// message), and interleaved destinations.
			sizes := []int{100, 100, 100, 60, 60, 80, 90, 1200, 1200, 1200, 1100, 20}
			number := 0
			for round := range 30 {
				want := make([][]string, len(peers))
				send := func(to int, size int) {
					body := string(rtp(number, size))
					number++
					want[to] = append(want[to], body)
					commit(b, body, mustPath(t, m, addrOf(peers[to])))
				}
				for i := range peers {
					for k, size := range sizes[:1+(round+i)%len(sizes)] {
						if round%3 == 0 {
							size = sizes[0]
						}
						send(i, size)
						if k%5 == 4 && round%2 == 0 {
							send((i+1)%len(peers), size)
						}
					}
				}
				b.Flush()
				for i, c := range peers {
					for k, got := range readAll(t, c, len(want[i])) {
						if got != want[i][k] {
							t.Fatalf("segments %d, round %d, peer %d: packet %d is %q (%d bytes), want %q (%d)", segments,
								round, i, k, got[12:20], len(got), want[i][k][12:20], len(want[i][k]))
						}
					}
				}
			}
			s := m.Stats()
			if s.Drops != (Drops{}) || s.GSOFallbacks != 0 {
				t.Errorf("drops %v, fallbacks %d", s.Drops, s.GSOFallbacks)
			}
			if segments == 1 && s.TxMessages != s.TxPackets {
				t.Errorf("%d messages for %d packets without segmentation", s.TxMessages, s.TxPackets)
			}
			if s.GSO && s.TxMessages >= s.TxPackets {
				t.Errorf("%d messages for %d packets with segmentation", s.TxMessages, s.TxPackets)
			}
		}
	})
}

func TestBadDestinationLosesNothingElse(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		m, _ := listenUDP(t, cfg)
		c := peer(t)
		good := mustPath(t, m, addrOf(c))
		bad := mustPath(t, m, netip.MustParseAddrPort("127.0.0.1:0")) // EINVAL
		elsewhere := NewPath(7, addrOf(c), false)                     // no such local address
		b := m.NewBatch()
		var want []string
		for i := range 40 {
			body := string(rtp(i, 100))
			switch i {
			case 0, 13, 14, 15, 39:
				commit(b, body, bad)
			case 20:
				commit(b, body, elsewhere)
			case 21:
				commit(b, body, Path{})
			case 22:
				b.Commit(0, good)
			default:
				want = append(want, body)
				commit(b, body, good)
			}
		}
		b.Flush()
		if got := readAll(t, c, len(want)); strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("got %d packets, not those expected", len(got))
		}
		s := m.Stats()
		if s.TxPackets != uint64(len(want)) || s.Drops[DropSendError] != 5 || s.Drops[DropNoPath] != 1 {
			t.Errorf("sent %d, drops %v", s.TxPackets, s.Drops)
		}
		if s.GSO == isPortable(m) {
			t.Errorf("GSO %v after a bad destination", s.GSO)
		}
	})
}

func TestManyDestinations(t *testing.T) {
	const (
		peers        = 200
		destinations = 4000 // addresses and ports no one listens on, between those of the peers
	)
	m, _ := listenUDP(t, Config{})
	conns := make([]*net.UDPConn, peers)
	for i := range conns {
		conns[i] = peer(t)
	}
	b := m.NewBatch()
	for i := range destinations {
		addr := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
		commit(b, string(rtp(i, 120)), mustPath(t, m, netip.AddrPortFrom(addr, 9)))
		if i%(destinations/peers) == 0 {
			n := i / (destinations / peers)
			commit(b, fmt.Sprintf("packet for peer %d", n), mustPath(t, m, addrOf(conns[n])))
		}
	}
	b.Flush()
	for i, c := range conns {
		if body, _ := readPacket(t, c); body != fmt.Sprintf("packet for peer %d", i) {
			t.Errorf("peer %d got %q", i, body)
		}
	}
	if s := m.Stats(); s.TxPackets != destinations+peers {
		t.Errorf("sent %d, want %d; drops %v", s.TxPackets, destinations+peers, s.Drops)
	}
}

func TestBatchFunc(t *testing.T) {
	var got []string
	b := NewBatchFunc(func(packet []byte, to Path) { got = append(got, fmt.Sprint(to, " ", string(packet))) })
	path := NewPath(0, netip.MustParseAddrPort("[2001:db8::1]:5000"), false)
	s := b.Slot()
	if len(s) != 0 || cap(s) < 1600 {
		t.Errorf("slot of length %d, capacity %d", len(s), cap(s))
	}
	b.Commit(len(append(s, "first"...)), path)
	if len(got) != 0 {
		t.Error("sent before Flush")
	}
	for i := 1; i < batchSlots; i++ { // the last one flushes
		b.Commit(copy(b.Slot()[:9], "following"), path)
	}
	if len(got) != batchSlots || got[0] != "udp0:[2001:db8::1]:5000 first" || !strings.HasSuffix(got[255], "following") {
		t.Errorf("got %d: %v", len(got), got[0])
	}
	if string(s[:5]) != "first" {
		t.Error("a slot changed when the batch flushed itself")
	}
	b.Flush()
	if len(got) != batchSlots {
		t.Error("sent twice")
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic for a packet larger than its slot")
		}
	}()
	b.Commit(slotSize+1, path)
}

func TestSendingAfterClose(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		m, addr := listenUDP(t, cfg)
		b := m.NewBatch()
		conn := m.UDPConns()[0]
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		commit(b, "late", mustPath(t, m, addr))
		b.Flush()
		if s := m.Stats(); s.TxPackets != 0 || s.Drops[DropNoPath] != 1 {
			t.Errorf("sent %d, drops %v", s.TxPackets, s.Drops)
		}
		if _, err := conn.WriteTo([]byte("late"), net.UDPAddrFromAddrPort(addr)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteTo: %v", err)
		}
		if _, _, err := conn.ReadFrom(make([]byte, 10)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom: %v", err)
		}
	})
}

func TestCommitAndFlushDoNotAllocate(t *testing.T) {
	m, _ := listenUDP(t, Config{})
	a, c := mustPath(t, m, addrOf(peer(t))), mustPath(t, m, addrOf(peer(t)))
	bad := mustPath(t, m, netip.MustParseAddrPort("127.0.0.1:0"))
	if isPortable(m) {
		bad = c // package net allocates its errors
	}
	b := m.NewBatch()
	packet := rtp(1, 1000)
	if n := testing.AllocsPerRun(20, func() {
		for i := range 300 { // more than a batch
			to := a
			if i%7 == 0 {
				to = c
			} else if i%97 == 0 {
				to = bad
			}
			b.Commit(copy(b.Slot()[:slotSize], packet), to)
		}
		b.Flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
