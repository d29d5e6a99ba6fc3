package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/api"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// ids are what an attack names. Those of the two sets that are compared have the same lengths.
type ids struct{ client, call, session, user, stream, token string }

func (i ids) in(text string) string {
	return strings.NewReplacer("{client}", i.client, "{call}", i.call, "{session}", i.session,
		"{user}", i.user, "{stream}", i.stream).Replace(text)
}

// all are the ids from the most to the least telling.
func (i ids) all() []string { return []string{i.token, i.stream, i.session, i.user, i.call, i.client} }

// swap turns what was said of one set of ids into what would be said of another.
func swap(text []byte, from, to ids) []byte {
	for n, id := range from.all() {
		if id != "" {
			text = bytes.ReplaceAll(text, []byte(id), []byte(to.all()[n]))
		}
	}
	return text
}

// A trespass is a way to ask for what may be another's. A route has one for each form of request.
type trespass struct {
	request, body string
	status        int  // of the answer, for what is foreign and for what is missing
	own           int  // for the owner, while it lives; 0: not asked
	operators     bool // the route is on the operator's listener
	taken         bool // the route says what is taken, as the protocol has it: missing is not compared
	keys          bool // it is about keys, which is slow, and not about calls: it is asked once
}

// trespasses has every route there is.
var trespasses = map[string][]trespass{
	"GET /version": {{request: "GET /version?callID={call}", status: 200}},
	"GET /system":  {{request: "GET /system?clientID={client}", status: 200}},
	"GET /healthz": {{request: "GET /healthz?clientID={client}", status: 200}},
	"GET /ready":   {{request: "GET /ready?clientID={client}", status: 200}},
	"GET /metrics": {{request: "GET /metrics?groupID={client}", status: 200}},
	"GET /debug/pprof/": {
		{request: "GET /debug/pprof/cmdline?{call}", status: 404},
		{request: "GET /debug/pprof/{call}", status: 404, operators: true},
	},
	"POST /register":   {{request: "POST /register", body: `{"clientID":"{client}","authKey":"` + key + `x"}`, status: 400, taken: true, keys: true}},
	"POST /login":      {{request: "POST /login", body: `{"clientID":"{client}","authKey":"` + key + `x"}`, status: 400, keys: true}},
	"POST /unregister": {{request: "POST /unregister", body: `{"clientID":"{client}"}`, status: 403}},
	"PUT /clients/self/key": {
		{request: "PUT /clients/self/key", body: `{"authKey":"` + key + `","clientID":"{client}"}`, status: 400},
		{request: "PUT /clients/{client}/key", body: `{"authKey":"` + key + `"}`, status: 404},
	},
	"POST /token/refresh": {{request: "POST /token/refresh", body: `{"clientID":"{client}"}`, status: 400}},
	"GET /calls": {
		{request: "GET /calls", status: 200, own: 200},
		{request: "GET /calls?after={call}", status: 200, own: 200},
		{request: "GET /calls?clientID={client}", status: 400, own: 400},
	},
	"POST /calls": {{request: "POST /calls", body: `{"callID":"{call}","clientID":"{client}"}`, status: 400}}, // see also the twins
	"GET /calls/{callID}": {
		{request: "GET /calls/{call}", status: 404, own: 200},
		{request: "GET /calls/{client}%2F{call}", status: 404, own: 404},
	},
	"GET /calls/{callID}/report": {
		{request: "GET /calls/{call}/report", status: 404, own: 200},
		{request: "GET /calls/{call}/report?format=html&clientID={client}", status: 400, own: 400},
		{request: "GET /calls/{client}%2F{call}/report?format=html", status: 404, own: 404},
	},
	"GET /admin/calls/{clientID}/{callID}/report": {{request: "GET /admin/calls/{client}/{call}/report", status: 403, own: 403, operators: true}},
	"POST /calls/{callID}/tokens": {
		{request: "POST /calls/{call}/tokens", body: `{"userID":"{user}"}`, status: 404, own: 201},
		{request: "POST /calls/{call}/tokens", body: `{"userID":"{user}","role":"moderator","ttl":86400}`, status: 404, own: 201},
	},
	"GET /calls/{callID}/sessions":             {{request: "GET /calls/{call}/sessions", status: 404, own: 200}},
	"GET /calls/{callID}/sessions/{sessionID}": {{request: "GET /calls/{call}/sessions/{session}", status: 404, own: 200}},
	"POST /calls/{callID}/moderate": {
		{request: "POST /calls/{call}/moderate", body: `{"action":"mute","sessionID":"{session}"}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"mute_all"}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"mute_all","except":["{session}"]}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"mute_state","active":true}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"mute_state","active":false,"except":["{session}"]}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"unpublish","streamID":"{stream}"}`, status: 404, own: 200},
		{request: "POST /calls/{call}/moderate", body: `{"action":"unpublish","streamID":"{stream}","until":"call_end"}`, status: 404, own: 404},
		{request: "POST /calls/{call}/moderate", body: `{"action":"disconnect","sessionID":"{session}"}`, status: 404},
	},
	"DELETE /calls/{callID}/sessions/{sessionID}": {{request: "DELETE /calls/{call}/sessions/{session}", status: 404, own: 200}},
	"DELETE /calls/{callID}":                      {{request: "DELETE /calls/{call}", status: 404, own: 200}},
	"GET /events": {
		{request: "GET /events?wait=0&call={call}", status: 200, own: 200},
		{request: "GET /events?wait=0&clientID={client}", status: 400, own: 400},
		{request: "GET /events?wait=0&call={call}&after={session}", status: 400, own: 400},
	},
	"POST /ws/tickets": {{request: "POST /ws/tickets", body: `{"clientID":"{client}"}`, status: 400}},
	"GET /ws":          {{request: "GET /ws?ticket={client}", status: 401}, {request: "GET /ws?clientID={client}", status: 101}},

	"GET /admin/clients":                    {{request: "GET /admin/clients?after={client}", status: 403, own: 403, operators: true}},
	"POST /admin/clients":                   {{request: "POST /admin/clients", body: `{"clientID":"{client}","authKey":"` + key + `"}`, status: 403, own: 403, operators: true}},
	"GET /admin/clients/{clientID}":         {{request: "GET /admin/clients/{client}", status: 403, own: 403, operators: true}, {request: "GET /admin/clients/{client}", status: 404}},
	"DELETE /admin/clients/{clientID}":      {{request: "DELETE /admin/clients/{client}", status: 403, own: 403, operators: true}},
	"PUT /admin/clients/{clientID}/roles":   {{request: "PUT /admin/clients/{client}/roles", body: `{"roles":[]}`, status: 403, own: 403, operators: true}},
	"POST /admin/clients/{clientID}/rotate": {{request: "POST /admin/clients/{client}/rotate", body: `{"authKey":"` + key + `"}`, status: 403, own: 403, operators: true}},
	"POST /admin/clients/{clientID}/revoke": {{request: "POST /admin/clients/{client}/revoke", status: 403, own: 403, operators: true}},
	"GET /probe":                            {{request: "GET /probe?{call}", status: 200}},
	"POST /probe":                           {{request: "POST /probe", body: `{"token":"{client}","transport":"udp","sdp":"{call}"}`, status: 401}},
	"POST /probe/result":                    {{request: "POST /probe/result", body: `{"token":"{client}","udp":true,"tcp":true}`, status: 401}},
	"POST /probes":                          {{request: "POST /probes", body: `{"clientID":"{client}"}`, status: 400}},
	"POST /admin/probes":                    {{request: "POST /admin/probes", status: 403, own: 403, operators: true}},
	"GET /admin/probes":                     {{request: "GET /admin/probes?client={client}", status: 403, own: 403, operators: true}},
	"GET /admin/audit":                      {{request: "GET /admin/audit?client={client}", status: 403, own: 403, operators: true}},
	"GET /admin/":                           {{request: "GET /admin/", status: 404}},
	"GET /admin/status":                     {{request: "GET /admin/status", status: 404}},
	"GET /admin/drain":                      {{request: "GET /admin/drain", status: 403, own: 403, operators: true}},
	"POST /admin/drain":                     {{request: "POST /admin/drain", status: 403, own: 403, operators: true}},
	"DELETE /admin/drain":                   {{request: "DELETE /admin/drain", status: 403, own: 403, operators: true}},
	"POST /admin/store/backup":              {{request: "POST /admin/store/backup", status: 403, own: 403, operators: true}},
}

