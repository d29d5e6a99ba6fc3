package netio

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// The benchmarks count processor time of the whole process for one packet over loopback, next to
// one plain system call for each packet, measured in turns in the same run: the ratio is what
// compares between machines.

// sinkhole is a socket that throws away what is sent to any of our addresses: its buffer is full
// after a packet.
func sinkhole(b *testing.B) uint16 {
	b.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		b.Fatal(err)
	}
	_ = c.SetReadBuffer(1)
	b.Cleanup(func() { _ = c.Close() })
	return addrOf(c).Port()
}

// holes returns paths to n destinations that end in a sinkhole.
func holes(b *testing.B, m *Mux, n int) []Path {
	b.Helper()
	port := sinkhole(b)
	paths := make([]Path, n)
	for i := range paths {
		addr := netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)})
		paths[i] = mustPath(b, m, netip.AddrPortFrom(addr, port))
	}
	return paths
}

// senders are the ways to send that are compared.
var senders = []struct {
	name     string
	segments int
	portable bool
}{{"gso", 10, false}, {"sendmmsg", 1, false}, {"portable", 1, true}}

// shapes are the packets for one destination, by their sizes.
var shapes = []struct {
	name  string
	sizes []int
}{
	{"single-120", []int{120}},
	{"single-1200", []int{1200}},
	{"five-equal", []int{1200, 1200, 1200, 1200, 1200}},
	{"five-last-shorter", []int{1200, 1200, 1200, 1200, 500}},
	{"five-mixed", []int{1180, 1200, 600, 1190, 1200}},
}

func BenchmarkSend(b *testing.B) {
	for _, shape := range shapes {
		for _, way := range senders {
			b.Run(shape.name+"/"+way.name, func(b *testing.B) {
				cfg := Config{MaxSegments: way.segments, SocketsPerAddr: 1}
				if way.portable {
					cfg.Net = newStdNet(b)
				}
				benchmarkSend(b, cfg, shape.sizes, func(*Mux, []Path) {})
			})
		}
	}
	// What it costs everybody that somebody fails.
	b.Run("single-120/gso-1-of-30-failing", func(b *testing.B) {
		benchmarkSend(b, Config{SocketsPerAddr: 1}, []int{120}, func(m *Mux, paths []Path) {
			m.dests.failed(paths[0], DropForbidden, 1, m.now())
			m.dests.failed(NewPath(0, remote(1), false), DropForbidden, 1, m.now())
		})
	})
}

func benchmarkSend(b *testing.B, cfg Config, sizes []int, prepare func(*Mux, []Path)) {
	m, _ := listenUDP(b, cfg)
	paths := holes(b, m, 30)
	prepare(m, paths)
	packets := make([][]byte, len(sizes))
	for i, size := range sizes {
		packets[i] = rtp(i, size)
	}
	batch := m.NewBatch()
	reference := listen(b, Config{UDPAddrs: []netip.AddrPort{loopback}, SocketsPerAddr: 1}).groups[0].sockets[0]
	ours := func() {
		for _, to := range paths {
			for _, p := range packets {
				batch.Commit(copy(batch.Slot()[:slotSize], p), to)
			}
		}
		batch.Flush()
	}
	plain := func() {
		for _, to := range paths {
			for _, p := range packets {
				_ = reference.sendTo(p, to.Remote())
			}
		}
	}
	compare(b, len(paths)*len(packets), "sendto", ours, plain)
	if s := m.Stats(); s.Drops != (Drops{}) || s.GSOFallbacks != 0 {
		b.Errorf("drops %v, %d fallbacks", s.Drops, s.GSOFallbacks)
	}
}

// compare measures a function that handles so many packets, and next to it, in turns, the plain
// way.
func compare(b *testing.B, packets int, plainName string, ours, plain func()) {
	b.Helper()
	const turn = 16
	ours()
	plain()
	b.ReportAllocs()
	b.ResetTimer()
	var mine, theirs time.Duration
	for done := 0; done < b.N; done += turn {
		n := min(turn, b.N-done)
		start := cpuTime()
		for range n {
			ours()
		}
		middle := cpuTime()
		for range n {
			plain()
		}
		mine += middle - start
		theirs += cpuTime() - middle
	}
	n := float64(b.N * packets)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(mine)/n, "cpu-ns/packet")
	b.ReportMetric(float64(theirs)/n, plainName+"-cpu-ns/packet")
	if theirs > 0 {
		b.ReportMetric(float64(mine)/float64(theirs), "ratio")
	}
}

// BenchmarkSplit sends rounds to 1,000 destinations with one goroutine, and with two that share
// them (over one socket, over two), handing over each round: what a fan-out would gain that is
// spread over cores.
func BenchmarkSplit(b *testing.B) {
	for _, shape := range []struct {
		name  string
		sizes []int
	}{{"single-120", []int{120}}, {"five-equal", []int{1200, 1200, 1200, 1200, 1200}}} {
		for _, way := range []struct {
			name            string
			workers, socket int
		}{{"one", 1, 1}, {"two-on-one-socket", 2, 1}, {"two-on-two-sockets", 2, 2}} {
			b.Run(shape.name+"/"+way.name, func(b *testing.B) {
				benchmarkSplit(b, shape.sizes, way.workers, way.socket)
			})
		}
	}
}

