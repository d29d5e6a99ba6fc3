package codec

// bitReader reads big-endian bit fields. Past the end it returns zeros and sets overrun.
type bitReader struct {
	bytes   []byte
	pos     int // in bits
	overrun bool
}

// left returns how many bits there are to read.
func (r *bitReader) left() int { return 8*len(r.bytes) - r.pos }

// flag reads one bit.
func (r *bitReader) flag() bool { return r.read(1) != 0 }

// read reads n bits, at most 32.
func (r *bitReader) read(n int) uint32 {
	if n > r.left() {
		r.pos, r.overrun = 8*len(r.bytes), true
		return 0
	}
	var v uint64
	end := r.pos + n
	for i := r.pos / 8; i < (end+7)/8; i++ {
		v = v<<8 | uint64(r.bytes[i])
	}
	v >>= (8 - end%8) % 8
	r.pos = end
	return uint32(v & (1<<n - 1))
}

// skip passes over n bits.
func (r *bitReader) skip(n int) {
	if n > r.left() {
		n, r.overrun = r.left(), true
	}
	r.pos += n
}

// nonSymmetric reads a value below n, n > 0, that is coded with as few bits as it takes: ns(n) of
// the AV1 specification, section 4.10.7.
func (r *bitReader) nonSymmetric(n uint32) uint32 {
	w := 0
	for x := n; x != 0; x >>= 1 {
		w++
	}
	m := uint32(1)<<w - n
	v := r.read(w - 1)
	if v < m {
		return v
	}
	return v<<1 - m + r.read(1)
}

// golomb reads an Exp-Golomb code: ue(v) of H.264 section 9.1, uvlc() of AV1 section 4.10.3.
// Values that take more than 32 bits are an overrun.
func (r *bitReader) golomb() uint32 {
	zeros := 0
	for !r.flag() {
		if zeros++; r.overrun || zeros > 31 {
			r.overrun = true
			return 0
		}
	}
	return 1<<zeros - 1 + r.read(zeros)
}
