package codec

// Types of NAL units (H.264 table 7-1, RFC 6184 table 1).
const (
	nalSlice = 1
	nalIDR   = 5
	nalSEI   = 6
	nalSPS   = 7
	nalPPS   = 8
	nalAUD   = 9 // access unit delimiter
	nalLast  = 23
	nalSTAPA = 24
	nalFUA   = 28
	nalFUB   = 29
)

const (
	// h264Run is how many usual packets, with none between them that H.264 cannot have, prove that
	// a stream without parameter sets is H.264. Of packets of random bytes one in ten looks usual,
	// and more than half cannot be.
	h264Run = 16

	// h264Bare is how many keyframes in a row come without parameter sets, in a stream that has
	// carried some, before they count as keyframes. Fewer have lost them on the way.
	h264Bare = 2
)

// h264State is what a Parser knows of earlier packets of H.264.
type h264State struct {
	run     uint8 // usual packets since the last impossible one, up to h264Run
	lead    bool  // the last packet held what comes before the slices of a picture
	leadSPS bool  // ... and parameter sets
	inBand  bool  // the stream has carried parameter sets
	bare    uint8 // keyframes in a row without them, up to h264Bare
}

// h264Packet is what is in one packet.
type h264Packet struct {
	usual bool // types of units and packets that are common
	lead  bool // delimiter, parameter sets or SEI
	sps   bool // sequence parameter sets that prove themselves
	odd   bool // others
	slice bool // of any kind
	first bool // ... it is the first one of its picture
	idr   bool // ... and of an IDR picture
}

// parseH264 reads a payload of H.264. Packets that H.264 cannot have take the proof back.
func (p *Parser) parseH264(payload []byte, d *Descriptor) {
	if len(payload) == 0 { // padding, to probe for bandwidth
		return
	}
	s := &p.h264
	var pkt h264Packet
	if !pkt.read(payload) {
		p.unprove()
		*s = h264State{}
		return
	}
	if pkt.usual {
		s.run = min(s.run+1, h264Run)
	}
	if s.run == h264Run {
		pkt.sps = pkt.sps || pkt.odd
		p.proven = true
	}
	p.proven = p.proven || pkt.sps
	if !p.proven {
		return
	}

	// A picture starts with the first of what may come before its slices, else with its first
	// slice.
	d.Start = (pkt.lead || pkt.first) && !s.lead
	if pkt.sps {
		s.inBand = true
		d.Keyframe, d.Start = true, true
	}
	if pkt.first && pkt.idr {
		switch {
		case pkt.sps || s.leadSPS:
			s.bare = 0
		case s.inBand && s.bare < h264Bare:
			s.bare++
		default:
			d.Keyframe, d.Start = true, true
		}
	}
	if pkt.slice {
		s.lead, s.leadSPS = false, false
	} else if pkt.lead {
		s.lead, s.leadSPS = true, s.leadSPS || pkt.sps
	}
	if d.Keyframe {
		d.Switch = everything
	}
	p.understood(d)
}

// read reads the NAL units of a packet that is not empty. It reports false if it cannot be H.264.
func (pkt *h264Packet) read(payload []byte) bool {
	if payload[0]&0x80 != 0 { // forbidden_zero_bit
		return false
	}
	switch typ := payload[0] & 0x1f; {
	case typ > nalLast && len(payload) < 2:
		return false
	case typ == nalSTAPA:
		return pkt.readSTAP(payload[1:])
	case typ == nalFUA:
		return pkt.readFU(payload[0], payload[1], payload[2:])
	case typ > nalLast:
		return typ <= nalFUB
	}
	return pkt.readNAL(payload[0], payload[1:], single)
}

// readSTAP reads the aggregated units of a STAP-A (RFC 6184 section 5.7.1).
func (pkt *h264Packet) readSTAP(units []byte) bool {
	for len(units) > 0 {
		if len(units) < 3 {
			return false
		}
		size := int(units[0])<<8 | int(units[1])
		units = units[2:]
		if size == 0 || size > len(units) || units[0]&0x80 != 0 {
			return false
		}
		if units[0]&0x1f > nalLast || !pkt.readNAL(units[0], units[1:size], aggregated) {
			return false
		}
		units = units[size:]
	}
	return true
}

// readFU reads a FU-A (RFC 6184 section 5.8).
func (pkt *h264Packet) readFU(indicator, head byte, rbsp []byte) bool {
	start, end, reserved := head&0x80 != 0, head&0x40 != 0, head&0x20 != 0
	typ := head & 0x1f
	if start && end || reserved || typ == 0 || typ > nalLast {
		return false
	}
	if start {
		return pkt.readNAL(indicator&0x60|typ, rbsp, fragment)
	}
	pkt.usual = true
	pkt.slice = typ == nalSlice || typ == nalIDR
	return true
}

// nalForm is how a NAL unit is carried.
type nalForm uint8

const (
	single nalForm = iota
	aggregated
	fragment // the first one
)

// readNAL takes note of a NAL unit. It reports false if it cannot be one.
func (pkt *h264Packet) readNAL(head byte, rbsp []byte, form nalForm) bool {
	reference := head&0x60 != 0 // nal_ref_idc
	switch typ := head & 0x1f; typ {
	case 0:
		return false
	case nalSlice, nalIDR:
		if typ == nalIDR && !reference || len(rbsp) == 0 {
			return false
		}
		if rbsp[0]&0x80 != 0 && !pkt.slice { // first_mb_in_slice is 0
			pkt.first, pkt.idr = true, typ == nalIDR
		}
		pkt.slice, pkt.usual = true, true
	case nalSPS:
		if !reference || form == fragment { // it is never so long that it has to be split
			return false
		}
		// In a STAP-A the sizes have to fit, which random bytes do not.
		if form == aggregated || readSPS(rbsp) {
			pkt.sps = true
		} else {
			pkt.odd = true
		}
		pkt.lead, pkt.usual = true, true
	case nalPPS:
		if !reference || form == fragment {
			return false
		}
		pkt.lead, pkt.usual = true, true
	case nalSEI, nalAUD:
		pkt.lead, pkt.usual = true, true
	}
	return true
}
