package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, addr(s))
	}
	return out
}

// names is a Resolver with a fixed answer that notes what it was asked.
type names struct {
	addrs   []netip.Addr
	err     error
	network string
	within  time.Duration
}

func (n *names) LookupNetIP(ctx context.Context, network, _ string) ([]netip.Addr, error) {
	n.network = network
	if end, ok := ctx.Deadline(); ok {
		n.within = time.Until(end)
	}
	return n.addrs, n.err
}

func udp(ip string, port int) string {
	return fmt.Sprintf("candidate:2878742611 1 udp 2130706431 %s %d typ host ufrag WUqGrErsmOMQUhXb", ip, port)
}

func tcp(ip string, port int) string {
	return fmt.Sprintf("candidate:375738803 1 tcp 1671430143 %s %d typ host tcptype passive ufrag WUqGrErsmOMQUhXb", ip, port)
}

func TestMapping(t *testing.T) {
	pairs := map[netip.Addr]netip.Addr{
		addr("10.0.0.1"): addr("203.0.113.1"),
		addr("10.0.0.2"): addr("10.0.0.2"),
		addr("fd00::1"):  addr("2001:db8::1"),
	}
	found := map[netip.Addr]netip.Addr{addr("10.0.0.1"): addr("198.51.100.7")}
	for _, c := range []struct {
		name     string
		override Override
		local    []netip.Addr
		ipv6     bool
		lookup   []netip.Addr
		in, want string
	}{
		{"nothing set", Override{}, addrs("10.0.0.1"), false, nil, udp("10.0.0.1", 8443), udp("10.0.0.1", 8443)},
		{"a port alone changes nothing", Override{Port: 443}, addrs("10.0.0.1"), false, nil,
			udp("10.0.0.1", 8443), udp("10.0.0.1", 8443)},

		{"address, one local", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil,
			udp("10.0.0.1", 8443), udp("203.0.113.1", 8443)},
		{"address, tcp", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil,
			tcp("10.0.0.1", 8443), tcp("203.0.113.1", 8443)},
		{"address and port", Override{Addr: addr("203.0.113.1"), Port: 443}, addrs("10.0.0.1"), false, nil,
			udp("10.0.0.1", 8443), udp("203.0.113.1", 443)},
		{"address and port, tcp", Override{Addr: addr("203.0.113.1"), Port: 443}, addrs("10.0.0.1"), false, nil,
			tcp("10.0.0.1", 8443), tcp("203.0.113.1", 443)},
		{"the only address is loopback", Override{Addr: addr("203.0.113.1"), Port: 443}, addrs("127.0.0.1"), false, nil,
			udp("127.0.0.1", 8443), udp("203.0.113.1", 443)},
		{"the external address is the local one", Override{Addr: addr("10.0.0.1"), Port: 443}, addrs("10.0.0.1"), false, nil,
			udp("10.0.0.1", 8443), udp("10.0.0.1", 443)},
		{"several local, the first", Override{Addr: addr("203.0.113.1")}, addrs("127.0.0.1", "10.0.0.1", "10.0.0.2"), false, nil,
			udp("10.0.0.1", 8443), udp("203.0.113.1", 8443)},
		{"several local, the second", Override{Addr: addr("203.0.113.1")}, addrs("127.0.0.1", "10.0.0.1", "10.0.0.2"), false, nil,
			udp("10.0.0.2", 8443), udp("203.0.113.1", 8443)},
		{"several local, loopback stays", Override{Addr: addr("203.0.113.1"), Port: 443},
			addrs("127.0.0.1", "10.0.0.1", "10.0.0.2"), false, nil, udp("127.0.0.1", 8443), udp("127.0.0.1", 8443)},
		{"several loopback addresses", Override{Addr: addr("203.0.113.1")}, addrs("127.0.0.1", "127.0.0.2"), false, nil,
			udp("127.0.0.2", 8443), udp("127.0.0.2", 8443)},
		{"IPv4 override leaves IPv6 alone", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1", "fd00::1"), true, nil,
			udp("fd00::1", 8443), udp("fd00::1", 8443)},
		{"IPv6 override leaves IPv4 alone", Override{Addr: addr("2001:db8::1"), Port: 443}, addrs("10.0.0.1", "fd00::1"), true, nil,
			udp("10.0.0.1", 8443), udp("10.0.0.1", 8443)},
		{"IPv6 override", Override{Addr: addr("2001:db8::1"), Port: 443}, addrs("10.0.0.1", "fd00::1"), true, nil,
			udp("fd00::1", 8443), udp("2001:db8::1", 443)},

		{"name", Override{Name: "media.example"}, addrs("10.0.0.1"), false, addrs("203.0.113.9"),
			udp("10.0.0.1", 8443), udp("203.0.113.9", 8443)},
		{"name and port (C1)", Override{Name: "media.example", Port: 443}, addrs("10.0.0.1"), false, addrs("203.0.113.9"),
			udp("10.0.0.1", 8443), udp("203.0.113.9", 443)},
		{"name, the first address counts", Override{Name: "media.example"}, addrs("10.0.0.1"), false,
			addrs("203.0.113.9", "203.0.113.8"), udp("10.0.0.1", 8443), udp("203.0.113.9", 8443)},
		{"name, IPv4 in IPv6 form", Override{Name: "media.example"}, addrs("10.0.0.1"), false,
			addrs("::ffff:203.0.113.9"), udp("10.0.0.1", 8443), udp("203.0.113.9", 8443)},
		{"name with both families, IPv4", Override{Name: "media.example"}, addrs("10.0.0.1", "fd00::1"), true,
			addrs("2001:db8::9", "203.0.113.9"), udp("10.0.0.1", 8443), udp("203.0.113.9", 8443)},
		{"name with both families, IPv6", Override{Name: "media.example"}, addrs("10.0.0.1", "fd00::1"), true,
			addrs("2001:db8::9", "203.0.113.9"), tcp("fd00::1", 8443), tcp("2001:db8::9", 8443)},

		{"pairs", Override{Pairs: pairs}, addrs("10.0.0.1"), false, nil, udp("10.0.0.1", 8443), udp("203.0.113.1", 8443)},
		{"pairs and port", Override{Pairs: pairs, Port: 443}, addrs("10.0.0.1"), false, nil,
			tcp("10.0.0.1", 8443), tcp("203.0.113.1", 443)},
		{"pair with equal sides keeps its port", Override{Pairs: pairs, Port: 443}, addrs("10.0.0.2"), false, nil,
			udp("10.0.0.2", 8443), udp("10.0.0.2", 8443)},
		{"no pair", Override{Pairs: pairs, Port: 443}, addrs("10.0.0.3"), false, nil,
			udp("10.0.0.3", 8443), udp("10.0.0.3", 8443)},
		{"pair of IPv6", Override{Pairs: pairs, Port: 443}, addrs("fd00::1"), true, nil,
			udp("fd00::1", 8443), udp("2001:db8::1", 443)},
		{"pairs before all else", Override{Pairs: map[netip.Addr]netip.Addr{}, Addr: addr("203.0.113.1"), Found: found},
			addrs("10.0.0.1"), false, nil, udp("10.0.0.1", 8443), udp("10.0.0.1", 8443)},

		{"found", Override{Found: found}, addrs("10.0.0.1", "10.0.0.2"), false, nil,
			udp("10.0.0.1", 8443), udp("198.51.100.7", 8443)},
		{"found, port", Override{Found: found, Port: 443}, addrs("10.0.0.1", "10.0.0.2"), false, nil,
			udp("10.0.0.1", 8443), udp("198.51.100.7", 443)},
		{"found for another address", Override{Found: found, Port: 443}, addrs("10.0.0.1", "10.0.0.2"), false, nil,
			udp("10.0.0.2", 8443), udp("10.0.0.2", 8443)},
		{"address before found", Override{Found: found, Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil,
			udp("10.0.0.1", 8443), udp("203.0.113.1", 8443)},

		{"not a host candidate", Override{Addr: addr("203.0.113.1"), Port: 443}, addrs("10.0.0.1"), false, nil,
			"candidate:1 1 udp 1694498815 10.0.0.1 9 typ srflx raddr 10.0.0.1 rport 9",
			"candidate:1 1 udp 1694498815 10.0.0.1 9 typ srflx raddr 10.0.0.1 rport 9"},
		{"not a candidate", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil, "candidate:", "candidate:"},
		{"not an address", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil,
			udp("a1b2.local", 8443), udp("a1b2.local", 8443)},
		{"nothing at all", Override{Addr: addr("203.0.113.1")}, addrs("10.0.0.1"), false, nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := c.override.resolve(t.Context(), &names{addrs: c.lookup}, c.local, c.ipv6)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.candidate(c.in); got != c.want {
				t.Errorf("candidate\ngot  %s\nwant %s", got, c.want)
			}
			// The same inside a description (C1), where the line has another beginning.
			in := "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=" + c.in + "\r\na=mid:0\r\n"
			want := "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=" + c.want + "\r\na=mid:0\r\n"
			if got := m.description(in); got != want {
				t.Errorf("description\ngot  %q\nwant %q", got, want)
			}
		})
	}
}

