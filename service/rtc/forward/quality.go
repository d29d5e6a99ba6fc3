package forward

import (
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/estimate"
)

// What the sampler of a server, one goroutine, asks once a second. Counters it needs beyond those that
// are there anyway are plain numbers under locks that are held where they are counted, or atomics of
// what is rare; the sampler takes each lock of a peer once.

const (
	// transitGap is the time without packets of a stream after which its timestamps may have taken
	// another beginning: browsers stop the clock of a muted voice.
	transitGap = time.Second

	// transitJump is the most that a way can become longer; beyond, it is the clock.
	transitJump = 5 * time.Second

	// clockDrift is how fast what is usual follows what is, upwards: clocks of sound cards differ by
	// less than that. A delay that stays is told for minutes.
	clockDrift = 200 * time.Microsecond // in a second

	// fedTime is for how many seconds transport-wide feedback is better than reports.
	fedTime = 6
)

// sampledStream is what of an inbound stream only samples need. It is guarded by the peer's mu.
type sampledStream struct {
	expected, received uint32 // at the last sample
	repaired           uint32 // packets since

	// In units of the stream's clock, relative to its beginning.
	some  bool  // least is valid
	fresh bool  // the clock may have begun anew
	least int32 // of this second
	usual int32
	age   uint32 // samples since the clock began; 0: usual is not valid
}

// transit notes what a packet took, which came that long after the one before it.
func (s *sampledStream) transit(took int32, since time.Duration) {
	s.fresh = s.fresh || since > transitGap
	if !s.some || took-s.least < 0 {
		s.some, s.least = true, took
	}
}

// delay returns how much longer than usual the fastest packet of the second took, and for how many
// samples that is known. It begins another second.
func (s *sampledStream) delay(clockRate uint32) (over time.Duration, age uint32) {
	if !s.some || clockRate == 0 {
		return 0, 0
	}
	s.some = false
	units := func(d time.Duration) int32 { return int32(toClock(d, clockRate)) }
	rise := s.least - s.usual
	if s.fresh || s.age == 0 || rise > units(transitJump) || rise < -units(transitJump) {
		s.fresh, s.age, s.usual = false, 1, s.least
		return 0, s.age
	}
	s.age++
	if rise <= 0 {
		s.usual = s.least
		return 0, s.age
	}
	s.usual += min(rise, units(clockDrift))
	return time.Duration(rise) * time.Second / time.Duration(clockRate), s.age
}

// sampledUplink is what of all that comes from an endpoint only samples need. It is guarded by the
// peer's mu.
type sampledUplink struct {
	octets      uint64
	dropped     uint32
	last, quiet time.Duration // of the last packet; the longest time without
	loudness    uint8         // 128 less the loudest level
}

// packet notes an authentic RTP packet.
func (s *sampledUplink) packet(n int, now time.Duration) {
	s.octets += uint64(n)
	s.heard(now)
}

// heard notes any authentic packet.
func (s *sampledUplink) heard(now time.Duration) {
	if s.last != 0 {
		s.quiet = max(s.quiet, now-s.last)
	}
	s.last = now
}

// sampledPublication is the sampler's alone.
type sampledPublication struct {
	lost  int32 // in this second, of the streams that feed it, and not repaired
	flows bool  // packets come
	keys  uint32
	sent  uint32 // keyframe requests
}

