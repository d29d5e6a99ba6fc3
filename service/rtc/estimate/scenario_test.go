package estimate

import (
	"fmt"
	"testing"
	"time"
)

// sfuRungs are the layers of a camera with simulcast, bit/s.
var sfuRungs = []float64{150e3, 500e3, 2.5e6}

// scenarios are links on which a flow runs for 60 s.
var scenarios = []struct {
	name     string
	path     path
	padEvery time.Duration
	want     float64 // bit/s the link has
	low      float64 // × want: the estimate on average in the last 40 s
	high     float64
}{
	{name: "3 Mbit/s", path: path{rate: constant(3e6), delay: 25 * ms}, want: 3e6, low: 0.8, high: 1.2},
	{name: "10 Mbit/s", path: path{rate: constant(10e6), delay: 25 * ms}, want: 2.54e6, low: 1, high: 1.75},
	{name: "1 Mbit/s", path: path{rate: constant(1e6), delay: 25 * ms}, want: 1e6, low: 0.7, high: 1.1},
	{name: "700 kbit/s", path: path{rate: constant(700e3), delay: 25 * ms}, want: 700e3, low: 0.7, high: 1.1},
	{name: "300 kbit/s", path: path{rate: constant(300e3), delay: 25 * ms}, want: 300e3, low: 0.7, high: 1.1},
	{name: "200 kbit/s", path: path{rate: constant(200e3), delay: 25 * ms}, want: 200e3, low: 0.6, high: 1.1},
	{name: "2.6 Mbit/s, top barely fits", path: path{rate: constant(2.6e6), delay: 25 * ms}, want: 2.6e6, low: 0.7, high: 1.1},
	{name: "3 Mbit/s, 1 % loss", path: path{rate: constant(3e6), delay: 25 * ms, loss: 0.01}, want: 3e6, low: 0.8, high: 1.3},
	{name: "3 Mbit/s, 5 % loss", path: path{rate: constant(3e6), delay: 25 * ms, loss: 0.05}, want: 3e6, low: 0.8, high: 1.1},
	{name: "3 Mbit/s, 10 % loss", path: path{rate: constant(3e6), delay: 25 * ms, loss: 0.10}, want: 3e6, low: 0.7, high: 1.1},
	{name: "4 Mbit/s, RTT 200 ms", path: path{rate: constant(4e6), delay: 100 * ms}, want: 4e6, low: 0.6, high: 1.1},
	{name: "4 Mbit/s, RTT 200 ms, 20 % reordered", path: path{rate: constant(4e6), delay: 100 * ms, reorder: 0.2}, want: 4e6, low: 0.6, high: 1.1},
	{name: "4 Mbit/s, jitter ±30 ms", path: path{rate: constant(4e6), delay: 50 * ms, jitter: 30 * ms}, want: 4e6, low: 0.6, high: 1.1},
	{name: "4 Mbit/s, jitter ±30 ms in order", path: path{rate: constant(4e6), delay: 50 * ms, jitter: 30 * ms, fifo: true}, want: 4e6, low: 0.6, high: 1.1},
	{name: "4 Mbit/s, all of these", path: path{rate: constant(4e6), delay: 100 * ms, jitter: 30 * ms, reorder: 0.2, loss: 0.05, ppm: 200}, want: 4e6, low: 0.6, high: 1.1},
	{name: "1 Mbit/s, all of these", path: path{rate: constant(1e6), delay: 100 * ms, jitter: 30 * ms, reorder: 0.2, loss: 0.05, ppm: -200}, want: 1e6, low: 0.6, high: 1.1},
	{name: "1 Mbit/s, queue of 30 ms", path: path{rate: constant(1e6), delay: 25 * ms, limit: 30 * ms}, want: 1e6, low: 0.5, high: 1.1},
	{name: "1 Mbit/s, padding each 100 ms", padEvery: 100 * ms, path: path{rate: constant(1e6), delay: 25 * ms}, want: 1e6, low: 0.6, high: 1.1},
	{name: "3 Mbit/s, padding each 100 ms", padEvery: 100 * ms, path: path{rate: constant(3e6), delay: 25 * ms}, want: 3e6, low: 0.6, high: 1.2},
	{name: "1 Mbit/s, queue of 2 s", path: path{rate: constant(1e6), delay: 25 * ms, limit: 2 * time.Second}, want: 1e6, low: 0.6, high: 1.1},
}

