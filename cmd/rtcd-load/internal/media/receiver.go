package media

import (
	"sync"
	"time"

	"rtcd/cmd/rtcd-load/internal/stats"
)

// A Receiver checks and counts what one person gets. It is safe for concurrent use.
type Receiver struct {
	ledger       *Ledger
	room, person int
	since        time.Duration // when the person could get something, by Now

	mu      sync.Mutex
	streams map[uint32]*Stream // by source
	heard   func()             // called once, with the first intact packet
}

// NewReceiver returns a receiver for a person of a room. heard is called when the first packet comes.
func NewReceiver(l *Ledger, room, person int, heard func()) *Receiver {
	return &Receiver{
		ledger: l, room: room, person: person, since: Now(), streams: make(map[uint32]*Stream), heard: heard,
	}
}

// A Stream is what a receiver gets of one source.
type Stream struct {
	source *Source
	ledger *Ledger

	mu     sync.Mutex
	layers [MaxLayers]*layer // nil: nothing came of it
	active int               // layer of the newest packet
	shown  display
}

// layer is what came of one layer of a source.
type layer struct {
	packets stats.Sequence
	frames  *assembly // of video
}

// A Track is a stream of RTP packets that a receiver gets. Its methods are not for concurrent use.
type Track struct {
	receiver *Receiver
	stream   *Stream // that the packet before was of, nil before the first
	layer    uint8   // of that packet
	newest   uint16  // sequence number of the newest packet with a payload
	padding  int     // packets without payload after it
}

// Track returns a new track.
func (r *Receiver) Track() *Track { return &Track{receiver: r} }

// Padding takes a packet without payload.
func (t *Track) Padding(sequence uint16) {
	if t.stream != nil && int16(sequence-t.newest) > 0 {
		t.padding++
	}
}

// Packet takes the payload of a packet. It reports whether to ask for a keyframe.
func (t *Track) Packet(sequence uint16, payload []byte) (ask bool) {
	now := Now()
	ledger := t.receiver.ledger
	totals := &ledger.Totals
	totals.Received.Add(1)
	totals.Bytes.Add(uint64(len(payload)))
	stamp, err := ParseStamp(payload)
	if err != nil {
		totals.Bad.Add(1)
		return false
	}
	source := ledger.source(stamp.Source)
	if stamp.Run != ledger.Run || source == nil || source.Room != t.receiver.room || source.Sender == t.receiver.person {
		totals.Foreign.Add(1)
		return false
	}
	missing := -1
	switch newer := int16(sequence - t.newest); {
	case t.stream == nil || t.stream.source != source:
		t.stream = t.receiver.stream(source)
		t.newest, t.layer, t.padding = sequence, stamp.Layer, 0
	case newer > 0:
		if t.layer == stamp.Layer {
			missing = int(newer) - 1 - t.padding
		}
		t.newest, t.layer, t.padding = sequence, stamp.Layer, 0
	}
	delay := &totals.VoiceDelay
	if source.Kind != Voice {
		delay = &totals.VideoDelay
	}
	delay.Add(now - stamp.Sent)
	return t.stream.packet(&stamp, missing, now)
}

// stream returns that of a source.
func (r *Receiver) stream(source *Source) *Stream {
	r.mu.Lock()
	s := r.streams[source.ID]
	if s == nil {
		s = &Stream{source: source, ledger: r.ledger}
		r.streams[source.ID] = s
	}
	heard := r.heard
	r.heard = nil
	r.mu.Unlock()
	if heard != nil {
		heard()
	}
	return s
}

// packet takes a packet before which, by the server's count, some are missing on the track; -1: that
// says nothing. What the sender counts as missing and the server does not, the server has left out on
// purpose.
func (s *Stream) packet(stamp *Stamp, missing int, now time.Duration) (ask bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.ledger.Totals
	l := s.layer(stamp.Layer)
	if n, ok := l.packets.Newest(); int(stamp.Layer) != s.active && (!ok || stamp.Number > n) {
		// Between two layers nothing is missing: a server sends one at a time.
		l.packets.Break()
		s.active = int(stamp.Layer)
	}
	a := l.packets.Add(stamp.Number)
	if withheld := a.Advanced - 1 - missing; withheld > 0 && missing >= 0 && !a.Reordered {
		l.packets.Skip(withheld)
		t.Withheld.Add(uint64(withheld))
		a.Advanced -= withheld
	}
	t.Expected.Add(uint64(a.Advanced))
	switch {
	case a.Duplicate:
		t.Duplicates.Add(1)
		return false
	case a.Late:
		t.Late.Add(1)
		return false
	}
	t.Unique.Add(1)
	if a.Reordered {
		t.Reordered.Add(1)
	}
	if s.source.Kind == Voice {
		return false
	}
	for _, frame := range l.frames.add(stamp) {
		s.shown.show(int(stamp.Layer), frame, now, t)
	}
	if ask = s.shown.wantsKey(now); ask {
		t.Asked.Add(1)
	}
	return ask
}

