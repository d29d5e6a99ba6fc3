package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"rtcd/service/rtc/codec"
	"rtcd/service/rtc/codec/codectest"
)

// style is what a fuzzed video is made of.
type style struct {
	name   string
	codec  codec.Codec
	mime   string
	mode   codectest.Mode
	rids   []string
	dd     bool // with dependency descriptors
	short  bool // picture ids of 7 bits
	opaque bool // encrypted from end to end
}

var styles = []style{
	{name: "VP8", codec: codec.VP8, mime: "video/VP8", mode: codectest.L1T3, rids: []string{"l", "m", "h"}},
	{name: "VP9 SVC", codec: codec.VP9, mime: "video/VP9", mode: codectest.L3T3},
	{name: "H264", codec: codec.H264, mime: "video/H264", mode: codectest.L1T1, rids: []string{"l", "m", "h"}},
	{name: "AV1", codec: codec.AV1, mime: "video/AV1", mode: codectest.L1T3, rids: []string{"l", "m", "h"}, dd: true},
	{name: "AV1 SVC", codec: codec.AV1, mime: "video/AV1", mode: codectest.L3T3, dd: true},
	{name: "AV1 SVC, keys", codec: codec.AV1, mime: "video/AV1", mode: codectest.L3T3Key, dd: true},
	{name: "opaque", codec: codec.VP8, mime: "video/VP8", mode: codectest.L1T1, rids: []string{"l", "m", "h"}, opaque: true},
	{name: "VP8, short ids", codec: codec.VP8, mime: "video/VP8", mode: codectest.L1T1, rids: []string{"l", "h"}, short: true},
}

// phases of temporal layers: how many pictures back the one is that a picture refers to, by how far
// it is from the keyframe. They are those of codectest.
var phases = []struct {
	temporal uint8
	back     int
}{{0, 4}, {2, 1}, {1, 2}, {2, 1}}

// shownFrame is a frame of one layer as the fuzzed sender made it.
type shownFrame struct {
	layer             int // stream
	n                 int // of the stream
	spatial, temporal uint8
	key               bool // its picture is a keyframe's
	refs              []*shownFrame
	packets           int
	touched           bool // a packet was lost, late or muted
	begins            bool // the first one of its source
	source            int  // of the layer, counted
}

// shownPacket is one of its packets.
type shownPacket struct {
	*rtp.Packet
	frame *shownFrame
	id    int
	first bool
	late  bool
	lost  bool // never delivered, or when nobody could use it
	order int  // in the stream
	muted bool
}

// shownStream is one stream of the fuzzed sender.
type shownStream struct {
	index    int
	rid      string
	ssrc     uint32
	repair   uint32
	seq, rtx uint16
	ts       uint32
	picture  uint16
	tl0      uint8
	writer   *codectest.Writer
	since    int // pictures since the keyframe
	pictures [][]*shownFrame
	frames   int
	packets  int
	source   int
	fresh    bool // its encoder has just begun
}

// show is a fuzzed sender with its receivers.
type show struct {
	*rig
	style
	speaker   *endpoint
	pub       *Publication
	streams   []*shownStream
	packets   []*shownPacket
	delayed   []*shownPacket
	receivers []*shownReceiver
	muted     bool
	restarts  int
	trouble   bool // something was lost, late, muted or restarted
	asked     []askedKeyframe
	unproven  map[[2]int]bool // layers and sources whose first keyframe was not there as a whole
}

// askedKeyframe is a PLI to the sender.
type askedKeyframe struct {
	ssrc uint32
	at   time.Duration
}

// shownReceiver is one of the receivers, and what it got.
type shownReceiver struct {
	*endpoint
	cfg   SubscriptionConfig
	sub   *Subscription
	dec   *srtp.Context // without protection against replay
	plain map[uint64][]byte
	got   map[uint16]*rtp.Packet // media and padding by number
	first uint16
	any   bool

	media, again, padding int // bytes
}

