package codectest

import "strings"

// Mode is a scalability mode (W3C, Scalable Video Coding for WebRTC).
type Mode uint8

// Modes that a Writer knows.
const (
	L1T1    Mode = iota
	L1T3         // three temporal layers
	L3T3         // and three spatial ones, each predicted from the one below in every picture
	L3T3Key      // each predicted from the one below in keyframes only
)

// phase is a picture's place in the period of temporal layers.
type phase struct {
	temporal uint8
	back     int // pictures to the one it refers to
	base     int // pictures to the last one of temporal layer 0
}

var (
	oneLayer    = []phase{{0, 1, 1}}
	threeLayers = []phase{{0, 4, 4}, {2, 1, 1}, {1, 2, 2}, {2, 1, 3}}
)

func (m Mode) spatials() int {
	if m == L3T3 || m == L3T3Key {
		return 3
	}
	return 1
}

func (m Mode) phases() []phase {
	if m == L1T1 {
		return oneLayer
	}
	return threeLayers
}

func (m Mode) temporals() int {
	if m == L1T1 {
		return 1
	}
	return 3
}

// Structure returns the template dependency structure of the mode, with offset 0.
func (m Mode) Structure() *Structure {
	s := &Structure{Targets: m.spatials() * m.temporals(), Chains: m.spatials()}
	for target := range s.Targets {
		s.Protected = append(s.Protected, target/m.temporals())
	}
	for spatial := range m.spatials() {
		s.Templates = append(s.Templates, m.template(spatial, nil))
		for temporal := range m.temporals() {
			for _, p := range m.phases() {
				if int(p.temporal) == temporal {
					s.Templates = append(s.Templates, m.template(spatial, &p))
				}
			}
		}
	}
	if m.spatials() > 1 {
		s.Resolutions = [][2]uint16{{160, 90}, {320, 180}, {640, 360}}
	}
	return s
}

// template returns that of a layer frame, in a keyframe's picture if p is nil.
func (m Mode) template(spatial int, p *phase) Template {
	t := Template{Spatial: uint8(spatial)}
	stacked := p == nil || m == L3T3 // upper layers refer to lower ones
	if p != nil {
		t.Temporal = p.temporal
		t.Diffs = append(t.Diffs, p.back*m.spatials())
	}
	if stacked && spatial > 0 {
		t.Diffs = append(t.Diffs, 1)
	}
	var dtis strings.Builder
	for target := range m.spatials() * m.temporals() {
		s, temporal := target/m.temporals(), target%m.temporals()
		switch above := s > spatial; {
		case s < spatial, temporal < int(t.Temporal), above && !stacked:
			dtis.WriteByte('-')
		case p == nil:
			dtis.WriteByte('S')
		case above, m == L1T1:
			dtis.WriteByte('R')
		case t.Temporal > 0 && temporal == int(t.Temporal):
			dtis.WriteByte('D')
		default:
			dtis.WriteByte('S')
		}
	}
	t.DTIs = Indications(dtis.String())
	for chain := range m.spatials() {
		t.Chains = append(t.Chains, m.chain(spatial, chain, p))
	}
	return t
}

// chain returns the distance from a layer frame to the frame before it in a chain.
func (m Mode) chain(spatial, chain int, p *phase) int {
	switch stacked := p == nil || m == L3T3; {
	case p == nil && spatial == 0:
		return 0
	case p != nil && p.temporal > 0:
		return p.base*m.spatials() + spatial - chain
	case chain < spatial:
		return spatial - chain
	case stacked && spatial > 0:
		return 1
	}
	return p.base*m.spatials() + spatial - chain
}

// Writer writes the dependency descriptors of a stream in some scalability mode.
type Writer struct {
	mode      Mode
	structure *Structure
	number    uint16
	phase     int // of the next picture
}

// NewWriter returns a Writer whose first frame has that number.
func NewWriter(m Mode, number uint16) *Writer {
	return &Writer{mode: m, structure: m.Structure(), number: number}
}

// LayerFrame is a frame of one spatial layer.
type LayerFrame struct {
	Keyframe          bool // the lowest spatial layer of a keyframe's picture
	Spatial, Temporal uint8
	Number            uint16
	Top               bool // the highest spatial layer: the end of the picture

	template  uint8
	structure *Structure
}

// Picture returns the layer frames of the next picture, the lowest first. Keyframes have the
// structure, with other template IDs each time; the first picture has to be one.
func (w *Writer) Picture(keyframe bool) []LayerFrame {
	if keyframe {
		s := *w.structure
		s.Offset = (s.Offset + uint8(len(s.Templates))) % 64
		w.structure, w.phase = &s, 0
	}
	phases := w.mode.phases()
	frames := make([]LayerFrame, w.mode.spatials())
	for spatial := range frames {
		f := LayerFrame{
			Spatial: uint8(spatial), Temporal: phases[w.phase].temporal, Number: w.number, Top: spatial == len(frames)-1,
		}
		if keyframe && spatial == 0 {
			f.Keyframe, f.structure = true, w.structure
		}
		f.template = (w.structure.Offset + uint8(w.template(spatial, keyframe))) % 64
		frames[spatial] = f
		w.number++
	}
	w.phase = (w.phase + 1) % len(phases)
	return frames
}

// template returns the index of a layer frame's template: for each spatial layer there is one of
// keyframes, then those of the phases in the order of their temporal layers.
func (w *Writer) template(spatial int, keyframe bool) int {
	phases := w.mode.phases()
	index := spatial * (1 + len(phases))
	if keyframe {
		return index
	}
	index++
	for i, p := range phases {
		if now := phases[w.phase]; p.temporal < now.temporal || p.temporal == now.temporal && i < w.phase {
			index++
		}
	}
	return index
}

// Packet returns the descriptor of one of the frame's packets.
func (f *LayerFrame) Packet(first, last bool) []byte {
	d := Descriptor{First: first, Last: last, Template: f.template, Number: f.Number}
	if first {
		d.Structure = f.structure
	}
	return d.Bytes()
}
