package rtctest

import (
	"math"
	"testing"
	"time"
)

// passing is what becomes of datagrams in a link's own time.
type passing struct {
	delivered, late int
	first, last     time.Duration // arrivals
	delay, longest  time.Duration // mean, longest
}

// pass offers count datagrams of size bytes with headers, one each period, to a direction.
func pass(d *Direction, count, size int, period time.Duration) passing {
	var p passing
	start := time.Unix(1_700_000_000, 0)
	newest := time.Time{}
	for i := range count {
		now := start.Add(time.Duration(i) * period)
		due, copies, _ := d.fate(now, size)
		if copies == 0 {
			continue
		}
		if due.Before(newest) {
			p.late++
		} else {
			newest = due
		}
		if p.delivered == 0 {
			p.first = due.Sub(start)
		}
		p.last = max(p.last, due.Sub(start))
		p.delivered++
		p.delay += due.Sub(now)
		p.longest = max(p.longest, due.Sub(now))
	}
	p.delay /= time.Duration(max(p.delivered, 1))
	return p
}

func near(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

func TestLinkRate(t *testing.T) {
	for _, rate := range []int{100_000, 1_000_000, 20_000_000} {
		for _, size := range []int{100, 1200} {
			d := newLink(1).Down
			d.Set(Impairment{Rate: rate, Queue: 100 * time.Millisecond})
			// Three times what passes, for ten seconds.
			count := 3 * 10 * rate / 8 / size
			p := pass(d, count, size, 10*time.Second/time.Duration(count))
			measured := float64((p.delivered-1)*size*8) / (p.last - p.first).Seconds()
			s := d.Passed()
			if !near(measured, float64(rate), 0.01) || p.late > 0 || s.Dropped != count-p.delivered || s.Lost > 0 {
				t.Errorf("%.0f bit/s over %d in datagrams of %d, counted %+v", measured, rate, size, s)
			}
			once := time.Duration(size*8) * time.Second / time.Duration(rate)
			if p.longest > 100*time.Millisecond+once || s.QueueMax > 100*time.Millisecond || s.QueueMax < 90*time.Millisecond-once {
				t.Errorf("waited %v in a queue of 100 ms, counted %+v", p.longest, s)
			}
		}
	}
	// Below the rate nothing waits for others.
	d := newLink(1).Down
	d.Set(Impairment{Rate: 1_000_000})
	if p := pass(d, 1000, 1000, 10*time.Millisecond); p.delivered != 1000 || p.longest != 8*time.Millisecond || d.Passed().QueueMax != 0 {
		t.Errorf("below the rate %+v", p)
	}
}

func TestLinkQueueOfBytes(t *testing.T) {
	d := newLink(1).Down
	d.Set(Impairment{Rate: 1_000_000, Queue: time.Minute, QueueBytes: 10_000})
	if p := pass(d, 50, 1000, 0); p.delivered != 11 { // ten wait behind the one on its way
		t.Errorf("%d of a burst of 50 came over a queue for 10", p.delivered)
	}
}

func TestLinkChances(t *testing.T) {
	const count = 20_000
	d := newLink(5).Up
	d.Set(Impairment{Loss: 0.05, Duplicate: 0.02, Reorder: 0.2, Hold: 10 * time.Millisecond})
	p := pass(d, count, 100, time.Millisecond)
	s := d.Passed()
	if s.Lost != count-p.delivered || !near(float64(s.Lost), 0.05*count, 0.1) ||
		!near(float64(s.Duplicated), 0.02*0.95*count, 0.2) || !near(float64(s.Reordered), 0.2*0.95*count, 0.1) || p.longest != 10*time.Millisecond {
		t.Errorf("%+v, counted %+v", p, s)
	}
	// The same seed brings the same, another one something else.
	outcome := func(seed uint64) Passed {
		d := newLink(seed).Up
		d.Set(Impairment{Loss: 0.05, Duplicate: 0.02, Reorder: 0.2})
		pass(d, count, 100, time.Millisecond)
		return d.Passed()
	}
	if outcome(5) != s || outcome(5) == outcome(6) {
		t.Errorf("seeds: %+v, %+v, %+v", s, outcome(5), outcome(6))
	}
}

func TestLinkDelayAndJitter(t *testing.T) {
	d := newLink(1).Down
	d.Set(Impairment{Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond})
	p := pass(d, 2000, 100, 50*time.Millisecond)
	if p.late > 0 || !near(p.delay.Seconds(), 0.115, 0.02) || p.longest > 130*time.Millisecond || p.delivered != 2000 {
		t.Errorf("%+v", p)
	}
	d = newLink(1).Down
	d.Set(Impairment{Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond})
	if p = pass(d, 2000, 100, time.Millisecond); p.late > 0 || p.longest > 130*time.Millisecond {
		t.Errorf("in quick succession %+v", p)
	}
}
