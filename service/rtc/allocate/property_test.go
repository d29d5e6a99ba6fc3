package allocate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var rate = rapid.IntRange(20, 3000)

// drawRungs draws a ladder; some rungs are not measured, and some cost more than better ones.
func drawRungs(t *rapid.T) []Rung {
	rungs := make([]Rung, 0, 6)
	for layer := range rapid.Uint8Range(0, 3).Draw(t, "layers") {
		for temporal := range rapid.Uint8Range(1, 2).Draw(t, "temporals") {
			bitrate := rate.Draw(t, "rate") * kbit
			if rapid.IntRange(0, 5).Draw(t, "measured") == 0 {
				bitrate = 0
			}
			rungs = append(rungs, Rung{Layer: layer, Temporal: temporal, Bitrate: bitrate})
		}
	}
	return rungs
}

// drawDemands draws up to most demands that are not sent, of the class least and less important ones.
func drawDemands(t *rapid.T, least Class, most int) []Demand {
	n := rapid.IntRange(1, most).Draw(t, "demands")
	demands := make([]Demand, n)
	for i := range demands {
		demands[i] = Demand{
			ID:      uint64(i),
			Class:   Class(rapid.Uint8Range(uint8(least), uint8(Camera)).Draw(t, "class")),
			Order:   rapid.IntRange(-2, 2).Draw(t, "order"),
			Rungs:   drawRungs(t),
			Current: -1,
		}
	}
	return demands
}

// fits reports whether the cheapest rung of a demand, in bit/s, alone leaves a margin.
func fits(budget int, d Demand) bool {
	return len(d.Rungs) > 0 && slices.Min(appendCosts(nil, d.Rungs))*11 <= int64(budget)*10
}

// broken says which promise an answer breaks, or "". A weighty demand fits alone since long.
func broken(budget int, demands []Demand, weighty []bool, targets []int, wanted int) string {
	var sum int64
	sent, all := 0, true
	costs := make([][]int64, len(demands))
	for i, d := range demands {
		costs[i] = appendCosts(nil, d.Rungs)
		if targets[i] < -1 || targets[i] >= len(d.Rungs) {
			return fmt.Sprintf("target %d of %d rungs", targets[i], len(d.Rungs))
		}
		all = all && targets[i] == len(d.Rungs)-1
		if targets[i] >= 0 {
			sum += costs[i][targets[i]]
			sent++
		}
	}
	if all != (wanted == 0) {
		return fmt.Sprintf("wanted %d, all have the best: %v", wanted, all)
	}
	limit := int64(max(budget, 0))
	for i, d := range demands {
		for j, e := range demands {
			if d.Class < e.Class && targets[i] < 0 && targets[j] >= 0 && weighty[i] {
				return fmt.Sprintf("demand %d is paused, but not %d", i, j)
			}
		}
	}
	if sum*20 <= limit*21 {
		return ""
	}
	for i := range demands {
		if sent == 1 && targets[i] >= 0 && sum*2 <= limit*3 && sum <= slices.Min(costs[i][:targets[i]+1]) {
			return ""
		}
	}
	return fmt.Sprintf("sum %d of %d targets", sum, sent)
}

// Whatever happens, each answer keeps the promises.
func promises(t *rapid.T) {
	var r receiver
	demands := drawDemands(t, Screen, 6)
	budget := rate.Draw(t, "budget")
	var next uint64 = 100
	const never = time.Duration(math.MaxInt64)
	since := map[uint64]time.Duration{} // when each demand began to fit alone
	for range rapid.IntRange(1, 60).Draw(t, "calls") {
		i := rapid.IntRange(0, max(len(demands)-1, 0)).Draw(t, "which")
		op := rapid.IntRange(0, 7).Draw(t, "op")
		switch {
		case op == 0:
			budget = rapid.IntRange(-1, 8000).Draw(t, "budget")
		case op == 1:
			d := drawDemands(t, Screen, 1)[0]
			d.ID = next
			next++
			demands = append(demands, d)
		case len(demands) == 0:
		case op == 2:
			demands = slices.Delete(demands, i, i+1)
		case op == 3:
			demands[i].Class = Class(rapid.Uint8Range(0, 2).Draw(t, "class"))
		case op == 4:
			demands[i].Order = rapid.IntRange(-2, 2).Draw(t, "order")
		case op == 5:
			demands[i].Rungs = drawRungs(t)
		case op == 6:
			demands[i].Current = rapid.IntRange(-3, 9).Draw(t, "current")
		case op == 7:
			r.now += rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Hour}).Draw(t, "pause")
		}
		weighty := make([]bool, len(demands))
		for id := range since {
			if !slices.ContainsFunc(demands, func(d Demand) bool { return d.ID == id && len(d.Rungs) > 0 }) {
				delete(since, id)
			}
		}
		for i, d := range demands {
			if len(d.Rungs) == 0 {
				continue
			}
			at, known := since[d.ID]
			switch {
			case !fits(budget*kbit, d):
				at = never
			case !known:
				at = r.now - time.Hour
			case at == never:
				at = r.now
			}
			since[d.ID] = at
			weighty[i] = at != never && r.now-at >= 800*time.Millisecond
		}
		targets := r.call(budget, demands)
		if why := broken(budget*kbit, demands, weighty, targets, r.wanted); why != "" {
			t.Fatalf("budget %d, targets %v, demands %+v: %s", budget, targets, demands, why)
		}
		if len(r.a.records) > len(demands) {
			t.Fatalf("%d records of %d demands", len(r.a.records), len(demands))
		}
	}
}

func TestPromises(t *testing.T) { rapid.Check(t, promises) }

func FuzzPromises(f *testing.F) { f.Fuzz(rapid.MakeFuzz(promises)) }

