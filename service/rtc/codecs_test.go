package rtc_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/service/rtc/rtctest"
)

const (
	vp8Mime  = webrtc.MimeTypeVP8
	vp9Mime  = webrtc.MimeTypeVP9
	h264Mime = webrtc.MimeTypeH264
	av1Mime  = webrtc.MimeTypeAV1
)

// M2, 14.1: each receiver gets a video in one codec, the one that suits it best of those that are
// sent. Whoever takes none of them is told, and sent nothing.
func TestCodecOfEachReceiver(t *testing.T) {
	all := []string{vp8Mime, vp9Mime, h264Mime, av1Mime}
	receivers := []struct {
		name   string
		av1    bool
		codecs []string
	}{
		{"modern", true, all},
		{"old", false, all}, // its browser lists AV1, but it does not say so
		{"boaster", true, []string{vp8Mime}},
		{"vp8", false, []string{vp8Mime}},
		{"vp9", false, []string{vp9Mime}},
		{"h264", false, []string{h264Mime}},
		{"av1", true, []string{av1Mime}},
	}
	for _, c := range []struct {
		name  string
		av1   bool
		sends []string
		want  map[string]string // by receiver; of none: told which codec it does not take
	}{
		{"VP8", false, []string{vp8Mime}, map[string]string{
			"modern": vp8Mime, "old": vp8Mime, "boaster": vp8Mime, "vp8": vp8Mime,
			"vp9": "no " + vp8Mime, "h264": "no " + vp8Mime, "av1": "no " + vp8Mime,
		}},
		{"VP8 of a sender that could AV1", true, []string{vp8Mime}, map[string]string{"modern": vp8Mime, "old": vp8Mime}},
		{"VP8 and AV1", true, []string{vp8Mime, av1Mime}, map[string]string{
			"modern": av1Mime, "old": vp8Mime, "boaster": vp8Mime, "vp8": vp8Mime,
			"vp9": "no " + vp8Mime, "h264": "no " + vp8Mime, "av1": av1Mime,
		}},
		{"AV1 and VP8", true, []string{av1Mime, vp8Mime}, map[string]string{"modern": av1Mime, "old": vp8Mime, "boaster": vp8Mime}},
		{"AV1", true, []string{av1Mime}, map[string]string{
			"modern": av1Mime, "old": "no " + av1Mime, "boaster": "no " + av1Mime, "vp8": "no " + av1Mime, "av1": av1Mime,
		}},
		{"VP9", false, []string{vp9Mime}, map[string]string{
			"modern": vp9Mime, "old": vp9Mime, "vp8": "no " + vp9Mime, "vp9": vp9Mime,
		}},
		{"H264", false, []string{h264Mime}, map[string]string{
			"modern": h264Mime, "old": h264Mime, "vp8": "no " + h264Mime, "h264": h264Mime,
		}},
		{"VP9 and VP8", false, []string{vp9Mime, vp8Mime}, map[string]string{
			"modern": vp8Mime, "old": vp8Mime, "vp8": vp8Mime, "vp9": vp9Mime,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				sender := r.enter("s0", c.av1, rtctest.EndpointConfig{})
				guests := make(map[string]*guest)
				for _, e := range receivers {
					if c.want[e.name] != "" {
						guests[e.name] = r.enter(e.name, e.av1, rtctest.EndpointConfig{Codecs: e.codecs})
					}
				}
				sender.videoOn("cam")
				for _, mime := range c.sends {
					sender.shows(rtctest.CameraConfig{StreamID: "cam", Mime: mime})
				}
				r.wait(2 * time.Second)
				for _, g := range guests {
					g.forget()
				}
				r.wait(time.Second)
				for name, g := range guests {
					want := c.want[name]
					if mime, ok := strings.CutPrefix(want, "no "); ok {
						g.told("video", "s0", mime)
						if got := g.codecs(); len(got) > 0 {
							t.Errorf("%s was sent %v, and takes none of it", name, got)
						}
						if n := len(g.MediaMap()); n != 1 {
							t.Errorf("%s: media map %v, want one entry", name, g.MediaMap())
						}
						continue
					}
					g.sees("s0", "video", want)
					if got := g.codecs(); !slices.Equal(got, []string{want}) {
						t.Errorf("%s was sent %v, want %s alone", name, got, want)
					}
					if n := len(g.MediaMap()); n != 1 {
						t.Errorf("%s: media map %v, want one entry", name, g.MediaMap())
					}
				}
			})
		})
	}
}

