package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/netio"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// newEngine returns an engine with a UDP and a TCP socket on loopback that ends with the test.
func newEngine(t testing.TB, change func(*Config)) *Engine {
	t.Helper()
	port := freePort(t)
	addrs := []netip.AddrPort{netip.AddrPortFrom(loopback, port)}
	mux, err := netio.Listen(netio.Config{UDPAddrs: addrs, TCPAddrs: addrs, SocketsPerAddr: 1})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	cfg := Config{Mux: mux, Lite: true, Local: []netip.Addr{loopback}}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatalf("new engine: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
		if err := mux.Close(); err != nil {
			t.Errorf("close mux: %v", err)
		}
	})
	return e
}

// freePort returns a port of loopback that is free for UDP and TCP now.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a port: %v", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port that is free for both")
	return 0
}

// certificate is one for all peers of the tests.
var certificate = sync.OnceValues(NewCertificate)

func newPeer(t testing.TB, e *Engine) *Peer {
	t.Helper()
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.NewPeer(t.Context(), cert)
	if err != nil {
		t.Fatalf("new peer: %v", err)
	}
	t.Cleanup(func() { _ = p.GracefulClose() })
	return p
}

// capture reads a description from testdata, with the line ends of RFC 8866.
func capture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\n", "\r\n")
}

// settled waits until there are no more goroutines than before: they end on their own after what
// they waited for is closed, and nobody says when.
func settled(t testing.TB, before int) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines left, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

// newClient returns an endpoint with a data channel.
func newClient(t testing.TB, change func(*webrtc.SettingEngine)) *webrtc.PeerConnection {
	t.Helper()
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() })
	if change != nil {
		change(&s)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatalf("new client: %v", err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	if _, err := pc.CreateDataChannel("calls-dc", nil); err != nil {
		t.Fatal(err)
	}
	return pc
}

// connect makes the first exchange and waits until DTLS is connected on our side.
func connect(ctx context.Context, t testing.TB, p *Peer, client *webrtc.PeerConnection) {
	t.Helper()
	connected := make(chan struct{})
	var once sync.Once
	p.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(connected) })
		}
	})
	offer, err := client.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	answer, err := p.AcceptOffer(offer.SDP)
	if err != nil {
		t.Fatalf("accept offer: %v", err)
	}
	if err := client.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatalf("apply answer: %v\n%s", err, answer)
	}
	select {
	case <-connected:
	case <-ctx.Done():
		t.Fatalf("not connected: %v", ctx.Err())
	}
}

func deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
