package rtc_test

import (
	"math"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/rtc/rtctest"
	"rtcd/service/rtc/rtctest/report"
)

// camera is what browsers send of one, at a size that these machines keep up with.
var camera = []rtctest.Layer{
	{RID: "l", Bitrate: 120_000, FPS: 15},
	{RID: "m", Bitrate: 400_000, FPS: 20},
	{RID: "h", Bitrate: 1_500_000, FPS: 25},
}

// screen is a page of text: few pictures, of many packets each.
var screen = []rtctest.Layer{
	{RID: "l", Bitrate: 200_000, FPS: 5},
	{RID: "h", Bitrate: 1_000_000, FPS: 5},
}

// scenario is a link that is impaired, and what a viewer has to get all the same.
type scenario struct {
	name                  string
	core                  bool // runs by default
	screen                bool
	unsteady              bool // the best layer does not show before the impairment
	before, during, after way
	bound                 bound
}

// bound is what a viewer would still call a good call: what came in a dozen runs, with a margin of at
// least half of what was missing. Times are those of a bubble, so how busy a machine is does not count.
type bound struct {
	decodable float64       // share of the frames, at least
	frozen    float64       // share of the time, at most
	best      bool          // the best layer is shown all the time
	down      time.Duration // a lower layer is shown within that; 0: any time
	up        time.Duration // the best layer is shown again within that; 0: any time
	recovered time.Duration // the picture is the best and current again within that, and whole; 0: any time
	loss      float64       // of the link, all that the voice may lose but for chance
	late      float64       // share of the voice sent after the first 2 s that may be lost; 0: see loss
}

// toViewer is a way with an impairment of the viewer's downlink.
func toViewer(i rtctest.Impairment) way { return way{toViewer: i} }

// far is a viewer whose packets take 200 ms there and back, with loss on the downlink.
func far(loss float64) way {
	const half = 100 * time.Millisecond
	return way{toViewer: rtctest.Impairment{Delay: half, Loss: loss}, fromViewer: rtctest.Impairment{Delay: half}}
}

var (
	wider  = toViewer(rtctest.Impairment{Rate: 6_000_000})
	wide   = toViewer(rtctest.Impairment{Rate: 3_000_000})
	narrow = toViewer(rtctest.Impairment{Rate: 300_000})
)

var scenarios = []scenario{
	{name: "clean", bound: bound{decodable: 1, best: true}},
	{
		name: "1 % loss", during: toViewer(rtctest.Impairment{Loss: 0.01}),
		bound: bound{decodable: 0.99, frozen: 0.1, best: true, loss: 0.01},
	},
	{
		name: "5 % loss", core: true, during: toViewer(rtctest.Impairment{Loss: 0.05}),
		bound: bound{decodable: 0.9, frozen: 0.2, best: true, loss: 0.05}, // of the lost, 1 in 8,000 is lost 3 times more
	},
	{
		name: "10 % loss", during: toViewer(rtctest.Impairment{Loss: 0.1}),
		bound: bound{decodable: 0.8, frozen: 0.4, loss: 0.1, up: 10 * time.Second},
	},
	{
		name: "5 % loss from the sender", during: way{fromSender: rtctest.Impairment{Loss: 0.05}},
		bound: bound{decodable: 0.98, frozen: 0.12, best: true, loss: 0.05},
	},
	{
		name: "200 ms round trip", before: far(0), during: far(0), after: far(0),
		bound: bound{decodable: 1, best: true},
	},
	{
		name: "200 ms round trip, 5 % loss", before: far(0), during: far(0.05), after: far(0),
		bound: bound{decodable: 0.8, frozen: 0.85, loss: 0.05}, // a repair takes longer than a gap that counts as a freeze
	},
	{
		name: "round trip grows by 200 ms", during: far(0), after: far(0),
		bound: bound{decodable: 0.97, frozen: 0.1, up: 10 * time.Second},
	},
	{
		name: "20 % reordered, 30 ms", core: true,
		during: toViewer(rtctest.Impairment{Reorder: 0.2, Hold: 30 * time.Millisecond}),
		bound:  bound{decodable: 0.99, frozen: 0.05, best: true},
	},
	{
		name:   "jitter of ±30 ms",
		during: toViewer(rtctest.Impairment{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond}),
		bound:  bound{decodable: 0.97, frozen: 0.1, up: 10 * time.Second},
	},
	{
		name: "5 % duplicates", during: toViewer(rtctest.Impairment{Duplicate: 0.05}),
		bound: bound{decodable: 1, best: true},
	},
	{
		name: "300 kbit/s from the start", core: true, unsteady: true, before: narrow, during: narrow,
		bound: bound{decodable: 0.7, frozen: 0.3, loss: 0.1, late: 0.01, up: 10 * time.Second},
	},
	{
		name: "3 Mbit/s, 300 kbit/s, 3 Mbit/s", core: true, before: wide, during: narrow, after: wide,
		bound: bound{
			decodable: 0.7, frozen: 0.3, loss: 0.1, late: 0.01,
			down: 2 * time.Second, up: 10 * time.Second,
		},
	},
	{
		name: "screen, 5 % loss", core: true, screen: true, during: toViewer(rtctest.Impairment{Loss: 0.05}),
		bound: bound{decodable: 0.9, frozen: 0.3, best: true, loss: 0.05, recovered: 2 * time.Second},
	},
	{
		name: "screen, 6 Mbit/s, 600 kbit/s, 6 Mbit/s", screen: true,
		before: wider, during: toViewer(rtctest.Impairment{Rate: 600_000}), after: wider,
		bound: bound{decodable: 0.8, frozen: 0.5, loss: 0.1, late: 0.01, down: 2 * time.Second},
	},
}

