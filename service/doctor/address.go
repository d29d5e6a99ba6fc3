package doctor

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"rtcd/config"
)

// mediaLocals are the addresses that media listens on if none are named: all of IPv4, and on
// request those of IPv6 but link-local ones.
func (v *visit) mediaLocals() []netip.Addr {
	var out []netip.Addr
	for _, l := range v.local {
		if l.addr.Is4() || v.Config.RTC.EnableIPv6 && l.addr.IsGlobalUnicast() {
			out = append(out, l.addr)
		}
	}
	return out
}

// named are the addresses that the configuration names for media.
func (v *visit) named() []netip.Addr {
	udp, errUDP := v.Config.RTC.UDPAddresses()
	tcp, errTCP := v.Config.RTC.TCPAddresses()
	if errUDP != nil || errTCP != nil {
		return nil
	}
	return append(udp, tcp...)
}

// candidates are the local addresses that end users are told, unless others are told instead.
func (v *visit) candidates() []netip.Addr {
	named := v.named()
	if named == nil {
		return v.mediaLocals()
	}
	var out []netip.Addr
	for _, l := range v.local {
		if slices.Contains(named, l.addr) {
			out = append(out, l.addr)
		}
	}
	return out
}

// shared is the range for the inside of providers' networks (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// private reports whether an address means nothing outside of its network.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

func public(a netip.Addr) bool { return a.IsGlobalUnicast() && !private(a) }

// nowhere reports whether an address leads to no other machine.
func nowhere(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
}

// checkCandidates judges the addresses that end users are told if nothing says others.
func checkCandidates(_ context.Context, v *visit) {
	r := v.Config.RTC
	if named := v.named(); len(named) > 0 && !slices.ContainsFunc(named, netip.Addr.Is4) {
		v.add(mediaIPv6Only, "rtc.ice_address_udp = %q, rtc.ice_address_tcp = %q", r.ICEAddressUDP, r.ICEAddressTCP)
	}
	if strings.TrimSpace(r.ICEHostOverride) != "" || r.DiscoveryAddress() != "" {
		return
	}
	candidates := v.candidates()
	if len(candidates) == 0 {
		return // checkPorts says why
	}
	outside := slices.DeleteFunc(slices.Clone(candidates), netip.Addr.IsLoopback)
	switch {
	case len(outside) == 0:
		v.add(mediaLoopback, "end users are told %s", list(candidates))
	case !slices.ContainsFunc(outside, func(a netip.Addr) bool { return !private(a) }):
		if where := v.container(outside); where != "" {
			v.add(candidateInContainer, "end users are told %s, and this is a container (%s)", list(outside), where)
		} else {
			v.add(candidatePrivate, "end users are told %s", list(outside))
		}
	}
}

