package forward

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rtcd/service/rtc/codec"
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

// Sound reports whether it is heard.
func (s Source) Sound() bool { return !s.video() }

// video reports whether it is a picture.
func (s Source) video() bool { return s == Screen || s == Camera }

const (
	voiceTimeout  = time.Second // without packets, after which a voice is off
	sourceTimeout = time.Second // without packets, after which an SSRC of before may come back
)

// PublicationConfig describes a publication.
type PublicationConfig struct {
	Source Source

	// RIDs are those of the section's streams that feed a video, from the cheapest to the best, up
	// to four. The others are dropped. None means the one stream without RID.
	RIDs []string

	// PayloadType is the only one that feeds a video; 0: all do.
	PayloadType uint8

	// Codec is that of a video.
	Codec codec.Codec

	// Floor decides which voices of a call are forwarded. nil: all.
	Floor *Floor

	// OnVoice is called when the voice of a Voice goes on or off, in that order, and off at the
	// end. It may only post.
	OnVoice func(on bool)

	// WriteTime counts how long it takes to write a packet to all receivers. nil: not counted.
	WriteTime *Histogram
}

// Publication is one source as a session sends it to us. Its methods are safe for concurrent use.
type Publication struct {
	peer *Peer // that sends it
	id   uint64
	mid  string
	cfg  PublicationConfig

	voice   atomic.Bool // state of the detector
	posted  atomic.Bool // what OnVoice was told
	posting atomic.Bool // held by who calls OnVoice

	// What any of the receivers so far agreed on, see needs.
	needed atomic.Uint32

	// Guarded by peer.mu.
	muted    bool
	detector speech.Detector
	packets  uint64
	latest   time.Duration // arrival of the last packet

	// fanning is held while packets are written to the subscriptions: two readers may have
	// packets of one publication in the moment its path moves from one to the other.
	fanning sync.Mutex
	subs    atomic.Pointer[[]*Subscription] // replaced under list

	layers []*layer // from the cheapest to the best; fixed
	rungs  rungs    // Tick's alone

	sampled sampledPublication

	list  sync.Mutex
	ended bool // guarded by list
}

func newPublication(peer *Peer, mid string, cfg PublicationConfig) *Publication {
	pub := &Publication{peer: peer, id: peer.plane.published.Add(1), mid: mid, cfg: cfg}
	rids := cfg.RIDs[:min(len(cfg.RIDs), maxLayers)]
	if len(rids) == 0 {
		rids = []string{""}
	}
	for _, rid := range rids {
		pub.layers = append(pub.layers, &layer{pub: pub, rid: rid, meter: meter{lone: len(rids) == 1}})
	}
	pub.subs.Store(new([]*Subscription))
	return pub
}

// SetMuted drops the publication's packets, or lets them pass again. Receivers see no gap in
// the sequence numbers. Muting turns the voice off and gives back its place among the loudest; muted
// packets are still listened to.
func (pub *Publication) SetMuted(muted bool) {
	pub.peer.mu.Lock()
	pub.muted = muted
	pub.peer.mu.Unlock()
	if muted {
		pub.Hush()
	}
}

// Hush turns the voice off, until it is heard again, and gives back its place among the loudest.
func (pub *Publication) Hush() {
	pub.peer.mu.Lock()
	pub.resetVoice()
	if pub.cfg.Floor != nil {
		pub.cfg.Floor.leave(pub)
	}
	pub.peer.mu.Unlock()
	pub.postVoice()
}

