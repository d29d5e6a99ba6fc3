package rtctest

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
)

const (
	askAfter  = 500 * time.Millisecond // that a frame has not become decodable, or again
	askWithin = time.Second            // of a packet: who sends nothing is asked for nothing
	lookEvery = 100 * time.Millisecond

	keepFrames = 10 * time.Second // that others may refer to
)

// frameKey names a frame of a camera.
type frameKey struct {
	salt  uint16
	layer uint8
	frame uint32
}

// viewing is the reception of one track.
type viewing struct {
	codec        string
	ssrc         uint32
	dependencyID uint8
	repeats      bool // what is lost is asked for
	missing      asker

	mu     sync.Mutex
	since  time.Time
	source string

	// Sequence numbers, counted on from 1<<16 plus the first.
	newest  int64
	seen    map[int64]bool // true: of nothing but padding
	horizon int64          // all up to here is settled
	marks   []numberAt     // newest numbers of the last second
	rate    [11]tenthBytes // of a tenth of a second each

	view   View // counters
	frames map[frameKey]*frame
	order  []*frame // not settled yet, as they came
	old    []*frame // settled, for others to refer to
	stuck  []*frame // complete but not decodable yet
	checks checks
	shown  struct {
		number  int64
		salt    uint16
		layer   uint8
		picture uint32
	}
	begin   int64 // of the first frame that was decodable
	freezes freezes

	lastPacket, lastAsk time.Time
	wantKey             bool // nothing to decode has come yet

	report struct {
		known     bool
		ntp       time.Time
		timestamp uint32
	}
	latest struct {
		timestamp uint32
		captured  int64
	}
}

type numberAt struct {
	number int64
	at     time.Time
}

// tenthBytes counts bytes of a tenth of a second.
type tenthBytes struct {
	tenth int64
	bytes int
}

func newViewing(mime string, ssrc uint32, dependencyID uint8) *viewing {
	return &viewing{
		codec: mime, ssrc: ssrc, dependencyID: dependencyID,
		seen: make(map[int64]bool), frames: make(map[frameKey]*frame), wantKey: true,
	}
}

// viewName is under which name a track is viewed: sender and source, with the rid if it has one.
func viewName(remote *webrtc.TrackRemote) string {
	name := remote.StreamID() + "/video"
	if parts := strings.Split(remote.ID(), "_"); len(parts) == 3 {
		name = parts[1] + "/" + parts[0]
	}
	if rid := remote.RID(); rid != "" {
		name += "/" + rid
	}
	return name
}

// Viewed returns what came of a video so far. The source is the type that the track's id says,
// "video" or "screen"; for tracks that do not come from a server the sender is the stream id and
// the source "video", followed by "/" and the rid of a simulcast.
func (e *Endpoint) Viewed(sender, source string) View {
	e.mu.Lock()
	all := e.views[sender+"/"+source]
	e.mu.Unlock()
	if len(all) == 0 {
		return View{Layer: -1, Spatial: -1, Temporal: -1}
	}
	view := all[len(all)-1].snapshot(time.Now())
	view.Tracks = len(all)
	return view
}

// AwaitView waits until ok holds of a view. It looks every 50 ms, since a view changes with time
// even if nothing comes.
func (e *Endpoint) AwaitView(ctx context.Context, sender, source string, ok func(View) bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		view := e.Viewed(sender, source)
		if ok(view) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("view of %s of %s is %+v: %w", source, sender, view, ctx.Err())
		}
	}
}

