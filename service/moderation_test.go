package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/rtc/rtctest"
)

// A chair is a client that moderates.
type chair struct {
	*server
	ctx context.Context
	c1  caller
	r   *rtctest.Remote
}

func newChair(t *testing.T, change func(*config.Config)) *chair {
	t.Helper()
	h := &chair{ctx: within(t, 90*time.Second), server: start(t, nil, change)}
	h.c1 = h.registered(t, "c1")
	h.r = h.c1.dial("c1", key, true)
	return h
}

// moderate does over the WebSocket what a moderator wants.
func (h *chair) moderate(t *testing.T, m client.Moderation) {
	t.Helper()
	if err := h.r.Conn.Moderate(m); err != nil {
		t.Fatal(err)
	}
}

// silent checks that e hears nothing of a sender, while it goes on hearing another one.
func silent(ctx context.Context, t *testing.T, e *rtctest.Endpoint, sender, beside string) {
	t.Helper()
	more(ctx, t, e, beside, 10) // what was on its way
	before := e.Heard(sender).Packets
	more(ctx, t, e, beside, 25)
	if n := e.Heard(sender).Packets - before; n > 0 {
		t.Errorf("%d packets of %s were heard, want none", n, sender)
	}
}

// TestParticipantCap shows TK-19: of fifty who join at once, over several connections, exactly as many
// come in as the call may have, which is no more than the server lets any have; moderators count. Who
// leaves makes room for one.
func TestParticipantCap(t *testing.T) {
	t.Parallel()
	const most = 12 // of the server
	h := newChair(t, func(c *config.Config) { c.Call.MaxParticipants = most })
	for _, n := range []string{"-1", "2147483648", "1000001"} {
		h.c1.refused(400, "out_of_range", "POST", "/calls", `{"maxParticipants":`+n+`}`)
	}
	remotes := []*rtctest.Remote{h.r}
	for range 4 {
		remotes = append(remotes, h.c1.dial("c1", key, true))
	}
	for call, want := range map[string]int{
		h.c1.create(`{"maxParticipants":10}`): 10, h.c1.create(`{"maxParticipants":1000000}`): most,
		h.c1.create(`{"maxParticipants":0}`): most, "unmanaged": most,
	} {
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				s := fmt.Sprint(call, i)
				if err := remotes[i%len(remotes)].Conn.Join(client.Join{CallID: call, UserID: "u" + s, SessionID: s}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		full := func() (n int) {
			for i := range 50 {
				for _, why := range reasons(remotes[i%len(remotes)], fmt.Sprint(call, i)) {
					if why != "call_full" {
						t.Errorf("refused for %s", why)
					}
					n++
				}
			}
			return n
		}
		eventually(h.ctx, t, "all are in or turned away", func() bool { return full() >= 50-want })
		if n := h.c1.callInfo(call).Participants; n != want || full() != 50-want {
			t.Errorf("%d are in and %d were turned away, want %d in", n, full(), want)
		}
		turnedAway(h.ctx, t, h.r, "call_full", client.Join{CallID: call, UserID: "m", SessionID: "m" + call, Role: client.RoleModerator})
		var sessions []client.Session
		if err := json.Unmarshal([]byte(h.c1.must(200, "GET", "/calls/"+call+"/sessions", "").body), &sessions); err != nil {
			t.Fatal(err)
		}
		if err := h.r.Conn.Leave(sessions[0].SessionID); err != nil {
			t.Fatal(err)
		}
		eventually(h.ctx, t, "there is room", func() bool { return h.c1.callInfo(call).Participants == want-1 })
		if err := h.r.Conn.Join(client.Join{CallID: call, UserID: "m", SessionID: "n" + call, Role: client.RoleModerator}); err != nil {
			t.Fatal(err)
		}
		eventually(h.ctx, t, "there is none any more", func() bool { return h.c1.callInfo(call).Participants == want })
		turnedAway(h.ctx, t, h.r, "call_full", client.Join{CallID: call, UserID: "o", SessionID: "o" + call})
	}
}

// TestCallCounts shows TK-20: how many are in a call, publish and only watch, and who is sent a stream, is
// right a second after each change, for who asks and, once a second, for who is told.
func TestCallCounts(t *testing.T) {
	t.Parallel()
	h := newChair(t, nil)
	begin := time.Now()
	type counts struct{ participants, publishers, subscribers, streams, sentTo int }
	now := func() counts {
		r, err := h.c1.try("GET", "/calls/call", "")
		var info callInfo
		if err != nil || r.status == 200 && json.Unmarshal([]byte(r.body), &info) != nil {
			t.Fatalf("%v: %s", err, r.body)
		}
		c := counts{info.Participants, info.Publishers, info.Subscribers, len(info.Streams), 0}
		for _, s := range info.Streams {
			c.sentTo += s.Subscribers
		}
		return c
	}
	right := func(what string, want counts) {
		t.Helper()
		soon, cancel := context.WithTimeout(h.ctx, time.Second)
		defer cancel()
		for now() != want {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-soon.Done():
				t.Errorf("%s: %+v a second later, want %+v", what, now(), want)
				return
			}
		}
	}
	s1 := h.r.Join(t, "call", "s1", rtctest.EndpointConfig{})
	right("a join", counts{1, 0, 1, 0, 0})
	if err := s1.Connect(h.ctx); err != nil {
		t.Fatal(err)
	}
	viewer := h.r.Join(t, "call", "viewer", rtctest.EndpointConfig{})
	if err := viewer.Connect(h.ctx); err != nil {
		t.Fatal(err)
	}
	right("another one", counts{2, 0, 2, 0, 0})
	voice, err := s1.AddAudio(h.ctx, "voice_s1")
	if err != nil {
		t.Fatal(err)
	}
	if err := voice.Send("s1", 0, 30); err != nil {
		t.Fatal(err)
	}
	right("a voice", counts{2, 1, 1, 1, 1})
	s2 := enter(h.ctx, t, h.r, client.Join{CallID: "call", UserID: "u", SessionID: "s2"})
	if err := s2.SendVoice("s2", 0, 30); err != nil {
		t.Fatal(err)
	}
	right("another voice", counts{3, 2, 1, 2, 4})
	if err := s1.Remove(h.ctx, voice); err != nil {
		t.Fatal(err)
	}
	right("a voice less", counts{3, 1, 2, 1, 2})
	viewer.Close()
	right("a crash", counts{2, 1, 1, 1, 1})

	told := func() (all []client.StatsEvent) {
		for _, e := range h.r.Events() {
			if e, ok := e.(client.StatsEvent); ok && e.CallID == "call" {
				all = append(all, e)
			}
		}
		return all
	}
	eventually(h.ctx, t, "all is told", func() bool {
		all := told()
		return len(all) > 0 && all[len(all)-1] == client.StatsEvent{CallID: "call", Participants: 2, Publishers: 1, Subscribers: 1}
	})
	if n := len(told()); n > int(time.Since(begin)/time.Second)+1 {
		t.Errorf("told %d times in %v", n, time.Since(begin))
	}
	_, text := request(t, "GET", h.url+"/metrics", "", "", "")
	if strings.Contains(text, `"call"`) || strings.Contains(text, "callID") {
		t.Error("there are metrics of a call")
	}
}

