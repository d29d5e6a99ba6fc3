package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// answerTime bounds the wait for whoever is asked something.
const answerTime = 3 * time.Second

// program is the name of our processes.
const program = "rtcd"

// A listener is something the server listens on.
type endpoint struct {
	key     string // that says so
	network string
	address string // host:port
	taken   string // the finding if somebody else has it
}

// listeners are all that the server would listen on but the API.
func (v *visit) listeners() []endpoint {
	var out []endpoint
	if a := v.Config.API.Admin.ListenAddress; a != "" {
		out = append(out, endpoint{"api.admin.listen_address", "tcp", a, adminPortTaken})
	}
	r := v.Config.RTC
	udp, err := r.UDPAddresses()
	if udp == nil && err == nil {
		udp = v.mediaLocals()
	}
	for _, a := range udp {
		out = append(out, endpoint{"rtc.ice_address_udp", "udp", netip.AddrPortFrom(a, uint16(r.ICEPortUDP)).String(), mediaPortTaken})
	}
	tcp, err := r.TCPAddresses()
	if tcp == nil && err == nil {
		tcp = []netip.Addr{netip.IPv4Unspecified()}
		if r.EnableIPv6 {
			tcp[0] = netip.IPv6Unspecified()
		}
	}
	for _, a := range tcp {
		out = append(out, endpoint{"rtc.ice_address_tcp", "tcp", netip.AddrPortFrom(a, uint16(r.ICEPortTCP)).String(), mediaPortTaken})
	}
	return out
}

// checkPorts tries to listen on everything the server would listen on. If a server of ours runs
// there, its ports are its own.
func checkPorts(ctx context.Context, v *visit) {
	api := endpoint{"api.http.listen_address", "tcp", v.Config.API.HTTP.ListenAddress, apiPortTaken}
	err := v.host.Bind(ctx, api.network, api.address)
	if errors.Is(err, syscall.EADDRINUSE) {
		holder, seen := v.host.Holder("tcp", portOf(api.address))
		if version, ok := v.askVersion(ctx, api.address); ok || seen && holder.Name == program {
			v.add(serverRunning, "%s %s listens on %s = %q%s", program, version, api.key, api.address, by(holder, seen))
			return
		}
	}
	v.judge(api.key, api.taken, []refusal{{api, err}})
	// One program has often taken a port on all addresses: that is one finding.
	byKey := map[string][]refusal{}
	var keys []string
	for _, l := range v.listeners() {
		if byKey[l.key] == nil {
			keys = append(keys, l.key)
		}
		byKey[l.key] = append(byKey[l.key], refusal{l, v.host.Bind(ctx, l.network, l.address)})
	}
	for _, key := range keys {
		v.judge(key, byKey[key][0].taken, byKey[key])
	}
}

// A refusal is a listener with the error of the attempt to listen.
type refusal struct {
	endpoint
	err error
}

// judge tells of the listeners of one key that cannot be opened, each cause once.
func (v *visit) judge(key, taken string, tried []refusal) {
	causes := []struct {
		errno syscall.Errno
		id    string
	}{{syscall.EADDRINUSE, taken}, {syscall.EADDRNOTAVAIL, addressNotLocal}, {syscall.EACCES, portPrivileged}}
	for _, c := range causes {
		var which []string
		var last refusal
		for _, r := range tried {
			if errors.Is(r.err, c.errno) {
				which, last = append(which, r.address+"/"+r.network), r
			}
		}
		switch {
		case which == nil:
		case c.errno == syscall.EADDRINUSE:
			holder, seen := v.host.Holder(last.network, portOf(last.address))
			v.add(c.id, "%s: %s is taken%s", key, strings.Join(which, ", "), by(holder, seen))
		case c.errno == syscall.EADDRNOTAVAIL:
			v.add(c.id, "%s: %s is no address of this machine", key, strings.Join(which, ", "))
		default:
			v.add(c.id, "%s: listening on %s is not permitted", key, strings.Join(which, ", "))
		}
	}
}

// by says which process it is, if that can be seen.
func by(p Process, seen bool) string {
	if !seen {
		return ", by a process that cannot be seen (root can)"
	}
	return fmt.Sprintf(", by process %d (%s)", p.PID, p.Name)
}

func portOf(address string) uint16 {
	_, port, _ := net.SplitHostPort(address)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// askVersion asks whoever listens on the address of the API what it is.
func (v *visit) askVersion(ctx context.Context, address string) (version string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", false
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if v.Config.API.HTTP.TLS.Enable {
		scheme = "https"
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/version", nil)
	if err != nil {
		return "", false
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:       v.host.Dial,
			DisableKeepAlives: true,
			// Nothing secret is sent, and what is answered is shown, not believed.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", false
	}
	defer func() { _ = resp.Body.Close() }()
	var about struct{ BuildVersion, GoVersion string }
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil || json.Unmarshal(body, &about) != nil || about.BuildVersion == "" || about.GoVersion == "" {
		return "", false
	}
	return fmt.Sprintf("%.32q", about.BuildVersion), true
}