// routeOrder is the order in which the owner asks: what ends things comes last.
func routeOrder() []string {
	order := slices.Sorted(maps.Keys(trespasses))
	late := []string{"POST /calls/{callID}/moderate", "DELETE /calls/{callID}/sessions/{sessionID}", "DELETE /calls/{callID}"}
	order = slices.DeleteFunc(order, func(r string) bool { return slices.Contains(late, r) })
	return append(order, late...)
}

// messages are those a client can send about what may be another's, by their names in the policy,
// with the reason of the error that answers each on a connection that takes errors.
var messages = map[string]struct {
	reason string
	make   func(ids) [][]byte
}{
	"ws:join": {"token_invalid", func(i ids) [][]byte {
		return [][]byte{wire.AppendJoin(nil, wire.Join{CallID: i.call, UserID: i.user, SessionID: i.session, Token: i.token})}
	}},
	"ws:leave":     {"not_found", func(i ids) [][]byte { return [][]byte{wire.AppendLeave(nil, i.session)} }},
	"ws:reconnect": {"not_found", func(i ids) [][]byte { return [][]byte{wire.AppendReconnect(nil, i.session)} }},
	"ws:rtc": {"not_found", func(i ids) [][]byte {
		out := everything(i.call, i.session)[2:]
		for n := range out { // some say that they are of the owner's group, some of none
			m, err := wire.Decode(out[n])
			if err != nil {
				panic(err)
			}
			m.Signal.GroupID, m.Signal.UserID = []string{i.client, ""}[n%2], i.user
			out[n] = wire.AppendRTC(nil, m.Signal)
		}
		return out
	}},
	"ws:moderate": {"not_found", func(i ids) [][]byte {
		var out [][]byte
		for _, m := range []wire.Moderate{
			{Action: wire.ActionDisconnect, SessionID: i.session},
			{Action: wire.ActionUnpublish, StreamID: i.stream},
			{Action: wire.ActionUnpublish, StreamID: i.stream, Until: wire.UntilCallEnd},
			{Action: wire.ActionMute, SessionID: i.session},
			{Action: wire.ActionMuteAll},
			{Action: wire.ActionMuteAll, Except: []string{i.session}},
			{Action: wire.ActionMuteState, Active: true},
			{Action: wire.ActionMuteState, Except: []string{i.session}},
		} {
			m.CallID = i.call
			out = append(out, wire.AppendModerate(nil, m))
		}
		return out
	}},
}

