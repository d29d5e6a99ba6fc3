package estimate

import (
	"math"
	"time"
)

// The rate controller (draft-ietf-rmcat-gcc-02 §5.5 and §6). Rates that end growth or follow a
// decrease are told as multiples of what arrives.
const (
	beta        = 0.85             // after a decrease
	addBits     = 1200 * 8 / 2     // additive growth, in each response time: half a packet
	growFactor  = 1.08             // other growth, in each second
	beyond      = 1.5              // growth ends there
	beyondSated = 1.2              // likewise, while nobody wants more
	beyondFull  = 1.05             // likewise, where more was found to be too much
	responseLag = 100 * ms         // beside the round trip, until a change of the rate shows
	growQueue   = 30 * ms          // no growth while packets wait that long
	bestTime    = 10 * time.Second // how long the best that arrived supports an estimate
	passedFull  = 1.1              // × what was found to be too much: it is not any more if that arrives
	ackedTime   = 500 * ms         // what arrives is measured over
	ackedLong   = time.Second      // likewise, for growth
	ackedShort  = 200 * ms         // likewise, when the link is full and so shows its rate
	settleTime  = 200 * ms         // beside the round trip, from one decrease to the next
	patience    = 250 * ms         // over-use must last, unless it is severe: one big frame makes a queue that goes by itself
	severeQueue = 50 * ms          // with over-use: all packets wait that long
	standTime   = 1500 * ms        // over-use or not: if all packets wait longer than that for so long, the link is full
	standAgain  = time.Second      // until the next decrease for that
	standMost   = 2                // decreases in a row for that
	standHelped = 0.7              // of the queue is left at most, if they helped
	lossQueue   = 30 * ms          // from which on loss is blamed on the queue
	lossLow     = 0.02             // no growth above
	lossHigh    = 0.12             // decrease above: the draft's tenth, and a margin for chance
	lossKeeps   = 0.9              // no decrease by loss alone goes below
	testShare   = 0.7              // sending less of the estimate does not test it
	keepsUp     = 0.85             // a link is not short of room if that share of what is sent arrives in time
	relapse     = 0.6              // a decrease to less means another link
	smooth      = 0.95             // of the average and variance of the capacity (§5.5)
	leastSpread = 0.02 * 0.02      // least variance of the capacity
	mostSpread  = 0.10 * 0.10      // and the most
)

// control is the state of the rate controller.
type control struct {
	updated   bool
	updatedAt time.Duration
	limited   bool          // ever
	limitedAt time.Duration // last decrease
	calmAt    time.Duration // last update without over-use
	standsAt  time.Duration // when a queue that stands is next to be judged
	stood     time.Duration // the queue when it was first judged
	judged    int           // how often it was, in a row
	held      bool          // the next update without a signal only ends the hold

	// Average of what arrived when the link was full, and its variance relative to the average: near
	// it, growth is additive. 0: not known.
	capacity, variance float64

	// What the link was last found to carry, full; 0: not known. Without a probe growth goes little
	// beyond.
	ceiling float64

	// The best that arrived of late.
	best maximum
}

// update moves the estimate after a feedback.
func (e *Estimator) update(now time.Duration, over bool) {
	step := min(max(now-e.updatedAt, 0), time.Second)
	if !e.updated {
		step = 0
	}
	e.updated, e.updatedAt = true, now
	if e.probe.phase != idle {
		return // it will have its own conclusion
	}
	if !over {
		e.calmAt = now
	}
	acked := e.acked.rate(ackedLong)
	e.best.add(now, acked)
	if e.ceiling > 0 && acked > passedFull*e.ceiling && !over && now-e.limitedAt >= ackedLong+e.rtt {
		e.recovered() // and all that came did so after the decrease
	}

	target, full := e.verdict(now, over)
	switch {
	case full:
		if e.settled(now) {
			e.limit(now, target)
		}
	case over:
	case e.delays.usage == underuse:
		e.held = true
	case e.held:
		e.held = false
	case e.losses.share() <= lossLow && e.delays.standing() < growQueue:
		e.grow(step, acked)
	}
}

