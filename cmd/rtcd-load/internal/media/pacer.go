package media

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"rtcd/cmd/rtcd-load/internal/stats"
)

// grain is the least time between two wakings of a pacer: what becomes due within it is sent
// together, so that a thousand sources cost no thousand timers.
const grain = time.Millisecond

// A Task is something that sends at times of its own.
type Task interface {
	// Send sends what was due at a time, and returns when the next is; ok is false if there is none.
	Send(due, now time.Duration) (next time.Duration, ok bool)
}

// A Pacer runs tasks on one goroutine, each at its time, and measures how late it is.
type Pacer struct {
	late *stats.Histogram
	wake chan struct{} // holds one

	mu    sync.Mutex
	tasks schedule
}

type scheduled struct {
	task Task
	due  time.Duration // by Now
}

// schedule is a heap by the time of the tasks.
type schedule []scheduled

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due < s[j].due }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *schedule) Push(x any)        { *s = append(*s, x.(scheduled)) }
func (s *schedule) Pop() any {
	last := len(*s) - 1
	x := (*s)[last]
	(*s)[last] = scheduled{}
	*s = (*s)[:last]
	return x
}

// NewPacer returns a pacer without tasks. It counts in late how long after their time tasks ran.
func NewPacer(late *stats.Histogram) *Pacer {
	return &Pacer{late: late, wake: make(chan struct{}, 1)}
}

// Add adds a task that is due at some time by Now.
func (p *Pacer) Add(t Task, due time.Duration) {
	p.push(scheduled{t, due})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run runs the tasks until ctx is done.
func (p *Pacer) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		for {
			now := Now()
			s, wait, ok := p.pop(now)
			if !ok {
				timer.Reset(wait)
				break
			}
			p.late.Add(now - s.due)
			if due, again := s.task.Send(s.due, now); again {
				p.push(scheduled{s.task, due})
			}
		}
	}
}

func (p *Pacer) push(s scheduled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	heap.Push(&p.tasks, s)
}

// pop returns the task that is due the longest, or else how long to wait for one.
func (p *Pacer) pop(now time.Duration) (s scheduled, wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tasks) == 0 {
		return scheduled{}, time.Hour, false
	}
	if wait = p.tasks[0].due - now; wait > 0 {
		return scheduled{}, max(wait, grain), false
	}
	return heap.Pop(&p.tasks).(scheduled), 0, true
}