// TestMatrixIsComplete shows RT-08 and OT-01: the matrix has every route and every message that the
// server knows. A new one without a line here fails.
func TestMatrixIsComplete(t *testing.T) {
	have := slices.Collect(maps.Keys(trespasses))
	for m := range messages {
		have = append(have, m)
	}
	slices.Sort(have)
	if want := slices.Sorted(maps.Keys(api.Exposure{}.Builtin())); !slices.Equal(have, want) {
		t.Errorf("the matrix has\n%q, the server\n%q", have, want)
	}
	actions := map[wire.Action]bool{}
	for _, m := range messages["ws:moderate"].make(ids{call: "c", session: "s", stream: "x"}) {
		d, err := wire.Decode(m)
		if err == nil {
			err = d.Moderate.Check()
		}
		if err != nil {
			t.Fatal(err)
		}
		actions[d.Moderate.Action] = true
	}
	rest := map[string]bool{}
	for _, a := range trespasses["POST /calls/{callID}/moderate"] {
		var body struct{ Action string }
		if err := json.Unmarshal([]byte(a.body), &body); err != nil {
			t.Fatal(err)
		}
		rest[body.Action] = true
	}
	for _, a := range []string{api.Disconnect, api.Unpublish, api.Mute, api.MuteAll, api.MuteState} {
		if !rest[a] || !actions[wire.Action(a)] {
			t.Errorf("the matrix lacks %s", a)
		}
	}
}