func list(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// containerFiles are in containers alone.
var containerFiles = []string{"/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io/serviceaccount"}

// container says by what this is seen to be a container with a network of its own in which the
// addresses are, or "".
func (v *visit) container(addrs []netip.Addr) string {
	mark := ""
	for _, f := range containerFiles {
		if _, err := v.host.Stat(f); err == nil {
			mark = f
			break
		}
	}
	if data, err := v.host.ReadFile("/proc/1/cgroup"); mark == "" && err == nil {
		for _, word := range []string{"docker", "kubepods", "containerd", "libpod", "/lxc"} {
			if strings.Contains(string(data), word) {
				mark = "/proc/1/cgroup"
				break
			}
		}
	}
	if mark == "" {
		return ""
	}
	// With the network of the host the addresses are the host's. Those of a network of its own are
	// on an interface whose other end is elsewhere.
	for _, l := range v.local {
		if !slices.Contains(addrs, l.addr) {
			continue
		}
		index, errI := v.host.ReadFile("/sys/class/net/" + l.iface + "/ifindex")
		link, errL := v.host.ReadFile("/sys/class/net/" + l.iface + "/iflink")
		if errI == nil && errL == nil && string(index) == string(link) {
			return ""
		}
	}
	return mark
}

// checkOverride judges the override as it stands.
func checkOverride(_ context.Context, v *visit) {
	r := v.Config.RTC
	candidates := v.candidates()
	if ports, err := r.PortOverrides(); err == nil && ports.Kind == config.PortOverridePerAddress && len(candidates) > 0 {
		if _, ok := ports.For(candidates); !ok {
			v.add(overridePort, "rtc.ice_host_port_override = %q, but media is on %s", string(r.ICEHostPortOverride), list(candidates))
		}
	}
	o, err := r.HostOverride()
	if err != nil {
		return
	}
	switch o.Kind {
	case config.HostOverrideAddress:
		v.judgeExternal([]netip.Addr{o.Addr}, "")
	case config.HostOverridePairs:
		v.judgePairs(o.Pairs, candidates)
	}
}

// checkOverrideName looks the name of the override up.
func checkOverrideName(ctx context.Context, v *visit) {
	o, err := v.Config.RTC.HostOverride()
	if err != nil || o.Kind != config.HostOverrideName {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	addrs, err := v.host.Lookup(ctx, o.Name)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	if !v.Config.RTC.EnableIPv6 {
		addrs = slices.DeleteFunc(addrs, netip.Addr.Is6)
	}
	switch {
	case err != nil:
		v.add(overrideUnresolvable, "rtc.ice_host_override = %q: %v", o.Name, err)
	case len(addrs) == 0:
		v.add(overrideUnresolvable, "rtc.ice_host_override = %q: no address of a family that is used", o.Name)
	default:
		v.judgeExternal(addrs, " resolves to "+list(addrs))
	}
}

// judgeExternal judges addresses that are told in place of all local ones. how says how they were
// come by.
func (v *visit) judgeExternal(external []netip.Addr, how string) {
	text := v.Config.RTC.ICEHostOverride
	candidates := v.candidates()
	family := func(a netip.Addr) func(netip.Addr) bool {
		return func(b netip.Addr) bool { return a.Is4() == b.Is4() }
	}
	for _, a := range external {
		i := slices.IndexFunc(v.local, func(l local) bool { return public(l.addr) && family(a)(l.addr) })
		switch {
		case nowhere(a):
			v.add(overrideUnreachable, "rtc.ice_host_override = %q%s", text, how)
		case len(candidates) > 0 && !slices.ContainsFunc(candidates, family(a)) && len(external) == 1:
			v.add(overrideUnused, "rtc.ice_host_override = %q%s, but media is on %s", text, how, list(candidates))
		case private(a) && i >= 0:
			v.add(overridePrivate, "rtc.ice_host_override = %q%s, but this machine has %s", text, how, v.local[i].addr)
		default:
			continue
		}
		return
	}
}

func (v *visit) judgePairs(pairs []config.AddressPair, candidates []netip.Addr) {
	var lost []netip.Addr
	someone := slices.ContainsFunc(pairs, func(p config.AddressPair) bool { return public(p.External) })
	for _, p := range pairs {
		switch {
		case nowhere(p.External):
			v.add(overrideUnreachable, "rtc.ice_host_override: %s is told instead of %s", p.External, p.Internal)
		case private(p.External) && someone:
			v.add(overridePrivate, "rtc.ice_host_override: %s is told instead of %s, beside public ones", p.External, p.Internal)
		}
		if !slices.Contains(candidates, p.Internal) {
			lost = append(lost, p.Internal)
		}
	}
	// One file may serve several machines, each of which has some of the addresses.
	if len(lost) == len(pairs) {
		v.add(overrideNotLocal, "rtc.ice_host_override = %q, but media is on %s", v.Config.RTC.ICEHostOverride, list(candidates))
	}
}

// checkIPv6 looks whether IPv6, if wanted, is there in full.
func checkIPv6(_ context.Context, v *visit) {
	if named := v.named(); !v.Config.RTC.EnableIPv6 || named != nil && !slices.ContainsFunc(named, netip.Addr.Is6) {
		return
	}
	if _, err := v.host.ReadFile("/proc/net/if_inet6"); err != nil {
		v.add(ipv6Disabled, "rtc.enable_ipv6 = true, but the kernel has no IPv6: %v", err)
		return
	}
	if data, err := v.host.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && strings.TrimSpace(string(data)) == "1" {
		v.add(ipv6Disabled, "rtc.enable_ipv6 = true, but net.ipv6.conf.all.disable_ipv6 = 1")
		return
	}
	var global, link []netip.Addr
	for _, l := range v.local {
		switch {
		case !l.addr.Is6():
		case l.addr.IsLinkLocalUnicast():
			link = append(link, l.addr)
		case l.addr.IsGlobalUnicast():
			global = append(global, l.addr)
		}
	}
	switch {
	case len(global) > 0:
		if data, err := v.host.ReadFile("/proc/net/ipv6_route"); err == nil && !defaultRoute(string(data)) {
			v.add(ipv6NoRoute, "rtc.enable_ipv6 = true with %s, but no default route", list(global))
		}
	case len(link) > 0:
		v.add(ipv6LinkLocal, "rtc.enable_ipv6 = true, but there is only %s", list(link))
	default:
		v.add(ipv6NoAddress, "rtc.enable_ipv6 = true, but no interface has an IPv6 address")
	}
}

// defaultRoute finds one in /proc/net/ipv6_route. What cannot be reached is shown as on lo.
func defaultRoute(table string) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 10 && strings.Trim(f[0], "0") == "" && f[1] == "00" && f[9] != "lo" {
			return true
		}
	}
	return false
}
