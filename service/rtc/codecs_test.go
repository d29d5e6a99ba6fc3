package rtc_test

import (
	"fmt"
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

// Redundant audio passes as it came to those who offered it. The others get what is newest in it, as
// plain Opus.
func TestRedundantAudio(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		modern := rtctest.EndpointConfig{RED: true}
		speaker, able := r.enter("s0", false, modern), r.enter("s1", false, modern)
		plain := r.enter("s2", false, rtctest.EndpointConfig{})
		silent := r.enter("s3", false, modern)
		able.hasMicrophone() // else it has not said what it can, as the silent one
		source, err := speaker.AddRedundantAudio(r.ctx, "mic")
		if err != nil {
			t.Fatal(err)
		}
		r.speaks(source, "s0", 20)
		other, err := plain.AddAudio(r.ctx, "mic") // plain audio goes to all as it is
		if err != nil {
			t.Fatal(err)
		}
		r.speaks(other, "s2", 30)
		r.wait(3 * time.Second)
		for _, c := range []struct {
			g         *guest
			of        string
			codec     string
			redundant bool
		}{
			{able, "s0", "audio/red", true},
			{plain, "s0", "audio/opus", false},
			{silent, "s0", "audio/opus", false},
			{able, "s2", "audio/opus", false},
			{speaker, "s2", "audio/opus", false},
		} {
			h := c.g.Heard(c.of)
			if h.Packets < 100 || h.Bad+h.Gaps > 0 || (h.Redundant == h.Packets) != c.redundant || !c.redundant && h.Redundant > 0 {
				t.Errorf("%s of %s: %d packets, %d redundant, %d bad, %d gaps", c.g.name, c.of, h.Packets, h.Redundant, h.Bad, h.Gaps)
			}
			if !strings.EqualFold(h.Codec, c.codec) {
				t.Errorf("%s of %s: %s, want %s", c.g.name, c.of, h.Codec, c.codec)
			}
		}
		if got := plain.codecs(); !slices.Equal(got, []string{"audio/opus"}) {
			t.Errorf("who does not know redundant audio was sent %v", got)
		}
	})
}

// Audio is sent again to those who may ask for it, and asked for of those who can be.
func TestAudioIsRepaired(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		modern := rtctest.EndpointConfig{AudioNACK: true}
		speaker, able := r.enter("s0", false, modern), r.enter("s1", false, modern)
		plain := r.enter("s2", false, rtctest.EndpointConfig{})
		able.hasMicrophone() // else it has not said what it can
		voice := r.publishVoice(speaker)
		voice.set(20, 0)
		if err := able.Await(r.ctx, func(heard func(string) rtctest.Heard) bool { return heard("s0").Packets > 20 }); err != nil {
			t.Fatal(err)
		}
		missing := func(g *guest, from, to int) (n int) {
			got := make(map[uint32]bool)
			for _, number := range g.Heard("s0").Numbers {
				if got[number] {
					t.Errorf("%s heard packet %d twice", g.name, number)
				}
				got[number] = true
			}
			for i := from; i < to; i++ {
				if !got[uint32(i)] {
					n++
				}
			}
			return n
		}
		during := func(set func(rtctest.Impairment)) (from, to int) {
			from = voice.count()
			set(rtctest.Impairment{Loss: 0.05})
			r.wait(10 * time.Second)
			set(rtctest.Impairment{})
			to = voice.count()
			r.wait(time.Second)
			return from, to
		}
		from, to := during(able.link.Down.Set)
		if n := missing(able, from, to); n > 3 {
			t.Errorf("%d of %d packets are missing to who asked for them", n, to-from)
		}
		from, to = during(plain.link.Down.Set)
		if n := missing(plain, from, to); n < 5 {
			t.Errorf("%d of %d packets are missing to who cannot ask: nothing was lost", n, to-from)
		}
		from, to = during(speaker.link.Up.Set)
		for _, g := range []*guest{able, plain} {
			if n := missing(g, from, to); n > 3 {
				t.Errorf("%d of %d packets are missing to %s that the sender could send again", n, to-from, g.name)
			}
			if h := g.Heard("s0"); h.Bad > 0 {
				t.Errorf("%s: %d packets are changed", g.name, h.Bad)
			}
		}
	})
}

// Videos are repaired in a repair stream where that was agreed on, else by sending packets again.
func TestVideoIsRepaired(t *testing.T) {
	for _, from := range []bool{true, false} {
		t.Run(fmt.Sprintf("repair stream from the sender %v", from), func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				sender := r.enter("s0", false, rtctest.EndpointConfig{NoRepair: !from})
				with := r.enter("s1", false, rtctest.EndpointConfig{})
				without := r.enter("s2", false, rtctest.EndpointConfig{NoRepair: true})
				sender.videoOn("cam")
				sender.shows(rtctest.CameraConfig{StreamID: "cam", Layers: []rtctest.Layer{{Bitrate: 600_000, FPS: 25}}})
				guests := []*guest{with, without}
				for _, g := range guests {
					g.sees("s0", "video", vp8Mime)
				}
				ratio := func(what string, set func(rtctest.Impairment), g *guest) {
					t.Helper()
					before := g.Viewed("s0", "video")
					set(rtctest.Impairment{Loss: 0.02})
					r.wait(8 * time.Second)
					set(rtctest.Impairment{})
					r.wait(1500 * time.Millisecond)
					v := g.Viewed("s0", "video")
					if all, ok := v.Frames-before.Frames, v.Decodable-before.Decodable; ok < all*95/100 || all < 100 {
						t.Errorf("%s, %s: %d of %d frames are decodable", g.name, what, ok, all)
					}
					if v.Bad+v.Foreign+v.Jumps+v.PictureFaults+v.TimestampFaults > 0 {
						t.Errorf("%s, %s: faults in what is seen: %+v", g.name, what, v)
					}
				}
				for _, g := range guests {
					ratio("loss on the way to it", g.link.Down.Set, g)
				}
				if v := with.Viewed("s0", "video"); v.Repaired == 0 {
					t.Errorf("nothing came in the repair stream: %+v", v)
				}
				if v := without.Viewed("s0", "video"); v.Repaired > 0 {
					t.Errorf("%d packets came in a repair stream that was not agreed on", v.Repaired)
				}
				ratio("loss on the way from the sender", sender.link.Up.Set, with)
			})
		})
	}
}