// TestModeratorDisconnects shows TK-21, by request and by message: who is disconnected is out within a
// second and does not come back to that call: not as the same session, nor as the same user, with
// a token of before or a new one. What is foreign looks like what is missing, and it takes the right.
func TestModeratorDisconnects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := newChair(t, func(c *config.Config) {
		withAdmin(c)
		c.Audit.Enable, c.Audit.Dir = "on", dir
		c.Policy.ClientIncludes = []string{"calls.create", "tokens.create"}
	})
	foreign, nobody := h.registered(t, "foreign"), h.registered(t, "nobody")
	for _, id := range []string{"c1", "foreign"} { // also on open connections
		h.operator(t).must(200, "PUT", "/admin/clients/"+id+"/roles", `{"roles":["client","moderate"]}`)
	}
	rForeign, rNobody := foreign.dial("foreign", key, true), nobody.dial("nobody", key, true)
	call := h.c1.create("")
	join := func(session string) *rtctest.Endpoint {
		t.Helper()
		user := "u-" + session
		return enter(h.ctx, t, h.r, client.Join{
			CallID: call, UserID: user, SessionID: session, Token: h.c1.mint(call, `{"userID":"`+user+`"}`),
		})
	}
	all := map[string]*rtctest.Endpoint{"listener": join("listener"), "talker": join("talker")}
	rtctest.Talk(t, all)
	for bad, act := range map[string]func(){
		"bad1": func() { h.c1.must(200, "DELETE", "/calls/"+call+"/sessions/bad1", "") },
		"bad2": func() {
			h.moderate(t, client.Moderation{CallID: call, Action: client.ActionDisconnect, SessionID: "bad2"})
		},
	} {
		e := join(bad)
		spare := h.c1.mint(call, `{"userID":"u-`+bad+`","maxUses":5}`)
		stop := rtctest.Talk(t, map[string]*rtctest.Endpoint{bad: e})
		more(h.ctx, t, all["listener"], bad, 5)
		closed := make(chan struct{})
		e.PC().SCTP().OnClose(func(error) { close(closed) })

		path := "/calls/" + call + "/sessions/"
		missing := h.c1.refused(404, "not_found", "DELETE", path+"missing", "")
		if r := foreign.refused(404, "not_found", "DELETE", path+bad, ""); r.body != missing.body {
			t.Errorf("a foreign session: %s, a missing one: %s", r.body, missing.body)
		}
		nobody.refused(403, "forbidden", "DELETE", path+bad, "")
		nobody.refused(403, "forbidden", "POST", "/calls/"+call+"/moderate", `{"action":"disconnect","sessionID":"`+bad+`"}`)
		m := client.Moderation{CallID: call, Action: client.ActionDisconnect, SessionID: bad}
		for r, want := range map[*rtctest.Remote][2]string{rForeign: {bad, "not_found"}, rNobody: {"", "forbidden"}} {
			if err := r.Conn.Moderate(m); err != nil {
				t.Fatal(err)
			}
			awaitReason(h.ctx, t, r, want[0], want[1])
		}
		more(h.ctx, t, all["listener"], bad, 5)

		begin := time.Now()
		act()
		select {
		case <-closed:
		case <-h.ctx.Done():
			t.Fatal("the transport is open")
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: the transport was closed after %v", bad, d)
		}
		if err := h.r.AwaitClosed(h.ctx, bad); err != nil {
			t.Errorf("the backend was not told: %v", err)
		}
		silent(h.ctx, t, all["listener"], bad, "talker")
		stop()
		turnedAway(h.ctx, t, h.r, "ejected", client.Join{CallID: call, UserID: "u-" + bad, SessionID: bad + "-again"})
		turnedAway(h.ctx, t, h.r, "ejected", client.Join{
			CallID: call, UserID: "u-" + bad, SessionID: bad + "-new", Token: h.c1.mint(call, `{"userID":"u-`+bad+`"}`),
		})
		turnedAway(h.ctx, t, h.r, "token_invalid", client.Join{CallID: call, UserID: "u-" + bad, SessionID: bad + "-spare", Token: spare})
		if err := h.r.Conn.Join(client.Join{CallID: call, UserID: "another", SessionID: bad}); err != nil {
			t.Fatal(err)
		}
		awaitReason(h.ctx, t, h.r, bad, "ejected")
	}
	unbroken(t, all["listener"], "talker")
	h.stop()
	err := <-h.done
	h.done <- err
	record := auditText(t, dir)
	for _, kind := range []string{`"session.disconnect"`, `"call.moderate"`, `"ws.moderate"`} {
		if n := strings.Count(record, kind); n < 2 {
			t.Errorf("%d events %s", n, kind)
		}
	}
}

