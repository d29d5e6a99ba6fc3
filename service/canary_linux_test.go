package service_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/api/wire"
	"rtcd/service/audit"
	"rtcd/service/logging"
	"rtcd/service/metrics"
	"rtcd/service/rtc/rtctest"
)

// canaries are planted secrets by what they are. They are told apart by their middle, which is what is
// looked for: a piece of one is found, too.
type canaries map[string]string

// plant makes a secret that has to show up nowhere.
func (c canaries) plant(what string) string {
	core := fmt.Sprintf("Canary%03dx%02dq", 7*len(c)+101, len(c))
	c[what] = core
	return "s3cr3t+" + core + "/0123456789abcdef"
}

// keep notes a secret that the server made.
func (c canaries) keep(what, secret string) string {
	core := secret
	if parts := strings.SplitN(core, "_", 3); strings.HasPrefix(core, "rtcd") && len(parts) == 3 {
		core = parts[2] // what is before may be logged
	}
	c[what] = core[4 : len(core)-4]
	return secret
}

// header also notes what an Authorization header makes of an id and a key.
func (c canaries) header(what, id, key string) {
	encoded := base64.StdEncoding.EncodeToString([]byte(id + ":" + key))
	c[what+" in a header"] = encoded[len(encoded)/2 : len(encoded)-4]
}

// A bomb is a log handler that panics at one line, once it is armed: a fault in the middle of a handler
// that has secrets in its hands.
type bomb struct {
	slog.Handler
	armed *atomic.Pointer[string]
}

func (b bomb) Handle(ctx context.Context, r slog.Record) error {
	if at := b.armed.Load(); at != nil && *at == r.Message && b.armed.CompareAndSwap(at, nil) {
		panic("a fault in the middle of " + r.Message)
	}
	return b.Handler.Handle(ctx, r)
}

func (b bomb) WithAttrs(a []slog.Attr) slog.Handler { return bomb{b.Handler.WithAttrs(a), b.armed} }
func (b bomb) WithGroup(name string) slog.Handler   { return bomb{b.Handler.WithGroup(name), b.armed} }

// TestNoSecretShows shows TK-01, CR-14 and OT-18 (the log holds no key): a server that logs everything it can, with a secret
// planted in every place that takes one, goes through success, refusal, error, panic, rotation and shutdown, and none of the
// secrets is in either form of its log, in its record of events, its metrics, its profiles, or in any of its answers but the one
// that hands it out.
func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	ctx := within(t, 120*time.Second)
	c := make(canaries)
	console, file := new(safeBuffer), filepath.Join(t.TempDir(), "rtcd.log")
	log, closer, err := logging.New(logging.Config{
		EnableConsole: true, ConsoleLevel: "STDLOG", Console: console,
		EnableFile: true, FileJSON: true, FileLevel: "STDLOG", FileLocation: file,
	})
	if err != nil {
		t.Fatal(err)
	}
	var armed atomic.Pointer[string]
	admin, auditor, registration := c.plant("admin key"), c.plant("auditor key"), c.plant("registration token")
	w := startRecorded(t, slog.New(bomb{log.Handler(), &armed}), func(cfg *config.Config) {
		cfg.API.Security.AdminSecretKey = config.Secret(admin)
		cfg.API.Security.AuditorSecretKey = config.Secret(auditor)
		cfg.API.Security.RegistrationToken = config.Secret(registration)
		cfg.RTC.TURN.StaticAuthSecret = config.Secret(c.plant("TURN secret"))
		cfg.RTC.ICEServers = []config.ICEServer{{
			URLs:     []string{"turn:127.0.0.1:1"},
			Username: config.Secret(c.plant("TURN user")), Credential: config.Secret(c.plant("TURN credential")),
		}}
	})
	s := &scene{t: t, console: console, w: w, c: c, admin: admin, auditor: auditor, registration: registration}
	s.strangers()
	s.client(ctx)
	s.panics(&armed)
	s.operator()
	s.brokenBackup()
	for _, path := range []string{
		"/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap?debug=1", "/debug/pprof/",
	} {
		s.tell(probe{method: "GET", url: w.admin + path})
	}
	s.tell(probe{method: "GET", url: w.admin + "/admin/audit?limit=1000", key: auditor})
	w.finish(t)
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		"the plain log": console.String(), "the JSON log": string(text), "the answers": s.told.String(),
		"the record of events": folder(t, w.cfg.Audit.Dir), "the data store": folder(t, w.cfg.Store.DataSource),
	}
	for _, line := range []string{
		"session connected", "request handler panicked", "message handler panicked", "failed authentication", "key of client replaced",
		"authHandler", "loginClient", "registerClient", "signalling refused", "stopped",
	} {
		if !strings.Contains(places["the plain log"], line) || !strings.Contains(places["the JSON log"], line) {
			t.Errorf("the logs lack %q: the scene did not go as it should", line)
		}
	}
	for _, part := range []string{"goroutine ", "rtcd_ws_discarded_total", "store.backup", "internal error"} {
		if !strings.Contains(places["the answers"], part) {
			t.Errorf("the answers lack %q: the scene did not go as it should", part)
		}
	}
	for where, text := range places {
		absent(t, where, text, c)
	}
	absent(t, "the record of events", places["the record of events"], map[string]string{"a user's id": "user-in-plain"})
	for _, where := range []string{"the plain log", "the JSON log", "the record of events"} {
		absent(t, where, places[where], map[string]string{"an ICE password": "a=ice-pwd", "a fingerprint": "a=fingerprint", "a hash of a key": "$2a$", "token data": "Opaque.Data"})
	}
	report, err := audit.Verify(ctx, w.cfg.Audit.Dir)
	if err != nil || report.Fault != nil {
		t.Errorf("verify: %v %v", report, err)
	}
	t.Logf("%d secrets, %d bytes of logs, %d of answers, %d records", len(c), len(places["the plain log"])+len(text), s.told.Len(), report.Records)
}

