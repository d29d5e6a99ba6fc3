package report

import (
	"fmt"
	"slices"
	"testing"
)

// seconds is how long the calls of these tests are.
const seconds = 120

// steady is a second of somebody with whom all is well: who talks, shows a camera, and sees two.
func steady(unix int64) Sample {
	return Sample{
		Unix: unix, State: Connected | HasVoice | HasVideo | Receives, RoundTrip: 30,
		Up: Up{
			Packets: 150, Sounds: 50, Bytes: 60_000, Jitter: 2, Delay: 1, Quiet: 20, Loudness: 80,
			Layers: 3, Declared: 3,
		},
		Down: Down{Packets: 300, Bytes: 120_000, Told: 300, Jitter: 2, Delay: 1, Estimate: 3000, Videos: 2},
	}
}

// made is a call of two minutes in which s0 is as change makes it, second by second, and s1 is well.
func made(change func(second int, s *Sample)) *Call {
	c := &Call{ID: "c", Started: 1_767_362_400_000, Ended: 1_767_362_400_000 + seconds*1000}
	c.Now = c.Ended
	for i := range 2 {
		r := new(Recorder)
		for k := range seconds {
			s := steady(c.Started/1000 + 1 + int64(k))
			if i == 0 {
				change(k, &s)
			}
			r.Add(&s)
		}
		c.Sessions = append(c.Sessions, Session{
			ID: fmt.Sprint("s", i), Joined: c.Started, Left: c.Ended, Points: r.Points(),
		})
	}
	return c
}

// between changes the seconds from 60 to 80.
func between(change func(k int, s *Sample)) func(int, *Sample) {
	return func(k int, s *Sample) {
		if k >= 60 && k < 80 {
			change(k-60, s)
		}
	}
}

// Each fault, as the seconds of a session show it, is called by its name, on its leg and at its time, and
// nothing else is said.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(k int, s *Sample)
		kind   Kind
		leg    Leg
	}{
		{"nothing comes", between(func(k int, s *Sample) {
			s.Up, s.Down = Up{Quiet: uint32(k+1) * 1000, Declared: 3}, Down{Packets: 300, Bytes: 120_000, Videos: 2}
			s.RoundTrip = 0
			if k >= 5 {
				s.State &^= Connected
			}
		}), Disconnect, Path},
		{"media over TCP", func(_ int, s *Sample) { s.State |= OverTCP }, Fallback, Path},
		{"more than is taken", between(func(_ int, s *Sample) { s.Up.Dropped = 40 }), Refused, Uplink},
		{"more than is taken, once", between(func(k int, s *Sample) {
			if k == 3 {
				s.Up.Dropped = 500
			}
		}), Refused, Uplink},
		{"no packets of a voice", between(func(_ int, s *Sample) {
			s.Up.Packets, s.Up.Sounds, s.Up.Loudness = 100, 0, 0
		}), Silence, Uplink},
		{"a voice of zeros", between(func(_ int, s *Sample) { s.Up.Loudness = 1 }), Silence, Uplink},
		{"no keyframe", between(func(_ int, s *Sample) { s.Up.KeyAsked = 1 }), Freeze, Uplink},
		{"jitter alone, up", between(func(_ int, s *Sample) { s.Up.Jitter = 55 }), Delay, Uplink},
		{"long from the start", func(_ int, s *Sample) { s.RoundTrip = 600 }, Delay, Path},
		{"longer, without videos", func(k int, s *Sample) {
			s.Down.Videos, s.Down.Estimate = 0, 0
			if k >= 60 && k < 80 {
				s.RoundTrip = 250
			}
		}, Delay, Downlink},
		{"longer up, without videos", func(k int, s *Sample) {
			s.Down.Videos, s.Down.Estimate = 0, 0
			if k >= 60 && k < 80 {
				s.RoundTrip, s.Up.Delay = 250, 220
			}
		}, Delay, Uplink},
		{"videos that do not fit", between(func(_ int, s *Sample) { s.Down.Reduced, s.Down.Estimate = 2, 300 }), Rate, Downlink},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := made(c.change)
			findings := Analyse(call)
			if len(findings) != 1 || findings[0].Kind != c.kind || findings[0].Leg != c.leg || findings[0].Session != "s0" {
				t.Fatalf("want %s %s of s0, got %s", c.kind, c.leg, describe(call, findings))
			}
			f := findings[0]
			from, to := call.Started/1000+60, call.Started/1000+80
			if c.kind != Fallback && f.Evidence.RoundTripMs != 600 && (f.From < from-6 || f.From > from+8 || f.To > to+6 || f.To < f.From) {
				t.Errorf("from second %d to %d", f.From-call.Started/1000, f.To-call.Started/1000)
			}
			if f.Confidence <= 0 || f.Confidence >= 1 || f.Weight <= 0 {
				t.Errorf("confidence %v, weight %v", f.Confidence, f.Weight)
			}
			t.Log(call.Sentence(&f))
		})
	}
}

