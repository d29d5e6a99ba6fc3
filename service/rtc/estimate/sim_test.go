package estimate

import (
	"math/rand/v2"
	"slices"
	"time"
)

// The simulation: flows of what a forwarder sends, over one link, in virtual time. A step is 1 ms.

const (
	simAudio      = 40_000 // bit/s: 50 packets of 100 bytes a second
	simVoiceEvery = 20 * ms
	simSwitch     = 120 * ms // from a decision to the keyframe it waits for
	simKeyframe   = 3        // × a usual frame
	simPacket     = 1200     // bytes
	simPadding    = 10 * ms  // between packets of padding, unless a flow says otherwise
	simTick       = 100 * ms
	simFrameEvery = time.Second / 30
)

// steps is a value that changes at times.
type steps []struct {
	from time.Duration
	rate float64 // bit/s
}

func constant(rate float64) steps { return steps{{0, rate}} }

func (s steps) at(t time.Duration) float64 {
	rate := s[0].rate
	for _, v := range s {
		if t >= v.from {
			rate = v.rate
		}
	}
	return rate
}

// path is a link with a queue, and what is behind it.
type path struct {
	rate    steps
	limit   time.Duration // of the queue; 0: 300 ms
	delay   time.Duration // of either direction
	loss    float64
	jitter  time.Duration // ± for each packet
	fifo    bool          // jitter keeps the order
	reorder float64       // share of packets that are held back by up to 40 ms
	report  time.Duration // between feedbacks; 0: random, 50 to 100 ms
	ppm     float64       // drift of the receiver's clock

	cross steps // of others, through the same queue; they do not react

	crossed float64       // bits they have sent ahead
	free    time.Duration // when the queue is empty
	last    time.Duration // arrival
}

// others lets others send for a step.
func (p *path) others(now time.Duration) {
	if p.cross == nil {
		return
	}
	p.crossed += p.cross.at(now) * ms.Seconds()
	for p.crossed >= simPacket*8 {
		p.crossed -= simPacket * 8
		p.queue(now, simPacket)
	}
}

// queue puts a packet into the queue, if it has room.
func (p *path) queue(now time.Duration, size int) bool {
	limit := p.limit
	if limit == 0 {
		limit = 300 * ms
	}
	if p.free-now > limit {
		return false
	}
	p.free = max(p.free, now) + time.Duration(float64(size)*8/p.rate.at(now)*float64(time.Second))
	return true
}

// send returns when a packet arrives that is sent at now.
func (p *path) send(rng *rand.Rand, now time.Duration, size int) (arrival time.Duration, lost bool) {
	if !p.queue(now, size) || rng.Float64() < p.loss {
		return 0, true
	}
	at := p.free + p.delay
	if p.jitter > 0 {
		at += time.Duration((rng.Float64()*2 - 1) * float64(p.jitter))
	}
	if rng.Float64() < p.reorder {
		at += time.Duration(rng.Float64() * float64(40*ms))
	} else if p.fifo {
		at = max(at, p.last)
		p.last = at
	}
	return max(at, now+ms), false
}

type sample struct {
	at      time.Duration
	bitrate int
	layer   int
	queue   time.Duration
}

// flow is a forwarder's downlink to one receiver.
type flow struct {
	est      *Estimator
	path     *path
	rng      *rand.Rand
	rungs    []float64 // bit/s of the layers of the video
	fixed    int       // wanted, if it is not what the next rung needs
	muted    bool      // no video at all
	padEvery time.Duration

	current, target int // rungs; -1: none
	switchAt        time.Duration
	noAudio         bool // video is all that is sent
	keyframe        bool
	nextFrame       time.Duration
	nextAudio       time.Duration
	nextTick        time.Duration
	nextPad         time.Duration
	nextReport      time.Duration
	probing         int
	budget          float64 // bits that padding may take

	flight   []flying // sent and not told of
	late     []flying // told to be lost, still on the way
	feedback []feedback
	samples  []sample
	mediaSum int // bits of media sent since the last tick
	media    []int

	sent, lost   int
	unheard      []time.Duration // when audio was sent that was lost
	probes       []probing
	padding, all float64 // bits
}

type flying struct {
	Packet
	arrival time.Duration
	gone    bool
}

// probing is a probe as it was asked for.
type probing struct {
	start, end time.Duration
	rate       int
	before     int // estimate
	wanted     int
}

type feedback struct {
	at      time.Duration
	packets []Packet
}

func newFlow(seed uint64, p *path, rungs ...float64) *flow {
	return &flow{
		est: New(Config{}), path: p, rng: rand.New(rand.NewPCG(seed, 1)), rungs: rungs,
		current: -1, target: -1,
	}
}

// run runs flows, that may share a path, for some time from a start on.
func run(start, until time.Duration, flows ...*flow) {
	for now := start; now < until; now += ms {
		for i, f := range flows {
			if i == 0 {
				f.path.others(now)
			}
			f.step(now)
		}
	}
}

func (f *flow) step(now time.Duration) {
	for len(f.feedback) > 0 && f.feedback[0].at <= now {
		f.est.Feedback(now, f.feedback[0].packets)
		f.feedback = f.feedback[1:]
		f.allocate(now)
	}
	if now >= f.nextTick {
		f.tick(now)
	}
	if f.target != f.current && now >= f.switchAt {
		f.current, f.keyframe = f.target, true
	}
	if now >= f.nextAudio && !f.noAudio {
		f.nextAudio = now + simVoiceEvery
		if f.send(now, 100, false) {
			f.unheard = append(f.unheard, now)
		}
	}
	if now >= f.nextFrame {
		f.nextFrame += simFrameEvery
		f.frame(now)
	}
	if f.probing > 0 && now >= f.nextPad {
		every := f.padEvery
		if every == 0 {
			every = simPadding
		}
		f.nextPad = now + every
		f.budget += float64(f.probing) * every.Seconds()
		for f.budget >= 250*8 {
			f.send(now, int(min(simPacket, f.budget/8)), true)
		}
	}
	if now >= f.nextReport {
		f.report(now)
	}
}

