// Package allocate shares what a receiver's downlink carries among the videos it is sent.
//
// Each video is a [Demand] with a ladder of [Rung] values, the ways to receive it from worst to
// best. What it may cost is spent in this order:
//
//  1. screens, as good as fits, because text must be readable;
//  2. the cheapest rung of every speaker, then of every camera; what does not fit is paused. While
//     a video is paused that could be sent if it were alone, nothing of a less important class is
//     sent. One that costs more than the budget even alone is set aside and holds up nobody, until
//     alone it has fitted with the margin of a rise, for as long as a rise takes;
//  3. better rungs for speakers, and from what is left for cameras.
//
// Within a class one rung is given at a time, lower Order first, round after round. A rung that
// costs as much as a better one is skipped.
//
// Rates are measured and estimated, so both the costs and the budget are noisy. What is sent is
// kept while all of it stays within 5 % above the budget, and when it does not, the fall to the
// budget is immediate. A rise needs a margin: everything that comes before it, and it, cost at most
// the budget less 1/11, without a break for 800 ms, and it has to wait for a second after a fall of
// the same demand, up to four if falls follow rises. Two rises do not wait: that of a demand never
// seen before, and the resumption of a paused one in place of a less important class.
//
// The most important video that has not been set aside keeps (or, never seen before, gets) its
// cheapest rung as long as that is at most 1.5 times the budget: rates have peaks, estimates err on
// the low side, and more than that would drown the voices. Nothing else is sent beside it then.
// In all other cases the sum of the targets is at most 1.05 times the budget.
//
// The package is pure: no goroutine, no lock, no clock.
package allocate

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A Class says how important a video is.
type Class uint8

// Classes, the most important first.
const (
	Screen Class = iota
	Speaker
	Camera
)

// A Rung is one way to receive a video.
type Rung struct {
	Layer             uint8 // simulcast encoding, 0 is the lowest
	Spatial, Temporal uint8
	Bitrate           int // bit/s as measured; 0: not measured yet, guessed from its neighbours
}

// sameAs reports whether both are the same way to receive the video.
func (r Rung) sameAs(o Rung) bool {
	return r.Layer == o.Layer && r.Spatial == o.Spatial && r.Temporal == o.Temporal
}

// A Demand is one video that a receiver could be sent.
type Demand struct {
	ID    uint64 // names the demand from call to call; unique within a call of Allocate
	Class Class
	Order int    // within the class, lower is more important; equal ones rank as they are listed
	Rungs []Rung // worst to best: temporal layers are given up before spatial ones. May be empty.

	// Current is the index in Rungs of what is sent now, -1 for nothing. It counts when the
	// demand or the rung that was its target last time is new; else what counts is that target,
	// as a switch in progress, which waits for a keyframe, is no reason to decide again.
	Current int
}

// An Allocator decides for one receiver. The zero Allocator is ready for use. It remembers a few
// words for each demand of the last call, and allocates only for new ones.
type Allocator struct {
	records map[uint64]record
	round   uint64

	// Valid during a call; kept for their memory.
	items []item
	ranks []int   // indices of items, the most important first
	costs []int64 // of all rungs of all demands
}

// An item is a demand during a call.
type item struct {
	class   Class
	order   int
	costs   []int64 // of its rungs, in bit/s; empty if it has none
	current int     // what it has been told to be sent, -1 for nothing
	limit   int     // the best rung the running fill may give
	got     int     // the rung it has been given by the running fill
	known   bool    // it was seen before
	rec     record
}

// Allocate decides what each demand is sent within a budget in bit/s, voices not included. Now is on
// any clock that does not run backwards. It sets targets[i], for targets as long as demands, to an
// index in demands[i].Rungs, or to -1 for a pause.
//
// Wanted is the budget in bit/s, margin included, from which on the most important rise that does
// not fit now is possible; if all that is missing fits and only has to wait, it is what that
// needs. It is 0 if every demand is sent its best rung.
func (a *Allocator) Allocate(now time.Duration, budget int, demands []Demand, targets []int) (wanted int) {
	targets = targets[:len(demands)]
	bps := min(max(int64(budget), 0), maxBudget)
	a.prepare(now, bps, demands)

	// What would be given if no rise had to wait: a rise that has to holds its place against
	// less important ones, but makes nothing fall before its time.
	ideal := a.fill(bps)
	least := a.leastSent()
	for i := range a.items {
		it := &a.items[i]
		it.limit = it.allowed(now, it.class < least)
	}
	a.fill(bps)

	complete := true
	for i := range a.items {
		it := &a.items[i]
		targets[i] = it.got
		complete = complete && it.got == len(it.costs)-1
	}
	a.remember(now, demands)
	if complete {
		return 0
	}
	return needed(ideal)
}

// prepare sets up an item for each demand, and their ranks.
func (a *Allocator) prepare(now time.Duration, budget int64, demands []Demand) {
	a.items, a.ranks, a.costs = a.items[:0], a.ranks[:0], a.costs[:0]
	rungs := 0
	for i := range demands {
		rungs += len(demands[i].Rungs)
	}
	a.costs = slices.Grow(a.costs, rungs) // so that the items' parts of it stay where they are
	for i := range demands {
		d := &demands[i]
		it := item{class: d.Class, order: d.Order, limit: len(d.Rungs) - 1}
		from := len(a.costs)
		a.costs = appendCosts(a.costs, d.Rungs)
		it.costs = a.costs[from:]
		it.rec, it.known = a.records[d.ID]
		it.current = it.rec.current(it.known, d)
		it.weigh(now, budget)
		a.items = append(a.items, it)
		a.ranks = append(a.ranks, i)
	}
	slices.SortFunc(a.ranks, func(x, y int) int {
		p, q := &a.items[x], &a.items[y]
		return cmp.Or(cmp.Compare(p.class, q.class), cmp.Compare(p.order, q.order), cmp.Compare(x, y))
	})
}

// leastSent returns the least important class of which something is sent.
func (a *Allocator) leastSent() (least Class) {
	for i := range a.items {
		if it := &a.items[i]; it.current >= 0 {
			least = max(least, it.class)
		}
	}
	return least
}

// remember keeps what the next call has to know of the demands, and forgets all others.
func (a *Allocator) remember(now time.Duration, demands []Demand) {
	if a.records == nil {
		a.records = make(map[uint64]record, len(demands))
	}
	a.round++
	seen := 0
	for i := range a.items {
		it := &a.items[i]
		if len(it.costs) == 0 {
			continue // a demand is new until it has a rung
		}
		it.settle(now)
		it.rec.round = a.round
		it.rec.paused = it.got < 0
		if it.got >= 0 {
			it.rec.target = demands[i].Rungs[it.got]
		}
		a.records[demands[i].ID] = it.rec
		seen++
	}
	if len(a.records) > seen {
		for id, rec := range a.records {
			if rec.round != a.round {
				delete(a.records, id)
			}
		}
	}
}

// needed returns the budget that a total requires for a rise, with some room for the noise of the
// measurements.
func needed(total int64) int {
	return int(min((total*23+19)/20, math.MaxInt))
}