// impairedFor is how long a link is impaired.
const impairedFor = 10 * time.Second

// TestImpairedLinks: what a viewer gets when links lose, delay, reorder, double and hold up packets,
// in virtual time. By default the scenarios that matter most run. With RTCD_MATRIX=1 all do, and the
// results are written to the file that RTCD_MATRIX_JSON names. They are reported as a table.
func TestImpairedLinks(t *testing.T) {
	var mu sync.Mutex
	results := make(map[string]report.Result) // guarded by mu
	t.Run("link", func(t *testing.T) {
		for _, s := range scenarios {
			if !s.core && os.Getenv("RTCD_MATRIX") == "" {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := s.run(t)
					mu.Lock()
					defer mu.Unlock()
					results[s.name] = r
				})
			})
		}
	})
	var inOrder []report.Result
	for _, s := range scenarios {
		if r, ok := results[s.name]; ok {
			inOrder = append(inOrder, r)
		}
	}
	t.Log("\n" + report.Table(inOrder))
	if path := os.Getenv("RTCD_MATRIX_JSON"); path != "" {
		if err := report.Write(path, inOrder); err != nil {
			t.Error(err)
		}
	}
}

func (s scenario) run(t *testing.T) report.Result {
	ctx := deadline(t, 2*time.Minute)
	source, layers := "video", camera
	if s.screen {
		source, layers = "screen", screen
	}
	c := converse(ctx, t, source, layers, s.before)
	if err := c.viewer.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard("s0").Packets > 0 }); err != nil {
		t.Fatalf("nothing of the voice: %v", err)
	}
	lead := time.Second
	if s.unsteady {
		lead = 0
		c.await(ctx, t, "the first picture", func(v rtctest.View) bool { return v.Pictures > 0 })
	} else {
		c.await(ctx, t, "the best layer", func(v rtctest.View) bool { return v.Layer == c.best })
		before := c.view().Pictures // freezes are measured by the pictures before
		c.await(ctx, t, "more pictures", func(v rtctest.View) bool { return v.Pictures > before+30 })
	}
	r := c.measure(ctx, t, lead, impairedFor, s.during, s.after)
	r.Scenario = s.name
	t.Log(describe(r))
	s.bound.check(t, r)
	return r
}

// check compares what a viewer got with the least that it has to get.
func (b bound) check(t *testing.T, r report.Result) {
	t.Helper()
	if got := r.Ratio(); got < b.decodable {
		t.Errorf("%.3f of the frames are decodable, want %.3f", got, b.decodable)
	}
	if most := b.frozen * r.Seconds; r.Frozen > most {
		t.Errorf("the picture stood still for %.2f s, want at most %.2f s", r.Frozen, most)
	}
	if b.best && r.Down >= 0 {
		t.Errorf("layer %d instead of the best one after %.2f s", r.Lower, r.Down)
	}
	if b.down > 0 && (r.Down < 0 || r.Down > b.down.Seconds()) {
		t.Errorf("a lower layer after %.2f s, want at most %v", r.Down, b.down)
	}
	if b.up > 0 && (r.Up < 0 || r.Up > b.up.Seconds()) {
		t.Errorf("the best layer again after %.2f s, want at most %v", r.Up, b.up)
	}
	if b.recovered > 0 && (r.Recovered > b.recovered.Seconds() || r.AfterFrames == 0 || r.AfterDecodable < r.AfterFrames) {
		t.Errorf("after the losses the picture was current after %.2f s, then %d of %d frames decodable, want all after %v",
			r.Recovered, r.AfterDecodable, r.AfterFrames, b.recovered)
	}
	if most := byChance(b.loss, r.Voice); r.Lost > most {
		t.Errorf("%d of %d packets of the voice lost, want at most %d", r.Lost, r.Voice, most)
	}
	if most := int(b.late * float64(r.LateVoice)); b.late > 0 && r.LateLost > most {
		t.Errorf("%d of %d packets of the voice lost after the first 2 s, want at most %d", r.LateLost, r.LateVoice, most)
	}
}

// byChance is how many of n packets a link loses at most that loses each with a probability: five
// standard deviations more than the mean, which one run in three million exceeds.
func byChance(probability float64, n int) int {
	mean := probability * float64(n)
	return int(mean + 5*math.Sqrt(mean*(1-probability)))
}