// TestModeratorUnpublishes shows TK-22, by request and by message: nothing of a stream that was taken away
// reaches anybody, however its publisher goes on, publishes it anew or comes back.
func TestModeratorUnpublishes(t *testing.T) {
	t.Parallel()
	h := newChair(t, nil)
	call := h.c1.create("")
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range []string{"listener", "talker", "bad", "worse"} {
		all[name] = enter(h.ctx, t, h.r, client.Join{CallID: call, UserID: "u-" + name, SessionID: name})
	}
	rtctest.Talk(t, all)
	for _, name := range []string{"talker", "bad", "worse"} {
		more(h.ctx, t, all["listener"], name, 5)
	}
	unpublish := func(stream string) string {
		return `{"action":"unpublish","streamID":"` + stream + `","until":"call_end"}`
	}
	path := "/calls/" + call + "/moderate"
	bad, worse := h.c1.stream(h.ctx, call, "bad", "voice"), h.c1.stream(h.ctx, call, "worse", "voice")
	h.c1.refused(404, "not_found", "POST", path, unpublish("voice_nobody"))
	h.c1.must(200, "POST", path, unpublish(bad))
	h.moderate(t, client.Moderation{CallID: call, Action: client.ActionUnpublish, StreamID: worse, Until: client.UntilCallEnd})
	silent(h.ctx, t, all["listener"], "bad", "talker")
	silent(h.ctx, t, all["listener"], "worse", "talker")
	if n := len(h.c1.callInfo(call).Streams); n != 2 {
		t.Errorf("%d streams are left, want 2", n)
	}
	if err := all["bad"].Publish(h.ctx, "voice_again"); err != nil {
		t.Fatal(err)
	}
	silent(h.ctx, t, all["listener"], "bad", "talker")
	leave(h.ctx, t, h.r, "worse")
	back := enter(h.ctx, t, h.r, client.Join{CallID: call, UserID: "u-worse", SessionID: "back"})
	rtctest.Talk(t, map[string]*rtctest.Endpoint{"back": back})
	more(h.ctx, t, back, "talker", 5) // it may listen
	silent(h.ctx, t, all["listener"], "back", "talker")
	unbroken(t, all["listener"], "talker")
}

