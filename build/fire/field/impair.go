//go:build linux

package field

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Impairment is what becomes of packets. The zero value lets all pass at once.
type Impairment struct {
	Delay, Jitter time.Duration // each packet waits Delay, more or less by up to Jitter: which reorders

	Loss      float64 // share of packets that are dropped
	Reorder   float64 // share that does not wait
	Duplicate float64 // share that arrives twice

	// Losses in bursts (Gilbert and Elliott): before each packet the link turns bad, or good again,
	// with these probabilities; while it is bad all is lost.
	TurnBad, TurnGood float64

	// Tamper, if set, is shown each packet, header of IP included, and returns what is to be sent
	// beside it. It must keep nothing.
	Tamper func(packet []byte) [][]byte
}

// Flow names the packets of one stream that were dropped.
type Flow struct {
	From, To netip.AddrPort
	SSRC     uint32 // 0 if it was no RTP
}

// Impairer does to packets of a host what its Impairment says.
type Impairer struct {
	queue  *nfqueue.Nfqueue
	raw    *RawSocket
	cancel context.CancelFunc
	wg     sync.WaitGroup
	undo   func() error
	wake   chan struct{}

	mu      sync.Mutex
	what    Impairment
	random  *rand.Rand
	bad     bool
	waiting waiting
	passed  int
	dropped map[Flow]int
	err     error
}

