package rtc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"rtcd/service/api/wire"
	"rtcd/service/rtc"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/rtctest"
)

// deaf reports whether no media section of a description receives.
func deaf(t *testing.T, text string) bool {
	t.Helper()
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		t.Fatal(err)
	}
	for _, m := range d.MediaDescriptions {
		if m.MediaName.Media == "application" {
			continue
		}
		_, only := m.Attribute(sdp.AttrKeySendOnly)
		_, inactive := m.Attribute(sdp.AttrKeyInactive)
		if !only && !inactive {
			return false
		}
	}
	return true
}

// TestSubscriberPublishesNothing (TK-24): a subscriber, whatever its join says, offers to send sound
// and pictures. No answer and no offer of ours receives; what it sends all the same, as if they did, is
// dropped and counted, and what it announces has no effect. It is sent what others publish.
func TestSubscriberPublishesNothing(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		talker := r.enter("talker", false, rtctest.EndpointConfig{})
		voice := r.publishVoice(talker)
		voice.set(30, 0)
		bent := 0
		viewer := r.enterAs(wire.Join{UserID: "u", SessionID: "viewer", Role: wire.RoleModerator},
			rtc.Grant{Role: wire.RoleSubscriber}, rtctest.EndpointConfig{Bend: func(answer string) string {
				if !deaf(t, answer) {
					t.Errorf("an answer receives:\n%s", answer)
				}
				bent++
				answer = strings.ReplaceAll(answer, "a=inactive", "a=recvonly")
				return strings.ReplaceAll(answer, "a=sendonly", "a=sendrecv")
			}})
		for _, v := range []string{"viewer", "talker"} {
			if err := r.backend.Server.Mute("g", "call", v); err != nil { // has no part in it
				t.Fatal(err)
			}
		}
		talker.says(wire.SignalUnmute, "")
		r.publishVoice(viewer).set(30, 0)
		viewer.screenOn("scr")
		viewer.shows(rtctest.CameraConfig{StreamID: "scr", Source: "scr"})
		viewer.videoOn("cam")
		viewer.shows(rtctest.CameraConfig{StreamID: "cam", Source: "cam"})
		viewer.says(wire.SignalUnmute, "")
		r.wait(3 * time.Second)
		if got := viewer.heard(time.Second, "talker")["talker"]; got < 45 {
			t.Errorf("the subscriber heard %d packets a second of the talker, want 50", got)
		}
		if n := len(talker.streams()); n > 0 || talker.Heard("viewer").Packets > 0 || len(talker.MediaMap()) > 0 {
			t.Errorf("%d streams of a subscriber reached the others, media map %v", n, talker.MediaMap())
		}
		// Its voice alone makes 50 a second.
		if n := metricOf(t, r.backend.Metrics, "rtcd_media_drops_total", "role"); n < 100 {
			t.Errorf("%v packets dropped for the role, want those of three sources", n)
		}
		if bent < 4 {
			t.Errorf("%d answers seen, want those of the join and of three sources", bent)
		}
		for _, e := range r.backend.Events("viewer") {
			if e.Kind == rtc.Signal && e.Type == wire.SignalSDP {
				if d, err := wire.ParseDescription(e.Data); err != nil || !deaf(t, d.SDP) {
					t.Errorf("a description to the subscriber receives: %v\n%s", err, d.SDP)
				}
			}
		}
		info, ok := r.backend.Server.Call("g", "call")
		if !ok || info.Participants != 2 || info.Publishers != 1 || info.Subscribers != 1 || len(info.Streams) != 1 {
			t.Errorf("call %+v, want one publisher and one subscriber", info)
		}
		if s := r.backend.Server.Sharer("g", "call"); s != "" {
			t.Errorf("%s shares the screen", s)
		}
	})
}

// TestPublisherOnlyGetsNothing (TK-24): a session that may only publish is heard, and is sent no track
// and no offer. Nothing that it sends on its data channel reaches another one.
func TestPublisherOnlyGetsNothing(t *testing.T) {
	inRoom(t, nil, func(r *room) {
		messages := make(chan webrtc.DataChannelMessage, 100)
		talker := r.enter("talker", false, rtctest.EndpointConfig{
			OnMessage: func(m webrtc.DataChannelMessage) {
				if msg, err := channel.Decode(m.Data); err != nil || msg.Type != channel.MediaMap && msg.Type != channel.Lock {
					messages <- m
				}
			},
		})
		r.publishVoice(talker).set(30, 0)
		talker.videoOn("cam")
		talker.shows(rtctest.CameraConfig{StreamID: "cam", Source: "talker"})
		studio := r.enterAs(wire.Join{UserID: "u", SessionID: "studio"}, rtc.Grant{Role: wire.RolePublisherOnly}, rtctest.EndpointConfig{})
		r.publishVoice(studio).set(30, 0)
		for _, b := range []string{"\x63hello", "\xcc\x09\x80", "\xcc\x05\xcb\x3f\xa7\x0a\x3d\x70\xa3\xd7\x0a", "\xcc\x02"} {
			if err := studio.Channel([]byte(b)); err != nil {
				t.Fatal(err)
			}
		}
		r.wait(2 * time.Second)
		if got := talker.heard(time.Second, "studio")["studio"]; got < 45 {
			t.Errorf("%d packets a second of who only publishes, want 50", got)
		}
		if n := len(studio.streams()); n > 0 || studio.Offers() > 0 || studio.MediaMap() != nil {
			t.Errorf("who only publishes was sent %d streams, %d offers, media map %v", n, studio.Offers(), studio.MediaMap())
		}
		select {
		case m := <-messages:
			t.Errorf("%x reached another's data channel", m.Data)
		default:
		}
		info, _ := r.backend.Server.Call("g", "call")
		if info.Participants != 2 || info.Publishers != 2 || info.Subscribers != 0 {
			t.Errorf("call %+v, want two publishers", info)
		}
		for _, s := range info.Streams {
			want := 0
			if s.SessionID == "studio" {
				want = 1
			}
			if s.Subscribers != want {
				t.Errorf("%s is sent to %d, want %d", s.ID, s.Subscribers, want)
			}
		}
	})
}

// TestOnlyPublisherIsNoSubscriber (TK-20): a session that publishes nothing and may be sent nothing
// watches nothing.
func TestOnlyPublisherIsNoSubscriber(t *testing.T) {
	b := rtctest.NewBackend(t, nil)
	for _, role := range []wire.CallRole{wire.RoleFull, wire.RolePublisher, wire.RoleSubscriber, wire.RolePublisherOnly, wire.RoleModerator} {
		j := wire.Join{CallID: "call", UserID: "u", SessionID: "s-" + string(role)}
		if err := b.Server.JoinAs("g", j, rtc.Grant{Role: role}); err != nil {
			t.Fatal(err)
		}
	}
	if info, _ := b.Server.Call("g", "call"); info.Participants != 5 || info.Publishers != 0 || info.Subscribers != 4 {
		t.Errorf("call %+v, want 5 participants of whom 4 watch", info)
	}
	err := b.Server.JoinAs("g", wire.Join{CallID: "call", UserID: "u", SessionID: "x"}, rtc.Grant{Role: "admin"})
	if reason(err) != "bad_role" || b.Server.Exists("g", "x") {
		t.Errorf("join as nobody knows what: %v", err)
	}
}

// reason is what an error tells programs.
func reason(err error) string {
	if r, ok := err.(interface{ Reason() string }); ok {
		return r.Reason()
	}
	return ""
}
