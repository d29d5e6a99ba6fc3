package rtc

import (
	"sync"
	"time"
)

// changePeriod is the time between two reports of a change of one call.
const changePeriod = time.Second

// changes tells what has become of calls: of each at most once in a period, and always the last of it.
// A call is told of by its id, so that one which has ended is told of once more, with nothing in it.
type changes struct {
	tell func(key)
	wake chan struct{} // one slot

	mu    sync.Mutex
	calls map[key]bool // told in this period, or to be told; true: changed since
	fresh []key        // to be told now
	told  []telling    // in the order of their times
}

// telling is when a call was told of.
type telling struct {
	key
	at time.Time
}

func newChanges(tell func(key)) *changes {
	return &changes{tell: tell, wake: make(chan struct{}, 1), calls: make(map[key]bool)}
}

// note makes a change of a call be told. It may be called with locks held.
func (c *changes) note(k key) {
	c.mu.Lock()
	_, known := c.calls[k]
	c.calls[k] = true
	if !known {
		c.fresh = append(c.fresh, k)
	}
	c.mu.Unlock()
	if !known {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// due returns the calls to tell of now, and how long there are none after that; 0: until one changes.
func (c *changes) due(now time.Time) ([]key, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.fresh
	c.fresh = nil
	for len(c.told) > 0 && now.Sub(c.told[0].at) >= changePeriod {
		k := c.told[0].key
		c.told = c.told[1:]
		if c.calls[k] {
			out = append(out, k)
		} else {
			delete(c.calls, k)
		}
	}
	for _, k := range out {
		c.calls[k] = false
		c.told = append(c.told, telling{k, now})
	}
	if len(c.told) == 0 {
		c.told = nil
		return out, 0
	}
	return out, c.told[0].at.Add(changePeriod).Sub(now)
}

// run tells until stop is closed, and then what is left to be told.
func (c *changes) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		calls, wait := c.due(time.Now())
		for _, k := range calls {
			c.tell(k)
		}
		if wait == 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		select {
		case <-c.wake:
		case <-timer.C:
		case <-stop:
			c.flush()
			return
		}
	}
}

// flush tells of everything that has changed since it was told.
func (c *changes) flush() {
	c.mu.Lock()
	var left []key
	for k, changed := range c.calls {
		if changed {
			left = append(left, k)
		}
	}
	clear(c.calls)
	c.mu.Unlock()
	for _, k := range left {
		c.tell(k)
	}
}
