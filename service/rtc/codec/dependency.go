package codec

import "math/bits"

// Limits of a dependency descriptor. All but maxDiffs and the layers, which are those of AV1,
// follow from its format.
const (
	maxTemplates = 64
	maxTargets   = 32
	maxDiffs     = 8   // frames that a frame refers to
	maxFrames    = 256 // whose layers are remembered, to look up what later ones refer to
)

// Decode target indications.
const (
	dtiNone = iota // not in the decode target
	dtiDiscardable
	dtiSwitch
	dtiRequired
)

// layer is a pair of layer IDs.
type layer struct{ spatial, temporal uint8 }

// indications are those of a frame, two bits for each decode target, the first in the lowest.
type indications uint64

func (d indications) of(target int) uint64 { return uint64(d) >> (2 * target) & 3 }

// diffs are distances, in frame numbers, to the frames that one refers to.
type diffs struct {
	n   uint8
	far [maxDiffs]uint16
}

// add adds a distance and reports whether there was room for it.
func (d *diffs) add(far uint16) bool {
	if d.n == maxDiffs {
		return false
	}
	d.far[d.n] = far
	d.n++
	return true
}

// template is what descriptors of frames refer to.
type template struct {
	layer layer
	dtis  indications
	diffs diffs
}

// structure is a template dependency structure. Chains and resolutions are read over: nothing
// that is told of a packet follows from them.
type structure struct {
	offset    uint8 // ID of the first template
	n         int   // templates; 0: there is no structure
	templates [maxTemplates]template

	targets int
	layers  [maxTargets]layer // of the targets
	chains  int
}

// dependency is what has been learned from the dependency descriptors of a stream.
type dependency struct {
	structure
	active uint32 // decode targets, a bit each

	frames [maxFrames]numberedFrame // by the low bits of their number
}

type numberedFrame struct {
	number uint16
	known  bool
	layer  layer
}

// parse reads a descriptor (AV1 RTP payload format, section A.8.2) into d.
func (dep *dependency) parse(value []byte, d *Descriptor) {
	if len(value) < 3 {
		return
	}
	r := bitReader{bytes: value}
	d.Start, d.End = r.flag(), r.flag()
	id := uint8(r.read(6))
	d.Frame, d.HasFrame = uint16(r.read(16)), true

	var attached, masked, customDTIs, customDiffs, customChains bool
	if len(value) > 3 {
		attached, masked = r.flag(), r.flag()
		customDTIs, customDiffs, customChains = r.flag(), r.flag(), r.flag()
	}
	if attached {
		if !dep.read(&r) {
			dep.n = 0 // what came before does not count any more
			return
		}
		dep.active = ^uint32(0) >> (maxTargets - dep.targets)
	}
	index := int(id+maxTemplates-dep.offset) % maxTemplates
	if index >= dep.n {
		return
	}
	active := dep.active
	if masked {
		active = r.read(dep.targets)
	}
	frame := dep.templates[index]
	if customDTIs {
		frame.dtis = readDTIs(&r, dep.targets)
	}
	if customDiffs && !readDiffs(&r, &frame.diffs) {
		return
	}
	if customChains {
		r.skip(8 * dep.chains)
	}
	if r.overrun {
		return
	}
	dep.active = active

	d.Known = true
	d.Spatial, d.Temporal = frame.layer.spatial, frame.layer.temporal
	d.Spatials, d.Temporals = dep.count()
	if d.Start {
		d.Keyframe = attached && frame.diffs.n == 0
		if d.Keyframe {
			d.Switch = everything
		} else {
			d.Switch = dep.switches(d.Frame, &frame)
		}
	}
	dep.frames[d.Frame%maxFrames] = numberedFrame{d.Frame, true, frame.layer}
}

