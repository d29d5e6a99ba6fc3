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

	if e.probe.phase != idle {
		e.judge(now, lost)
		return
	}
	switch {
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

// judge judges a probe by a report, which tells of more than the probe.
func (e *Estimator) judge(now time.Duration, lost float64) {
	p := &e.probe
	p.worst = max(p.worst, lost)
	if now < p.end+e.rtt {
		return
	}
	p.phase = idle
	room := p.worst <= p.lossy+probeReport
	if room && e.remb == 0 {
		e.raise(p.rate * probeTrust)
		e.best.add(now, p.rate)
	}
	// A receiver that sends REMB answers the probe itself.
	if !room {
		e.reach = probeCareful
	}
	if !room || float64(e.Bitrate()) < 1.05*p.have {
		e.postpone(now)
		return
	}
	e.succeeded(now, p.rate)
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