// An intruder is a client that tries to reach what is another's. Each phase of a call has its own, so
// that nothing is left of the one before.
type intruder struct {
	asker
	e    *estate
	from []string // header: the address it comes from
	mine ids      // a call of its own, with a session in it
	v1   *link
	v2   *link
}

func newIntruder(ctx context.Context, t *testing.T, e *estate, n int) *intruder {
	t.Helper()
	b := &intruder{asker: tenant(fmt.Sprintf("intruder%d", n)), e: e}
	b.from = []string{"X-Forwarded-For", fmt.Sprintf("198.51.100.%d", n+1)}
	b.mine = ids{client: b.id, call: "my-call", session: "my-session", user: "my-user"}
	b.v1, b.v2 = dial(t, e.url, b.asker, false, b.from...), dial(t, e.url, b.asker, true, b.from...)
	b.v1.send(t, wire.AppendJoin(nil, wire.Join{CallID: b.mine.call, UserID: b.mine.user, SessionID: b.mine.session}))
	b.v1.settle(ctx, t)
	return b
}

func (b *intruder) inquire(t *testing.T, a trespass, i ids) told {
	t.Helper()
	url := b.e.url
	if a.operators {
		url = b.e.admin
	}
	return inquire(t, url, b.asker, i.in(a.request), i.in(a.body), b.from...)
}

// requests walks all routes. What is foreign has to look like what is missing, alone and together
// with what is the intruder's own.
func (b *intruder) requests(t *testing.T, when string, foreign, missing ids) {
	t.Helper()
	for route, all := range trespasses {
		for _, a := range all {
			if a.keys && when != "before" {
				continue
			}
			f := b.inquire(t, a, foreign)
			if f.status != a.status {
				t.Errorf("%s, %s: foreign: %v, want %d", when, a.request, f, a.status)
			}
			for _, id := range []string{foreign.call, foreign.session, foreign.user, foreign.stream} {
				if strings.Contains(f.String(), id) {
					t.Errorf("%s, %s tells of %s: %v", when, a.request, id, f)
				}
			}
			if a.taken || route == "GET /system" || route == "GET /metrics" {
				continue // they change by themselves
			}
			if m := b.inquire(t, a, missing); !same(f, m) {
				t.Errorf("%s, %s: foreign %v\nmissing %v", when, a.request, f, m)
			}
			if !strings.Contains(a.request+a.body, "{session}") && !strings.Contains(a.body, "{stream}") {
				continue
			}
			for name, mix := range map[string]func(ids) ids{
				"own call":    func(i ids) ids { i.call = b.mine.call; return i },
				"own session": func(i ids) ids { i.session = b.mine.session; return i },
			} {
				f, m := b.inquire(t, a, mix(foreign)), b.inquire(t, a, mix(missing))
				if !same(f, m) || name == "own session" && f.status != a.status {
					t.Errorf("%s, %s, %s: foreign %v\nmissing %v", when, a.request, name, f, m)
				}
			}
		}
	}
	if r := inquire(t, b.e.url, b.asker, "GET /calls/my-call/sessions/my-session", ""); r.status != 200 {
		t.Errorf("%s: the intruder's own session: %v", when, r)
	}
}

func same(a, b told) bool {
	return a.status == b.status && a.body == b.body && reflect.DeepEqual(a.header, b.header)
}

