package report

import (
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// MaxRecorder is the most that a Recorder takes, in bytes.
const MaxRecorder = 64 << 10

// What of that goes to points of a second, of ten, and of a minute, and to events. Each grows as it is
// needed. A quiet second takes some 15 bytes, a busy one 40.
const (
	blockPoints  = 60
	maxEvents    = 96
	firstEvents  = 16 // that stay when others must go
	maxDetail    = 48 // bytes of an event
	eventsBudget = maxEvents * int(unsafe.Sizeof(Event{})+2*maxDetail)
)

// tiers are how many seconds the points of a tier have, and how many bytes they may take.
var tiers = [...]struct {
	span   uint32
	budget int
}{{1, 23 << 10}, {10, 12 << 10}, {60, 12 << 10}}

// An Event is something that took place in a session.
type Event struct {
	Unix   int64 // milliseconds since 1970
	Kind   EventKind
	Stream string // source of it: voice, screen-audio, screen, video
	Detail string
}

// EventKind says what took place.
type EventKind uint8

// What can take place in a session.
const (
	Joined EventKind = iota
	ConnectedFirst
	Disconnected
	Reconnected
	Moved
	Restarted
	StreamStarted
	StreamEnded
	MutedVoice
	UnmutedVoice
	Reduced // videos are sent to it in less than the best
	Restored
	KeyframesAsked
	LimitHit
	Moderated
	Left
	numKinds
)

var eventNames = [numKinds]string{
	"joined", "connected", "disconnected", "reconnected", "moved", "restarted", "stream started", "stream ended",
	"muted", "unmuted", "layers reduced", "layers restored", "keyframes asked", "limit hit", "moderated", "left",
}

// String returns the name of the kind.
func (k EventKind) String() string {
	if k < numKinds {
		return eventNames[k]
	}
	return "unknown"
}

// MarshalText returns the name of the kind.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (k *EventKind) UnmarshalText(text []byte) error {
	i := slices.Index(eventNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("no kind of event: %.40q", text)
	}
	*k = EventKind(i)
	return nil
}

// A Recorder keeps what is measured of a session: the last quarter of an hour or more by the second, what
// was before by ten seconds, then by the minute. It takes no more than MaxRecorder, however long the call
// is, and grows as the call does. The zero Recorder is ready for use. It is not safe for concurrent use.
type Recorder struct {
	tiers   [len(tiers)]tier
	events  []Event
	dropped int // events
	lost    int // seconds that are not known any more
}

type tier struct {
	full  [][]byte // blocks, the oldest first
	bytes int      // of them
	open  block
	wait  []Point // not enough for one of the tier's
}

// Add adds a second.
func (r *Recorder) Add(s *Sample) {
	p := point(s)
	r.add(0, &p)
}

func (r *Recorder) add(i int, p *Point) {
	t := &r.tiers[i]
	t.open.add(p)
	if t.open.n < blockPoints {
		return
	}
	b := slices.Clone(t.open.b)
	t.full = append(t.full, b)
	t.bytes += len(b)
	t.open = block{b: t.open.b[:0]}
	for t.bytes+cap(t.open.b) > tiers[i].budget && len(t.full) > 0 {
		oldest := t.full[0]
		t.bytes -= len(oldest)
		t.full = slices.Delete(t.full, 0, 1)
		r.pass(i+1, oldest)
	}
}

// pass moves a block to a tier, in fewer points.
func (r *Recorder) pass(i int, b []byte) {
	points := appendPoints(nil, b)
	if i == len(tiers) {
		for _, p := range points {
			r.lost += int(p.Span)
		}
		return
	}
	t := &r.tiers[i]
	for _, p := range points {
		t.wait = append(t.wait, p)
		span := uint32(0)
		for _, w := range t.wait {
			span += w.Span
		}
		if span >= tiers[i].span {
			m := merge(t.wait)
			t.wait = t.wait[:0]
			r.add(i, &m)
		}
	}
	t.wait = slices.Clip(t.wait)
	if len(t.wait) == 0 {
		t.wait = nil
	}
}

// Event adds an event.
func (r *Recorder) Event(e Event) {
	e.Detail = cut(e.Detail, maxDetail)
	e.Stream = cut(e.Stream, maxDetail)
	if len(r.events) >= maxEvents {
		r.events = slices.Delete(r.events, firstEvents, firstEvents+1)
		r.dropped++
	}
	r.events = append(r.events, e)
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 { // not within a character
		n--
	}
	return s[:n]
}

// Points returns what is known, the oldest first.
func (r *Recorder) Points() []Point {
	out := make([]Point, 0, r.len())
	for i := len(r.tiers) - 1; i >= 0; i-- {
		t := &r.tiers[i]
		for _, b := range t.full {
			out = appendPoints(out, b)
		}
		out = appendPoints(out, t.open.b)
		if i > 0 && len(t.wait) > 0 {
			out = append(out, t.wait...)
		}
	}
	return out
}

// len returns how many points there are.
func (r *Recorder) len() (n int) {
	for i := range r.tiers {
		t := &r.tiers[i]
		n += len(t.full)*blockPoints + t.open.n + len(t.wait)
	}
	return n
}

// Events returns the events, the oldest first, and how many more there were.
func (r *Recorder) Events() (events []Event, more int) { return slices.Clone(r.events), r.dropped }

// Unknown returns for how long, from the beginning, nothing is known any more.
func (r *Recorder) Unknown() time.Duration { return time.Duration(r.lost) * time.Second }

// Size returns how many bytes the recorder takes.
func (r *Recorder) Size() int {
	n := int(unsafe.Sizeof(*r)) + cap(r.events)*int(unsafe.Sizeof(Event{}))
	for _, e := range r.events {
		n += len(e.Detail) + len(e.Stream)
	}
	for i := range r.tiers {
		t := &r.tiers[i]
		n += t.bytes + cap(t.open.b) + cap(t.full)*int(unsafe.Sizeof([]byte(nil))) + cap(t.wait)*int(unsafe.Sizeof(Point{}))
	}
	return n
}

// Clone returns a copy that does not change any more.
func (r *Recorder) Clone() *Recorder {
	c := *r
	c.events = slices.Clone(r.events)
	for i := range c.tiers {
		t := &c.tiers[i]
		t.full = slices.Clone(t.full) // blocks do not change
		t.open.b = slices.Clone(t.open.b)
		t.wait = slices.Clone(t.wait)
	}
	return &c
}