// A receiver that was told gets the video once its sender sends it in a codec that it takes, and is
// told no longer; if that codec ends it is told again.
func TestCodecThatIsAdded(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		sender := r.enter("s0", true, rtctest.EndpointConfig{})
		viewer := r.enter("s1", false, rtctest.EndpointConfig{Codecs: []string{vp8Mime}})
		sender.videoOn("cam")
		sender.shows(rtctest.CameraConfig{StreamID: "cam", Mime: av1Mime})
		viewer.told("video", "s0", av1Mime)
		if n := len(viewer.streams()); n > 0 {
			t.Errorf("%d streams of a codec that the viewer does not take", n)
		}
		// Who comes while it is so is told, too.
		late := r.enter("s2", false, rtctest.EndpointConfig{Codecs: []string{h264Mime}, ChannelSignalling: false})
		late.told("video", "s0", av1Mime)

		second := sender.shows(rtctest.CameraConfig{StreamID: "cam", Mime: vp8Mime})
		viewer.sees("s0", "video", vp8Mime)
		awaitMedia(r.ctx, t, viewer.Endpoint, "video s0")
		for key, m := range viewer.MediaMap() {
			if m.Unsupported != "" {
				t.Errorf("still told of %s: %+v", key, m)
			}
		}
		if err := second.Unpublish(r.ctx); err != nil {
			t.Fatal(err)
		}
		viewer.told("video", "s0", av1Mime)
	})
}

// H.264 profiles: each receiver gets what it can decode, in the payload type it has for that.
func TestH264Profiles(t *testing.T) {
	const (
		baseline = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
		high     = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"
	)
	inRoom(t, nil, func(r *room) {
		sender := r.enter("s0", false, rtctest.EndpointConfig{})
		browser := r.enter("s1", false, rtctest.EndpointConfig{}) // has both
		plain := r.enter("s2", false, rtctest.EndpointConfig{Codecs: []string{h264Mime}})
		sender.videoOn("cam")
		first := sender.shows(rtctest.CameraConfig{StreamID: "cam", Mime: h264Mime, Fmtp: high})
		browser.sees("s0", "video", h264Mime)
		plain.told("video", "s0", h264Mime)
		if n := len(plain.streams()); n > 0 {
			t.Errorf("%d streams of a profile that the receiver does not have", n)
		}
		if got, want := parameters(t, browser), high; got != want {
			t.Errorf("high profile came as %q", got)
		}
		if err := first.Unpublish(r.ctx); err != nil {
			t.Fatal(err)
		}
		browser.forget()
		sender.shows(rtctest.CameraConfig{StreamID: "cam", Mime: h264Mime, Fmtp: baseline})
		plain.sees("s0", "video", h264Mime)
		browser.sees("s0", "video", h264Mime)
		if got, want := parameters(t, browser), baseline; got != want {
			t.Errorf("baseline profile came as %q", got)
		}
	})
}

// parameters returns the format parameters of the one codec that has come since forget.
func parameters(t *testing.T, g *guest) string {
	t.Helper()
	sdp := g.PC().CurrentLocalDescription().SDP
	fmtp := make(map[string]string)
	for line := range strings.Lines(sdp) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "a=fmtp:"); ok {
			pt, value, _ := strings.Cut(rest, " ")
			fmtp[pt] = value
		}
	}
	found := ""
	for s := range g.streams() {
		value := fmtp[strconv.Itoa(int(s.payloadType))]
		if strings.HasPrefix(value, "apt=") {
			continue
		}
		if found != "" && found != value {
			t.Errorf("%s: packets with %q and %q", g.name, found, value)
		}
		found = value
	}
	return found
}
