package forward

import (
	"time"

	"rtcd/service/rtc/codec"
)

// meterSlots is how many intervals the rates of a layer are measured over: 1.4 s, and the one at
// hand.
const meterSlots = 15

// meter measures what a layer costs, apart for its spatial and temporal layers. It is guarded by
// peer.mu.
type meter struct {
	spatials, temporals uint8 // seen since the last keyframe that told

	lone    bool // its layer is the only one
	started bool
	slot    int // at hand
	slots   int // before it that count
	begun   [meterSlots]time.Duration
	bytes   [meterSlots][maxSpatials][maxTemporals]int32
	sum     [maxSpatials][maxTemporals]int // of all slots
}

// loneSpan is what the first packets are taken to be of, at least, where there is nothing else that
// could be sent: a stream begins with a keyframe, which says little of what it costs.
const loneSpan = 600 * time.Millisecond

// packetOverhead is what the network adds to a packet: headers of IP and UDP.
const packetOverhead = 28

// add notes a packet of n bytes.
func (m *meter) add(d *codec.Descriptor, n int, now time.Duration) {
	if !m.started {
		m.started, m.begun[m.slot] = true, now
	}
	s, t := min(d.Spatial, maxSpatials-1), min(d.Temporal, maxTemporals-1)
	if d.Known {
		if d.Keyframe {
			m.spatials, m.temporals = 0, 0
		}
		m.spatials = max(m.spatials, s+1, min(d.Spatials, maxSpatials))
		m.temporals = max(m.temporals, t+1, min(d.Temporals, maxTemporals))
	}
	m.sum[s][t] += n + packetOverhead
	m.bytes[m.slot][s][t] += int32(n + packetOverhead)
}

// roll begins the next slot.
func (m *meter) roll(now time.Duration) {
	if !m.started {
		return
	}
	m.slots = min(m.slots+1, meterSlots-1)
	m.slot = (m.slot + 1) % meterSlots
	m.begun[m.slot] = now
	for s := range maxSpatials {
		for t := range maxTemporals {
			m.sum[s][t] -= int(m.bytes[m.slot][s][t])
			m.bytes[m.slot][s][t] = 0
		}
	}
}

// rate returns the bits per second of the layers up to s and t, right after roll.
func (m *meter) rate(s, t int) int {
	oldest := (m.slot - m.slots + meterSlots) % meterSlots
	span := m.begun[m.slot] - m.begun[oldest]
	if span <= 0 {
		return 0
	}
	bytes := 0
	for i := 0; i <= s; i++ {
		for j := 0; j <= t; j++ {
			bytes += m.sum[i][j]
		}
	}
	least := TickInterval
	if m.lone && m.spatials <= 1 && m.temporals <= 1 {
		least = loneSpan
	}
	return int(int64(bytes) * 8 * int64(time.Second) / int64(max(span, least)))
}