// On links that do not change the estimate is near what they have; -v prints the table.
func TestScenarios(t *testing.T) {
	const seeds = 8
	t.Logf("%-40s %8s %8s %8s %6s %6s %6s %7s %7s", "link (worst of 8 seeds)", "mean", "low", "high", "top", "loss", "queue", "probes", "padding")
	for _, sc := range scenarios {
		var all summary
		var loss, padding float64
		var probes int
		for seed := range uint64(seeds) {
			p := sc.path
			f := newFlow(seed, &p, sfuRungs...)
			f.padEvery = sc.padEvery
			run(0, 60*time.Second, f)
			s := f.summary(20*time.Second, 60*time.Second)
			if s.mean < sc.low*sc.want || s.mean > sc.high*sc.want {
				t.Errorf("%s, seed %d: estimate %.0f kbit/s on average, want %.0f to %.0f", sc.name, seed, s.mean/1e3, sc.low*sc.want/1e3, sc.high*sc.want/1e3)
			}
			if seed == 0 {
				all = s
			}
			all.mean, all.low, all.high = min(all.mean, s.mean), min(all.low, s.low), max(all.high, s.high)
			all.top, all.queue = min(all.top, s.top), max(all.queue, s.queue)
			loss, padding = max(loss, float64(f.lost)/float64(f.sent)), max(padding, f.padding/f.all)
			probes = max(probes, len(f.probes))
		}
		t.Logf("%-40s %7.0fk %7.0fk %7.0fk %5.0f%% %5.1f%% %4dms %7d %6.1f%%", sc.name, all.mean/1e3, all.low/1e3, all.high/1e3,
			all.top*100, 100*loss, all.queue/ms, probes, 100*padding)
	}
}

// A link that drops to a tenth is noticed within 1.5 s, and its return within 8 s. Meanwhile probes
// leave the audio alone.
func TestDropAndReturn(t *testing.T) {
	for _, limit := range []time.Duration{200 * ms, 300 * ms, 500 * ms} {
		for _, fixed := range []int{0, 2_500_000} {
			for _, delay := range []time.Duration{10 * ms, 50 * ms} {
				for seed := range uint64(8) {
					name := fmt.Sprintf("queue %v, wanted %d, RTT %v, seed %d", limit, fixed, 2*delay, seed)
					back := 35*time.Second + time.Duration(seed)*777*ms
					p := path{limit: limit, delay: delay, rate: steps{{0, 3e6}, {15 * time.Second, 300e3}, {back, 3e6}}}
					f := newFlow(seed, &p, sfuRungs...)
					f.fixed = fixed
					run(0, 60*time.Second, f)
					up := f.first(0, func(b int) bool { return b >= 2_540_000 })
					down := f.first(15*time.Second, func(b int) bool { return b <= 350_000 })
					again := f.first(back, func(b int) bool { return b >= 2_000_000 })
					s := f.summary(17*time.Second, back)
					silence := f.silence(17*time.Second, back)
					t.Logf("%-50s up after %v, down after %v, again after %v; meanwhile %.0f to %.0fk, mean %.0fk, queue %v, %.2f %% of the audio lost", name, up, down, again, s.low/1e3, s.high/1e3, s.mean/1e3, s.queue, 100*silence)
					if up < 0 || up > 8*time.Second {
						t.Errorf("%s: up after %v", name, up)
					}
					if down < 0 || down > 1500*ms {
						t.Errorf("%s: down after %v", name, down)
					}
					if again < 0 || again > 8*time.Second {
						t.Errorf("%s: up again after %v", name, again)
					}
					for _, pr := range f.probes {
						if pr.start > 16500*ms && pr.start < back && pr.rate > 480_000 {
							t.Errorf("%s: probe to %d of 300,000 at %v", name, pr.rate, pr.start)
						}
					}
					if silence > 0.002 {
						t.Errorf("%s: %.1f %% of the audio lost on the narrow link", name, 100*silence)
					}
				}
			}
		}
	}
}

