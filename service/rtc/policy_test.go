package rtc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// 12.2: of several who want to share their screens the first may. Those who came second are not
// forwarded then, nor when the screen is free again; they have to say so once more.
func TestOneScreen(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		a, b := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("b", false, rtctest.EndpointConfig{})
		viewer := r.enter("viewer", false, rtctest.EndpointConfig{})
		a.screenOn("scr-a")
		b.screenOn("scr-b")
		b.shows(rtctest.CameraConfig{StreamID: "scr-b"})
		a.shows(rtctest.CameraConfig{StreamID: "scr-a"})
		viewer.sees("a", "screen", vp8Mime)
		b.says(wire.SignalScreenOff, "") // counts only from the sharer
		r.wait(time.Second)
		viewer.sees("a", "screen", vp8Mime)
		awaitMedia(r.ctx, t, viewer.Endpoint, "screen a")

		a.says(wire.SignalScreenOff, "")
		awaitMedia(r.ctx, t, viewer.Endpoint)
		viewer.forget()
		r.wait(2 * time.Second)
		if n := len(viewer.streams()); n > 0 || len(viewer.MediaMap()) > 0 {
			t.Errorf("%d streams after the share has ended, media map %v", n, viewer.MediaMap())
		}
		b.screenOn("scr-b")
		viewer.sees("b", "screen", vp8Mime)

		// The sharer's leaving ends the share, too.
		a.screenOn("scr-a")
		b.leaves()
		awaitMedia(r.ctx, t, viewer.Endpoint)
		viewer.forget()
		r.wait(time.Second)
		if n := len(viewer.streams()); n > 0 {
			t.Errorf("%d streams after the sharer has left", n)
		}
	})
}

// The rule of one screen can be lifted: to a number, or to any.
func TestSeveralScreens(t *testing.T) {
	for _, c := range []struct{ screens, want int }{{2, 2}, {-1, 3}} {
		t.Run(fmt.Sprint(c.screens), func(t *testing.T) {
			inRoom(t, func(cfg *rtc.Config) { cfg.Screens = c.screens }, func(r *room) {
				viewer := r.enter("viewer", false, rtctest.EndpointConfig{})
				names := []string{"a", "b", "c"}
				sharers := make(map[string]*guest)
				for _, name := range names {
					g := r.enter(name, false, rtctest.EndpointConfig{})
					sharers[name] = g
					g.screenOn("scr") // ids of streams are those of their owners
					g.shows(rtctest.CameraConfig{StreamID: "scr", Source: "screen of " + name})
				}
				var media []string
				for _, name := range names[:c.want] {
					viewer.sees(name, "screen", vp8Mime)
					media = append(media, "screen "+name)
				}
				awaitMedia(r.ctx, t, viewer.Endpoint, media...)

				// One that ends leaves the others.
				sharers["a"].says(wire.SignalScreenOff, "")
				awaitMedia(r.ctx, t, viewer.Endpoint, media[1:]...)
				for _, name := range names[1:c.want] {
					viewer.sees(name, "screen", vp8Mime)
				}
				r.wait(time.Second)
				awaitMedia(r.ctx, t, viewer.Endpoint, media[1:]...)
				if c.want < len(names) { // there is room for who was too late, who has to ask
					sharers["c"].screenOn("scr")
					viewer.sees("c", "screen", vp8Mime)
				}
			})
		})
	}
}

// 12.2, 12.3: what is announced later is looked at again; what is not announced is not forwarded;
// what was accepted stays what it is; nobody gets what is their own; who comes late gets it all.
func TestWhatIsForwarded(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		a, viewer := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("viewer", false, rtctest.EndpointConfig{})
		a.shows(rtctest.CameraConfig{StreamID: "x"})
		r.wait(time.Second)
		if n := len(viewer.MediaMap()); n > 0 || len(viewer.streams()) > 0 {
			t.Fatalf("a video that was not announced is forwarded: %v", viewer.MediaMap())
		}
		a.videoOn("other")
		r.wait(time.Second)
		if n := len(viewer.streams()); n > 0 {
			t.Fatal("a video is forwarded as that of another stream")
		}
		a.videoOn("x")
		viewer.sees("a", "video", vp8Mime)
		// A new name, and a camera off, change nothing.
		offers := viewer.Offers()
		a.videoOn("y")
		a.says(wire.SignalVideoOff, "")
		viewer.sees("a", "video", vp8Mime)
		// Nor does a screen share of that name make it one; and there is only one camera each.
		a.shows(rtctest.CameraConfig{StreamID: "y"})
		r.wait(time.Second)
		a.screenOn("x")
		viewer.sees("a", "video", vp8Mime)
		awaitMedia(r.ctx, t, viewer.Endpoint, "video a")
		if n := viewer.Offers(); n != offers {
			t.Errorf("%d offers for what changes nothing", n-offers)
		}
		late := r.enter("late", false, rtctest.EndpointConfig{})
		late.sees("a", "video", vp8Mime)
		if n := len(a.streams()); n > 0 {
			t.Errorf("the sender gets %d streams, of its own", n)
		}
	})
}

