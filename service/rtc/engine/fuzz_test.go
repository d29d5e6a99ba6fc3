package engine

import (
	"encoding/json"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"rtcd/service/api/wire"
)

// seedDescriptions adds the captured descriptions and broken ones.
func seedDescriptions(f *testing.F, kind string, names ...string) {
	add := func(sdp string) {
		b, err := wire.Description{Type: kind, SDP: sdp}.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, name := range names {
		sdp := capture(f, name)
		add(sdp)
		add(sdp[:len(sdp)/2])
		add(strings.ReplaceAll(sdp, "a=mid:", "a=x:"))
		add(strings.ReplaceAll(sdp, "m=audio 9", "m=audio 0"))
		add(strings.ReplaceAll(sdp, "sendrecv", "inactive"))
		add(sdp + sdp)
	}
	add("v=0\r\n")
	f.Add([]byte(`{"type":"` + kind + `","sdp":""}`))
	f.Add([]byte(`{"type":"pranswer","sdp":"v=0"}`))
	f.Add([]byte(`null`))
}

// FuzzSDPOffer: whatever an endpoint offers first, the peer answers or refuses it and ends.
func FuzzSDPOffer(f *testing.F) {
	seedDescriptions(f, "offer", "offer-channel", "offer-voice-simulcast")
	e := newEngine(f, func(cfg *Config) { cfg.RemoteAllowed = nothing })
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := wire.ParseDescription(data)
		if err != nil || d.Type != "offer" {
			return
		}
		before := runtime.NumGoroutine()
		func() {
			p := newFuzzPeer(t, e)
			defer closePeer(t, p)
			answer, err := p.AcceptOffer(d.SDP)
			if err != nil {
				if p.Recover() != nil {
					return
				}
				answer, err = p.AcceptOffer(capture(t, "offer-channel"))
			}
			p.Sections()
			if err != nil {
				return
			}
			if _, err := json.Marshal(answer); err != nil || !strings.HasPrefix(answer, "v=0") {
				t.Errorf("answer %q: %v", answer, err)
			}
			if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
				return
			}
			_, _ = p.MakeOffer()
		}()
		settled(t, before)
	})
}

// FuzzSDPAnswer: whatever an endpoint answers to our offer, the peer takes or refuses it, can offer
// again and ends.
func FuzzSDPAnswer(f *testing.F) {
	seedDescriptions(f, "answer", "answer-voice", "answer-voice-screen")
	e := newEngine(f, func(cfg *Config) { cfg.RemoteAllowed = nothing })
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := wire.ParseDescription(data)
		if err != nil || d.Type != "answer" {
			return
		}
		before := runtime.NumGoroutine()
		func() {
			p := newFuzzPeer(t, e)
			defer closePeer(t, p)
			if _, err := p.AcceptOffer(capture(t, "offer-channel")); err != nil {
				t.Fatal(err)
			}
			if _, err := p.AddTrack(local("voice_a_12345678", "a")); err != nil {
				t.Fatal(err)
			}
			if _, err := p.MakeOffer(); err != nil {
				t.Fatal(err)
			}
			_ = p.ApplyAnswer(d.SDP)
			p.Sections()
			_, _ = p.MakeOffer()
		}()
		settled(t, before)
	})
}

// nothing keeps fuzzed candidates from being sent to.
func nothing(netip.Addr) bool { return false }

func newFuzzPeer(t *testing.T, e *Engine) *Peer {
	t.Helper()
	cert, err := certificate()
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.NewPeer(t.Context(), cert)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closePeer(t *testing.T, p *Peer) {
	t.Helper()
	if err := p.GracefulClose(); err != nil {
		t.Logf("close: %v", err)
	}
}
