package report

import "encoding/binary"

// fields is how many numbers a Sample has.
const fields = 30

// values lists the numbers of a sample, in the order of their declaration.
func (s *Sample) values() [fields]int64 {
	u, d := &s.Up, &s.Down
	return [fields]int64{
		s.Unix, int64(s.State), int64(s.RoundTrip),
		int64(u.Packets), int64(u.Sounds), int64(u.Bytes), int64(u.Lost), int64(u.Repaired), int64(u.Dropped),
		int64(u.Jitter), int64(u.Delay), int64(u.Quiet), int64(u.Loudness),
		int64(u.Layers), int64(u.Declared), int64(u.KeyAsked), int64(u.Keys),
		int64(d.Packets), int64(d.Bytes), int64(d.Told), int64(d.Lost), int64(d.Resent),
		int64(d.Jitter), int64(d.Delay), int64(d.Estimate),
		int64(d.Videos), int64(d.Reduced), int64(d.Paused), int64(d.Waiting), int64(d.KeyAsked),
	}
}

// sampleOf is the other way round.
func sampleOf(v *[fields]int64) Sample {
	return Sample{
		Unix: v[0], State: State(v[1]), RoundTrip: uint32(v[2]),
		Up: Up{
			Packets: uint32(v[3]), Sounds: uint32(v[4]), Bytes: uint32(v[5]), Lost: int32(v[6]), Repaired: uint32(v[7]),
			Dropped: uint32(v[8]), Jitter: uint32(v[9]), Delay: uint32(v[10]), Quiet: uint32(v[11]), Loudness: uint32(v[12]),
			Layers: uint32(v[13]), Declared: uint32(v[14]), KeyAsked: uint32(v[15]), Keys: uint32(v[16]),
		},
		Down: Down{
			Packets: uint32(v[17]), Bytes: uint32(v[18]), Told: uint32(v[19]), Lost: int32(v[20]), Resent: uint32(v[21]),
			Jitter: uint32(v[22]), Delay: uint32(v[23]), Estimate: uint32(v[24]),
			Videos: uint32(v[25]), Reduced: uint32(v[26]), Paused: uint32(v[27]), Waiting: uint32(v[28]), KeyAsked: uint32(v[29]),
		},
	}
}

// A Point is one or more seconds of a session. What Sample counts is counted over all of them; the rest
// is the mean, rounded up; a flag of State holds if it does for the last second, but Connected for all.
type Point struct {
	Sample
	Span      uint32 // seconds
	Low, High Gauges
}

// Gauges are the extremes of some numbers over the seconds of a point.
type Gauges struct {
	RoundTrip, UpJitter, UpDelay, Quiet, UpKilobits uint32
	UpLoss, DownLoss                                uint32 // thousandths
	DownJitter, DownDelay, Estimate                 uint32
}

const gauges = 10

func (g *Gauges) values() [gauges]uint32 {
	return [gauges]uint32{g.RoundTrip, g.UpJitter, g.UpDelay, g.Quiet, g.UpKilobits, g.UpLoss, g.DownLoss, g.DownJitter, g.DownDelay, g.Estimate}
}

func gaugesOf(v *[gauges]uint32) Gauges {
	return Gauges{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]}
}

// gauges returns those of a mean or of a single second.
func (s *Sample) gauges() Gauges {
	return Gauges{
		RoundTrip: s.RoundTrip, UpJitter: s.Up.Jitter, UpDelay: s.Up.Delay, Quiet: s.Up.Quiet, UpKilobits: s.Up.Kilobits(),
		UpLoss: uint32(s.Up.Loss() * 1000), DownLoss: uint32(s.Down.Loss() * 1000),
		DownJitter: s.Down.Jitter, DownDelay: s.Down.Delay, Estimate: s.Down.Estimate,
	}
}

// point makes a Point of one second.
func point(s *Sample) Point {
	g := s.gauges()
	return Point{Sample: *s, Span: 1, Low: g, High: g}
}