// watch reads a video until it ends.
func (e *Endpoint) watch(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	dependencyID := uint8(0)
	for _, ext := range receiver.GetParameters().HeaderExtensions {
		if ext.URI == ExtDependency {
			dependencyID = uint8(ext.ID)
		}
	}
	v := newViewing(remote.Codec().MimeType, uint32(remote.SSRC()), dependencyID)
	v.repeats = repeats(remote)
	name := viewName(remote)
	e.mu.Lock()
	if e.views == nil {
		e.views = make(map[string][]*viewing)
	}
	e.views[name] = append(e.views[name], v)
	e.mu.Unlock()

	ended, end := context.WithCancel(e.ctx)
	e.wg.Go(func() { e.readReports(v, remote, receiver) })
	e.wg.Go(func() { e.look(ended, v) })
	e.wg.Go(func() {
		defer end()
		b := make([]byte, 1<<16)
		plain := true // nothing of a camera has come
		for first := true; ; first = false {
			n, attributes, err := remote.Read(b)
			if err != nil {
				return
			}
			var p rtp.Packet
			if err := p.Unmarshal(b[:n]); err != nil {
				e.fault(fmt.Errorf("RTP %x: %w", b[:min(n, 40)], err))
				continue
			}
			now := time.Now()
			if v.repeats {
				v.missing.arrived(p.SequenceNumber, now)
				e.ask(&v.missing, v.ssrc, now)
			}
			var s stamp
			stamped, intact := s.parse(p.Payload)
			plain = plain && !stamped
			if plain && len(p.Payload) > 0 {
				e.packet(remote, &p, first)
				continue
			}
			repaired := attributes.Get(webrtc.AttributeRtxSsrc) != nil
			if v.packet(&p, n, &s, intact, repaired, now) {
				e.askKeyframe(v)
			}
		}
	})
}

// look settles what has come and asks for keyframes that are due, until ctx is done.
func (e *Endpoint) look(ctx context.Context, v *viewing) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if v.repeats {
				e.ask(&v.missing, v.ssrc, now)
			}
			if v.tick(now) {
				e.askKeyframe(v)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (e *Endpoint) askKeyframe(v *viewing) {
	// A connection that is closed already is not asked.
	_ = e.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: v.ssrc}})
}

// readReports reads the RTCP of a track until it ends.
func (e *Endpoint) readReports(v *viewing, remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	b := make([]byte, 1500)
	for {
		var n int
		var err error
		if rid := remote.RID(); rid != "" {
			n, _, err = receiver.ReadSimulcast(b, rid)
		} else {
			n, _, err = receiver.Read(b)
		}
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(b[:n])
		if err != nil {
			e.fault(fmt.Errorf("RTCP %x: %w", b[:n], err))
			continue
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == v.ssrc {
				v.mu.Lock()
				v.report.known, v.report.ntp, v.report.timestamp = true, ntpTime(sr.NTPTime), sr.RTPTime
				v.mu.Unlock()
			}
		}
	}
}

// ntpTime converts an NTP timestamp of 64 bits (RFC 3550 section 4).
func ntpTime(ntp uint64) time.Time {
	const since1900 = 2208988800
	seconds := int64(ntp>>32) - since1900
	return time.Unix(seconds, int64((ntp&0xffffffff)*uint64(time.Second)>>32))
}

// packet takes a packet of size bytes. It reports whether a keyframe is to be asked for at once.
func (v *viewing) packet(p *rtp.Packet, size int, s *stamp, intact, repaired bool, now time.Time) (ask bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	begun := len(v.seen) > 0
	if !begun {
		v.since = now
	}
	tenth := now.UnixNano() / int64(lookEvery)
	slot := &v.rate[tenth%int64(len(v.rate))]
	if slot.tenth != tenth {
		*slot = tenthBytes{tenth: tenth}
	}
	slot.bytes += size
	v.view.Bytes += size
	v.lastPacket = now

	number, fresh := v.number(p.SequenceNumber, begun)
	if !fresh {
		v.view.Duplicates++
		return false
	}
	if repaired {
		v.view.Repaired++
	}
	if len(p.Payload) == 0 {
		v.view.Padding++
		v.seen[number] = true
		return false
	}
	v.view.Packets++
	if !intact {
		v.view.Bad++
		return false
	}
	if v.source == "" {
		v.source = s.source
	}
	if s.source != v.source {
		v.view.Foreign++
	}
	v.frame(p, number, s, now)
	if v.wantKey && v.lastAsk.IsZero() && !s.keyframe {
		v.lastAsk = now
		v.view.Asked++
		return true
	}
	return false
}

// number counts a sequence number on, and reports whether it is new.
func (v *viewing) number(sequence uint16, begun bool) (number int64, fresh bool) {
	if !begun {
		v.newest = 1<<16 + int64(sequence)
		v.horizon = v.newest - 1
		v.seen[v.newest] = false
		return v.newest, true
	}
	step := int64(int16(sequence - uint16(v.newest)))
	number = v.newest + step
	if step > 1000 || step < -1000 {
		v.view.Jumps++
	}
	if _, seen := v.seen[number]; seen {
		return number, false
	}
	v.seen[number] = false
	v.newest = max(v.newest, number)
	if number <= v.horizon && v.view.Missing > 0 && number > 0 {
		v.view.Missing--
	}
	return number, true
}