func newShow(t testing.TB, s style, start uint16) *show {
	r := newRig(t)
	r.plane.history = 64
	sh := &show{rig: r, style: s, speaker: r.endpoint(gcm), unproven: make(map[[2]int]bool)}
	sh.speaker.peer.SetUplinks([]Uplink{{
		MID: "0", RIDs: s.rids,
		Codecs: []Codec{
			{PayloadType: vp8, Mime: s.mime, ClockRate: 90000},
			{PayloadType: rtx, Mime: "video/rtx", ClockRate: 90000, Repairs: vp8},
		},
		Ext: Extensions{RID: extRID, RepairRID: extRID + 1, TWCC: extTWCC, Dependency: extDD},
	}})
	sh.pub = sh.speaker.publish(PublicationConfig{Source: Camera, Codec: s.codec, RIDs: s.rids})
	rids := s.rids
	if rids == nil {
		rids = []string{""}
	}
	for i, rid := range rids {
		st := &shownStream{
			index: i, rid: rid, ssrc: uint32(0x100 + i), repair: uint32(0x200 + i), seq: start + uint16(1000*i),
			ts: uint32(start) << 16, picture: start, tl0: uint8(start),
		}
		st.writer = codectest.NewWriter(s.mode, start)
		sh.streams = append(sh.streams, st)
	}
	sh.join(SubscriptionConfig{PayloadType: 96})
	sh.join(SubscriptionConfig{
		PayloadType: 97, Ext: Extensions{TWCC: 5, MID: 6, Dependency: 8}, MID: "v1", Repair: 0x888, RepairPayloadType: 98,
	})
	return sh
}

func (sh *show) join(cfg SubscriptionConfig) {
	e := sh.endpoint(gcm)
	v := &shownReceiver{endpoint: e, cfg: cfg, plain: make(map[uint64][]byte), got: make(map[uint16]*rtp.Packet)}
	keys := testKeys(gcm, sh.made)
	var err error
	v.dec, err = srtp.CreateContext(keys.LocalKey, keys.LocalSalt, gcm)
	e.must(err)
	v.cfg.SSRC = 0x777
	v.sub = e.subscribeAs(sh.pub, v.cfg)
	sh.receivers = append(sh.receivers, v)
}

// picture makes the next picture of a stream.
func (sh *show) picture(st *shownStream, key bool) (made []*shownPacket) {
	key = key || len(st.pictures) == 0 || st.fresh
	begins := len(st.pictures) == 0 || st.fresh
	st.fresh = false
	if key {
		st.since = 0
	} else {
		st.since++
	}
	phase := phases[0]
	if sh.mode != codectest.L1T1 {
		phase = phases[st.since%4]
	} else {
		phase.back = 1
	}
	spatials := 1
	if sh.mode == codectest.L3T3 || sh.mode == codectest.L3T3Key {
		spatials = 3
	}
	st.picture++
	if phase.temporal == 0 {
		st.tl0++
	}
	st.ts += 3000
	described := st.writer.Picture(key)
	var frames []*shownFrame
	for s := range spatials {
		f := &shownFrame{
			layer: st.index, n: st.frames, spatial: uint8(s), temporal: phase.temporal, key: key, packets: 2, source: st.source,
			begins: begins,
		}
		st.frames++
		if sh.codec == codec.H264 {
			f.packets = 1
		}
		if !key {
			if back := len(st.pictures) - phase.back; back >= 0 {
				f.refs = append(f.refs, st.pictures[back][s])
			}
		}
		if s > 0 && (key || sh.mode == codectest.L3T3) {
			f.refs = append(f.refs, frames[s-1])
		}
		frames = append(frames, f)
		for i := range f.packets {
			last := i == f.packets-1
			p := &rtp.Packet{Header: rtp.Header{
				Version: 2, PayloadType: vp8, SequenceNumber: st.seq, Timestamp: st.ts, SSRC: st.ssrc,
				Marker: last && s == spatials-1,
			}}
			p.Extension, p.ExtensionProfile = true, profileTwoByte
			sh.speaker.must(p.SetExtension(extTWCC, binary.BigEndian.AppendUint16(nil, uint16(len(sh.packets)))))
			if st.rid != "" {
				sh.speaker.must(p.SetExtension(extRID, []byte(st.rid)))
			}
			if sh.dd {
				sh.speaker.must(p.SetExtension(extDD, described[s].Packet(i == 0, last)))
			}
			sp := &shownPacket{Packet: p, frame: f, id: len(sh.packets), first: i == 0, order: st.packets}
			p.Payload = sh.payload(st, sp, last)
			st.seq++
			st.packets++
			sh.packets = append(sh.packets, sp)
			made = append(made, sp)
		}
	}
	st.pictures = append(st.pictures, frames)
	return made
}

