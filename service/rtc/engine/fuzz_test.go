package engine

import (
	"encoding/json"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

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
		text := capture(f, name)
		add(text)
		add(text[:len(text)/2])
		add(strings.ReplaceAll(text, "a=mid:", "a=x:"))
		add(strings.ReplaceAll(text, "m=audio 9", "m=audio 0"))
		add(strings.ReplaceAll(text, "m=audio 9", "m=video 9"))
		add(strings.ReplaceAll(text, "sendrecv", "inactive"))
		add(strings.ReplaceAll(text, "a=rtpmap:96 VP8", "a=rtpmap:96 H265"))
		add(text + text)
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
			checkSections(t, p)
			if err != nil {
				return
			}
			if _, err := json.Marshal(answer); err != nil || !strings.HasPrefix(answer, "v=0") {
				t.Errorf("answer %q: %v", answer, err)
			}
			addAndOffer(t, p)
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
			checkSections(t, p)
			addAndOffer(t, p)
		}()
		settled(t, before)
	})
}

// checkSections: what is told of sections is within bounds and stands for one thing only.
func checkSections(t *testing.T, p *Peer) {
	for _, s := range p.Sections() {
		if len(s.SSRCs) > maxSSRCs || len(s.Repairs) > maxSSRCs || len(s.RIDs) > maxRIDs || len(s.Codecs) == 0 {
			t.Errorf("section %+v", s)
		}
		seen := make(map[uint8]bool)
		for _, c := range s.Codecs {
			if seen[c.PayloadType] || c.PayloadType > 127 || c.ClockRate == 0 {
				t.Errorf("payload type %d of %+v", c.PayloadType, s)
			}
			seen[c.PayloadType] = true
		}
		ids := make(map[uint8]bool)
		for i := range extensions {
			id := *extensions[i].field(&s.Ext)
			if id > maxExtension || id != 0 && ids[id] {
				t.Errorf("id %d of %+v", id, s.Ext)
			}
			ids[id] = true
		}
	}
}

// addAndOffer: whatever the endpoint has said, it can be offered a voice and a video.
func addAndOffer(t *testing.T, p *Peer) {
	for _, track := range []webrtc.TrackLocal{
		local("voice_b_12345678", "b"), localVideo(t, "video_b_12345678", "video/VP8", ""),
	} {
		if _, err := p.AddTrack(track); err != nil {
			return
		}
	}
	offer, err := p.MakeOffer()
	if err != nil {
		return
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		t.Fatalf("%v:\n%s", err, offer)
	}
	for _, m := range d.MediaDescriptions {
		if isMedia(m) && !rejected(m) {
			if n := len(formats(m)); n == 0 || n != len(m.MediaName.Formats) {
				t.Errorf("payload types %v:\n%s", m.MediaName.Formats, offer)
			}
		}
	}
	voice, video := codecNames(t, offer, "audio"), codecNames(t, offer, "video")
	if len(voice) == 0 || len(video) == 0 || !strings.Contains(voice[len(voice)-1], "opus") || !strings.Contains(video[len(video)-1], "VP8") {
		t.Errorf("offered %q, %q", voice, video)
	}
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
