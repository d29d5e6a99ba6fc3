package logging

import (
	"bytes"
	"io"
	"net/netip"
)

// Prefixes that are left of an address.
const (
	redactedBits4 = 24
	redactedBits6 = 48
)

// A redactor cuts the addresses in lines to their networks, whatever part of a line they are in: also
// those in the texts of errors.
type redactor struct {
	out io.Writer
	own map[netip.Addr]bool // of this machine; they stay
}

// newRedactor returns a writer of lines to out. own are addresses of this machine.
func newRedactor(out io.Writer, own []netip.Addr) *redactor {
	r := &redactor{out: out, own: map[netip.Addr]bool{netip.IPv4Unspecified(): true, netip.IPv6Unspecified(): true}}
	for _, a := range own {
		r.own[a.Unmap().WithZone("")] = true
	}
	return r
}

// Write implements io.Writer for one whole line.
func (r *redactor) Write(line []byte) (int, error) {
	if _, err := r.out.Write(r.redact(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// redact returns the line with its addresses cut. An address that stays is left as it is, with its port.
func (r *redactor) redact(line []byte) []byte {
	var out []byte // nil while nothing was changed
	kept := 0
	for i := 0; i < len(line); {
		if !addressByte(line[i]) {
			i++
			continue
		}
		end := i
		for end < len(line) && addressByte(line[end]) {
			end++
		}
		for i < end {
			from, to, cut := r.find(line, i, end)
			if to == 0 {
				break
			}
			if cut != nil {
				out = append(append(out, line[kept:from]...), cut...)
				kept = to
			}
			i = to
		}
		i = end
	}
	if out == nil {
		return line
	}
	return append(out, line[kept:]...)
}

// addressByte reports whether an address may have such a byte.
func addressByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '.' || c == ':'
}

// find returns where in line[begin:end], all of it bytes of addresses, the first address is, with its
// port, and what is to stand for it; nil if it stays. Without one, to is 0.
func (r *redactor) find(line []byte, begin, end int) (from, to int, cut []byte) {
	word := bytes.TrimRight(line[begin:end], ":.")
	// One of version 6, or of version 4 in its form, is a word of its own. In brackets it has a port.
	if bytes.Count(word, []byte(":")) >= 2 {
		for _, w := range [][]byte{line[begin:end], word} {
			if a, err := netip.ParseAddr(string(w)); err == nil {
				return begin, r.behind(line, begin, begin+len(w)), r.cut(a)
			}
		}
	}
	for i := begin; i < end; i++ {
		if line[i] < '0' || line[i] > '9' || i > begin && (line[i-1] == '.' || line[i-1] >= '0' && line[i-1] <= '9') {
			continue
		}
		stop := i
		for stop < end && (line[stop] == '.' || line[stop] >= '0' && line[stop] <= '9') {
			stop++
		}
		for stop > i && line[stop-1] == '.' {
			stop--
		}
		if a, err := netip.ParseAddr(string(line[i:stop])); err == nil {
			return i, r.behind(line, i, stop), r.cut(a)
		}
	}
	return 0, 0, nil
}

// behind returns where the port of an address in line[from:to] ends, or to without one.
func (r *redactor) behind(line []byte, from, to int) int {
	i := to
	if from > 0 && line[from-1] == '[' && i < len(line) && line[i] == ']' {
		// The bracket stays, and with it the port: the closing one is written again by nobody.
		return to
	}
	if i >= len(line) || line[i] != ':' {
		return to
	}
	j := i + 1
	for j < len(line) && line[j] >= '0' && line[j] <= '9' {
		j++
	}
	if j == i+1 {
		return to
	}
	return j
}

// cut returns the network of an address, and nil for one that stays.
func (r *redactor) cut(a netip.Addr) []byte {
	a = a.Unmap()
	if r.own[a] {
		return nil
	}
	bits := redactedBits6
	if a.Is4() {
		bits = redactedBits4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return []byte("redacted")
	}
	return p.AppendTo(nil)
}