func (f *flow) frame(now time.Duration) {
	if f.current < 0 || f.muted {
		return
	}
	size := f.rungs[f.current] / 30 / 8 * (0.75 + 0.5*f.rng.Float64())
	if f.keyframe {
		size, f.keyframe = size*simKeyframe, false
	}
	n := int(size/simPacket) + 1
	for range n {
		f.send(now, int(size)/n, false)
	}
}

// send sends a packet. It reports whether the path loses it.
func (f *flow) send(now time.Duration, size int, padding bool) (gone bool) {
	arrival, gone := f.path.send(f.rng, now, size)
	f.flight = append(f.flight, flying{
		Packet:  Packet{Sent: now, Size: size, Probe: padding},
		arrival: arrival, gone: gone,
	})
	f.sent++
	f.all += float64(size) * 8
	f.budget -= float64(size) * 8
	if gone {
		f.lost++
	}
	if padding {
		f.padding += float64(size) * 8
	} else {
		f.mediaSum += size * 8
	}
	return gone
}

// silence returns the share of the audio of a time that was lost.
func (f *flow) silence(from, to time.Duration) float64 {
	lost := 0
	for _, at := range f.unheard {
		if at >= from && at < to {
			lost++
		}
	}
	return float64(lost) / float64((to-from)/simVoiceEvery)
}

// report makes the receiver send its feedback.
func (f *flow) report(now time.Duration) {
	every := f.path.report
	if every == 0 {
		every = 50*ms + time.Duration(f.rng.Int64N(int64(50*ms)))
	}
	f.nextReport = now + every
	var packets []Packet
	f.late = slices.DeleteFunc(f.late, func(p flying) bool {
		if p.arrival > now {
			return false
		}
		packets = append(packets, f.arrived(p))
		return true
	})
	highest := -1
	for i, p := range f.flight {
		if !p.gone && p.arrival <= now {
			highest = i
		}
	}
	for _, p := range f.flight[:highest+1] {
		switch {
		case !p.gone && p.arrival <= now:
			packets = append(packets, f.arrived(p))
			continue
		case !p.gone:
			f.late = append(f.late, p)
		}
		p.Lost = true
		packets = append(packets, p.Packet)
	}
	f.flight = f.flight[highest+1:]
	if len(packets) > 0 {
		f.feedback = append(f.feedback, feedback{now + f.path.delay, packets})
	}
}

func (f *flow) arrived(p flying) Packet {
	p.Arrived = time.Duration(float64(p.arrival)*(1+f.path.ppm/1e6)) + 12345*time.Second
	return p.Packet
}

// allocate chooses the best rung that fits. It returns what the next would need.
func (f *flow) allocate(now time.Duration) (wanted int) {
	best := -1
	for i, r := range f.rungs {
		if r+simAudio <= float64(f.est.Bitrate()) {
			best = i
		}
	}
	if best != f.target {
		f.target, f.switchAt = best, now+simSwitch
		if best < 0 {
			f.switchAt = now
		}
	}
	if best+1 < len(f.rungs) {
		wanted = int(f.rungs[best+1]) + simAudio
	}
	if f.fixed > 0 {
		wanted = f.fixed
	}
	return wanted
}

func (f *flow) tick(now time.Duration) {
	f.nextTick = now + simTick
	wanted := f.allocate(now)
	f.media = append(f.media, f.mediaSum)
	f.mediaSum = 0
	if len(f.media) > 5 {
		f.media = f.media[1:]
	}
	sum := 0
	for _, m := range f.media {
		sum += m
	}
	before := f.est.Bitrate()
	rate := f.est.Probe(now, wanted, sum*10/len(f.media))
	if rate > 0 && f.probing == 0 {
		f.budget = 0
		f.probes = append(f.probes, probing{start: now, rate: rate, before: before, wanted: wanted})
	} else if rate == 0 && f.probing > 0 {
		f.probes[len(f.probes)-1].end = now
	}
	f.probing = rate
	f.samples = append(f.samples, sample{now, f.est.Bitrate(), f.current, max(0, f.path.free-now)})
}

// between returns the samples of a time.
func (f *flow) between(from, to time.Duration) []sample {
	var out []sample
	for _, s := range f.samples {
		if s.at >= from && s.at < to {
			out = append(out, s)
		}
	}
	return out
}

// first returns when, from a time on, the estimate first satisfies ok, as a time after it; -1: never.
func (f *flow) first(from time.Duration, ok func(bitrate int) bool) time.Duration {
	for _, s := range f.samples {
		if s.at >= from && ok(s.bitrate) {
			return s.at - from
		}
	}
	return -1
}

type summary struct {
	mean, low, high float64 // bit/s
	queue           time.Duration
	top             float64 // share of time at the best rung
}

func (f *flow) summary(from, to time.Duration) (s summary) {
	samples := f.between(from, to)
	queues := make([]time.Duration, 0, len(samples))
	s.low = 1e18
	for _, v := range samples {
		b := float64(v.bitrate)
		s.mean += b
		s.low, s.high = min(s.low, b), max(s.high, b)
		queues = append(queues, v.queue)
		if v.layer == len(f.rungs)-1 {
			s.top++
		}
	}
	n := float64(len(samples))
	s.mean, s.top = s.mean/n, s.top/n
	slices.Sort(queues)
	s.queue = queues[len(queues)*95/100]
	return s
}