// Two flows share a link within a factor of 3, whoever came first.
func TestFlowsShare(t *testing.T) {
	var rungs []float64
	for r := 100e3; r < 8e6; r *= 1.3 {
		rungs = append(rungs, r)
	}
	for _, rate := range []float64{1e6, 4e6} {
		for _, delay := range []time.Duration{5 * ms, 60 * ms} {
			for seed := range uint64(6) {
				p := path{rate: constant(rate), delay: delay, limit: 200*ms + time.Duration(seed)*60*ms}
				a, b := newFlow(seed, &p, rungs...), newFlow(seed+100, &p, rungs...)
				late := time.Duration(seed) * 3 * time.Second
				run(0, late, a)
				run(late, late+90*time.Second, a, b)
				x, y := a.summary(late+30*time.Second, late+90*time.Second), b.summary(late+30*time.Second, late+90*time.Second)
				t.Logf("%.0f Mbit/s, RTT %v, second after %v: %.0fk and %.0fk, queue %v", rate/1e6, 2*delay, late, x.mean/1e3, y.mean/1e3, x.queue.Round(ms))
				if max(x.mean, y.mean) > 3*min(x.mean, y.mean) {
					t.Errorf("%.0f and %.0f kbit/s", x.mean/1e3, y.mean/1e3)
				}
				if sum := x.mean + y.mean; sum < 0.7*rate || sum > 1.2*rate {
					t.Errorf("%.0f and %.0f kbit/s of %.0f", x.mean/1e3, y.mean/1e3, rate/1e3)
				}
			}
		}
	}
}

// A queue that is full from the first moment shows no growth. It is emptied all the same, also where
// loss is usual.
func TestStandingQueue(t *testing.T) {
	for _, loss := range []float64{0, 0.05} {
		p := path{rate: steps{{0, 5e6}, {20 * time.Second, 2.4e6}}, delay: 10 * ms, limit: 150 * ms, loss: loss}
		f := newFlow(1, &p, 150e3, 500e3, 1e6, 2.5e6)
		run(0, 40*time.Second, f)
		if s := f.summary(25*time.Second, 40*time.Second); s.queue > 100*ms || s.mean < 0.6*2.4e6 {
			t.Errorf("queue of %v, estimate %.0f kbit/s", s.queue, s.mean/1e3)
		}
	}
}

// A path that becomes longer is taken for a full link only for a moment.
func TestLongerPath(t *testing.T) {
	p := path{rate: constant(4e6), delay: 20 * ms}
	f := newFlow(1, &p, sfuRungs...)
	run(0, 20*time.Second, f)
	before := float64(f.est.Bitrate())
	p.delay = 170 * ms
	run(20*time.Second, 50*time.Second, f)
	if s := f.summary(20*time.Second, 50*time.Second); s.low < 0.4*before {
		t.Errorf("down to %.0f of %.0f kbit/s", s.low/1e3, before/1e3)
	}
	if s := f.summary(30*time.Second, 50*time.Second); s.low < 2.54e6 {
		t.Errorf("%.0f of %.0f kbit/s after it", s.low/1e3, before/1e3)
	}
}

// A screen in one layer is all that is sent, and a link that was too narrow for it becomes wide again.
// While nothing is sent nothing is told, so that somebody has to ask.
func TestNothingLeftToSend(t *testing.T) {
	for seed := range uint64(8) {
		p := path{rate: steps{{0, 5e6}, {10 * time.Second, 150e3}, {30 * time.Second, 5e6}}, delay: 25 * ms}
		f := newFlow(seed, &p, 1.5e6)
		f.noAudio = true
		run(0, 30*time.Second, f)
		if f.current >= 0 {
			t.Fatalf("seed %d: 1.5 Mbit/s are sent on a link of 150 kbit/s", seed)
		}
		run(30*time.Second, 60*time.Second, f)
		at := f.first(30*time.Second, func(bitrate int) bool { return bitrate >= 1.6e6 })
		if at < 0 || at > 20*time.Second {
			t.Errorf("seed %d: room for the screen is found after %v (never: -1ns)", seed, at)
		}
	}
}
