package allocate

// A purse is what a fill has spent.
type purse struct {
	budget int64
	keep   int64 // the total up to which something is kept
	total  int64 // what all that was given costs
	short  int64 // the total that the first thing refused would have made; 0: nothing was refused

	blocked bool // a weighty demand of class blocker is paused
	blocker Class
}

// roomy returns the most that a rise may bring the total to.
func roomy(budget int64) int64 { return budget * 10 / 11 }

// lenient returns the most that the only thing sent may cost.
func lenient(budget int64) int64 { return budget * 3 / 2 }

// give raises an item to a better rung if that fits.
func (p *purse) give(it *item, to int) bool {
	total := p.total + it.costs[to]
	if it.got >= 0 {
		total -= it.costs[it.got]
	}
	rise := to > it.current
	most := p.keep
	if rise {
		most = roomy(p.budget)
	}
	if total > most {
		if p.short == 0 {
			p.short = total
		}
		return false
	}
	if rise { // not at the price of a total that stays above the budget
		p.keep = min(p.keep, p.budget)
	}
	p.total, it.got = total, to
	return true
}

// fill gives all items what they get of a budget, up to the limit of each; it changes those. It
// returns the total that the first thing refused would have made, or if there was none, the total.
func (a *Allocator) fill(budget int64) (next int64) {
	p := purse{budget: budget}
	var current int64
	for i := range a.items {
		it := &a.items[i]
		it.got = -1
		if it.current >= 0 {
			current += it.costs[it.current]
		}
	}
	p.keep = p.budget * 21 / 20
	if current > p.keep {
		p.keep = p.budget
	}

	screens := 0
	for screens < len(a.ranks) && a.items[a.ranks[screens]].class == Screen {
		screens++
	}
	a.start(&p, a.ranks[:screens])
	a.raise(&p, a.ranks[:screens])
	rest := a.ranks[screens:]
	a.start(&p, rest)
	for len(rest) > 0 {
		class, n := a.items[rest[0]].class, 1
		for n < len(rest) && a.items[rest[n]].class == class {
			n++
		}
		a.raise(&p, rest[:n])
		rest = rest[n:]
	}
	if p.short != 0 {
		return p.short
	}
	return p.total
}

// start gives each item its cheapest rung.
func (a *Allocator) start(p *purse, ranks []int) {
	for _, i := range ranks {
		it := &a.items[i]
		if len(it.costs) == 0 || p.blocked && it.class > p.blocker {
			continue
		}
		to, short := it.cheapest(-1, it.limit), p.short
		if to >= 0 && p.give(it, to) {
			continue
		}
		if to >= 0 && p.total == 0 && !p.blocked && (to <= it.current || !it.known) && it.costs[to] <= lenient(p.budget) {
			p.total, p.short, it.got = it.costs[to], short, to
			continue
		}
		if it.rec.weighty && !p.blocked {
			p.blocked, p.blocker = true, it.class
		}
	}
}

// raise gives those that have something better rungs, until none has room for another.
func (a *Allocator) raise(p *purse, ranks []int) {
	for given := true; given; {
		given = false
		for _, i := range ranks {
			it := &a.items[i]
			if it.got < 0 || it.got >= it.limit {
				continue
			}
			if p.give(it, it.cheapest(it.got, it.limit)) {
				given = true
			} else {
				it.limit = it.got
			}
		}
	}
}

// cheapest returns the cheapest rung that is better than from and no better than limit, of several
// the best, or -1. Whatever it passes over costs as much as something better.
func (it *item) cheapest(from, limit int) int {
	best := -1
	for i := from + 1; i <= limit; i++ {
		if best < 0 || it.costs[i] <= it.costs[best] {
			best = i
		}
	}
	return best
}

const (
	lowestCost = 150_000 // bit/s, of the worst rung if nothing was measured
	maxCost    = 1 << 40 // bit/s; this and the next keep sums and products far from overflow
	maxBudget  = 1 << 50 // bit/s
)

// appendCosts appends what the rungs of a ladder cost, in bit/s, always more than 0. The rate of one
// that has not been measured lies between those of its measured neighbours; beyond the last or
// before the first one, a temporal layer changes it by half, and an encoding or spatial layer by a
// factor of three.
func appendCosts(costs []int64, rungs []Rung) []int64 {
	from := len(costs)
	last := -1 // the last that has been measured
	for i, r := range rungs {
		if r.Bitrate <= 0 {
			costs = append(costs, 0)
			continue
		}
		costs = append(costs, min(int64(r.Bitrate), maxCost))
		c := costs[from:]
		switch {
		case last < 0:
			for k := i - 1; k >= 0; k-- {
				num, den := step(rungs[k], rungs[k+1])
				c[k] = max(c[k+1]*den/num, 1)
			}
		default:
			for k := last + 1; k < i; k++ {
				c[k] = c[last] + (c[i]-c[last])*int64(k-last)/int64(i-last)
			}
		}
		last = i
	}
	c := costs[from:]
	for k := last + 1; k < len(rungs); k++ {
		if k == 0 {
			c[0] = lowestCost
			continue
		}
		num, den := step(rungs[k-1], rungs[k])
		c[k] = min(c[k-1]*num/den, maxCost)
	}
	return costs
}

// step returns the quotient by which the costs of two adjacent rungs probably differ.
func step(worse, better Rung) (num, den int64) {
	if worse.Layer != better.Layer || worse.Spatial != better.Spatial {
		return 3, 1
	}
	return 3, 2
}
