package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v4/vnet"
)

func TestPath(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	m := listen(t, Config{UDPAddrs: []netip.AddrPort{v4, v6}})
	remote4, remote6 := netip.MustParseAddrPort("192.0.2.1:5000"), netip.MustParseAddrPort("[2001:db8::1]:5000")
	mapped := netip.MustParseAddrPort("198.51.100.1:8443")
	for _, c := range []struct {
		local, remote netip.AddrPort
		want          Path
	}{
		{m.groups[0].addr, remote4, NewPath(0, remote4, false)},
		{m.groups[0].addr, netip.AddrPortFrom(netip.AddrFrom16(remote4.Addr().As16()), 5000), NewPath(0, remote4, false)},
		{mapped, remote4, NewPath(0, remote4, false)}, // the only one of its family
		{m.groups[1].addr, remote6, NewPath(1, remote6, false)},
	} {
		got, err := m.Path(c.local, c.remote, false)
		if err != nil || got != c.want {
			t.Errorf("from %v to %v: %v, %v, want %v", c.local, c.remote, got, err, c.want)
		}
		if got.Remote() != canonical(c.remote) || got.TCP() || got.IsZero() {
			t.Errorf("path %v", got)
		}
	}
	if _, err := m.Path(v4, netip.AddrPort{}, false); err == nil {
		t.Error("a path to nowhere")
	}
	if _, err := m.Path(v4, remote4, true); !errors.Is(err, ErrNoConn) {
		t.Errorf("tcp: %v", err)
	}
	two := listen(t, Config{UDPAddrs: []netip.AddrPort{v4, v4}})
	if _, err := two.Path(mapped, remote4, false); !errors.Is(err, ErrNoLocal) {
		t.Errorf("ambiguous: %v", err)
	}
	if p, err := two.Path(two.groups[1].addr, remote4, false); err != nil || p != NewPath(1, remote4, false) {
		t.Errorf("second address: %v, %v", p, err)
	}
	for p, want := range map[Path]string{
		{}:                         "none",
		NewPath(1, remote6, true):  "tcp1:[2001:db8::1]:5000",
		NewPath(0, remote4, false): "udp0:192.0.2.1:5000",
	} {
		if p.String() != want {
			t.Errorf("%q, want %q", p, want)
		}
	}
}

func TestIPv6(t *testing.T) {
	media := newFakeMedia()
	media.echo = true
	m := listen(t, Config{Media: media, UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}})
	c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(m.groups[0].addr))
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(rtp(1, 100)); err != nil {
		t.Fatal(err)
	}
	got := receive(t, media.got)
	if want := NewPath(0, addrOf(c), false); got.from != want {
		t.Errorf("from %v, want %v", got.from, want)
	}
	if body, _ := readPacket(t, c); body != string(rtp(1, 100)) {
		t.Error("echo differs")
	}
	conn := m.UDPConns()[0]
	if _, err := conn.WriteTo(stunRequest(1), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if body, _ := readPacket(t, c); body != string(stunRequest(1)) {
		t.Error("control differs")
	}
	// IPv4 is another socket's: the port is free there, unless somebody else has it.
	for range 20 {
		v4 := netip.AddrPortFrom(netip.IPv4Unspecified(), m.groups[0].addr.Port())
		if other, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(v4)); err == nil {
			_ = other.Close()
			wild, err := Listen(Config{UDPAddrs: []netip.AddrPort{v4}})
			if err != nil {
				t.Fatalf("beside IPv6: %v", err)
			}
			_ = wild.Close()
			return
		}
		m = listen(t, Config{UDPAddrs: []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}})
	}
	t.Fatal("no port that is free for IPv4")
}

