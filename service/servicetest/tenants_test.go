package servicetest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// attack is every message a client can send with the ids of another client's session, in every
// form that could be taken for that one's.
func attack(victim, call, session string) [][]byte {
	var out [][]byte
	add := func(b []byte) { out = append(out, b) }
	for _, st := range []wire.SignalType{
		wire.SignalICE, wire.SignalSDP, wire.SignalMute, wire.SignalUnmute, wire.SignalScreenOn,
		wire.SignalScreenOff, wire.SignalVoiceOn, wire.SignalVoiceOff, wire.SignalVideoOn, wire.SignalVideoOff, 11, -1,
	} {
		data := map[wire.SignalType]string{
			wire.SignalICE:      `{"candidate":"candidate:1 1 udp 2130706431 127.0.0.1 9 typ host","sdpMid":"0"}`,
			wire.SignalSDP:      `{"type":"offer","sdp":"v=0\r\n"}`,
			wire.SignalScreenOn: `{"screenStreamID":"voice_` + session + `"}`,
			wire.SignalVideoOn:  `{"videoStreamID":"voice_` + session + `"}`,
		}[st]
		add(wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: st, Data: []byte(data)}))
		add(wire.AppendRTC(nil, wire.Signal{
			GroupID: victim, UserID: "user-" + session, CallID: call, SessionID: session, Type: st, Data: []byte(data),
		}))
	}
	add(wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: wire.SignalSDP, Data: []byte(`{"type":"answer","sdp":"v=0\r\n"}`)}))
	add(wire.AppendReconnect(nil, session))
	add(wire.AppendLeave(nil, session))
	return out
}

