// Package estimate tells how much the downlink of one receiver carries.
//
// It is Google Congestion Control (draft-ietf-rmcat-gcc-02) at the side of the sender: the trend of
// the one-way delay, judged against an adaptive threshold, and loss lower the estimate; while
// neither shows, it grows. Three things differ, because a selective forwarder has no encoder to
// slow down and no pacer. Packets that are sent together are represented by the one that was
// delayed least. An estimate grows only as far as what was sent supports it, and does not fall
// because little is sent. And what the link has beyond that is found out by probing with padding.
//
// It is pure: no goroutine, no lock, no clock. Times are durations since any start, the same for
// all calls. Nothing here allocates.
package estimate

import (
	"math"
	"time"
)

const ms = time.Millisecond

const (
	defaultStart = 500_000
	defaultMin   = 100_000
	defaultMax   = 12_000_000

	rateMost   = 1 << 30 // bit/s: what is beyond is nonsense
	sizeMost   = 1 << 16 // bytes of a packet
	packetMost = 1 << 13 // packets of a feedback, the newest count

	ahead     = time.Second      // a packet sent later than that after now is nonsense
	behind    = 30 * time.Second // as is one sent earlier than that before now
	clockJump = 3 * time.Second  // change of the one-way delay that means another clock

	// Bounds of the round trip, and what it is before it is known.
	rttStart = 200 * ms
	rttLeast = 5 * ms
	rttMost  = 2 * time.Second

	feedbackTime = 2 * time.Second  // without feedback for that long, reports count
	reportTime   = 10 * time.Second // how long a report counts
	rembTime     = 10 * time.Second // how long a REMB counts
)

// Config is what an Estimator starts with, in bit/s; what is not positive takes its default.
type Config struct {
	Start int // the first estimate; default 500 000
	Min   int // never less than that; default 100 000
	Max   int // never more than that; default 12 000 000
}

// A Packet is what feedback tells of a packet that was sent.
type Packet struct {
	Sent    time.Duration // on our clock
	Arrived time.Duration // on the receiver's clock; without meaning if Lost
	Size    int           // bytes on the wire
	Lost    bool          // not arrived so far
	Probe   bool          // padding of a probe
}

// An Estimator estimates one downlink. It is not safe for concurrent use.
type Estimator struct {
	min, max float64
	rate     float64 // the estimate, bit/s

	now     time.Duration // newest
	ticked  bool
	horizon time.Duration // newest time of sending that feedback told of
	told    bool          // horizon is valid
	astray  int           // packets sent at the horizon that were told to be lost
	rtt     time.Duration
	rttLow  minimum

	feedbackAt time.Duration
	fed        bool // feedback was ever received
	delays     delays
	delay      time.Duration // of the newest packet
	delayed    bool          // delay is valid
	acked      meter         // what arrived, on the receiver's clock
	offered    meter         // what was sent of what feedback told of
	losses     losses

	control

	probe   probe
	probeAt time.Duration // not earlier
	retry   time.Duration // after the next failure
	reach   float64       // × estimate: the most that the next tries
	spread  uint64        // state of a generator
	sending float64       // bit/s, as last told
	wanted  float64       // bit/s, likewise
	asked   bool          // these were ever told
	busyAt  time.Duration // when something was last sent

	reportAt   time.Duration
	reported   bool
	reportLoss float64
	remb       float64 // 0: none
	rembAt     time.Duration
}

// New returns an Estimator.
func New(cfg Config) *Estimator {
	fill := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
		*v = min(*v, rateMost)
	}
	fill(&cfg.Start, defaultStart)
	fill(&cfg.Min, defaultMin)
	fill(&cfg.Max, defaultMax)
	cfg.Max = max(cfg.Max, cfg.Min)
	return &Estimator{
		min: float64(cfg.Min), max: float64(cfg.Max),
		rate:    float64(min(max(cfg.Start, cfg.Min), cfg.Max)),
		delays:  newDelays(),
		rttLow:  minimum{span: 10 * time.Second},
		rtt:     rttStart,
		retry:   probeRetry,
		reach:   probeFirst,
		control: control{best: maximum{span: bestTime}},
	}
}