func TestStatsOfSockets(t *testing.T) {
	m, _ := listenUDP(t, Config{})
	if want := m.cfg.SocketsPerAddr; !isPortable(m) {
		if s := m.Stats(); s.Sockets != want || s.Sockets < 1 {
			t.Errorf("%d sockets, want %d", s.Sockets, want)
		}
		if s := m.Stats(); s.ReadBufferBytes < 64<<10 || s.WriteBufferBytes < 64<<10 {
			t.Errorf("buffers of %d and %d bytes", s.ReadBufferBytes, s.WriteBufferBytes)
		}
	}
	if s := listen(t, Config{}).Stats(); s.Sockets != 0 || s.GSO {
		t.Errorf("stats of nothing: %+v", s)
	}
}

func TestTooLongDatagram(t *testing.T) {
	eachBackend(t, func(t *testing.T, cfg Config) {
		media := newFakeMedia()
		cfg.Media = media
		m, addr := listenUDP(t, cfg)
		c := peer(t)
		sendTo(t, c, rtp(1, maxDatagram+1), addr)
		sendTo(t, c, rtp(2, maxDatagram), addr)
		if got := receive(t, media.got); got.body != string(rtp(2, maxDatagram)) {
			t.Errorf("got %d bytes", len(got.body))
		}
		// Counters follow the packets they count.
		eventually(t, "one drop", func() bool { return m.Stats().Drops == Drops{DropTruncated: 1} })
	})
}

func TestListenErrors(t *testing.T) {
	for _, cfg := range []Config{
		{UDPAddrs: []netip.AddrPort{loopback, netip.MustParseAddrPort("203.0.113.9:0")}},
		{UDPAddrs: []netip.AddrPort{loopback}, TCPAddrs: []netip.AddrPort{loopback, netip.MustParseAddrPort("203.0.113.9:0")}},
		{UDPAddrs: make([]netip.AddrPort, maxLocals+1)},
	} {
		if m, err := Listen(cfg); err == nil {
			_ = m.Close()
			t.Errorf("listening on %v", cfg.UDPAddrs)
		}
	}
}

func quietLog() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
}

// newVirtualNet returns two hosts on one virtual network.
func newVirtualNet(t *testing.T) (a, b *vnet.Net) {
	t.Helper()
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.0.0.0/24", LoggerFactory: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	hosts := make([]*vnet.Net, 2)
	for i, ip := range []string{"10.0.0.1", "10.0.0.2"} {
		if hosts[i], err = vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}}); err != nil {
			t.Fatal(err)
		}
		if err := router.AddNet(hosts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Stop() })
	return hosts[0], hosts[1]
}

func TestVirtualNet(t *testing.T) {
	server, client := newVirtualNet(t)
	media := newFakeMedia()
	media.echo = true
	addr := netip.MustParseAddrPort("10.0.0.1:8443")
	m := listen(t, Config{Net: server, Media: media, UDPAddrs: []netip.AddrPort{addr}, SocketsPerAddr: 4})
	if s := m.Stats(); s.Sockets != 1 || s.GSO {
		t.Errorf("stats %+v", s)
	}
	if other, err := Listen(Config{Net: server, UDPAddrs: []netip.AddrPort{addr}}); err == nil {
		_ = other.Close()
		t.Error("a second instance listens")
	}
	c, err := client.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2000)
	for i := range 20 {
		if _, err := c.Write(rtp(i, 100)); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, media.got); got.body != string(rtp(i, 100)) {
			t.Fatalf("packet %d differs", i)
		}
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != string(rtp(i, 100)) {
			t.Fatalf("echo %d: %d bytes, %v", i, n, err)
		}
	}
	if _, err := c.Write(stunRequest(1)); err != nil {
		t.Fatal(err)
	}
	n, from, err := m.UDPConns()[0].ReadFrom(buf)
	if err != nil || n != stunHeader {
		t.Fatalf("control: %d bytes, %v", n, err)
	}
	if _, err := m.UDPConns()[0].WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != string(stunRequest(1)) {
		t.Errorf("control to the client: %d bytes, %v", n, err)
	}
}

