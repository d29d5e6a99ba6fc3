package forward

import (
	"encoding/binary"
	"time"
)

const (
	maxDropout  = 3000 // packets a source may jump ahead (RFC 3550 appendix A.1)
	maxMisorder = 1024 // packets that may be late before the source counts as restarted
)

// reception is what a receiver report says about one SSRC (RFC 3550 appendix A). Packets come
// with their tag verified, so a new source is believed at its first packet.
type reception struct {
	clockRate uint32

	started       bool
	base          uint32 // extended number of the first packet
	highest       uint32 // extended highest number
	received      uint32
	expectedPrior uint32 // when the last report was made
	receivedPrior uint32

	missing int32 // packets, beyond those that loss has told of; below 0: that came after it had

	transit int32  // of the last packet, in timestamp units
	jitter  uint32 // times 16

	timestamp uint32        // of the newest packet
	arrived   time.Duration // of the newest packet

	report senderInfo

	sampled sampledStream
}

// senderInfo is the last sender report of an SSRC.
type senderInfo struct {
	valid     bool
	ntp       uint64
	timestamp uint32
	arrived   time.Duration
}

// packet notes a packet.
func (r *reception) packet(seq uint16, timestamp uint32, now time.Duration) {
	ahead := seq - uint16(r.highest)
	if !r.started || ahead >= maxDropout && ahead <= -maxMisorder&0xffff {
		*r = reception{
			clockRate: r.clockRate, report: r.report, started: true,
			base: uint32(seq), highest: uint32(seq), received: 1,
			transit:   int32(toClock(now, r.clockRate) - timestamp),
			timestamp: timestamp, arrived: now,
		}
		r.sampled.transit(r.transit, 0)
		return
	}
	r.received++
	if ahead == 0 || ahead >= maxDropout {
		return // late, perhaps sent again: no measure of the jitter
	}
	r.highest += uint32(ahead)
	transit := int32(toClock(now, r.clockRate) - timestamp)
	r.sampled.transit(transit, now-r.arrived)
	r.timestamp, r.arrived = timestamp, now
	d := transit - r.transit
	r.transit = transit
	if d < 0 {
		d = -d
	}
	r.jitter += uint32(d) - (r.jitter+8)>>4 // appendix A.8
}

// lost returns how many packets were lost in all, within 24 signed bits.
func (r *reception) lost() int32 {
	expected := r.highest - r.base + 1
	return min(max(int32(expected-r.received), -1<<23), 1<<23-1)
}

// appendReport appends a report block (RFC 3550 section 6.4.1) and starts a new interval.
func (r *reception) appendReport(b []byte, ssrc uint32, now time.Duration) []byte {
	expected := r.highest - r.base + 1
	interval := expected - r.expectedPrior
	gone := int32(interval) - int32(r.received-r.receivedPrior)
	r.expectedPrior, r.receivedPrior = expected, r.received
	var fraction uint32
	if interval != 0 && gone > 0 {
		fraction = min(uint32(uint64(gone)<<8/uint64(interval)), 255)
	}
	var lsr, dlsr uint32
	if r.report.valid {
		lsr = uint32(r.report.ntp >> 16)
		dlsr = uint32(min((now-r.report.arrived)*65536/time.Second, 1<<32-1))
	}
	b = binary.BigEndian.AppendUint32(b, ssrc)
	b = binary.BigEndian.AppendUint32(b, fraction<<24|uint32(r.lost())&0xffffff)
	b = binary.BigEndian.AppendUint32(b, r.highest)
	b = binary.BigEndian.AppendUint32(b, r.jitter>>4)
	b = binary.BigEndian.AppendUint32(b, lsr)
	return binary.BigEndian.AppendUint32(b, dlsr)
}

// toClock returns d in units of a clock with the given rate, modulo 2^32.
func toClock(d time.Duration, rate uint32) uint32 {
	return uint32(d.Microseconds() * int64(rate) / 1_000_000)
}

// toNTP returns t as an NTP timestamp: seconds since 1900 with 32 bits of fraction.
func toNTP(t time.Time) uint64 {
	const since1900 = 2_208_988_800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// ntpDuration returns the difference of two NTP timestamps.
func ntpDuration(diff int64) time.Duration {
	return time.Duration(diff>>32)*time.Second + time.Duration(uint64(diff)&(1<<32-1)*1e9>>32)
}
