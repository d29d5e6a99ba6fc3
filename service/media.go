package service

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"rtcd/config"
	"rtcd/service/rtc"
	"rtcd/service/rtc/engine"
)

// minHistory is how many packets of a video are kept for those who miss them, at least: two seconds
// of a good picture. More are kept if nack_buffer_size says so.
const minHistory = 512

// mediaConfig turns the rtc part of the configuration into what package rtc needs.
func mediaConfig(c config.RTC) (rtc.Config, error) {
	local, err := localAddrs(c.EnableIPv6)
	if err != nil {
		return rtc.Config{}, err
	}
	udp, err := c.UDPAddresses()
	if err != nil {
		return rtc.Config{}, fmt.Errorf("rtc.ice_address_udp: %w", err)
	}
	tcp, err := c.TCPAddresses()
	if err != nil {
		return rtc.Config{}, fmt.Errorf("rtc.ice_address_tcp: %w", err)
	}
	candidates := local
	if named := append(udp[:len(udp):len(udp)], tcp...); named != nil {
		candidates = only(local, named)
	}
	if udp == nil {
		udp = candidates
	}
	override, err := hostOverride(c, candidates)
	if err != nil {
		return rtc.Config{}, err
	}
	cfg := rtc.Config{
		UDPAddrs:       withPort(udp, c.ICEPortUDP),
		TCPAddrs:       withPort(tcp, c.ICEPortTCP),
		SocketsPerAddr: c.UDPSocketsCount,
		TCPConns:       c.Limits.TCPConnections,
		TCPConnsPerIP:  c.Limits.TCPConnectionsPerIP,
		Lite:           c.UseICELite(),
		Engine: engine.Config{
			Local:         candidates,
			IPv6:          c.EnableIPv6,
			Override:      override,
			RemoteAllowed: remoteAllowed(candidates),
			VideoCodecs:   c.VideoCodecs,
		},
		Screens:      screens(c.ScreenShares),
		Cameras:      c.LastCameras,
		Voices:       c.LoudestVoices,
		PauseLayers:  c.PauseLayers,
		RestartAfter: restartAfter(c),
		History:      max(c.NACKBufferSize, minHistory),
		Limits: rtc.Limits{
			SessionsPerCall:   c.Limits.SessionsPerCall,
			SessionsPerClient: c.Limits.SessionsPerClient,
			CallsPerClient:    c.Limits.CallsPerClient,
			JoinsPerSecond:    c.Limits.JoinsPerSecond,
			JoinsBurst:        c.Limits.JoinsBurst,
			RemoteCandidates:  c.Limits.RemoteCandidates,
			MediaSections:     c.Limits.MediaSections,
			BitratePerClient:  int64(c.Limits.BitratePerClient),
			Sessions:          c.Limits.Sessions,
			Calls:             c.Limits.Calls,
		},
	}
	if tcp == nil {
		any := netip.IPv4Unspecified()
		if c.EnableIPv6 {
			any = netip.IPv6Unspecified()
		}
		cfg.TCPAddrs = withPort([]netip.Addr{any}, c.ICEPortTCP)
	}
	if c.ICEHostOverride == "" {
		cfg.Discover = c.DiscoveryAddress()
	}
	return cfg, nil
}

// screens turns screen_shares, where 0 is no limit, into what package rtc takes.
func screens(shares int) int {
	if shares == 0 {
		return -1
	}
	return shares
}

// localAddrs lists the addresses of all interfaces that are up: those of IPv4, and on request the
// global ones of IPv6, unique local ones included.
func localAddrs(ipv6 bool) ([]netip.Addr, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []netip.Addr
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			if addr := prefix.Addr().Unmap(); addr.Is4() || ipv6 && addr.IsGlobalUnicast() {
				out = append(out, addr)
			}
		}
	}
	if out == nil {
		return nil, fmt.Errorf("no local address to serve media on")
	}
	return out, nil
}

// only returns those of local that are named.
func only(local, named []netip.Addr) []netip.Addr {
	want := make(map[netip.Addr]bool, len(named))
	for _, a := range named {
		want[a] = true
	}
	var out []netip.Addr
	for _, a := range local {
		if want[a] {
			out = append(out, a)
		}
	}
	return out
}

func withPort(addrs []netip.Addr, port int) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, uint16(port)))
	}
	return out
}

// hostOverride turns ice_host_override and ice_host_port_override into an engine's override.
func hostOverride(c config.RTC, local []netip.Addr) (engine.Override, error) {
	host, err := c.HostOverride()
	if err != nil {
		return engine.Override{}, fmt.Errorf("rtc.ice_host_override: %w", err)
	}
	ports, err := c.PortOverrides()
	if err != nil {
		return engine.Override{}, fmt.Errorf("rtc.ice_host_port_override: %w", err)
	}
	var o engine.Override
	switch host.Kind {
	case config.HostOverrideAddress:
		o.Addr = host.Addr
	case config.HostOverrideName:
		o.Name = host.Name
	case config.HostOverridePairs:
		o.Pairs = make(map[netip.Addr]netip.Addr, len(host.Pairs))
		for _, p := range host.Pairs {
			o.Pairs[p.Internal] = p.External
		}
	}
	o.Port, _ = ports.For(local)
	return o, nil
}

// remoteAllowed says to which addresses a full ICE agent sends checks: none that a candidate could
// name to reach what is not an endpoint. Loopback counts as one where we have such a candidate.
func remoteAllowed(local []netip.Addr) func(netip.Addr) bool {
	loopback := false
	for _, a := range local {
		loopback = loopback || a.IsLoopback()
	}
	return func(a netip.Addr) bool {
		a = a.Unmap()
		switch {
		case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return false
		case a.IsLoopback():
			return loopback
		}
		return true
	}
}

// restartAfter is the silence after which an endpoint is offered to restart ICE; negative: never.
func restartAfter(c config.RTC) time.Duration {
	if !c.ICERestart {
		return -1
	}
	return c.ICERestartAfter
}
