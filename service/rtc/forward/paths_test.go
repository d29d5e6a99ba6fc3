package forward

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"rtcd/service/rtc/netio"
)

func (p *paths) empty() bool {
	for i := range p.parts {
		if p.parts[i].Load() != nil {
			return false
		}
	}
	return true
}

// somePath returns one of 1,024 paths, in 256 parts of a table or in one.
func somePath(i int, crowded bool) netio.Path {
	port := uint16(1024 + i)
	if crowded {
		port = uint16(i & 0xff)
		port |= port << 8 // equal halves cancel out
	}
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), 0, 1})
	return netio.NewPath(0, netip.AddrPortFrom(addr, port), i%2 == 0)
}

func TestPaths(t *testing.T) {
	for _, crowded := range []bool{false, true} {
		var p paths
		want := make(map[netio.Path]*Peer)
		random := rand.New(rand.NewPCG(1, 2))
		for range 10_000 {
			path := somePath(random.IntN(1024), crowded)
			if random.IntN(2) == 0 {
				want[path] = new(Peer)
				p.set(path, want[path])
			} else {
				delete(want, path)
				p.set(path, nil)
			}
			if other := somePath(random.IntN(1024), crowded); p.find(other) != want[other] {
				t.Fatalf("%v is on %p, want %p", other, p.find(other), want[other])
			}
		}
		for i := range 1024 {
			path := somePath(i, crowded)
			if p.find(path) != want[path] {
				t.Fatalf("%v is on %p, want %p", path, p.find(path), want[path])
			}
			p.set(path, nil)
		}
		if !p.empty() {
			t.Error("paths without peers are kept")
		}
	}
}

func TestPathsAreFoundWhileOthersChange(t *testing.T) {
	var p paths
	stays := new(Peer)
	p.set(somePath(0, true), stays)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if p.find(somePath(0, true)) != stays {
						t.Error("a path was lost")
						return
					}
				}
			}
		})
	}
	for i := range 2000 {
		p.set(somePath(1+i%100, true), new(Peer))
		p.set(somePath(1+(i+50)%100, true), nil)
	}
	close(stop)
	wg.Wait()
}

// BenchmarkAttach is what a path costs when there are many already.
func BenchmarkAttach(b *testing.B) {
	var p paths
	for i := range 5000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		p.set(netio.NewPath(0, netip.AddrPortFrom(addr, uint16(40_000+i%977)), false), new(Peer))
	}
	path := netio.NewPath(0, netip.MustParseAddrPort("192.0.2.1:5000"), false)
	peer := new(Peer)
	for b.Loop() {
		p.set(path, peer)
	}
}
