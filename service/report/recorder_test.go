package report

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// busy is a second of somebody who sends and receives video over a bad network: nothing stays as it was.
func busy(unix int64, r *rand.Rand) Sample {
	n := func(most uint32) uint32 { return r.Uint32N(most) }
	return Sample{
		Unix: unix, State: Connected | HasVoice | HasVideo | Receives, RoundTrip: 20 + n(300),
		Up: Up{
			Packets: 300 + n(100), Sounds: 48 + n(4), Bytes: 200_000 + n(90_000), Lost: int32(n(20)) - 2, Repaired: n(20),
			Jitter: n(40), Delay: n(200), Quiet: 20 + n(60), Loudness: 1 + n(127), Layers: 3, Declared: 3, KeyAsked: n(2), Keys: n(2),
		},
		Down: Down{
			Packets: 900 + n(300), Bytes: 600_000 + n(200_000), Told: 900 + n(300), Lost: int32(n(30)), Resent: n(30),
			Jitter: n(40), Delay: n(200), Estimate: 1000 + n(3000), Videos: 6, Reduced: n(6), Paused: n(2), KeyAsked: n(2),
		},
	}
}

// What the ring keeps of a call of two hours that is as busy as can be, in how much memory.
func TestRecorderOfTwoHours(t *testing.T) {
	const seconds = 2 * 3600
	r, random := new(Recorder), rand.New(rand.NewPCG(1, 2))
	most, sent, lost := 0, uint64(0), int64(0)
	idle := r.Size()
	for i := range int64(seconds) {
		s := busy(1_700_000_000+i, random)
		sent += uint64(s.Down.Packets)
		lost += int64(s.Up.Lost)
		r.Add(&s)
		r.Event(Event{Unix: s.Unix * 1000, Kind: Reduced, Detail: fmt.Sprint("from the best to the least of ", i)})
		most = max(most, r.Size())
	}
	if most > MaxRecorder {
		t.Errorf("%d bytes, more than %d", most, MaxRecorder)
	}
	points := r.Points()
	var span, single uint32
	var gotSent uint64
	var gotLost int64
	for i, p := range points {
		if i > 0 && p.Unix != points[i-1].Unix+int64(p.Span) {
			t.Fatalf("point %d ends at %d with %d s, the one before at %d", i, p.Unix, p.Span, points[i-1].Unix)
		}
		span += p.Span
		if p.Span == 1 {
			single++
		}
		gotSent += uint64(p.Down.Packets)
		gotLost += int64(p.Up.Lost)
		if p.Low.RoundTrip > p.RoundTrip || p.High.RoundTrip < p.RoundTrip || p.High.RoundTrip < p.Low.RoundTrip {
			t.Fatalf("point %d: %d..%d around %d", i, p.Low.RoundTrip, p.High.RoundTrip, p.RoundTrip)
		}
	}
	t.Logf("%d bytes at most, %d empty; %d points: %d s by the second, %v in all, %v forgotten",
		most, idle, len(points), single, time.Duration(span)*time.Second, r.Unknown())
	if single < 8*60 {
		t.Errorf("only %d s by the second", single)
	}
	if span != seconds || gotSent != sent || gotLost != lost {
		t.Errorf("%d s with %d packets and %d lost, want %d, %d, %d", span, gotSent, gotLost, seconds, sent, lost)
	}
	if e, more := r.Events(); len(e) != maxEvents || more != seconds-maxEvents || e[0].Unix != 1_700_000_000_000 {
		t.Errorf("%d events and %d more", len(e), more)
	}
}

// Seconds come back as they went in, and the ring of a quiet session is small.
func TestRecorderKeepsSeconds(t *testing.T) {
	r, random := new(Recorder), rand.New(rand.NewPCG(3, 4))
	var want []Sample
	for i := range int64(500) {
		s := busy(1_700_000_000+i+i/100*7, random) // with gaps
		want = append(want, s)
		r.Add(&s)
	}
	points := r.Points()
	if len(points) != len(want) {
		t.Fatalf("%d points, want %d", len(points), len(want))
	}
	for i, p := range points {
		if p.Sample != want[i] || p.Span != 1 {
			t.Fatalf("point %d: %+v, want %+v", i, p, want[i])
		}
	}
	quiet := new(Recorder)
	for i := range int64(600) {
		quiet.Add(&Sample{Unix: i, State: Connected | Receives, RoundTrip: 30, Down: Down{Packets: 50, Bytes: 4000 + uint32(i%7), Told: 50}})
	}
	if size := quiet.Size(); size > 6<<10 {
		t.Errorf("ten quiet minutes take %d bytes", size)
	}
}

// A report on a call with very many sessions takes no more memory than one on a call with many, and nothing
// that was counted is lost.
func TestOpenIsBounded(t *testing.T) {
	const sessions, seconds = 1000, 900
	var r Recorder
	for k := range seconds {
		r.Add(&Sample{Unix: int64(1_700_000_000 + k), State: Connected, Up: Up{Packets: 50}})
	}
	if got := len(r.Points()); got != r.len() {
		t.Errorf("%d points, said to be %d", got, r.len())
	}
	few := &Record{Sessions: []Recorded{{Recorder: &r}}}
	if got := len(few.Open(0).Sessions[0].Points); got != seconds {
		t.Errorf("%d points of one session", got)
	}
	many := &Record{}
	for range sessions {
		many.Sessions = append(many.Sessions, Recorded{Recorder: &r})
	}
	total := 0
	for _, s := range many.Open(0).Sessions {
		total += len(s.Points)
		var span, packets uint32
		for _, p := range s.Points {
			span, packets = span+p.Span, packets+p.Up.Packets
		}
		if span != seconds || packets != 50*seconds {
			t.Fatalf("%d s and %d packets of a session", span, packets)
		}
	}
	if total > maxCallPoints {
		t.Errorf("%d points", total)
	}
}