// count returns how many layers the active decode targets have.
func (dep *dependency) count() (spatials, temporals uint8) {
	spatials, temporals = 1, 1
	for active := dep.active; active != 0; active &= active - 1 {
		l := dep.layers[bits.TrailingZeros32(active)]
		spatials, temporals = max(spatials, l.spatial+1), max(temporals, l.temporal+1)
	}
	return spatials, temporals
}

// switches returns the Switch of a frame that starts here. A switch indication says that a decode
// target can be decoded from the frame on if the frame itself can be. To one who has not yet
// received the target it can if all that it refers to is in layers which are below.
func (dep *dependency) switches(number uint16, frame *template) (can uint32) {
	begins := frame.layer.temporal == 0 // refers to nothing of its spatial layer
	for _, far := range frame.diffs.far[:frame.diffs.n] {
		ref := dep.frames[(number-far)%maxFrames]
		if !ref.known || ref.number != number-far || ref.layer.spatial > frame.layer.spatial {
			return 0
		}
		if ref.layer.temporal != 0 && ref.layer.temporal >= frame.layer.temporal {
			return 0
		}
		if ref.layer.spatial == frame.layer.spatial {
			begins = false
		}
	}
	for target, l := range dep.layers[:dep.targets] {
		if l.spatial == frame.layer.spatial && (l.temporal > 0 || begins) && frame.dtis.of(target) == dtiSwitch {
			can |= bit(l.spatial, l.temporal)
		}
	}
	return can
}

// read reads a template dependency structure. It reports false for what is malformed or has too
// many layers or references; the structure is to be thrown away then.
func (s *structure) read(r *bitReader) bool {
	*s = structure{}
	s.offset = uint8(r.read(6))
	s.targets = int(r.read(5)) + 1
	if !s.readLayers(r) {
		return false
	}
	for i := range s.n {
		s.templates[i].dtis = readDTIs(r, s.targets)
	}
	for i := range s.n {
		for r.flag() {
			if !s.templates[i].diffs.add(uint16(r.read(4)) + 1) {
				return false
			}
		}
	}
	if s.chains = int(r.nonSymmetric(uint32(s.targets) + 1)); s.chains > 0 {
		for range s.targets {
			r.nonSymmetric(uint32(s.chains))
		}
		r.skip(4 * s.chains * s.n)
	}
	s.findTargetLayers()
	if r.flag() {
		spatials := int(s.templates[s.n-1].layer.spatial) + 1
		r.skip(32 * spatials)
	}
	return !r.overrun
}

// readLayers reads how many templates there are and of which layers.
func (s *structure) readLayers(r *bitReader) bool {
	var l layer
	for {
		if s.n == maxTemplates || l.spatial >= MaxSpatials || l.temporal >= MaxTemporals {
			return false
		}
		s.templates[s.n].layer = l
		s.n++
		switch r.read(2) {
		case 1:
			l.temporal++
		case 2:
			l.temporal = 0
			l.spatial++
		case 3:
			return true
		}
		if r.overrun {
			return false
		}
	}
}

// findTargetLayers finds the layers of the decode targets: the highest of any frame in them.
func (s *structure) findTargetLayers() {
	for target := range s.targets {
		for i := range s.n {
			t := &s.templates[i]
			if t.dtis.of(target) != dtiNone {
				s.layers[target].spatial = max(s.layers[target].spatial, t.layer.spatial)
				s.layers[target].temporal = max(s.layers[target].temporal, t.layer.temporal)
			}
		}
	}
}

// readDTIs reads the indications of a frame or template.
func readDTIs(r *bitReader, targets int) (d indications) {
	for target := range targets {
		d |= indications(r.read(2)) << (2 * target)
	}
	return d
}

// readDiffs reads the distances of a frame that has its own. It reports false if there are too many.
func readDiffs(r *bitReader, d *diffs) bool {
	*d = diffs{}
	for size := r.read(2); size != 0; size = r.read(2) {
		if !d.add(uint16(r.read(4*int(size))) + 1) {
			return false
		}
	}
	return true
}
