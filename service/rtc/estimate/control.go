package estimate

import (
	"math"
	"time"
)

const (
	beta         = 0.85 // what is left after a decrease, × what arrives (§5.5)
	growPerTime  = 1.08 // in a second, while far from the capacity
	beyondAcked  = 1.5  // × what arrives: growth ends there
	ackedTime    = 500 * time.Millisecond
	ackedShort   = 200 * time.Millisecond // when the link is full, so that arrivals show its rate
	evidenceTime = 10 * time.Second

	idleShare   = 0.7                    // sending less than that share of the estimate is no test of it
	stepTime    = 200 * time.Millisecond // between decreases that are not severe
	severeQueue = 80 * time.Millisecond
	lossQueue   = 30 * time.Millisecond // from which on loss is blamed on the queue

	lossLow  = 0.02 // no growth above (§6)
	lossHigh = 0.12 // decrease above

	capacitySmooth = 0.95 // of the average and variance of the capacity

	rttStart = 200 * time.Millisecond
	rttLeast = 5 * time.Millisecond
	rttMost  = 2 * time.Second
)

// control is the state of the rate controller.
type control struct {
	held      bool // the link was over-used or drains: wait for a normal update
	updatedAt time.Duration
	updated   bool
	limitedAt time.Duration // last decrease
	limited   bool          // ever

	// Average of what arrived when the link was full and its variance, relative to the average:
	// near it, growth is additive. 0: not known.
	capacity, variance float64

	// What the link was last measured to carry, when it was full; 0: not known.
	ceiling float64
	// The best that arrived of late.
	evidence maximum
}

// update moves the estimate after a feedback.
func (e *Estimator) update(now time.Duration, over bool) {
	step := min(max(now-e.updatedAt, 0), time.Second)
	if !e.updated {
		step = 0
	}
	e.updatedAt, e.updated = now, true
	acked := e.meter.rate(ackedTime)
	if e.probe.phase != idle {
		return
	}
	e.evidence.add(now, acked)
	if acked > 1.1*e.ceiling && !over {
		if e.failed && e.ceiling > 0 {
			e.retry = probeRetry // the link has recovered
		}
		e.ceiling, e.failed = 0, false
	}

	queue := e.delays.queue()
	total, lost := e.losses.sum()
	lossy := exceeds(total, lost, lossHigh)
	severe := over && queue > severeQueue || lossy && queue > lossQueue
	pause := now-e.limitedAt < stepTime+e.rtt && e.limited
	switch {
	case severe:
		e.limit(now, beta*positive(e.meter.rate(ackedShort), acked, e.rate))
	case over:
		if pause {
			break
		}
		target := beta * positive(max(acked, e.meter.rate(ackedShort)), e.rate)
		if acked < idleShare*e.rate {
			target = max(target, beta*e.rate)
		}
		e.limit(now, target)
	case lossy:
		if pause {
			break
		}
		share := float64(lost) / float64(total)
		e.limit(now, max(e.rate*(1-share/2), 0.9*acked))
	case e.delays.usage == underuse:
		e.held = true
	case e.held:
		e.held = false
	default:
		if e.losses.share() <= lossLow {
			e.grow(step, acked)
		}
	}
}

// positive returns the first rate that is known.
func positive(rates ...float64) float64 {
	for _, r := range rates {
		if r > 0 {
			return r
		}
	}
	return 0
}

// exceeds reports whether lost of total is more than chance makes of that share.
func exceeds(total, lost int, share float64) bool {
	n := float64(total)
	return float64(lost) > n*share+3*math.Sqrt(n*share*(1-share))
}

// limit lowers the estimate to the target, if that is lower, because the link is full.
func (e *Estimator) limit(now time.Duration, target float64) {
	e.held = true
	if target >= e.rate {
		return
	}
	arriving := target / beta
	e.remember(arriving)
	e.lower(now, target)
	e.ceiling = arriving
	e.evidence.cut(arriving)
}

// lower sets a lower estimate and puts probes off.
func (e *Estimator) lower(now time.Duration, target float64) {
	target = min(max(target, e.min), e.max)
	if target < beta*e.rate {
		e.retry = probeRetry
	}
	e.rate = min(e.rate, target)
	e.limitedAt, e.limited = now, true
	e.probeAt = max(e.probeAt, now+probeRetry)
	e.evidence.cut(target / beta)
}

// raise sets a higher estimate.
func (e *Estimator) raise(target float64) {
	e.rate = min(max(e.rate, target), e.max)
}

// grow lets the estimate grow for a time in which nothing spoke against it.
func (e *Estimator) grow(step time.Duration, acked float64) {
	most := max(beyondAcked*acked, e.evidence.value())
	if e.ceiling > 0 && acked < beta*e.rate {
		most = min(most, e.ceiling)
	}
	if e.rate >= most || acked <= 0 {
		return
	}
	if e.near(acked) {
		response := (e.rtt + 100*time.Millisecond).Seconds()
		frame := e.rate / 30
		packet := frame / math.Ceil(frame/(1200*8))
		e.raise(min(most, e.rate+max(1000, packet/2)*step.Seconds()/response))
		return
	}
	e.raise(min(most, e.rate*math.Pow(growPerTime, step.Seconds())))
}

// remember takes what arrived when the link was full into the average of the capacity.
func (e *Estimator) remember(rate float64) {
	if e.capacity == 0 || !e.near(rate) {
		e.capacity, e.variance = rate, 0.01
		return
	}
	off := rate - e.capacity
	e.capacity += (1 - capacitySmooth) * off
	e.variance = capacitySmooth*e.variance + (1-capacitySmooth)*off*off/(e.capacity*e.capacity)
	e.variance = min(max(e.variance, 0.0004), 0.01)
}

// near reports whether rate is near the known capacity; if it is far above, that is forgotten.
func (e *Estimator) near(rate float64) bool {
	if e.capacity == 0 {
		return false
	}
	reach := 3 * math.Sqrt(e.variance) * e.capacity
	if rate > e.capacity+reach {
		e.capacity = 0
		return false
	}
	return rate > e.capacity-reach
}

// maximum is the greatest value of about the last one to two spans.
type maximum struct {
	span      time.Duration
	since     time.Duration
	cur, prev float64
}

func (m *maximum) add(at time.Duration, v float64) {
	switch {
	case at-m.since >= 2*m.span || at < m.since:
		m.since, m.cur, m.prev = at, v, 0
	case at-m.since >= m.span:
		m.since, m.cur, m.prev = at, v, m.cur
	default:
		m.cur = max(m.cur, v)
	}
}

func (m *maximum) value() float64 { return max(m.cur, m.prev) }

// cut lowers what is greater than v.
func (m *maximum) cut(v float64) { m.cur, m.prev = min(m.cur, v), min(m.prev, v) }