// frame takes an intact packet of a frame.
func (v *viewing) frame(p *rtp.Packet, number int64, s *stamp, now time.Time) {
	key := frameKey{s.salt, s.layer, s.frame}
	f := v.frames[key]
	if f == nil {
		f = &frame{
			stamp: *s, first: number, last: number, arrived: now, timestamp: p.Timestamp,
			got: make([]bool, s.packets), left: int(s.packets),
		}
		v.frames[key] = f
		v.order = append(v.order, f)
		v.latest.timestamp, v.latest.captured = p.Timestamp, s.captured
	}
	f.first, f.last = min(f.first, number), max(f.last, number)
	if int(s.packet) >= len(f.got) || f.got[s.packet] || p.Timestamp != f.timestamp {
		f.mixed = true
		return
	}
	f.got[s.packet] = true
	f.left--
	f.describe(v.codec, p.Payload)
	if v.dependencyID != 0 {
		if ext := p.GetExtension(v.dependencyID); len(ext) >= 3 {
			f.dependency, f.hasDD = binary.BigEndian.Uint16(ext[1:]), true
			f.structured = f.structured || s.packet == 0 && len(ext) > 3 && ext[3]&0x80 != 0
		}
	}
	if f.left > 0 {
		return
	}
	if f.keyframe {
		v.view.Keyframes++
	}
	if f.counted {
		v.view.Complete++ // late
	}
	v.stuck = append(v.stuck, f)
	for progress := true; progress; {
		progress = false
		rest := v.stuck[:0]
		for _, f := range v.stuck {
			if !v.referencesDecodable(f) {
				rest = append(rest, f)
				continue
			}
			f.decodable, progress = true, true
			if f.counted {
				v.view.Decodable++
			}
			v.show(f, now)
		}
		clear(v.stuck[len(rest):])
		v.stuck = rest
	}
}

// describe notes what the payload descriptor says.
func (f *frame) describe(mime string, payload []byte) {
	var id uint16
	var level uint8
	var hasLevel bool
	switch {
	case strings.EqualFold(mime, webrtc.MimeTypeVP8):
		var d codecs.VP8Packet
		if _, err := d.Unmarshal(payload); err != nil || d.I == 0 {
			f.mixed = true
			return
		}
		id, level, hasLevel = d.PictureID, d.TL0PICIDX, d.L == 1
		if hasLevel && d.TID != f.temporal {
			f.mixed = true
		}
	case strings.EqualFold(mime, webrtc.MimeTypeVP9):
		var d codecs.VP9Packet
		if _, err := d.Unmarshal(payload); err != nil || !d.I {
			f.mixed = true
			return
		}
		id, level, hasLevel = d.PictureID, d.TL0PICIDX, d.L && !d.F
		if d.L && (d.TID != f.temporal || d.SID != f.spatial) {
			f.mixed = true
		}
	default:
		return
	}
	if f.described && (f.pictureID != id || f.level != level) {
		f.mixed = true
	}
	f.described, f.pictureID, f.level, f.hasLevel = true, id, level, hasLevel
}

func (v *viewing) referencesDecodable(f *frame) bool {
	for _, ref := range f.refs {
		if ref == 0 {
			continue
		}
		to := v.frames[frameKey{f.salt, f.layer, f.frame - uint32(ref)}]
		if to == nil || !to.decodable {
			return false
		}
	}
	return true
}

// show notes a frame that has become decodable, if it is not older than what is shown.
func (v *viewing) show(f *frame, now time.Time) {
	s := &v.shown
	if v.wantKey {
		v.wantKey = false
		v.begin, v.view.FirstShow = f.first, now
	}
	if f.first < s.number {
		return
	}
	if s.number == 0 || f.picture != s.picture || f.layer != s.layer || f.salt != s.salt {
		v.freezes.show(now)
	}
	s.number, s.salt, s.layer, s.picture = f.first, f.salt, f.layer, f.picture
}

