package estimate

import (
	"math"
	"time"
)

const (
	meterSlot  = 25 * ms
	meterSlots = 48
	meterLeast = 4 // slots without which there is no rate
)

// meter measures the rate of bits on some clock.
type meter struct {
	bits   [meterSlots]int64
	first  int64 // slot of the first bits since the last silence
	newest int64 // slot of the newest bits
	used   bool
}

// add counts a packet of size bytes at that time.
func (m *meter) add(at time.Duration, size int) {
	i := floorDiv(at, meterSlot)
	switch {
	case !m.used || i-m.newest >= meterSlots || i <= m.newest-meterSlots: // silence, or another clock
		*m = meter{used: true, first: i, newest: i}
	case i < m.first:
		return
	}
	for m.newest < i {
		m.newest++
		m.bits[mod(m.newest, meterSlots)] = 0
	}
	m.bits[mod(i, meterSlots)] += int64(size) * 8
}

// rate returns the bit/s of the newest window, which leaves out the slot that still fills; 0 while
// that is not known.
func (m *meter) rate(window time.Duration) float64 {
	n := min(int64(window/meterSlot), meterSlots-1, m.newest-m.first)
	if n < meterLeast {
		return 0
	}
	var bits int64
	for i := m.newest - n; i < m.newest; i++ {
		bits += m.bits[mod(i, meterSlots)]
	}
	return float64(bits) / (time.Duration(n) * meterSlot).Seconds()
}

func floorDiv(d, by time.Duration) int64 {
	q := d / by
	if d%by < 0 {
		q--
	}
	return int64(q)
}

func mod(i, n int64) int64 {
	i %= n
	if i < 0 {
		i += n
	}
	return i
}

const (
	lossSlot  = 100 * ms
	lossSlots = 12
	lossFresh = 2 // slots of which losses may still be found
)

// losses counts packets and those of them that were lost, by when they were sent, over the last
// 1.2 seconds.
type losses struct {
	total, lost [lossSlots]int
	newest      int64
}

// add counts a packet.
func (l *losses) add(sent time.Duration, lost bool) {
	i := floorDiv(sent, lossSlot)
	if i < l.newest || i-l.newest >= lossSlots {
		*l = losses{newest: i}
	}
	for l.newest < i {
		l.newest++
		at := mod(l.newest, lossSlots)
		l.total[at], l.lost[at] = 0, 0
	}
	at := mod(i, lossSlots)
	l.total[at]++
	if lost {
		l.lost[at]++
	}
}

// found takes back a loss.
func (l *losses) found(sent time.Duration) {
	i := floorDiv(sent, lossSlot)
	if at := mod(i, lossSlots); i > l.newest-lossSlots && i <= l.newest && l.lost[at] > 0 {
		l.lost[at]--
	}
}

// sum returns the packets of all the time, or without those that may still be found.
func (l *losses) sum(all bool) (total, lost int) {
	i := l.newest - lossSlots + 1
	end := l.newest
	if !all {
		end -= lossFresh
	}
	for ; i <= end; i++ {
		at := mod(i, lossSlots)
		total += l.total[at]
		lost += l.lost[at]
	}
	return total, lost
}

// share returns the share of lost packets, 0 to 1.
func (l *losses) share() float64 {
	total, lost := l.sum(false)
	if total == 0 {
		return 0
	}
	return float64(lost) / float64(total)
}

// exceed reports whether more were lost than that share.
func (l *losses) exceed(all bool, share float64) bool {
	total, lost := l.sum(all)
	return exceeds(total, lost, share, 3)
}

// exceeds reports whether more of total were lost than that share, by more than chance makes of it:
// a number of standard deviations.
func exceeds(total, lost int, share, deviations float64) bool {
	n := float64(total)
	return float64(lost) > n*share+deviations*math.Sqrt(n*share*(1-share))
}

// minimum is the smallest value of about the last one to two spans.
type minimum struct {
	span      time.Duration
	since     time.Duration // begin of the current span
	cur, prev time.Duration
	have      bool
}

func (m *minimum) add(at, v time.Duration) {
	switch {
	case !m.have:
		m.since, m.cur, m.prev, m.have = at, v, v, true
	case at-m.since >= 2*m.span:
		m.since, m.cur, m.prev = at, v, v
	case at-m.since >= m.span:
		m.since, m.cur, m.prev = at, v, m.cur
	default:
		m.cur = min(m.cur, v)
	}
}

func (m *minimum) value() time.Duration { return min(m.cur, m.prev) }

func (m *minimum) reset() { *m = minimum{span: m.span} }

// maximum is the greatest value of about the last one to two spans.
type maximum struct {
	span      time.Duration
	since     time.Duration // begin of the current span
	cur, prev float64
}

func (m *maximum) add(at time.Duration, v float64) {
	switch {
	case at-m.since >= 2*m.span || at < m.since:
		m.since, m.cur, m.prev = at, v, 0
	case at-m.since >= m.span:
		m.since, m.cur, m.prev = at, v, m.cur
	default:
		m.cur = max(m.cur, v)
	}
}

func (m *maximum) value() float64 { return max(m.cur, m.prev) }

// cut lowers what is greater than v.
func (m *maximum) cut(v float64) { m.cur, m.prev = min(m.cur, v), min(m.prev, v) }
