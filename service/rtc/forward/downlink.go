package forward

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/allocate"
	"rtcd/service/rtc/estimate"
)

const (
	sendWindow = 1 << 12 // packets to one peer whose times of sending are kept: 0.8 s of padding at maxRate
	startRate  = 1_500_000
	minRate    = 100_000
	maxRate    = 12_000_000
)

// downlink is what is known of the way to a peer that is sent videos.
type downlink struct {
	log   [sendWindow]atomic.Uint64 // packets sent, by transport-wide number: see noteSent
	bytes atomic.Uint64             // sent, without what only probes the path

	mu        sync.Mutex
	estimator *estimate.Estimator // guarded by mu
	arrived   []estimate.Packet   // memory for feedback, guarded by mu
	reference feedbackClock       // guarded by mu
	sampled   sampledDownlink     // guarded by mu

	// Tick's alone.
	allocator allocate.Allocator
	shared    time.Duration // when it was shared out last
	metered   uint64        // bytes then
	sending   average       // of all media
	sounds    average       // of sounds
	estimate  int           // of what the path carries, bits per second
	limited   bool          // videos are sent as less than they are there as, for its sake
	carrier   *Subscription // that padding goes with
}

func newDownlink() *downlink {
	return &downlink{
		estimator: estimate.New(estimate.Config{Start: startRate, Min: minRate, Max: maxRate}),
		arrived:   make([]estimate.Packet, 0, maxStatuses),
	}
}

// Fields of an entry in downlink.log: the time of sending in microseconds, modulo twelve days, the
// upper bits of the transport-wide number, whether it was padding, whether the entry is used, and the length.
const (
	sentSize  = 1<<16 - 1
	sentUsed  = 1 << 16
	sentProbe = 1 << 17
	sentRound = 18 // shift, 6 bits
	sentTime  = 24 // shift, 40 bits
)

// noteSent notes that a packet of n bytes was sent to the receiver, under the transport-wide number
// if it has one.
func (sub *Subscription) noteSent(transport uint16, n int, now time.Duration, probe bool) {
	d := sub.peer.down.Load()
	if d == nil || n == 0 {
		return
	}
	n += packetOverhead
	if !probe {
		d.bytes.Add(uint64(n))
	}
	if sub.ext.TWCC == 0 {
		return
	}
	entry := uint64(now.Microseconds())<<sentTime | uint64(transport/sendWindow)<<sentRound | sentUsed | uint64(n)
	if probe {
		entry |= sentProbe
	}
	d.log[transport%sendWindow].Store(entry)
}

// sentPacket returns what is known at now of the packet with that transport-wide number.
func (d *downlink) sentPacket(transport uint16, now time.Duration) (p estimate.Packet, ok bool) {
	entry := d.log[transport%sendWindow].Load()
	if entry&sentUsed == 0 || uint16(entry>>sentRound)&(1<<6-1) != transport/sendWindow {
		return p, false
	}
	ago := int64(uint64(now.Microseconds())-entry>>sentTime) << sentTime >> sentTime
	return estimate.Packet{
		Sent:  time.Duration(now.Microseconds()-ago) * time.Microsecond,
		Size:  int(entry & sentSize),
		Probe: entry&sentProbe != 0,
	}, true
}

// feedback takes what the peer says of when packets arrived
// (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).
func (d *downlink) feedback(b []byte, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arrived = d.arrived[:0]
	d.reference.read(b, func(transport uint16, at time.Duration, lost bool) {
		if p, ok := d.sentPacket(transport, now); ok {
			p.Arrived, p.Lost = at, lost
			d.arrived = append(d.arrived, p)
			d.sampled.packet(transport, &p)
		}
	})
	if len(d.arrived) > 0 {
		d.estimator.Feedback(now, d.arrived)
	}
}

// report takes what the peer says of the packets that came of one stream.
func (d *downlink) report(lost float64, trip, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.estimator.Report(now, lost, trip)
}

// remb takes what the peer itself thinks that it can receive.
func (d *downlink) remb(bps int, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.estimator.REMB(now, bps)
}

// maxStatuses is how many packets of one feedback are looked at.
const maxStatuses = 1 << 10

// feedbackClock extends the reference times of transport-wide feedback.
type feedbackClock struct {
	started bool
	last    int64 // in units of 64 ms
}

// read calls visit for each packet that the feedback b tells of, up to what does not fit. Arrivals
// are on the receiver's clock.
func (c *feedbackClock) read(b []byte, visit func(transport uint16, at time.Duration, lost bool)) {
	if len(b) < twccHeader {
		return
	}
	transport := binary.BigEndian.Uint16(b[12:])
	count := min(int(binary.BigEndian.Uint16(b[14:])), maxStatuses)
	at := c.extend(binary.BigEndian.Uint32(b[16:]) >> 8)

	// Statuses come before the deltas: the first pass finds where those begin.
	chunks := b[twccHeader:]
	end, told := 0, 0
	for ; told < count && len(chunks)-end >= 2; end += 2 {
		told += chunkLength(binary.BigEndian.Uint16(chunks[end:]))
	}
	if told < count {
		return
	}
	deltas := chunks[end:]
	for i := 0; i < end; i += 2 {
		chunk := binary.BigEndian.Uint16(chunks[i:])
		for k := range min(chunkLength(chunk), count) {
			switch symbol(chunk, k) {
			case smallDelta:
				if len(deltas) < 1 {
					return
				}
				at += time.Duration(deltas[0]) * twccUnit
				deltas = deltas[1:]
				visit(transport, at, false)
			case largeDelta:
				if len(deltas) < 2 {
					return
				}
				at += time.Duration(int16(binary.BigEndian.Uint16(deltas))) * twccUnit
				deltas = deltas[2:]
				visit(transport, at, false)
			default:
				visit(transport, 0, true)
			}
			transport++
		}
		count -= min(chunkLength(chunk), count)
	}
}

// chunkLength returns how many packets a status chunk tells of (sections 3.1.3 and 3.1.4).
func chunkLength(chunk uint16) int {
	switch {
	case chunk&0x8000 == 0:
		return int(chunk & 0x1fff)
	case chunk&0x4000 == 0:
		return 14
	default:
		return 7
	}
}

// symbol returns what a status chunk says of its packet k.
func symbol(chunk uint16, k int) uint16 {
	switch {
	case chunk&0x8000 == 0:
		return chunk >> 13 & 3
	case chunk&0x4000 == 0:
		return chunk >> (13 - k) & 1
	default:
		return chunk >> (12 - 2*k) & 3
	}
}

// extend returns the reference time as a time that goes on when its 24 bits roll over.
func (c *feedbackClock) extend(reference uint32) time.Duration {
	const unit = 64 * time.Millisecond
	if !c.started {
		c.started, c.last = true, 1<<24|int64(reference)
	} else {
		c.last += int64(int32(reference-uint32(c.last)) << 8 >> 8)
	}
	return time.Duration(c.last) * unit
}
