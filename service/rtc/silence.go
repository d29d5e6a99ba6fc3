package rtc

import (
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/engine"
)

// Times of the watch over the paths of endpoints.
const (
	silenceTick = 50 * time.Millisecond
	// followAfter is for how long nothing has come over a path when a check from elsewhere, that does
	// not ask for its pair, moves the session: an endpoint behind a NAT that has forgotten it.
	followAfter = 100 * time.Millisecond
	// maxSilence is when a path is silent of which nothing was to be expected but the endpoint's
	// consent, which is renewed every 2 to 2.5 s.
	maxSilence = 8 * time.Second
	// usualTime is how long it is remembered at the least what an endpoint usually sends.
	usualTime = 10 * time.Second
	// usualFactor is how many times as long as usual it must have sent nothing.
	usualFactor = 3
	// busyTicks is in how many ticks of that time it must have sent something, for that to be usual.
	busyTicks = 20
	// elsewhereTime is for how long a check from elsewhere is remembered.
	elsewhereTime = 500 * time.Millisecond
)

// verdict is what a tick of a silence finds.
type verdict uint8

const (
	asBefore verdict = iota
	fellSilent
	heardAgain
)

// silence judges from what an endpoint usually sends whether its path is dead. Time is counted in ticks
// that the server lived through: while the process is stopped, or starved, nobody is silent.
type silence struct {
	quiet int // ticks since it was heard
	told  bool

	// Of two windows, this one and the one before.
	longest [2]gaps
	heard   [2]int // ticks in which it was
	age     int    // of this one
	doubled int    // how often it was a false alarm
}

// gaps are the two longest, of those that have ended.
type gaps [2]int

func (g *gaps) add(n int) {
	switch {
	case n > g[0]:
		g[0], g[1] = n, g[0]
	case n > g[1]:
		g[1] = n
	}
}

// usual is the second longest gap of both windows: a single one that was longer tells nothing.
func (d *silence) usual() int {
	a, b := d.longest[0], d.longest[1]
	return max(min(a[0], b[0]), a[1], b[1])
}

const ticksOfWindow = int(usualTime / silenceTick)

// tick takes one tick. after is the shortest silence that counts, in ticks.
func (d *silence) tick(heard bool, after int) verdict {
	if d.age++; d.age > ticksOfWindow {
		d.longest[1], d.heard[1] = d.longest[0], d.heard[0]
		d.longest[0], d.heard[0], d.age = gaps{}, 0, 0
	}
	if !heard {
		d.quiet++
		if d.told || d.quiet < d.limit(after) {
			return asBefore
		}
		d.told = true
		return fellSilent
	}
	d.heard[0]++
	told := d.told
	if !told {
		d.longest[0].add(d.quiet)
	}
	d.quiet, d.told = 0, false
	if told {
		return heardAgain
	}
	return asBefore
}

// limit is the silence that counts now, in ticks.
func (d *silence) limit(after int) int {
	const most = int(maxSilence / silenceTick)
	if d.heard[0]+d.heard[1] < busyTicks {
		return most
	}
	return min(max(after<<d.doubled, usualFactor*d.usual()), most)
}

// doubtful reports whether it has been quiet for so long that an announcement is no reason to wait for more:
// whoever is cut off may well press the button of their microphone.
func (d *silence) doubtful(after int) bool { return 2*d.quiet >= d.limit(after) }

// relax forgets what is usual: the endpoint has said that it is going to send something else.
func (d *silence) relax() { *d = silence{quiet: d.quiet, told: d.told, doubled: d.doubled} }

// falseAlarm makes the next one come later.
func (d *silence) falseAlarm() { d.doubled = min(d.doubled+1, 3) }

// watch is the watch over one session's path.
type watch struct {
	// For any goroutine.
	checks    atomic.Uint32 // on the selected pair
	nominates atomic.Bool   // those ask for the pair, each time
	quiet     atomic.Int32  // ticks
	elsewhere atomic.Pointer[check]
	relaxed   atomic.Bool
	alarmed   atomic.Bool // falsely

	// The watcher's.
	silence
	seen       uint32        // checks
	lastPacket time.Duration // as the data plane tells
}

// check is one from elsewhere.
type check struct {
	engine.Check
	at time.Time
}

// checked decides whether a check moves the session to where it came from. It is called by the agent.
// An agent that is lite follows those that ask for it by itself.
func (w *watch) checked(c engine.Check, lite bool) bool {
	switch {
	case c.Selected:
		w.nominates.Store(c.Nominates)
		w.checks.Add(1)
		return false
	case c.Nominates && lite, !c.Nominates && w.nominates.Load(): // the second keeps a pair in reserve
		return false
	case int(w.quiet.Load()) >= int(followAfter/silenceTick) && c.Verified():
		w.elsewhere.Store(nil)
		return true
	}
	// Perhaps the path has died just now, or whoever is there has yet to answer the check that the agent
	// sends in return.
	w.elsewhere.Store(&check{c, time.Now()})
	return false
}

// watcher looks after all sessions that are connected.
type watcher struct {
	after    int  // ticks
	restarts bool // are offered

	mu       sync.Mutex
	sessions map[*session]struct{}
}

func newWatcher(after time.Duration) *watcher {
	return &watcher{
		after:    max(1, int(after/silenceTick)),
		restarts: after > 0,
		sessions: make(map[*session]struct{}),
	}
}

func (w *watcher) add(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[s] = struct{}{}
}

func (w *watcher) remove(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, s)
}

// run watches until stop is closed.
func (w *watcher) run(stop <-chan struct{}) {
	t := time.NewTicker(silenceTick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.tick()
		case <-stop:
			return
		}
	}
}

func (w *watcher) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sessions {
		s.look(w)
	}
}

// look takes a tick of the session's watch.
func (s *session) look(by *watcher) {
	w := &s.watch
	if w.relaxed.Swap(false) && !w.doubtful(by.after) {
		w.relax()
	}
	if w.alarmed.Swap(false) {
		w.falseAlarm()
	}
	packet, checks := s.media.Heard(), w.checks.Load()
	heard := packet != w.lastPacket || checks != w.seen
	w.lastPacket, w.seen = packet, checks
	found := w.tick(heard, by.after)
	quiet := time.Duration(w.silence.quiet) * silenceTick
	w.quiet.Store(int32(w.silence.quiet))
	switch {
	case !by.restarts:
	case found == fellSilent:
		s.post(func() { s.fellSilent(quiet) })
	case found == heardAgain:
		s.post(s.heardAgain)
	}
	c := w.elsewhere.Load()
	switch {
	case c == nil:
	case time.Since(c.at) > elsewhereTime:
		w.elsewhere.CompareAndSwap(c, nil)
	case quiet >= followAfter && c.Verified() && w.elsewhere.CompareAndSwap(c, nil):
		s.post(func() { s.peer.Again(c.Check) })
	}
}
