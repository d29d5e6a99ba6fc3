package api

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	loadInterval = time.Second
	// minIdle is what a machine without any idle time counts as. Idle time is known in steps of
	// 10 ms; this is less than any other reading, so a fully busy machine shows the largest load.
	minIdle = time.Millisecond
)

// Load measures how busy the machine is: 1 / (idle seconds of all processors per second). An
// idle machine with n processors shows 1/n; the fuller, the larger. The number is always finite.
type Load struct {
	value atomic.Uint64 // bits of a float64
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

// idleTime returns the idle time of all processors since some fixed moment.
type idleTime func() (time.Duration, error)

// StartLoad begins to measure, once a second, until Stop.
func StartLoad() *Load { return startLoad(systemIdle) }

func startLoad(idle idleTime) *Load {
	l := &Load{stop: make(chan struct{})}
	l.done.Go(func() { l.run(idle) })
	return l
}

// Stop ends measuring and returns when nothing of it is running.
func (l *Load) Stop() {
	l.once.Do(func() { close(l.stop) })
	l.done.Wait()
}

// Value returns the latest load, and 0 before there is one.
func (l *Load) Value() float64 { return math.Float64frombits(l.value.Load()) }

func (l *Load) run(idle idleTime) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	before, err := idle()
	since, valid := time.Now(), err == nil
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		after, err := idle()
		if err != nil {
			valid = false // the last value stands until there are two good readings again
			continue
		}
		if valid {
			l.value.Store(math.Float64bits(loadOf(after-before, now.Sub(since))))
		}
		before, since, valid = after, now, true
	}
}

// loadOf returns the load for an idle time within an interval. The idle counter may step back
// (proc(5) says so of iowait, and processors go offline); that counts as no idle time.
func loadOf(idle, interval time.Duration) float64 {
	if interval <= 0 {
		interval = loadInterval
	}
	return interval.Seconds() / max(idle, minIdle).Seconds()
}