// merge makes one Point of some that follow each other.
func merge(points []Point) Point {
	out := points[len(points)-1]
	last := out.State
	out.Span, out.Low, out.High = 0, points[0].Low, points[0].High
	connected := Connected
	var sum [fields]int64
	trips := int64(0)
	low, high := out.Low.values(), out.High.values()
	for i := range points {
		p := &points[i]
		connected &= p.State
		out.Span += p.Span
		if p.RoundTrip > 0 {
			trips += int64(p.Span)
		}
		v := p.values()
		for k := range sum {
			if counts[k] {
				sum[k] += v[k]
			} else {
				sum[k] += v[k] * int64(p.Span)
			}
		}
		l, h := p.Low.values(), p.High.values()
		for k := range low {
			low[k], high[k] = min(low[k], l[k]), max(high[k], h[k])
		}
	}
	for k := range sum {
		if span := int64(out.Span); !counts[k] && k != tripField {
			sum[k] = (sum[k] + span - 1) / span
		}
	}
	if trips > 0 {
		sum[tripField] = (sum[tripField] + trips - 1) / trips
	}
	unix := out.Unix
	out.Sample = sampleOf(&sum)
	out.Unix, out.State = unix, last&^Connected|connected
	out.Low, out.High = gaugesOf(&low), gaugesOf(&high)
	return out
}

const tripField = 2

// counts says which numbers add up.
var counts = [fields]bool{
	3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 15: true, 16: true,
	17: true, 18: true, 19: true, 20: true, 21: true, 29: true,
}

// A block is some points that follow each other, each but the first as its difference to the one before.
type block struct {
	b      []byte
	n      int
	before [fields]int64
}

// add appends a point. Extremes are kept of those of several seconds.
func (k *block) add(p *Point) {
	v := p.values()
	var mask uint64
	var tmp [(fields + 2*gauges + 3) * binary.MaxVarintLen64]byte
	b := tmp[:0]
	for i := range v {
		d := v[i] - k.before[i]
		if i == 0 && k.n > 0 {
			d -= int64(p.Span)
		}
		if d != 0 {
			mask |= 1 << i
			b = binary.AppendVarint(b, d)
		}
	}
	k.b = binary.AppendUvarint(k.b, mask)
	k.b = append(k.b, b...)
	k.b = binary.AppendUvarint(k.b, uint64(p.Span))
	if p.Span > 1 {
		g := p.Sample.gauges()
		mean, low, high := g.values(), p.Low.values(), p.High.values()
		mask, b = 0, tmp[:0]
		for i := range mean {
			for j, d := range [2]int64{int64(low[i]) - int64(mean[i]), int64(high[i]) - int64(mean[i])} {
				if d != 0 {
					mask |= 1 << (2*i + j)
					b = binary.AppendVarint(b, d)
				}
			}
		}
		k.b = binary.AppendUvarint(k.b, mask)
		k.b = append(k.b, b...)
	}
	k.before = v
	k.n++
}

// appendPoints appends the points of a block, as add made them.
func appendPoints(out []Point, b []byte) []Point {
	var v [fields]int64
	first := true
	next := func() uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			size = len(b) // not from add: no more
		}
		b = b[size:]
		return n
	}
	signed := func() int64 {
		n, size := binary.Varint(b)
		if size <= 0 {
			size = len(b)
		}
		b = b[size:]
		return n
	}
	for len(b) > 0 {
		mask := next()
		for i := range v {
			if mask&(1<<i) != 0 {
				v[i] += signed()
			}
		}
		p := Point{Span: uint32(next())}
		if !first {
			v[0] += int64(p.Span)
		}
		first = false
		p.Sample = sampleOf(&v)
		g := p.Sample.gauges()
		p.Low, p.High = g, g
		if p.Span > 1 {
			low, high := g.values(), g.values()
			mask = next()
			for i := range low {
				if mask&(1<<(2*i)) != 0 {
					low[i] = uint32(int64(low[i]) + signed())
				}
				if mask&(1<<(2*i+1)) != 0 {
					high[i] = uint32(int64(high[i]) + signed())
				}
			}
			p.Low, p.High = gaugesOf(&low), gaugesOf(&high)
		}
		out = append(out, p)
	}
	return out
}