// 12.3: who comes late gets all that goes on, with few negotiations.
func TestLateJoinerGetsAll(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		var want []string
		for _, name := range []string{"a", "b"} {
			g := r.enter(name, false, rtctest.EndpointConfig{})
			r.publishVoice(g)
			g.videoOn("cam")
			g.shows(rtctest.CameraConfig{StreamID: "cam"})
			want = append(want, "voice "+name, "video "+name)
			if name == "a" {
				g.screenOn("scr")
				g.shows(rtctest.CameraConfig{StreamID: "scr"})
				source, err := g.AddAudio(r.ctx, "scr")
				if err != nil {
					t.Fatal(err)
				}
				r.speaks(source, name+"/screen-audio", 50)
				want = append(want, "screen a", "screen-audio a")
			}
		}
		r.wait(time.Second)
		late := r.enter("late", false, rtctest.EndpointConfig{})
		awaitMedia(r.ctx, t, late.Endpoint, want...)
		late.sees("a", "video", vp8Mime)
		late.sees("a", "screen", vp8Mime)
		late.sees("b", "video", vp8Mime)
		for _, name := range []string{"a", "b", "a/screen-audio"} {
			if h := late.Heard(name); h.Packets == 0 || h.Bad > 0 || h.Gaps > 0 {
				t.Errorf("%s: %d packets, %d bad, %d gaps", name, h.Packets, h.Bad, h.Gaps)
			}
		}
		if n := late.Offers(); n > 2 {
			t.Errorf("%d offers, want 1, or 2 if something came meanwhile", n)
		}
	})
}

// A voice50 sends 50 packets a second, of a level that can be changed.
type voice50 struct {
	mu    sync.Mutex
	level uint8
	beat  uint8 // added to every other packet's level, so that levels vary as those of speech
	sent  []time.Time
}

func (v *voice50) set(level, beat uint8) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.level, v.beat = level, beat
}

// when is when a packet was sent.
func (v *voice50) when(n uint32) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sent[n]
}

// count is how many packets were sent.
func (v *voice50) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.sent)
}

// publishVoice adds a microphone that hears silence.
func (r *room) publishVoice(g *guest) *voice50 {
	r.t.Helper()
	source, err := g.AddAudio(r.ctx, "mic_"+g.name)
	if err != nil {
		r.t.Fatalf("%s: publish a voice: %v", g.name, err)
	}
	return r.speaks(source, g.name, 127)
}

