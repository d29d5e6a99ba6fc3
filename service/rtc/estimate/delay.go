package estimate

import (
	"math"
	"time"
)

// Groups and their trend.
const (
	groupTime  = 10 * ms     // packets sent within belong together
	trendTime  = 500 * ms    // what the trend is taken over
	trendGap   = time.Second // after that long without packets the trend starts anew
	trendSpan  = 100 * ms    // groups must cover at least that
	trendLeast = 6           // groups
	trendMost  = 64          // groups

	// The trend is told as the growth of the delay in that time, so that it compares with the
	// threshold, which is a time too.
	trendScale = 250 * ms

	// How many standard errors the slope must be above 0 to count. Without a pacer delays of
	// single groups vary by the length of a burst, without anything growing.
	significant = 3
)

// The over-use detector (draft-ietf-rmcat-gcc-02 §5.4); times in milliseconds.
const (
	thresholdStart = 12.5
	thresholdLeast = 6
	thresholdMost  = 600
	thresholdSkip  = 15 // an excursion beyond the threshold by more does not adapt it
	thresholdUp    = 0.01
	thresholdDown  = 0.00018
	overuseTime    = 10 * ms
)

// usage is what the detector says of the link.
type usage uint8

const (
	normal usage = iota
	overuse
	underuse
)

type point struct {
	sent, delay time.Duration
}

// delays follows the one-way delay: it forms groups, fits a line through them and judges it.
//
// A group is represented by the smallest delay of its packets. The draft takes that of the last
// one, which suits a sender that paces; here frames leave as bursts, and the last packet of a
// burst measures the burst. The smallest one also disregards reordering within the group.
type delays struct {
	// The group that still grows.
	open   bool
	first  time.Duration // when its first packet was sent
	lowest point

	points [trendMost]point // a ring of closed groups, in the order they were sent
	head   int              // of the oldest
	n      int

	base   minimum // of the delay: the path without a queue
	recent minimum // of the delay lately

	usage     usage
	noise     time.Duration // standard deviation of the delay around the fitted line
	threshold float64       // ms
	growth    float64       // the trend last seen, ms
	overSince time.Duration
	overs     int // groups in a row above the threshold
	updated   time.Duration
}

func newDelays() delays {
	return delays{
		threshold: thresholdStart,
		base:      minimum{span: 10 * time.Second},
		recent:    minimum{span: 150 * ms},
	}
}

// restart forgets everything that depends on the receiver's clock.
func (d *delays) restart() {
	d.clear()
	d.base.reset()
	d.recent.reset()
}

// clear forgets the trend.
func (d *delays) clear() {
	d.open, d.n, d.usage = false, 0, normal
	d.overs, d.growth, d.noise = 0, 0, 0
}

// standing returns how long all packets have waited lately.
func (d *delays) standing() time.Duration { return max(0, d.recent.value()-d.base.value()) }

// rebase makes the least delay of late that of the path.
func (d *delays) rebase(at time.Duration) {
	d.base.reset()
	d.base.add(at, d.recent.value())
}

// note takes the delay of a packet into account, but not its trend.
func (d *delays) note(sent, delay time.Duration) {
	d.base.add(sent, delay)
	d.recent.add(sent, delay)
}

// add takes a packet that arrived. It reports whether the link became, or still is, over-used.
func (d *delays) add(sent, delay time.Duration) (over bool) {
	d.note(sent, delay)
	switch {
	case !d.open:
	case sent < d.first:
		return false // reordered at the sender
	case sent-d.first <= groupTime:
		if delay < d.lowest.delay {
			d.lowest = point{sent, delay}
		}
		return false
	default:
		over = d.push(d.lowest)
		if sent-d.first > trendGap {
			d.clear()
		}
	}
	d.open, d.first, d.lowest = true, sent, point{sent, delay}
	return over
}

// push closes a group.
func (d *delays) push(p point) (over bool) {
	for d.n > 0 && (d.n == trendMost || p.sent-d.points[d.head].sent > trendTime) {
		d.head = (d.head + 1) % trendMost
		d.n--
	}
	d.points[(d.head+d.n)%trendMost] = p
	d.n++

	slope, deviation, ok := d.fit()
	if !ok {
		d.usage, d.overs = normal, 0
		return false
	}
	growth := slope * trendScale.Seconds() * 1000
	d.judge(p.sent, growth, slope > significant*deviation)
	return d.usage == overuse
}

// fit returns the slope of the delay over the time of sending and its standard error.
func (d *delays) fit() (slope, deviation float64, ok bool) {
	if d.n < trendLeast {
		return 0, 0, false
	}
	newest := d.points[(d.head+d.n-1)%trendMost]
	if newest.sent-d.points[d.head].sent < trendSpan {
		return 0, 0, false
	}
	var x, y, xx, xy, yy float64 // relative to the newest, which keeps the numbers small
	for i := range d.n {
		p := d.points[(d.head+i)%trendMost]
		px, py := (p.sent - newest.sent).Seconds(), (p.delay - newest.delay).Seconds()
		x, y, xx, xy, yy = x+px, y+py, xx+px*px, xy+px*py, yy+py*py
	}
	n := float64(d.n)
	sxx, sxy, syy := xx-x*x/n, xy-x*y/n, yy-y*y/n
	if sxx <= 0 {
		return 0, 0, false
	}
	slope = sxy / sxx
	residual := max(0, syy-slope*sxy) / (n - 2)
	d.noise = time.Duration(math.Sqrt(residual) * float64(time.Second))
	return slope, math.Sqrt(residual / sxx), true
}

// judge compares the growth with the threshold, and adapts that.
func (d *delays) judge(at time.Duration, growth float64, clear bool) {
	switch {
	case growth > d.threshold && clear:
		if d.overs == 0 {
			d.overSince = at
		}
		d.overs++
		if d.overs > 1 && at-d.overSince >= overuseTime && growth >= d.growth {
			d.usage = overuse
		}
	case growth < -d.threshold:
		d.usage, d.overs = underuse, 0
	default:
		d.usage, d.overs = normal, 0
	}
	d.growth = growth

	size := math.Abs(growth)
	if size-d.threshold <= thresholdSkip {
		k := thresholdUp
		if size < d.threshold {
			k = thresholdDown
		}
		ms := min(100, max(0, (at-d.updated).Seconds()*1000))
		d.threshold += ms * k * (size - d.threshold)
		d.threshold = min(thresholdMost, max(thresholdLeast, d.threshold))
	}
	d.updated = at
}
