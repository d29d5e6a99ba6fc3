package codec

import "math/bits"

// Bits of the aggregation header (AV1 RTP payload format, section 4.4), and of an OBU's header
// (AV1 specification, section 5.3.2).
const (
	av1Z = 0x80 // the first element goes on from the packet before
	av1Y = 0x40 // the last element goes on in the next packet
	av1N = 0x08 // start of a coded video sequence

	obuForbidden = 0x80
	obuExtension = 0x04
	obuHasSize   = 0x02
	obuReserved  = 0x01
)

// Types of OBUs: the first, the last, and the one between that starts no frame. The others are
// temporal delimiters, frame headers and metadata.
const (
	obuSequenceHeader = 1
	obuTileGroup      = 4
	obuFrame          = 6
)

const (
	av1Peek           = 4   // elements of a packet that are looked at
	maxSequenceHeader = 256 // bytes; usual are 10 to 20
)

// obu is an OBU, or the start of one.
type obu struct {
	typ      uint8
	extended bool
	layer    layer
	body     []byte
}

// parseAV1 reads a payload of AV1. Without a dependency descriptor the ends of layer frames and
// places to switch layers cannot be told.
func (p *Parser) parseAV1(payload []byte, d *Descriptor) {
	if len(payload) < 2 {
		return
	}
	head := payload[0]
	elements := av1Elements{rest: payload[1:], left: head >> 4 & 3, counted: head&0x30 != 0}
	if head&av1Z == 0 {
		start := head&av1N != 0
		if start {
			p.unprove() // until it is seen to be one
		}
		var first obu
		element, last, ok := elements.next()
		if !ok || !first.read(element) {
			return
		}
		if start {
			seq, ok := av1Start(&first, !last || head&av1Y == 0, elements)
			if !ok {
				return
			}
			p.proven = true
			p.spatials, p.temporals, p.av1 = seq.spatials, seq.temporals, layer{}
			d.Keyframe, d.Switch = true, everything
		}
		d.Start = first.typ >= obuSequenceHeader && first.typ <= obuFrame && first.typ != obuTileGroup
		p.av1 = av1Layer(first, elements, p.av1)
	}
	if !p.proven {
		*d = Descriptor{}
		return
	}
	d.Spatial, d.Temporal = p.av1.spatial, p.av1.temporal
	p.understood(d)
}

// av1Layer returns the layer of a packet: that of the first OBU which tells one, else had.
func av1Layer(first obu, elements av1Elements, had layer) layer {
	o := first
	for range av1Peek {
		if o.extended {
			return o.layer
		}
		element, _, ok := elements.next()
		if !ok || !o.read(element) {
			break
		}
	}
	return had
}

// av1Start reports whether a packet that claims to start a coded video sequence does: with a
// sequence header, of which not a bit is left over, before any other OBU.
func av1Start(first *obu, whole bool, elements av1Elements) (seq sequenceHeader, ok bool) {
	if first.typ != obuSequenceHeader || !whole || !seq.read(first.body) {
		return seq, false
	}
	var second obu
	if element, _, more := elements.next(); more {
		if !second.read(element) || second.typ < obuSequenceHeader || second.typ > obuFrame {
			return seq, false
		}
	}
	return seq, true
}

// av1Elements are the OBU elements of a packet which are yet to be read.
type av1Elements struct {
	rest    []byte
	counted bool  // their number is known, and the last one has no length
	left    uint8 // number, if so
}

// next returns the next element, cut off at the end of the packet, and whether it is the last.
func (e *av1Elements) next() (element []byte, last, ok bool) {
	if len(e.rest) == 0 || e.counted && e.left == 0 {
		return nil, false, false
	}
	if e.counted {
		if e.left--; e.left == 0 {
			element, e.rest = e.rest, nil
			return element, true, true
		}
	}
	size, n := leb128(e.rest)
	if n == 0 || size > uint64(len(e.rest)-n) {
		return nil, false, false
	}
	element, e.rest = e.rest[n:n+int(size)], e.rest[n+int(size):]
	return element, len(e.rest) == 0, true
}

