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

// Loads that can be told apart by their size alone.
const (
	// MaxLoad is the largest load of a server that takes new calls, with no idle time at all.
	MaxLoad = float64(time.Second / minIdle)
	// DrainLoad is what a server that takes no new calls adds to its load: a million times MaxLoad, so
	// that it is above every server that does take them, whatever their machines do. float32 and
	// float64 hold it exactly and JSON writes it without exponent: no reader gets it wrong, and one
	// that rounds still reads no less.
	DrainLoad = 1e9
)

// Load measures how busy the machine is: 1 / (idle seconds of all processors per second). An
// idle machine with n processors shows 1/n; the fuller, the larger. The number is always finite.
//
// Where a control group gives this process less processor time than the machine has, the load of that
// quota is measured on the same scale, 1 / (unused seconds of the quota per second), and the larger
// of the two counts.
type Load struct {
	value atomic.Uint64 // bits of a float64
	shut  atomic.Bool
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

// idleTime returns the idle time of all processors since some fixed moment.
type idleTime func() (time.Duration, error)

// A quota is a limit of processor time that this process shares with others.
type quota struct {
	name  string        // tells one from the others
	cores float64       // processor seconds per second
	used  time.Duration // of processor time, since some fixed moment
}

// quotas returns the quotas there are now.
type quotas func() []quota

// StartLoad begins to measure, once a second, until Stop.
func StartLoad() *Load { return startLoad(systemIdle, systemQuotas()) }

func startLoad(idle idleTime, limits quotas) *Load {
	l := &Load{stop: make(chan struct{})}
	l.done.Go(func() { l.run(idle, limits) })
	return l
}

// Stop ends measuring and returns when nothing of it is running.
func (l *Load) Stop() {
	l.once.Do(func() { close(l.stop) })
	l.done.Wait()
}

// Value returns the latest load, and 0 before there is one. While new calls are refused it is at least
// DrainLoad.
func (l *Load) Value() float64 {
	if l.shut.Load() {
		return DrainLoad + l.Measured()
	}
	return l.Measured()
}

// Measured is Value, whether new calls are refused or not.
func (l *Load) Measured() float64 { return math.Float64frombits(l.value.Load()) }

// Refuse says whether new calls are refused. It takes effect at once.
func (l *Load) Refuse(on bool) { l.shut.Store(on) }

func (l *Load) run(idle idleTime, limits quotas) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	before, err := idle()
	since, valid := time.Now(), err == nil
	used := usedOf(limits())
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		after, err := idle()
		quotas := limits()
		if err != nil {
			valid = false // the last value stands until there are two good readings again
			continue
		}
		if valid {
			load := loadOf(after-before, now.Sub(since))
			for _, q := range quotas {
				if u, known := used[q.name]; known {
					load = max(load, q.load(q.used-u, now.Sub(since)))
				}
			}
			l.value.Store(math.Float64bits(load))
		}
		before, since, valid, used = after, now, true, usedOf(quotas)
	}
}

// noQuotas is for systems that have none.
func noQuotas() []quota { return nil }

func usedOf(list []quota) map[string]time.Duration {
	out := make(map[string]time.Duration, len(list))
	for _, q := range list {
		out[q.name] = q.used
	}
	return out
}

// load returns the load of a quota of which so much was used within an interval.
func (q quota) load(used, interval time.Duration) float64 {
	if interval <= 0 {
		interval = loadInterval
	}
	return loadOf(time.Duration(q.cores*float64(interval))-used, interval)
}

// loadOf returns the load for an idle time within an interval. The idle counter may step back
// (proc(5) says so of iowait, and processors go offline); that counts as no idle time.
func loadOf(idle, interval time.Duration) float64 {
	if interval <= 0 {
		interval = loadInterval
	}
	// A tick that came late makes no server busier than busy.
	return min(interval.Seconds()/max(idle, minIdle).Seconds(), MaxLoad)
}
