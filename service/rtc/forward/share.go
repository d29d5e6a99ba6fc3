package forward

import (
	"cmp"
	"slices"
	"time"

	"rtcd/service/rtc/allocate"
	"rtcd/service/rtc/netio"
)

const (
	// A layer without packets for that long, while another layer of the publication has some, is
	// not sent: its sender has no room or no use for it.
	layerTimeout = 1500 * time.Millisecond

	speakerTime = 3 * time.Second // that a speaker counts as one after the voice went off
	headroom    = 0.95            // of the estimate that is given to videos and sounds

	// Spatial and temporal layers that can be added without a keyframe can be soon.
	riseTime = 700 * time.Millisecond

	maxRungs = 12

	// leastTick is the least time that something is measured over, where ticks that are late are
	// followed by others at once.
	leastTick = TickInterval / 2
)

// rungs are the ways in which a video can be sent, from the worst to the best, and what they cost.
// They belong to Tick.
type rungs struct {
	measured time.Duration
	list     []allocate.Rung
	room     [maxRungs]allocate.Rung
	flows    bool // packets come, and are not dropped
}

// measure lists the rungs that there are now.
func (g *rungs) measure(pub *Publication) {
	pub.peer.mu.Lock()
	defer pub.peer.mu.Unlock()
	// Time as it is now: a tick may have waited for a processor, while packets came.
	now := pub.peer.plane.clock()
	if now-g.measured < leastTick {
		return
	}
	g.measured = now
	g.list = g.room[:0]
	alive := false
	g.flows = false
	for _, l := range pub.layers {
		l.meter.roll(now)
		alive = alive || l.alive(now)
		g.flows = g.flows || l.arrived != 0 && now-l.arrived < layerTimeout
	}
	for i, l := range pub.layers {
		if l.source == nil || alive && !l.alive(now) {
			if r, ok := pub.peer.hold.rung(i, l, now); ok && len(g.list) < maxRungs {
				g.list = append(g.list, r)
			}
			continue
		}
		if now-l.source.arrived < 2*TickInterval { // else the rate is on its way to nothing
			l.kept = l.meter.rate(maxSpatials-1, maxTemporals-1)
		}
		for s := range max(1, l.meter.spatials) {
			for t := range max(1, l.meter.temporals) {
				if len(g.list) == maxRungs {
					return
				}
				g.list = append(g.list, allocate.Rung{
					Layer: uint8(i), Spatial: s, Temporal: t, Bitrate: l.meter.rate(int(s), int(t)),
				})
			}
		}
	}
}

// alive reports whether packets of the layer come. It is called with peer.mu held.
func (l *layer) alive(now time.Duration) bool {
	return l.source != nil && now-l.source.arrived < layerTimeout
}

// find returns the index of the rung that is sent as t, or else of the best one below it; -1 if
// there is none.
func (g *rungs) find(t target) int {
	for i, r := range slices.Backward(g.list) {
		if int8(r.Layer) < t.layer || int8(r.Layer) == t.layer && r.Spatial <= t.spatial && r.Temporal <= t.temporal {
			return i
		}
	}
	return -1
}

// target returns what rung i means; that of none is nothing.
func (g *rungs) target(i int) target {
	if i < 0 || i >= len(g.list) {
		return target{layer: -1}
	}
	r := g.list[i]
	return target{layer: int8(r.Layer), spatial: r.Spatial, temporal: r.Temporal}
}

// startTarget is what a new subscription is sent until the next tick decides.
func (pub *Publication) startTarget() target { return everything }

// average is a mean over about half a second, in bits per second.
type average float64

// add adds what was sent in the time since it was called last.
func (a *average) add(bytes uint64, since time.Duration) {
	bps := float64(bytes) * 8 / since.Seconds()
	*a += average((bps - float64(*a)) * min(1, since.Seconds()*2))
}

func (a average) bps() int { return int(a) }

// share is the working memory of tick.allocate.
type share struct {
	videos  []*Subscription
	demands []allocate.Demand
	targets []int
}