// stands reports whether a queue has stood for too long. What decreases do not shorten is not a queue
// of ours, but a longer path, or one that others keep filled: then it is the new base.
func (e *Estimator) stands(now time.Duration) bool {
	standing := e.delays.standing()
	switch {
	case standing <= severeQueue:
		e.judged, e.standsAt = 0, now+standTime
		return false
	case now < e.standsAt:
		return false
	}
	if e.judged == 0 {
		e.stood = standing
	}
	if e.judged++; e.judged > standMost && float64(standing) > standHelped*float64(e.stood) {
		e.delays.rebase(e.horizon)
		e.judged, e.standsAt = 0, now+standTime
		return false
	}
	e.standsAt = now + standAgain
	return true
}

// settled reports whether the last decrease shows in feedback by now.
func (e *Estimator) settled(now time.Duration) bool {
	return !e.limited || now-e.limitedAt >= settleTime+e.rtt
}

// verdict tells whether the link is full, and what the estimate then should be.
func (e *Estimator) verdict(now time.Duration, over bool) (target float64, full bool) {
	acked, short := e.acked.rate(ackedTime), e.acked.rate(ackedShort)
	standing, stands := e.delays.standing(), e.stands(now)
	switch {
	case over && standing > severeQueue, e.losses.exceed(true, lossHigh) && standing > lossQueue:
		// The queue was never empty, so that what arrived of late is what the link carries.
		target = beta * known(short, acked, e.rate)
	case over && now-e.calmAt >= patience, stands:
		target = beta * known(max(acked, short), e.rate)
	case e.losses.exceed(false, lossHigh):
		return max(e.rate*(1-e.losses.share()/2), lossKeeps*acked), true
	default:
		return 0, false
	}
	if acked < testShare*e.rate && acked >= keepsUp*e.offered.rate(ackedTime) {
		// What little is sent comes through: others fill the link. Make room for them, but do not
		// take that little for all there is.
		target = max(target, beta*e.rate)
	}
	return target, true
}

// known returns the first rate that is known.
func known(rates ...float64) float64 {
	for _, r := range rates {
		if r > 0 {
			return r
		}
	}
	return 0
}

// limit lowers the estimate to the target, if that is lower, because the link is full.
func (e *Estimator) limit(now time.Duration, target float64) {
	e.held = true
	target = max(target, e.min)
	if target >= e.rate {
		return
	}
	if target < relapse*e.rate {
		e.retry = probeRetry // it is not the link any more on which probes failed
	}
	e.ceiling = target / beta
	e.remember(e.ceiling)
	e.lower(now, target)
}

// lower sets a lower estimate and puts probes off.
func (e *Estimator) lower(now time.Duration, target float64) {
	e.rate = min(e.rate, max(target, e.min))
	e.reach = probeCareful
	e.limited, e.limitedAt = true, now
	e.probeAt = max(e.probeAt, now+probeRetry)
	e.best.cut(e.rate / beta)
}

// raise sets a higher estimate.
func (e *Estimator) raise(target float64) {
	e.rate = max(e.rate, min(target, e.max))
}

// recovered forgets that the link was found full.
func (e *Estimator) recovered() {
	e.ceiling, e.retry = 0, probeRetry
}

// grow lets the estimate grow for a time in which nothing spoke against it, by what arrives.
func (e *Estimator) grow(step time.Duration, acked float64) {
	most := beyond * acked
	if e.asked && e.wanted <= e.rate {
		most = beyondSated * acked
	}
	most = max(most, e.best.value())
	if e.ceiling > 0 {
		most = min(most, max(e.ceiling, beyondFull*acked))
	}
	more := addBits * step.Seconds() / (e.rtt + responseLag).Seconds()
	if !e.near(acked) {
		more = max(more, e.rate*(math.Pow(growFactor, step.Seconds())-1))
	}
	e.raise(min(most, e.rate+more))
}

// remember takes what arrived when the link was full into the average of the capacity.
func (e *Estimator) remember(rate float64) {
	if !e.near(rate) {
		e.capacity, e.variance = rate, mostSpread
		return
	}
	off := rate - e.capacity
	e.capacity += (1 - smooth) * off
	e.variance = smooth*e.variance + (1-smooth)*off*off/(e.capacity*e.capacity)
	e.variance = min(max(e.variance, leastSpread), mostSpread)
}

// near reports whether rate is near the known capacity. One far above makes that unknown.
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