func (sh *show) payload(st *shownStream, p *shownPacket, last bool) []byte {
	body := bytes.Repeat([]byte{byte(p.id)}, 40+p.id%7)
	body = binary.BigEndian.AppendUint32(body, uint32(p.id))
	f := p.frame
	frame := codectest.Frame{
		Keyframe: f.key && f.spatial == 0, Picture: st.picture & 0x7fff, ShortID: sh.short, Layers: sh.mode != codectest.L1T1,
		TL0: st.tl0, Temporal: f.temporal, Spatial: f.spatial, Inter: f.spatial > 0, Predicted: !f.key,
		First: p.first, Last: last, Body: body,
	}
	switch {
	case sh.opaque:
		for i := range body[:40] {
			body[i] = byte(uint32(i*7919+p.id) * 2654435761 >> 13)
		}
		return body
	case sh.codec == codec.VP8:
		frame.Sync = f.temporal > 0 && st.since%4 != 3
		return codectest.VP8(frame)
	case sh.codec == codec.VP9:
		frame.Sync, frame.Spatials = f.temporal > 0 && st.since%4 != 3, 3
		return codectest.VP9(frame)
	case sh.codec == codec.H264:
		return codectest.H264(frame.Keyframe, body)
	}
	return codectest.AV1(frame.Keyframe, body)
}

// deliver lets the plane receive packets in one batch.
func (sh *show) deliver(packets ...*shownPacket) {
	for _, p := range packets {
		if p.muted = sh.muted; p.muted {
			sh.touch(p.frame)
		}
		sh.read.Receive(sh.speaker.seal(p.Packet), sh.speaker.path)
	}
	sh.flush()
	sh.collect()
}

// touch notes that a frame was not delivered in order.
func (sh *show) touch(f *shownFrame) {
	f.touched = true
	if st := sh.streams[f.layer]; f.begins {
		sh.unproven[[2]int{st.index, f.source}] = true
	}
}

// mend lets the plane receive p in the repair stream.
func (sh *show) mend(p *shownPacket) {
	st := sh.streams[p.frame.layer]
	if p.SSRC != st.ssrc {
		return
	}
	q := p.Packet.Clone()
	q.SSRC, q.PayloadType, q.SequenceNumber = st.repair, rtx, st.rtx
	st.rtx++
	q.Payload = append(binary.BigEndian.AppendUint16(nil, p.SequenceNumber), p.Payload...)
	if st.rid != "" {
		sh.speaker.must(q.DelExtension(extRID))
		sh.speaker.must(q.SetExtension(extRID+1, []byte(st.rid)))
	}
	sh.read.Receive(sh.speaker.seal(q), sh.speaker.path)
	sh.flush()
	sh.collect()
}

// collect takes what receivers were sent, and checks what can be checked at once.
func (sh *show) collect() {
	_, told := sh.speaker.sent()
	for _, p := range find[*rtcp.PictureLossIndication](told) {
		sh.asked = append(sh.asked, askedKeyframe{p.MediaSSRC, sh.plane.clock()})
	}
	for i, v := range sh.receivers {
		for _, b := range sh.take(v.path) {
			if isRTCP(b) {
				continue
			}
			plain, err := v.dec.DecryptRTP(nil, b, nil)
			if err != nil {
				sh.t.Fatalf("receiver %d: decrypt %x: %v", i, b[:12], err)
			}
			v.receive(i, plain)
		}
	}
}

