package access

import (
	"net/netip"
	"time"
)

// wrongTokens counts wrong tokens by address, in windows of a minute that begin with the first. It
// is bounded: addresses beyond maxAddresses within a minute share one count.
type wrongTokens struct {
	perMinute int
	seen      map[netip.Prefix]window
	rest      window
	swept     time.Time
}

type window struct {
	began time.Time
	n     int
}

func newWrongTokens(perMinute int) wrongTokens {
	return wrongTokens{perMinute: perMinute, seen: make(map[netip.Prefix]window)}
}

// add counts one and reports whether it is more than may be.
func (w *wrongTokens) add(from netip.Addr, now time.Time) bool {
	if now.Sub(w.swept) >= time.Minute {
		w.swept = now
		for p, v := range w.seen {
			if now.Sub(v.began) >= time.Minute {
				delete(w.seen, p)
			}
		}
	}
	key := network(from)
	v, known := w.seen[key]
	shared := !known && len(w.seen) >= maxAddresses
	if shared {
		v = w.rest
	}
	if now.Sub(v.began) >= time.Minute {
		v = window{began: now}
	}
	v.n++
	if shared {
		w.rest = v
	} else {
		w.seen[key] = v
	}
	return v.n > w.perMinute
}

// network returns what one peer can be taken to have: an IPv4 address, or 64 bits of IPv6.
func network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero Prefix for the zero Addr
	return p
}
