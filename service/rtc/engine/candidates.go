package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Override says under which address and port endpoints reach this machine, where that differs
// from what the machine knows.
type Override struct {
	Pairs map[netip.Addr]netip.Addr // local address to external one; used alone if not nil
	Addr  netip.Addr                // one external address
	Name  string                    // or one external host name, looked up for each session

	Port uint16 // of external addresses; 0: the port we listen on

	// Found is what discovery found for local addresses. It counts if nothing above is set.
	Found map[netip.Addr]netip.Addr
}

// lookupTime bounds the look-up of Override.Name.
const lookupTime = time.Second

// Resolver looks host names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// mapping is an Override for one session, names looked up.
type mapping struct {
	external map[netip.Addr]netip.Addr
	port     uint16
	always   bool // the port counts where the external address is the local one, too
}

// resolve makes the mapping of a session for the machine's local addresses.
func (o Override) resolve(ctx context.Context, r Resolver, local []netip.Addr, ipv6 bool) (mapping, error) {
	m := mapping{port: o.Port}
	switch {
	case o.Pairs != nil:
		m.external = o.Pairs
	case o.Addr.IsValid():
		m.external, m.always = spread([]netip.Addr{o.Addr}, local), true
	case o.Name != "":
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		network := "ip4"
		if ipv6 {
			network = "ip"
		}
		addrs, err := r.LookupNetIP(ctx, network, o.Name)
		if err != nil {
			return mapping{}, fmt.Errorf("look up ice_host_override %q: %w", o.Name, err)
		}
		if len(addrs) == 0 {
			return mapping{}, errors.New("look up ice_host_override: no address")
		}
		m.external, m.always = spread(addrs, local), true
	default:
		m.external = o.Found
	}
	return m, nil
}

// spread maps local addresses to the first external one of their family: a single local address
// whatever it is, of several each but loopback.
func spread(external, local []netip.Addr) map[netip.Addr]netip.Addr {
	m := make(map[netip.Addr]netip.Addr)
	for _, v4 := range []bool{true, false} {
		var to netip.Addr
		for _, a := range external {
			if a = a.Unmap(); a.Is4() == v4 {
				to = a
				break
			}
		}
		if !to.IsValid() {
			continue
		}
		var family []netip.Addr
		for _, a := range local {
			if a.Is4() == v4 {
				family = append(family, a)
			}
		}
		for _, a := range family {
			if len(family) == 1 || !a.IsLoopback() {
				m[a] = to
			}
		}
	}
	return m
}

// candidate returns the text of a candidate as endpoints are told it. Text that is not a host
// candidate's passes unchanged.
func (m mapping) candidate(text string) string {
	if len(m.external) == 0 {
		return text
	}
	// candidate:foundation component transport priority address port typ host ...
	f := strings.Split(text, " ")
	if len(f) < 8 || f[6] != "typ" || f[7] != "host" {
		return text
	}
	local, err := netip.ParseAddr(f[4])
	if err != nil {
		return text
	}
	external, ok := m.external[local.Unmap()]
	if !ok || external == local.Unmap() && !m.always {
		return text
	}
	f[4] = external.String()
	if m.port != 0 {
		f[5] = strconv.Itoa(int(m.port))
	}
	return strings.Join(f, " ")
}

// description returns an SDP with its candidates as endpoints are told them. Two that become
// equal are one.
func (m mapping) description(sdp string) string {
	if len(m.external) == 0 {
		return sdp
	}
	const prefix = "a=candidate:"
	var b strings.Builder
	b.Grow(len(sdp))
	seen := make(map[string]bool)
	for line := range strings.Lines(sdp) {
		if strings.HasPrefix(line, "m=") {
			clear(seen)
		}
		if strings.HasPrefix(line, prefix) {
			body := strings.TrimRight(line, "\r\n")
			line = m.candidate(body) + line[len(body):]
			_, key, _ := strings.Cut(line, " ")
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		b.WriteString(line)
	}
	return b.String()
}
