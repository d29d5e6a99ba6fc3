package estimate

import "time"

const (
	meterSlot  = 25 * time.Millisecond
	meterSlots = 48
	meterLeast = 4 // slots without which there is no rate
)

// meter measures the rate at which bits arrive, on the receiver's clock.
type meter struct {
	bits   [meterSlots]int64
	first  int64 // slot of the first arrival since the last silence
	newest int64 // slot of the newest arrival
	used   bool
}

// add counts a packet of size bytes that arrived at that time.
func (m *meter) add(arrived time.Duration, size int) {
	i := floorDiv(arrived, meterSlot)
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

// rate returns the bit/s that arrived in the newest window, which leaves out the slot that still
// fills; 0 while that is not known.
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
	lossSlot  = 100 * time.Millisecond
	lossSlots = 10
)

// losses counts packets and those of them that were lost, over the last second.
type losses struct {
	total, lost [lossSlots]int
	newest      int64
}

// add counts at now.
func (l *losses) add(now time.Duration, total, lost int) {
	i := floorDiv(now, lossSlot)
	if i < l.newest || i-l.newest >= lossSlots {
		*l = losses{newest: i}
	}
	for l.newest < i {
		l.newest++
		at := mod(l.newest, lossSlots)
		l.total[at], l.lost[at] = 0, 0
	}
	at := mod(i, lossSlots)
	l.total[at] += total
	l.lost[at] += lost
}

// found takes back one loss.
func (l *losses) found() {
	for i := range int64(lossSlots) {
		if at := mod(l.newest-i, lossSlots); l.lost[at] > 0 {
			l.lost[at]--
			return
		}
	}
}

// sum returns the packets of the last second.
func (l *losses) sum() (total, lost int) {
	for i := range l.total {
		total += l.total[i]
		lost += l.lost[i]
	}
	return total, lost
}

// share returns the share of lost packets of the last second, 0 to 1.
func (l *losses) share() float64 {
	total, lost := l.sum()
	if total == 0 {
		return 0
	}
	return float64(lost) / float64(total)
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
