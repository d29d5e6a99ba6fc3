package estimate

import (
	"encoding/binary"
	"math"
	"testing"
	"time"
)

// A flow that sends little for long keeps its estimate: it neither falls nor grows.
func TestIdleKeepsEstimate(t *testing.T) {
	for _, p := range []path{
		{rate: constant(3e6), delay: 25 * ms},
		{rate: constant(3e6), delay: 100 * ms, jitter: 30 * ms, reorder: 0.2, loss: 0.05},
	} {
		f := newFlow(3, &p, sfuRungs...)
		run(0, 20*time.Second, f)
		before := f.est.Bitrate()
		f.muted = true
		run(20*time.Second, 120*time.Second, f)
		s := f.summary(20*time.Second, 120*time.Second)
		if s.low < 0.99*float64(before) || s.high > 1.1*float64(before) {
			t.Errorf("%.0f to %.0f while little was sent, %d before", s.low, s.high, before)
		}
		f.muted = false
		run(120*time.Second, 140*time.Second, f)
		if s := f.summary(120*time.Second, 140*time.Second); s.low < 2_540_000 {
			t.Errorf("%.0f when much is sent again", s.low)
		}
	}
}

// Nothing that was not sent, or shown by a probe, supports growth.
func TestGrowthNeedsEvidence(t *testing.T) {
	p := path{rate: constant(10e6), delay: 25 * ms}
	f := newFlow(1, &p, 150e3) // 190 kbit/s is all there is
	f.est = New(Config{Start: 200_000})
	run(0, 60*time.Second, f)
	if s := f.summary(0, 60*time.Second); s.high > 1.5*1.25*190e3 || len(f.probes) > 0 {
		t.Errorf("grew to %.0f, %d probes", s.high, len(f.probes))
	}

	p = path{rate: constant(10e6), delay: 25 * ms}
	f = newFlow(1, &p, 150e3)
	run(0, 60*time.Second, f)
	if got := f.est.Bitrate(); got != defaultStart {
		t.Errorf("%d, want %d as at the start", got, defaultStart)
	}
}

// Others that fill the link for a moment are no reason to stop what little is sent.
func TestOthersFillTheLink(t *testing.T) {
	p := path{rate: constant(3e6), delay: 25 * ms, cross: steps{{0, 0}, {30 * time.Second, 2.8e6}, {31 * time.Second, 0}}}
	f := newFlow(3, &p, sfuRungs...)
	run(0, 20*time.Second, f)
	f.rungs, f.current, f.target = sfuRungs[:2], 1, 1 // the best is gone: 540 kbit/s are left
	run(20*time.Second, 60*time.Second, f)
	if s := f.summary(29*time.Second, 60*time.Second); s.low < 540e3 || s.top < 1 {
		t.Errorf("down to %.0f, %.0f %% of the time as before", s.low, 100*s.top)
	}
}

func TestProbesAtStart(t *testing.T) {
	p := path{rate: constant(10e6), delay: 20 * ms}
	f := newFlow(1, &p, sfuRungs...)
	f.fixed = 5_000_000
	run(0, 10*time.Second, f)
	if len(f.probes) < 3 {
		t.Fatalf("%d probes", len(f.probes))
	}
	first := f.probes[0]
	if first.start > 300*ms || first.rate != 2*defaultStart {
		t.Errorf("first probe at %v to %d, want soon to %d", first.start, first.rate, 2*defaultStart)
	}
	for _, pr := range f.probes {
		if d := pr.end - pr.start; d < 200*ms || d > 400*ms {
			t.Errorf("probe of %v", d)
		}
		if pr.rate > pr.wanted*115/100 || pr.rate*10 > pr.before*25 || pr.rate <= pr.before {
			t.Errorf("probe to %d from %d with %d wanted", pr.rate, pr.before, pr.wanted)
		}
	}
	if up := f.first(0, func(b int) bool { return b >= 5_000_000 }); up < 0 || up > 4*time.Second {
		t.Errorf("there after %v", up)
	}
}

// Probes that fail become rare, take nothing away, and start again soon on a link that has recovered.
func TestProbesThatFail(t *testing.T) {
	back := 60 * time.Second
	p := path{rate: steps{{0, 1e6}, {back, 5e6}}, delay: 25 * ms}
	f := newFlow(1, &p, sfuRungs...)
	run(0, 70*time.Second, f)

	var late []probing
	for _, pr := range f.probes {
		if pr.start > 20*time.Second && pr.start < back {
			late = append(late, pr)
		}
	}
	if len(late) < 5 || len(late) > 14 {
		t.Errorf("%d probes in 40 s that fail", len(late))
	}
	for i, pr := range late[1:] {
		if gap := pr.start - late[i].start; gap < 3*time.Second || gap > 6*time.Second {
			t.Errorf("probes %v apart", gap)
		}
	}
	if s := f.summary(10*time.Second, back); s.low < 580e3 {
		t.Errorf("down to %.0f, below what media has", s.low)
	}
	if up := f.first(back, func(b int) bool { return b >= 2_540_000 }); up < 0 || up > 8*time.Second {
		t.Errorf("up %v after the recovery", up)
	}
}