// allocate shares the estimate of a peer's downlink among the videos it is sent.
func (t *tick) allocate(peer *Peer, d *downlink, out *netio.Batch) {
	now := peer.plane.clock()
	since := now - d.shared
	if since < leastTick {
		return
	}
	d.shared = now
	w := &t.share
	w.videos, w.demands = w.videos[:0], w.demands[:0]
	sounds := uint64(0)
	for _, sub := range *peer.sublist.Load() {
		if sub.view != nil {
			if len(sub.pub.rungs.list) > 0 { // else nothing has come yet: the first packets will pass
				w.videos = append(w.videos, sub)
			}
			continue
		}
		octets := sub.octets.Load() + sub.packets.Load()*(packetOverhead+fixedHeader+twccBlock+longestTag)
		sounds += octets - sub.metered
		sub.metered = octets
	}
	sent := d.bytes.Load()
	d.sending.add(sent-d.metered, since)
	d.sounds.add(sounds, since)
	d.metered = sent
	d.estimate, d.limited = 0, false
	if len(w.videos) == 0 {
		return
	}
	w.rank(peer.plane.cameras, now)

	d.mu.Lock()
	estimated := d.estimator.Bitrate()
	d.mu.Unlock()
	budget := int(float64(estimated)*headroom) - d.sounds.bps()
	w.targets = slices.Grow(w.targets[:0], len(w.demands))[:len(w.demands)]
	wanted := d.allocator.Allocate(now, budget, w.demands, w.targets)
	for i, sub := range w.videos {
		if i < len(w.targets) {
			sub.aim(sub.pub.rungs.target(w.targets[i]), now)
		} else {
			sub.aim(target{layer: -1}, now)
		}
	}
	d.estimate, d.limited = estimated, wanted > 0
	if wanted > 0 {
		wanted = int(float64(wanted+d.sounds.bps()) / headroom)
	}
	d.mu.Lock()
	d.sampled.share(w)
	rate := d.estimator.Probe(now, wanted, d.sending.bps())
	d.mu.Unlock()
	if d.probe(rate, w.videos); d.carrier != nil {
		t.pad(d.carrier, out, now)
	}
}

// pad sends the padding that is due beside a video: its packets carry some along, but may be far
// apart.
func (t *tick) pad(sub *Subscription, out *netio.Batch, now time.Duration) {
	path := sub.peer.path.Load()
	if path == nil {
		return
	}
	t.writer.out, t.writer.now = out, now
	sub.pub.fanning.Lock()
	defer sub.pub.fanning.Unlock()
	if bps := sub.padding.Load(); bps > 0 && !sub.closed.Load() {
		t.writer.pad(sub, *path, bps)
	}
}

// rank lists what the videos could be sent as, those that matter most first; cameras after the
// first so many are left out.
func (w *share) rank(cameras int, now time.Duration) {
	slices.SortStableFunc(w.videos, func(a, b *Subscription) int {
		if c := cmp.Compare(a.class(now), b.class(now)); c != 0 {
			return c
		}
		return cmp.Compare(b.pub.peer.spoke, a.pub.peer.spoke)
	})
	seen := 0
	for i, sub := range w.videos {
		class := sub.class(now)
		if class != allocate.Screen {
			if seen++; cameras > 0 && seen > cameras {
				return
			}
		}
		w.demands = append(w.demands, allocate.Demand{
			ID: uint64(sub.ssrc), Class: class, Order: i,
			Rungs: sub.pub.rungs.list, Current: sub.pub.rungs.find(unpackTarget(sub.current.Load())),
		})
	}
}

// class returns how much a video matters.
func (sub *Subscription) class(now time.Duration) allocate.Class {
	switch spoke := sub.pub.peer.spoke; {
	case sub.pub.cfg.Source == Screen:
		return allocate.Screen
	case spoke != 0 && now-spoke < speakerTime:
		return allocate.Speaker
	}
	return allocate.Camera
}

// aim makes t what is to be sent, and asks for the keyframe that takes.
func (sub *Subscription) aim(t target, now time.Duration) {
	if before := unpackTarget(sub.target.Load()); before != t {
		sub.target.Store(t.pack())
		sub.aimed = now
	}
	if t.layer < 0 {
		return
	}
	current := unpackTarget(sub.current.Load())
	l := sub.pub.layers[t.layer]
	switch {
	case current.layer != t.layer:
		l.request()
	case (current.spatial < t.spatial || current.temporal < t.temporal) && now-sub.aimed >= riseTime:
		l.request()
	}
}

// probe makes the padding flow that fills the media up to rate; 0 ends it.
func (d *downlink) probe(rate int, videos []*Subscription) {
	extra := int64(rate - d.sending.bps())
	if rate == 0 || extra <= 0 {
		if d.carrier != nil {
			d.carrier.padding.Store(0)
			d.carrier = nil
		}
		return
	}
	if c := d.carrier; c == nil || c.closed.Load() || !c.pub.rungs.flows {
		if c != nil {
			c.padding.Store(0)
		}
		d.carrier = carrier(videos)
	}
	if d.carrier != nil {
		d.carrier.padding.Store(extra)
	}
}

// carrier returns the video that padding goes with: one whose packets come, with a repair stream
// if there is one. nil if there is none.
func carrier(videos []*Subscription) *Subscription {
	var found *Subscription
	for _, sub := range videos {
		switch {
		case !sub.pub.rungs.flows:
		case sub.repair != 0:
			return sub
		case found == nil && unpackTarget(sub.current.Load()).layer >= 0:
			found = sub
		}
	}
	return found
}
