package rtctest

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v4"
)

// datagramOverhead is what IPv4 and UDP add to a datagram's payload on a link, in bytes.
const datagramOverhead = 28

// usualQueue is the longest queue of a limited link that says nothing else.
const usualQueue = 200 * time.Millisecond

// Impairment is what one direction of a link does to datagrams, in this order: lose, queue and
// send at a rate, delay. The zero value does nothing.
type Impairment struct {
	// Loss is the share of the datagrams that are lost, 0 to 1, each on its own.
	Loss float64
	// Duplicate is the share of the datagrams that come twice, 0 to 1.
	Duplicate float64

	// Rate is how much passes, in bit/s with IP and UDP headers; 0: any.
	Rate int
	// Queue is the longest that a datagram waits for those before it at Rate; what would wait
	// longer is dropped. 0: 200 ms.
	Queue time.Duration
	// QueueBytes is the most that may wait, beside Queue; 0: any.
	QueueBytes int

	// Delay is added to each datagram's way.
	Delay time.Duration
	// Jitter is the most that is added to Delay, evenly distributed. It keeps the order.
	Jitter time.Duration
	// Reorder is the share of the datagrams, 0 to 1, that are held back for Hold more while
	// others overtake them.
	Reorder float64
	Hold    time.Duration
}

// Passed is what a direction of a link has done.
type Passed struct {
	Offered    int // datagrams that came to the link
	Delivered  int // came out of it, duplicates among them
	Lost       int // by chance
	Dropped    int // because the queue or the receiver was full
	Duplicated int
	Reordered  int // held back
	Bytes      int // delivered, with IP and UDP headers

	QueueMax time.Duration // longest wait for others at the rate
}

// Link is a host's connection to its network. It is safe for concurrent use.
type Link struct {
	Down *Direction // to the host
	Up   *Direction // from the host

	wake chan struct{} // holds one

	// Guarded by mu, as are the fields of both directions.
	mu      sync.Mutex
	pending schedule
	order   uint64 // of the next datagram that is scheduled
	closed  bool
}

// Direction is one direction of a link.
type Direction struct {
	link   *Link
	random *rand.Rand
	is     Impairment
	passed Passed
	tap    func([]byte) // guarded by the link's mu; may be nil

	free    time.Time // when what is queued has left
	last    time.Time // when the last datagram that keeps its order arrives
	waiting int       // datagrams that are scheduled or being delivered
}

// datagram is on its way.
type datagram struct {
	conn *impairedConn
	data []byte
	addr net.Addr
	on   *Direction

	due   time.Time
	order uint64
}

// schedule is a heap of datagrams by the time they are due.
type schedule []datagram

func (s schedule) Len() int      { return len(s) }
func (s schedule) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s schedule) Less(i, j int) bool {
	if s[i].due.Equal(s[j].due) {
		return s[i].order < s[j].order
	}
	return s[i].due.Before(s[j].due)
}
func (s *schedule) Push(x any) { *s = append(*s, x.(datagram)) }
func (s *schedule) Pop() any {
	last := len(*s) - 1
	d := (*s)[last]
	(*s)[last] = datagram{}
	*s = (*s)[:last]
	return d
}

// Seed returns what the chances of a test are drawn from: RTCTEST_SEED if the environment says so,
// to repeat a failure, else a new one each time. It is logged if the test fails.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("RTCTEST_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed: RTCTEST_SEED=%d", seed)
		}
	})
	return seed
}

// ImpairedHost adds a host like Host, behind a link that does nothing to its datagrams until it is
// told to. The link ends with the test. It is not for concurrent use.
func (n *Network) ImpairedHost(t testing.TB) (transport.Net, netip.Addr, *Link) {
	t.Helper()
	if n.seed == 0 {
		n.seed = Seed(t)
	}
	host, addr := n.Host(t)
	link := newLink(n.seed + uint64(n.hosts))
	done := make(chan struct{})
	go func() {
		defer close(done)
		link.run()
	}()
	t.Cleanup(func() {
		link.close()
		<-done
	})
	return &impairedNet{Net: host, link: link}, addr, link
}

func newLink(seed uint64) *Link {
	l := &Link{wake: make(chan struct{}, 1)}
	l.Down = &Direction{link: l, random: rand.New(rand.NewPCG(seed, 1))}
	l.Up = &Direction{link: l, random: rand.New(rand.NewPCG(seed, 2))}
	return l
}

// Set changes both directions, each to the whole of the impairment.
func (l *Link) Set(i Impairment) {
	l.Down.Set(i)
	l.Up.Set(i)
}

