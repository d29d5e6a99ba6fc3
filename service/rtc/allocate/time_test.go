package allocate

import (
	"slices"
	"testing"
	"time"
)

// expect makes one call and compares the targets.
func (r *receiver) expect(t *testing.T, what string, budget int, demands []Demand, want ...int) {
	t.Helper()
	if got := r.call(budget, demands); !slices.Equal(got, want) {
		t.Fatalf("%s: targets %v at %v, want %v", what, got, r.now-tick, want)
	}
}

// until makes calls until the targets are as wanted, and returns how long that took.
func (r *receiver) until(t *testing.T, what string, budget int, demands []Demand, want ...int) time.Duration {
	t.Helper()
	start := r.now
	for r.now < start+time.Minute {
		if slices.Equal(r.call(budget, demands), want) {
			return r.now - tick - start
		}
	}
	t.Fatalf("%s: targets %v after a minute, want %v", what, r.targets, want)
	return 0
}

func TestFallIsImmediateAndRiseIsNot(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 500, 1500)}
	r.expect(t, "start", 3000, demands, 2)
	r.expect(t, "kept within the tolerance", 1429, demands, 2)
	r.expect(t, "fall", 1428, demands, 1)
	r.expect(t, "fall of two", 140, demands, 0)
	r.expect(t, "kept though too much", 101, demands, 0)
	r.expect(t, "pause", 99, demands, -1)
	r.run(5*time.Second, 140, demands)
	r.expect(t, "no resumption without margin", 164, demands, -1)
	if took := r.until(t, "resumption", 165, demands, 0); took != 800*time.Millisecond {
		t.Errorf("resumption after %v, want 800ms", took)
	}
	if took := r.until(t, "rise of two", 1650, demands, 2); took != 800*time.Millisecond {
		t.Errorf("rise after %v, want 800ms", took)
	}
}

func TestRiseIsToWhatFittedAllTheTime(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 500, 1500)}
	r.expect(t, "start", 200, demands, 0)
	for range 4 {
		r.expect(t, "the next fits", 600, demands, 0)
	}
	for range 4 {
		r.expect(t, "the best fits", 2000, demands, 0)
	}
	r.expect(t, "first rise", 2000, demands, 1)
	if took := r.until(t, "second rise", 2000, demands, 2); took != 800*time.Millisecond {
		t.Errorf("second rise after %v, want 800ms", took)
	}
	r.expect(t, "fall", 700, demands, 1)
	r.run(time.Minute, 700, demands)
	for range 100 {
		r.expect(t, "seven of eight fit", 2000, demands, 1)
		for range 7 {
			r.expect(t, "seven of eight fit", 2000, demands, 1)
		}
		r.expect(t, "one of eight does not", 1600, demands, 1)
	}
}

func TestBarGrowsIfFallsFollowRises(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 500)}
	r.expect(t, "start", 1000, demands, 1)
	for _, want := range []time.Duration{1, 2, 4, 4} {
		r.expect(t, "fall", 300, demands, 0)
		if took := r.until(t, "rise", 1000, demands, 1) + tick; took != want*time.Second {
			t.Errorf("rise %v after the fall, want %v", took, want*time.Second)
		}
	}
	r.run(unsteady, 1000, demands)
	r.expect(t, "fall", 300, demands, 0)
	if took := r.until(t, "rise", 1000, demands, 1) + tick; took != time.Second {
		t.Errorf("rise %v after a fall from a steady state, want 1s", took)
	}
}

func TestFallsOfOneDropDoNotGrowTheBar(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 500, 1500)}
	r.expect(t, "start", 3000, demands, 2)
	r.expect(t, "fall", 1000, demands, 1)
	r.expect(t, "fall", 300, demands, 0)
	r.expect(t, "fall", 90, demands, -1)
	if took := r.until(t, "recovery", 3000, demands, 2) + tick; took != time.Second {
		t.Errorf("recovered %v after the last fall, want 1s", took)
	}
}

