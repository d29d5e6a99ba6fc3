package service_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/rtc/rtctest"
)

// create makes a call and returns its id.
func (c caller) create(options string) string {
	c.t.Helper()
	return c.must(http.StatusCreated, "POST", "/calls", options).field("callID")
}

// mint makes a join token.
func (c caller) mint(call, request string) string {
	c.t.Helper()
	return c.must(http.StatusCreated, "POST", "/calls/"+call+"/tokens", request).field("token")
}

// enter joins, connects and publishes a voice.
func enter(ctx context.Context, t *testing.T, r *rtctest.Remote, j client.Join) *rtctest.Endpoint {
	t.Helper()
	e := r.JoinAs(t, j, rtctest.EndpointConfig{})
	if err := e.Connect(ctx); err != nil {
		t.Fatalf("%s: %v, told %q", j.SessionID, err, reasons(r, j.SessionID))
	}
	if err := e.Publish(ctx, "voice_"+j.SessionID); err != nil {
		t.Fatalf("%s: %v", j.SessionID, err)
	}
	return e
}

// turnedAway joins and checks that it is refused for a reason, and closed.
func turnedAway(ctx context.Context, t *testing.T, r *rtctest.Remote, reason string, j client.Join) {
	t.Helper()
	if err := r.Conn.Join(j); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitClosed(ctx, j.SessionID); err != nil {
		t.Fatalf("%s was not turned away, want %s", j.SessionID, reason)
	}
	if got := reasons(r, j.SessionID); !slices.Equal(got, []string{reason}) {
		t.Errorf("%s was turned away for %q, want %s", j.SessionID, got, reason)
	}
}

// leave leaves and waits until that is confirmed.
func leave(ctx context.Context, t *testing.T, r *rtctest.Remote, sessions ...string) {
	t.Helper()
	for _, s := range sessions {
		if err := r.Conn.Leave(s); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, s); err != nil {
			t.Fatalf("%s did not leave: %v", s, err)
		}
	}
}

