package rtc_test

import (
	"net"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// S11: a check that is signed by who knows how, but that may come from a spoofed address, leads no media
// there before whoever is there has answered.
func TestMediaIsNotLedToThirdParties(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	n := rtctest.NewNetwork(t)
	serve := n.Serve(t)
	b := rtctest.NewBackend(t, func(cfg *rtc.Config) {
		serve(cfg)
		cfg.Lite, cfg.RestartAfter = false, -1
	})
	annHost, _ := n.Host(t)
	benHost, _ := n.Host(t)
	victimHost, victimAddr := n.Host(t)
	wire := &movable{Net: annHost}
	ann := b.Join(t, "g", "call", "ann", rtctest.EndpointConfig{Net: wire})
	ben := b.Join(t, "g", "call", "ben", rtctest.EndpointConfig{Net: benHost})
	connectAndPublish(ctx, t, ann, "ann")
	connectAndPublish(ctx, t, ben, "ben")
	rtctest.Talk(t, map[string]*rtctest.Endpoint{"ben": ben})
	if err := ann.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard("ben").Packets >= 50 }); err != nil {
		t.Fatal(err)
	}
	transport := ann.PC().SCTP().Transport().ICETransport()
	pair, err := transport.GetSelectedCandidatePair()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := transport.GetLocalParameters()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := transport.GetRemoteParameters()
	if err != nil {
		t.Fatal(err)
	}

	wire.kill() // ann sends nothing but checks, in the name of another
	victim, err := victimHost.ListenUDP("udp4", &net.UDPAddr{IP: victimAddr.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = victim.Close() }()
	server := &net.UDPAddr{IP: net.ParseIP(pair.Remote.Address), Port: int(pair.Remote.Port)}
	answers := 0
	buf := make([]byte, 1500)
	for range 15 {
		check, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername(theirs.UsernameFragment+":"+ours.UsernameFragment),
			ice.PriorityAttr(1), ice.AttrControlling(1), stun.NewShortTermIntegrity(theirs.Password), stun.Fingerprint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := victim.WriteTo(check.Raw, server); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(200 * time.Millisecond); ; {
			_ = victim.SetReadDeadline(end)
			n, _, err := victim.ReadFrom(buf)
			if err != nil {
				break
			}
			if !stun.IsMessage(buf[:n]) {
				t.Fatalf("media is led to who has not asked for it: %x", buf[:min(n, 12)])
			}
			if buf[0] == 1 {
				answers++
			}
		}
	}
	if answers == 0 {
		t.Error("the checks were not answered: they show nothing")
	}
}
