package estimate

import "time"

const (
	probeTime  = 300 * ms
	probeSlice = 50 * ms
	probeWait  = time.Second // at least, for its feedback
	probeLate  = 50 * ms     // more for what seems lost

	probeFirst    = 2.0  // × estimate: the most that the first probe tries
	probeMost     = 2.5  // × estimate: the most that others try
	probeCareful  = 1.3  // likewise, on a link that was full; × its capacity while that is known
	probeBolder   = 1.3  // × that, after each success that followed another
	probeAbove    = 1.15 // × wanted: what a probe tries, since it counts for less
	probePassed   = 1.2  // × capacity: so much came through a link that has become wider
	probeTrust    = 0.93 // × what came through: the estimate after success
	probePartly   = 0.88 // × what came through a link that the probe filled
	probeRetry    = time.Second
	probeRetryMax = 5 * time.Second

	quietRate = 10e3            // bit/s: less is as good as nothing sent
	quietTime = 2 * time.Second // without anything sent, until a probe asks in the dark

	probeQueue     = 50 * ms // with a longer queue no probe starts
	probeGrowth    = 15 * ms // of the delay: a probe may cause it and succeed; noise comes on top
	probeGrowthEnd = 60 * ms // of the delay: more ends a probe; likewise
	probeLoss      = 0.08    // beyond what was lost before: a probe may cause it and succeed
	probeReport    = 0.04    // likewise, as told by a report, which covers more than the probe
	probeLossEnd   = 0.2     // likewise: more ends a probe
)

type phase uint8

const (
	idle    phase = iota
	running       // padding is sent
	waiting       // for the rest of the feedback
)

// probe is a short time in which padding shows whether more would come through.
type probe struct {
	phase      phase
	start, end time.Duration // of sending
	rate       float64       // bit/s, media and padding

	// Before it started.
	have  float64 // the estimate
	delay time.Duration
	noise time.Duration
	lossy float64 // share of packets lost
	media float64 // bit/s acknowledged

	sent, arrived float64       // bits
	begin, last   time.Duration // first and last arrival, on the receiver's clock
	packets, lost int
	worst         float64 // loss that reports told of
	padded        bool    // padding was sent at all
	passed        bool    // feedback is beyond its end
	cut           bool    // it ended early
	slices        [probeTime / probeSlice]struct {
		lowest time.Duration // delay
		used   bool
	}
}

// covers reports whether a packet sent then belongs to the probe.
func (p *probe) covers(sent time.Duration) bool {
	return p.phase != idle && sent >= p.start && sent < p.end
}

// add counts a packet that belongs to the probe.
func (p *probe) add(pkt *Packet, delay time.Duration) {
	bits := float64(pkt.Size) * 8
	p.packets++
	p.sent += bits
	p.padded = p.padded || pkt.Probe
	if pkt.Lost {
		p.lost++
		return
	}
	p.arrive(pkt.Arrived, bits)
	s := &p.slices[(pkt.Sent-p.start)/probeSlice]
	if !s.used || delay < s.lowest {
		s.lowest, s.used = delay, true
	}
}

// arrive counts bits that arrived.
func (p *probe) arrive(at time.Duration, bits float64) {
	if p.arrived == 0 {
		p.begin, p.last = at, at
	}
	p.begin, p.last = min(p.begin, at), max(p.last, at)
	p.arrived += bits
}

// found counts a packet that was told to be lost and has arrived.
func (p *probe) found(at time.Duration, size int) {
	if p.lost > 0 {
		p.lost--
		p.arrive(at, float64(size)*8)
	}
}

// growth returns by how much the delay has grown up to the end, from the least there was before
// and within.
func (p *probe) growth() time.Duration {
	least, last := p.delay, p.delay
	for i := range p.slices {
		if s := &p.slices[i]; s.used {
			last = s.lowest
			if i > 0 && p.slices[i-1].used {
				last = min(last, p.slices[i-1].lowest)
			}
			least = min(least, s.lowest)
		}
	}
	return last - least
}

// lossier reports whether more was lost than before, by a share. At first a probe is a few packets,
// so that chance has its part.
func (p *probe) lossier(by float64) bool {
	return exceeds(p.packets, p.lost, min(p.lossy+by, 1), 2)
}

// hopeless reports whether it already shows that the link is full.
func (p *probe) hopeless() bool {
	return p.growth() > probeGrowthEnd+min(2*p.noise, probeGrowthEnd/2) || p.packets >= 20 && p.lossier(probeLossEnd)
}

// result returns the rate that came through, bit/s, and whether the link had room for it.
func (p *probe) result() (rate float64, room bool) {
	growth := p.growth()
	room = growth <= probeGrowth+min(2*p.noise, probeGrowth) && !p.lossier(probeLoss)
	span := p.end - p.start + growth
	if room {
		// What is lost anyway is not lost for want of room. A big frame may wait although nothing else
		// does: it did not come faster than it came.
		span = max(span, p.last-p.begin-min(2*p.noise, probeGrowth))
		return min(p.sent, p.arrived/(1-min(p.lossy, lossHigh))) / span.Seconds(), true
	}
	return p.arrived / max(span, p.last-p.begin).Seconds(), false
}

