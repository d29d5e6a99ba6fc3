//go:build linux

package field

import (
	"fmt"
	"net/netip"
	"strings"
)

// layRules makes the router's tables: who is cut off, and whose addresses are translated.
func (f *Field) layRules() error {
	return f.nft(`
table ip fire {
	set from { type ifname; }
	set to { type ifname; }
	chain cut {
		type filter hook forward priority -10; policy accept;
		iifname @from drop
		oifname @to drop
	}
	chain translate { type nat hook postrouting priority 100; policy accept; }
}`)
}

func (f *Field) nft(rules string) (err error) {
	f.Router.Do(func() { err = feed(rules, "nft", "-f", "-") })
	return err
}

// Way says which packets of a host are meant.
type Way int

// The ways.
const (
	Both Way = iota
	From     // those that the host sends
	To       // those that are sent to it
)

func (w Way) sets() []string {
	return map[Way][]string{Both: {"from", "to"}, From: {"from"}, To: {"to"}}[w]
}

// Cut drops all packets of a host that go a way, without a word to anybody.
func (f *Field) Cut(host string, w Way) error { return f.cut("add", host, w) }

// Mend ends a Cut of the same way.
func (f *Field) Mend(host string, w Way) error { return f.cut("delete", host, w) }

func (f *Field) cut(verb, host string, w Way) error {
	f.Host(host)
	var b strings.Builder
	for _, set := range w.sets() {
		fmt.Fprintf(&b, "%s element ip fire %s { %q }\n", verb, set, host)
	}
	return f.nft(b.String())
}

// Translate makes the packets of a host that go to another come from an address and port range, as
// behind a NAT; the mappings that there were before are gone, as when a NAT is switched off and on.
// One of 10.78.0.0/16 is taken for the address: each number is another.
func (f *Field) Translate(host, to string, number uint16, firstPort uint16) error {
	from, dst := f.Host(host), f.Host(to)
	addr := netip.AddrFrom4([4]byte{10, 78, byte(number >> 8), byte(number)})
	if err := f.Untranslate(host); err != nil {
		return err
	}
	rule := fmt.Sprintf("add rule ip fire translate ip saddr %s ip daddr %s meta l4proto { tcp, udp } snat to %s:%d-%d comment %q\n",
		from.Addr, dst.Addr, addr, firstPort, firstPort+999, host)
	if err := f.nft(rule); err != nil {
		return err
	}
	return f.forget(from.Addr)
}

// Untranslate ends the translation of a host.
func (f *Field) Untranslate(host string) (err error) {
	f.Router.Do(func() {
		err = run("sh", "-c", fmt.Sprintf(
			`nft -a list chain ip fire translate | sed -n 's/.*comment "%s" # handle //p' | while read h; do nft delete rule ip fire translate handle $h || exit 1; done`, host))
	})
	return err
}

// forget makes the router forget the connections of an address.
func (f *Field) forget(addr netip.Addr) error {
	err := f.Router.Run("conntrack", "-D", "-s", addr.String())
	if err != nil && strings.Contains(err.Error(), "0 flow entries") {
		return nil
	}
	return err
}

// Rate bounds what is sent to a host, with a queue of so many bytes before it.
func (f *Field) Rate(host string, bitsPerSecond, queueBytes int) error {
	f.Host(host)
	return f.Router.Run("tc", "qdisc", "replace", "dev", host, "root", "tbf",
		"rate", fmt.Sprintf("%dbit", bitsPerSecond), "burst", "5000", "limit", fmt.Sprint(queueBytes))
}

// Unrate ends a Rate.
func (f *Field) Unrate(host string) error {
	return f.Router.Run("tc", "qdisc", "del", "dev", host, "root")
}

// Move takes its address away from a host and gives it another, as when a phone goes from one network
// to the next: sockets that were bound to the old one are dead. The next Move brings the old one back.
// Namespace.Addr stays what it was.
func (f *Field) Move(host string) error {
	n := f.Host(host)
	octets := n.Addr.As4()
	addr := func(moved bool, last byte) string {
		b := octets
		if b[3] = last; moved {
			b[1] = 79
		}
		return netip.AddrFrom4(b).String()
	}
	if !n.moves {
		if err := f.Router.Run("ip", "addr", "add", addr(true, 1)+"/30", "dev", host); err != nil {
			return err
		}
		n.moves = true
	}
	from, to := n.moved, !n.moved
	n.moved = to
	for _, args := range [][]string{
		{"addr", "add", addr(to, 2) + "/30", "dev", "net"},
		{"addr", "del", addr(from, 2) + "/30", "dev", "net"},
		{"route", "replace", "default", "via", addr(to, 1)},
	} {
		if err := n.Run("ip", args...); err != nil {
			return err
		}
	}
	return nil
}