// A scene is what happens in TestNoSecretShows.
type scene struct {
	t                            *testing.T
	w                            *recorded
	c                            canaries
	admin, auditor, registration string
	console                      *safeBuffer
	told                         strings.Builder // all answers, but for what they were to hand out
}

// tell makes a request and keeps its answer, without secrets that were asked for, which are noted.
func (s *scene) tell(p probe, handsOut ...string) answer {
	s.t.Helper()
	if strings.HasPrefix(p.url, "/") {
		p.url = s.w.url + p.url
	}
	a := p.do(s.t)
	text := a.body
	for _, name := range handsOut {
		secret := a.field(s.t, name)
		s.c.keep(fmt.Sprintf("%s %d", name, len(s.c)), secret)
		text = strings.ReplaceAll(text, secret, "")
	}
	fmt.Fprintln(&s.told, a.status, text)
	return a
}

func account(id, key string) string { return fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key) }

// strangers try secrets that are wrong, or in the wrong place.
func (s *scene) strangers() {
	c := s.c
	post := func(path, body string) { s.tell(probe{method: "POST", url: path, body: body}) }
	key := c.plant("key of a registration that fails")
	for _, body := range []string{
		account("c1", key)[:40], `{"clientID":"c1","authKey":["` + key + `"]}`, `{"clientID":"c1","authKey":` + key + `}`,
		`{"clientID":"c1","authKey":{"` + key + `":1}}`, `"` + key + `"`, key,
		account("c1", key), // lacks the token
		fmt.Sprintf(`{"clientID":"c1","authKey":%q,"registrationToken":%q}`, key, c.plant("wrong registration token")),
		fmt.Sprintf(`{"clientID":"c1","authKey":"Short%s","registrationToken":%q}`, c["key of a registration that fails"], s.registration),
		fmt.Sprintf(`{"clientID":"c1","authKey":%q,"registrationToken":%q}`, strings.Repeat(key, 3), s.registration),
		fmt.Sprintf(`{"clientID":"","authKey":%q,"registrationToken":%q}`, key, s.registration),
	} {
		post("/register", body)
		post("/login", body[:len(body)-2])
		post("/unregister", body)
	}
	wrong := c.plant("wrong operator key")
	c.header("wrong operator key", "", wrong)
	c.header("admin key", "", s.admin)
	c.header("auditor key", "", s.auditor)
	s.tell(probe{method: "GET", url: s.w.admin + "/admin/clients", key: wrong})
	s.tell(probe{method: "GET", url: s.w.admin + "/admin/clients", key: s.auditor})
	s.tell(probe{method: "GET", url: s.w.admin + "/admin/audit", key: s.admin})

	header := c.plant("key in a malformed header")
	encoded := base64.StdEncoding.EncodeToString([]byte(header))
	c["key in a malformed header, encoded"] = encoded[4 : len(encoded)-4]
	for _, value := range []string{
		header, "Basic " + header, "Basic " + encoded, "Bearer " + header, "Bearer  " + header, "Digest " + header, "basic:" + header,
		`Digest username="c1", response="` + header + `"`, "Basic " + base64.StdEncoding.EncodeToString([]byte("c1:"+header)) + "!",
	} {
		for _, u := range []string{s.w.url + "/calls", s.w.url + "/ws", s.w.admin + "/admin/clients"} {
			s.tell(probe{method: "GET", url: u, header: http.Header{"Authorization": {value}}})
		}
	}
	query := c.plant("secret in a query")
	for _, name := range []string{"authKey", "token", "key", "ticket", "TOKEN"} {
		for _, u := range []string{s.w.url + "/calls", s.w.url + "/ws", s.w.url + "/version", s.w.url + "/nothing", s.w.admin + "/admin/audit"} {
			s.tell(probe{method: "GET", url: u + "?" + name + "=" + url.QueryEscape(query)})
		}
	}
	ticket := c.plant("wrong ticket")
	if _, err := s.w.open(s.t, "", nil, "", "rtcd.v2", "rtcd.ticket."+strings.NewReplacer("/", "", "+", "").Replace(ticket)); err == nil {
		s.t.Error("a wrong ticket opens")
	}
}

