package report

import "slices"

// uplink finds what was wrong with the way from the endpoint.
func (a *examination) uplink(cuts []stretch) []Finding {
	p := a.session.Points
	var out []Finding
	bad := a.find(least, func(i int) bool {
		u := &p[i].Up
		return !during(cuts, i) && (a.upLoss[i] >= lossBad || u.Delay >= delayBad || u.Jitter >= jitterBad && u.Sounds > 0)
	})
	for _, s := range bad {
		s = a.trim(s, func(p *Point) bool { return p.Up.Lost > 0 || p.Up.Delay >= delayBad || p.Up.Jitter >= jitterBad })
		e := a.evidence(Uplink, s)
		delayed := a.share(s, func(p *Point) bool { return p.Up.Delay >= delayBad })
		lossy := e.LossPercent >= 100*lossBad*0.6
		full := delayed >= 0.4 && lossy && e.DelayMs >= delayBad/2
		switch {
		case full:
			out = append(out, a.finding(Rate, Uplink, s, 0.9, 1+e.LossPercent/10))
		case lossy:
			out = append(out, a.finding(Loss, Uplink, s, confident(e.Lost), 1+e.LossPercent/10))
		case delayed >= 0.4 || e.JitterMs >= jitterBad:
			out = append(out, a.finding(Delay, Uplink, s, 0.9, 1+float64(max(e.DelayMs, e.JitterMs))/200))
		}
	}
	return out
}

// confident says how sure losses are, by their number.
func confident(lost int64) float64 { return 0.6 + 0.39*min(1, float64(lost)/30) }

// downlink finds what was wrong with the way to the endpoint. up is what was wrong with the way from it:
// what the endpoint tells of its reception comes over that.
func (a *examination) downlink(cuts []stretch, up []Finding) []Finding {
	p := a.session.Points
	var out []Finding
	bad := a.find(least, func(i int) bool {
		d := &p[i].Down
		if during(cuts, i) {
			return false
		}
		return a.downLoss[i] >= lossBad || d.Delay >= delayBad || a.tripShows(i)
	})
	reduced := a.find(rateLeast, func(i int) bool {
		return !during(cuts, i) && p[i].Down.Reduced+p[i].Down.Paused > 0 && !a.starting(i)
	})
	for _, s := range bad {
		for _, r := range reduced { // what goes on after the queue has gone
			if r.from <= s.to+joins && s.from <= r.to && r.to > s.to && a.evidence(Downlink, stretch{s.to, r.to}).DelayMs < delayBad {
				s.to = r.to
			}
		}
		s = a.trim(s, func(p *Point) bool {
			return p.Down.Lost > 0 || p.Down.Delay >= delayBad || p.Down.Reduced > 0 || !measuredAt(p)
		})
		if f, ok := a.judge(s); ok {
			out = append(out, f)
		}
	}
	for _, r := range reduced {
		f := a.finding(Rate, Downlink, r, 0.75, 1)
		if overlaps(out, &f) || overlaps(up, &f) { // a consequence, or feedback that did not come
			continue
		}
		out = append(out, f)
	}
	return out
}

// measuredAt reports whether the downlink is known packet by packet, from transport-wide feedback.
func measuredAt(p *Point) bool { return p.Down.Videos > 0 }

// trim makes a stretch that was found by windows end and begin where something was bad.
func (a *examination) trim(s stretch, bad func(*Point) bool) stretch {
	p := a.session.Points
	for s.to > s.from && !bad(&p[s.to]) {
		s.to--
	}
	for earliest := p[s.from].Unix - lossWindow; s.from > 0 && p[s.from-1].Unix > earliest && bad(&p[s.from-1]); {
		s.from--
	}
	return s
}

