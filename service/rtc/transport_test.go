package rtc_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// TestTransports: endpoints with TCP alone and with UDP hear each other, whether the server is an
// ICE-lite agent or a full one and whichever way they signal.
func TestTransports(t *testing.T) {
	for _, lite := range []bool{true, false} {
		for _, overChannel := range []bool{false, true} {
			t.Run(fmt.Sprintf("lite %v, data channel signalling %v", lite, overChannel), func(t *testing.T) {
				ctx := deadline(t, 40*time.Second)
				b := rtctest.NewBackend(t, func(cfg *rtc.Config) { cfg.Lite = lite })
				names := []string{"tcp", "udp", "udp2"}
				all := make(map[string]*rtctest.Endpoint)
				for _, name := range names {
					all[name] = b.Join(t, "g", "call", name, rtctest.EndpointConfig{
						ChannelSignalling: overChannel, TCPOnly: name == "tcp",
					})
					connectAndPublish(ctx, t, all[name], name)
				}
				talk(ctx, t, names, all, 20)
				for _, name := range names {
					pair, err := all[name].PC().SCTP().Transport().ICETransport().GetSelectedCandidatePair()
					if err != nil || pair == nil {
						t.Fatalf("%s: no selected pair: %v", name, err)
					}
					want := webrtc.ICEProtocolUDP
					if name == "tcp" {
						want = webrtc.ICEProtocolTCP
					}
					if pair.Local.Protocol != want {
						t.Errorf("%s is connected over %v, want %v", name, pair.Local.Protocol, want)
					}
				}
			})
		}
	}
}
