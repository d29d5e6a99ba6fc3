// Package speech tells from audio levels whether somebody speaks, and whose voices are the loudest.
//
// It is pure: no goroutine, no lock, no clock.
package speech

import "time"

const (
	window   = 50              // levels that are judged together: one second of 20 ms packets
	holdTime = 2 * time.Second // voice stays on for at least that long

	// The deviation s is rounded before it is compared. With d the sum of the squared distances
	// from the rounded mean and s = sqrt(d/49), s > 10 is d >= 49 * 10.5² = 5402.25, and s < 4
	// is d < 49 * 3.5² = 600.25: no root is needed.
	onAbove  = 5402
	offBelow = 601
)

// Detector judges the audio levels of one voice (RFC 6464, without the V bit: 0 is loudest, 127
// is silence). Speech makes levels vary, silence and steady noise do not: the voice goes on when
// the sample deviation of the last 50 levels, around their rounded mean, exceeds 10, and off when
// it is below 4 and 2 seconds have passed. The zero Detector is ready for use.
type Detector struct {
	levels [window]uint8
	next   int // where the next level goes
	n      int // levels there are
	sum    int // of levels
	square int // sum of their squares

	speaking bool
	since    time.Duration // when the voice went on
}

// Speaking reports whether the voice is on.
func (d *Detector) Speaking() bool { return d.speaking }

// Add judges the level of a packet that arrived at now, on any clock that does not run
// backwards. It reports whether the voice went on or off. Levels above 127 count as 127.
func (d *Detector) Add(level uint8, now time.Duration) (changed bool) {
	level = min(level, 127)
	full := d.n == window
	if full {
		oldest := int(d.levels[d.next])
		d.sum -= oldest
		d.square -= oldest * oldest
	} else {
		d.n++
	}
	d.levels[d.next] = level
	d.next = (d.next + 1) % window
	d.sum += int(level)
	d.square += int(level) * int(level)
	if !full {
		return false
	}

	deviation := d.deviation()
	switch {
	case !d.speaking && deviation > onAbove:
		d.speaking, d.since = true, now
		return true
	case d.speaking && deviation < offBelow && now-d.since >= holdTime:
		d.speaking = false
		return true
	}
	return false
}

// deviation returns the sum of the squared distances of all levels from their rounded mean.
func (d *Detector) deviation() int {
	mean := (2*d.sum + window) / (2 * window)
	return d.square - 2*mean*d.sum + window*mean*mean
}

// Reset forgets all levels. The voice is off after it; Reset reports whether it was on.
func (d *Detector) Reset() (changed bool) {
	changed = d.speaking
	*d = Detector{}
	return changed
}
