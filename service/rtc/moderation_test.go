package rtc_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// streamOf returns the id of a stream of a session.
func (r *room) streamOf(session, source string) string {
	r.t.Helper()
	info, _ := r.backend.Server.Call("g", "call")
	for _, s := range info.Streams {
		if s.SessionID == session && s.Source == source {
			return s.ID
		}
	}
	r.t.Fatalf("%s publishes no %s: %+v", session, source, info)
	return ""
}

// must ends the test on an error.
func (r *room) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}

// TestDisconnect (TK-21, C17): a session that goes on sending is out within a second: its transport is
// closed, its backend is told why, once, and nothing of it reaches the others, who notice nothing else.
func TestDisconnect(t *testing.T) {
	ctx := deadline(t, 60*time.Second)
	b := rtctest.NewBackend(t, nil)
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range []string{"listener", "talker", "bad"} {
		all[name] = b.Join(t, "g", "call", name, rtctest.EndpointConfig{})
		connectAndPublish(ctx, t, all[name], name)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := uint32(0); ; n++ {
			_ = all["talker"].SendVoice("talker", n, 30)
			_ = all["bad"].SendVoice("bad", n, 30) // whatever becomes of it
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	listener := all["listener"]
	until := func(name string, n int) {
		t.Helper()
		if err := listener.Await(ctx, func(heard func(string) rtctest.Heard) bool { return heard(name).Packets > n }); err != nil {
			t.Fatalf("heard %d packets of %s, want more than %d", listener.Heard(name).Packets, name, n)
		}
	}
	until("bad", 20)
	until("talker", 20)
	closed := make(chan struct{})
	all["bad"].PC().SCTP().OnClose(func(error) { close(closed) })
	start := time.Now()
	if err := b.Server.Disconnect("g", "call", "bad"); err != nil {
		t.Fatal(err)
	}
	gone := listener.Heard("bad").Packets
	if b.Server.Exists("g", "bad") {
		t.Error("the session is still there")
	}
	select {
	case <-closed:
	case <-ctx.Done():
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the transport was closed after %v, want a second at most", took)
	}
	events := b.Events("bad")
	if e := events[len(events)-1]; e.Kind != rtc.Closed || e.Reason != rtc.CloseRemoved {
		t.Errorf("last event %+v, want that it was closed as removed", e)
	}
	before := listener.Heard("talker")
	until("talker", before.Packets+50)
	if n := listener.Heard("bad").Packets; n > gone+2 { // what was on its way
		t.Errorf("%d packets of who was removed were heard", n-gone)
	}
	if after := listener.Heard("talker"); after.Bad > 0 {
		t.Errorf("%d packets of another one were changed", after.Bad)
	}
	if err := b.Server.Disconnect("g", "call", "bad"); !errors.Is(err, rtc.ErrNoSession) || reason(err) != "not_found" {
		t.Errorf("disconnect once more: %v", err)
	}
	if err := b.Server.Disconnect("g", "call", "talker"); err != nil { // who asks may name anybody
		t.Error(err)
	}
}

// TestModerationStaysInItsGroup (RT-08): nothing that is done to calls, sessions and streams reaches
// those of another client, or of another call, and what is foreign looks like what is missing.
func TestModerationStaysInItsGroup(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		talker := r.enter("talker", false, rtctest.EndpointConfig{})
		r.publishVoice(talker).set(30, 0)
		r.wait(2 * time.Second)
		s, voice := r.backend.Server, r.streamOf("talker", "voice")
		// The same ids, in another client's call.
		r.must(s.Join("other", wire.Join{CallID: "call", UserID: "user-talker", SessionID: "talker"}))
		r.must(s.Join("other", wire.Join{CallID: "theirs", UserID: "u", SessionID: "x"}))
		r.must(s.Mute("other", "call", "talker"))
		r.must(s.MuteAll("other", "call", nil))
		r.must(s.SetMuteState("other", "call", true, nil))
		r.must(s.Disconnect("other", "call", "talker"))
		s.Leave("other", "listener")
		for name, err := range map[string]error{
			"disconnect":                 s.Disconnect("other", "call", "listener"),
			"disconnect in another call": s.Disconnect("g", "theirs", "talker"),
			"unpublish":                  s.Unpublish("other", "theirs", voice, true),
			"unpublish in no call":       s.Unpublish("other", "call", voice, true),
			"mute":                       s.Mute("other", "theirs", "talker"),
			"mute all":                   s.MuteAll("other", "call", nil),
			"mute state":                 s.SetMuteState("other", "call", true, nil),
			"end":                        s.EndCall("other", "call"),
			"signal":                     s.Signal("other", "talker", wire.Signal{Type: wire.SignalMute}),
			"missing":                    s.Disconnect("g", "call", "nobody"),
			"missing stream":             s.Unpublish("g", "call", "voice_nobody_12345678", false),
		} {
			if reason(err) != "not_found" {
				t.Errorf("%s: %v, want that it is not found", name, err)
			}
		}
		if _, ok := s.Call("other", "call"); ok || len(s.Calls("other")) != 1 || len(s.Calls("nobody")) != 0 {
			t.Errorf("calls of the other client: %+v", s.Calls("other"))
		}
		if n := listener.heard(time.Second, "talker")["talker"]; n < 45 {
			t.Errorf("heard %d packets a second after all that, want 50", n)
		}
	})
}