// TestJoinTokens shows OT-13, OT-14, TK-03 and TK-04 from end to end, where every join needs a token:
// people talk whose backend has made a call and a token for each of them. Nobody else comes in: without a
// token, with one of another call, client, user or role, with one that was used, has expired or whose
// call is over. What was a call is none again, also after a restart, which no call outlives.
func TestJoinTokens(t *testing.T) {
	t.Parallel()
	ctx := within(t, 90*time.Second)
	dir := t.TempDir()
	change := func(c *config.Config) {
		c.Call.RequireJoinToken = true
		c.Store.DataSource, c.Store.MinFreeMiB = dir, 0
	}
	s := start(t, nil, change)
	c1, c2 := s.registered(t, "c1"), s.registered(t, "c2")
	p := newProxy(t, s.Addr().String())
	r := caller{t: t, url: p.url()}.dial("c1", key, true)
	r2 := c2.dial("c2", key, true)
	x, y := c1.create("{}"), c1.create("")
	if len(x) != 26 || x == y {
		t.Errorf("calls %q and %q, want 128 bits each", x, y)
	}
	begun := time.Now()
	short := c1.mint(x, `{"userID":"u","ttl":1}`)
	late := c1.mint(x, `{"userID":"u","maxUses":2}`)
	pending := c1.mint(y, `{"userID":"u"}`)
	first, second := c1.mint(x, `{"userID":"u1"}`), c1.mint(x, `{"userID":"u2"}`)

	all := map[string]*rtctest.Endpoint{
		"s1": enter(ctx, t, r, client.Join{CallID: x, UserID: "u1", SessionID: "s1", Token: first}),
		"s2": enter(ctx, t, r, client.Join{CallID: x, UserID: "u2", SessionID: "s2", Token: second}),
	}
	rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 10)

	turnedAway(ctx, t, r, "token_required", client.Join{CallID: x, UserID: "u", SessionID: "t0"})
	turnedAway(ctx, t, r, "token_required", client.Join{CallID: "any", UserID: "u", SessionID: "t1"})
	subscriber := c1.mint(x, `{"userID":"u","role":"subscriber"}`)
	for i, c := range []struct {
		r                         *rtctest.Remote
		reason, call, user, token string
		role                      client.CallRole
	}{
		{r, "token_invalid", x, "u", "rtcdjt_", ""},
		{r, "token_invalid", y, "u", late, ""},
		{r, "token_invalid", "missing", "u", late, ""},
		{r2, "token_invalid", x, "u", late, ""},
		{r, "token_mismatch", x, "somebody else", late, ""},
		{r, "token_mismatch", x, "u", subscriber, client.RolePublisher},
		{r, "token_invalid", x, "u1", first, ""}, // used up
	} {
		turnedAway(ctx, t, c.r, c.reason, client.Join{CallID: c.call, UserID: c.user, SessionID: fmt.Sprint("w", i), Token: c.token, Role: c.role})
	}
	<-time.After(time.Until(begun.Add(1100 * time.Millisecond))) // its time, from the first moment it can have been made
	turnedAway(ctx, t, r, "token_invalid", client.Join{CallID: x, UserID: "u", SessionID: "expired", Token: short})

	// Who is in needs no token to be claimed again.
	p.cut(0)
	if err := r.Await(ctx, func(events []client.Event) bool {
		return slices.ContainsFunc(events, func(e client.Event) bool { c, ok := e.(client.Connected); return ok && c.Resumed })
	}); err != nil {
		t.Fatal(err)
	}
	more(ctx, t, all["s1"], "s2", 20)
	unbroken(t, all["s1"], "s2")

	// One more wrong one is taken as such, and then it is too many for that address; a good one is good.
	turnedAway(ctx, t, r, "token_invalid", client.Join{CallID: x, UserID: "u", SessionID: "ninth", Token: "rtcdjt_x"})
	turnedAway(ctx, t, r, "token_invalid", client.Join{CallID: "missing", UserID: "u", SessionID: "tenth", Token: "rtcdjt_x"})
	turnedAway(ctx, t, r, "rate_limited", client.Join{CallID: x, UserID: "u", SessionID: "eleventh", Token: "rtcdjt_x"})
	turnedAway(ctx, t, r, "rate_limited", client.Join{CallID: "missing", UserID: "u", SessionID: "twelfth", Token: "rtcdjt_x"})
	if err := r.Conn.Join(client.Join{CallID: x, UserID: "u", SessionID: "s3", Token: late}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "s3 is in", func() bool { return c1.callInfo(x).Participants == 3 })

	c1.must(http.StatusOK, "DELETE", "/calls/"+x, "")
	for _, session := range []string{"s1", "s2", "s3"} {
		if err := r.AwaitClosed(ctx, session); err != nil {
			t.Errorf("%s was not told: %v", session, err)
		}
	}
	over := func(c caller) {
		t.Helper()
		for _, path := range []string{"/calls/" + x, "/calls/" + x + "/sessions"} {
			if gone, missing := c.do("GET", path, ""), c.do("GET", strings.Replace(path, x, "missing", 1), ""); gone.status != 404 || gone.body != missing.body {
				t.Errorf("GET %s: %d %s", path, gone.status, gone.body)
			}
		}
		c.refused(404, "not_found", "POST", "/calls/"+x+"/tokens", `{"userID":"u"}`)
		c.refused(404, "not_found", "DELETE", "/calls/"+x, "")
		c.refused(409, "call_id_used", "POST", "/calls", `{"callID":"`+x+`"}`)
	}
	over(c1)
	c2.must(201, "POST", "/calls", `{"callID":"`+x+`"}`) // another client's ids are its own

	s.stop()
	err := <-s.done
	s.done <- err
	s = start(t, nil, change)
	c1 = s.as(t, "c1", key)
	over(c1)
	if list := c1.must(200, "GET", "/calls", "").body; !strings.Contains(list, `"calls":[]`) {
		t.Errorf("calls after a restart: %s", list)
	}
	r = c1.dial("c1", key, true)
	turnedAway(ctx, t, r, "call_ended", client.Join{CallID: x, UserID: "u", SessionID: "late", Token: late})
	turnedAway(ctx, t, r, "call_ended", client.Join{CallID: y, UserID: "u", SessionID: "pending", Token: pending})
	c1.refused(409, "call_id_used", "POST", "/calls", `{"callID":"`+y+`"}`)
}