// speaks sends packets of a source until the test ends.
func (r *room) speaks(source *rtctest.Source, sender string, level uint8) *voice50 {
	v := &voice50{level: level}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			v.mu.Lock()
			level := v.level
			if n/10%2 == 1 {
				level += v.beat
			}
			v.sent = append(v.sent, time.Now())
			v.mu.Unlock()
			if err := source.Send(sender, n, level); err != nil && ctx.Err() == nil {
				r.t.Errorf("%s: send a voice: %v", sender, err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	return v
}

// heard returns how many packets of each came in a time.
func (g *guest) heard(d time.Duration, names ...string) map[string]int {
	before := make(map[string]int)
	for _, name := range names {
		before[name] = g.Heard(name).Packets
	}
	g.room.wait(d)
	out := make(map[string]int)
	for _, name := range names {
		out[name] = g.Heard(name).Packets - before[name]
	}
	return out
}

// Of many voices the loudest are forwarded. One that becomes loud gets in at once, without
// negotiation, and nobody's numbers have gaps.
func TestLoudestVoices(t *testing.T) {
	inRoom(t, func(c *rtc.Config) { c.Voices = 2 }, func(r *room) {
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		names := []string{"a", "b", "c", "d"}
		voices := make(map[string]*voice50)
		guests := make(map[string]*guest)
		for i, name := range names {
			guests[name] = r.enter(name, false, rtctest.EndpointConfig{})
			voices[name] = r.publishVoice(guests[name])
			voices[name].set(30+uint8(i)*10, 0)
		}
		loud := func(want ...string) {
			t.Helper()
			r.wait(1500 * time.Millisecond)
			got := listener.heard(time.Second, names...)
			for _, name := range names {
				switch n := got[name]; {
				case slices.Contains(want, name) && n < 45:
					t.Errorf("%d packets a second of %s, who is loud", n, name)
				case !slices.Contains(want, name) && n > 0:
					t.Errorf("%d packets a second of %s, who is not", n, name)
				}
			}
		}
		loud("a", "b")
		offers := listener.Offers()
		voices["d"].set(20, 0)
		start := listener.Heard("d").Packets
		r.wait(300 * time.Millisecond)
		if n := listener.Heard("d").Packets - start; n < 5 {
			t.Errorf("%d packets of who became loud in 300 ms", n)
		}
		loud("a", "d")
		// One who is muted, and one who leaves, give their places away.
		signal(t, r.backend, "d", wire.SignalMute, "")
		loud("a", "b")
		guests["a"].leaves()
		loud("b", "c")
		if n := listener.Offers(); n > offers+1 { // of the one who left
			t.Errorf("%d offers for changes of who is loud", n-offers)
		}
		for _, name := range names {
			if h := listener.Heard(name); h.Gaps > 0 || h.Bad > 0 {
				t.Errorf("%s: %d gaps, %d bad of %d packets", name, h.Gaps, h.Bad, h.Packets)
			}
		}
	})
}

// Of many cameras those of who spoke last are sent. The others are paused without negotiation, and
// come back with a keyframe when their owners speak. Screens do not count.
func TestCamerasOfSpeakers(t *testing.T) {
	inRoom(t, func(c *rtc.Config) { c.Cameras = 2 }, func(r *room) {
		viewer := r.enter("viewer", false, rtctest.EndpointConfig{})
		names := []string{"a", "b", "c", "d"}
		mics := make(map[string]*voice50)
		for _, name := range names {
			g := r.enter(name, false, rtctest.EndpointConfig{})
			mics[name] = r.publishVoice(g)
			g.videoOn("cam")
			g.shows(rtctest.CameraConfig{StreamID: "cam", Source: "camera of " + name})
			if name == "a" {
				g.screenOn("scr")
				g.shows(rtctest.CameraConfig{StreamID: "scr"})
			}
		}
		// speak makes somebody speak, after the others have fallen silent.
		await := func(name, last string) {
			t.Helper()
			err := r.backend.Await(r.ctx, name, func(events []rtc.Event) bool {
				said := voices(events)
				return len(said) == 0 && last == "off" || len(said) > 0 && said[len(said)-1] == last
			})
			if err != nil {
				t.Fatalf("voice of %s is not %s: %v", name, last, err)
			}
		}
		speak := func(name string) {
			t.Helper()
			for other, v := range mics {
				v.set(127, 0)
				await(other, "off")
			}
			mics[name].set(20, 60)
			await(name, "on")
		}
		shown := func(want ...string) {
			t.Helper()
			before := make(map[string]int)
			for _, name := range names {
				before[name] = viewer.Viewed(name, "video").Packets
			}
			r.wait(time.Second)
			for _, name := range names {
				n := viewer.Viewed(name, "video").Packets - before[name]
				if in := slices.Contains(want, name); in && n < 15 || !in && n > 0 {
					t.Errorf("%d packets a second of the camera of %s, want %v to be shown", n, name, want)
				}
			}
		}
		r.wait(2 * time.Second)
		for _, name := range names { // d and c are the last ones then
			speak(name)
		}
		r.wait(500 * time.Millisecond)
		shown("c", "d")
		offers := viewer.Offers()
		for i, next := range []string{"a", "b", "c", "d", "a"} {
			keys := viewer.Viewed(next, "video").Keyframes
			speak(next)
			start := time.Now()
			v := viewer.awaits(next, "video", "the camera of who speaks", func(v rtctest.View) bool { return v.Keyframes > keys })
			if d := time.Since(start); d > time.Second {
				t.Errorf("a keyframe of %s after %v", next, d)
			}
			r.wait(500 * time.Millisecond)
			shown(next, []string{"d", "a", "b", "c", "d"}[i])
			if v = viewer.Viewed(next, "video"); v.Tracks != 1 {
				t.Errorf("camera of %s came as %d tracks", next, v.Tracks)
			}
		}
		if n := viewer.Offers(); n != offers {
			t.Errorf("%d offers for pauses", n-offers)
		}
		for _, name := range names {
			v := viewer.Viewed(name, "video")
			if v.Early > 0 { // it began with a picture that was passed unread, so its id was not counted
				v.PictureFaults, v.LevelFaults = max(0, v.PictureFaults-1), max(0, v.LevelFaults-1)
			}
			viewer.sound(v)
		}
		viewer.sees("a", "screen", vp8Mime)
	})
}

// M1, 15: whoever comes sees a picture at once, also if the sender was asked for a keyframe just
// before and may not be asked again yet.
func TestLateJoinerSeesAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		camera rtctest.CameraConfig
	}{
		{"camera", rtctest.CameraConfig{Layers: small}},
		{"simulcast", rtctest.CameraConfig{Layers: simulcast}},
		{"opaque", rtctest.CameraConfig{Mime: av1Mime, Dependency: true, Opaque: true}},
		{"H264", rtctest.CameraConfig{Mime: h264Mime}},
		{"SVC", rtctest.CameraConfig{Mime: vp9Mime, Layers: []rtctest.Layer{{Bitrate: 600_000, FPS: 24, Spatials: 3, Temporals: 3}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				cfg := rtctest.EndpointConfig{Dependency: c.camera.Dependency}
				sender, first := r.enter("s0", true, cfg), r.enter("s1", true, cfg)
				sender.videoOn("cam")
				c.camera.StreamID = "cam"
				camera := sender.shows(c.camera)
				first.sees("s0", "video", first.awaits("s0", "video", "anything", func(v rtctest.View) bool { return v.Pictures > 0 }).Codec)
				r.wait(3 * time.Second)
				for i := range 5 {
					// Somebody asks, and is answered.
					v := first.Viewed("s0", "video")
					first.asksKeyframe(v.SSRC)
					first.awaits("s0", "video", "a keyframe", func(now rtctest.View) bool { return now.Keyframes > v.Keyframes })
					asked := keyframesAsked(camera)
					r.wait(time.Duration(i) * 150 * time.Millisecond)

					late := r.enter(fmt.Sprintf("late%d", i), true, cfg)
					if err := late.Await(r.ctx, func(func(string) rtctest.Heard) bool { return late.Offers() > 0 }); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					v = late.awaits("s0", "video", "a first picture", func(v rtctest.View) bool { return v.Pictures > 0 })
					if d := v.FirstShow.Sub(start); d > 500*time.Millisecond {
						t.Errorf("joiner %d saw a picture after %v", i, d)
					}
					late.awaits("s0", "video", "more", func(now rtctest.View) bool { return now.Pictures > 5 })
					late.sound(late.Viewed("s0", "video"))
					t.Logf("joiner %d saw a picture after %v, %d more keyframes asked for",
						i, v.FirstShow.Sub(start), keyframesAsked(camera)-asked)
					r.wait(1500 * time.Millisecond)
				}
			})
		})
	}
}

