package codec

// Bits of the VP9 payload descriptor (RFC 9628 section 4.2).
const (
	vp9I = 0x80 // picture ID follows
	vp9P = 0x40 // refers to earlier pictures
	vp9L = 0x20 // layer indices follow
	vp9F = 0x10 // flexible mode
	vp9B = 0x08 // start of a layer frame
	vp9E = 0x04 // end of a layer frame
	vp9V = 0x02 // scalability structure follows
	vp9U = 0x10 // switching up point
	vp9D = 0x01 // refers to the spatial layer below
	vp9N = 0x01 // another distance follows
	vp9Y = 0x10 // resolutions follow
	vp9G = 0x08 // picture group follows

	vp9MaxDiffs = 3
	vp9SyncCode = 0x498342
)

// parseVP9 reads a payload of VP9.
func (p *Parser) parseVP9(payload []byte, d *Descriptor) {
	var h vp9Header
	n, ok := h.read(payload)
	if !ok || n >= len(payload) || h.layer.spatial >= MaxSpatials {
		return
	}
	keyframe := false
	if h.flags&vp9B != 0 {
		kind := vp9FrameKind(payload[n:])
		if keyframe = kind == vp9Key && h.flags&vp9P == 0 && h.layer.spatial == 0; keyframe {
			p.proven = true
		}
		if kind == vp9None {
			p.unprove()
		}
	}
	if !p.proven {
		return
	}
	if h.spatials > 0 {
		p.spatials = min(h.spatials, MaxSpatials)
	}
	d.Start, d.End, d.Keyframe = h.flags&vp9B != 0, h.flags&vp9E != 0, keyframe
	d.Spatial, d.Temporal = h.layer.spatial, h.layer.temporal
	d.Picture = h.picture
	switch {
	case keyframe:
		d.Switch = everything
	case d.Start:
		d.Switch = h.switches()
	}
	p.understood(d)
}

// vp9Header is a payload descriptor.
type vp9Header struct {
	flags    byte
	layer    layer
	up       bool // U
	inter    bool // D
	picture  Picture
	spatials uint8 // of the scalability structure; 0 if there is none
}

// switches returns the Switch of a layer frame that is no keyframe.
func (h *vp9Header) switches() (can uint32) {
	s, t := h.layer.spatial, h.layer.temporal
	// Without P an upper layer begins anew. The lowest does so in keyframes alone, and some senders
	// never set P.
	if h.flags&vp9P == 0 && s > 0 {
		for t := range uint8(MaxTemporals) {
			can |= bit(s, t)
		}
	}
	// U speaks of the whole picture. Its upper layers refer to lower ones, which must not have
	// been left out by the time they come.
	if !h.up || s > 0 && t > 0 && h.inter {
		return can
	}
	top := s
	if s == 0 {
		top = MaxSpatials - 1
	}
	for s := range top + 1 {
		for t := max(t, 1); t < MaxTemporals; t++ {
			can |= bit(s, t)
		}
	}
	return can
}

// read reads a payload descriptor and returns its length.
func (h *vp9Header) read(payload []byte) (n int, ok bool) {
	if len(payload) == 0 {
		return 0, false
	}
	h.flags = payload[0]
	n = 1
	if h.flags&vp9I != 0 {
		var size int
		if h.picture, size = picture(payload, n); size == 0 {
			return 0, false
		}
		n += size
	}
	if h.flags&vp9L != 0 {
		if n >= len(payload) {
			return 0, false
		}
		b := payload[n]
		h.layer = layer{spatial: b >> 1 & 7, temporal: b >> 5}
		h.up, h.inter = b&vp9U != 0, b&vp9D != 0
		n++
		if h.flags&vp9F == 0 {
			if n >= len(payload) {
				return 0, false
			}
			h.picture.TL0, h.picture.TL0At = payload[n], uint8(n)
			n++
		}
	}
	if h.flags&(vp9F|vp9P) == vp9F|vp9P {
		for i, more := 0, true; more; i++ {
			if i == vp9MaxDiffs || n >= len(payload) {
				return 0, false
			}
			more = payload[n]&vp9N != 0
			n++
		}
	}
	if h.flags&vp9V != 0 {
		return h.readStructure(payload, n)
	}
	return n, true
}

// readStructure reads a scalability structure at an offset and returns where it ends.
func (h *vp9Header) readStructure(payload []byte, n int) (end int, ok bool) {
	if n >= len(payload) {
		return 0, false
	}
	b := payload[n]
	n++
	h.spatials = b>>5 + 1
	if b&vp9Y != 0 {
		n += 4 * int(h.spatials)
	}
	if b&vp9G != 0 {
		if n >= len(payload) {
			return 0, false
		}
		pictures := payload[n]
		n++
		for range pictures {
			if n >= len(payload) {
				return 0, false
			}
			n += 1 + int(payload[n]>>2&3) // and its distances
		}
	}
	return n, n <= len(payload)
}

// vp9Kind is what kind of frame a layer frame is.
type vp9Kind uint8

const (
	vp9None vp9Kind = iota // not of VP9
	vp9Key
	vp9Inter // or intra-only
)

// vp9FrameKind tells how frame begins (VP9 bitstream specification, section 6.2).
func vp9FrameKind(frame []byte) vp9Kind {
	r := bitReader{bytes: frame}
	const marker = 2
	if r.read(2) != marker {
		return vp9None
	}
	profile := r.read(1) | r.read(1)<<1
	if profile == 3 && r.flag() { // reserved
		return vp9None
	}
	if showExisting := r.flag(); showExisting {
		return vp9Inter
	}
	if inter := r.flag(); inter {
		return vp9Inter
	}
	r.skip(2) // shown, error resilient
	if r.read(24) != vp9SyncCode || r.overrun {
		return vp9None
	}
	return vp9Key
}