func (v *shownReceiver) receive(i int, plain []byte) {
	v.t.Helper()
	p := new(rtp.Packet)
	if err := p.Unmarshal(plain); err != nil {
		v.t.Fatalf("receiver %d: %v in %x", i, err, plain)
	}
	key := uint64(p.SSRC)<<16 | uint64(p.SequenceNumber)
	if before, again := v.plain[key]; again && !bytes.Equal(before, plain) {
		v.t.Fatalf("receiver %d: two packets under the nonce of %x/%d:\n%x\n%x", i, p.SSRC, p.SequenceNumber, before, plain)
	}
	switch _, again := v.plain[key]; {
	case again, p.SSRC == v.cfg.Repair && len(p.Payload) > 0:
		v.again += len(plain)
	case len(p.Payload) == 0:
		v.padding += len(plain)
	default:
		v.media += len(plain)
	}
	v.plain[key] = plain
	switch {
	case p.SSRC == v.cfg.SSRC && p.PayloadType == v.cfg.PayloadType:
		if !v.any {
			v.any, v.first = true, p.SequenceNumber
		}
		v.got[p.SequenceNumber] = p
	case v.cfg.Repair != 0 && p.SSRC == v.cfg.Repair && p.PayloadType == v.cfg.RepairPayloadType:
		if len(p.Payload) == 0 {
			return // padding
		}
		of := v.got[binary.BigEndian.Uint16(p.Payload)]
		if of == nil || !bytes.Equal(of.Payload, p.Payload[2:]) || of.Timestamp != p.Timestamp || of.Marker != p.Marker {
			v.t.Fatalf("receiver %d: repaired with %v what was %v", i, p, of)
		}
	default:
		v.t.Fatalf("receiver %d: SSRC %x, payload type %d", i, p.SSRC, p.PayloadType)
	}
}

// masked returns a payload without the numbers that are rewritten.
func (sh *show) masked(b []byte) []byte {
	if b = bytes.Clone(b); len(b) < 5 {
		return b
	}
	at := []int{}
	switch {
	case sh.opaque:
	case sh.codec == codec.VP8 && sh.short:
		at = []int{2}
	case sh.codec == codec.VP8:
		at = []int{2, 3, 4}
	case sh.codec == codec.VP9:
		at = []int{1, 2, 4}
	}
	for _, i := range at {
		b[i] = 0
	}
	return b
}

// of returns the packet that p was made of, nil for padding.
func (sh *show) of(p *rtp.Packet) *shownPacket {
	if len(p.Payload) == 0 {
		return nil
	}
	if id := int(binary.BigEndian.Uint32(p.Payload[len(p.Payload)-4:])); id < len(sh.packets) {
		if was := sh.packets[id]; bytes.Equal(sh.masked(was.Payload), sh.masked(p.Payload)) {
			return was
		}
	}
	sh.t.Fatalf("payload %x was never sent", p.Payload)
	return nil
}

// check checks all that receivers got.
func (sh *show) check() {
	for i, v := range sh.receivers {
		sh.checkReceiver(fmt.Sprintf("%s: receiver %d", sh.name, i), v)
	}
}

func (sh *show) checkReceiver(who string, v *shownReceiver) {
	numbers := make([]uint16, 0, len(v.got))
	for n := range v.got {
		numbers = append(numbers, n)
	}
	slices.SortFunc(numbers, func(a, b uint16) int { return int(int16(a-v.first)) - int(int16(b-v.first)) })
	var before *shownPacket // media
	var last *rtp.Packet    // likewise
	missing := 0
	for k, n := range numbers {
		p := v.got[n]
		if k > 0 {
			missing += int(n - numbers[k-1] - 1)
		}
		of := sh.of(p)
		if of == nil {
			continue
		}
		if before == nil {
			sh.wantEntry(who, of)
		} else {
			sh.wantStep(who, before, of, last, p, missing)
		}
		before, last, missing = of, p, 0
	}
	if !sh.trouble {
		sh.wantDecodable(who, v, numbers)
	}
}

// wantEntry checks that a receiver may go on with p of another layer.
func (sh *show) wantEntry(who string, p *shownPacket) {
	switch {
	case sh.unproven[[2]int{p.frame.layer, p.frame.source}]:
		return
	case !p.first || p.frame.spatial > 0:
	case p.frame.key, sh.opaque, sh.plane.clock() > startAfter+time.Second:
		return
	}
	sh.t.Fatalf("%s: begins with packet %d: %+v", who, p.id, *p.frame)
}

