package forward

import (
	"errors"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/netio"
)

// reader is the plane's half of one reading goroutine, which alone uses it. It implements
// netio.Reader.
type reader struct {
	plane *Plane
	out   *netio.Batch

	// Of this batch.
	now     time.Duration // 0: not asked for yet
	packets []packet
	runs    []run

	destinations [16]destination // of the subscriptions at hand

	// The endpoint of the last packet: packets come in groups, and Known comes before Receive.
	path netio.Path
	peer *Peer

	counts       counts
	sent, octets uint64 // to the receiver at hand
	asked        int    // entries of NACKs in this RTCP packet

	scratch     scratch
	scratchRTCP rtcp.Header // for pion/srtp, which parses headers once more

	rtcp     []byte // memory for what is asked of senders
	elements []byte // of the batch's packets
	spill    []byte // packets of the batch that needed more room than they came with
	padding  []byte // a packet of nothing but that
}

// run is the packets of one publication in a batch, in the order they came.
type run struct {
	pub         *Publication
	first, last int // indices in reader.packets
	n           int
}

// Known reports whether path is that of an attached peer.
func (r *reader) Known(path netio.Path) bool { return r.lookup(path) != nil }

// lookup returns the peer of path, nil if there is none.
func (r *reader) lookup(path netio.Path) *Peer {
	if r.peer == nil || path != r.path {
		r.path, r.peer = path, r.plane.byPath.find(path)
	}
	return r.peer
}

// Receive takes one SRTP or SRTCP packet. It is overwritten, and used until Flush.
func (r *reader) Receive(b []byte, from netio.Path) {
	if r.now == 0 {
		r.now = max(1, r.plane.clock())
	}
	report := isRTCP(b)
	if report {
		r.counts.RTCPIn++
	} else {
		r.counts.PacketsIn++
		r.counts.BytesIn += uint64(len(b))
	}
	switch peer := r.lookup(from); {
	case peer == nil:
		r.counts.drop(DropUnknownPath)
	case len(b) > maxPacket:
		r.counts.drop(DropMalformed)
	case report:
		r.receiveRTCP(peer, b)
	default:
		r.receiveRTP(peer, b)
	}
}

// receiveRTP decrypts an RTP packet and queues it for the fan-out.
func (r *reader) receiveRTP(peer *Peer, b []byte) {
	var h header
	if !h.parse(b) {
		r.counts.drop(DropMalformed)
		return
	}
	if peer.mute {
		r.counts.drop(DropRole)
		return
	}
	peer.mu.Lock()
	st, fresh, plain, why := r.accept(&peer.in, &h, b)
	if st == nil {
		peer.mu.Unlock()
		r.counts.drop(why)
		return
	}
	tag := len(b) - len(plain)
	p := packet{marker: b[1] & 0x80}
	heard, told := r.note(&peer.in, st, &h, plain, &p)
	repair := st.repair
	if repair {
		if st, plain = peer.in.repaired(st, &h, plain); st == nil {
			peer.mu.Unlock()
			r.counts.drop(DropRepaired)
			return
		}
		st.sampled.repaired++
	}
	pub := st.section.pub
	why = DropUnbound
	if pub != nil {
		if h.padding {
			p.flags = 0x20
		}
		p.bytes, p.head = r.place(plain, tag, h.payload, pub.room(len(p.elements)))
		why = pub.take(&p, st, fresh && !repair, &h, r.now)
	}
	var hook Stream
	if told = (told || fresh) && !repair && peer.hook != nil; told {
		hook = st.describe(&h)
	}
	peer.mu.Unlock()

	if told {
		peer.hook(hook)
	}
	if heard {
		pub.postVoice()
	}
	if why != numDrops {
		r.counts.drop(why)
		return
	}
	r.queue(pub, p)
}