// talk sends all messages on both kinds of connections.
func (b *intruder) talk(ctx context.Context, t *testing.T, when string, foreign, missing ids) {
	t.Helper()
	for typ, m := range messages {
		for _, s := range []*link{b.v1, b.v2} {
			version := s.conn.Subprotocol()
			answers := func(i ids) [][]byte {
				s.send(t, m.make(i)...)
				return slices.DeleteFunc(s.settle(ctx, t), func(m []byte) bool { return aboutOwn(m, b.mine.call) })
			}
			f, miss := answers(foreign), answers(missing)
			if len(f) != len(miss) {
				t.Errorf("%s, %s %s: foreign %q, missing %q", when, version, typ, f, miss)
				continue
			}
			errors := 0
			for n := range f {
				if got := swap(f[n], foreign, missing); !bytes.Equal(got, miss[n]) {
					t.Errorf("%s, %s %s: foreign %q, missing %q", when, version, typ, f[n], miss[n])
				}
				d, err := wire.DecodeServer(f[n])
				switch {
				case err == nil && d.Type == wire.TypeError && d.Error.Reason == m.reason:
					errors++
				case err == nil && d.Type == wire.TypeClose && typ == "ws:join":
				default:
					t.Errorf("%s, %s %s: answered %q: %v", when, version, typ, f[n], err)
				}
			}
			want := 0 // v1 is silent
			if version == wire.SubprotocolV2 {
				want = len(m.make(foreign))
			}
			if errors != want {
				t.Errorf("%s, %s %s: %d of %d messages refused as %s: %q", when, version, typ, errors, want, m.reason, f)
			}
		}
	}
}

// twin makes the intruder a call and a session of its own with the ids of the other's, which is
// allowed and touches nobody.
func (b *intruder) twin(ctx context.Context, t *testing.T, when string, foreign, missing ids) {
	t.Helper()
	made := func(i ids) told {
		return inquire(t, b.e.url, b.asker, "POST /calls", i.in(`{"callID":"{call}"}`))
	}
	f, m := made(foreign), made(missing)
	f.body = string(swap([]byte(f.body), foreign, missing))
	if f.status != 201 || !same(f, m) {
		t.Errorf("%s: a call of the same id: %v, of another: %v", when, f, m)
	}
	for _, i := range []ids{foreign, missing} {
		b.v2.send(t, wire.AppendJoin(nil, wire.Join{CallID: i.call, UserID: i.user, SessionID: i.session}))
		b.quiet(ctx, t, when)
		info := must(t, b.e.url, b.asker, i.in("GET /calls/{call}"), "")
		if info["participants"] != 1.0 || len(info["streams"].([]any)) > 0 {
			t.Errorf("%s: its own call %v", when, info)
		}
		must(t, b.e.url, b.asker, i.in("DELETE /calls/{call}"), "")
		b.v2.send(t, wire.AppendLeave(nil, i.session))
		for _, m := range b.v2.settle(ctx, t) {
			if d, err := wire.DecodeServer(m); err != nil || d.Type == wire.TypeRTC || d.Type == wire.TypeVAD {
				t.Errorf("%s: end of its own call: %q", when, m)
			}
		}
	}
}

// quiet checks that the intruder is told of nothing but of how many are in calls of its own: one.
func (b *intruder) quiet(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	for _, m := range b.v2.settle(ctx, t) {
		if d, err := wire.DecodeServer(m); err != nil || d.Type != wire.TypeStats || d.Stats.Participants > 1 {
			t.Errorf("%s: the intruder was told %q", when, m)
		}
	}
}

// aboutOwn reports whether a message says how many are in a call.
func aboutOwn(message []byte, call string) bool {
	d, err := wire.DecodeServer(message)
	return err == nil && d.Type == wire.TypeStats && d.Stats.CallID == call
}

// attack does all of it.
func attack(ctx context.Context, t *testing.T, e *estate, n int, when string, foreign, missing ids) {
	t.Helper()
	b := newIntruder(ctx, t, e, n)
	b.requests(t, when, foreign, missing)
	b.talk(ctx, t, when, foreign, missing)
	b.twin(ctx, t, when, foreign, missing)
}