func TestProbeWithoutFeedback(t *testing.T) {
	e := New(Config{})
	for now := time.Duration(0); now < 10*time.Second; now += simTick {
		if rate := e.Probe(now, 1e6, 1e5); rate != 0 {
			t.Fatalf("probe to %d, of which nobody tells", rate)
		}
	}
}

func TestProbeNotWanted(t *testing.T) {
	p := path{rate: constant(10e6), delay: 25 * ms}
	f := newFlow(1, &p)
	f.fixed = 400_000
	run(0, 10*time.Second, f)
	if len(f.probes) > 0 {
		t.Errorf("%d probes for less than the estimate", len(f.probes))
	}
}

// regular is one second of packets, each 10 ms, with a delay.
func regular(start, delay time.Duration) []Packet {
	packets := make([]Packet, 100)
	for i := range packets {
		sent := start + time.Duration(i)*10*ms
		packets[i] = Packet{Sent: sent, Arrived: sent + delay, Size: 500}
	}
	return packets
}

// Packets that seemed lost and were not leave no trace.
func TestLossThatWasNone(t *testing.T) {
	e := New(Config{})
	for s := range 20 {
		start := time.Duration(s) * time.Second
		packets := regular(start, time.Second)
		for i := 0; i < len(packets); i += 10 {
			batch := packets[i : i+10]
			first := append([]Packet(nil), batch...)
			for j := 1; j < 5; j++ { // 40 %
				first[j].Lost = true
			}
			now := start + time.Duration(i+10)*10*ms
			e.Feedback(now, first)
			e.Feedback(now+20*ms, batch[1:5])
		}
	}
	if got := e.Bitrate(); got < defaultStart {
		t.Errorf("fell to %d", got)
	}
	if total, lost := e.losses.sum(true); lost > 0 || total == 0 {
		t.Errorf("%d of %d lost", lost, total)
	}
}

// Loss above the threshold that lasts lowers the estimate, down to what arrives.
func TestLossThatLasts(t *testing.T) {
	lossy := func(n int) *Estimator { // n of 10 are lost
		e := New(Config{})
		for s := range 30 {
			packets := regular(time.Duration(s)*time.Second, 50*ms)
			for i := range packets {
				packets[i].Lost = i*7%10 < n
			}
			for i := 0; i < len(packets); i += 10 {
				e.Feedback(packets[i].Sent+200*ms, packets[i:i+10])
			}
		}
		return e
	}
	if got := lossy(1).Bitrate(); got < defaultStart || got > 1.02*defaultStart {
		t.Errorf("%d with 10 %% lost, want %d", got, defaultStart)
	}
	// 400 kbit/s are sent, of which 280 arrive.
	if got := lossy(3).Bitrate(); got < 230_000 || got > 300_000 {
		t.Errorf("%d with 30 %% lost, want about 250000", got)
	}
}

// The receiver's clock may start again at any time.
func TestReceiverClockRestarts(t *testing.T) {
	e := New(Config{})
	offsets := []time.Duration{0, 24 * time.Hour, -24 * time.Hour, 5 * time.Second, -time.Hour}
	for s := range 50 {
		for i := 0; i < 100; i += 10 {
			packets := regular(time.Duration(s)*time.Second, 50*ms+offsets[s/10])
			e.Feedback(packets[i].Sent+200*ms, packets[i:i+10])
		}
	}
	if got := e.Bitrate(); got < defaultStart || got > 620_000 {
		t.Errorf("%d, want 500000 to 600000", got)
	}
	if rate := e.acked.rate(ackedTime); math.Abs(rate-400e3) > 20e3 {
		t.Errorf("%.0f arrive, want 400000", rate)
	}
}

// Our clock starts again as well: the estimate is kept, the rest begins anew.
func TestOwnClockRestarts(t *testing.T) {
	p := path{rate: constant(3e6), delay: 25 * ms}
	f := newFlow(3, &p, sfuRungs...)
	run(0, 20*time.Second, f)
	before := f.est.Bitrate()
	e := f.est
	for i := 0; i < 100; i += 10 {
		packets := regular(0, 50*ms)
		e.Feedback(packets[i].Sent+200*ms, packets[i:i+10])
	}
	if got := e.Bitrate(); got != before {
		t.Errorf("%d, want %d as before", got, before)
	}
}

