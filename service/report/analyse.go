package report

import (
	"cmp"
	"slices"
)

// What counts as bad, and for how long.
const (
	lossWindow  = 6     // seconds that losses are measured over: browsers report of sounds every 5 s or so
	lossBad     = 0.025 // share of the packets
	lossLeast   = 4     // packets, in a window
	delayBad    = 60    // ms more than usual, one way
	jitterBad   = 30    // ms
	tripRise    = 90    // ms more than usual, there and back
	tripBad     = 400   // ms, whatever is usual
	joins       = 6     // seconds between two bad ones that make one finding of them
	least       = 3     // seconds that a finding lasts
	rateLeast   = 8     // seconds that videos are reduced, until it is no adaption to a beginning
	quietBad    = 4000  // ms without any packet
	silentLeast = 8     // seconds without a packet of a voice that is on
	lateBad     = 150   // ms that work of the server is late
	transitBad  = 80    // ms in the server
	freezeLeast = 3     // seconds
)

// Analyse finds what went wrong in a call, the worst first.
//
// What did not come to us is the fault of the uplink it should have come over, and what receivers miss of
// that is not theirs: losses of a downlink are those of packets that we sent. What took longer is the
// fault of the direction whose one-way delay rose, which arrival times tell: ours upwards, those of
// feedback downwards. Where only the round trip is known, what the uplink does not explain is the
// downlink's. A way that is full shows by a queue and losses together, or by an estimate that layers had
// to give way to; that is told apart from a way that merely became longer.
func Analyse(c *Call) []Finding {
	var out []Finding
	stalls := serverFindings(c)
	for i := range c.Sessions {
		s := &c.Sessions[i]
		a := examination{call: c, session: s, stalls: stalls}
		out = append(out, a.examine()...)
	}
	out = append(out, stalls...)
	for i := range out {
		out[i].Receivers = c.receivers(&out[i])
		out[i].Confidence = min(0.99, out[i].Confidence)
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		if c := cmp.Compare(b.Weight*b.Confidence, a.Weight*a.Confidence); c != 0 {
			return c
		}
		return cmp.Compare(a.From, b.From)
	})
	return out
}

// receivers counts who was there to suffer from an uplink.
func (c *Call) receivers(f *Finding) (n int) {
	if f.Leg != Uplink {
		return 0
	}
	for i := range c.Sessions {
		s := &c.Sessions[i]
		if s.ID != f.Session && s.Joined/1000 < f.To && (s.Left == 0 || s.Left/1000 > f.From) {
			n++
		}
	}
	return n
}

// examination is of one session.
type examination struct {
	call    *Call
	session *Session
	stalls  []Finding

	usualTrip []uint32 // at each point: the least round trip of what was before
	upLoss    []float64
	downLoss  []float64
}

// stretch is some points that follow each other, by their indices.
type stretch struct{ from, to int } // to is the last

func (a *examination) examine() []Finding {
	p := a.session.Points
	if len(p) == 0 {
		return nil
	}
	a.measure()
	cuts := a.find(least, func(i int) bool { return a.cut(i) })
	up := a.uplink(cuts)
	down := a.downlink(cuts, up)
	out := append(up, down...)
	for _, s := range cuts {
		out = append(out, a.finding(Disconnect, Path, s, 0.9, 3))
	}
	out = append(out, a.path(out)...)
	out = append(out, a.others(out)...)
	for i := range out {
		if out[i].Kind == Delay && overlaps(a.stalls, &out[i]) {
			out[i].Confidence *= 0.4 // everybody's were late then
		}
	}
	return out
}

// measure prepares what is looked at more than once.
func (a *examination) measure() {
	p := a.session.Points
	a.usualTrip = make([]uint32, len(p))
	a.upLoss, a.downLoss = make([]float64, len(p)), make([]float64, len(p))
	usual := uint32(0)
	for i := range p {
		if t := p[i].Low.RoundTrip; t > 0 && (usual == 0 || t < usual) {
			usual = t
		}
		a.usualTrip[i] = usual
		a.upLoss[i] = a.window(i, func(p *Point) (lost, all int64) {
			return int64(p.Up.Lost), int64(p.Up.Packets) + int64(p.Up.Lost)
		})
		a.downLoss[i] = a.window(i, func(p *Point) (lost, all int64) { return int64(p.Down.Lost), int64(p.Down.Told) })
	}
}

// window returns the share of packets lost in the seconds up to point i.
func (a *examination) window(i int, of func(*Point) (lost, all int64)) float64 {
	p := a.session.Points
	end := p[i].Unix
	var lost, all int64
	for ; i >= 0 && (p[i].Unix > end-lossWindow || p[i].Unix == end); i-- {
		l, n := of(&p[i])
		lost, all = lost+l, all+n
	}
	if lost < lossLeast || all <= 0 {
		return 0
	}
	return min(1, float64(lost)/float64(all))
}

// cut reports whether nothing came in a second of a session that was connected before.
func (a *examination) cut(i int) bool {
	p := &a.session.Points[i]
	return p.Up.Quiet >= quietBad && p.State&Connected == 0 && a.seen(i) || p.Up.Quiet >= 2*quietBad && a.seen(i)
}