// TestManagedOnly shows OT-13, TK-02 and TK-05: where only calls that were made may be joined, no other
// is; one goes on for a while after its last session, and then never again; one may end with who came
// first. Tokens are made for their owner alone, so many a minute, and each is on record without its
// secret.
func TestManagedOnly(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	const linger = time.Second
	dir := t.TempDir()
	s := start(t, nil, func(c *config.Config) {
		withAdmin(c)
		c.Call.ManagedOnly, c.Call.Linger, c.Call.TokensPerMinute = true, linger, 3
		c.Audit.Enable, c.Audit.Dir = "on", dir
	})
	c1, c2 := s.registered(t, "c1"), s.registered(t, "c2")
	r := c1.dial("c1", key, true)
	for body, want := range map[string]struct {
		status int
		reason string
	}{
		`{"maxParticipant":1}`:        {400, "unknown_field"},
		`{"maxParticipants":"1"}`:     {400, "wrong_type"},
		`{"maxParticipants":1.5}`:     {400, "wrong_type"},
		`{"e2ee":"false"}`:            {400, "wrong_type"},
		`{"maxParticipants":-1}`:      {400, "out_of_range"},
		`{"mediaMode":"direct"}`:      {400, "out_of_range"},
		`{"archiveMode":"always"}`:    {409, "not_supported"},
		`{"mediaMode":"relayed"}`:     {409, "not_supported"},
		`{"e2ee":true}`:               {409, "not_supported"},
		`{"callID":"a","callID":"b"}`: {400, "duplicate_field"},
		`[]`:                          {400, "bad_json"},
	} {
		c1.refused(want.status, want.reason, "POST", "/calls", body)
	}

	turnedAway(ctx, t, r, "managed_only", client.Join{CallID: "call", UserID: "u", SessionID: "s0"})
	call := c1.create(`{"mediaMode":"routed","e2ee":false,"archiveMode":"none","maxParticipants":2}`)
	join := func(call, user, session string) {
		t.Helper()
		if err := r.Conn.Join(client.Join{CallID: call, UserID: user, SessionID: session}); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, session+" is in", func() bool {
			return c1.do("GET", "/calls/"+call+"/sessions/"+session, "").status == 200
		})
	}
	join(call, "u1", "s1")
	leave(ctx, t, r, "s1")
	c1.must(200, "GET", "/calls/"+call, "")
	join(call, "u1", "s2") // which makes it stay
	left := time.Now()
	leave(ctx, t, r, "s2")
	eventually(ctx, t, "the call is over", func() bool { return c1.do("GET", "/calls/"+call, "").status == 404 })
	if d := time.Since(left); d < linger || d > linger+10*time.Second {
		t.Errorf("the call was over after %v, want %v", d, linger)
	}
	turnedAway(ctx, t, r, "call_ended", client.Join{CallID: call, UserID: "u1", SessionID: "s3"})
	c1.refused(409, "call_id_used", "POST", "/calls", `{"callID":"`+call+`"}`)

	made := c1.create(`{"callID":"own id","endOnCreatorLeave":true}`)
	if made != "own id" {
		t.Errorf("the call has the id %q", made)
	}
	path := "/calls/own%20id"
	for i, name := range []string{"creator", "guest"} {
		if err := r.Conn.Join(client.Join{CallID: made, UserID: name, SessionID: name}); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, name+" is in", func() bool { return c1.callInfo("own%20id").Participants == i+1 })
	}
	leave(ctx, t, r, "creator")
	if err := r.AwaitClosed(ctx, "guest"); err != nil {
		t.Errorf("the call went on without its creator: %v", err)
	}
	eventually(ctx, t, "the call is over", func() bool { return c1.do("GET", path, "").status == 404 })

	call = c1.create("")
	tokens := "/calls/" + call + "/tokens"
	caller{t: t, url: s.url}.must(401, "POST", tokens, `{"userID":"u"}`)
	foreign := c2.refused(404, "not_found", "POST", tokens, `{"userID":"u"}`)
	if missing := c2.do("POST", "/calls/missing/tokens", `{"userID":"u"}`); missing.body != foreign.body {
		t.Errorf("a foreign call: %s, a missing one: %s", foreign.body, missing.body)
	}
	for _, body := range []string{`{"ttl":0}`, `{"ttl":-1}`, `{"ttl":1000000000000}`, `{"ttl":"1h"}`, `{"role":"king"}`, `{"maxUses":0}`, `{"userID":""}`} {
		body = strings.Replace(body, "{", `{"userID":"u",`, 1)
		if r := c1.do("POST", tokens, body); r.status != 400 {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	var minted []string
	for range 3 {
		minted = append(minted, c1.mint(call, `{"userID":"u"}`))
	}
	limited := c1.refused(429, "rate_limited", "POST", tokens, `{"userID":"u"}`)
	if wait, err := strconv.Atoi(limited.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
		t.Errorf("to be tried again after %q", limited.header.Get("Retry-After"))
	}
	c2.mint(c2.create(""), `{"userID":"u"}`)
	s.operator(t).must(200, "PUT", "/admin/clients/c2/roles", `{"roles":["calls.create"]}`)
	c2.refused(403, "forbidden", "POST", tokens, `{"userID":"u"}`)

	s.stop()
	err := <-s.done
	s.done <- err
	record := auditText(t, dir)
	if n := strings.Count(record, `"token.mint"`); n != 16 {
		t.Errorf("%d events of 16 tries to make a token", n)
	}
	for _, token := range minted {
		if secret := token[len(token)-43:]; strings.Contains(record, secret) {
			t.Error("a token is on record")
		}
	}
}

// auditText is all of an audit log.
func auditText(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("audit log: %v %v", files, err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// TestCallsAsToday shows OT-13 and TK-04 with everything at its default: calls that nobody made come and
// go under the same id as they always did, without a token; one for such a call dies with it.
func TestCallsAsToday(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	s := start(t, nil, nil)
	c1 := s.registered(t, "c1")
	r, v2 := c1.dial("c1", key, false), c1.dial("c1", key, true)
	for _, session := range []string{"s1", "s2", "s3"} {
		if err := r.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: session}); err != nil {
			t.Fatal(err)
		}
		eventually(ctx, t, "it is in", func() bool { return c1.do("GET", "/calls/call", "").status == 200 })
		leave(ctx, t, r, session)
		c1.must(404, "GET", "/calls/call", "")
		c1.must(404, "GET", "/calls/call/sessions", "")
	}
	c1.refused(404, "not_found", "POST", "/calls/call/tokens", `{"userID":"u"}`)
	if err := r.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s4"}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "it is in", func() bool { return c1.do("GET", "/calls/call", "").status == 200 })
	c1.refused(409, "call_id_used", "POST", "/calls", `{"callID":"call"}`) // there is one
	one, two := c1.mint("call", `{"userID":"u"}`), c1.mint("call", `{"userID":"u"}`)
	if err := v2.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s5", Token: one}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "both are in", func() bool { return c1.callInfo("call").Participants == 2 })
	leave(ctx, t, v2, "s5")
	leave(ctx, t, r, "s4")
	c1.must(404, "GET", "/calls/call", "")
	if err := r.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s6"}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "it is in", func() bool { return c1.do("GET", "/calls/call", "").status == 200 })
	turnedAway(ctx, t, v2, "token_invalid", client.Join{CallID: "call", UserID: "u", SessionID: "s7", Token: two})
	// Who knows of no reasons is told that it is closed, as ever.
	if err := r.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "s8", Token: "rtcdjt_x"}); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitClosed(ctx, "s8"); err != nil {
		t.Error(err)
	}
	for _, e := range r.Events() {
		switch e.(type) {
		case client.ErrorEvent, client.StatsEvent:
			t.Errorf("a connection that did not ask for it was told %+v", e)
		}
	}
	if n := c1.callInfo("call").Participants; n != 1 {
		t.Errorf("%d are in the call, want one", n)
	}
}