func TestReport(t *testing.T) {
	e := New(Config{})
	now := time.Duration(0)
	report := func(n int, lost float64) int {
		for range n {
			now += time.Second
			e.Probe(now, 0, 500_000)
			e.Report(now, lost, 50*ms)
		}
		return e.Bitrate()
	}
	if got := report(60, 0); got != 750_000 {
		t.Errorf("%d without loss, want 1.5 of what is sent", got)
	}
	if got := report(10, 0.10); got != 750_000 {
		t.Errorf("%d with 10 %% loss, want the same", got)
	}
	if got := report(1, 0.2); got != 750_000 {
		t.Errorf("%d with one report of much loss, want the same", got)
	}
	if got := report(1, 0.2); got != 675_000 {
		t.Errorf("%d with another, want a tenth less", got)
	}
	if got := report(100, 1); got != defaultMin {
		t.Errorf("%d when all is lost, want %d", got, defaultMin)
	}
	if got := report(10, math.NaN()); got != defaultMin {
		t.Errorf("%d after nonsense", got)
	}
}

// Reports end probes where there is no feedback.
func TestReportProbe(t *testing.T) {
	tests := []struct {
		name     string
		room     int // bit/s
		min, max int
	}{
		{"room", 3_000_000, 2_000_000, 3_300_000},
		{"no room", 600_000, 400_000, 750_000},
	}
	for _, tt := range tests {
		e := New(Config{})
		sum, n := 0.0, 0
		for now := time.Duration(0); now < 30*time.Second; now += simTick {
			sending := min(e.Bitrate(), 500_000)
			rate := max(e.Probe(now, 2_500_000, sending), sending)
			sum += max(0, 1-float64(tt.room)/float64(rate))
			n++
			if n == 10 {
				e.Report(now, sum/float64(n), 50*ms)
				sum, n = 0, 0
			}
		}
		if got := e.Bitrate(); got < tt.min || got > tt.max {
			t.Errorf("%s: %d, want %d to %d", tt.name, got, tt.min, tt.max)
		}
	}
}

func TestREMB(t *testing.T) {
	e := New(Config{})
	e.REMB(0, 2_000_000)
	if got := e.Bitrate(); got != 2_000_000 {
		t.Errorf("%d, want what was told", got)
	}
	e.REMB(time.Second, 300_000)
	if got := e.Bitrate(); got != 300_000 {
		t.Errorf("%d, want what was told", got)
	}
	e.REMB(2*time.Second, 1)
	if got := e.Bitrate(); got != defaultMin {
		t.Errorf("%d, want %d", got, defaultMin)
	}
	e.REMB(2*time.Second, -1)
	e.REMB(2*time.Second, 0)
	e.REMB(2*time.Second, math.MaxInt)
	if got := e.Bitrate(); got != defaultMax {
		t.Errorf("%d, want %d", got, defaultMax)
	}
}

func TestREMBExpires(t *testing.T) {
	e := New(Config{})
	e.REMB(0, 400_000)
	for now := time.Second; now <= 30*time.Second; now += time.Second {
		e.Probe(now, 0, 1_000_000)
		e.Report(now, 0, 50*ms)
		if got := e.Bitrate(); now <= rembTime && got > 400_000 {
			t.Fatalf("%d at %v, beyond the REMB", got, now)
		}
	}
	if got := e.Bitrate(); got <= 400_000 {
		t.Errorf("%d long after the REMB, want growth", got)
	}
}

// Where there is feedback, nothing else counts.
func TestFeedbackWins(t *testing.T) {
	e := New(Config{})
	for i := 0; i < 100; i += 10 {
		packets := regular(0, 50*ms)
		now := packets[i].Sent + 200*ms
		e.Feedback(now, packets[i:i+10])
		e.REMB(now, 150_000)
		e.Report(now, 0.9, 50*ms)
	}
	if got := e.Bitrate(); got < defaultStart {
		t.Errorf("%d, want at least %d", got, defaultStart)
	}
	e.REMB(5*time.Second, 150_000)
	if got := e.Bitrate(); got != 150_000 {
		t.Errorf("%d 2 seconds after the last feedback, want the REMB", got)
	}
}