// TestUnpublish (TK-22, C17): who goes on sending what was taken away reaches nobody with it. Until
// the end of the call it does not come back: not by negotiating anew, not by another announcement or
// under another name, and not by joining again as the same user.
func TestUnpublish(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		viewer := r.enter("viewer", false, rtctest.EndpointConfig{})
		bad := r.enter("bad", false, rtctest.EndpointConfig{})
		r.publishVoice(bad).set(30, 0)
		bad.videoOn("cam")
		bad.shows(rtctest.CameraConfig{StreamID: "cam", Source: "bad"})
		viewer.sees("bad", "video", vp8Mime)
		awaitMedia(r.ctx, t, viewer.Endpoint, "video bad", "voice bad")
		offers := viewer.Offers()

		r.must(r.backend.Server.Unpublish("g", "call", r.streamOf("bad", "voice"), true))
		awaitMedia(r.ctx, t, viewer.Endpoint, "video bad")
		soon, cancel := context.WithTimeout(r.ctx, 2*time.Second)
		defer cancel()
		if err := viewer.Await(soon, func(func(string) rtctest.Heard) bool { return viewer.Offers() > offers }); err != nil {
			t.Error("the section of the voice was not negotiated away")
		}
		bad.screenOn("mic_bad") // the voice, as the sound of a screen
		r.wait(2 * time.Second)
		awaitMedia(r.ctx, t, viewer.Endpoint, "video bad")
		bad.says(wire.SignalScreenOff, "")
		r.must(r.backend.Server.Unpublish("g", "call", r.streamOf("bad", "video"), true))
		awaitMedia(r.ctx, t, viewer.Endpoint)
		viewer.forget()
		gone := func(what string) {
			t.Helper()
			r.wait(2 * time.Second)
			if n := len(viewer.streams()); n > 0 || len(viewer.MediaMap()) > 0 {
				t.Fatalf("%s: %d streams reached the other, media map %v", what, n, viewer.MediaMap())
			}
		}
		gone("while it is sent on")
		bad.videoOn("cam")
		bad.screenOn("cam")
		gone("announced once more, and as a screen")
		again, err := bad.AddAudio(r.ctx, "mic2")
		r.must(err)
		r.speaks(again, "bad", 30)
		bad.videoOn("cam2")
		bad.shows(rtctest.CameraConfig{StreamID: "cam2", Source: "bad"})
		gone("published anew")

		bad.leaves()
		j := wire.Join{UserID: "user-bad", SessionID: "bad2"}
		bad2 := r.enterAs(j, rtc.Grant{}, rtctest.EndpointConfig{})
		r.publishVoice(bad2).set(30, 0)
		bad2.videoOn("cam")
		bad2.shows(rtctest.CameraConfig{StreamID: "cam", Source: "bad2"})
		gone("in another session of the same user")

		other := r.enter("other", false, rtctest.EndpointConfig{})
		r.publishVoice(other).set(30, 0)
		other.videoOn("cam")
		other.shows(rtctest.CameraConfig{StreamID: "cam", Source: "other"})
		viewer.sees("other", "video", vp8Mime)
	})
}

