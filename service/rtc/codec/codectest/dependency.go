package codectest

import "math/bits"

// Descriptor is a dependency descriptor (AV1 RTP payload format, section A.8.2) to be written.
type Descriptor struct {
	First, Last bool
	Template    uint8 // ID: the structure's offset and the index, modulo 64
	Number      uint16

	// Structure is attached if not nil.
	Structure *Structure

	// Active is the mask of active decode targets, if Masked.
	Masked  bool
	Active  uint32
	Targets int // how many bits it has

	// Of the frame's own, if not nil.
	DTIs   Indications
	Diffs  []int // from 1 to 4096
	Chains []uint8
}

// Indications are decode target indications, one of "-DSR" for each target.
type Indications string

// Template is a frame dependency template.
type Template struct {
	Spatial, Temporal uint8
	DTIs              Indications
	Diffs             []int // from 1 to 16
	Chains            []int // from 0 to 15
}

// Structure is a template dependency structure. Templates are sorted by layer.
type Structure struct {
	Offset      uint8 // ID of the first template
	Targets     int
	Templates   []Template
	Protected   []int // chain of each target; nil: there are no chains
	Chains      int
	Resolutions [][2]uint16 // width and height of each spatial layer; nil: not told
}

// Bytes returns the value of the extension.
func (d *Descriptor) Bytes() []byte {
	var w bitWriter
	w.flag(d.First)
	w.flag(d.Last)
	w.write(uint32(d.Template), 6)
	w.write(uint32(d.Number), 16)
	custom := d.DTIs != "" || d.Diffs != nil || d.Chains != nil
	if d.Structure == nil && !d.Masked && !custom {
		return w.bytes
	}
	w.flag(d.Structure != nil)
	w.flag(d.Masked)
	w.flag(d.DTIs != "")
	w.flag(d.Diffs != nil)
	w.flag(d.Chains != nil)
	if d.Structure != nil {
		d.Structure.write(&w)
	}
	if d.Masked {
		w.write(d.Active, d.Targets)
	}
	w.indications(d.DTIs)
	if d.Diffs != nil {
		for _, diff := range d.Diffs {
			nibbles := (bits.Len(uint(diff-1)) + 3) / 4
			nibbles = max(nibbles, 1)
			w.write(uint32(nibbles), 2)
			w.write(uint32(diff-1), 4*nibbles)
		}
		w.write(0, 2)
	}
	for _, chain := range d.Chains {
		w.write(uint32(chain), 8)
	}
	return w.bytes
}

func (s *Structure) write(w *bitWriter) {
	w.write(uint32(s.Offset), 6)
	w.write(uint32(s.Targets-1), 5)
	for i, t := range s.Templates {
		const same, nextTemporal, nextSpatial, end = 0, 1, 2, 3
		switch {
		case i == len(s.Templates)-1:
			w.write(end, 2)
		case s.Templates[i+1].Spatial != t.Spatial:
			w.write(nextSpatial, 2)
		case s.Templates[i+1].Temporal != t.Temporal:
			w.write(nextTemporal, 2)
		default:
			w.write(same, 2)
		}
	}
	for _, t := range s.Templates {
		w.indications(t.DTIs)
	}
	for _, t := range s.Templates {
		for _, diff := range t.Diffs {
			w.flag(true)
			w.write(uint32(diff-1), 4)
		}
		w.flag(false)
	}
	w.nonSymmetric(s.Chains, s.Targets+1)
	if s.Chains > 0 {
		for _, chain := range s.Protected {
			w.nonSymmetric(chain, s.Chains)
		}
		for _, t := range s.Templates {
			for _, chain := range t.Chains {
				w.write(uint32(chain), 4)
			}
		}
	}
	w.flag(s.Resolutions != nil)
	for _, r := range s.Resolutions {
		w.write(uint32(r[0])-1, 16)
		w.write(uint32(r[1])-1, 16)
	}
}

// bitWriter writes big-endian bit fields.
type bitWriter struct {
	bytes []byte
	free  int // bits in the last byte
}

func (w *bitWriter) write(v uint32, n int) {
	for n--; n >= 0; n-- {
		if w.free == 0 {
			w.bytes, w.free = append(w.bytes, 0), 8
		}
		w.free--
		w.bytes[len(w.bytes)-1] |= byte(v>>n&1) << w.free
	}
}

func (w *bitWriter) flag(set bool) {
	if set {
		w.write(1, 1)
	} else {
		w.write(0, 1)
	}
}

// nonSymmetric writes v < n as ns(n) of the AV1 specification, section 4.10.7.
func (w *bitWriter) nonSymmetric(v, n int) {
	size := bits.Len(uint(n))
	m := 1<<size - n
	if v < m {
		w.write(uint32(v), size-1)
		return
	}
	w.write(uint32(v+m), size)
}

func (w *bitWriter) indications(s Indications) {
	for _, c := range s {
		for v, known := range "-DSR" {
			if c == known {
				w.write(uint32(v), 2)
			}
		}
	}
}