// wantStep checks what follows what.
func (sh *show) wantStep(who string, a, b *shownPacket, was, is *rtp.Packet, missing int) {
	t := sh.t
	if d := int32(is.Timestamp - was.Timestamp); d < 0 || d == 0 && a.Timestamp != b.Timestamp && a.frame.layer == b.frame.layer {
		t.Fatalf("%s: timestamp %d after %d, packets %d and %d", who, is.Timestamp, was.Timestamp, a.id, b.id)
	}
	if a.frame.layer != b.frame.layer {
		sh.wantEntry(who, b)
		if missing != 0 {
			t.Fatalf("%s: %d numbers missing at a change of layers, packets %d and %d", who, missing, a.id, b.id)
		}
	} else {
		gone := 0
		for _, p := range sh.packets[min(a.id, b.id):max(a.id, b.id)] {
			if p.frame.layer == b.frame.layer && (p.lost || p.late) { // late: perhaps when another layer was sent
				gone++
			}
		}
		if missing > gone {
			t.Fatalf("%s: %d numbers missing between packets %d and %d, where %d were lost", who, missing, a.id, b.id, gone)
		}
		if a.order >= b.order && a.frame.source == b.frame.source {
			t.Fatalf("%s: packet %d after %d", who, b.id, a.id)
		}
	}
	if sh.opaque || sh.codec != codec.VP8 && sh.codec != codec.VP9 ||
		sh.unproven[[2]int{a.frame.layer, a.frame.source}] || sh.unproven[[2]int{b.frame.layer, b.frame.source}] {
		return
	}
	sh.wantPictures(who, a, b, was.Payload, is.Payload)
}

// wantPictures checks picture ids.
func (sh *show) wantPictures(who string, a, b *shownPacket, was, is []byte) {
	step := 0
	switch {
	case sh.short:
		step = int(is[2]-was[2]) & 0x7f
	case sh.codec == codec.VP8:
		step = int(binary.BigEndian.Uint16(is[2:])-binary.BigEndian.Uint16(was[2:])) & 0x7fff
	default:
		step = int(binary.BigEndian.Uint16(is[1:])-binary.BigEndian.Uint16(was[1:])) & 0x7fff
	}
	same := a.frame == b.frame || a.frame.layer == b.frame.layer && a.Timestamp == b.Timestamp && a.frame.source == b.frame.source
	if same != (step == 0) || step > 300 { // pictures of a script
		sh.t.Fatalf("%s: picture ids differ by %d, of packets %d and %d", who, step, a.id, b.id)
	}
	if step > 1 && sh.codec == codec.VP8 {
		gone := 1
		for _, st := range sh.streams {
			for _, frames := range st.pictures {
				for _, f := range frames {
					if f.layer == b.frame.layer && f.n > a.frame.n && f.n < b.frame.n && f.touched {
						gone++
					}
				}
			}
		}
		if step > gone {
			sh.t.Fatalf("%s: picture ids %d apart, of packets %d and %d", who, step, a.id, b.id)
		}
	}
}

// wantDecodable checks that each frame is complete and comes with all that it refers to.
func (sh *show) wantDecodable(who string, v *shownReceiver, numbers []uint16) {
	have := make(map[*shownFrame]int)
	blind := false
	for _, n := range numbers {
		of := sh.of(v.got[n])
		if of == nil {
			continue
		}
		have[of.frame]++
		if of.frame.key {
			blind = false
		}
		for _, ref := range of.frame.refs {
			if have[ref] < ref.packets && !blind {
				if sh.plane.clock() > startAfter+time.Second || sh.opaque {
					blind = true
					continue
				}
				sh.t.Fatalf("%s: packet %d, of %+v, came without what it refers to: %+v", who, of.id, *of.frame, *ref)
			}
		}
	}
	for f, n := range have {
		if n != f.packets {
			sh.t.Fatalf("%s: %d packets came of %+v", who, n, *f)
		}
	}
}