// seen reports whether packets came before point i.
func (a *examination) seen(i int) bool {
	for ; i >= 0; i-- {
		if a.session.Points[i].State&Connected != 0 {
			return true
		}
	}
	return false
}

// find lists the stretches of bad points that last so many seconds at least, in which no more than a few
// are not.
func (a *examination) find(seconds int64, bad func(i int) bool) []stretch {
	p := a.session.Points
	var out []stretch
	open := -1
	last := -1
	flush := func() {
		if open >= 0 && p[last].Unix-p[open].Unix+int64(p[open].Span) >= seconds {
			out = append(out, stretch{open, last})
		}
		open = -1
	}
	for i := range p {
		if open >= 0 && p[i].Unix-int64(p[i].Span)-p[last].Unix > joins {
			flush()
		}
		if bad(i) {
			if open < 0 {
				open = i
			}
			last = i
		}
	}
	flush()
	return out
}

// finding makes one of a stretch, with figures of its leg.
func (a *examination) finding(k Kind, l Leg, s stretch, confidence, weight float64) Finding {
	p := a.session.Points
	f := Finding{
		Kind: k, Leg: l, Session: a.session.ID, Confidence: confidence,
		From: p[s.from].Unix - int64(p[s.from].Span), To: p[s.to].Unix,
	}
	f.Evidence = a.evidence(l, s)
	f.Weight = weight * float64(min(60, f.To-f.From))
	return f
}

// evidence are the figures of a stretch of one leg.
func (a *examination) evidence(l Leg, s stretch) Evidence {
	p := a.session.Points
	e := Evidence{UsualRoundTripMs: a.usualTrip[s.from]}
	var n, trips, trip, delay, lost, all, bytes, estimates, estimate int64
	for i := s.from; i <= s.to; i++ {
		q := &p[i]
		span := int64(q.Span)
		n += span
		if q.RoundTrip > 0 {
			trips, trip = trips+span, trip+span*int64(q.RoundTrip)
		}
		e.QuietMs = max(e.QuietMs, q.High.Quiet)
		switch l {
		case Uplink:
			lost, all = lost+int64(q.Up.Lost), all+int64(q.Up.Packets)+int64(q.Up.Lost)
			e.Repaired += int64(q.Up.Repaired)
			delay += span * int64(q.Up.Delay)
			bytes += int64(q.Up.Bytes)
			e.MostDelayMs, e.JitterMs = max(e.MostDelayMs, q.High.UpDelay), max(e.JitterMs, q.High.UpJitter)
			e.KeyframesAsked += q.Up.KeyAsked
		case Downlink:
			lost, all = lost+int64(q.Down.Lost), all+int64(q.Down.Told)
			e.Repaired += int64(q.Down.Resent)
			delay += span * int64(q.Down.Delay)
			bytes += int64(q.Down.Bytes)
			e.MostDelayMs, e.JitterMs = max(e.MostDelayMs, q.High.DownDelay), max(e.JitterMs, q.High.DownJitter)
			if q.Down.Estimate > 0 {
				estimates, estimate = estimates+span, estimate+span*int64(q.Down.Estimate)
			}
			if q.Down.Reduced+q.Down.Paused > 0 {
				e.ReducedSeconds += q.Span
			}
		}
	}
	e.RoundTripMs = uint32(trip / max(1, trips))
	e.DelayMs = uint32(delay / max(1, n))
	e.Kilobits = uint32(bytes / 125 / max(1, n))
	e.EstimateKilobits = uint32(estimate / max(1, estimates))
	e.UsualKilobits = a.before(l, s.from)
	if e.Lost = max(0, lost); all > 0 {
		e.LossPercent = min(100, 100*float64(e.Lost)/float64(all))
	}
	if l == Path {
		e.DelayMs, e.Kilobits, e.UsualKilobits = 0, 0, 0
	}
	return e
}

// before returns the rate in kbit/s in the ten seconds up to a point.
func (a *examination) before(l Leg, i int) uint32 {
	p := a.session.Points
	var bytes, n int64
	for k := i - 1; k >= 0 && p[k].Unix > p[i].Unix-12; k-- {
		if l == Uplink {
			bytes += int64(p[k].Up.Bytes)
		} else {
			bytes += int64(p[k].Down.Bytes)
		}
		n += int64(p[k].Span)
	}
	return uint32(bytes / 125 / max(1, n))
}

// share returns in which share of the time of a stretch something holds.
func (a *examination) share(s stretch, holds func(*Point) bool) float64 {
	var yes, all float64
	for i := s.from; i <= s.to; i++ {
		p := &a.session.Points[i]
		all += float64(p.Span)
		if holds(p) {
			yes += float64(p.Span)
		}
	}
	return yes / max(1, all)
}

// overlaps reports whether one of the findings is of the time of f.
func overlaps(findings []Finding, f *Finding) bool {
	return slices.ContainsFunc(findings, func(g Finding) bool { return g.From < f.To+joins && f.From < g.To+joins })
}

// during reports whether the point is within one of the stretches.
func during(stretches []stretch, i int) bool {
	return slices.ContainsFunc(stretches, func(s stretch) bool { return s.from <= i && i <= s.to })
}
