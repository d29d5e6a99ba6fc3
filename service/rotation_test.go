package service_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/rtc/rtctest"
)

// A breach is a client in a call whose key is known to others.
type breach struct {
	*server
	ctx           context.Context
	operator      caller
	r             *rtctest.Remote
	all           map[string]*rtctest.Endpoint
	closed        chan struct{} // gets one for each of them whose transport was closed
	socket        *watch        // of one more connection
	token, ticket string
}

func newBreach(t *testing.T) *breach {
	t.Helper()
	b := &breach{ctx: within(t, 60*time.Second), server: start(t, nil, withAdmin)}
	b.operator = b.server.operator(t)
	b.r = b.registered(t, "c1").dial("c1", key, false)
	b.all = people(b.ctx, t, b.r, "call", "s1", "s2")
	b.closed = make(chan struct{}, len(b.all))
	for _, e := range b.all {
		e.PC().SCTP().OnClose(func(error) { b.closed <- struct{}{} })
	}
	b.socket = watchEnd(raw(t, b.server, "c1"))
	b.token = b.as(t, "c1", key).login()
	b.ticket = b.as(t, "c1", key).must(http.StatusCreated, "POST", "/ws/tickets", "").field("ticket")
	return b
}

// login returns a token for the client whose credentials these are.
func (c caller) login() string {
	c.t.Helper()
	req, err := http.NewRequest("GET", "/", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", c.authorization)
	id, k, _ := req.BasicAuth()
	r := caller{t: c.t, url: c.url, http: c.http}.must(http.StatusOK, "POST", "/login", fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, k))
	return r.field("bearerToken")
}

// dead checks that nothing of before is good for anything.
func (b *breach) dead(t *testing.T) {
	t.Helper()
	token := caller{t: t, url: b.url, authorization: "Bearer " + b.token}
	for _, path := range []string{"/calls", "/calls/call/sessions", "/ws"} {
		token.must(http.StatusUnauthorized, "GET", path, "")
	}
	if status := upgrade(b.url, "", "rtcd.ticket."+b.ticket); status != http.StatusUnauthorized {
		t.Errorf("a ticket of before the change: %d", status)
	}
	b.as(t, "c1", key).must(http.StatusUnauthorized, "GET", "/calls", "")
}

// upgrade opens a WebSocket and returns the status; it closes it again.
func upgrade(url, query string, protocols ...string) int {
	d := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: 20 * time.Second}
	c, resp, err := d.Dial("ws"+url[len("http"):]+"/ws"+query, nil)
	if err == nil {
		_ = c.Close()
	}
	if resp == nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// over checks that the sessions of the client have ended, the transports of their endpoints too.
func (b *breach) over(t *testing.T, key string) {
	t.Helper()
	if r := b.as(t, "c1", key).do("GET", "/calls/call/sessions", ""); r.status != http.StatusNotFound {
		t.Errorf("sessions of the call: %d %s", r.status, r.body)
	}
	for range b.all {
		select {
		case <-b.closed:
		case <-b.ctx.Done():
			t.Fatal("a transport is open")
		}
	}
}

// TestRotateWithGrace shows OT-03: with a time of grace, all of the old credentials are dead at once for
// whoever comes anew; what runs goes on without a lost packet, also after the grace, when the backend
// has come back with the new key; the old connections are cut within a second of its end.
func TestRotateWithGrace(t *testing.T) {
	t.Parallel()
	const grace = 3 * time.Second
	b := newBreach(t)
	stop := rtctest.Talk(t, map[string]*rtctest.Endpoint{"s1": b.all["s1"], "s2": b.all["s2"]})
	more(b.ctx, t, b.all["s1"], "s2", 10)
	more(b.ctx, t, b.all["s2"], "s1", 10)
	// A join token counts as one of the old credentials, too.
	join := b.as(t, "c1", key).must(http.StatusCreated, "POST", "/calls/call/tokens", `{"userID":"u"}`).field("token")

	begin := time.Now()
	b.operator.must(http.StatusOK, "POST", "/admin/clients/c1/rotate", fmt.Sprintf(`{"authKey":%q,"graceSeconds":3}`, newKey))
	rotated := time.Now()
	// The old connection still serves.
	if err := b.r.Conn.Join(client.Join{CallID: "call", UserID: "u3", SessionID: "s3"}); err != nil {
		t.Fatal(err)
	}
	if err := b.r.Conn.Leave("s3"); err != nil {
		t.Fatal(err)
	}
	if err := b.r.AwaitClosed(b.ctx, "s3"); err != nil {
		t.Fatal(err)
	}
	back := b.as(t, "c1", newKey).dial("c1", newKey, true)
	for _, session := range []string{"s1", "s2"} {
		if err := back.Conn.Reconnect("call", session); err != nil {
			t.Fatal(err)
		}
	}
	b.dead(t)
	if err := back.Conn.Join(client.Join{CallID: "call", UserID: "u", SessionID: "late", Token: join}); err != nil {
		t.Fatal(err)
	}
	awaitReason(b.ctx, t, back, "late", "token_invalid")

	b.socket.cut(b.ctx, t, rotated.Add(grace))
	if d := b.socket.at.Sub(begin); d < grace {
		t.Errorf("a connection was cut after %v of %v", d, grace)
	}
	select {
	case <-b.r.Conn.Done():
	case <-b.ctx.Done():
	}
	if err := b.r.Conn.Err(); !errors.Is(err, client.ErrUnauthorized) {
		t.Errorf("the old connection ended with %v", err)
	}
	more(b.ctx, t, b.all["s1"], "s2", 50)
	more(b.ctx, t, b.all["s2"], "s1", 50)
	stop()
	unbroken(t, b.all["s1"], "s2")
	unbroken(t, b.all["s2"], "s1")
	// Sessions are told of on the new connection.
	if err := back.Conn.Leave("s1"); err != nil {
		t.Fatal(err)
	}
	if err := back.AwaitClosed(b.ctx, "s1"); err != nil {
		t.Errorf("the end of a session was not told to the new connection: %v", err)
	}
}