// A1, A2, RT-03: whatever one client sends with another's ids, before, during and after that one's
// call, it reaches nothing of it, and learns nothing from answers.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 60*time.Second)
	addr := start(t, nil, nil)
	victim, thief := connected(t, addr, "victim"), connected(t, addr, "thief")
	second, err := thief.DialWith(login(t, thief)) // a connection by token is no different
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	strike := func() {
		t.Helper()
		for _, m := range append(attack("victim", "call", "s1"), attack("victim", "call", "s2")...) {
			thief.Send(m)
			second.Send(m)
		}
		// All of it was handled once a join behind it is listed, on both connections.
		for i, send := range []func([]byte){thief.Send, second.Send} {
			mark := fmt.Sprintf("mark-%d", i)
			send(wire.AppendJoin(nil, wire.Join{CallID: mark, UserID: "u", SessionID: mark}))
			eventually(ctx, t, "messages are handled", func() bool {
				status, _ := thief.Get(t, "/calls/"+mark+"/sessions")
				return status == http.StatusOK
			})
			send(wire.AppendLeave(nil, mark))
			eventually(ctx, t, "mark is gone", func() bool {
				status, _ := thief.Get(t, "/calls/"+mark+"/sessions")
				return status == http.StatusNotFound
			})
		}
	}

	strike() // before
	s1 := victim.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	strike() // while it is small
	s2 := victim.Person(ctx, t, "call", "s2", rtctest.EndpointConfig{ChannelSignalling: true})
	speakers := []*servicetest.Speaker{servicetest.Speak(t, "s1", s1), servicetest.Speak(t, "s2", s2)}
	awaitHears(ctx, t, "s1", s1, 30, "s2")
	awaitHears(ctx, t, "s2", s2, 30, "s1")
	quiet := len(victim.Messages())
	strike() // in full swing

	// What is another's looks like what is not there, to the byte.
	for _, paths := range [][2]string{
		{"/calls/call/sessions", "/calls/none/sessions"},
		{"/calls/call/sessions/s1", "/calls/none/sessions/s1"},
	} {
		status, text := thief.Get(t, paths[0])
		noStatus, noText := thief.Get(t, paths[1])
		if status != http.StatusNotFound || noStatus != status || text != noText {
			t.Errorf("another's %s gives %d %q, a missing one %d %q", paths[0], status, text, noStatus, noText)
		}
	}

	// The same ids as sessions of its own are another call.
	own := thief.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	twin := servicetest.Speak(t, "s1", own)
	thief.Send(wire.AppendJoin(nil, wire.Join{CallID: "call", UserID: "u", SessionID: "s2"}))
	eventually(ctx, t, "the thief's own call is listed", func() bool {
		status, text := thief.Get(t, "/calls/call/sessions")
		return status == http.StatusOK && strings.Count(text, `"GroupID":"thief"`) == 2 && !strings.Contains(text, "victim")
	})
	hearsMore(ctx, t, "s1", s1, 50, "s2")
	hearsMore(ctx, t, "s2", s2, 50, "s1")
	if n := own.Heard("s2").Packets + own.Heard("s1").Packets; n != 0 {
		t.Errorf("the thief heard %d packets", n)
	}
	if n := len(own.MediaMap()); n != 0 {
		t.Errorf("the thief's media map has %d entries", n)
	}
	status, text := victim.Get(t, "/calls/call/sessions")
	if status != http.StatusOK || strings.Count(text, `"GroupID":"victim"`) != 2 || strings.Contains(text, "thief") {
		t.Errorf("the victim's call: %d %s", status, text)
	}
	twin.Stop(t)
	thief.Send(wire.AppendLeave(nil, "s1"))
	thief.Send(wire.AppendLeave(nil, "s2"))
	await(ctx, t, thief, "closes of its own", func() bool {
		return slices.Contains(thief.News("s1"), "close") && slices.Contains(thief.News("s2"), "close")
	})
	hearsMore(ctx, t, "s1", s1, 20, "s2")
	hearsMore(ctx, t, "s2", s2, 20, "s1")

	// To unregister another is for the admin.
	body, err := json.Marshal(map[string]string{"clientID": "victim"})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := thief.Do(t, http.MethodPost, "/unregister", thief.Basic(), string(body)); status != http.StatusForbidden {
		t.Errorf("unregister another: %d %s", status, text)
	}
	if news := victim.Messages()[quiet:]; len(news) != 0 {
		t.Errorf("the victim was told of what others did: %v", news)
	}
	for _, s := range speakers {
		s.Stop(t)
	}
	servicetest.Unbroken(t, s1, "s2")
	servicetest.Unbroken(t, s2, "s1")
	victim.Send(wire.AppendLeave(nil, "s1"))
	victim.Send(wire.AppendLeave(nil, "s2"))
	await(ctx, t, victim, "closes", func() bool {
		return slices.Contains(victim.News("s1"), "close") && slices.Contains(victim.News("s2"), "close")
	})
	strike() // after
	for _, m := range thief.Messages() {
		if m.Signal.GroupID != "" && m.Signal.GroupID != "thief" {
			t.Errorf("the thief was sent %+v", m)
		}
	}
	for name, e := range map[string]*rtctest.Endpoint{"s1": s1, "s2": s2, "own": own} {
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A7, RT-05: to unregister a client cuts its connections within a second, ends its calls and its
// token. Whoever registers the id anew finds nothing old, and other clients notice nothing.
func TestUnregisterEndsEverything(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 60*time.Second)
	addr := start(t, nil, nil)
	leaver, stayer := connected(t, addr, "leaver"), connected(t, addr, "stayer")
	token := login(t, leaver)
	byToken, err := leaver.DialWith(token)
	if err != nil {
		t.Fatal(err)
	}
	defer byToken.Close()
	link := leaver.Dial(t)

	l1 := leaver.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	l2 := leaver.Person(ctx, t, "call", "s2", rtctest.EndpointConfig{})
	o1 := stayer.Person(ctx, t, "call", "s1", rtctest.EndpointConfig{})
	o2 := stayer.Person(ctx, t, "call", "s2", rtctest.EndpointConfig{})
	for name, e := range map[string]*rtctest.Endpoint{"s1": l1, "s2": l2} {
		servicetest.Speak(t, name, e)
	}
	others := []*servicetest.Speaker{servicetest.Speak(t, "s1", o1), servicetest.Speak(t, "s2", o2)}
	awaitHears(ctx, t, "s1", l1, 20, "s2")
	awaitHears(ctx, t, "s2", l2, 20, "s1")
	awaitHears(ctx, t, "s1", o1, 20, "s2")

	admin := servicetest.NewBackend(t, addr, "")
	admin.Key = adminKey
	if status, text := admin.Do(t, http.MethodPost, "/unregister", admin.Basic(), `{"clientID":"leaver"}`); status != http.StatusOK {
		t.Fatalf("unregister: %d %s", status, text)
	}
	within := time.After(time.Second)
	for _, l := range []*servicetest.Link{byToken, link} {
		select {
		case <-l.Done:
		case <-within:
			t.Fatal("a connection is open a second later")
		}
	}
	for what, authorization := range map[string]string{"key": leaver.Basic(), "token": token} {
		if l, err := leaver.DialWith(authorization); err == nil {
			l.Close()
			t.Errorf("the %s still connects", what)
		}
		if status, _ := leaver.Do(t, http.MethodGet, "/calls/call/sessions", authorization, ""); status != http.StatusUnauthorized {
			t.Errorf("a request with the %s gives %d", what, status)
		}
	}
	// Nothing is forwarded any more. Packets that were under way when it ended may still come.
	n := l1.Heard("s2").Packets
	hearsMore(ctx, t, "other", o1, 50, "s2")
	if more := l1.Heard("s2").Packets - n; more > 10 {
		t.Errorf("%d packets were forwarded in a call that has ended", more)
	}
	if status, text := stayer.Do(t, http.MethodGet, "/metrics", "", ""); status != http.StatusOK || strings.Contains(text, `"leaver"`) {
		t.Errorf("metrics still have series of the client that is gone:\n%s", text)
	}

	again := servicetest.NewBackend(t, addr, "leaver")
	again.Key = strings.Repeat("another key ", 4)
	again.Register(t)
	fresh := again.Dial(t)
	for _, s := range []string{"s1", "s2"} {
		again.Send(wire.AppendReconnect(nil, s))
	}
	if status, text := again.Get(t, "/calls/call/sessions"); status != http.StatusNotFound {
		t.Errorf("the new owner of the id sees the old call: %d %s", status, text)
	}
	if l, err := leaver.DialWith(leaver.Basic()); err == nil {
		l.Close()
		t.Error("the old key opens the new registration")
	}
	eve := again.Person(ctx, t, "call", "s3", rtctest.EndpointConfig{})
	if n := len(eve.MediaMap()); n != 0 {
		t.Errorf("the new owner's call has %d tracks of the old one", n)
	}
	for _, m := range again.Messages() {
		if m.Link != fresh || m.SessionID+m.Signal.SessionID != "s3" {
			t.Errorf("the new owner was sent %+v", m)
		}
	}
	for _, s := range others {
		s.Stop(t)
	}
	servicetest.Unbroken(t, o1, "s2")
	servicetest.Unbroken(t, o2, "s1")
}
