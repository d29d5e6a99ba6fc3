package forward

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/rewrite"
	"rtcd/service/rtc/speech"
)

// Source is what a publication captures.
type Source uint8

// The sources of a session.
const (
	Voice Source = iota
	ScreenAudio
	Screen
	Camera
)

// String returns the name of the source on the wire: in track ids and metrics.
func (s Source) String() string {
	switch s {
	case Voice:
		return "voice"
	case ScreenAudio:
		return "screen-audio"
	case Screen:
		return "screen"
	case Camera:
		return "video"
	}
	return "unknown"
}

// video reports whether it is a picture.
func (s Source) video() bool { return s == Screen || s == Camera }

const (
	voiceTimeout  = time.Second // without packets, after which a voice is off
	sourceTimeout = time.Second // without packets, after which an SSRC of before may come back
)

// PublicationConfig describes a publication.
type PublicationConfig struct {
	Source Source

	// RID is the one of the section's streams that feeds a video, the others are dropped. "" is
	// the stream without RID.
	RID string

	// OnVoice is called when the voice of a Voice goes on or off, in that order, and off at the
	// end. It may only post.
	OnVoice func(on bool)

	// WriteTime counts how long it takes to write a packet to all receivers. nil: not counted.
	WriteTime *Histogram
}

// Publication is one source as a session sends it to us. Its methods are safe for concurrent use.
type Publication struct {
	peer *Peer // that sends it
	mid  string
	cfg  PublicationConfig

	voice    atomic.Bool // state of the detector
	posted   atomic.Bool // what OnVoice was told
	posting  atomic.Bool // held by who calls OnVoice
	keyframe keyframeRequest

	// Guarded by peer.mu.
	muted     bool
	detector  speech.Detector
	source    *stream // that feeds it; nil before the first packet
	packets   uint64
	latest    time.Duration // arrival of the last packet
	sequence  rewrite.Sequence
	shift     uint32        // added to timestamps
	timestamp uint32        // last one sent
	arrived   time.Duration // of the packet with it; 0: none was sent

	// fanning is held while packets are written to the subscriptions: two readers may have
	// packets of one publication in the moment its path moves from one to the other.
	fanning sync.Mutex
	history *history                        // guarded by fanning; nil but for a video with receivers
	subs    atomic.Pointer[[]*Subscription] // replaced under list

	list  sync.Mutex
	ended bool // guarded by list
}

func newPublication(peer *Peer, mid string, cfg PublicationConfig) *Publication {
	pub := &Publication{peer: peer, mid: mid, cfg: cfg}
	pub.subs.Store(new([]*Subscription))
	return pub
}

// SetMuted drops the publication's packets, or lets them pass again. Receivers see no gap in
// the sequence numbers. Muting turns the voice off; muted packets are still listened to.
func (pub *Publication) SetMuted(muted bool) {
	pub.peer.mu.Lock()
	if muted {
		pub.resetVoice()
	}
	pub.muted = muted
	pub.peer.mu.Unlock()
	pub.postVoice()
}

// Close ends the publication and its subscriptions. A voice that is on goes off.
func (pub *Publication) Close() {
	pub.peer.unpublish(pub)
	pub.peer.mu.Lock()
	pub.resetVoice()
	pub.peer.mu.Unlock()
	pub.postVoice()

	pub.list.Lock()
	pub.ended = true
	subs := *pub.subs.Load()
	pub.subs.Store(new([]*Subscription))
	pub.list.Unlock()
	for _, sub := range subs {
		sub.Close()
	}
}

// Speaking reports whether the voice is on.
func (pub *Publication) Speaking() bool { return pub.voice.Load() }

// PublicationStats are what is known of a publication's packets as they came in.
type PublicationStats struct {
	Packets uint64        // received, muted ones included
	SSRC    uint32        // that feeds it now; 0 if none did yet
	Lost    int32         // packets of that SSRC
	Jitter  time.Duration // of that SSRC (RFC 3550 section 6.4.1)
}

// Stats returns what is known of the packets that came in.
func (pub *Publication) Stats() PublicationStats {
	pub.peer.mu.Lock()
	defer pub.peer.mu.Unlock()
	s := PublicationStats{Packets: pub.packets}
	if src := pub.source; src != nil && src.clockRate != 0 {
		s.SSRC, s.Lost = src.ssrc, src.lost()
		s.Jitter = time.Duration(src.jitter>>4) * time.Second / time.Duration(src.clockRate)
	}
	return s
}

