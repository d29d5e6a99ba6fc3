package allocate

import "time"

const (
	holdTime   = 800 * time.Millisecond // a rise has to fit for so long
	barTime    = time.Second            // no rise for so long after a fall
	maxBarTime = 4 * time.Second        // what barTime doubles to if falls follow rises
	unsteady   = 10 * time.Second       // a fall so soon after a rise doubles the bar
)

// A record is what is remembered of a demand from one call to the next.
type record struct {
	round  uint64 // the call it was last seen in
	paused bool
	target Rung // unless paused

	weighty bool          // while it is paused, nothing of a less important class is sent
	fits    bool          // its cheapest rung alone leaves the margin of a rise
	alone   time.Duration // in all calls since then; counts until it is weighty

	waiting bool          // a rise fits
	since   time.Duration // in all calls since then
	pending int           // the best rung that fitted in all of them

	rose  bool          // it has risen and not fallen since
	risen time.Duration // when
	bar   time.Duration // how long it was barred after its last fall; 0: it never fell
	until time.Duration // no rise before; counts if bar is not 0
}

// current returns the index of what a demand has been told to be sent, or -1.
func (r *record) current(known bool, d *Demand) int {
	if known && r.paused {
		return -1
	}
	if known {
		for i := range d.Rungs {
			if d.Rungs[i].sameAs(r.target) {
				return i
			}
		}
	}
	return min(max(d.Current, -1), len(d.Rungs)-1)
}

// weigh tells whether the demand is to be sent before anything of a less important class, or has to
// be set aside because it would not even fit alone.
func (it *item) weigh(now time.Duration, budget int64) {
	r := &it.rec
	if len(it.costs) == 0 {
		return
	}
	cheapest := it.costs[it.cheapest(-1, len(it.costs)-1)]
	most := budget
	if !r.weighty {
		most = roomy(budget)
	}
	switch {
	case cheapest > most:
		r.fits, r.weighty = false, false
	case !r.fits:
		r.fits, r.alone = true, now
		r.weighty = !it.known
	default:
		r.weighty = r.weighty || now-r.alone >= holdTime
	}
}

// allowed returns the best rung the demand may be given now, where it.got is what it would be given
// if no rise had to wait. With replaces, something of a less important class is sent.
func (it *item) allowed(now time.Duration, replaces bool) int {
	ideal, r := it.got, &it.rec
	if !it.known {
		return max(ideal, it.current)
	}
	switch {
	case ideal <= it.current:
		r.waiting = false
	case !r.waiting:
		r.waiting, r.since, r.pending = true, now, ideal
	default:
		r.pending = min(r.pending, ideal)
		if now-r.since >= holdTime && (r.bar == 0 || now >= r.until) {
			return r.pending
		}
	}
	if it.current < 0 && r.weighty && replaces {
		return it.cheapest(-1, len(it.costs)-1)
	}
	return it.current
}

// settle takes note of a rise or fall from it.current to it.got.
func (it *item) settle(now time.Duration) {
	r := &it.rec
	switch {
	case it.got > it.current:
		r.rose, r.risen, r.waiting = true, now, false
	case it.got < it.current:
		switch {
		case r.bar == 0 || r.rose && now-r.risen >= unsteady:
			r.bar = barTime
		case r.rose:
			r.bar = min(2*r.bar, maxBarTime)
		}
		r.rose, r.waiting = false, false
		r.until = now + r.bar
	}
}