// layer returns one of the stream's layers.
func (s *Stream) layer(i uint8) *layer {
	if s.layers[i] == nil {
		s.layers[i] = &layer{}
		if s.source.Kind != Voice {
			s.layers[i].frames = &assembly{}
		}
	}
	return s.layers[i]
}

// assembled is a picture all of whose packets have come.
type assembled struct {
	number uint32
	key    bool
}

// assembly puts the pictures of a layer together, and in order.
type assembly struct {
	slots   [pending]slot
	last    uint32 // picture that was put out last
	started bool
	out     []assembled
}

// pending is how many pictures after the last one shown are kept.
const pending = 128

type slot struct {
	number uint32
	used   bool
	key    bool
	got    uint16
	of     uint16
}

// add takes a fresh packet and returns the pictures that can be shown from now on, until the next
// call.
func (a *assembly) add(stamp *Stamp) []assembled {
	if a.started && stamp.Frame <= a.last {
		return nil
	}
	s := &a.slots[stamp.Frame%pending]
	if !s.used || s.number != stamp.Frame {
		if s.used && s.number > stamp.Frame {
			return nil
		}
		*s = slot{number: stamp.Frame, used: true, key: stamp.Key, of: stamp.Packets}
	}
	s.got++
	a.out = a.out[:0]
	if s.got < s.of || !s.key && (!a.started || stamp.Frame != a.last+1) {
		return nil
	}
	for {
		a.out = append(a.out, assembled{s.number, s.key})
		a.last, a.started = s.number, true
		s.used = false
		s = &a.slots[(a.last+1)%pending]
		if !s.used || s.number != a.last+1 || s.got < s.of {
			return a.out
		}
	}
}

const (
	recent   = 30                     // pictures that the usual time between two is taken of
	freezeAt = 150 * time.Millisecond // more than usual is a freeze
	askAfter = 500 * time.Millisecond // without a picture, or since the last time
)

// display is what a person sees of a source.
type display struct {
	begun   bool
	layer   int
	at      time.Duration         // of the last picture
	asked   time.Duration         // for a keyframe, the last time; 0: never
	usual   [recent]time.Duration // between pictures
	pos, n  int
	sum     time.Duration
	waiting time.Duration // since when there are packets but no picture
}

// show takes a picture that can be shown. A freeze is what W3C's webrtc-stats says: a picture that
// comes later than three times the usual, and 150 ms more than usual.
func (d *display) show(layer int, p assembled, now time.Duration, t *Totals) {
	if d.begun && layer != d.layer && !p.key {
		return // the rest of a layer that was switched away from
	}
	t.Frames.Add(1)
	if d.begun {
		gap := now - d.at
		if d.n > 0 {
			mean := d.sum / time.Duration(d.n)
			if gap > max(3*mean, mean+freezeAt) {
				t.Freezes.Add(1)
				t.Frozen.Add(int64(gap))
			}
		}
		d.sum += gap - d.usual[d.pos]
		d.usual[d.pos] = gap
		d.pos = (d.pos + 1) % recent
		d.n = min(d.n+1, recent)
	}
	d.begun, d.layer, d.at, d.waiting = true, layer, now, 0
}

// wantsKey reports whether it is time to ask for a keyframe, when a packet has come.
func (d *display) wantsKey(now time.Duration) bool {
	since := d.at
	if !d.begun {
		if d.waiting == 0 {
			d.waiting = now
		}
		since = d.waiting
	}
	if now-since < askAfter || d.asked != 0 && now-d.asked < askAfter {
		return false
	}
	d.asked = now
	return true
}