// read reads the header of an OBU. It reports false if it cannot be one.
func (o *obu) read(element []byte) bool {
	*o = obu{}
	if len(element) == 0 || element[0]&(obuForbidden|obuReserved) != 0 {
		return false
	}
	head := element[0]
	o.typ = head >> 3 & 15
	o.body = element[1:]
	if head&obuExtension != 0 {
		if len(o.body) == 0 || o.body[0]&7 != 0 {
			return false
		}
		o.extended = true
		o.layer = layer{spatial: o.body[0] >> 3 & 3, temporal: o.body[0] >> 5}
		o.body = o.body[1:]
	}
	if head&obuHasSize != 0 {
		size, n := leb128(o.body)
		if n == 0 {
			return false
		}
		o.body = o.body[n:]
		o.body = o.body[:min(size, uint64(len(o.body)))]
	}
	return true
}

// leb128 reads a number (AV1 specification, section 4.10.5). n is its length, 0 if it is malformed.
func leb128(b []byte) (v uint64, n int) {
	for i := range min(len(b), 8) {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return v, i + 1
		}
	}
	return 0, 0
}

// sequenceHeader is what is kept of a sequence header OBU.
type sequenceHeader struct {
	spatials, temporals uint8 // layers of the best operating point
}

// read reads a sequence header (AV1 specification, section 5.5). It reports false if the body is
// none of a video, or longer or shorter than one.
func (seq *sequenceHeader) read(body []byte) bool {
	if len(body) > maxSequenceHeader {
		return false
	}
	r := bitReader{bytes: body}
	profile := r.read(3)
	if profile > 2 || r.read(2) != 0 { // still_picture, reduced_still_picture_header
		return false
	}
	if !seq.readOperatingPoints(&r) {
		return false
	}
	width, height := int(r.read(4))+1, int(r.read(4))+1 // in bits
	if r.read(width) == 0 || r.read(height) == 0 {      // less 1
		return false
	}
	if r.flag() { // frame_id_numbers_present_flag
		r.skip(4 + 3)
	}
	skipTools(&r, profile)
	r.flag() // film_grain_params_present
	if !r.flag() || r.overrun {
		return false // trailing_one_bit
	}
	for r.left() > 0 {
		if r.flag() {
			return false
		}
	}
	return true
}

// readOperatingPoints reads timing and operating points.
func (seq *sequenceHeader) readOperatingPoints(r *bitReader) bool {
	delay := 0    // bits of buffer delays, if there is a decoder model
	if r.flag() { // timing_info_present_flag
		r.skip(64)
		if r.flag() { // equal_picture_interval
			r.golomb()
		}
		if r.flag() { // decoder_model_info_present_flag
			delay = int(r.read(5)) + 1
			r.skip(32 + 5 + 5)
		}
	}
	displayDelay := r.flag()
	points := r.read(5) + 1
	for i := range points {
		idc := r.read(12)
		temporal, spatial := idc&0xff, idc>>8
		if (temporal == 0) != (spatial == 0) {
			return false
		}
		if i == 0 {
			seq.temporals, seq.spatials = uint8(max(1, bits.Len32(temporal))), uint8(max(1, bits.Len32(spatial)))
		}
		if r.read(5) > 7 { // seq_level_idx
			r.flag() // seq_tier
		}
		if delay > 0 && r.flag() {
			r.skip(2*delay + 1)
		}
		if displayDelay && r.flag() {
			r.skip(4)
		}
	}
	return !r.overrun
}

// skipTools reads over the coding tools and the colour configuration.
func skipTools(r *bitReader, profile uint32) {
	r.skip(3 + 4) // up to enable_dual_filter
	orderHint := r.flag()
	if orderHint {
		r.skip(2)
	}
	screenContent := true
	if !r.flag() { // seq_choose_screen_content_tools
		screenContent = r.flag()
	}
	if screenContent && !r.flag() { // seq_choose_integer_mv
		r.flag()
	}
	if orderHint {
		r.skip(3)
	}
	r.skip(3) // enable_superres, enable_cdef, enable_restoration

	depth12 := r.flag() && profile == 2 && r.flag()
	mono := profile != 1 && r.flag()
	var colours uint32 = 2<<16 | 2<<8 | 2 // unspecified
	if r.flag() {
		colours = r.read(24)
	}
	const sRGB = 1<<16 | 13<<8 // without subsampling
	switch {
	case mono:
		r.flag() // color_range
		return
	case colours == sRGB:
	default:
		r.flag() // color_range
		x, y := profile != 1, profile == 0
		if depth12 {
			x = r.flag()
			y = x && r.flag()
		}
		if x && y {
			r.skip(2) // chroma_sample_position
		}
	}
	r.flag() // separate_uv_delta_q
}