// TestModeratorMutes shows TK-23, by request and by message: who was muted is silent however it goes on,
// until it unmutes itself; while the call is muted that does not count, also for who comes later.
func TestModeratorMutes(t *testing.T) {
	t.Parallel()
	h := newChair(t, nil)
	all := make(map[string]*rtctest.Endpoint)
	for _, name := range []string{"listener", "spared", "a"} {
		all[name] = enter(h.ctx, t, h.r, client.Join{CallID: "call", UserID: "u-" + name, SessionID: name})
	}
	rtctest.Talk(t, all)
	listener := all["listener"]
	more(h.ctx, t, listener, "a", 5)
	unmute := func(session string) {
		t.Helper()
		if err := h.r.Conn.Unmute(session); err != nil {
			t.Fatal(err)
		}
	}
	rest := func(body string) { t.Helper(); h.c1.must(200, "POST", "/calls/call/moderate", body) }

	for _, body := range []string{`{"action":"unmute","sessionID":"a"}`, `{"action":"mute","sessionID":"a","active":false}`, `{"action":"mute"}`} {
		if r := h.c1.do("POST", "/calls/call/moderate", body); r.status != http.StatusBadRequest { // nobody is unmuted by others
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	more(h.ctx, t, listener, "a", 5)

	h.moderate(t, client.Moderation{CallID: "call", Action: client.ActionMute, SessionID: "a"})
	eventually(h.ctx, t, "it is muted", func() bool {
		for _, s := range h.c1.callInfo("call").Streams {
			if s.SessionID == "a" {
				return s.Muted
			}
		}
		return false
	})
	silent(h.ctx, t, listener, "a", "spared")
	unmute("a")
	more(h.ctx, t, listener, "a", 5)
	rest(`{"action":"mute_all","except":["spared"]}`)
	silent(h.ctx, t, listener, "a", "spared")
	unmute("a")
	more(h.ctx, t, listener, "a", 5)

	rest(`{"action":"mute_state","active":true,"except":["spared"]}`)
	late := enter(h.ctx, t, h.r, client.Join{CallID: "call", UserID: "u-late", SessionID: "late"})
	rtctest.Talk(t, map[string]*rtctest.Endpoint{"late": late})
	unmute("a")
	unmute("late")
	more(h.ctx, t, late, "spared", 5) // it is connected
	silent(h.ctx, t, listener, "a", "spared")
	if n := listener.Heard("late").Packets; n > 0 {
		t.Errorf("%d packets of who came to a muted call", n)
	}
	h.moderate(t, client.Moderation{CallID: "call", Action: client.ActionMuteState})
	silent(h.ctx, t, listener, "a", "spared") // that unmutes nobody
	unmute("a")
	unmute("late")
	more(h.ctx, t, listener, "a", 5)
	more(h.ctx, t, listener, "late", 5)
	unbroken(t, listener, "spared")
}

// TestTokenRoles shows TK-24: what a token is for holds whatever its bearer negotiates and sends. Nothing
// of a subscriber reaches the others; who only publishes is sent nothing.
func TestTokenRoles(t *testing.T) {
	t.Parallel()
	h := newChair(t, func(c *config.Config) { c.Call.RequireJoinToken = true })
	call := h.c1.create("")
	join := func(session, role string, cfg rtctest.EndpointConfig) *rtctest.Endpoint {
		t.Helper()
		token := h.c1.mint(call, `{"userID":"u-`+session+`","role":"`+role+`"}`)
		e := h.r.JoinAs(t, client.Join{CallID: call, UserID: "u-" + session, SessionID: session, Token: token}, cfg)
		if err := e.Connect(h.ctx); err != nil {
			t.Fatal(err)
		}
		if err := e.Publish(h.ctx, "voice_"+session); err != nil {
			t.Fatal(err)
		}
		return e
	}
	bent := 0
	all := map[string]*rtctest.Endpoint{
		"talker":   join("talker", "", rtctest.EndpointConfig{}),
		"listener": join("listener", "publisher", rtctest.EndpointConfig{}),
		"studio":   join("studio", "publisheronly", rtctest.EndpointConfig{}),
		"viewer": join("viewer", "subscriber", rtctest.EndpointConfig{Bend: func(answer string) string {
			bent += strings.Count(answer, "a=inactive") + strings.Count(answer, "a=sendonly")
			return strings.NewReplacer("a=inactive", "a=recvonly", "a=sendonly", "a=sendrecv").Replace(answer)
		}}),
	}
	if all["viewer"].PC().SCTP().Transport().State() != webrtc.DTLSTransportStateConnected || bent == 0 {
		t.Errorf("the subscriber's answers took back %d sections", bent)
	}
	stop := rtctest.Talk(t, all)
	more(h.ctx, t, all["listener"], "talker", 20)
	more(h.ctx, t, all["listener"], "studio", 20)
	more(h.ctx, t, all["viewer"], "talker", 20)
	more(h.ctx, t, all["viewer"], "studio", 20)
	silent(h.ctx, t, all["listener"], "viewer", "talker")
	stop()
	for _, name := range []string{"talker", "listener", "studio"} {
		if n := all[name].Heard("viewer").Packets; n > 0 {
			t.Errorf("%s heard %d packets of the subscriber", name, n)
		}
	}
	for _, name := range []string{"talker", "listener", "viewer"} {
		if n := all["studio"].Heard(name).Packets; n > 0 || all["studio"].Offers() > 0 {
			t.Errorf("who only publishes heard %d packets of %s, and was offered something %d times", n, name, all["studio"].Offers())
		}
	}
	if info := h.c1.callInfo(call); info.Participants != 4 || info.Publishers != 3 || info.Subscribers != 1 {
		t.Errorf("the call is %+v", info)
	}
	_, text := request(t, "GET", h.url+"/metrics", "", "", "")
	if !strings.Contains(text, `rtcd_media_drops_total{reason="role"}`) || strings.Contains(text, `rtcd_media_drops_total{reason="role"} 0`) {
		t.Error("nothing was counted as dropped for a role")
	}
}