// client is a backend with calls, tokens, tickets and end users.
func (s *scene) client(ctx context.Context) {
	t, c, w := s.t, s.c, s.w
	key := c.plant("key of c1")
	c.header("key of c1", "c1", key)
	s.tell(probe{method: "POST", url: "/register", body: fmt.Sprintf(`{"clientID":"c1","authKey":%q,"registrationToken":%q}`, key, s.registration)})
	s.tell(probe{method: "POST", url: "/register", body: fmt.Sprintf(`{"clientID":"c1","authKey":%q,"registrationToken":%q}`, key, s.registration)})
	wrong := c.plant("wrong key of c1")
	c.header("wrong key of c1", "c1", wrong)
	s.tell(probe{method: "POST", url: "/login", body: account("c1", wrong)})
	s.tell(probe{method: "GET", url: "/calls", user: "c1", key: wrong})
	token := s.tell(probe{method: "POST", url: "/login", body: account("c1", key)}, "bearerToken").field(t, "bearerToken")

	// End users with real media.
	api, err := client.New(client.Config{URL: w.url, ClientID: "c1", AuthKey: key, V2: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdleConnections)
	conn, err := api.Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	all := people(ctx, t, rtctest.NewRemote(t, conn), "live", "s1", "s2")
	stop := rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s2", 5)
	stop()

	call := s.tell(probe{method: "POST", url: "/calls", token: token, body: `{"mediaMode":"routed"}`}).field(t, "callID")
	mint := fmt.Sprintf(`{"userID":"user-in-plain","role":"publisher","data":"Opaque.Data-1"%%s}`)
	join := s.tell(probe{method: "POST", url: "/calls/" + call + "/tokens", token: token, body: fmt.Sprintf(mint, "")}, "token").field(t, "token")
	s.tell(probe{method: "POST", url: "/calls/" + call + "/tokens", token: token, body: fmt.Sprintf(mint, `,"secret":"`+c.plant("unknown field")+`"`)})
	s.tell(probe{method: "POST", url: "/calls/none/tokens", token: token, body: fmt.Sprintf(mint, "")})
	ticket := s.tell(probe{method: "POST", url: "/ws/tickets", token: token}, "ticket").field(t, "ticket")
	s.tell(probe{method: "GET", url: "/calls?ticket=" + ticket})
	v2 := w.mustOpen(t, "", nil, "ticket="+ticket, wire.SubprotocolV2)
	if _, err := w.open(t, "", nil, "ticket="+ticket); err == nil {
		t.Error("a ticket opens twice")
	}
	s.messages(ctx, v2, call, join)

	// New credentials, of all kinds.
	s.tell(probe{method: "POST", url: "/token/refresh", token: token}, "bearerToken")
	s.tell(probe{method: "POST", url: "/token/refresh", token: token})
	s.tell(probe{method: "POST", url: "/token/refresh", user: "c1", key: key})
	next := c.plant("next key of c1")
	c.header("next key of c1", "c1", next)
	self := probe{method: "PUT", url: "/clients/self/key", user: "c1", key: key}
	for _, body := range []string{
		`{"authKey":"` + next + `","authKey":"` + next + `"}`, `{"authKey":["` + next + `"]}`, `{"authKey":"` + c["next key of c1"] + `"}`,
		`{"key":"` + next + `"}`, `{"authKey":"` + next + `","graceSeconds":"x"}`, `{"authKey":"` + next, `{"authKey":"` + next + `"}`,
	} {
		self.body = body
		s.tell(self)
	}
	s.tell(probe{method: "GET", url: "/calls", user: "c1", key: key}) // which is dead
}

// messages are sent over a WebSocket, with secrets where they belong and where not.
func (s *scene) messages(ctx context.Context, v2 *peer, call, token string) {
	c := s.c
	sdp := func(pwd string) []byte {
		d, err := json.Marshal(map[string]string{"type": "offer", "sdp": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" +
			"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:ufrag\r\n" + pwd + "\r\na=mid:0\r\n"})
		if err != nil {
			s.t.Fatal(err)
		}
		return d
	}
	pwd := c.plant("ICE password")
	join := func(call, session, user, token string) []byte {
		return wire.AppendJoin(nil, wire.Join{CallID: call, SessionID: session, UserID: user, Token: token})
	}
	wrong := c.plant("wrong join token")
	v2.send(s.t,
		join(call, "j1", "user-in-plain", wrong),
		join(call, "j1", "user-in-plain", token[:len(token)-1]+"~"),
		join("none", "j1", "user-in-plain", token),
		join(call, "j1", "user-in-plain-2", token),
		join(call, "j1", "user-in-plain", token),
		join(call, "j2", "user-in-plain", token),
		join(call, "j3", "user-in-plain", strings.Repeat(wrong, 40)),
	)
	s.signals(ctx, v2, []offering{
		{wire.SignalSDP, sdp("a=ice-pwd" + pwd), true},
		{wire.SignalSDP, sdp("a=ice-pwd:" + pwd + "\r\n" + pwd), true},
		{wire.SignalSDP, sdp("a=ice-pwd:" + pwd), true},
		{wire.SignalSDP, sdp("a=ice-pwd:" + pwd + "\r\na=fingerprint:sha-256 " + pwd), false},
		{wire.SignalSDP, sdp("a=ice-pwd:" + pwd + "\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + pwd), true},
		{wire.SignalSDP, []byte(strings.Replace(string(sdp("a=ice-pwd:"+pwd)), `"offer"`, `"answer"`, 1)), false},
		{wire.SignalSDP, sdp("a=ice-pwd:" + pwd)[:150], true},
		{wire.SignalSDP, []byte(pwd), true},
		{wire.SignalSDP, []byte(`{"type":"` + pwd + `","sdp":"v=0"}`), true},
		{wire.SignalICE, []byte(`{"candidate":"candidate:1 1 udp 1 127.0.0.1 9 typ host ufrag ` + pwd + `","sdpMid":"0"}`), false},
		{wire.SignalICE, []byte(`{"candidate":"` + pwd + `"}`), false},
		{wire.SignalVideoOn, []byte(`{"videoStreamID":{"` + pwd + `":1}}`), true},
	})
	garbage := c.plant("what is no message")
	v2.send(s.t,
		append(join(call, "j4", "user-in-plain", wrong), garbage...),
		append([]byte("\xa4join\x81\xa5token\xd9"), garbage...),
		append([]byte{0xa0 | byte(len(garbage)&31)}, garbage[:len(garbage)&31]+"\x80"...),
		[]byte(garbage),
		wire.AppendModerate(nil, wire.Moderate{CallID: call, Action: wire.ActionDisconnect, SessionID: "j1"}),
		join(call, "j5", "user-in-plain", token),
	)
	for _, m := range v2.received() {
		if d, err := wire.DecodeServer(m); err == nil && d.Type == wire.TypeError {
			fmt.Fprintf(&s.told, "%q\n", m)
		}
	}
}

// An offering is what a session signals, and whether the log tells of a refusal.
type offering struct {
	typ     wire.SignalType
	data    []byte
	refused bool
}

// signals sends each from a session of its own.
func (s *scene) signals(ctx context.Context, v2 *peer, list []offering) {
	s.t.Helper()
	told := func(id string) bool {
		for line := range strings.Lines(s.console.String()) {
			if strings.Contains(line, "signalling refused") && strings.Contains(line, "sessionID="+id+" ") {
				return true
			}
		}
		return false
	}
	for i, o := range list {
		id := fmt.Sprint("k", i)
		v2.send(s.t, wire.AppendJoin(nil, wire.Join{CallID: "signals", SessionID: id, UserID: "user-in-plain"}),
			wire.AppendRTC(nil, wire.Signal{SessionID: id, Type: o.typ, Data: o.data}))
	}
	tick := time.NewTicker(5 * time.Millisecond) // the log alone says that a signal was handled
	defer tick.Stop()
	for i, o := range list {
		for id := fmt.Sprint("k", i); o.refused && !told(id); {
			select {
			case <-tick.C:
			case <-ctx.Done():
				s.t.Fatalf("signal %d is not refused", i)
			}
		}
		v2.send(s.t, wire.AppendLeave(nil, fmt.Sprint("k", i)))
	}
}

// panics let handlers fail with a secret in their hands.
func (s *scene) panics(armed *atomic.Pointer[string]) {
	t, c := s.t, s.c
	arm := func(line string) { armed.Store(&line) }
	gone := func(what string) {
		t.Helper()
		if armed.Load() != nil {
			t.Errorf("nothing failed in %s", what)
		}
	}
	key := c.plant("key of c2")
	c.header("key of c2", "c2", key)
	arm("client registered")
	s.tell(probe{method: "POST", url: "/register", body: fmt.Sprintf(`{"clientID":"c2","authKey":%q,"registrationToken":%q}`, key, s.registration)})
	gone("register")
	arm("authHandler")
	token := s.tell(probe{method: "POST", url: "/login", body: account("c2", key)}, "bearerToken").field(t, "bearerToken")
	s.tell(probe{method: "GET", url: "/calls", token: token})
	gone("authentication")
	arm("authHandler")
	s.tell(probe{method: "GET", url: s.w.admin + "/admin/clients", key: s.admin})
	gone("authentication of the operator")
	arm("message dropped: " + metrics.NoSession.String())
	v2 := s.w.mustOpen(t, "", withToken(token), "", wire.SubprotocolV2)
	v2.send(t, wire.AppendRTC(nil, wire.Signal{SessionID: "none", Type: wire.SignalSDP, Data: []byte(c.plant("data of a signal"))}))
	gone("a message")
}

// operator manages clients.
func (s *scene) operator() {
	c, w := s.c, s.w
	admin := func(method, path, body string) {
		s.tell(probe{method: method, url: w.admin + path, key: s.admin, body: body})
	}
	key, next := c.plant("key of c3"), c.plant("next key of c3")
	admin("POST", "/admin/clients", `{"clientID":"c3","authKey":"`+key+`","roles":["client","odd"]}`)
	admin("POST", "/admin/clients", `{"clientID":"c3","authKey":"`+key+`","roles":["admin"]}`)
	admin("POST", "/admin/clients", `{"clientID":"c4","authKey":"`+key+`"`)
	admin("GET", "/admin/clients", "")
	admin("GET", "/admin/clients/c3", "")
	admin("POST", "/admin/clients/c3/rotate", `{"authKey":"`+next+`","graceSeconds":1}`)
	admin("POST", "/admin/clients/c3/rotate", `{"authKey":"`+next+`","nonsense":"`+next+`"}`)
	admin("POST", "/admin/clients/none/rotate", `{"authKey":"`+next+`"}`)
	admin("POST", "/admin/clients/c3/revoke", "")
	admin("DELETE", "/admin/clients/c3", "")
	admin("POST", "/admin/store/backup", `{"key":"`+next+`"}`)
}

// brokenBackup asks for backups and goes away, until one has failed.
func (s *scene) brokenBackup() {
	t := s.t
	addr := strings.TrimPrefix(s.w.admin, "http://")
	authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte(":"+s.admin))
	for range 400 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /admin/store/backup HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Length: 0\r\n\r\n", addr, authorization)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		a := probe{method: "GET", url: s.w.admin + "/admin/audit?type=store.backup&outcome=8", key: s.auditor}.do(t)
		if strings.Contains(a.body, `"outcome":8`) {
			fmt.Fprintln(&s.told, a.body)
			return
		}
	}
	t.Error("no backup has failed")
}