// A link that is dead for a while comes back.
func TestOutage(t *testing.T) {
	p := path{rate: steps{{0, 3e6}, {20 * time.Second, 1}, {25 * time.Second, 3e6}}, delay: 25 * ms}
	f := newFlow(1, &p, sfuRungs...)
	run(0, 25*time.Second, f)
	p.free = 25 * time.Second // what was stuck is gone
	run(25*time.Second, 45*time.Second, f)
	if up := f.first(25*time.Second, func(b int) bool { return b >= 2_540_000 }); up < 0 || up > 10*time.Second {
		t.Errorf("up after %v", up)
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		cfg  Config
		want int
	}{
		{Config{}, defaultStart},
		{Config{Start: -5, Min: -5, Max: -5}, defaultStart},
		{Config{Start: 50, Min: 100}, 100},
		{Config{Start: 1000, Max: 500, Min: 100}, 500},
		{Config{Start: 1000, Max: 500, Min: 700}, 700},
	}
	for _, tt := range tests {
		if got := New(tt.cfg).Bitrate(); got != tt.want {
			t.Errorf("%+v: %d, want %d", tt.cfg, got, tt.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	e := New(Config{})
	packets := regular(0, 50*ms)
	now := time.Duration(0)
	allocs := testing.AllocsPerRun(1000, func() {
		for i := range packets {
			packets[i].Sent += time.Second
			packets[i].Arrived += time.Second
			packets[i].Lost = i%17 == 0
		}
		now = packets[len(packets)-1].Sent + 100*ms
		e.Feedback(now, packets)
		e.Feedback(now, packets[17:18])
		e.Probe(now, 10_000_000, 400_000)
		e.Report(now, 0.01, 50*ms)
		e.REMB(now, 1_000_000)
		e.Bitrate()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkFeedback(b *testing.B) {
	e := New(Config{})
	packets := regular(0, 50*ms)[:25] // 100 ms of 250 packets a second, about
	b.ReportAllocs()
	for b.Loop() {
		for i := range packets {
			packets[i].Sent += 250 * ms
			packets[i].Arrived += 250 * ms
		}
		e.Feedback(packets[len(packets)-1].Sent+100*ms, packets)
	}
}

// FuzzEstimator makes calls of any bytes.
func FuzzEstimator(f *testing.F) {
	f.Add([]byte{})
	seed := make([]byte, 0, 4096)
	for i := range 200 {
		seed = append(seed, byte(i%5), byte(i), byte(3*i), byte(i>>4), byte(7*i), 0, 1, 2, byte(i), 4, 5, 6, 7)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		e := New(Config{})
		var now time.Duration
		var packets []Packet
		var fed int // packets
		number := func() (v int64) {
			var b [8]byte
			n := copy(b[:], data)
			data = data[n:]
			return int64(binary.LittleEndian.Uint64(b[:]))
		}
		small := func() time.Duration { // to 65 s
			var b [2]byte
			n := copy(b[:], data)
			data = data[n:]
			return time.Duration(binary.LittleEndian.Uint16(b[:])) * ms
		}
		for len(data) > 0 {
			op := data[0]
			data = data[1:]
			if fed += len(packets); fed > 1_000_000 {
				return
			}
			switch op % 10 {
			case 0:
				e.Feedback(now, packets)
				packets = packets[:0]
			case 1:
				now += small() / 100
			case 2:
				now = time.Duration(number())
			case 3:
				packets = append(packets, Packet{Sent: time.Duration(number()), Arrived: time.Duration(number()), Size: int(number()), Lost: op > 100, Probe: op > 50})
			case 4, 5:
				packets = append(packets, Packet{Sent: now - small()/100, Arrived: now + small()/10, Size: 1000, Lost: op > 200, Probe: op > 50})
			case 6:
				for range min(int(op)*40, 10_000-len(packets)) {
					packets = append(packets, Packet{Sent: now - 50*ms, Arrived: now, Size: int(op)})
				}
			case 7:
				e.Report(now, math.Float64frombits(uint64(number())), time.Duration(number()))
			case 8:
				e.REMB(now, int(number()))
			case 9:
				if rate := e.Probe(now, int(number()), int(number())); rate < 0 || rate > defaultMax {
					t.Fatalf("probe to %d", rate)
				}
			}
			if b := e.Bitrate(); b < defaultMin || b > defaultMax {
				t.Fatalf("estimate of %d", b)
			}
		}
	})
}

// A receiver whose REMB does not answer is not probed without end.
func TestREMBThatStays(t *testing.T) {
	e := New(Config{})
	probes, last := 0, 0
	for now := time.Duration(0); now < 60*time.Second; now += simTick {
		if now%time.Second == 0 {
			e.REMB(now, 600_000)
			e.Report(now, 0, 50*ms)
		}
		rate := e.Probe(now, 2_500_000, 500_000)
		if rate > 0 && last == 0 {
			probes++
		}
		last = rate
	}
	if probes < 5 || probes > 20 {
		t.Errorf("%d probes in a minute", probes)
	}
	if got := e.Bitrate(); got != 600_000 {
		t.Errorf("%d, want the REMB", got)
	}
}