func TestSwitchInProgressIsNotDecidedAgain(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 500, 1500)}
	r.expect(t, "start", 600, demands, 1)
	demands[0].Current = -1 // still waiting for a keyframe
	r.expect(t, "not started yet", 530, demands, 1)
	r.expect(t, "fall", 400, demands, 0)
	demands[0].Current = 1 // still waiting for a keyframe
	r.expect(t, "not fallen yet", 530, demands, 0)
}

func TestLadderChanges(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Camera, 150, 500, 1500)}
	r.expect(t, "start", 3000, demands, 2)
	demands[0].Rungs = demands[0].Rungs[1:]
	demands[0].Current = 0 // deliberately not what was the target
	r.expect(t, "the first is gone", 3000, demands, 1)
	demands[0].Rungs = demands[0].Rungs[:1]
	r.expect(t, "the target is gone", 3000, demands, 0)
	demands[0].Rungs = ladder(150, 500, 1500)
	r.expect(t, "what was the target has moved", 520, demands, 1)
	demands[0].Rungs, demands[0].Current = nil, 5
	r.expect(t, "all are gone", 520, demands, -1)
	demands[0].Rungs, demands[0].Current = ladder(150, 500, 1500), 7
	r.expect(t, "current is out of range", 2000, demands, 2)
}

func TestCheaperAndBetter(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Camera, 150, 500, 600)}
	r.expect(t, "start", 600, demands, 1)
	demands[0].Rungs[2].Bitrate = 490 * kbit
	if took := r.until(t, "the better one costs less", 600, demands, 2); took != 800*time.Millisecond {
		t.Errorf("rise after %v, want 800ms", took)
	}
	demands[0].Rungs[2].Bitrate = 590 * kbit
	r.run(time.Minute, 600, demands)
	r.expect(t, "it is kept when it costs more again", 600, demands, 2)
}

func TestNewSpeakerTakesFromTheOld(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Speaker, 150, 1500), demand(2, Camera, 150, 1500)}
	r.expect(t, "start", 2000, demands, 1, 0)
	r.run(time.Minute, 2000, demands)
	demands[0].Class, demands[1].Class = Camera, Speaker
	for range 8 {
		r.expect(t, "the rise has to wait", 2000, demands, 1, 0)
	}
	r.expect(t, "in exchange", 2000, demands, 0, 1)
}

func TestPausedSpeakerIsResumedAtOnce(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Camera, 150), demand(2, Camera, 150), demand(3, Camera, 150)}
	r.expect(t, "start", 400, demands, 0, 0, -1)
	r.expect(t, "fall", 300, demands, 0, 0, -1)
	r.expect(t, "fall", 270, demands, 0, -1, -1)
	demands[1].Class = Speaker
	r.expect(t, "in place of a camera, though it has just fallen", 270, demands, -1, 0, -1)
}

func TestScreenTakesFromCameras(t *testing.T) {
	var r receiver
	demands := []Demand{demand(1, Camera, 150, 500), demand(2, Camera, 150, 500)}
	r.expect(t, "start", 1200, demands, 1, 1)
	demands = append(demands, demand(3, Screen, 300, 800))
	r.expect(t, "the screen begins", 1200, demands, 0, 0, 1)
	demands = demands[:2]
	if took := r.until(t, "the screen ends", 1200, demands, 1, 1) + tick; took != time.Second {
		t.Errorf("cameras rise %v after their fall, want 1s", took)
	}
}

func TestAbsentDemandIsForgotten(t *testing.T) {
	var r receiver
	var demands []Demand
	for id := range uint64(1000) {
		demands = []Demand{demand(id, Camera, 150), demand(id+1, Speaker, 150), demand(id+2, Camera)}
		r.call(1000, demands)
		if n := len(r.a.records); n > 2 {
			t.Fatalf("%d records after demands %d to %d", n, id, id+2)
		}
	}
	r.call(1000, nil)
	if n := len(r.a.records); n != 0 {
		t.Errorf("%d records without demands", n)
	}
}