// Close ends the publication and its subscriptions. A voice that is on goes off.
func (pub *Publication) Close() {
	pub.peer.unpublish(pub)
	if pub.cfg.Floor != nil {
		pub.cfg.Floor.leave(pub)
	}
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

// Muted reports whether its packets are dropped, by SetMuted or PeerConfig.Silenced.
func (pub *Publication) Muted() bool {
	pub.peer.mu.Lock()
	defer pub.peer.mu.Unlock()
	return pub.muted || pub.silenced()
}

// silenced reports whether it is a sound of an endpoint whose sounds are dropped.
func (pub *Publication) silenced() bool { return !pub.cfg.Source.video() && pub.peer.hush.Load() }

// Subscribers returns how many it is sent to.
func (pub *Publication) Subscribers() int { return len(*pub.subs.Load()) }

// Speaking reports whether the voice is on.
func (pub *Publication) Speaking() bool { return pub.voice.Load() }

// PublicationStats are what is known of a publication's packets as they came in.
type PublicationStats struct {
	Packets uint64        // received, muted ones included
	SSRC    uint32        // that feeds it now, its best layer; 0 if none did yet
	Lost    int32         // packets of that SSRC
	Jitter  time.Duration // of that SSRC (RFC 3550 section 6.4.1)
}

// Stats returns what is known of the packets that came in.
func (pub *Publication) Stats() PublicationStats {
	pub.peer.mu.Lock()
	defer pub.peer.mu.Unlock()
	s := PublicationStats{Packets: pub.packets}
	for _, l := range slices.Backward(pub.layers) {
		src := l.source
		if src == nil || src.clockRate == 0 {
			continue
		}
		s.SSRC, s.Lost = src.ssrc, src.lost()
		s.Jitter = time.Duration(src.jitter>>4) * time.Second / time.Duration(src.clockRate)
		break
	}
	return s
}

// layer returns the layer that packets of st feed, nil if they feed none.
func (pub *Publication) layer(st *stream) (l *layer, index int) {
	if !pub.cfg.Source.video() {
		return pub.layers[0], 0
	}
	for i, l := range pub.layers {
		if l.rid == st.rid {
			return l, i
		}
	}
	return nil, 0
}

// take makes packet p of what came: its number and timestamp, and what else its receivers need to
// know. It is called with peer.mu held, for packets of st in the order they came.
func (pub *Publication) take(p *packet, st *stream, fresh bool, h *header, now time.Duration) (why Drop) {
	l, index := pub.layer(st)
	if l == nil {
		return DropRID
	}
	f := &st.section.formats[h.pt]
	if pub.cfg.Source.video() {
		if pub.cfg.PayloadType != 0 && pub.cfg.PayloadType != h.pt {
			return DropPayloadType
		}
		if st.losses == nil {
			st.losses = new(losses)
		}
	} else if st.losses == nil && st.section.NACK {
		st.losses = new(losses)
	}
	pub.packets++
	pub.latest = now
	level := st.level
	if st.section.Ext.AudioLevel == 0 {
		level = usualLevel
	}
	withheld := numDrops
	switch {
	case pub.muted || pub.silenced():
		withheld = DropMuted
	case pub.cfg.Floor != nil && pub.cfg.Source == Voice && !pub.cfg.Floor.admit(pub, level, now):
		withheld = DropQuiet
	}
	if p.number, p.timestamp, why = l.take(st, fresh, h, withheld, now); why != numDrops {
		return why
	}
	p.layer, p.source, p.redundant = uint8(index), l.sources, f.redundant
	if pub.cfg.Source.video() {
		l.look(p, f.codec, now)
	}
	return numDrops
}

// hear listens to a packet's audio level. It is called with peer.mu held.
func (pub *Publication) hear(level uint8, now time.Duration) (changed bool) {
	if pub.cfg.Source != Voice || pub.silenced() || !pub.detector.Add(level, now) {
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

// needs notes what receivers of the publication agreed on, so that room is made for it.
func (pub *Publication) needs(sub *Subscription) {
	mask := uint32(0)
	for kind, id := range sub.passed {
		if id != 0 {
			mask |= 1 << kind
		}
	}
	if sub.mid != "" {
		mask |= needMID
	}
	if sub.repair != 0 {
		mask |= needRepair
	}
	pub.needed.Or(mask)
	if sub.nack {
		pub.needed.Or(needHistory)
	}
}

// Bits of Publication.needed after those of the kinds of extensions.
const (
	needMID = 1 << (numKinds + iota)
	needRepair
	needHistory
)

// room returns how much is needed before the payload of a packet with those elements.
func (pub *Publication) room(elements int) int {
	need := pub.needed.Load()
	n := sendTimeRoom + elements
	if need&needMID != 0 {
		n += 2 + maxMID
	}
	if n = (n+3)&^3 + fixedHeader + 4; need&needRepair != 0 {
		n += repairRoom
	}
	return n
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
