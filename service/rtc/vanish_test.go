package rtc_test

import (
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// F16: the end of a session whose endpoint has vanished is told within 30 s of its last packet, the end
// of its consent (RFC 7675 section 5.1), at whatever moment between its checks that was.
func TestVanishedEndpointIsToldInTime(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		for _, after := range []time.Duration{3 * time.Second, 3700 * time.Millisecond, 4900 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				n := rtctest.NewNetwork(t)
				serve := n.Serve(t)
				b := rtctest.NewBackend(t, func(cfg *rtc.Config) {
					serve(cfg)
					if !restarts {
						cfg.RestartAfter = -1
					}
				})
				host, _, link := n.ImpairedHost(t)
				e := b.Join(t, "g", "call", "s", rtctest.EndpointConfig{Net: host})
				if err := e.Connect(deadline(t, 20*time.Second)); err != nil {
					t.Fatalf("connect: %v", err)
				}
				<-time.After(after) // of the bubble's time: the endpoint is at another place between two checks
				link.Up.Set(rtctest.Impairment{Loss: 1})
				link.Down.Set(rtctest.Impairment{Loss: 1})
				begun := time.Now()
				ended := func(all []rtc.Event) bool {
					return len(all) > 0 && all[len(all)-1].Kind == rtc.Closed
				}
				if err := b.Await(deadline(t, time.Minute), "s", ended); err != nil {
					t.Fatalf("the end is not told within a minute: %v", err)
				}
				took := time.Since(begun)
				t.Logf("restarts %v: told after %v", restarts, took)
				if took > 30*time.Second {
					t.Errorf("told after %v, want 30 s at most", took)
				}
				if took < 25*time.Second {
					t.Errorf("told after %v: consent lasts longer", took)
				}
			})
		}
	}
}