// do plays an operation.
func (sh *show) do(op, arg byte) {
	v := sh.receivers[int(arg)%len(sh.receivers)]
	switch op % 16 {
	default:
		sh.pictures(arg)
	case 6, 7, 8:
		if len(sh.delayed) == 0 {
			return
		}
		p := sh.delayed[0]
		sh.delayed = sh.delayed[1:]
		p.lost = p.SSRC != sh.streams[p.frame.layer].ssrc
		if op%16 > 6 {
			sh.mend(p)
		}
		if op%16 != 7 {
			sh.deliver(p)
		}
	case 9:
		t := target{layer: int8(arg>>2)%int8(len(sh.streams)+1) - 1, spatial: arg >> 4 % 4, temporal: arg >> 6 % 3}
		if sh.rids == nil {
			t.layer = min(t.layer, 0)
		}
		v.sub.target.Store(t.pack())
		if t.layer >= 0 {
			sh.pub.layers[t.layer].request()
		}
	case 10:
		var ask []uint16
		for k := range 8 {
			ask = append(ask, v.first+uint16(arg>>2)+uint16(k*3))
		}
		v.nack(v.sub, ask...)
		sh.collect()
	case 11:
		v.sub.padding.Store(int64(arg>>2) * 50_000)
	case 12:
		sh.advance(TickInterval)
		sh.tick()
		sh.collect()
	case 13:
		sh.muted = !sh.muted
		sh.trouble = true
		sh.pub.SetMuted(sh.muted)
	case 14:
		if st := sh.streams[int(arg)%len(sh.streams)]; sh.restarts < 4 {
			sh.restarts++
			sh.trouble = true
			st.ssrc, st.repair = uint32(0x300+sh.restarts), uint32(0x400+sh.restarts)
			st.seq, st.ts, st.picture = uint16(arg)<<8, uint32(arg)<<24, uint16(arg)<<7
			st.source++
			st.fresh = true
			for _, p := range sh.delayed {
				p.lost = true
			}
			sh.delayed = nil
		}
	case 15:
		if arg%2 == 0 {
			sh.advance(time.Duration(arg) * 10 * time.Millisecond)
		} else if len(sh.receivers) < 4 {
			sh.join(SubscriptionConfig{PayloadType: 99, Ext: Extensions{SendTime: 2, Dependency: 3, MID: 1 + arg%3/2}, MID: "receiver"})
		}
	}
}

// pictures makes the next picture of each layer.
func (sh *show) pictures(arg byte) {
	for _, st := range sh.streams {
		made := sh.picture(st, arg&1 != 0 && (arg&2 == 0 || int(arg>>6)%len(sh.streams) == st.index))
		if int(arg>>6)%len(sh.streams) == st.index {
			p := made[int(arg>>4)%len(made)]
			switch arg >> 2 % 4 {
			case 1:
				p.lost, sh.trouble = true, true
				sh.touch(p.frame)
				made = slices.DeleteFunc(made, func(q *shownPacket) bool { return q == p })
			case 2:
				p.lost, p.late, sh.trouble = true, true, true
				sh.touch(p.frame)
				made = slices.DeleteFunc(made, func(q *shownPacket) bool { return q == p })
				sh.delayed = append(sh.delayed, p)
			case 3:
				sh.trouble = true
				slices.Reverse(made)
				for _, q := range made {
					sh.touch(q.frame)
				}
			}
		}
		sh.deliver(made...)
	}
	sh.advance(33 * time.Millisecond)
}

func playScript(t testing.TB, script []byte) {
	if len(script) < 3 {
		return
	}
	sh := newShow(t, styles[int(script[0])%len(styles)], binary.BigEndian.Uint16(script[1:]))
	for ops := script[3:min(len(script), 403)]; len(ops) >= 2; ops = ops[2:] {
		sh.do(ops[0], ops[1])
	}
	sh.check()
}