// Set changes what the direction does from now on. What is on its way already arrives as it would
// have.
func (d *Direction) Set(i Impairment) {
	d.link.mu.Lock()
	defer d.link.mu.Unlock()
	d.is = i
}

// Tap calls f with each datagram that is delivered from now on, before it is. The bytes are f's until
// it returns. Calls may come at the same time.
func (d *Direction) Tap(f func(datagram []byte)) {
	d.link.mu.Lock()
	defer d.link.mu.Unlock()
	d.tap = f
}

// Passed returns what the direction has done so far.
func (d *Direction) Passed() Passed {
	d.link.mu.Lock()
	defer d.link.mu.Unlock()
	return d.passed
}

// send puts a datagram on its way. Its data is the caller's again when send returns.
func (d *Direction) send(g datagram) {
	l := d.link
	g.on = d
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	now := time.Now()
	due, copies, held := d.fate(now, len(g.data)+datagramOverhead)
	if copies == 0 {
		l.mu.Unlock()
		return
	}
	if d.waiting == 0 && copies == 1 && !held && !due.After(now) {
		d.waiting++
		l.mu.Unlock()
		l.deliver(g)
		return
	}
	g.data = append([]byte(nil), g.data...)
	g.due = due
	before := l.order
	for range copies {
		g.order = l.order
		l.order++
		d.waiting++
		heap.Push(&l.pending, g)
	}
	first := l.pending[0].order >= before
	l.mu.Unlock()
	if first {
		l.nudge()
	}
}

// fate draws what happens to a datagram of that size: when it arrives, and how many of it. The
// link's mu is held.
func (d *Direction) fate(now time.Time, size int) (due time.Time, copies int, held bool) {
	i := &d.is
	d.passed.Offered++
	// As many draws for each, so that what happens to one does not depend on the others.
	lost, twice, late, jitter := d.random.Float64(), d.random.Float64(), d.random.Float64(), d.random.Float64()
	if lost < i.Loss {
		d.passed.Lost++
		return due, 0, false
	}
	due = now
	if i.Rate > 0 {
		wait := max(d.free.Sub(now), 0)
		limit := i.Queue
		if limit == 0 {
			limit = usualQueue
		}
		if wait > limit || i.QueueBytes > 0 && wait.Seconds()*float64(i.Rate)/8 > float64(i.QueueBytes) {
			d.passed.Dropped++
			return due, 0, false
		}
		d.passed.QueueMax = max(d.passed.QueueMax, wait)
		d.free = now.Add(wait + time.Duration(float64(size)*8/float64(i.Rate)*float64(time.Second)))
		due = d.free
	}
	due = due.Add(i.Delay + time.Duration(jitter*float64(i.Jitter)))
	if due.Before(d.last) {
		due = d.last
	}
	copies = 1
	if twice < i.Duplicate {
		d.passed.Duplicated++
		copies = 2
	}
	if late < i.Reorder {
		d.passed.Reordered++
		return due.Add(i.Hold), copies, true
	}
	d.last = due
	return due, copies, false
}

// deliver hands a datagram over. It was counted as waiting.
func (l *Link) deliver(g datagram) {
	l.mu.Lock()
	tap := g.on.tap
	l.mu.Unlock()
	if tap != nil {
		tap(g.data)
	}
	var ok bool
	if g.on == l.Up {
		ok = g.conn.transmit(g.data, g.addr)
	} else {
		ok = g.conn.arrive(g.data, g.addr)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g.on.waiting--
	if !ok {
		g.on.passed.Dropped++
		return
	}
	g.on.passed.Delivered++
	g.on.passed.Bytes += len(g.data) + datagramOverhead
}

func (l *Link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run delivers what is due until the link is closed.
func (l *Link) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var ready []datagram
	for {
		next := time.Hour
		ready = ready[:0]
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return
		}
		now := time.Now()
		for len(l.pending) > 0 {
			if wait := l.pending[0].due.Sub(now); wait > 0 {
				next = wait
				break
			}
			ready = append(ready, heap.Pop(&l.pending).(datagram))
		}
		l.mu.Unlock()
		if len(ready) > 0 {
			for _, g := range ready {
				l.deliver(g)
			}
			continue // time has passed
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-l.wake:
		}
	}
}

// close ends the link. What is on its way is lost.
func (l *Link) close() {
	l.mu.Lock()
	l.closed, l.pending = true, nil
	l.mu.Unlock()
	l.nudge()
}
