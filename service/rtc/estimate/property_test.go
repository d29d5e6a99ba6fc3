package estimate

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const kilobit = 1000

// drawPath draws what is not the rate of a path.
func drawPath(t *rapid.T) path {
	return path{
		limit:   time.Duration(rapid.IntRange(150, 1000).Draw(t, "queue ms")) * ms,
		delay:   time.Duration(rapid.IntRange(5, 100).Draw(t, "delay ms")) * ms,
		loss:    float64(rapid.IntRange(0, 5).Draw(t, "loss %")) / 100,
		jitter:  time.Duration(rapid.IntRange(0, 20).Draw(t, "jitter ms")) * ms,
		fifo:    rapid.Bool().Draw(t, "in order"),
		reorder: float64(rapid.IntRange(0, 20).Draw(t, "reordered %")) / 100,
		ppm:     float64(rapid.IntRange(-100, 100).Draw(t, "drift")),
	}
}

// On any constant link of which more is wanted than it has, the estimate converges to what it has.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := float64(rapid.IntRange(200, 5000).Draw(t, "kbit/s")) * kilobit
		p := drawPath(t)
		p.rate = constant(rate)
		// The best layer is beyond the link.
		f := newFlow(rapid.Uint64().Draw(t, "seed"), &p, 150e3, 500e3, 2.5e6, 6e6)
		run(0, 40*time.Second, f)
		s := f.summary(15*time.Second, 40*time.Second)
		if s.mean < 0.6*rate || s.mean > 1.1*rate {
			t.Errorf("%.0f kbit/s on average", s.mean/kilobit)
		}
		low := time.Duration(0)
		for _, v := range f.between(5*time.Second, 40*time.Second) {
			if float64(v.bitrate) >= 0.5*rate {
				low = v.at
			} else if low > 0 && v.at-low > 10*time.Second {
				t.Fatalf("less than half of the link from %v to %v", low, v.at)
			}
		}
	})
}

// Whatever the link does, the estimate follows.
func TestFollows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPath(t)
		for i := range 4 {
			rate := float64(rapid.IntRange(250, 5000).Draw(t, "kbit/s")) * kilobit
			p.rate = append(p.rate, struct {
				from time.Duration
				rate float64
			}{time.Duration(i) * 20 * time.Second, rate})
		}
		f := newFlow(rapid.Uint64().Draw(t, "seed"), &p, 150e3, 500e3, 1e6, 2.5e6, 6e6)
		run(0, 80*time.Second, f)
		for _, step := range p.rate {
			s := f.summary(step.from+12*time.Second, step.from+20*time.Second)
			if s.mean < 0.6*step.rate || s.mean > 1.15*step.rate {
				t.Errorf("after a change at %v to %.0f kbit/s: %.0f kbit/s on average", step.from, step.rate/kilobit, s.mean/kilobit)
			}
		}
	})
}

// Two flows share a link, roughly.
func TestShares(t *testing.T) {
	var rungs []float64
	for r := 100e3; r < 8e6; r *= 1.3 {
		rungs = append(rungs, r)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := path{
			rate:  constant(float64(rapid.IntRange(1000, 6000).Draw(t, "kbit/s")) * kilobit),
			limit: time.Duration(rapid.IntRange(200, 500).Draw(t, "queue ms")) * ms,
			delay: time.Duration(rapid.IntRange(5, 60).Draw(t, "delay ms")) * ms,
		}
		a := newFlow(rapid.Uint64().Draw(t, "seed"), &p, rungs...)
		b := newFlow(rapid.Uint64().Draw(t, "other seed"), &p, rungs...)
		late := time.Duration(rapid.IntRange(0, 20).Draw(t, "second starts, s")) * time.Second
		run(0, late, a)
		run(late, late+90*time.Second, a, b)
		x := a.summary(late+30*time.Second, late+90*time.Second).mean
		y := b.summary(late+30*time.Second, late+90*time.Second).mean
		if max(x, y) > 4*min(x, y) {
			t.Errorf("%.0f and %.0f kbit/s", x/kilobit, y/kilobit)
		}
	})
}

// Any sequence of calls with any numbers keeps the estimate and the probes within their limits.
func TestLimits(t *testing.T) {
	duration := rapid.Custom(func(t *rapid.T) time.Duration {
		if rapid.IntRange(0, 9).Draw(t, "nonsense") == 0 {
			return time.Duration(rapid.Int64().Draw(t, "any"))
		}
		return time.Duration(rapid.Int64Range(-int64(time.Second), int64(20*time.Second)).Draw(t, "usual"))
	})
	packet := rapid.Custom(func(t *rapid.T) Packet {
		return Packet{
			Sent: duration.Draw(t, "sent"), Arrived: duration.Draw(t, "arrived"),
			Size: rapid.OneOf(rapid.Int(), rapid.IntRange(0, 1500)).Draw(t, "size"),
			Lost: rapid.Bool().Draw(t, "lost"), Probe: rapid.Bool().Draw(t, "probe"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Start: rapid.IntRange(-1, 1e7).Draw(t, "start"),
			Min:   rapid.IntRange(-1, 1e6).Draw(t, "min"),
			Max:   rapid.IntRange(-1, 2e7).Draw(t, "max"),
		}
		e := New(cfg)
		least, most := cfg.Min, cfg.Max
		if least <= 0 {
			least = defaultMin
		}
		if most <= 0 {
			most = defaultMax
		}
		most = max(most, least)
		var now time.Duration
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			if rapid.IntRange(0, 3).Draw(t, "clock") == 0 {
				now = duration.Draw(t, "now")
			} else {
				now += time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "step"))
			}
			switch rapid.IntRange(0, 4).Draw(t, "call") {
			case 0:
				packets := rapid.SliceOfN(packet, 0, 40).Draw(t, "packets")
				given := slices.Clone(packets)
				e.Feedback(now, packets)
				if !slices.Equal(given, packets) {
					t.Fatal("Feedback changed the packets")
				}
			case 1:
				var packets []Packet // plausible ones
				for i := range rapid.IntRange(0, 30).Draw(t, "n") {
					sent := now - time.Duration(30-i)*5*ms
					packets = append(packets, Packet{Sent: sent, Arrived: sent + duration.Draw(t, "delay")/100, Size: 1000, Lost: i%9 == 0, Probe: i%2 == 0})
				}
				e.Feedback(now, packets)
			case 2:
				e.Report(now, rapid.OneOf(rapid.Float64(), rapid.Float64Range(0, 1)).Draw(t, "lost"), duration.Draw(t, "rtt"))
			case 3:
				e.REMB(now, rapid.Int().Draw(t, "remb"))
			case 4:
				before := e.Bitrate()
				probe := e.Probe(now, rapid.Int().Draw(t, "wanted"), rapid.Int().Draw(t, "sending"))
				if probe < 0 || probe > most || float64(probe) > 2.5*float64(max(before, e.Bitrate()))+1 && e.probe.start == now {
					t.Fatalf("probe at %d, estimate %d", probe, before)
				}
			}
			if b := e.Bitrate(); b < least || b > most {
				t.Fatalf("%d, want %d to %d", b, least, most)
			}
			if math.IsNaN(e.rate) || math.IsInf(e.rate, 0) {
				t.Fatal("not a number")
			}
		}
	})
}