// keyframesAsked is how many keyframes of all layers were asked for.
func keyframesAsked(c *rtctest.Camera) (n int) {
	for i := range c.Layers() {
		n += c.KeyframesAsked(i)
	}
	return n
}

// A camera goes off and on again without negotiation: the web application replaces the track, and
// says video-on with a new stream id. Receivers go on as if nothing had been.
func TestCameraOffAndOn(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("another SSRC %v", fresh), func(t *testing.T) {
			inRoom(t, nil, func(r *room) {
				sender, viewer := r.enter("s0", false, rtctest.EndpointConfig{}), r.enter("s1", false, rtctest.EndpointConfig{})
				sender.videoOn("cam")
				camera := sender.shows(rtctest.CameraConfig{StreamID: "cam", Layers: simulcast})
				viewer.awaits("s0", "video", "the best layer", func(v rtctest.View) bool { return v.Layer == 2 })
				offers := viewer.Offers()
				for i := range 3 {
					for l := range camera.Layers() {
						camera.Enable(l, false)
					}
					sender.says(wire.SignalVideoOff, "")
					r.wait(time.Duration(i+1) * 900 * time.Millisecond)
					before := viewer.Viewed("s0", "video")
					if err := camera.Replace(rtctest.CameraConfig{StreamID: "cam", Mime: vp8Mime}, fresh); err != nil {
						t.Fatal(err)
					}
					sender.videoOn(fmt.Sprintf("cam%d", i))
					for l := range camera.Layers() {
						camera.Enable(l, true)
					}
					start := time.Now()
					v := viewer.awaits("s0", "video", "the camera again", func(v rtctest.View) bool { return v.Keyframes > before.Keyframes && v.Pictures > before.Pictures })
					if d := v.LastShow.Sub(start); d > 600*time.Millisecond {
						t.Errorf("round %d: pictures again after %v", i, d)
					}
					viewer.awaits("s0", "video", "the best layer again", func(v rtctest.View) bool {
						return v.Layer == 2 && v.Pictures > before.Pictures+60
					})
				}
				v := viewer.Viewed("s0", "video")
				viewer.sound(v)
				if v.Tracks != 1 || viewer.Offers() != offers {
					t.Errorf("%d tracks, %d more offers", v.Tracks, viewer.Offers()-offers)
				}
				if !fresh { // else pion's sender does not hear that a keyframe is asked for
					late := r.enter("s2", false, rtctest.EndpointConfig{})
					late.sees("s0", "video", vp8Mime)
				}
			})
		})
	}
}