// judge tells what is wrong with a downlink in a stretch that shows that something is.
func (a *examination) judge(s stretch) (Finding, bool) {
	e := a.evidence(Downlink, s)
	delayed := a.share(s, func(p *Point) bool { return p.Down.Delay >= delayBad })
	reduced := a.share(s, func(p *Point) bool { return p.Down.Reduced+p.Down.Paused > 0 })
	queued := a.share(s, func(p *Point) bool { return p.Down.Delay >= delayBad/2 })
	lossy := e.LossPercent >= 100*lossBad*0.6
	fell := e.UsualKilobits > 0 && float64(e.Kilobits) < 0.6*float64(e.UsualKilobits)
	adapted := reduced >= 0.5 && fell && delayed < 0.7
	switch {
	case adapted && a.calm(s), // with less to carry it loses nothing
		adapted && queued > 0.2,
		lossy && delayed >= 0.4 && e.DelayMs >= delayBad/2:
		return a.finding(Rate, Downlink, s, 0.9, 1+e.LossPercent/10+reduced), true
	case lossy:
		return a.finding(Loss, Downlink, s, confident(e.Lost), 1+e.LossPercent/10), true
	case delayed >= 0.4:
		return a.finding(Delay, Downlink, s, 0.9, 1+float64(e.DelayMs)/200), true
	case a.share(s, func(p *Point) bool { return p.Down.Videos > 0 }) < 0.5 && e.RoundTripMs > e.UsualRoundTripMs+tripRise:
		f := a.finding(Delay, Downlink, s, 0.7, 1+float64(e.RoundTripMs-e.UsualRoundTripMs)/200)
		f.Evidence.DelayMs = e.RoundTripMs - e.UsualRoundTripMs
		return f, true
	}
	return Finding{}, false
}

// adapting is how many seconds it takes until less is sent over a way that is full.
const adapting = 8

// calm reports whether little is lost on a downlink after the beginning of a stretch.
func (a *examination) calm(s stretch) bool {
	from := s.from
	for s.from < s.to && a.session.Points[s.from].Unix < a.session.Points[from].Unix+adapting {
		s.from++
	}
	return a.evidence(Downlink, s).LossPercent < 100*lossBad*0.8
}

// tripShows reports whether the round trip has grown by more than the uplink explains, where the downlink
// is not measured better.
func (a *examination) tripShows(i int) bool {
	p := &a.session.Points[i]
	if measuredAt(p) || p.RoundTrip == 0 || a.usualTrip[i] == 0 {
		return false
	}
	return p.RoundTrip > a.usualTrip[i]+tripRise+p.Up.Delay+p.Up.Jitter && p.RoundTrip-p.Up.Delay > a.usualTrip[i]+tripRise
}

// starting reports whether the session has been sent its videos for a short time only: what its way
// carries is being found out.
func (a *examination) starting(i int) bool {
	p := a.session.Points
	for k := i; k >= 0; k-- {
		if p[i].Unix-p[k].Unix > 12 {
			return false
		}
		if k == 0 || p[k].Down.Videos > p[k-1].Down.Videos {
			return true
		}
	}
	return false
}

// path finds what cannot be told of which direction.
func (a *examination) path(known []Finding) []Finding {
	p := a.session.Points
	var out []Finding
	for _, s := range a.find(least, func(i int) bool { return p[i].RoundTrip >= tripBad }) {
		f := a.finding(Delay, Path, s, 0.8, 1)
		if !overlaps(known, &f) {
			out = append(out, f)
		}
	}
	if s := a.find(least, func(i int) bool { return p[i].State&OverTCP != 0 && p[i].State&Connected != 0 }); len(s) > 0 {
		out = append(out, a.finding(Fallback, Path, stretch{s[0].from, s[len(s)-1].to}, 0.95, 0.2))
	}
	n, first, last := a.moves()
	if n > 0 {
		out = append(out, Finding{
			Kind: Restart, Leg: Path, Session: a.session.ID, From: first / 1000, To: last/1000 + 1, Confidence: 0.9,
			Weight: 2 * float64(n), Evidence: Evidence{Times: n},
		})
	}
	return out
}