// accept verifies and decrypts b in place, and returns the stream it is of. fresh reports that
// it is the stream's first packet. The stream is nil for a packet that is to be dropped. Bytes
// that do not verify change nothing. It is called with the peer's mu held.
func (r *reader) accept(in *inbound, h *header, b []byte) (st *stream, fresh bool, plain []byte, why Drop) {
	if in.srtp == nil {
		return nil, false, nil, DropUnknownPath
	}
	if len(b) < h.payload+in.tag {
		return nil, false, nil, DropMalformed
	}
	st = in.find(h.ssrc)
	if st == nil && !in.admits(h.ssrc, r.now) {
		r.counts.TooMany++
		return nil, false, nil, DropUnknownSSRC
	}
	if in.budget != nil && !in.budget.has(len(b)*8, r.now) {
		in.budget.refused.Add(1)
		in.sampled.dropped++
		return nil, false, nil, DropClientRate
	}
	plain, err := in.srtp.DecryptRTP(b, b, &r.scratch.header)
	if err != nil {
		return nil, false, nil, refusal(err)
	}
	if in.budget != nil {
		in.budget.spend(len(b)*8, r.now)
	}
	// The session pays for authentic packets alone: forged ones must not use up its rate.
	in.sampled.packet(len(b), r.now)
	if !in.packets.take(1, maxPackets, r.now) || !in.bits.take(len(b)*8, maxBits, r.now) {
		in.sampled.dropped++
		return nil, false, nil, DropRate
	}
	if !h.paddingFits(plain) {
		return nil, false, nil, DropPadding
	}
	if st == nil {
		if st = in.admit(h, plain, r.now); st == nil {
			return nil, false, nil, DropUnknownSSRC
		}
	}
	f := &st.section.formats[h.pt]
	if f.clockRate == 0 || st.repair != (f.repairs != 0) {
		return nil, false, nil, DropPayloadType
	}
	fresh = !st.started
	st.clockRate = f.clockRate
	return st, fresh, plain, 0
}

// note does the book-keeping for an accepted packet and collects the elements that are passed on.
// It reports whether the packet turned the voice on or off, and whether it told something new of
// its stream. It is called with the peer's mu held.
func (r *reader) note(in *inbound, st *stream, h *header, plain []byte, p *packet) (heard, told bool) {
	st.packet(h.seq, h.timestamp, r.now)
	s := st.section
	if !s.Audio && st.pt != h.pt && uint16(st.highest) == h.seq { // a late one tells nothing new
		st.pt, told = h.pt, true
	}
	if h.profile == 0 {
		return false, told
	}
	pub := s.pub
	needed := uint32(0)
	if pub != nil {
		needed = pub.needed.Load()
	}
	begin, seen := len(r.elements), uint32(0)
	h.elements(plain, func(id uint8, value []byte) {
		switch {
		case id == s.Ext.AudioLevel && len(value) == 1:
			if st.level = value[0] & 0x7f; pub != nil {
				heard = pub.hear(st.level, r.now)
			}
			in.sampled.loudness = max(in.sampled.loudness, 128-st.level)
		case id == s.Ext.TWCC && len(value) == 2:
			if in.arrivals == nil {
				in.arrivals = new(arrivals)
			}
			in.arrivals.record(uint16(value[0])<<8|uint16(value[1]), h.ssrc, r.now)
		case id == s.Ext.RID && !st.repair || id == s.Ext.RepairRID && st.repair:
			if st.rid == "" && len(value) > 0 {
				st.rid, told = string(value), true
			}
		}
		if kind, ok := kindOf(&s.passed, id); ok && (needed&(1<<kind) != 0 || kind == kindDependency) &&
			seen&(1<<kind) == 0 && len(r.elements)-begin+2+len(value) <= maxElements {
			seen |= 1 << kind // a second one is not passed on
			r.elements = append(append(r.elements, kind, uint8(len(value))), value...)
		}
	})
	p.elements = r.elements[begin:len(r.elements):len(r.elements)]
	return heard, told
}

// queue adds a packet to its publication's run.
func (r *reader) queue(pub *Publication, p packet) {
	i := len(r.packets)
	r.packets = append(r.packets, p)
	for k := len(r.runs) - 1; k >= 0; k-- {
		if run := &r.runs[k]; run.pub == pub {
			r.packets[run.last].next = i
			run.last = i
			run.n++
			return
		}
	}
	r.runs = append(r.runs, run{pub: pub, first: i, last: i, n: 1})
}

