package servicetest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"

	"rtcd/config"
	"rtcd/service"
	"rtcd/service/api/wire"
	"rtcd/service/logging"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// logged runs a server as start does, with a log as the program's, and returns its address and what
// stops it and returns all that it printed.
func logged(t *testing.T, cfg logging.Config, change func(*config.Config)) (addr string, stop func() string) {
	t.Helper()
	console := new(buffer)
	cfg.Console = console
	log, out, err := logging.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, end := startWith(t, change, service.Options{Log: log, LogTargets: out.Targets(), MemoryStore: true})
	return addr, func() string {
		end()
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		return console.String()
	}
}

// talk lets two people of a backend come, talk and leave.
func talk(ctx context.Context, t *testing.T, b *servicetest.Backend, call string, names ...string) {
	t.Helper()
	all := make(map[string]*rtctest.Endpoint)
	var speakers []*servicetest.Speaker
	for _, name := range names {
		all[name] = b.Person(ctx, t, call, name, rtctest.EndpointConfig{})
		speakers = append(speakers, servicetest.Speak(t, name, all[name]))
	}
	for i, name := range names {
		awaitHears(ctx, t, name, all[name], 50, names[1-i])
	}
	for i, name := range names {
		speakers[i].Stop(t)
		b.Send(wire.AppendLeave(nil, name))
	}
	await(ctx, t, b, "that both have left", func() bool {
		for _, name := range names {
			if !slices.ContainsFunc(b.News(name), func(n string) bool { return strings.HasPrefix(n, "close") }) {
				return false
			}
		}
		return true
	})
}

// Two people who come, talk and leave fit on a screen of 40 rows of 160 columns, with ids as long as
// backends make them, and each line about one of them is found by its session.
func TestACallFitsOnAScreen(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	addr, stop := logged(t, logging.Config{EnableConsole: true, ConsoleLevel: "info"}, nil)
	b := connected(t, addr, "chat")
	const call, one, two = "kq3w5ysb7bd6mgz1xr9c8n4fho", "e4f1m8yb5td3pjc9wx7qk6zrah", "77c0n2rb4id8mge1ys5xk9wfoq"
	talk(ctx, t, b, call, one, two)
	lines := strings.Split(strings.TrimSuffix(stop(), "\n"), "\n")
	rows, longest, about := 0, 0, map[string]int{}
	for _, l := range lines {
		n := utf8.RuneCountInString(l)
		longest = max(longest, n)
		rows += (n + 159) / 160
		if n > 2*160 {
			t.Errorf("%d columns: %s", n, l)
		}
		for _, s := range []string{one, two} {
			if strings.Contains(l, "sessionID="+s) {
				about[s]++
			}
		}
		message := l[strings.Index(l, "] ")+2:]
		if regexp.MustCompile(`^(session|publication|ice|offer|endpoint)\b`).MatchString(message) && !strings.Contains(l, " sessionID=") {
			t.Errorf("whose is it? %s", l)
		}
	}
	for s, n := range about {
		if n < 4 { // joined, connected, published, ended
			t.Errorf("%d lines of %s", n, s)
		}
	}
	if rows > 40 {
		t.Errorf("%d rows", rows)
	}
	t.Logf("%d lines, %d rows, the longest %d columns\n%s", len(lines), rows, longest, strings.Join(lines, "\n"))
}

// What anybody can provoke a thousand times in a second makes three lines, also in the file's level.
func TestFloodsMakeFewLines(t *testing.T) {
	ctx := deadline(t, 120*time.Second)
	addr, stop := logged(t, logging.Config{EnableConsole: true, ConsoleLevel: "debug"}, nil)
	b := connected(t, addr, "c1")
	e := b.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	const n = 1000
	begin := time.Now()
	rtc := func(kind wire.SignalType, data string) {
		b.Send(wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: kind, Data: []byte(data)}))
	}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := range n {
		rtc(wire.SignalICE, fmt.Sprintf(`{"candidate":"candidate:%d 1 udp x"}`, i))
		rtc(wire.SignalSDP, fmt.Sprintf(`{"type":"answer","sdp":"v=0 %d\r\n"}`, i))
		rtc(wire.SignalSDP, fmt.Sprintf(`no JSON %d`, i))
		rtc(wire.SignalScreenOn, fmt.Sprintf(`{"screenStreamID":%d}`, i))
		_ = e.Channel([]byte{0xc1, byte(i), 0xff})
		<-pace.C
	}
	for i := range 30 { // logins and requests that fail, each from another client
		b.Do(t, "POST", "/login", "", fmt.Sprintf(`{"clientID":"nobody%d","authKey":"%s"}`, i, servicetest.KeyOf("x")))
		b.Do(t, "GET", "/calls/x", "Basic bm9ib2R5Onh4eA==", "")
	}
	for range 30 {
		b.Do(t, "POST", "/login", "", fmt.Sprintf(`{"clientID":"c1","authKey":%q}`, b.Key))
		l, err := b.DialWith(b.Basic())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	counts := make(map[string]int)
	example := make(map[string]string)
	for _, l := range strings.Split(stop(), "\n") {
		_, message, ok := strings.Cut(l, "] ")
		if !ok {
			continue
		}
		message, _, _ = strings.Cut(message, " caller=")
		message = strings.TrimSpace(message)
		if _, what, ok := strings.Cut(l, ` what=`); ok {
			what, _, _ = strings.Cut(what, " err=")
			message += ": " + what
		}
		counts[message]++
		example[message] = l
	}
	periods := int(time.Since(begin)/(10*time.Second)) + 1
	for message, got := range counts {
		most := 3 * periods // three in ten seconds
		if message == "authHandler" || message == "loginClient" {
			most += 40 // requests of those whom we know, at level debug
		}
		if got > most {
			t.Errorf("%d lines %q: %s", got, message, example[message])
		}
	}
	t.Log(counts)
}

