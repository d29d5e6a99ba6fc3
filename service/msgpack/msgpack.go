// Package msgpack reads and writes MessagePack values in byte slices, strictly and within bounds.
//
// A Reader trusts nothing that the input says of itself: a length is compared with the bytes that
// are there before anything is allocated, and nesting and the number of elements are limited. The
// encoding of single values is tinylib/msgp's.
package msgpack

import (
	"errors"
	"fmt"

	"github.com/tinylib/msgp/msgp"
)

// Errors of a Reader.
var (
	ErrShort = errors.New("msgpack: value is cut off")
	ErrType  = errors.New("msgpack: value of another type")
	ErrLimit = errors.New("msgpack: limit exceeded")
)

// Limits bound what a Reader takes. Zero fields take the defaults named.
type Limits struct {
	Depth    int // of arrays and maps within each other, the outermost included; 4
	Elements int // of one array or map; 64
	String   int // bytes of one str or bin; 1 MiB
}

// Reader reads the values of a byte slice one after the other. After an error it must not be used
// any more.
type Reader struct {
	rest   []byte
	limits Limits
}

// NewReader returns a reader of b, which it does not change.
func NewReader(b []byte, limits Limits) *Reader {
	r := MakeReader(b, limits)
	return &r
}

// MakeReader is NewReader for one that need not be allocated.
func MakeReader(b []byte, limits Limits) Reader {
	if limits.Depth == 0 {
		limits.Depth = 4
	}
	if limits.Elements == 0 {
		limits.Elements = 64
	}
	if limits.String == 0 {
		limits.String = 1 << 20
	}
	return Reader{rest: b, limits: limits}
}

// Len returns how many bytes are not read yet.
func (r *Reader) Len() int { return len(r.rest) }

// next returns the type of the next value, without reading it.
func (r *Reader) next() (msgp.Type, error) {
	if len(r.rest) == 0 {
		return msgp.InvalidType, ErrShort
	}
	return msgp.NextType(r.rest), nil
}

// IsNil reports whether the next value is nil.
func (r *Reader) IsNil() bool {
	t, err := r.next()
	return err == nil && t == msgp.NilType
}

// Nil reads a nil.
func (r *Reader) Nil() error {
	rest, err := msgp.ReadNilBytes(r.rest)
	return r.done(rest, err)
}

// Bytes reads a str or a bin. The result aliases the input.
func (r *Reader) Bytes() ([]byte, error) {
	t, err := r.next()
	if err != nil {
		return nil, err
	}
	var v, rest []byte
	switch t {
	case msgp.StrType:
		v, rest, err = msgp.ReadStringZC(r.rest)
	case msgp.BinType:
		v, rest, err = msgp.ReadBytesZC(r.rest)
	default:
		return nil, fmt.Errorf("%w: %v instead of str or bin", ErrType, t)
	}
	if err := r.done(rest, err); err != nil {
		return nil, err
	}
	if len(v) > r.limits.String {
		return nil, fmt.Errorf("%w: %d bytes in one value", ErrLimit, len(v))
	}
	return v, nil
}

// String reads a str of at most limit bytes.
func (r *Reader) String(limit int) (string, error) {
	if t, err := r.next(); err != nil {
		return "", err
	} else if t != msgp.StrType {
		return "", fmt.Errorf("%w: %v instead of str", ErrType, t)
	}
	v, err := r.Bytes()
	if err != nil {
		return "", err
	}
	if len(v) > limit {
		return "", fmt.Errorf("%w: str of %d bytes, at most %d", ErrLimit, len(v), limit)
	}
	return string(v), nil
}

// Map reads the head of a map and returns the number of its pairs.
func (r *Reader) Map() (int, error) {
	n, rest, err := msgp.ReadMapHeaderBytes(r.rest)
	return r.elements(n, 2, rest, err)
}

// Array reads the head of an array and returns the number of its values.
func (r *Reader) Array() (int, error) {
	n, rest, err := msgp.ReadArrayHeaderBytes(r.rest)
	return r.elements(n, 1, rest, err)
}

// elements checks the declared number of elements, each of width values and so of as many bytes
// at least.
func (r *Reader) elements(n uint32, width int, rest []byte, err error) (int, error) {
	if err := r.done(rest, err); err != nil {
		return 0, err
	}
	if int64(n)*int64(width) > int64(len(r.rest)) {
		return 0, ErrShort
	}
	if int64(n) > int64(r.limits.Elements) {
		return 0, fmt.Errorf("%w: %d elements, at most %d", ErrLimit, n, r.limits.Elements)
	}
	return int(n), nil
}

// Bool reads a bool.
func (r *Reader) Bool() (bool, error) {
	v, rest, err := msgp.ReadBoolBytes(r.rest)
	return v, r.done(rest, err)
}

// Int reads an integer of any form.
func (r *Reader) Int() (int64, error) {
	t, err := r.next()
	if err != nil {
		return 0, err
	}
	switch t {
	case msgp.IntType:
		v, rest, err := msgp.ReadInt64Bytes(r.rest)
		return v, r.done(rest, err)
	case msgp.UintType:
		v, rest, err := msgp.ReadUint64Bytes(r.rest)
		if err := r.done(rest, err); err != nil {
			return 0, err
		}
		if v > 1<<63-1 {
			return 0, fmt.Errorf("%w: integer too large", ErrLimit)
		}
		return int64(v), nil
	}
	return 0, fmt.Errorf("%w: %v instead of an integer", ErrType, t)
}

// Number reads a float or an integer of any form; nil is 0.
func (r *Reader) Number() (float64, error) {
	t, err := r.next()
	if err != nil {
		return 0, err
	}
	switch t {
	case msgp.NilType:
		return 0, r.Nil()
	case msgp.Float64Type:
		v, rest, err := msgp.ReadFloat64Bytes(r.rest)
		return v, r.done(rest, err)
	case msgp.Float32Type:
		v, rest, err := msgp.ReadFloat32Bytes(r.rest)
		return float64(v), r.done(rest, err)
	case msgp.UintType:
		v, rest, err := msgp.ReadUint64Bytes(r.rest)
		return float64(v), r.done(rest, err)
	case msgp.IntType:
		v, rest, err := msgp.ReadInt64Bytes(r.rest)
		return float64(v), r.done(rest, err)
	}
	return 0, fmt.Errorf("%w: %v instead of a number", ErrType, t)
}

// Skip reads one value of any type that stands in as many arrays and maps as depth says: 0 for one
// that stands alone. Nesting is limited from the outermost on.
func (r *Reader) Skip(depth int) error {
	t, err := r.next()
	if err != nil {
		return err
	}
	var n int
	switch t {
	case msgp.MapType:
		n, err = r.Map()
		n *= 2
	case msgp.ArrayType:
		n, err = r.Array()
	case msgp.StrType, msgp.BinType:
		_, err = r.Bytes()
		return err
	default: // of fixed size, or an extension whose length is compared with what is there
		rest, err := msgp.Skip(r.rest)
		return r.done(rest, err)
	}
	if err != nil {
		return err
	}
	if depth >= r.limits.Depth {
		return fmt.Errorf("%w: nested more than %d deep", ErrLimit, r.limits.Depth)
	}
	for range n {
		if err := r.Skip(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

// done takes the rest over, or says what was wrong in our words.
func (r *Reader) done(rest []byte, err error) error {
	switch {
	case err == nil:
		r.rest = rest
		return nil
	case errors.Is(err, msgp.ErrShortBytes):
		return ErrShort
	default:
		return fmt.Errorf("%w: %w", ErrType, err)
	}
}