func describe(c *Call, findings []Finding) string {
	out := fmt.Sprint(len(findings), " findings:")
	for i := range findings {
		out += fmt.Sprintf("\n%s %s of %q: %s", findings[i].Kind, findings[i].Leg, findings[i].Session, c.Sentence(&findings[i]))
	}
	return out
}

// A server that was slow is nobody's network, and what it makes late is not held against one.
func TestServerIsFoundSlow(t *testing.T) {
	call := made(func(int, *Sample) {})
	for k := range int64(seconds) {
		s := Server{Unix: call.Started/1000 + 1 + k, Late: 2, Transit: 1}
		switch {
		case k >= 30 && k < 33:
			s.Late = 900
		case k >= 60 && k < 64:
			s.Transit = 300
		case k == 100:
			s.SendDrops = 70
		}
		call.Servers = append(call.Servers, s)
	}
	findings := Analyse(call)
	slices.SortFunc(findings, func(a, b Finding) int { return int(a.From - b.From) })
	if len(findings) != 3 {
		t.Fatal(describe(call, findings))
	}
	for i, want := range []struct {
		from, to int64
		late     uint32
		packets  int64
	}{{30, 33, 900, 0}, {60, 64, 300, 0}, {100, 101, 2, 70}} {
		f := findings[i]
		if f.Kind != Stall || f.Leg != OnServer || f.Session != "" || f.From-call.Started/1000 != want.from ||
			f.To-call.Started/1000 != want.to || f.Evidence.LateMs != want.late || f.Evidence.Packets != want.packets {
			t.Errorf("%s\n%+v", call.Sentence(&f), f)
		}
	}

	call = made(between(func(_ int, s *Sample) { s.Up.Delay, s.RoundTrip = 100, 130 }))
	alone := Analyse(call)
	for k := range int64(20) {
		call.Servers = append(call.Servers, Server{Unix: call.Started/1000 + 61 + k, Late: 400})
	}
	findings = Analyse(call)
	if len(alone) != 1 || len(findings) != 2 || findings[0].Kind != Stall || findings[1].Confidence >= alone[0].Confidence {
		t.Errorf("a delay while the server was slow: %s", describe(call, findings))
	}
}

// A connection that had to be made anew is found, however often in one line, and one that never was.
func TestConnectionsAreFound(t *testing.T) {
	call := made(func(int, *Sample) {})
	for _, e := range []Event{
		{Unix: 1000, Kind: ConnectedFirst}, {Unix: 3000, Kind: Moved}, // it finds its path
		{Unix: 19_990, Kind: Moved}, {Unix: 20_000, Kind: Restarted}, // which is one
		{Unix: 50_000, Kind: Moved}, {Unix: 90_000, Kind: Restarted},
	} {
		e.Unix += call.Started
		call.Sessions[0].Events = append(call.Sessions[0].Events, e)
	}
	findings := Analyse(call)
	if len(findings) != 1 || findings[0].Kind != Restart || findings[0].Leg != Path || findings[0].Evidence.Times != 3 ||
		findings[0].From != call.Started/1000+20 || findings[0].To != call.Started/1000+91 {
		t.Errorf("three restarts: %s", describe(call, findings))
	}

	never := func(_ int, s *Sample) { *s = Sample{Unix: s.Unix} }
	call = made(never)
	if findings = Analyse(call); len(findings) != 1 || findings[0].Kind != NotConnected || findings[0].Leg != Path {
		t.Errorf("never connected: %s", describe(call, findings))
	}
	call.Sessions[0].Left = 0
	if findings = Analyse(call); len(findings) != 0 {
		t.Errorf("one that may still connect: %s", describe(call, findings))
	}
}