// No part of the log has the whole address of a peer, if so configured.
func TestAddressesAreRedacted(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	path := filepath.Join(t.TempDir(), "rtcd.log")
	addr, stop := logged(t, logging.Config{
		EnableConsole: true, ConsoleLevel: "stdlog", EnableFile: true, FileJSON: true, FileLevel: "stdlog", FileLocation: path,
		RedactAddresses: true, OwnAddresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
	}, nil)
	b := servicetest.NewBackend(t, addr, "c1")
	b.Register(t)
	b.From = netip.MustParseAddr("127.0.77.11")
	b.Dial(t)
	all := make(map[string]*rtctest.Endpoint)
	for i, name := range []string{"s1", "s2"} {
		network, err := newLoopbackNet(netip.AddrFrom4([4]byte{127, 0, 77, byte(21 + i)}))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b.Person(ctx, t, "call", name, rtctest.EndpointConfig{Net: network})
		servicetest.Speak(t, name, all[name])
	}
	awaitHears(ctx, t, "s1", all["s1"], 20, "s2")
	b.Send(wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: wire.SignalICE, Data: []byte(`{"candidate":"candidate:1 1 udp x 127.0.77.31 9 typ host"}`)}))
	b.Send(wire.AppendRTC(nil, wire.Signal{SessionID: "s1", Type: wire.SignalSDP, Data: []byte(`{"type":"answer","sdp":"v=0\r\nc=IN IP4 127.0.77.32\r\n"}`)}))
	b.Send([]byte("127.0.77.33 is no message"))

	// Logins that are refused, bad requests, a TLS hello and a WebSocket with a wrong key.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 77, 41)}}
	hc := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	for range 15 {
		for _, path := range []string{"/login", "/register", "/calls/127.0.77.42", "/ws", "/none"} {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, strings.NewReader(`{"clientID":"c1","authKey":"wrong-key-000000000000000000000000"}`))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("c1", "wrong")
			req.Header.Set("X-Forwarded-For", "127.0.77.43")
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	if c, err := dialer.DialContext(ctx, "tcp", addr); err != nil {
		t.Fatal(err)
	} else {
		_, _ = io.WriteString(c, "\x16\x03\x01 127.0.77.44\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	console := stop()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := regexp.MustCompile(`127\.0\.77\.(?:[1-9]|0[^/])[^\s"]*`)
	for name, text := range map[string]string{"console": console, "file": string(file)} {
		if found := whole.FindAllString(text, 5); found != nil {
			t.Errorf("%s: %q", name, found)
			for l := range strings.Lines(text) {
				if strings.Contains(l, found[0]) {
					t.Log(l)
				}
			}
		}
		if n := strings.Count(text, "127.0.77.0/24"); n < 5 {
			t.Errorf("%s: %d redacted addresses: the test sees too little", name, n)
		} else {
			t.Logf("%s: %d redacted addresses in %d lines", name, n, strings.Count(text, "\n"))
		}
	}
}

// A loopbackNet is the kernel's network with one address of 127.0.0.0/8, all of which are this machine's.
type loopbackNet struct {
	*stdnet.Net
	addr netip.Addr
}

func newLoopbackNet(addr netip.Addr) (*loopbackNet, error) {
	std, err := stdnet.NewNet()
	return &loopbackNet{std, addr}, err
}

// Interfaces implements transport.Net.
func (n *loopbackNet) Interfaces() ([]*transport.Interface, error) {
	i := transport.NewInterface(net.Interface{Index: 1, MTU: 65536, Name: "lo", Flags: net.FlagUp | net.FlagLoopback | net.FlagRunning})
	i.AddAddress(&net.IPNet{IP: n.addr.AsSlice(), Mask: net.CIDRMask(8, 32)})
	return []*transport.Interface{i}, nil
}