// Flush sends the packets of the batch to those who subscribed to them. What is in the outgoing batch
// for other reasons netio sends after it.
func (r *reader) Flush() {
	if len(r.runs) > 0 {
		begin := r.plane.clock()
		for i := range r.runs {
			r.fanOut(&r.runs[i])
			r.runs[i].pub.askKeyframe(r.out, r.now, &r.counts)
			r.rtcp = r.runs[i].pub.askMissing(r.out, r.now, r.rtcp, &r.counts)
			end := r.plane.clock()
			if h := r.runs[i].pub.cfg.WriteTime; h != nil {
				h.observe(end-begin, r.runs[i].n)
			}
			begin = end
		}
		if n := len(r.packets); n > 0 {
			r.out.Flush()
			took := r.plane.clock() - r.now
			r.plane.transit.observe(took, n)
			r.plane.stayed(took)
		}
		clear(r.runs)
		clear(r.packets)
		r.runs, r.packets = r.runs[:0], r.packets[:0]
	}
	r.elements, r.spill = r.elements[:0], r.spill[:0] // also those of packets that were dropped
	if r.now != 0 {
		r.plane.counts.add(&r.counts)
	}
	r.now, r.peer = 0, nil
}

// fanOut writes the packets of one publication, receiver by receiver: packets to one destination
// that follow each other leave in one system call.
func (r *reader) fanOut(run *run) {
	pub := run.pub
	pub.fanning.Lock()
	defer pub.fanning.Unlock()
	subs := *pub.subs.Load()
	if len(subs) > 0 && pub.needed.Load()&needHistory != 0 {
		r.keep(run)
	}
	for len(subs) > 0 {
		to := r.destinations[:r.aim(subs)]
		for i := range to {
			r.serve(&to[i], run)
		}
		clear(to)
		subs = subs[min(len(subs), len(r.destinations)):]
	}
}

// destination is where packets of a subscription go to.
type destination struct {
	sub     *Subscription
	path    netio.Path
	fetched byte // of the sealer, for nothing but to have it near
}

// aim finds out where the first of subs are to be sent to, as many as there is room for, and returns
// how many have somewhere. All are asked before anything is written for the first of them: a voice
// comes so seldom that what it needs of a receiver lies in memory, and so the processor fetches it
// for many at a time.
func (r *reader) aim(subs []*Subscription) (n int) {
	for _, sub := range subs[:min(len(subs), len(r.destinations))] {
		path := sub.peer.path.Load()
		if path == nil || sub.closed.Load() {
			continue
		}
		d := &r.destinations[n]
		d.sub, d.path = sub, *path
		if s := sub.sealer; s != nil {
			d.fetched = s.salt[0]
		}
		n++
	}
	return n
}

// serve sends a receiver what it is to have of a run.
func (r *reader) serve(to *destination, run *run) {
	sub := to.sub
	r.sent, r.octets = 0, 0
	if sub.view != nil {
		r.showRun(sub, to.path, run)
	} else {
		r.play(sub, to.path, run)
	}
	sub.packets.Add(r.sent)
	sub.octets.Add(r.octets)
	r.counts.PacketsOut += r.sent
}

// play sends a receiver the packets of a sound.
func (r *reader) play(sub *Subscription, path netio.Path, run *run) {
	for i := run.first; ; {
		p := &r.packets[i]
		if sub.accepts(p.number) {
			s := sent{number: uint32(p.number), source: uint32(p.number), timestamp: p.timestamp, marker: p.marker}
			sub.send(r, path, p, &s)
		}
		if i = p.next; i == 0 {
			return
		}
	}
}

