package link

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// maxDelayed is how many datagrams wait for their delay at most.
const maxDelayed = 200_000

// pick returns the delay of a datagram.
func (i *Impairment) pick() time.Duration {
	if i.Jitter <= 0 {
		return i.Delay
	}
	return i.Delay + rand.N(i.Jitter)
}

// A delayer does things later, on one goroutine.
type delayer struct {
	counts *Counts
	wake   chan struct{} // holds one

	mu    sync.Mutex
	queue queue
	order uint64
}

type delayed struct {
	due   time.Time
	order uint64
	do    func()
}

// queue is a heap by due time and then by order.
type queue []delayed

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	if q[i].due.Equal(q[j].due) {
		return q[i].order < q[j].order
	}
	return q[i].due.Before(q[j].due)
}
func (q *queue) Push(x any) { *q = append(*q, x.(delayed)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = delayed{}
	*q = (*q)[:last]
	return x
}

func newDelayer(counts *Counts) *delayer {
	return &delayer{counts: counts, wake: make(chan struct{}, 1)}
}

func (d *delayer) after(delay time.Duration, do func()) {
	d.mu.Lock()
	if len(d.queue) >= maxDelayed {
		d.mu.Unlock()
		d.counts.Overflows.Add(1)
		return
	}
	due := time.Now().Add(delay)
	first := len(d.queue) == 0 || due.Before(d.queue[0].due)
	heap.Push(&d.queue, delayed{due, d.order, do})
	d.order++
	d.mu.Unlock()
	if first {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// next takes what is due, or says how long to wait.
func (d *delayer) next() (do func(), wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return nil, time.Hour
	}
	if wait = time.Until(d.queue[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&d.queue).(delayed).do, 0
}

// run does what is due until ctx is done. What is left then is dropped.
func (d *delayer) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-d.wake:
		case <-ctx.Done():
			return
		}
		for {
			do, wait := d.next()
			if do == nil {
				timer.Reset(wait)
				break
			}
			do()
		}
	}
}