func TestResolveName(t *testing.T) {
	gone := errors.New("no such host")
	for _, c := range []struct {
		name    string
		ipv6    bool
		answer  names
		network string
		fails   bool
	}{
		{"IPv4", false, names{addrs: addrs("203.0.113.9")}, "ip4", false},
		{"IPv6 enabled", true, names{addrs: addrs("203.0.113.9")}, "ip", false},
		{"fails", false, names{err: gone}, "ip4", true},
		{"no address", false, names{}, "ip4", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.answer
			_, err := Override{Name: "media.example"}.resolve(t.Context(), &r, addrs("10.0.0.1"), c.ipv6)
			if (err != nil) != c.fails {
				t.Errorf("error %v, want one: %v", err, c.fails)
			}
			if c.answer.err != nil && !errors.Is(err, c.answer.err) {
				t.Errorf("error %v does not wrap %v", err, c.answer.err)
			}
			if r.network != c.network {
				t.Errorf("asked for %q, want %q", r.network, c.network)
			}
			if r.within <= 0 || r.within > lookupTime {
				t.Errorf("had %v for the look-up, want at most %v", r.within, lookupTime)
			}
		})
	}
}

// TestDescriptionMergesEqualCandidates: two local addresses that endpoints know as one give one
// candidate in each section.
func TestDescriptionMergesEqualCandidates(t *testing.T) {
	m, err := Override{Addr: addr("203.0.113.1")}.resolve(t.Context(), nil, addrs("10.0.0.1", "10.0.0.2"), false)
	if err != nil {
		t.Fatal(err)
	}
	line := func(foundation int, ip string) string {
		return fmt.Sprintf("a=candidate:%d 1 udp 2130706431 %s 8443 typ host\r\n", foundation, ip)
	}
	section := "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
	in := "v=0\r\n" + section + line(1, "10.0.0.1") + line(2, "10.0.0.2") + section + line(1, "10.0.0.1")
	want := "v=0\r\n" + section + line(1, "203.0.113.1") + section + line(1, "203.0.113.1")
	if got := m.description(in); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// candidates returns addresses and ports of the candidates of a description, sorted.
func candidates(sdp string) []string {
	var out []string
	for line := range strings.Lines(sdp) {
		if f := strings.Fields(line); strings.HasPrefix(line, "a=candidate:") && f[1] == "1" {
			out = append(out, f[2]+" "+f[4]+" "+f[5])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestCandidatesOfPeer: trickled candidates, those of the answer and those of a later offer of
// ours say the same addresses and ports.
func TestCandidatesOfPeer(t *testing.T) {
	for _, c := range []struct {
		name     string
		override Override
		lookup   []netip.Addr
		want     string // the %d is the port we listen on
	}{
		{"none", Override{}, nil, "[tcp 127.0.0.1 %d udp 127.0.0.1 %[1]d]"},
		{"address and port", Override{Addr: addr("203.0.113.1"), Port: 443}, nil, "[tcp 203.0.113.1 443 udp 203.0.113.1 443]"},
		{"name and port", Override{Name: "media.example", Port: 443}, addrs("203.0.113.2"), "[tcp 203.0.113.2 443 udp 203.0.113.2 443]"},
		{"pairs", Override{Pairs: map[netip.Addr]netip.Addr{loopback: addr("203.0.113.3")}, Port: 444}, nil,
			"[tcp 203.0.113.3 444 udp 203.0.113.3 444]"},
		{"found", Override{Found: map[netip.Addr]netip.Addr{loopback: addr("203.0.113.4")}}, nil,
			"[tcp 203.0.113.4 %d udp 203.0.113.4 %[1]d]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, func(cfg *Config) {
				cfg.Override, cfg.Resolver = c.override, &names{addrs: c.lookup}
			})
			want := c.want
			if strings.Contains(want, "%") {
				want = fmt.Sprintf(want, e.cfg.Mux.UDPConns()[0].LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Port())
			}
			p := newPeer(t, e)
			trickled := make(chan string, 16)
			p.OnICECandidate(func(cand *webrtc.ICECandidate) {
				if cand == nil {
					close(trickled)
					return
				}
				trickled <- "a=" + p.CandidateText(cand.ToJSON())
			})
			answer, err := p.AcceptOffer(capture(t, "offer-channel"))
			if err != nil {
				t.Fatal(err)
			}
			var lines strings.Builder
			for line := range trickled {
				lines.WriteString(line + "\r\n")
			}
			if got := fmt.Sprint(candidates(lines.String())); got != want {
				t.Errorf("trickled %s, want %s", got, want)
			}
			if got := fmt.Sprint(candidates(answer)); got != want {
				t.Errorf("answer has %s, want %s", got, want)
			}
			if _, err := p.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio); err != nil {
				t.Fatal(err)
			}
			offer, err := p.MakeOffer()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(candidates(offer)); got != want {
				t.Errorf("offer has %s, want %s", got, want)
			}
		})
	}
}

// TestNoPeerWithoutAddress: a name that is not found fails the peer, and nothing is left of it.
func TestNoPeerWithoutAddress(t *testing.T) {
	e := newEngine(t, func(cfg *Config) {
		cfg.Override, cfg.Resolver = Override{Name: "media.example"}, &names{err: errors.New("no such host")}
	})
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.NewPeer(t.Context(), cert); err == nil || !strings.Contains(err.Error(), "media.example") {
		t.Errorf("error %v, want one that says the name", err)
	}
}