// showRun sends a receiver what it is to have of the packets of a video.
func (r *reader) showRun(sub *Subscription, path netio.Path, run *run) {
	v, want := sub.view, unpackTarget(sub.target.Load())
	caughtUp := false
	if !v.started && !v.caught && r.brings(run, want) {
		// Only now it shows whether the history goes up to here: it keeps nothing while nobody watches.
		v.caught, caughtUp = true, r.catchUp(sub, path, want)
	}
	for i := run.first; !caughtUp; {
		p, before := &r.packets[i], v.now.layer
		r.show(sub, path, p, want)
		if v.now.layer >= 0 && v.now.layer != before {
			r.overtaken(sub, path, p, want)
		}
		if i = p.next; i == 0 {
			break
		}
	}
	if now := v.now.pack(); now != sub.current.Load() {
		sub.current.Store(now)
	}
	if clock := v.clock(); clock != sub.clock.Load() {
		sub.clock.Store(clock)
	}
	if bps := sub.padding.Load(); bps > 0 {
		r.pad(sub, path, bps)
	}
}

// brings reports whether there is a packet of the layer that is wanted in a run.
func (r *reader) brings(run *run, want target) bool {
	for i := run.first; ; {
		p := &r.packets[i]
		if int8(p.layer) == want.layer {
			return true
		}
		if i = p.next; i == 0 {
			return false
		}
	}
}

// show sends a receiver packet p of a video, unless it is to be left out.
func (r *reader) show(sub *Subscription, path netio.Path, p *packet, want target) {
	v := sub.view
	if l := int8(p.layer); l != v.now.layer && l == want.layer && v.enters(p, r.now) && !r.complete(sub.pub.layers[l].history, p) {
		return // a beginning that is so late that what follows it is lost
	}
	switch v.choose(p, want, r.now) {
	case forward:
		var s sent
		if v.number(p, &s) {
			sub.send(r, path, p, &s)
			if p.number == v.newest {
				v.ended = s.marker != 0
			}
		} else {
			r.counts.drop(DropLate)
		}
	case leave:
		if number, hole := v.omit(p); hole {
			r.fill(sub, path, p, number)
		}
	}
}

// overtaken sends a receiver that has just begun to be sent a layer with p those packets after p
// that came before it. Else the keyframe would never be complete.
func (r *reader) overtaken(sub *Subscription, path netio.Path, p *packet, want target) {
	h := sub.pub.layers[p.layer].history
	if h == nil {
		return
	}
	for n := p.number + 1; n <= h.newest; n++ {
		if q := h.find(uint32(n)); q != nil && !r.follows(p, q) {
			r.show(sub, path, q, want)
		}
	}
}

// complete reports whether those packets after p that came before it are there, without a gap.
func (r *reader) complete(h *history, p *packet) bool {
	if h == nil {
		return true
	}
	late := false // something came before p
	for n := h.newest; n > p.number; n-- {
		q := h.find(uint32(n))
		switch {
		case late && (q == nil || h.newest-n >= uint64(len(h.packets))/2):
			return false
		case !late:
			late = q != nil && !r.follows(p, q)
		}
	}
	return true
}

// follows reports whether q is among the packets of the run after p.
func (r *reader) follows(p, q *packet) bool {
	for i := p.next; i != 0; i = r.packets[i].next {
		if next := &r.packets[i]; next.layer == q.layer && next.number == q.number {
			return true
		}
	}
	return false
}

// keep copies the packets of a run into the histories of their layers, as far as somebody is
// there to see them. It is called with the publication's fanning held.
func (r *reader) keep(run *run) {
	pub := run.pub
	watched := uint8(1)
	if len(pub.layers) > 1 {
		watched = pub.watched()
	}
	for i := run.first; ; {
		p := &r.packets[i]
		if watched&(1<<p.layer) != 0 {
			l := pub.layers[p.layer]
			if l.history == nil {
				l.history = newHistory(pub.peer.plane.history)
			}
			l.history.keep(p)
			if p.desc.Keyframe && (l.begin == 0 || p.timestamp != l.beginTS) {
				l.begin, l.began, l.beginTS = p.number, r.now, p.timestamp
			}
		}
		if i = p.next; i == 0 {
			return
		}
	}
}

// refusal returns why pion/srtp did not decrypt a packet.
func refusal(err error) Drop {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
		return DropAuth
	}
	return DropReplay
}
