package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Ports of media, also those that end users are told instead.
const (
	minPort = 80
	maxPort = 49151
)

var (
	ruleAddresses = "must be a comma list of IP addresses, or empty for all"
	rulePort      = fmt.Sprintf("must be from %d to %d", minPort, maxPort)
)

// UDPAddresses returns the addresses for media over UDP, each once; nil means all local addresses.
func (r RTC) UDPAddresses() ([]netip.Addr, error) { return parseAddresses(r.ICEAddressUDP) }

// TCPAddresses returns the addresses for media over TCP, each once; nil means all local addresses.
func (r RTC) TCPAddresses() ([]netip.Addr, error) { return parseAddresses(r.ICEAddressTCP) }

// parseAddresses reads a comma list of IP addresses. An unspecified one (0.0.0.0, ::) means all,
// whatever else is in the list.
func parseAddresses(list string) ([]netip.Addr, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var addrs []netip.Addr
	seen := map[netip.Addr]bool{}
	all := false
	for part := range strings.SplitSeq(list, ",") {
		addr, err := parseAddress(part)
		if err != nil {
			return nil, err
		}
		all = all || addr.IsUnspecified()
		if !seen[addr] {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	if all {
		return nil, nil
	}
	return addrs, nil
}

// parseAddress reads one IP address, without zone; IPv4 in IPv6 form becomes IPv4.
func parseAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", clip(text))
	}
	return addr.Unmap(), nil
}

// A HostOverrideKind says what form the override of host candidates' addresses has.
type HostOverrideKind int

// Forms of the override.
const (
	HostOverrideNone    HostOverrideKind = iota
	HostOverrideAddress                  // one external IP address
	HostOverrideName                     // a host name, to be looked up for each new session
	HostOverridePairs                    // external addresses for internal ones
)

// A HostOverride says which addresses end users are told instead of the local ones.
type HostOverride struct {
	Kind  HostOverrideKind
	Addr  netip.Addr    // HostOverrideAddress
	Name  string        // HostOverrideName
	Pairs []AddressPair // HostOverridePairs, as they stand; no internal address twice
}

// An AddressPair tells end users External instead of Internal.
type AddressPair struct{ External, Internal netip.Addr }

// HostOverride returns the parsed ice_host_override.
func (r RTC) HostOverride() (HostOverride, error) {
	text := strings.TrimSpace(r.ICEHostOverride)
	if text == "" {
		return HostOverride{}, nil
	}
	if strings.Contains(text, "/") {
		pairs, err := parsePairs(text)
		return HostOverride{Kind: HostOverridePairs, Pairs: pairs}, err
	}
	if addr, err := parseAddress(text); err == nil {
		if addr.IsUnspecified() {
			return HostOverride{}, fmt.Errorf("must not be the unspecified address")
		}
		return HostOverride{Kind: HostOverrideAddress, Addr: addr}, nil
	}
	if !isHostName(text) {
		return HostOverride{}, fmt.Errorf("must be an IP address, a host name, or a comma list of external/internal pairs of IP addresses")
	}
	return HostOverride{Kind: HostOverrideName, Name: text}, nil
}

func parsePairs(text string) ([]AddressPair, error) {
	var pairs []AddressPair
	seen := map[netip.Addr]bool{}
	for part := range strings.SplitSeq(text, ",") {
		left, right, _ := strings.Cut(part, "/")
		external, errE := parseAddress(left)
		internal, errI := parseAddress(right)
		switch {
		case errE != nil || errI != nil:
			return nil, fmt.Errorf("must be external/internal IP addresses, which %q is not", clip(part))
		case external.Is4() != internal.Is4():
			return nil, fmt.Errorf("must pair addresses of one family, which %q does not", clip(part))
		case seen[internal]:
			return nil, fmt.Errorf("must not have an internal address twice, as it has %s", internal)
		}
		seen[internal] = true
		pairs = append(pairs, AddressPair{External: external, Internal: internal})
	}
	return pairs, nil
}

// A PortOverrideKind says what form the override of host candidates' ports has.
type PortOverrideKind int

// Forms of the override.
const (
	PortOverrideNone       PortOverrideKind = iota
	PortOverrideSingle                      // one port for all
	PortOverridePerAddress                  // chosen by the machine's addresses
)

// PortOverrides says which port end users are told instead of the one listened on.
type PortOverrides struct {
	Kind  PortOverrideKind
	Port  uint16           // PortOverrideSingle
	Ports []netip.AddrPort // PortOverridePerAddress: local addresses and the port each stands for
}

// PortOverrides returns the parsed ice_host_port_override.
func (r RTC) PortOverrides() (PortOverrides, error) {
	text := strings.TrimSpace(string(r.ICEHostPortOverride))
	if text == "" {
		return PortOverrides{}, nil
	}
	if !strings.Contains(text, "/") {
		port, err := parseMediaPort(text)
		if err != nil {
			return PortOverrides{}, err
		}
		return PortOverrides{Kind: PortOverrideSingle, Port: port}, nil
	}
	o := PortOverrides{Kind: PortOverridePerAddress}
	addrs, ports := map[netip.Addr]bool{}, map[uint16]bool{}
	for part := range strings.SplitSeq(text, ",") {
		left, right, _ := strings.Cut(part, "/")
		addr, err := parseAddress(left)
		if err != nil {
			return PortOverrides{}, fmt.Errorf("must be localIP/port pairs, which %q is not", clip(part))
		}
		port, err := parseMediaPort(strings.TrimSpace(right))
		if err != nil {
			return PortOverrides{}, err
		}
		if addrs[addr] {
			return PortOverrides{}, fmt.Errorf("must not have an address twice, as it has %s", addr)
		}
		if ports[port] {
			return PortOverrides{}, fmt.Errorf("must not have a port twice, as it has %d", port)
		}
		addrs[addr], ports[port] = true, true
		o.Ports = append(o.Ports, netip.AddrPortFrom(addr, port))
	}
	return o, nil
}

func parseMediaPort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < minPort || n > maxPort {
		return 0, fmt.Errorf("%s, or be localIP/port pairs with such ports", rulePort)
	}
	return uint16(n), nil
}

// For returns the port that end users are told by a machine with the local addresses given: of the
// first of them that the override names. It reports false if the port is not overridden.
func (o PortOverrides) For(local []netip.Addr) (uint16, bool) {
	switch o.Kind {
	case PortOverrideSingle:
		return o.Port, true
	case PortOverridePerAddress:
		for _, addr := range local {
			for _, p := range o.Ports {
				if p.Addr() == addr.Unmap().WithZone("") {
					return p.Port(), true
				}
			}
		}
	}
	return 0, false
}
