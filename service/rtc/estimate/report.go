package estimate

import (
	"math"
	"time"
)

// Report takes a receiver report (RFC 3550 §6.4): the share of packets lost since the one before,
// 0 to 1, and the round-trip time, 0 if not known. It counts only where there is no Feedback, for
// 2 seconds.
func (e *Estimator) Report(now time.Duration, lost float64, rtt time.Duration) {
	e.tick(now)
	if e.transportWide(now) || math.IsNaN(lost) || lost < 0 {
		return
	}
	lost = min(lost, 1)
	var congested bool
	if rtt > 0 {
		rtt = min(max(rtt, rttLeast), rttMost)
		e.rttLow.add(now, rtt)
		e.rtt = rtt
		congested = lost > lossHigh/2 && rtt > 2*e.rttLow.value()+severeQueue
	}
	step := min(max(now-e.reportAt, 0), time.Second)
	before := e.reportLoss
	if !e.reported || now-e.reportAt > reportTime {
		step, before = 0, 0
	}
	e.reportAt, e.reported, e.reportLoss = now, true, lost
	e.best.add(now, e.sending*(1-lost))

	p := &e.probe
	if p.phase != idle && now >= p.end {
		p.phase = idle
		if lost > before+probeLoss {
			e.postpone(now)
			return // the probe caused it
		}
		if e.remb == 0 { // else the receiver answers the probe itself
			e.raise(p.rate * probeTrust)
			e.best.add(now, p.rate)
		}
		e.retry, e.failed, e.probeAt = probeRetry, false, now
		return
	}
	switch {
	case p.phase != idle:
	case congested || lost > lossHigh && (before > lossHigh || lost > 0.3):
		if e.settled(now) {
			e.lower(now, e.rate*(1-lost/2))
		}
	case lost <= lossLow:
		most := max(beyond*e.sending, e.best.value())
		if e.rate < most {
			e.raise(min(most, e.rate*math.Pow(growFactor, step.Seconds())))
		}
	}
}

// REMB takes the receiver's own estimate (draft-alvestrand-rmcat-remb-03) in bit/s. It counts only
// where there is no Feedback, and for 10 seconds.
func (e *Estimator) REMB(now time.Duration, bps int) {
	e.tick(now)
	if e.transportWide(now) || bps <= 0 {
		return
	}
	e.remb, e.rembAt = float64(min(bps, rateMost)), now
	if !e.limited || now-e.limitedAt > 3*time.Second {
		e.raise(e.remb)
	}
	if e.remb < e.rate {
		e.rate = max(e.remb, e.min)
	}
}