// FuzzSwitcher plays scripts of packets, in order or not, of targets, mutes and requests over a
// publication with several receivers. What each of them gets has to be a stream as one sender
// would send it.
func FuzzSwitcher(f *testing.F) {
	for s := range styles {
		for _, start := range []uint16{500, 0xfff0, 0x7ff0} {
			script := binary.BigEndian.AppendUint16([]byte{byte(s)}, start)
			add := func(ops ...byte) { script = append(script, ops...) }
			add(0, 1)
			for k := range byte(12) { // rise and fall through all layers
				add(9, k<<2, 9, k<<2|1, 0, 0, 0, k%3&1, 0, 0, 12, 0, 0, 2, 0, 1)
			}
			f.Add(bytes.Clone(script))
			for k := range byte(8) { // with losses, late packets, repairs, requests and padding
				add(0, k<<4|4, 0, k<<4|8, 0, 0, 8, 0, 10, k<<3, 11, 0x81, 0, k<<4|12, 0, 0, 6, 0, 15, 1, 9, k<<4|4, 0, 1)
				add(9, k<<2, 9, k<<2|1, 0, 0, 0, k<<6|13)
			}
			f.Add(bytes.Clone(script))
			add(13, 0, 0, 0, 13, 0, 0, 1, 14, 1, 0, 0, 0, 1, 14, 0, 15, 200, 0, 0, 0, 1)
			f.Add(script)
		}
	}
	f.Fuzz(func(t *testing.T, script []byte) { playScript(t, script) })
}

// FuzzRTP lets a sender with valid keys send any packet at all, among good ones. What receivers
// with all kinds of sections get of it is well-formed, and of their own SSRC; and the good ones get
// through to them.
func FuzzRTP(f *testing.F) {
	for _, s := range styles {
		sh := newShow(f, s, 500)
		for _, p := range sh.picture(sh.streams[0], true) {
			b, err := p.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, uint8(0), true)
			f.Add(append(b, 9), uint8(1), false)
		}
	}
	f.Add([]byte{0x90, vp8, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0x10, 0, 0, 2, extDD, 3, 0xc0, 0, 1, extDD, 1, 0, 1, 2, 3}, uint8(0), true)
	f.Add([]byte{0xb0, rtx, 0, 1, 0, 0, 0, 1, 0, 0, 2, 1, 0xbe, 0xde, 0, 1, 0xa0, 'l', 0, 0, 1, 245, 5, 6, 2}, uint8(0), true)
	f.Fuzz(func(t *testing.T, b []byte, style uint8, batched bool) {
		sh := newShow(t, styles[int(style)%len(styles)], 500)
		sh.join(SubscriptionConfig{PayloadType: 99, Ext: Extensions{SendTime: 2, Dependency: 3, Rotation: 4, Delay: 5, Capture: 6}})
		sh.join(SubscriptionConfig{PayloadType: 99, Ext: Extensions{TWCC: 1, MID: 14}, MID: "receiver", Repair: 0x888, RepairPayloadType: 98})
		good := sh.picture(sh.streams[0], true)
		sh.deliver(good...)
		plain := bytes.Clone(b)
		sealed, err := sh.speaker.enc.EncryptRTP(nil, b, nil)
		if err != nil {
			return
		}
		// What lies around the packet in its buffer is not the plane's.
		buffer := bytes.Repeat([]byte{0xa5}, len(sealed)+64)
		copy(buffer[32:], sealed)
		sh.read.Receive(buffer[32:32+len(sealed):32+len(sealed)], sh.speaker.path)
		if !batched {
			sh.flush()
		}
		more := sh.picture(sh.streams[0], false)
		for _, p := range more {
			sh.read.Receive(sh.speaker.seal(p.Packet), sh.speaker.path)
		}
		sh.flush()
		if !bytes.Equal(buffer[:32], bytes.Repeat([]byte{0xa5}, 32)) || !bytes.Equal(buffer[32+len(sealed):], bytes.Repeat([]byte{0xa5}, 32)) {
			t.Fatal("bytes beside the packet were written")
		}
		sh.collect()
		for range 12 {
			sh.advance(TickInterval)
			sh.tick()
		}
		sh.collect()
		for i, v := range sh.receivers {
			v.nack(v.sub, 500, 501, 502, 503, 504, 505, 506)
			sh.collect()
			sh.wantPayloads(fmt.Sprintf("receiver %d", i), v, plain, len(good))
		}
	})
}