// Bitrate returns the estimate in bit/s.
func (e *Estimator) Bitrate() int {
	rate := e.rate
	if e.remb > 0 {
		rate = min(rate, e.remb)
	}
	return int(min(max(rate, e.min), e.max))
}

// transportWide reports whether the receiver sends transport-wide feedback.
func (e *Estimator) transportWide(now time.Duration) bool {
	return e.fed && now-e.feedbackAt < feedbackTime
}

// tick moves the time on. A clock that was set back restarts everything but the estimate.
func (e *Estimator) tick(now time.Duration) {
	if e.ticked && now < e.now-ahead {
		e.restart()
	}
	e.now, e.ticked = now, true
	if e.remb > 0 && (now-e.rembAt > rembTime || e.transportWide(now)) {
		e.remb = 0
	}
}

func (e *Estimator) restart() {
	fresh := New(Config{Start: int(e.rate), Min: int(e.min), Max: int(e.max)})
	*e = *fresh
}

// Feedback takes one transport-wide feedback: packets in the order they were sent. A packet that
// was told to be lost may be told to have arrived by a later feedback. Packets are borrowed.
func (e *Estimator) Feedback(now time.Duration, packets []Packet) {
	e.tick(now)
	if len(packets) > packetMost {
		packets = packets[len(packets)-packetMost:]
	}
	before, told := e.horizon, e.told
	var over, any bool
	for i := range packets {
		p := packets[i]
		if p.Sent > now+ahead || p.Sent < now-behind || tooFar(p.Sent) || !p.Lost && tooFar(p.Arrived) {
			continue
		}
		any = true
		p.Size = min(max(p.Size, 0), sizeMost)
		if told && e.old(&p, before) {
			e.correct(&p)
		} else if e.take(now, &p) {
			over = true
		}
	}
	if !any {
		return
	}
	e.feedbackAt, e.fed, e.remb = now, true, 0
	e.rttLow.add(now, max(0, now-e.horizon))
	e.rtt = min(max(e.rttLow.value(), rttLeast), rttMost)
	e.watch(now)
	e.update(now, over)
}

// old reports whether feedback that reached up to a time has told of the packet already. Several
// packets may have been sent at that very time: then one that arrived is taken for one that was lost.
func (e *Estimator) old(p *Packet, upTo time.Duration) bool {
	if p.Sent != upTo {
		return p.Sent < upTo
	}
	if p.Lost || e.astray == 0 {
		return false
	}
	e.astray--
	return true
}

// correct takes a packet that was told to be lost before.
func (e *Estimator) correct(p *Packet) {
	if p.Lost {
		return
	}
	if e.probe.covers(p.Sent) {
		e.probe.found(p.Arrived, p.Size)
	} else {
		e.losses.found(p.Sent)
	}
	e.acked.add(p.Arrived, p.Size)
}

// take takes a packet that feedback tells of for the first time. It reports whether the link is
// over-used.
func (e *Estimator) take(now time.Duration, p *Packet) (over bool) {
	if !e.told || p.Sent > e.horizon {
		e.horizon, e.told, e.astray = p.Sent, true, 0
	}
	e.offered.add(p.Sent, p.Size)
	delay := p.Arrived - p.Sent
	if !p.Lost {
		e.observe(now, delay)
		e.acked.add(p.Arrived, p.Size)
	} else if p.Sent == e.horizon {
		e.astray++
	}
	if e.probe.phase != idle && p.Sent >= e.probe.end {
		e.follow(now, p.Sent)
	}
	if e.probe.covers(p.Sent) {
		e.probe.add(p, delay)
		if !p.Lost {
			e.delays.note(p.Sent, delay)
		}
		return false
	}
	e.losses.add(p.Sent, p.Lost)
	return !p.Lost && e.delays.add(p.Sent, delay)
}

// observe notices another clock at the receiver.
func (e *Estimator) observe(now, delay time.Duration) {
	if jump := delay - e.delay; e.delayed && (jump > clockJump || jump < -clockJump) {
		e.delays.restart()
		e.acked = meter{}
		if e.probe.phase != idle {
			e.probe.phase = idle
			e.postpone(now)
		}
	}
	e.delay, e.delayed = delay, true
}

// tooFar reports whether arithmetic with t might overflow.
func tooFar(t time.Duration) bool {
	return t > math.MaxInt64/4 || t < -math.MaxInt64/4
}