// Probe says how much to send now in padding. It is to be asked about every 100 ms with what the
// allocator could use and what is sent, in bit/s. While a probe runs, padding (marked in
// Packet.Probe, evenly spread) is to fill up what is sent to the returned rate; 0 means none.
//
// Probes start at the first feedback and follow each other while they succeed, until the estimate
// reaches wanted. After a limitation they pause for a second, and longer after each that failed.
func (e *Estimator) Probe(now time.Duration, wanted, sending int) (rate int) {
	e.tick(now)
	if e.sending = float64(min(max(sending, 0), rateMost)); e.sending >= quietRate || !e.asked {
		e.busyAt = now
	}
	e.wanted, e.asked = float64(min(max(wanted, 0), rateMost)), true
	p := &e.probe
	switch p.phase {
	case running:
		if now < p.end {
			return int(p.rate)
		}
		p.phase = waiting
		return 0
	case waiting:
		wait := max(probeWait, 3*e.rtt)
		if !e.transportWide(now) {
			wait = reportTime
		}
		if now-p.end <= wait {
			return 0
		}
		if e.quiet(now) && e.transportWide(now) {
			e.follow(now, p.end+probeLate) // nothing is sent that would end it
		} else {
			p.phase = idle // no feedback: nothing learned
			e.postpone(now)
		}
		return 0
	}
	if now < e.probeAt || !e.measurable(now) {
		return 0
	}
	if e.quiet(now) { // what the link carried when it was full is long ago
		e.ceiling, e.reach = 0, max(e.reach, probeFirst)
	}
	have := float64(e.Bitrate())
	target := min(e.wanted*probeAbove, e.max)
	if e.wanted <= have || target <= have || target <= e.sending {
		return 0
	}
	if e.ceiling > 0 {
		target = min(target, probeMost*have, max(probeCareful*e.ceiling, 1.1*have))
	} else {
		target = min(target, e.reach*have)
	}
	*p = probe{
		phase: running, start: now, end: now + probeTime, rate: target, have: have,
		delay: e.delays.recent.value(), noise: e.delays.noise,
		lossy: e.losses.share(), media: e.acked.rate(ackedTime),
	}
	if !e.transportWide(now) {
		p.lossy = e.reportLoss
	}
	return int(target)
}

// measurable reports whether a probe could tell anything now.
func (e *Estimator) measurable(now time.Duration) bool {
	if e.quiet(now) {
		return true
	}
	if !e.transportWide(now) {
		return e.reported && now-e.reportAt < reportTime && e.reportLoss < lossHigh
	}
	d := &e.delays
	return d.recent.have && d.usage != overuse && d.standing() < probeQueue
}

// quiet reports whether nothing has been sent for a while but probes. What is not sent is not told of:
// all that was known is old, queues are empty, and nobody but a probe can find out more.
func (e *Estimator) quiet(now time.Duration) bool { return now-e.busyAt > quietTime }

// watch ends a probe that has gone far enough.
func (e *Estimator) watch(now time.Duration) {
	p := &e.probe
	if p.phase == running && p.hopeless() {
		p.phase, p.cut, p.end = waiting, true, max(p.start+probeSlice, min(p.end, now))
	}
}

// postpone puts the next probe off after a failed one.
func (e *Estimator) postpone(now time.Duration) {
	// Estimators of one link whose probes always fell together would never see room: spread them.
	// What tells them apart is the time packets took, to the nanosecond.
	e.spread = e.spread*6364136223846793005 + uint64(e.delay) + 1
	e.probeAt = now + e.retry - time.Duration(e.spread>>32*uint64(e.retry/4)>>32)
	e.retry = min(2*e.retry, probeRetryMax)
}

// follow looks at a packet sent after the probe, and ends it when its feedback is complete.
func (e *Estimator) follow(now, sent time.Duration) {
	p := &e.probe
	if !p.passed {
		p.passed, p.phase = true, waiting
		e.delays.clear() // the probe itself made them grow
	}
	if _, room := p.result(); room || sent >= p.end+probeLate {
		e.conclude(now)
	}
}

// conclude draws the conclusion from a probe whose feedback is complete.
func (e *Estimator) conclude(now time.Duration) {
	p := &e.probe
	p.phase = idle
	e.standsAt = max(e.standsAt, now+standTime) // the queue is the probe's
	span := (p.end - p.start).Seconds()
	if !p.padded || p.packets < 5 || span <= 0 {
		e.postpone(now)
		return
	}
	rate, room := p.result()
	if room {
		if rate*probeTrust > e.rate && !p.cut {
			e.raise(rate * probeTrust)
			e.best.add(now, rate)
			e.succeeded(now, rate)
			return
		}
		e.postpone(now) // padding fell short of what was asked for, or was taken for lost too early
		return
	}
	e.ceiling, e.reach = rate, probeCareful
	switch {
	case rate*probePartly > e.rate:
		e.raise(rate * probePartly)
	case rate < e.rate && p.sent/span > 0.9*e.rate:
		// The link does not even carry the estimate. What media had before it may keep, unless
		// that does not come through either.
		floor := 0.0
		if rate > 0.85*p.media {
			floor = p.media
		}
		e.lower(now, max(rate*probePartly, floor))
	}
	e.postpone(now)
}

// succeeded lets the next probe follow one that showed room for a rate. What a link is known to carry,
// full, may have been measured too low: only much more makes that void, and only the probes after that
// are bolder. A queue on a slow link fills before feedback can tell, and drops voices.
func (e *Estimator) succeeded(now time.Duration, rate float64) {
	e.probeAt = now
	switch {
	case e.ceiling == 0:
		e.reach = min(e.reach*probeBolder, probeMost)
		e.recovered()
	case rate < probePassed*e.ceiling:
		e.ceiling = max(e.ceiling, rate)
	default:
		e.recovered()
	}
}