// A sender that goes over to another codec in the same section makes a new publication of it: each
// receiver gets that as another track, or is told, and the old one is gone everywhere.
func TestCodecChangesInSection(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		sender, viewer := r.enter("s0", true, rtctest.EndpointConfig{}), r.enter("s1", true, rtctest.EndpointConfig{})
		plain := r.enter("s2", false, rtctest.EndpointConfig{Codecs: []string{vp8Mime}})
		sender.videoOn("cam")
		camera := sender.shows(rtctest.CameraConfig{StreamID: "cam", Layers: simulcast[:2]})
		viewer.sees("s0", "video", vp8Mime)
		plain.sees("s0", "video", vp8Mime)
		for i, mime := range []string{vp9Mime, vp8Mime, av1Mime, h264Mime, vp8Mime} {
			viewer.forget()
			if err := camera.Replace(rtctest.CameraConfig{StreamID: "cam", Mime: mime}, false); err != nil {
				t.Fatal(err)
			}
			viewer.sees("s0", "video", mime)
			if mime == vp8Mime {
				plain.sees("s0", "video", mime)
				awaitMedia(r.ctx, t, plain.Endpoint, "video s0")
			} else {
				plain.told("video", "s0", mime)
			}
			awaitMedia(r.ctx, t, viewer.Endpoint, "video s0")
			viewer.forget()
			r.wait(time.Second)
			if got := viewer.codecs(); !slices.Equal(got, []string{mime}) {
				t.Errorf("%v comes, want %s alone", got, mime)
			}
			if n := viewer.Viewed("s0", "video").Tracks; n != i+2 {
				t.Errorf("%d tracks after %d changes", n, i+1)
			}
			want := 2.0 // one in, one out
			if mime == vp8Mime {
				want++
			}
			if n := metric(t, r.backend.Metrics, "rtcd_rtc_rtp_tracks_total"); n != want {
				t.Errorf("%v tracks in and out are counted after %s, want %v", n, mime, want)
			}
		}
		// Sections are used again.
		if n := strings.Count(viewer.PC().CurrentRemoteDescription().SDP, "m=video"); n > 2 {
			t.Errorf("the viewer has %d sections of video", n)
		}
		sender.leaves()
		awaitMedia(r.ctx, t, viewer.Endpoint)
		awaitMedia(r.ctx, t, plain.Endpoint)
		if n := metric(t, r.backend.Metrics, "rtcd_rtc_rtp_tracks_total"); n != 0 {
			t.Errorf("%v tracks are left", n)
		}
	})
}

// A share that ends and begins again while its packets never stop: the sender is not asked for those
// that it sent in between, and the picture is there at once.
func TestShareAgain(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		a, viewer := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("viewer", false, rtctest.EndpointConfig{})
		a.screenOn("scr")
		a.shows(rtctest.CameraConfig{StreamID: "scr"})
		viewer.sees("a", "screen", vp8Mime)
		for i := range 5 {
			a.says(wire.SignalScreenOff, "")
			awaitMedia(r.ctx, t, viewer.Endpoint)
			r.wait(2*time.Second + time.Duration(i)*13*time.Millisecond)
			before := r.backend.Server.Forwarded().PacketsIn
			a.screenOn("scr")
			v := viewer.sees("a", "screen", vp8Mime)
			if d := v.FirstShow.Sub(v.Since); d > 300*time.Millisecond {
				t.Errorf("round %d: a picture %v after the first packet", i, d)
			}
			if n := r.backend.Server.Forwarded().PacketsIn - before; n > 30 {
				t.Errorf("round %d: %d packets came for 11 pictures", i, n)
			}
		}
	})
}
