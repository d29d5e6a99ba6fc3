package engine

import (
	"fmt"
	"strings"
	"testing"
)

// TestQuickRestarts: offers that restart ICE at once after the first are answered one by one. The
// race detector sees it if pion's agent still gathers for the one before.
func TestQuickRestarts(t *testing.T) {
	for _, lite := range []bool{true, false} {
		t.Run(fmt.Sprintf("lite %v", lite), func(t *testing.T) {
			e := newEngine(t, func(cfg *Config) { cfg.Lite, cfg.RemoteAllowed = lite, nothing })
			for range 10 {
				p := newPeer(t, e)
				for i := range 4 {
					offer := strings.ReplaceAll(capture(t, "offer-channel"), "a=ice-ufrag:", fmt.Sprintf("a=ice-ufrag:x%d", i))
					if _, err := p.AcceptOffer(offer); err != nil {
						t.Fatalf("offer %d: %v", i, err)
					}
				}
				if err := p.GracefulClose(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
