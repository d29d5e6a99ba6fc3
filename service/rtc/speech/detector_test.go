package speech

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ptime = 20 * time.Millisecond

// feed adds levels, 20 ms apart from start on, and returns the indices at which the voice changed.
func feed(d *Detector, start time.Duration, levels ...uint8) (changes []int) {
	for i, l := range levels {
		if d.Add(l, start+time.Duration(i)*ptime) {
			changes = append(changes, i)
		}
	}
	return changes
}

// alternate returns n levels that alternate between two.
func alternate(n int, a, b uint8) []uint8 {
	levels := make([]uint8, n)
	for i := range levels {
		levels[i] = a
		if i%2 == 1 {
			levels[i] = b
		}
	}
	return levels
}

func TestFirstJudgementIsAtThe51stLevel(t *testing.T) {
	var d Detector
	changes := feed(&d, 0, alternate(60, 20, 80)...)
	if len(changes) != 1 || changes[0] != 50 || !d.Speaking() {
		t.Errorf("changes at %v, speaking %v; want one at 50, true", changes, d.Speaking())
	}
}

func TestThresholds(t *testing.T) {
	// Levels m-x and m+x, equally often, deviate by x*sqrt(50/49): that is x up to rounding.
	tests := []struct {
		name   string
		levels []uint8
		want   bool
	}{
		{"deviation 10", alternate(51, 40, 60), false},
		{"deviation 11", alternate(51, 40, 62), true},
		{"silence", alternate(51, 127, 127), false},
		{"levels beyond the range are silence", alternate(51, 127, 255), false},
		{"loudest", alternate(51, 0, 0), false},
		{"loudest and silence", alternate(51, 0, 127), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d Detector
			feed(&d, 0, tt.levels...)
			if d.Speaking() != tt.want {
				t.Errorf("speaking %v, want %v", d.Speaking(), tt.want)
			}
		})
	}
}

func TestOffAfterTwoSeconds(t *testing.T) {
	var d Detector
	on := feed(&d, 0, alternate(51, 20, 80)...)
	if len(on) != 1 {
		t.Fatalf("changes %v, want one", on)
	}
	// The voice went on at 1.000 s. Its last level leaves the window after 50 levels of silence,
	// at 2.000 s; from 3.000 s on it may go off, and that is level 99 of the silence.
	off := feed(&d, 51*ptime, alternate(200, 127, 127)...)
	if len(off) != 1 || off[0] != 99 || d.Speaking() {
		t.Errorf("changes at %v, want one at 99", off)
	}
}

func TestOffNeedsSteadyLevels(t *testing.T) {
	for _, tt := range []struct {
		name string
		x    uint8
		off  bool
	}{{"deviation 3", 3, true}, {"deviation 4", 4, false}} {
		t.Run(tt.name, func(t *testing.T) {
			var d Detector
			feed(&d, 0, alternate(51, 20, 80)...)
			feed(&d, 51*ptime, alternate(500, 60-tt.x, 60+tt.x)...)
			if d.Speaking() == tt.off {
				t.Errorf("speaking %v, want %v", d.Speaking(), !tt.off)
			}
		})
	}
}

func TestReset(t *testing.T) {
	var d Detector
	if d.Reset() {
		t.Error("Reset of a silent voice reports a change")
	}
	feed(&d, 0, alternate(51, 20, 80)...)
	if !d.Reset() || d.Speaking() {
		t.Error("Reset of a voice that is on reports no change, or leaves it on")
	}
	if changes := feed(&d, 2*time.Second, alternate(51, 20, 80)...); len(changes) != 1 || changes[0] != 50 {
		t.Errorf("changes after Reset at %v, want one at 50: the levels before it count", changes)
	}
}

// plain is the rule as it is written down, in floating point.
type plain struct {
	levels   []float64
	speaking bool
	since    time.Duration
}

func (p *plain) add(level uint8, now time.Duration) {
	full := len(p.levels) == 50
	if full {
		p.levels = p.levels[1:]
	}
	p.levels = append(p.levels, float64(level))
	if !full {
		return
	}
	var sum, squares float64
	for _, l := range p.levels {
		sum += l
	}
	mean := math.Round(sum / 50)
	for _, l := range p.levels {
		squares += (l - mean) * (l - mean)
	}
	s := math.Round(math.Sqrt(squares / 49))
	switch {
	case !p.speaking && s > 10:
		p.speaking, p.since = true, now
	case p.speaking && s < 4 && now-p.since >= 2*time.Second:
		p.speaking = false
	}
}

func TestEqualsThePlainRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Detector
		var p plain
		now := time.Duration(0)
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			center := rapid.IntRange(0, 127).Draw(t, "center")
			spread := rapid.IntRange(0, 40).Draw(t, "spread")
			for range rapid.IntRange(1, 150).Draw(t, "length") {
				level := uint8(min(max(center+rapid.IntRange(-spread, spread).Draw(t, "noise"), 0), 127))
				d.Add(level, now)
				p.add(level, now)
				if d.Speaking() != p.speaking {
					t.Fatalf("speaking %v, want %v", d.Speaking(), p.speaking)
				}
				now += ptime
			}
		}
	})
}

func TestAllocatesNothing(t *testing.T) {
	var d Detector
	now := time.Duration(0)
	if n := testing.AllocsPerRun(200, func() { d.Add(uint8(now/ptime)%120, now); now += ptime }); n != 0 {
		t.Errorf("%v allocations per level, want 0", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	var d Detector
	b.ReportAllocs()
	now := time.Duration(0)
	for b.Loop() {
		d.Add(uint8(now/ptime)%120, now)
		now += ptime
	}
}
