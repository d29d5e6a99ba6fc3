package feed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Target is where a webhook's events go.
type Target struct {
	URL string
	// AllowPrivate allows http, and addresses that are not of the public internet.
	AllowPrivate bool
}

// ErrTarget is the error of a target that a webhook must not have.
var ErrTarget = errors.New("not allowed as a target of webhooks")

// resolveTime bounds Resolve.
const resolveTime = 5 * time.Second

// Check says what is wrong with a target as it is written. It asks nobody.
func (t Target) Check() error { _, err := t.parse(); return err }

// The errors do not repeat the URL: it may hold what is meant for the receiver alone.
func (t Target) parse() (*url.URL, error) {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return nil, errors.New("webhook url: not a url")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("webhook url: scheme is neither https nor http")
	case u.Scheme == "http" && !t.AllowPrivate:
		return nil, fmt.Errorf("webhook url: http is %w without allow_private", ErrTarget)
	case u.Hostname() == "":
		return nil, errors.New("webhook url: no host")
	case u.User != nil:
		return nil, errors.New("webhook url: has credentials; receivers check the signature")
	case u.Fragment != "":
		return nil, errors.New("webhook url: has a fragment")
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !t.AllowPrivate {
		if err := refuseAddr(addr); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// Resolve looks the target up and says which of its addresses a webhook would not connect to. An answer
// counts for this moment alone: at each connection the address is looked at again.
func (t Target) Resolve(ctx context.Context, r *net.Resolver) error {
	u, err := t.parse()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	addrs, err := r.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fmt.Errorf("look up the host of a webhook: %w", err)
	}
	for _, addr := range addrs {
		if err := refuseAddr(addr); err != nil && !t.AllowPrivate {
			return err
		}
	}
	return nil
}

// notPublic are the addresses that are not of the public internet, or lead to such (IANA's registries of
// special purpose addresses; the metadata service of one cloud has a public address).
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// globalUnicast is all of IPv6 that is given out; what is not in it is refused.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

// refuseAddr says why a webhook must not connect to an address.
func refuseAddr(addr netip.Addr) error {
	plain := addr.Unmap().WithZone("")
	refused := !plain.IsValid() || plain.Is6() && !globalUnicast.Contains(plain)
	for _, p := range notPublic {
		refused = refused || p.Contains(plain)
	}
	if refused {
		return fmt.Errorf("address %s is %w without allow_private", plain, ErrTarget)
	}
	return nil
}

// refuseOwn says whether an address is one that this server listens on. own are host:port.
func refuseOwn(to netip.AddrPort, own []string, local func() ([]net.Addr, error)) error {
	for _, text := range own {
		host, port, err := net.SplitHostPort(text)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || uint16(n) != to.Port() {
			continue
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case err == nil && addr.Unmap().WithZone("") == to.Addr():
			return fmt.Errorf("address %s, of this server, is %w without allow_private", to, ErrTarget)
		case err == nil && !addr.IsUnspecified():
			continue
		}
		mine, err := local()
		if err != nil {
			return fmt.Errorf("list the addresses of this machine: %w", err)
		}
		for _, a := range mine {
			if n, ok := a.(*net.IPNet); ok && strings.HasPrefix(n.String(), to.Addr().String()+"/") {
				return fmt.Errorf("address %s, of this server, is %w without allow_private", to, ErrTarget)
			}
		}
	}
	return nil
}

// guard returns the control function of a dialer: it is asked with the address that a connection goes to,
// after the name was looked up, each time.
func (t Target) guard(own func() []string) func(network, address string, c syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		if t.AllowPrivate {
			return nil
		}
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %.64q is %w", address, ErrTarget)
		}
		to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
		if err := refuseAddr(to.Addr()); err != nil {
			return err
		}
		if own == nil {
			return nil
		}
		return refuseOwn(to, own(), net.InterfaceAddrs)
	}
}
