package rtc

import (
	"testing"
	"time"

	"rtcd/service/rtc/engine"
)

const afterTicks = int(DefaultRestartAfter / silenceTick)

// every lets d hear something each period, and nothing else, for a time. It returns what it found.
func every(d *silence, period, long time.Duration) (fell, again int) {
	for at := time.Duration(0); at < long; at += silenceTick {
		switch d.tick(at%period == 0, afterTicks) {
		case fellSilent:
			fell++
		case heardAgain:
			again++
		}
	}
	return fell, again
}

// untilSilent lets d hear nothing, and returns after how long it says so.
func untilSilent(d *silence) time.Duration {
	for n := 1; n < 1000; n++ {
		if d.tick(false, afterTicks) == fellSilent {
			return time.Duration(n) * silenceTick
		}
	}
	return 0
}

func TestSilence(t *testing.T) {
	for _, c := range []struct {
		name   string
		period time.Duration
		long   time.Duration
		want   time.Duration
	}{
		{"talks", silenceTick, time.Minute, DefaultRestartAfter},
		{"talks for a second", silenceTick, 1200 * time.Millisecond, DefaultRestartAfter},
		{"sends feedback", 250 * time.Millisecond, time.Minute, DefaultRestartAfter},
		{"pauses", 400 * time.Millisecond, time.Minute, 3 * 350 * time.Millisecond},
		{"renews consent", 2500 * time.Millisecond, time.Minute, maxSilence},
		{"has only come", silenceTick, 500 * time.Millisecond, maxSilence},
		{"has said nothing", time.Hour, silenceTick, maxSilence},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := new(silence)
			if fell, _ := every(d, c.period, c.long); fell != 0 {
				t.Errorf("silent %d times while it sent", fell)
			}
			quiet := time.Duration(d.quiet) * silenceTick
			if got := quiet + untilSilent(d); got != c.want {
				t.Errorf("silent after %v, want %v", got, c.want)
			}
			if untilSilent(d) != 0 {
				t.Error("told twice")
			}
			if d.tick(true, afterTicks) != heardAgain {
				t.Error("not told of its end")
			}
		})
	}
}

// A mute, or an offer, ends what is usual; the gap that was an outage never is.
func TestSilenceForgets(t *testing.T) {
	d := new(silence)
	every(d, silenceTick, time.Minute)
	quiet := func(d *silence, t time.Duration) {
		for range t / silenceTick {
			d.tick(false, afterTicks)
		}
	}
	quiet(d, 400*time.Millisecond)
	if d.doubtful(afterTicks) {
		t.Error("an announcement 400 ms after the last packet is not believed")
	}
	quiet(d, 200*time.Millisecond)
	if !d.doubtful(afterTicks) {
		t.Error("an announcement puts off that who talked is missed")
	}
	listens := new(silence)
	every(listens, 2*time.Second, time.Minute)
	listens.tick(true, afterTicks)
	quiet(listens, 2500*time.Millisecond)
	if listens.doubtful(afterTicks) {
		t.Error("an announcement of one who only listens is not believed")
	}
	d.tick(true, afterTicks)
	d.relax()
	if got := untilSilent(d); got != maxSilence {
		t.Errorf("silent %v after a mute, want %v", got, maxSilence)
	}
	every(d, silenceTick, 3*time.Second)
	if got := untilSilent(d); got != DefaultRestartAfter {
		t.Errorf("silent after %v once it talks again, want %v", got, DefaultRestartAfter)
	}
	d.tick(true, afterTicks)
	d.falseAlarm()
	if got := untilSilent(d); got != 2*DefaultRestartAfter {
		t.Errorf("silent after %v, want %v after a false alarm", got, 2*DefaultRestartAfter)
	}
	for range 10 {
		d.falseAlarm()
	}
	d.tick(true, afterTicks)
	if got := untilSilent(d); got != maxSilence {
		t.Errorf("silent after %v, want %v after many", got, maxSilence)
	}
}

// P18: time in which the process does not run is no silence, as the ticker loses ticks then: after a
// stop there is one at once, and packets that have waited are there by the next.
func TestSilenceOfAProcessThatWasStopped(t *testing.T) {
	d := new(silence)
	every(d, silenceTick, 10*time.Second)
	if d.tick(false, afterTicks) != asBefore || d.tick(true, afterTicks) != asBefore {
		t.Error("silent after a stop")
	}
}

// Whom a check from elsewhere moves.
func TestChecksFromElsewhere(t *testing.T) {
	const dead = int32(followAfter / silenceTick)
	for _, c := range []struct {
		name              string
		lite, usual, asks bool // usual: what it asks for on its path
		quiet             int32
		moves, looksAgain bool
	}{
		{name: "path alive", lite: true, quiet: 0, looksAgain: true},
		{name: "path dead", lite: true, quiet: dead, moves: true},
		{name: "path dead, asks, lite", lite: true, asks: true, quiet: dead}, // the agent does it
		{name: "path dead, asks, full", asks: true, quiet: dead, moves: true},
		{name: "path alive, asks, full", asks: true, looksAgain: true},
		{name: "in reserve", lite: true, usual: true, quiet: dead},
		{name: "in reserve, full", usual: true, quiet: dead},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := new(watch)
			if w.checked(engine.Check{Selected: true, Nominates: c.usual}, c.lite) || w.checks.Load() != 1 {
				t.Error("a check on the path moves it, or does not count")
			}
			w.quiet.Store(c.quiet)
			if got := w.checked(engine.Check{Nominates: c.asks}, c.lite); got != c.moves {
				t.Errorf("moves: %v, want %v", got, c.moves)
			}
			if got := w.elsewhere.Load() != nil; got != c.looksAgain {
				t.Errorf("is looked at again: %v, want %v", got, c.looksAgain)
			}
			if w.checks.Load() != 1 {
				t.Error("a check from elsewhere counts as one on the path")
			}
		})
	}
}