// SampleUp tells what came from the endpoint since it was called last, which is to be a second ago. One
// goroutine calls it, for all peers, and then SampleDown for all.
func (peer *Peer) SampleUp(sample *report.Sample) {
	s, now := &sample.Up, peer.plane.clock()
	peer.mu.Lock()
	defer peer.mu.Unlock()
	for _, pub := range peer.pubs {
		pub.sampled.lost, pub.sampled.flows = 0, false
		switch {
		case pub.cfg.Source.video():
			sample.State |= report.HasVideo
			pub.sampleKeyframes(s)
		case pub.cfg.Source == Voice:
			sample.State |= report.HasVoice
			if pub.muted || pub.silenced() {
				sample.State |= report.Muted
			}
		}
	}
	in := &peer.in
	oldest := uint32(0)
	for _, st := range in.streams[:in.n] {
		if st.repair || !st.started {
			continue
		}
		expected := st.highest - st.base + 1
		came := st.received - st.sampled.received
		lost := int32(expected-st.sampled.expected) - int32(came)
		st.sampled.expected, st.sampled.received = expected, st.received
		s.Packets += came
		s.Lost += lost
		s.Repaired += st.sampled.repaired
		if pub := st.section.pub; pub != nil {
			pub.sampled.lost += lost - int32(st.sampled.repaired)
			pub.sampled.flows = pub.sampled.flows || now-st.arrived < layerTimeout
		}
		st.sampled.repaired = 0
		if st.section.Audio {
			s.Sounds += came
			if came > 0 && st.clockRate > 0 {
				s.Jitter = max(s.Jitter, st.jitter>>4*1000/st.clockRate)
			}
		} else if now-st.arrived < layerTimeout {
			s.Layers++
		}
		if over, age := st.sampled.delay(st.clockRate); age > oldest {
			oldest, s.Delay = age, milliseconds(over)
		}
	}
	u := &in.sampled
	s.Bytes, s.Dropped, s.Loudness = uint32(u.octets), u.dropped, uint32(u.loudness)
	quiet := u.quiet
	if u.last != 0 {
		quiet = max(quiet, now-u.last)
	}
	s.Quiet = milliseconds(quiet)
	*u = sampledUplink{last: u.last}
}

// sampleKeyframes adds what there was of keyframes. It is called with peer.mu held.
func (pub *Publication) sampleKeyframes(s *report.Up) {
	keys, sent := uint32(0), uint32(0)
	for _, l := range pub.layers {
		keys += l.keys
		sent += l.keyframe.sent.Load()
	}
	s.Keys += keys - pub.sampled.keys
	s.KeyAsked += sent - pub.sampled.sent
	s.Declared += uint32(len(pub.layers))
	pub.sampled.keys, pub.sampled.sent = keys, sent
}

// toldWindow is how many of the last packets are known to have been told lost.
const toldWindow = 1 << 10

// sampledDownlink is what of the way to a peer only samples need. It is guarded by downlink.mu.
type sampledDownlink struct {
	told uint32
	lost int32 // not of probes: they are sent to find out what is too much

	started bool
	newest  uint16                  // transport-wide number
	missing [toldWindow / 64]uint64 // of the packets up to it: told lost

	some  bool          // least is valid
	least time.Duration // of the delays of this second
	usual time.Duration
	known bool // usual is valid
	fed   uint8

	videos, reduced, paused uint32
}

// packet notes what feedback tells of a packet.
func (d *sampledDownlink) packet(transport uint16, p *estimate.Packet) {
	ahead := transport - d.newest
	switch {
	case !d.started || ahead != 0 && ahead < 1<<15:
		if !d.started || ahead >= toldWindow {
			clear(d.missing[:])
		} else {
			for n := d.newest + 1; n != transport; n++ {
				d.missing[n%toldWindow/64] &^= 1 << (n % 64)
			}
		}
		d.started, d.newest = true, transport
		d.mark(transport, p.Lost)
		if !p.Probe {
			d.told++
			if p.Lost {
				d.lost++
			}
		}
	case -ahead >= toldWindow || p.Lost:
		return
	case d.missing[transport%toldWindow/64]&(1<<(transport%64)) != 0: // it came after all
		d.mark(transport, false)
		if !p.Probe {
			d.lost--
		}
	}
	if delay := p.Arrived - p.Sent; !p.Lost && (!d.some || delay < d.least) {
		d.some, d.least = true, delay
	}
}

func (d *sampledDownlink) mark(transport uint16, lost bool) {
	word, bit := &d.missing[transport%toldWindow/64], uint64(1)<<(transport%64)
	if *word &^= bit; lost {
		*word |= bit
	}
}

// delay returns how much longer than usual the fastest packet of the second took. It begins another
// second.
func (d *sampledDownlink) delay() time.Duration {
	if !d.some {
		return 0
	}
	d.some = false
	rise := d.least - d.usual
	if !d.known || rise <= 0 || rise > transitJump {
		d.known, d.usual = true, d.least
		return 0
	}
	d.usual += min(rise, clockDrift)
	return rise
}

// share notes how a tick has shared the estimate.
func (d *sampledDownlink) share(w *share) {
	d.videos, d.reduced, d.paused = uint32(len(w.videos)), 0, 0
	for i := range w.videos {
		switch {
		case i >= len(w.demands): // a camera of those that are not to be seen
		case w.targets[i] < 0:
			d.paused++
		case w.targets[i] < len(w.demands[i].Rungs)-1:
			d.reduced++
		}
	}
}