func benchmarkSplit(b *testing.B, sizes []int, workers, sockets int) {
	m, _ := listenUDP(b, Config{SocketsPerAddr: sockets})
	paths := holes(b, m, 1000)
	share := len(paths) / workers
	send := func(batch *Batch, paths []Path) {
		for _, to := range paths {
			for _, size := range sizes {
				batch.Slot()
				batch.Commit(size, to)
			}
		}
		batch.Flush()
	}
	first := m.NewBatch()
	var wg sync.WaitGroup
	round, done := make(chan struct{}), make(chan struct{})
	for w := 1; w < workers; w++ {
		batch := m.NewBatch()
		wg.Go(func() {
			for range round {
				send(batch, paths[w*share:(w+1)*share])
				done <- struct{}{}
			}
		})
	}
	b.ResetTimer()
	cpu := cpuTime()
	for range b.N {
		for range workers - 1 {
			round <- struct{}{}
		}
		send(first, paths[:share])
		for range workers - 1 {
			<-done
		}
	}
	n := float64(b.N * len(paths) * len(sizes))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(b.Elapsed())/n, "wall-ns/packet")
	b.ReportMetric(float64(cpuTime()-cpu)/n, "cpu-ns/packet")
	close(round)
	wg.Wait()
}

// BenchmarkTransit measures the time from a packet's way to us to its way back, over loopback,
// while bursts come at a steady rate and each packet goes to four destinations: batches with and
// without segments next to one packet for each call.
func BenchmarkTransit(b *testing.B) {
	for _, way := range senders {
		b.Run(way.name, func(b *testing.B) {
			cfg := Config{MaxSegments: way.segments, SocketsPerAddr: 1}
			if way.portable {
				cfg.Net = newStdNet(b)
			}
			benchmarkTransit(b, cfg)
		})
	}
}

// fanOut sends what it gets to all paths.
type fanOut struct {
	out     *Batch
	paths   *[]Path
	pending [][]byte
}

func (f *fanOut) NewReader(out *Batch) Reader { return &fanOut{out: out, paths: f.paths} }
func (f *fanOut) Known(Path) bool             { return true }
func (f *fanOut) Receive(b []byte, _ Path)    { f.pending = append(f.pending, b) }
func (f *fanOut) Flush() {
	for _, to := range *f.paths {
		for _, b := range f.pending {
			f.out.Commit(copy(f.out.Slot()[:slotSize], b), to)
		}
	}
	f.pending = f.pending[:0]
}

func benchmarkTransit(b *testing.B, cfg Config) {
	const burst, fan, interval = 5, 4, time.Millisecond
	paths := make([]Path, 0, fan)
	cfg.Media = &fanOut{paths: &paths}
	m, addr := listenUDP(b, cfg)
	sender := peer(b)
	conns := make([]*net.UDPConn, fan)
	for i := range conns {
		conns[i] = peer(b)
		paths = append(paths, mustPath(b, m, addrOf(conns[i])))
	}
	start := time.Now()
	delays := make([][]time.Duration, fan)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			buf := make([]byte, maxDatagram)
			for len(delays[i]) < b.N*burst {
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := c.Read(buf); err != nil {
					b.Errorf("read: %v", err)
					return
				}
				delays[i] = append(delays[i], time.Since(start)-time.Duration(binary.BigEndian.Uint64(buf[12:])))
			}
		})
	}
	b.ResetTimer()
	packet := rtp(0, 1000)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for range b.N {
		<-tick.C
		for range burst {
			binary.BigEndian.PutUint64(packet[12:], uint64(time.Since(start)))
			_, _ = sender.WriteToUDPAddrPort(packet, addr)
		}
	}
	wg.Wait()
	all := slices.Concat(delays...)
	slices.Sort(all)
	b.ReportMetric(0, "ns/op")
	for _, p := range []int{50, 95, 99} {
		b.ReportMetric(float64(all[(len(all)-1)*p/100])/1000, fmt.Sprintf("p%d-us", p))
	}
}

// BenchmarkPauses measures what it costs that every one of 2,000 destinations is failing.
func BenchmarkPauses(b *testing.B) {
	var d destinations
	batch := NewBatchFunc(func([]byte, Path) {})
	paths := make([]Path, 2000)
	for i := range paths {
		paths[i] = NewPath(0, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 9), false)
		d.failed(paths[i], DropForbidden, 1, 1)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range batchSlots - 1 {
		batch.Slot()
		batch.Commit(1, paths[rng.IntN(len(paths))])
	}
	marks := make([]mark, batchSlots)
	for b.Loop() {
		d.mark(batch, marks, 2)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch.n), "ns/packet")
}
