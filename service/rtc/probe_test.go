package rtc_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc"
	"rtcd/service/rtc/engine"
	"rtcd/service/rtc/rtctest"
)

// A prober is an endpoint that probes.
type prober struct {
	pc       *webrtc.PeerConnection
	dc       *webrtc.DataChannel
	opened   chan struct{}
	messages chan string
	ended    chan struct{} // the data channel is closed, or the connection has failed
}

func newProber(t *testing.T) *prober {
	t.Helper()
	s := webrtc.SettingEngine{}
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4})
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	p := &prober{pc: pc, opened: make(chan struct{}), messages: make(chan string, 1024), ended: make(chan struct{})}
	if p.dc, err = pc.CreateDataChannel("probe", nil); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func() { once.Do(func() { close(p.ended) }) }
	p.dc.OnOpen(func() { close(p.opened) })
	p.dc.OnClose(end)
	p.dc.OnMessage(func(m webrtc.DataChannelMessage) { p.messages <- string(m.Data) })
	return p
}

// offer returns an offer with all candidates.
func (p *prober) offer(t *testing.T) string {
	t.Helper()
	gathered := webrtc.GatheringCompletePromise(p.pc)
	offer, err := p.pc.CreateOffer(nil)
	if err == nil {
		err = p.pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-gathered
	return p.pc.LocalDescription().SDP
}

func (p *prober) accept(t *testing.T, answer string) {
	t.Helper()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
}

func (p *prober) say(ctx context.Context, t *testing.T, text string) string {
	t.Helper()
	if err := p.dc.SendText(text); err != nil {
		t.Fatal(err)
	}
	return p.hear(ctx, t)
}

func (p *prober) hear(ctx context.Context, t *testing.T) string {
	t.Helper()
	select {
	case m := <-p.messages:
		return m
	case <-ctx.Done():
		t.Fatal("no message")
		return ""
	}
}

// TestProbe: a probe finds its way over the transport that was asked for and over no other, whether we
// are an ICE-lite agent or not; it tells where the endpoint is seen, and sends back what it gets. No call
// and no session comes of it.
func TestProbe(t *testing.T) {
	for _, lite := range []bool{true, false} {
		b := rtctest.NewBackend(t, func(c *rtc.Config) { c.Lite = lite })
		for _, transport := range []rtc.ProbeTransport{rtc.ProbeUDP, rtc.ProbeTCP} {
			ctx := deadline(t, 30*time.Second)
			p := newProber(t)
			seen := make(chan rtc.ProbeOutcome, 1)
			answer, err := b.Server.Probe(ctx, transport, p.offer(t), func(o rtc.ProbeOutcome) { seen <- o })
			if err != nil {
				t.Fatalf("lite %v, %s: %v", lite, transport, err)
			}
			candidates := 0
			for line := range strings.Lines(answer) {
				if f := strings.Fields(line); strings.HasPrefix(line, "a=candidate:") {
					if candidates++; !strings.EqualFold(f[2], string(transport)) {
						t.Errorf("candidate of another transport: %s", line)
					}
				}
			}
			if candidates == 0 || strings.Count(answer, "m=") != 1 || !strings.HasSuffix(answer, "a=end-of-candidates\r\n") {
				t.Errorf("answer\n%s", answer)
			}
			p.accept(t, answer)
			var hello struct {
				Transport, Address string
				Port               uint16
			}
			if err := json.Unmarshal([]byte(p.hear(ctx, t)), &hello); err != nil {
				t.Fatal(err)
			}
			o := <-seen
			if hello.Transport != string(transport) || hello.Address != "127.0.0.1" || hello.Port != o.Remote.Port() || o.Took <= 0 {
				t.Errorf("lite %v: hello %+v, outcome %+v", lite, hello, o)
			}
			pair, err := p.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
			if err != nil || pair.Local.Protocol.String() != string(transport) {
				t.Errorf("lite %v, %s: pair %v, %v", lite, transport, pair, err)
			}
			if got := p.say(ctx, t, "17"); got != "17" {
				t.Errorf("sent back %q", got)
			}
			if n := b.Server.Count(); n != 0 {
				t.Errorf("%d sessions", n)
			}
			if err := p.dc.SendText(strings.Repeat("x", 65)); err != nil { // too long: that is the end
				t.Fatal(err)
			}
			select {
			case <-p.ended:
			case <-ctx.Done():
				t.Error("a probe with a long message goes on")
			}
		}
	}
}

// TestProbesAreBounded: there are 32 at a time, what has ended makes room, and closing the server ends them.
func TestProbesAreBounded(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	offer := newProber(t).offer(t)
	nothing := func(rtc.ProbeOutcome) { t.Error("connected") }
	for i := range 32 {
		if _, err := b.Server.Probe(ctx, rtc.ProbeUDP, offer, nothing); err != nil {
			t.Fatalf("probe %d: %v", i, err)
		}
	}
	if _, err := b.Server.Probe(ctx, rtc.ProbeUDP, offer, nothing); !errors.Is(err, rtc.ErrTooManyProbes) {
		t.Errorf("probe 33: %v", err)
	}
	began := time.Now()
	if err := b.Server.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("closing took %v", d)
	}
	if _, err := b.Server.Probe(ctx, rtc.ProbeUDP, offer, nothing); !errors.Is(err, rtc.ErrDraining) {
		t.Errorf("after the end: %v", err)
	}
}

// TestBadProbes: what is no offer of a data channel alone is refused, and leaves nothing behind: after
// more of them than there may be probes there is room for one.
func TestBadProbes(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, func(c *rtc.Config) { c.TCPAddrs = nil })
	good := newProber(t).offer(t)
	for _, bad := range []string{
		"", "v=0\r\n", strings.Repeat("x", 9000), good + strings.Repeat("a=x\r\n", 2000),
		strings.Replace(good, "m=application", "m=audio", 1), good + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
		good + "\ra=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host\r\n", good + "\rm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"m=application \r\n", strings.ReplaceAll(good, "a=ice-ufrag", "a=x"), strings.ReplaceAll(good, "a=fingerprint", "a=x"),
	} {
		for range 5 {
			if _, err := b.Server.Probe(ctx, rtc.ProbeUDP, bad, nil); !errors.Is(err, rtc.ErrProbeOffer) {
				t.Errorf("%.80q: %v", bad, err)
			}
		}
	}
	if _, err := b.Server.Probe(ctx, rtc.ProbeTCP, good, nil); !errors.Is(err, rtc.ErrProbeTransport) {
		t.Errorf("without TCP: %v", err)
	}
	if _, err := b.Server.Probe(ctx, rtc.ProbeUDP, good, nil); err != nil {
		t.Errorf("a good one: %v", err)
	}
	broken := rtctest.NewBackend(t, func(c *rtc.Config) {
		c.Engine.Override = engine.Override{Name: "media.example"}
		c.Engine.Resolver = &slowResolver{asked: make(chan struct{})}
	})
	for range 40 {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := broken.Server.Probe(ended, rtc.ProbeUDP, good, nil); errors.Is(err, rtc.ErrTooManyProbes) {
			t.Fatal(err)
		}
	}
}