// wantPayloads checks that all that a receiver got was sent by the show, or is that one packet.
func (sh *show) wantPayloads(who string, v *shownReceiver, plain []byte, least int) {
	sh.t.Helper()
	n := 0
	for _, p := range v.got {
		switch {
		case len(p.Payload) == 0:
		case slices.ContainsFunc(sh.packets, func(q *shownPacket) bool { return bytes.Equal(sh.masked(q.Payload), sh.masked(p.Payload)) }):
			n++
		case len(p.Payload) <= len(plain) && sh.sameButNumbers(plain[:len(plain)-int(p.PaddingSize)], p.Payload):
		default:
			sh.t.Fatalf("%s: payload %x was never sent", who, p.Payload)
		}
		for _, id := range p.GetExtensionIDs() {
			e := v.cfg.Ext
			if !slices.Contains([]uint8{e.TWCC, e.SendTime, e.MID, e.Dependency, e.Rotation, e.Delay, e.Capture}, id) {
				sh.t.Fatalf("%s: extension %d in %v", who, id, p)
			}
		}
		if len(p.CSRC) > 0 {
			sh.t.Fatalf("%s: CSRCs in %v", who, p)
		}
	}
	if n < least {
		sh.t.Fatalf("%s: %d good packets arrived, want at least %d", who, n, least)
	}
}

// sameButNumbers reports whether plain ends with payload, but for up to three bytes of picture ids
// in its first five; a repair packet ends with what it repairs.
func (sh *show) sameButNumbers(plain, payload []byte) bool {
	end := plain[len(plain)-len(payload):]
	different := 0
	for i := range payload {
		if payload[i] != end[i] {
			if different++; i >= 5 {
				return false
			}
		}
	}
	return different <= 3
}

// FuzzFeedback lets a receiver with valid keys send any RTCP. It does no harm to the session, to
// others, or to what others are sent.
func FuzzFeedback(f *testing.F) {
	for _, p := range []rtcp.Packet{
		&rtcp.SenderReport{SSRC: 0x100, NTPTime: 1 << 63, Reports: []rtcp.ReceptionReport{{SSRC: 0x777}}},
		&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 0x777, FractionLost: 255, LastSenderReport: 5}, {SSRC: 0x888}}},
		&rtcp.PictureLossIndication{MediaSSRC: 0x777},
		&rtcp.FullIntraRequest{FIR: []rtcp.FIREntry{{SSRC: 0x777}, {SSRC: 0x888}}},
		&rtcp.TransportLayerNack{MediaSSRC: 0x777, Nacks: []rtcp.NackPair{{PacketID: 500, LostPackets: 0xf0f0}, {PacketID: 501}}},
		&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1e6, SSRCs: []uint32{0x777}},
		&rtcp.ExtendedReport{SenderSSRC: 1, Reports: []rtcp.ReportBlock{&rtcp.ReceiverReferenceTimeReportBlock{}}},
		&rtcp.Goodbye{Sources: []uint32{0x777, 0x100}},
	} {
		b, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b[:len(b)/8*4])
		f.Add(append(bytes.Clone(b), b...), b)
	}
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 7, 0x77, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0x7f, 0xff}, []byte{0x8f, 205, 0, 4})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		sh := newShow(t, styles[0], 500)
		v, other := sh.receivers[1], sh.receivers[0]
		for range 8 {
			sh.pictures(0)
		}
		before := sh.plane.Stats()
		for _, b := range [][]byte{first, second} {
			if len(b) >= 8 && b[0]>>6 == 2 && isRTCP(b) && len(b) < 1200 {
				v.push(v.sealRTCP(bytes.Clone(b)))
				sh.collect()
			}
		}
		after := sh.plane.Stats()
		if n := after.PacketsOut - before.PacketsOut; n > 2*17*maxAsked {
			t.Fatalf("answered with %d packets", n)
		}
		if n := after.RTCPOut - before.RTCPOut; n > 6 {
			t.Fatalf("answered with %d RTCP packets", n)
		}
		for range 12 {
			sh.pictures(0)
			sh.tick()
			sh.collect()
		}
		sh.checkReceiver("another receiver", other)
		if n := other.sub.Stats().Packets; n < 16 {
			t.Fatalf("another receiver got %d packets", n)
		}
		sh.checkReceiver("the receiver itself", v)
	})
}