// sampledSubscription is the sampler's alone.
type sampledSubscription struct {
	packets, octets uint64
	reports         uint32
	highest         uint32
	lost            int32
	inherited       int32 // packets that did not come to us since the last report
	asked, repaired uint32
	waiting         uint8 // samples in which what is sent was not what is to be
}

// SampleDown tells what went to the endpoint since it was called last, and what the endpoint has told of
// that. roundTrip is 0 if nothing new is known of it. SampleUp comes first, for all peers.
func (peer *Peer) SampleDown(s *report.Down) (roundTrip time.Duration) {
	var told uint32
	var lost int32
	video := false
	for _, sub := range *peer.sublist.Load() {
		trip, n, gone := sub.sample(s)
		told, lost = told+n, lost+gone
		video = video || sub.view != nil
		if trip != 0 && (roundTrip == 0 || trip < roundTrip) {
			roundTrip = trip
		}
	}
	d := peer.down.Load()
	if d == nil {
		s.Told, s.Lost = told, lost
		return roundTrip
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q := &d.sampled
	if q.told > 0 {
		q.fed = fedTime
	}
	if q.fed > 0 {
		q.fed--
		s.Told, s.Lost = q.told, q.lost
	} else {
		s.Told, s.Lost = told, lost
	}
	q.told, q.lost = 0, 0
	s.Delay = milliseconds(q.delay())
	if video {
		s.Videos, s.Reduced, s.Paused = q.videos, q.reduced, q.paused
		s.Estimate = uint32(d.estimator.Bitrate() / 1000)
	}
	return roundTrip
}

// sample adds what there was of one subscription, and returns what the receiver has told of it: of how
// many packets, and how many of those were lost on the way from us.
func (sub *Subscription) sample(s *report.Down) (roundTrip time.Duration, told uint32, lost int32) {
	q := &sub.sampled
	packets, octets := sub.packets.Load(), sub.octets.Load()
	asked, repaired := sub.keyframesAsked.Load(), sub.repaired.Load()
	s.Packets += uint32(packets - q.packets)
	s.Bytes += uint32(octets - q.octets)
	s.KeyAsked += asked - q.asked
	s.Resent += repaired - q.repaired
	q.packets, q.octets, q.asked, q.repaired = packets, octets, asked, repaired
	if sub.view != nil {
		if sub.waits() {
			q.waiting = min(q.waiting+1, 100)
		} else {
			q.waiting = 0
		}
		if q.waiting > 1 {
			s.Waiting++
		}
	}
	q.inherited += sub.pub.sampled.lost
	n := sub.reports.Load()
	if n == q.reports {
		return 0, 0, 0
	}
	highest, all := sub.highest.Load(), sub.lost.Load()
	if q.reports > 0 {
		told = highest - q.highest
		lost = all - q.lost - q.inherited
	}
	if told > 1<<16 { // of another round of numbers than we think
		told, lost = 0, 0
	}
	if told == 0 {
		lost = min(lost, 0)
	}
	q.reports, q.highest, q.lost, q.inherited = n, highest, all, 0
	if !sub.pub.cfg.Source.video() {
		const clockRate = 48_000 // of Opus
		s.Jitter = max(s.Jitter, sub.jitter.Load()/(clockRate/1000))
	}
	return time.Duration(sub.roundTrip.Load()), told, lost
}

// waits reports whether a video is to be sent as another stream than it is, and packets of it come.
func (sub *Subscription) waits() bool {
	want, now := unpackTarget(sub.target.Load()), unpackTarget(sub.current.Load())
	return want.layer >= 0 && want.layer != now.layer && sub.pub.sampled.flows
}

// milliseconds rounds up, so that what is known is not 0.
func milliseconds(d time.Duration) uint32 {
	return uint32((d + time.Millisecond - 1) / time.Millisecond)
}

// stayed notes how long a batch of packets was in the server.
func (p *Plane) stayed(d time.Duration) {
	if int64(d) > p.slowest.Load() {
		p.slowest.Store(int64(d))
	}
}

// Slowest returns how long the slowest batch of packets since the last call was in the server.
func (p *Plane) Slowest() time.Duration { return time.Duration(p.slowest.Swap(0)) }