// TestUnpublishForNow (TK-22): what was taken away, and not until the end of the call, stays away while
// its endpoint only goes on, and comes back when it is published anew. A screen takes its sound along
// and makes way for another one's.
func TestUnpublishForNow(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		viewer := r.enter("viewer", false, rtctest.EndpointConfig{})
		a, b := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("b", false, rtctest.EndpointConfig{})
		a.screenOn("scr")
		a.shows(rtctest.CameraConfig{StreamID: "scr", Source: "a"})
		sound, err := a.AddAudio(r.ctx, "scr")
		r.must(err)
		r.speaks(sound, "a/screen-audio", 30)
		awaitMedia(r.ctx, t, viewer.Endpoint, "screen a", "screen-audio a")
		r.must(r.backend.Server.Unpublish("g", "call", r.streamOf("a", "screen"), false))
		awaitMedia(r.ctx, t, viewer.Endpoint)
		viewer.forget()
		// Somebody comes, so a description is applied.
		r.publishVoice(b).set(30, 0)
		awaitMedia(r.ctx, t, viewer.Endpoint, "voice b")
		r.wait(2 * time.Second)
		if n := len(viewer.streams()); n != 1 {
			t.Errorf("%d streams while nobody shares, want that of a voice", n)
		}
		b.screenOn("scr-b")
		b.shows(rtctest.CameraConfig{StreamID: "scr-b", Source: "b"})
		viewer.sees("b", "screen", vp8Mime)
		b.says(wire.SignalScreenOff, "")
		a.screenOn("scr")
		viewer.sees("a", "screen", vp8Mime)
		awaitMedia(r.ctx, t, viewer.Endpoint, "screen a", "screen-audio a", "voice b")
	})
}

// voiced reports whether somebody was told to speak since mark events.
func (r *room) voiced(session string, mark int) bool {
	return slices.Contains(voices(r.backend.Events(session)[mark:]), "on")
}

// TestModeratorsMute (TK-23, C17): who was muted stays silent for the others while it goes on sending, is not
// told of as speaking, and is heard again when its own endpoint unmutes, not by anything else. A mute
// of all spares whom it is to spare.
func TestModeratorsMute(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		s := r.backend.Server
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		a, b := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("b", false, rtctest.EndpointConfig{})
		r.publishVoice(a).set(20, 40)
		r.publishVoice(b).set(20, 40)
		r.wait(2 * time.Second)
		heard := func(what string, wantA, wantB bool) {
			t.Helper()
			mark := len(r.backend.Events("a"))
			r.wait(100 * time.Millisecond) // what was on its way
			got := listener.heard(2*time.Second, "a", "b")
			for name, want := range map[string]bool{"a": wantA, "b": wantB} {
				if n := got[name]; want && n < 95 || !want && n > 0 {
					t.Errorf("%s: %d packets of %s in 2 s, heard: want %v", what, n, name, want)
				}
			}
			if !wantA && r.voiced("a", mark) {
				t.Errorf("%s: said to speak: %v", what, voices(r.backend.Events("a")))
			}
		}
		heard("at first", true, true)
		r.must(s.Mute("g", "call", "a"))
		heard("muted", false, true)
		if off := voices(r.backend.Events("a")); off[len(off)-1] != "off" {
			t.Errorf("voice of who was muted: %v", off)
		}
		a.says(wire.SignalMute, "") // its own
		b.says(wire.SignalUnmute, "")
		heard("another unmutes", false, true)
		again, err := a.AddAudio(r.ctx, "scr") // under another name
		r.must(err)
		a.screenOn("scr")
		r.speaks(again, "a/screen-audio", 20)
		r.wait(time.Second)
		if n := listener.heard(time.Second, "a/screen-audio")["a/screen-audio"]; n > 0 {
			t.Errorf("%d packets as the sound of a screen", n)
		}
		for _, st := range func() []rtc.StreamInfo { info, _ := s.Call("g", "call"); return info.Streams }() {
			if st.Muted != (st.SessionID == "a") {
				t.Errorf("stream %+v while a is muted", st)
			}
		}
		a.says(wire.SignalUnmute, "")
		heard("unmuted by its own endpoint", true, true)

		r.must(s.MuteAll("g", "call", []string{"b"}))
		heard("all muted but b", false, true)
		a.says(wire.SignalUnmute, "")
		r.must(s.MuteAll("g", "call", []string{r.streamOf("a", "voice")}))
		heard("all muted but a stream of a", true, false)
	})
}

