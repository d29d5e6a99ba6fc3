package netio

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

const (
	checkedHeader = 28 // RTP, destination, stream, number, and a checksum over all
	maxChecked    = 1200
)

// checkedPacket appends a packet whose bytes can all be checked.
func checkedPacket(b []byte, rng *rand.Rand, destination, stream, number, size int) []byte {
	start := len(b)
	b = append(b, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(destination))
	b = binary.BigEndian.AppendUint32(b, uint32(stream))
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	for fill := rng.Uint64(); len(b)-start < size-4; fill = fill*6364136223846793005 + 1 {
		b = append(b, byte(fill>>56))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

// checkPacket returns what a checked packet says.
func checkPacket(b []byte) (destination, stream, number int, err error) {
	if len(b) < checkedHeader {
		return 0, 0, 0, fmt.Errorf("%d bytes", len(b))
	}
	body := b[:len(b)-4]
	if binary.BigEndian.Uint32(b[len(body):]) != crc32.ChecksumIEEE(body) {
		return 0, 0, 0, fmt.Errorf("%d bytes with a wrong checksum", len(b))
	}
	field := func(i int) int { return int(binary.BigEndian.Uint32(b[12+4*i:])) }
	return field(0), field(1), field(2), nil
}

// tally is what a receiver of checked packets got.
type tally struct {
	packets int
	next    map[int]int // by stream: one more than the latest number
	gaps    int         // numbers left out
}

// theEnd is the stream of the last packet that a receiver gets.
const theEnd = 1 << 20

// collect reads from c until the end. Packets must be whole, for this destination, and in the
// order of their stream.
func collect(c *net.UDPConn, destination int) (tally, error) {
	got := tally{next: make(map[int]int)}
	buf := make([]byte, 2*maxDatagram)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return got, err
		}
		to, stream, number, err := checkPacket(buf[:n])
		switch {
		case err != nil:
			return got, err
		case to != destination:
			return got, fmt.Errorf("packet for %d", to)
		case stream == theEnd:
			return got, nil
		case number < got.next[stream]:
			return got, fmt.Errorf("stream %d: number %d after %d", stream, number, got.next[stream]-1)
		}
		got.gaps += number - got.next[stream]
		got.next[stream] = number + 1
		got.packets++
	}
}

// crowd is a number of receivers, each with a socket.
type crowd struct {
	conns []*net.UDPConn
	paths []Path
}

func newCrowd(t testing.TB, m *Mux, n int) *crowd {
	t.Helper()
	c := &crowd{conns: make([]*net.UDPConn, n), paths: make([]Path, n)}
	for i := range n {
		c.conns[i] = peer(t)
		c.paths[i] = mustPath(t, m, addrOf(c.conns[i]))
	}
	return c
}

// frameSizes returns the packet sizes of one frame: equal, or with a shorter last one as segmentation
// likes them, or just any.
func frameSizes(rng *rand.Rand) []int {
	sizes := make([]int, 1+rng.IntN(12))
	size := checkedHeader + rng.IntN(maxChecked-checkedHeader)
	for i := range sizes {
		sizes[i] = size
	}
	switch last := len(sizes) - 1; rng.IntN(4) {
	case 0:
		sizes[last] = checkedHeader + rng.IntN(size-checkedHeader+1)
	case 1:
		for i := range sizes {
			sizes[i] = checkedHeader + rng.IntN(maxChecked-checkedHeader)
		}
	}
	return sizes
}

// send sends a frame of each stream to each member of the crowd, in as many rounds as asked for:
// streams run at once, each with a batch of its own. It returns the packets that were sent to
// each member, over all streams.
func (c *crowd) send(m *Mux, streams, rounds int) []int {
	counts := make([][]int, streams)
	var wg sync.WaitGroup
	for stream := range streams {
		counts[stream] = make([]int, len(c.paths))
		b := m.NewBatch()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(stream), 4))
			for range rounds {
				for _, i := range rng.Perm(len(c.paths)) {
					for _, size := range frameSizes(rng) {
						p := checkedPacket(b.Slot(), rng, i, stream, counts[stream][i], size)
						b.Commit(len(p), c.paths[i])
						counts[stream][i]++
					}
					if rng.IntN(8) == 0 {
						b.Flush()
					}
				}
			}
			b.Flush()
		})
	}
	wg.Wait()
	total := make([]int, len(c.paths))
	for _, of := range counts {
		for i, n := range of {
			total[i] += n
		}
	}
	return total
}

// receive collects what send sends, and calls check with what each member got and was sent.
func (c *crowd) receive(t *testing.T, send func() []int, check func(i int, got tally, sent int)) {
	t.Helper()
	got := make([]tally, len(c.conns))
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	for i, conn := range c.conns {
		_ = conn.SetReadDeadline(time.Now().Add(6 * patience))
		wg.Go(func() { got[i], errs[i] = collect(conn, i) })
	}
	sent := send()
	plain, rng := peer(t), rand.New(rand.NewPCG(0, 0))
	for i := range c.conns {
		sendTo(t, plain, checkedPacket(nil, rng, i, theEnd, 0, checkedHeader), addrOf(c.conns[i]))
	}
	wg.Wait()
	for i := range c.conns {
		if errs[i] != nil {
			t.Errorf("receiver %d: %v", i, errs[i])
		}
		check(i, got[i], sent[i])
	}
}

// testDelivery sends frames of all shapes to 2,000 receivers from three goroutines at once. Each
// must get all packets, whole and in the order of their stream.
func testDelivery(t *testing.T, m *Mux) Stats {
	t.Helper()
	c := newCrowd(t, m, 2000)
	total := 0
	c.receive(t, func() []int { return c.send(m, 3, 1) }, func(i int, got tally, sent int) {
		total += sent
		if got.packets != sent || got.gaps != 0 {
			t.Errorf("receiver %d got %d of %d packets", i, got.packets, sent)
		}
	})
	s := m.Stats()
	if s.TxPackets != uint64(total) || s.Drops != (Drops{}) {
		t.Errorf("sent %d of %d, drops %v", s.TxPackets, total, s.Drops)
	}
	t.Logf("%d packets in %d messages, %d fallbacks", s.TxPackets, s.TxMessages, s.GSOFallbacks)
	return s
}

func TestDelivery(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		choices := []int{1, 10, maxSegments}
		if cfg.Net != nil {
			choices = choices[:1]
		}
		for _, segments := range choices {
			t.Run(fmt.Sprint("segments=", segments), func(t *testing.T) {
				cfg.MaxSegments = segments
				m, _ := listenUDP(t, cfg)
				s := testDelivery(t, m)
				if segments > 1 && !isPortable(m) && (!s.GSO || s.TxMessages >= s.TxPackets) {
					t.Errorf("GSO %v, %d messages", s.GSO, s.TxMessages)
				}
				if s.GSOFallbacks != 0 || (segments == 1 || isPortable(m)) && s.TxMessages != s.TxPackets {
					t.Errorf("%d fallbacks, %d messages", s.GSOFallbacks, s.TxMessages)
				}
			})
		}
	})
}