// number returns what the packet becomes: its sequence number, extended, and timestamp. It is
// called with peer.mu held, for packets of st in the order they came.
func (pub *Publication) number(st *stream, fresh bool, h *header, now time.Duration) (seq uint64, ts uint32, why Drop) {
	if pub.cfg.Source.video() && st.rid != pub.cfg.RID {
		return 0, 0, DropRID
	}
	if pub.source != st {
		// A section that was away for a description or two comes back as another stream, with
		// the same SSRC.
		if pub.source != nil && pub.source.ssrc != st.ssrc {
			// An SSRC that is new is what the endpoint means to send from now on. The one before
			// it only comes back if that was a mistake: it must not alternate with the new one.
			if !fresh && now-pub.source.arrived < sourceTimeout {
				return 0, 0, DropLate
			}
			pub.sequence.Switch()
			if pub.arrived != 0 {
				pub.shift = pub.timestamp + max(1, toClock(now-pub.arrived, st.clockRate)) - h.timestamp
			}
		}
		pub.source = st
		pub.RequestKeyframe()
	}
	pub.packets++
	pub.latest = now
	if pub.cfg.Source.video() {
		if st.losses == nil {
			st.losses = new(losses)
		}
		st.losses.note(h.seq, now)
	}
	if pub.muted {
		pub.sequence.Drop(h.seq)
		return 0, 0, DropMuted
	}
	seq, ok := pub.sequence.Map(h.seq)
	if !ok {
		return 0, 0, DropLate
	}
	ts = h.timestamp + pub.shift
	if int32(ts-pub.timestamp) > 0 || pub.arrived == 0 {
		pub.timestamp, pub.arrived = ts, now
	}
	return seq, ts, numDrops
}

// timestampAt returns the timestamp that receivers should have at now, and the clock's rate. It
// is called with peer.mu held.
//
// The sender's reports tell best, because they keep its streams in step; how far the sender is
// believed is bounded by what its packets say.
func (pub *Publication) timestampAt(now time.Duration) (ts uint32, ok bool) {
	src := pub.source
	if src == nil || src.clockRate == 0 || !src.started {
		return 0, false
	}
	byPackets := src.timestamp + toClock(now-src.arrived, src.clockRate) + pub.shift
	in := &pub.peer.in
	if !src.report.valid || !in.clockKnown {
		return byPackets, true
	}
	since := ntpDuration(int64(pub.peer.plane.ntp(now)) - in.clockOffset - int64(src.report.ntp))
	byReports := src.report.timestamp + toClock(since, src.clockRate) + pub.shift
	const believed = 2 // seconds
	if d := int64(int32(byReports - byPackets)); d > believed*int64(src.clockRate) || -d > believed*int64(src.clockRate) {
		return byPackets, true
	}
	return byReports, true
}

// hear listens to a packet's audio level. It is called with peer.mu held.
func (pub *Publication) hear(level uint8, now time.Duration) (changed bool) {
	if pub.cfg.Source != Voice || !pub.detector.Add(level, now) {
		return false
	}
	pub.voice.Store(pub.detector.Speaking())
	return true
}

// resetVoice turns the voice off. It is called with peer.mu held; postVoice is to follow.
func (pub *Publication) resetVoice() {
	pub.detector.Reset()
	pub.voice.Store(false)
}

// expireVoice turns the voice off if packets have stopped.
func (pub *Publication) expireVoice(now time.Duration) {
	pub.peer.mu.Lock()
	silent := now-pub.latest > voiceTimeout
	if silent {
		pub.resetVoice()
	}
	pub.peer.mu.Unlock()
	if silent {
		pub.postVoice()
	}
}

// postVoice tells OnVoice what the voice is, if it was told something else before. Several
// goroutines may change the voice: one at a time tells, so that what is told last is true, and
// none holds a lock meanwhile.
func (pub *Publication) postVoice() {
	for pub.posted.Load() != pub.voice.Load() && pub.posting.CompareAndSwap(false, true) {
		if on := pub.voice.Load(); on != pub.posted.Load() {
			pub.posted.Store(on)
			if pub.cfg.OnVoice != nil {
				pub.cfg.OnVoice(on)
			}
		}
		pub.posting.Store(false)
	}
}

// addSubscription publishes sub to the readers.
func (pub *Publication) addSubscription(sub *Subscription) error {
	pub.list.Lock()
	defer pub.list.Unlock()
	if pub.ended {
		return ErrClosed
	}
	next := append(slices.Clip(*pub.subs.Load()), sub)
	pub.subs.Store(&next)
	return nil
}

// removeSubscription takes sub back.
func (pub *Publication) removeSubscription(sub *Subscription) {
	pub.list.Lock()
	defer pub.list.Unlock()
	old := *pub.subs.Load()
	if i := slices.Index(old, sub); i >= 0 {
		next := slices.Concat(old[:i], old[i+1:])
		pub.subs.Store(&next)
	}
}