// Two ICE agents of pion connect through a mux, by UDP and by TCP, and exchange DTLS-like records
// over ICE and media beside it.
func TestICE(t *testing.T) {
	for _, network := range []ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeTCP4} {
		t.Run(network.String(), func(t *testing.T) { testICE(t, network) })
	}
}

func testICE(t *testing.T, network ice.NetworkType) {
	media := newFakeMedia()
	media.echo = true
	m := listen(t, Config{Media: media, UDPAddrs: []netip.AddrPort{loopback}, TCPAddrs: []netip.AddrPort{loopback}})
	logs := quietLog()
	udpMux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: m.UDPConns()[0], Logger: logs.NewLogger("ice")})
	tcpMux := ice.NewTCPMuxDefault(ice.TCPMuxParams{Listener: m.TCPListener(), Logger: logs.NewLogger("ice"), ReadBufferSize: 20})
	defer func() {
		_ = udpMux.Close()
		_ = tcpMux.Close()
	}()
	agent := func(opts ...ice.AgentOption) *ice.Agent {
		a, err := ice.NewAgentWithOptions(append(opts,
			ice.WithNetworkTypes([]ice.NetworkType{network}),
			ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
			ice.WithIncludeLoopback(),
			ice.WithIPFilter(func(ip net.IP) bool { return ip.IsLoopback() }),
			ice.WithLoggerFactory(logs))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a
	}
	server := agent(ice.WithUDPMux(udpMux), ice.WithTCPMux(tcpMux))
	client := agent()
	serverConn, clientConn := connectAgents(t, server, client)

	record := dtlsRecord(22, 0, "handshake")
	buf := make([]byte, 2000)
	for _, way := range [][2]net.Conn{{clientConn, serverConn}, {serverConn, clientConn}} {
		if _, err := way[0].Write(record); err != nil {
			t.Fatal(err)
		}
		_ = way[1].SetReadDeadline(time.Now().Add(patience))
		if n, err := way[1].Read(buf); err != nil || string(buf[:n]) != string(record) {
			t.Fatalf("record: %d bytes, %v", n, err)
		}
	}
	if _, err := clientConn.Write(rtp(1, 500)); err != nil {
		t.Fatal(err)
	}
	pair, err := server.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		t.Fatalf("selected pair: %v, %v", pair, err)
	}
	local := netip.AddrPortFrom(netip.MustParseAddr(pair.Local.Address()), uint16(pair.Local.Port()))
	remote := netip.AddrPortFrom(netip.MustParseAddr(pair.Remote.Address()), uint16(pair.Remote.Port()))
	path, err := m.Path(local, remote, network.IsTCP())
	if err != nil {
		t.Fatal(err)
	}
	if got := receive(t, media.got); got.from != path || got.body != string(rtp(1, 500)) {
		t.Errorf("media of %v, want %v", got.from, path)
	}
	if n, err := clientConn.Read(buf); err != nil || string(buf[:n]) != string(rtp(1, 500)) {
		t.Errorf("echo: %d bytes, %v", n, err)
	}
}

func connectAgents(t *testing.T, server, client *ice.Agent) (serverConn, clientConn *ice.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, way := range [][2]*ice.Agent{{server, client}, {client, server}} {
		if err := way[0].OnCandidate(func(c ice.Candidate) {
			if c != nil {
				_ = way[1].AddRemoteCandidate(c)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	serverUfrag, serverPwd, err := server.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	clientUfrag, clientPwd, err := client.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*ice.Agent{server, client} {
		if err := a.GatherCandidates(); err != nil {
			t.Fatal(err)
		}
	}
	type result struct {
		conn *ice.Conn
		err  error
	}
	accepted := make(chan result, 1)
	go func() {
		conn, err := server.Accept(ctx, clientUfrag, clientPwd)
		accepted <- result{conn, err}
	}()
	clientConn, err = client.Dial(ctx, serverUfrag, serverPwd)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	r := receive(t, accepted)
	if r.err != nil {
		t.Fatalf("accept: %v", r.err)
	}
	return r.conn, clientConn
}
