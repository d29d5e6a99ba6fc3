package allocate

import (
	"slices"
	"testing"
	"time"
)

const kbit = 1000

// ladder returns rungs of one simulcast encoding each, with rates in kbit/s.
func ladder(rates ...int) []Rung {
	rungs := make([]Rung, len(rates))
	for i, r := range rates {
		rungs[i] = Rung{Layer: uint8(i), Bitrate: r * kbit}
	}
	return rungs
}

// demand returns one that has not been sent yet.
func demand(id uint64, class Class, rates ...int) Demand {
	return Demand{ID: id, Class: class, Order: int(id), Rungs: ladder(rates...), Current: -1}
}

// A receiver calls an Allocator every 100 ms, and is sent its targets at once.
type receiver struct {
	a       Allocator
	now     time.Duration
	targets []int
	wanted  int
}

const tick = 100 * time.Millisecond

// call makes one call with a budget in kbit/s.
func (r *receiver) call(budget int, demands []Demand) []int {
	r.targets = slices.Grow(r.targets[:0], len(demands))[:len(demands)]
	r.wanted = r.a.Allocate(r.now, budget*kbit, demands, r.targets)
	for i := range demands {
		demands[i].Current = r.targets[i]
	}
	r.now += tick
	return r.targets
}

// run makes calls for a while and returns how often a target changed.
func (r *receiver) run(d time.Duration, budget int, demands []Demand) (changes int) {
	for end := r.now + d; r.now < end; {
		before := slices.Clone(r.targets)
		for i, target := range r.call(budget, demands) {
			if i < len(before) && target != before[i] {
				changes++
			}
		}
	}
	return changes
}

func TestFirstCall(t *testing.T) {
	camera := []int{150, 500, 1500}
	tests := []struct {
		name    string
		budget  int // kbit/s
		demands []Demand
		want    []int
		wanted  int // kbit/s
	}{
		{"nothing", 1000, nil, nil, 0},
		{"no rungs", 1000, []Demand{demand(1, Camera)}, []int{-1}, 0},
		{"all of the best", 10_000, []Demand{demand(1, Camera, camera...), demand(2, Screen, camera...)}, []int{2, 2}, 0},
		{"margin", 549, []Demand{demand(1, Camera, camera...)}, []int{0}, 575},
		{"margin fits", 550, []Demand{demand(1, Camera, camera...)}, []int{1}, 1725},
		{"screen is raised before others start", 1700,
			[]Demand{demand(1, Camera, camera...), demand(2, Speaker, camera...), demand(3, Screen, camera...)},
			[]int{-1, -1, 2}, 1898}, // the speaker's 150 beside 1500
		{"all start before the speaker is raised", 1000,
			[]Demand{demand(1, Camera, camera...), demand(2, Camera, camera...), demand(3, Speaker, camera...)},
			[]int{0, 0, 1}, 2070},
		{"speaker is raised fully before cameras", 2000,
			[]Demand{demand(1, Camera, camera...), demand(2, Speaker, camera...)}, []int{0, 2}, 2300},
		{"cameras take turns", 1300,
			[]Demand{demand(1, Camera, 150, 300, 450, 600), demand(2, Camera, 150, 300, 450, 600)}, []int{3, 2}, 1380},
		{"lower order first", 1000, []Demand{
			{ID: 1, Class: Camera, Order: 9, Rungs: ladder(camera...), Current: -1},
			{ID: 2, Class: Camera, Order: -9, Rungs: ladder(camera...), Current: -1},
		}, []int{0, 1}, 1150},
		{"the last are paused", 400,
			[]Demand{demand(1, Camera, 150), demand(2, Camera, 150), demand(3, Camera, 150), demand(4, Camera, 150)},
			[]int{0, 0, -1, -1}, 518},
		{"a heavy camera does not hold up its class", 600,
			[]Demand{demand(1, Camera, 150), demand(2, Camera, 500), demand(3, Camera, 150)}, []int{0, -1, 0}, 748},
		{"a paused speaker pauses cameras", 600,
			[]Demand{demand(1, Speaker, 150), demand(2, Speaker, 500), demand(3, Camera, 150)}, []int{0, -1, -1}, 748},
		{"one that cannot be sent at all holds up nobody", 600,
			[]Demand{demand(1, Screen, 2000), demand(2, Camera, 150)}, []int{-1, 0}, 2300},
		{"the most important is given its cheapest rung", 100,
			[]Demand{demand(1, Speaker, 150, 500), demand(2, Camera, 1)}, []int{0, -1}, 174},
		{"unless that is far above the budget", 99, []Demand{demand(1, Speaker, 150, 500)}, []int{-1}, 173},
		{"no budget", 0, []Demand{demand(1, Speaker, 1)}, []int{-1}, 2},
		{"budget below zero", -5, []Demand{demand(1, Speaker, 1)}, []int{-1}, 2},
		{"costlier than a better one", 700, []Demand{demand(1, Camera, 150, 900, 600, 600)}, []int{3}, 0},
		{"not measured", 165, []Demand{demand(1, Camera, 0, 0)}, []int{0}, 518},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r receiver
			got := r.call(tt.budget, tt.demands)
			if !slices.Equal(got, tt.want) || (r.wanted+kbit-1)/kbit != tt.wanted {
				t.Errorf("targets %v, wanted %d bit/s; want %v, %d kbit/s", got, r.wanted, tt.want, tt.wanted)
			}
		})
	}
}

func TestCallDoesNotAllocate(t *testing.T) {
	demands := make([]Demand, 50)
	for i := range demands {
		demands[i] = demand(uint64(i), Class(min(i, 2)), 150, 300, 700, 1500)
	}
	var r receiver
	budget := 3000
	r.call(budget, demands)
	allocs := testing.AllocsPerRun(1000, func() {
		budget = 10_000 - budget + len(demands)%7
		r.call(budget, demands)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each call", allocs)
	}
}

func BenchmarkAllocate(b *testing.B) {
	demands := make([]Demand, 50)
	for i := range demands {
		demands[i] = demand(uint64(i), Class(min(i, 2)), 150, 200, 400, 700, 900, 1500)
	}
	var r receiver
	b.ReportAllocs()
	for b.Loop() {
		r.call(12_000, demands)
	}
}
