package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestListenerTable shows CR-01: what a started server logs as its listeners is what the kernel
// says of its sockets, and what is off is not there.
func TestListenerTable(t *testing.T) {
	for name, environ := range map[string][]string{
		"one address":   nil,
		"all addresses": {"RTCD_RTC_ICEADDRESSUDP=", "RTCD_RTC_ICEADDRESSTCP="},
		"with IPv6":     {"RTCD_RTC_ICEADDRESSUDP=", "RTCD_RTC_ICEADDRESSTCP=", "RTCD_RTC_ENABLEIPV6=true"},
		"no admin":      {"RTCD_API_ADMIN_LISTENADDRESS="},
		"production":    {"RTCD_MODE=production"},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newPorts(t), t.TempDir()
			own := []string{"RTCD_LOGGER_CONSOLEJSON=true", "RTCD_AUDIT_DIR=" + filepath.Join(dir, "audit"), "RTCD_API_SECURITY_REGISTRATIONCIDRS=127.0.0.1"}
			if name != "one address" && name != "production" { // all of them, whatever the host
				own = append(own, fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=:%d", p.api))
			}
			c := launch(t, p, dir, nil, append(own, environ...)...)
			c.awaitReady(t)
			logged, kernel := listenersLogged(t, c.out.String()), sockets(t, c.cmd.Process.Pid)
			if !slices.Equal(logged, kernel) {
				t.Errorf("logged %q\nkernel %q\n%s", logged, kernel, c.out)
			}
			if admin := fmt.Sprintf("tcp 127.0.0.1:%d", c.admin); slices.Contains(kernel, admin) != (name != "no admin") {
				t.Errorf("admin listener in %q", kernel)
			}
		})
	}
}

// listenersLogged returns network and address of each listener in the log, sorted.
func listenersLogged(t *testing.T, log string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Network, Address string }
		if err := json.Unmarshal([]byte(line), &entry); err == nil && strings.HasSuffix(entry.Msg, " listening") {
			found = append(found, entry.Network+" "+entry.Address)
		}
	}
	slices.Sort(found)
	return found
}

// sockets returns network and local address of all sockets of a process that peers can reach:
// listening for TCP, not connected for UDP. Several of one address count once.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	const listening, unconnected = "0A", "07"
	found := map[string]bool{}
	for _, table := range []struct{ file, network, state string }{
		{"tcp", "tcp", listening}, {"tcp6", "tcp", listening}, {"udp", "udp", unconnected}, {"udp6", "udp", unconnected},
	} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table.file))
		if err != nil {
			continue // a machine without IPv6
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == table.state && own[f[9]] {
				found[table.network+" "+procAddress(t, f[1])] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// procAddress reads an address of /proc/net: words of 32 bits in the order of the processor, and a port.
func procAddress(t *testing.T, text string) string {
	t.Helper()
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		t.Fatalf("address %q", text)
	}
	return netip.AddrPortFrom(addr, uint16(number)).String()
}