// Impair puts an impairer into the way of the datagrams of a host; it lets all pass until it is Set.
// It copes with some 5,000 packets a second, all impairers together.
func (f *Field) Impair(host string, w Way, seed uint64) (*Impairer, error) {
	if w == Both {
		return nil, errors.New("impair: one way at a time")
	}
	f.Host(host)
	f.queues++
	i := &Impairer{
		wake: make(chan struct{}, 1), random: rand.New(rand.NewPCG(seed, uint64(f.queues))),
		dropped: make(map[Flow]int),
	}
	number := f.queues
	var err error
	f.Router.Do(func() {
		i.queue, err = nfqueue.Open(&nfqueue.Config{
			NfQueue: number, MaxPacketLen: 2048, MaxQueueLen: 8192, Copymode: nfqueue.NfQnlCopyPacket,
			WriteTimeout: 100 * time.Millisecond,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open a queue of packets: %w", err)
	}
	if i.raw, err = f.Router.Raw(); err != nil {
		return nil, errors.Join(err, i.queue.Close())
	}
	_ = i.queue.SetOption(netlink.NoENOBUFS, true)
	_ = i.queue.Con.SetReadBuffer(4 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	err = i.queue.RegisterWithErrorFunc(ctx, i.packet, func(err error) int {
		if ctx.Err() != nil {
			return 1
		}
		if operr := (*netlink.OpError)(nil); errors.As(err, &operr) && (operr.Timeout() || operr.Temporary()) {
			return 0
		}
		i.fault(err)
		return 0
	})
	if err != nil {
		i.close()
		return nil, fmt.Errorf("register for a queue of packets: %w", err)
	}
	i.wg.Go(func() { i.release(ctx) })
	rule := func(verb string) error {
		device := "-i"
		if w == To {
			device = "-o"
		}
		return f.Router.Run("iptables-legacy", "-w", verb, "FORWARD", device, host, "-p", "udp",
			"-j", "NFQUEUE", "--queue-num", strconv.Itoa(int(number)))
	}
	if err := rule("-A"); err != nil {
		i.close()
		return nil, err
	}
	i.undo = func() error { return rule("-D") }
	f.impairers = append(f.impairers, i)
	return i, nil
}

// Set changes what is done from now on.
func (i *Impairer) Set(what Impairment) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.what, i.bad = what, false
}

// Dropped returns how many packets of each flow were dropped so far.
func (i *Impairer) Dropped() map[Flow]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.dropped)
}

// Totals returns how many packets passed and how many were dropped.
func (i *Impairer) Totals() (passed, dropped int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range i.dropped {
		dropped += n
	}
	return i.passed, dropped
}

// Err returns what went wrong so far: figures are then worth nothing.
func (i *Impairer) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

func (i *Impairer) fault(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil {
		i.err = fmt.Errorf("queue of packets: %w", err)
	}
}

// packet decides about one packet.
func (i *Impairer) packet(a nfqueue.Attribute) int {
	if a.PacketID == nil || a.Payload == nil {
		return 0
	}
	id, payload := *a.PacketID, *a.Payload
	i.mu.Lock()
	w := &i.what
	if w.TurnBad > 0 {
		if i.bad {
			i.bad = i.random.Float64() >= w.TurnGood
		} else {
			i.bad = i.random.Float64() < w.TurnBad
		}
	}
	if i.bad || w.Loss > 0 && i.random.Float64() < w.Loss {
		i.dropped[flowOf(payload)]++
		i.mu.Unlock()
		i.verdict(id, nfqueue.NfDrop)
		return 0
	}
	i.passed++
	var extra [][]byte
	if w.Duplicate > 0 && i.random.Float64() < w.Duplicate {
		extra = append(extra, slices.Clone(payload))
	}
	if w.Tamper != nil {
		extra = append(extra, w.Tamper(payload)...)
	}
	var wait time.Duration
	if w.Delay > 0 && !(w.Reorder > 0 && i.random.Float64() < w.Reorder) {
		wait = w.Delay
		if w.Jitter > 0 {
			wait += time.Duration((2*i.random.Float64() - 1) * float64(w.Jitter))
		}
	}
	if wait > 0 {
		first := len(i.waiting) == 0
		p := held{due: time.Now().Add(wait), id: id, extra: extra}
		heap.Push(&i.waiting, p)
		first = first || i.waiting[0].id == id
		i.mu.Unlock()
		if first {
			select {
			case i.wake <- struct{}{}:
			default:
			}
		}
		return 0
	}
	i.mu.Unlock()
	i.pass(id, extra)
	return 0
}

// release lets packets go whose time has come.
func (i *Impairer) release(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		i.mu.Lock()
		next := time.Hour
		var due []held
		for now := time.Now(); len(i.waiting) > 0; {
			if next = i.waiting[0].due.Sub(now); next > 0 {
				break
			}
			due, next = append(due, heap.Pop(&i.waiting).(held)), time.Hour
		}
		i.mu.Unlock()
		for _, p := range due {
			i.pass(p.id, p.extra)
		}
		if due != nil {
			continue
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-i.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (i *Impairer) pass(id uint32, extra [][]byte) {
	i.verdict(id, nfqueue.NfAccept)
	for _, packet := range extra {
		// The checksum may not have been computed yet; without one a datagram is valid too.
		if len(packet) > 28 && packet[9] == unix.IPPROTO_UDP {
			if header := int(packet[0]&15) * 4; len(packet) >= header+8 {
				packet[header+6], packet[header+7] = 0, 0
			}
		}
		if err := i.raw.Send(packet); err != nil {
			i.fault(err)
		}
	}
}

func (i *Impairer) verdict(id uint32, v int) {
	if err := i.queue.SetVerdict(id, v); err != nil {
		i.fault(err)
	}
}

func (i *Impairer) stop() {
	if i.undo != nil {
		_ = i.undo() // the namespace goes anyway
	}
	i.close()
}

func (i *Impairer) close() {
	i.cancel()
	_ = i.queue.Con.SetReadDeadline(time.Now())
	i.wg.Wait()
	_ = i.queue.Close()
	_ = i.raw.Close()
}

// flowOf reads the headers of a datagram.
func flowOf(b []byte) (f Flow) {
	if len(b) < 20 {
		return f
	}
	header := int(b[0]&15) * 4
	if len(b) < header+8 {
		return f
	}
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	udp := b[header:]
	f.From = netip.AddrPortFrom(from, binary.BigEndian.Uint16(udp))
	f.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(udp[2:]))
	if rtp := udp[8:]; len(rtp) >= 12 && rtp[0]>>6 == 2 && (rtp[1] < 192 || rtp[1] > 223) {
		f.SSRC = binary.BigEndian.Uint32(rtp[8:])
	}
	return f
}

// held is a packet that waits.
type held struct {
	due   time.Time
	id    uint32
	extra [][]byte
}

// waiting is a heap of packets, the next one first.
type waiting []held

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return w[i].due.Before(w[j].due) }
func (w waiting) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)        { *w = append(*w, x.(held)) }
func (w *waiting) Pop() any {
	old := *w
	last := old[len(old)-1]
	*w = old[:len(old)-1]
	return last
}