// What is part of any call is no finding.
func TestHealthyCallHasNoFindings(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(k int, s *Sample)
	}{
		{"all is steady", func(int, *Sample) {}},
		{"muted, and heard again", func(k int, s *Sample) {
			if k%40 >= 15 {
				s.State |= Muted
				s.Up.Packets, s.Up.Sounds, s.Up.Loudness = 100, 0, 0
			}
		}},
		{"muted, with packets of silence", func(k int, s *Sample) {
			if k >= 30 && k < 90 {
				s.State |= Muted
				s.Up.Loudness = 1
			}
		}},
		{"listens for a while", func(k int, s *Sample) { // and sends what is usual then: reports and keep-alives
			if k < 60 {
				s.State = Connected | Receives
				s.Up = Up{Quiet: 2000}
			}
		}},
		{"a voice with discontinuous transmission", func(k int, s *Sample) {
			if k%10 >= 5 {
				s.Up.Packets, s.Up.Sounds, s.Up.Quiet, s.Up.Loudness = 102, 2, 400, 2
			}
		}},
		{"joins late", func(k int, s *Sample) {
			if k < 3 {
				*s = Sample{Unix: s.Unix}
			} else if k < 12 { // what the way carries is found out
				s.Down.Reduced, s.Down.Estimate = 2, 300+uint32(k)*100
			}
		}},
		{"a third joins, and layers give room", func(k int, s *Sample) {
			if k >= 60 {
				s.Down.Videos = 3
				s.Down.Bytes = 90_000
			}
			if k >= 60 && k < 66 {
				s.Down.Reduced = 3
				s.Down.KeyAsked, s.Up.KeyAsked, s.Up.Keys = 1, 1, 1
			}
		}},
		{"layers that nobody wants", func(k int, s *Sample) { // its own
			if k >= 40 && k < 100 {
				s.Up.Layers, s.Up.Packets, s.Up.Bytes = 1, 80, 20_000
			}
		}},
		{"keyframes for those who join", func(k int, s *Sample) {
			if k%20 == 0 {
				s.Up.KeyAsked, s.Up.Keys = 2, 1
			}
		}},
		{"a camera that is turned off", func(k int, s *Sample) {
			if k >= 50 {
				s.State &^= HasVideo
				s.Up.Packets, s.Up.Bytes, s.Up.Layers, s.Up.Declared = 50, 5000, 0, 0
				s.Up.KeyAsked = 1
			}
		}},
		{"single losses", func(k int, s *Sample) {
			if k%10 == 0 {
				s.Up.Lost, s.Down.Lost = 1, 1
			}
		}},
		{"packets out of order", func(k int, s *Sample) {
			if k%5 == 0 {
				s.Up.Lost, s.Down.Lost = 6, 6
			} else if k%5 == 1 {
				s.Up.Lost, s.Down.Lost = -6, -6
			}
		}},
		{"a hiccup of two seconds", func(k int, s *Sample) {
			if k == 60 || k == 61 {
				s.Up.Delay, s.Down.Delay, s.Up.Jitter, s.RoundTrip, s.Up.Quiet = 120, 120, 40, 280, 900
			}
		}},
		{"a longer way from the start", func(_ int, s *Sample) { s.RoundTrip = 180 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := made(c.change)
			if findings := Analyse(call); len(findings) > 0 {
				t.Error(describe(call, findings))
			}
		})
	}
	// One who leaves before the others, and one who has just come.
	call := made(func(int, *Sample) {})
	call.Sessions[0].Points = call.Sessions[0].Points[:40]
	call.Sessions[0].Left = call.Started + 40_000
	call.Sessions[1].Points = call.Sessions[1].Points[seconds-1:]
	call.Sessions[1].Joined = call.Ended - 1000
	if findings := Analyse(call); len(findings) > 0 {
		t.Error(describe(call, findings))
	}
}