// Moves that tell of nothing bad, in ms.
const (
	choosing = 10_000 // after the connection: the best path is being found
	arriving = 2_000  // around a restart, which they are part of
)

// moves counts how often the connection was made anew or moved, and says when first and last, in
// milliseconds since 1970.
func (a *examination) moves() (n int, first, last int64) {
	connected, restarted := int64(-choosing), []int64(nil)
	for _, e := range a.session.Events {
		switch e.Kind {
		case ConnectedFirst:
			connected = e.Unix
		case Restarted:
			restarted = append(restarted, e.Unix)
		}
	}
	for _, e := range a.session.Events {
		if e.Kind != Restarted && e.Kind != Moved || e.Kind == Moved && (e.Unix-connected < choosing ||
			slices.ContainsFunc(restarted, func(at int64) bool { return max(e.Unix-at, at-e.Unix) < arriving })) {
			continue
		}
		if n++; n == 1 {
			first = e.Unix
		}
		last = e.Unix
	}
	return n, first, last
}

// others finds what is no network's fault, or a consequence of what nothing else explains.
func (a *examination) others(known []Finding) []Finding {
	p := a.session.Points
	var out []Finding
	add := func(f Finding) {
		if !overlaps(known, &f) {
			out = append(out, f)
		}
	}
	if a.session.Left != 0 && !a.seen(len(p)-1) {
		out = append(out, a.finding(NotConnected, Path, stretch{0, len(p) - 1}, 0.9, 3))
		return out
	}
	mute := func(i int) bool {
		s := &p[i]
		return s.State&(Connected|HasVoice|Muted) == Connected|HasVoice && s.Up.Sounds == 0
	}
	for _, s := range a.find(silentLeast, mute) {
		add(a.finding(Silence, Uplink, s, 0.6, 0.5))
	}
	for _, s := range a.find(2*silentLeast, func(i int) bool {
		return p[i].State&(HasVoice|Muted) == HasVoice && p[i].Up.Sounds > 0 && p[i].Up.Loudness == 1
	}) {
		add(a.finding(Silence, Uplink, s, 0.6, 0.4))
	}
	for _, s := range a.find(1, func(i int) bool { return p[i].Up.Dropped > 0 }) {
		f := a.finding(Refused, Uplink, s, 0.95, 2)
		for i := s.from; i <= s.to; i++ {
			f.Evidence.Packets += int64(p[i].Up.Dropped)
		}
		out = append(out, f)
	}
	for _, s := range a.find(freezeLeast, func(i int) bool { return p[i].Up.Layers > 0 && a.keyless(i) }) {
		add(a.finding(Freeze, Uplink, s, 0.8, 1.5))
	}
	return out
}

// keyless reports whether keyframes were asked for in the seconds up to point i, and none came.
func (a *examination) keyless(i int) bool {
	p := a.session.Points
	end, asked := p[i].Unix, uint32(0)
	for ; i >= 0 && p[i].Unix > end-4; i-- {
		if asked += p[i].Up.KeyAsked; p[i].Up.Keys > 0 {
			return false
		}
	}
	return asked >= 3
}

// serverFindings finds when the server was slow.
func serverFindings(c *Call) []Finding {
	var out []Finding
	var open *Finding
	for _, s := range c.Servers {
		if s.Late < lateBad && s.Transit < transitBad && s.SendDrops == 0 {
			continue
		}
		if open == nil || s.Unix-open.To > joins {
			out = append(out, Finding{Kind: Stall, Leg: OnServer, From: s.Unix - 1, Confidence: 0.9})
			open = &out[len(out)-1]
		}
		open.To = s.Unix
		open.Evidence.LateMs = max(open.Evidence.LateMs, s.Late, s.Transit)
		open.Evidence.Packets += int64(s.SendDrops)
		open.Weight += 1 + float64(max(s.Late, s.Transit))/200
	}
	return out
}