// tick settles what came more than a second ago. It reports whether a keyframe is to be asked for.
func (v *viewing) tick(now time.Time) (ask bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) == 0 {
		return false
	}
	v.marks = append(v.marks, numberAt{v.newest, now})
	for len(v.marks) > 0 && now.Sub(v.marks[0].at) >= settled {
		for v.horizon < v.marks[0].number {
			v.horizon++
			if _, ok := v.seen[v.horizon]; !ok {
				v.view.Missing++
			}
		}
		v.marks = v.marks[1:]
	}
	due := 0
	for due < len(v.order) && now.Sub(v.order[due].arrived) >= settled {
		due++
	}
	ready := append([]*frame(nil), v.order[:due]...)
	v.order = append(v.order[:0], v.order[due:]...)
	for _, f := range bySequence(ready) {
		v.check(&v.checks, f)
		v.count(f)
		v.old = append(v.old, f)
	}
	for len(v.old) > 64 && now.Sub(v.old[0].arrived) > keepFrames {
		f := v.old[0]
		delete(v.frames, frameKey{f.salt, f.layer, f.frame})
		v.old = v.old[1:]
	}
	for len(v.stuck) > 0 && now.Sub(v.stuck[0].arrived) > keepFrames {
		v.stuck = v.stuck[1:]
	}
	if now.Sub(v.lastAsk) < askAfter || now.Sub(v.lastPacket) > askWithin || !v.stalled(now) {
		return false
	}
	v.lastAsk = now
	v.view.Asked++
	return true
}

// count counts a settled frame.
func (v *viewing) count(f *frame) {
	if v.shown.number == 0 || f.first < v.begin {
		v.view.Early++
		return
	}
	f.counted = true
	v.view.Frames++
	if f.left == 0 {
		v.view.Complete++
	}
	if f.decodable {
		v.view.Decodable++
	}
}

// stalled reports whether a frame that is newer than what is shown has not become decodable.
func (v *viewing) stalled(now time.Time) bool {
	for _, f := range v.order {
		if !f.decodable && f.first > v.shown.number && now.Sub(f.arrived) >= askAfter {
			return true
		}
	}
	return false
}

// check goes on to the next frame in the order of sequence numbers. One that was repaired so late that
// frames after it have been looked at is not.
func (v *viewing) check(c *checks, f *frame) {
	if c.begun && f.first < c.prev.first {
		return
	}
	adjacent := c.begun && f.first > c.prev.last
	for n := c.prev.last + 1; adjacent && n < f.first; n++ {
		adjacent = v.seen[n] // else it is lost, or of a frame that comes too late to be looked at
	}
	// Its beginning and the end of the one before may be missing too.
	adjacent = adjacent && f.got[0] && c.prev.got[len(c.prev.got)-1]
	c.frame(f, adjacent)
}

// snapshot is the view at a time.
func (v *viewing) snapshot(now time.Time) View {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.checks
	if !c.begun {
		c.view.Layer, c.view.Spatial, c.view.Temporal = -1, -1, -1
	}
	for _, f := range bySequence(append([]*frame(nil), v.order...)) {
		v.check(&c, f)
	}
	out := c.view // what the checks find, and the counters
	n := &v.view
	out.Source, out.Codec, out.SSRC, out.Since = v.source, v.codec, v.ssrc, v.since
	out.Packets, out.Bytes, out.Padding, out.Repaired = n.Packets, n.Bytes, n.Padding, n.Repaired
	out.Duplicates, out.Missing, out.Jumps, out.Bad, out.Foreign = n.Duplicates, n.Missing, n.Jumps, n.Bad, n.Foreign
	out.Early, out.Frames, out.Complete, out.Decodable = n.Early, n.Frames, n.Complete, n.Decodable
	out.Keyframes, out.FirstShow = n.Keyframes, n.FirstShow
	out.Asked = n.Asked
	out.Pictures, out.LastShow = v.freezes.pictures, v.freezes.last
	out.Freezes, out.Frozen = v.freezes.at(now)
	tenth := now.UnixNano() / int64(lookEvery)
	for _, b := range v.rate {
		if b.tenth < tenth && b.tenth >= tenth-10 {
			out.Bitrate += b.bytes * 8
		}
	}
	if v.report.known && v.latest.captured != 0 {
		reported := v.report.ntp.Add(time.Duration(int32(v.latest.timestamp-v.report.timestamp)) * time.Second / videoClock)
		out.Offset, out.OffsetKnown = reported.Sub(time.UnixMicro(v.latest.captured)), true
	}
	return out
}