// TestMuteState (TK-23): in a muted call who comes is silent from the first packet, unmuting does not
// count, and whom it spares is heard. When it is over nobody is unmuted by that, but may unmute.
func TestMuteState(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		s := r.backend.Server
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		a, b := r.enter("a", false, rtctest.EndpointConfig{}), r.enter("b", false, rtctest.EndpointConfig{})
		r.publishVoice(a).set(20, 40)
		r.publishVoice(b).set(20, 40)
		r.wait(2 * time.Second)
		r.must(s.SetMuteState("g", "call", true, []string{"b", "late-spared"}))
		r.wait(100 * time.Millisecond)
		late := r.enter("late", false, rtctest.EndpointConfig{})
		r.publishVoice(late).set(20, 40)
		spared := r.enter("late-spared", false, rtctest.EndpointConfig{})
		r.publishVoice(spared).set(20, 40)
		for _, g := range []*guest{a, late} {
			g.says(wire.SignalMute, "")
			g.says(wire.SignalUnmute, "")
		}
		r.wait(2 * time.Second)
		heard := func(what string, want ...string) {
			t.Helper()
			for name, n := range listener.heard(time.Second, "a", "b", "late", "late-spared") {
				if in := slices.Contains(want, name); in && n < 45 || !in && n > 0 {
					t.Errorf("%s: %d packets a second of %s, heard: want %v", what, n, name, in)
				}
			}
		}
		heard("muted", "b", "late-spared")
		if n := listener.Heard("late").Packets; n > 0 {
			t.Errorf("%d packets of who came to a muted call", n)
		}
		if r.voiced("late", 0) {
			t.Error("who is muted was said to speak")
		}
		r.must(s.SetMuteState("g", "call", true, []string{"late"})) // to whom it is left now
		late.says(wire.SignalUnmute, "")
		r.wait(100 * time.Millisecond)
		heard("muted for others", "late")
		r.must(s.SetMuteState("g", "call", false, nil))
		r.wait(100 * time.Millisecond)
		heard("not muted any more", "late")
		for _, g := range []*guest{a, b, spared} {
			g.says(wire.SignalUnmute, "")
		}
		r.wait(100 * time.Millisecond)
		heard("unmuted by themselves", "a", "b", "late", "late-spared")
	})
}

// TestMuteOfNobody: a mute of who has no voice yet holds for the one that comes.
func TestMuteOfNobody(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		listener := r.enter("listener", false, rtctest.EndpointConfig{})
		a := r.enter("a", false, rtctest.EndpointConfig{})
		r.must(r.backend.Server.Mute("g", "call", "a"))
		r.publishVoice(a).set(30, 0)
		r.wait(2 * time.Second)
		if n := listener.Heard("a").Packets; n > 0 || !strings.HasPrefix(r.streamOf("a", "voice"), "voice_a_") {
			t.Errorf("%d packets of who was muted before", n)
		}
		a.says(wire.SignalUnmute, "")
		if n := listener.heard(time.Second, "a")["a"]; n < 40 {
			t.Errorf("%d packets a second of who has unmuted", n)
		}
	})
}