// TestTwoTenants shows OT-01, RT-08, OT-13, TK-02, TK-03 and TK-05: every route and every message, of both
// protocols, with the ids of another client's call: before the call exists, while it waits for its
// first session, while it lives, and after it has ended. None has an effect, and every answer is the
// one for what does not exist. Meanwhile the call loses not one packet and is told of nothing.
func TestTwoTenants(t *testing.T) {
	ctx := within(t, 120*time.Second)
	accounts := roles{"owner-of-it": nil, "intruder0": nil, "intruder1": nil, "intruder2": nil, "intruder3": nil}
	e := openEstate(t, nil, accounts, func(c *config.Config) { c.API.Security.AllowSelfRegistration = true })
	a := tenant("owner-of-it")
	foreign := ids{client: a.id, call: "call-of-owner", session: "s1-of-owner", user: "user-s1-of-owner", stream: "voice_s1-of-owner", token: "rtcdjt_guess"}
	missing := ids{client: "nobody-here", call: "call-of-noone", session: "s1-of-noone", user: "user-s1-of-noone", stream: "voice_s1-of-noone", token: "rtcdjt_other"}
	attack(ctx, t, e, 0, "before", foreign, missing)

	must(t, e.url, a, "POST /calls", foreign.in(`{"callID":"{call}"}`))
	foreign.token = must(t, e.url, a, foreign.in("POST /calls/{call}/tokens"), foreign.in(`{"userID":"{user}","maxUses":1000}`))["token"].(string)
	last := foreign.token[len(foreign.token)-8:]
	missing.token = strings.TrimSuffix(foreign.token, last) + strings.Repeat("A", len(last))
	attack(ctx, t, e, 1, "waiting", foreign, missing)

	c, err := client.New(client.Config{URL: e.url, ClientID: a.id, AuthKey: key, V2: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	conn, err := c.Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r := rtctest.NewRemote(t, conn)
	all := people(ctx, t, r, foreign.call, foreign.session, "s2-of-owner")
	stop := speak(t, all, 0)
	more(ctx, t, all[foreign.session], "s2-of-owner", 5)
	more(ctx, t, all["s2-of-owner"], foreign.session, 5)
	before := must(t, e.url, a, foreign.in("GET /calls/{call}"), "")
	for _, s := range before["streams"].([]any) {
		if s := s.(map[string]any); s["sessionID"] == foreign.session {
			foreign.stream = s["id"].(string)
		}
	}
	missing.stream = strings.Repeat("z", len(foreign.stream))
	events := len(r.Events())
	attack(ctx, t, e, 2, "alive", foreign, missing)

	more(ctx, t, all[foreign.session], "s2-of-owner", 5)
	end := stop()
	lossless(ctx, t, all, 0, end)
	if after := must(t, e.url, a, foreign.in("GET /calls/{call}"), ""); !reflect.DeepEqual(before, after) {
		t.Errorf("the call was %v, is %v", before, after)
	}
	for _, ev := range r.Events()[events:] {
		switch ev := ev.(type) {
		case client.Voice:
		case client.StatsEvent:
			if ev.Participants != 2 || ev.Publishers != 2 {
				t.Errorf("the owner was told of %+v", ev)
			}
		default:
			t.Errorf("the owner was told of %+v", ev)
		}
	}
	own(ctx, t, e, a, r, foreign)
	attack(ctx, t, e, 3, "after", foreign, missing)
	if calls := must(t, e.url, a, "GET /calls", ""); len(calls["calls"].([]any)) > 0 {
		t.Errorf("the owner's calls: %v", calls)
	}
	if again := inquire(t, e.url, a, "POST /calls", foreign.in(`{"callID":"{call}"}`)); again.status != 409 {
		t.Errorf("the same call anew: %v, want 409", again)
	}
}

// own has the owner do what nobody else could: it was all well-formed. At the end the call is over.
func own(ctx context.Context, t *testing.T, e *estate, a asker, r *rtctest.Remote, i ids) {
	t.Helper()
	if err := r.Conn.Moderate(client.Moderation{CallID: i.call, Action: client.ActionMuteAll}); err != nil {
		t.Fatal(err)
	}
	if err := r.Conn.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		muted := true
		for _, s := range must(t, e.url, a, i.in("GET /calls/{call}"), "")["streams"].([]any) {
			muted = muted && s.(map[string]any)["muted"].(bool)
		}
		if muted {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the owner's moderation has no effect")
		}
	}
	for _, route := range routeOrder() {
		for _, w := range trespasses[route] {
			if w.own == 0 {
				continue
			}
			url := e.url
			if w.operators {
				url = e.admin
			}
			if got := inquire(t, url, a, i.in(w.request), i.in(w.body)); got.status != w.own {
				t.Errorf("the owner, %s %s: %v, want %d", w.request, w.body, got, w.own)
			}
		}
	}
	for _, s := range []string{i.session, "s2-of-owner"} {
		if err := r.AwaitClosed(ctx, s); err != nil {
			t.Errorf("the end of %s: %v", s, err)
		}
	}
}

// TestSameIDsOfTwoTenants shows RT-08 and TK-03: two clients use the same ids of calls, sessions,
// users and streams at once, and each has its own. What one does to its own, up to ceasing to
// exist, costs the other not one packet.
func TestSameIDsOfTwoTenants(t *testing.T) {
	ctx := within(t, 90*time.Second)
	e := openEstate(t, nil, roles{"a": nil, "b": nil}, nil)
	a, b := tenant("a"), tenant("b")
	const call = "call"
	const ofB = 1 << 20 // where b's numbers begin
	var ends []func() uint32
	var sides []map[string]*rtctest.Endpoint
	for n, w := range []asker{a, b} {
		must(t, e.url, w, "POST /calls", `{"callID":"call"}`)
		side := people(ctx, t, connect(t, e.url, w.id), call, "s1", "s2")
		ends, sides = append(ends, speak(t, side, uint32(n)*ofB)), append(sides, side)
		more(ctx, t, side["s1"], "s2", 5)
		more(ctx, t, side["s2"], "s1", 5)
	}
	token := must(t, e.url, b, "POST /calls/call/tokens", `{"userID":"user"}`)["token"].(string)
	v2 := dial(t, e.url, a, true)
	v2.send(t, wire.AppendJoin(nil, wire.Join{CallID: call, UserID: "user", SessionID: "s3", Token: token}))
	refused := false
	for _, m := range v2.settle(ctx, t) {
		d, err := wire.DecodeServer(m)
		refused = refused || err == nil && d.Type == wire.TypeError && d.Error.Reason == "token_invalid"
	}
	if !refused {
		t.Error("the token of another client's call of the same id was not refused")
	}
	more(ctx, t, sides[1]["s1"], "s2", 5)
	lossless(ctx, t, sides[1], ofB, ends[1]())
	for _, step := range []struct{ request, body string }{
		{"POST /calls/call/moderate", `{"action":"mute","sessionID":"s1"}`},
		{"POST /calls/call/moderate", `{"action":"mute_state","active":true}`},
		{"DELETE /calls/call/sessions/s2", ""},
		{"DELETE /calls/call", ""},
		{"POST /unregister", `{"clientID":"b"}`},
	} {
		must(t, e.url, b, step.request, step.body)
		more(ctx, t, sides[0]["s1"], "s2", 5)
		more(ctx, t, sides[0]["s2"], "s1", 5)
	}
	lossless(ctx, t, sides[0], 0, ends[0]())
	info := must(t, e.url, a, "GET /calls/call", "")
	if info["participants"] != 2.0 || info["publishers"] != 2.0 {
		t.Errorf("the call that goes on: %v", info)
	}
	for _, s := range info["streams"].([]any) {
		if s.(map[string]any)["muted"].(bool) {
			t.Errorf("the other client muted %v", s)
		}
	}
}
