package msgpack

import "github.com/tinylib/msgp/msgp"

// AppendMap appends the head of a map of n pairs.
func AppendMap(dst []byte, n int) []byte { return msgp.AppendMapHeader(dst, uint32(n)) }

// AppendArray appends the head of an array of n values.
func AppendArray(dst []byte, n int) []byte { return msgp.AppendArrayHeader(dst, uint32(n)) }

// AppendString appends a str.
func AppendString(dst []byte, s string) []byte { return msgp.AppendString(dst, s) }

// AppendBytes appends a bin.
func AppendBytes(dst, b []byte) []byte { return msgp.AppendBytes(dst, b) }

// AppendBool appends a bool.
func AppendBool(dst []byte, v bool) []byte { return msgp.AppendBool(dst, v) }

// AppendInt appends an integer in its shortest form.
func AppendInt(dst []byte, v int64) []byte { return msgp.AppendInt64(dst, v) }

// AppendUint8 appends an integer in the form uint 8, even if a shorter one would do.
func AppendUint8(dst []byte, v uint8) []byte { return append(dst, 0xcc, v) }

// AppendFloat appends a float 64.
func AppendFloat(dst []byte, v float64) []byte { return msgp.AppendFloat64(dst, v) }