// More budget never pauses the most important demand, and if it is the only one of its class, never
// gives it a worse rung.
func TestMoreBudgetIsNotWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		demands := drawDemands(t, Speaker, 6)
		less := rapid.IntRange(0, 8000).Draw(t, "less")
		more := less + rapid.IntRange(0, 2000).Draw(t, "more")
		first := demand(1000, Screen)
		first.Rungs = drawRungs(t)
		first.Class = Class(rapid.Uint8Range(0, 1).Draw(t, "class"))
		shared := 0
		var cheapest int64
		for _, d := range append(demands, first) {
			if d.Class == first.Class {
				shared++
			}
			if len(d.Rungs) > 0 {
				cheapest += slices.Min(appendCosts(nil, d.Rungs))
			}
		}
		first.Order = -3
		demands = append(demands, first)
		at := len(demands) - 1

		var poor, rich receiver
		worse := poor.call(less, slices.Clone(demands))[at]
		better := rich.call(more, slices.Clone(demands))[at]
		if better < 0 && worse >= 0 {
			t.Fatalf("paused with %d kbit/s, not with %d", more, less)
		}
		// A speaker comes before cameras once all of them have something.
		alone := shared == 1 && (first.Class == Screen || cheapest*11 <= int64(less)*kbit*10)
		if alone && better < worse {
			t.Fatalf("rung %d with %d kbit/s, %d with %d", better, more, worse, less)
		}
	})
}

// With inputs that stay the same, changes end.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		demands := drawDemands(t, Screen, 6)
		var r receiver
		for range rapid.IntRange(0, 10).Draw(t, "unrest") {
			r.call(rate.Draw(t, "budget"), demands)
			for i := range demands {
				demands[i].Class = Class(rapid.Uint8Range(0, 2).Draw(t, "class"))
			}
		}
		budget := rate.Draw(t, "budget")
		settle(t, &r, budget, demands)

		// A probe to what is wanted lets something rise.
		if r.wanted == 0 {
			return
		}
		wanted := (r.wanted + kbit - 1) / kbit
		if wanted <= budget {
			t.Fatalf("wanted %d kbit/s within the budget of %d, but nothing rises", wanted, budget)
		}
		before := slices.Clone(r.targets)
		for range 60 {
			for i, target := range r.call(wanted, demands) {
				if target > before[i] {
					return
				}
			}
		}
		t.Fatalf("targets %v with %d kbit/s, %v with what was wanted, %d", before, budget, r.targets, wanted)
	})
}

func settle(t *rapid.T, r *receiver, budget int, demands []Demand) {
	for range 60 {
		if r.run(6*time.Second, budget, demands) == 0 {
			return
		}
	}
	t.Fatalf("targets still change after 6 minutes")
}

// Noise of the measured rates does not make layers flap: in a minute there is less than one change
// of a demand in 10 seconds.
func TestNoise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		demands := drawDemands(t, Screen, 4)
		budget := rate.Draw(t, "budget")
		clean := make([][]Rung, len(demands))
		for i := range demands {
			clean[i] = slices.Clone(demands[i].Rungs)
		}
		common := rapid.Bool().Draw(t, "common")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var r receiver
		settle(t, &r, budget, demands)

		changes := make([]int, len(demands))
		for range 600 {
			noise := 0.9 + 0.2*random.Float64()
			for i := range demands {
				for j := range demands[i].Rungs {
					if !common {
						noise = 0.9 + 0.2*random.Float64()
					}
					demands[i].Rungs[j].Bitrate = int(float64(clean[i][j].Bitrate) * noise)
				}
			}
			before := slices.Clone(r.targets)
			for i, target := range r.call(budget, demands) {
				if target != before[i] {
					changes[i]++
				}
			}
		}
		if slices.Max(changes) > 6 {
			t.Fatalf("changes in a minute: %v", changes)
		}
	})
}

// How long a switch takes does not matter to the decisions.
func TestSlowSwitches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prompt := drawDemands(t, Screen, 4)
		slow := slices.Clone(prompt)
		var a, b receiver
		for range 50 {
			budget := rate.Draw(t, "budget")
			want := a.call(budget, prompt)
			lag := rapid.Bool().Draw(t, "lag")
			before := make([]int, len(slow))
			for i := range slow {
				before[i] = slow[i].Current
			}
			if got := b.call(budget, slow); !slices.Equal(got, want) {
				t.Fatalf("targets %v, %v if switches are prompt", got, want)
			}
			for i := range slow {
				if lag {
					slow[i].Current = before[i]
				}
			}
		}
	})
}

func TestCosts(t *testing.T) {
	ladder := func(rates ...int) []Rung { // two temporal layers for each encoding
		var rungs []Rung
		for i, r := range rates {
			rungs = append(rungs, Rung{Layer: uint8(i / 2), Temporal: uint8(i % 2), Bitrate: r})
		}
		return rungs
	}
	tests := []struct{ rates, want []int }{
		{nil, nil},
		{[]int{0}, []int{150_000}},
		{[]int{0, 0, 0, 0}, []int{150_000, 225_000, 675_000, 1_012_500}},
		{[]int{0, 0, 600, 0}, []int{133, 200, 600, 900}},
		{[]int{100, 0, 0, 400}, []int{100, 200, 300, 400}},
		{[]int{400, 0, 0, 100}, []int{400, 300, 200, 100}},
		{[]int{-5, 1}, []int{1, 1}},
		{[]int{1 << 62, 0}, []int{1 << 40, 1 << 40}},
	}
	for _, tt := range tests {
		var got []int
		for _, c := range appendCosts(nil, ladder(tt.rates...)) {
			got = append(got, int(c))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("costs of %v are %v, want %v", tt.rates, got, tt.want)
		}
	}
}