// TestGraceEndsWithoutBackend shows OT-03: a client changes its key by itself. What runs ends with the
// grace if nobody came who knows the new key: it may be a thief's.
func TestGraceEndsWithoutBackend(t *testing.T) {
	t.Parallel()
	b := newBreach(t)
	rtctest.Talk(t, b.all)
	more(b.ctx, t, b.all["s1"], "s2", 10)
	b.as(t, "c1", key).must(http.StatusOK, "PUT", "/clients/self/key", fmt.Sprintf(`{"authKey":%q,"graceSeconds":1}`, newKey))
	b.socket.cut(b.ctx, t, time.Now().Add(time.Second))
	eventually(b.ctx, t, "the sessions end", func() bool {
		return b.as(t, "c1", newKey).do("GET", "/calls/call/sessions", "").status == http.StatusNotFound
	})
	b.over(t, newKey)
}

// TestRotateWithoutGrace shows OT-03: a key that cannot be one changes nothing at all. One that is
// replaced without grace, or revoked, also in a time of grace, takes all connections with it, which are
// told so, and all sessions, within a second.
func TestRotateWithoutGrace(t *testing.T) {
	t.Parallel()
	b := newBreach(t)
	others := people(b.ctx, t, b.registered(t, "other").dial("other", key, false), "call", "s1", "s2")
	rtctest.Talk(t, b.all)
	rtctest.Talk(t, others)
	more(b.ctx, t, b.all["s1"], "s2", 10)
	b.refuses(t)
	more(b.ctx, t, b.all["s1"], "s2", 10)
	unbroken(t, b.all["s1"], "s2")

	b.operator.must(http.StatusOK, "POST", "/admin/clients/c1/rotate", fmt.Sprintf(`{"authKey":%q}`, newKey))
	b.socket.cut(b.ctx, t, time.Now())
	b.dead(t)
	b.over(t, newKey)

	const thirdKey = "the third key, which is long enough as well"
	b.r = b.as(t, "c1", newKey).dial("c1", newKey, false)
	b.socket = watchEnd(rawWith(t, b.server, basic("c1", newKey)))
	people(b.ctx, t, b.r, "call", "s4")
	b.operator.must(http.StatusOK, "POST", "/admin/clients/c1/rotate", fmt.Sprintf(`{"authKey":%q,"graceSeconds":3600}`, thirdKey))
	b.as(t, "c1", thirdKey).must(http.StatusOK, "GET", "/calls/call", "")
	b.operator.must(http.StatusOK, "POST", "/admin/clients/c1/revoke", "")
	b.socket.cut(b.ctx, t, time.Now())
	b.as(t, "c1", thirdKey).must(http.StatusUnauthorized, "GET", "/calls", "")
	if info := b.operator.must(http.StatusOK, "GET", "/admin/clients/c1", "").body; !strings.Contains(info, `"revoked":true`) {
		t.Errorf("the client is %s", info)
	}
	// Another client notices nothing of all this.
	more(b.ctx, t, others["s1"], "s2", 10)
	unbroken(t, others["s1"], "s2")
	unbroken(t, others["s2"], "s1")
}

// refuses checks that keys that cannot be keys change nothing.
func (b *breach) refuses(t *testing.T) {
	t.Helper()
	before := b.operator.must(http.StatusOK, "GET", "/admin/clients/c1", "").body
	for body, reason := range map[string]string{
		`{"authKey":"0123456789abcdef0123456789abcde"}`:     "out_of_range",
		`{"authKey":"` + newKey + newKey + `"}`:             "out_of_range",
		`{"authKey":"` + newKey + `","graceSeconds":-1}`:    "out_of_range",
		`{"authKey":"` + newKey + `","graceSeconds":86401}`: "out_of_range",
		`{"authKey":"` + newKey + `","graceSeconds":"1h"}`:  "wrong_type",
		`{"graceSeconds":1}`:                                "missing_field",
		`{"authKey":"` + newKey + `","clientID":"other"}`:   "unknown_field",
	} {
		b.operator.refused(http.StatusBadRequest, reason, "POST", "/admin/clients/c1/rotate", body)
		b.as(t, "c1", key).refused(http.StatusBadRequest, reason, "PUT", "/clients/self/key", body)
	}
	b.operator.refused(http.StatusNotFound, "not_found", "POST", "/admin/clients/nobody/rotate", `{"authKey":"`+newKey+`"}`)
	if after := b.operator.must(http.StatusOK, "GET", "/admin/clients/c1", "").body; after != before {
		t.Errorf("the client was %s and is %s", before, after)
	}
	b.as(t, "c1", key).must(http.StatusOK, "GET", "/calls/call", "")
	caller{t: t, url: b.url, authorization: "Bearer " + b.token}.must(http.StatusOK, "GET", "/calls/call", "")
	if b.socket.over() {
		t.Errorf("a connection was cut: %v", b.socket.err)
	}
}
