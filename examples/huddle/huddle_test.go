package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rtcd/client"
	"rtcd/service/api/wire"
)

const testKey = "0123456789abcdef0123456789abcdef"

// A rig is huddle's server between a fakeRTCD and test browsers.
type rig struct {
	t    *testing.T
	rtcd *fakeRTCD
	hub  *hub
	web  *httptest.Server
}

func newRig(t *testing.T, media bool) *rig {
	t.Helper()
	r := &rig{t: t, rtcd: &fakeRTCD{admin: "admin", media: media, got: make(chan string, 4096)}}
	api := httptest.NewServer(r.rtcd)
	c, err := client.New(client.Config{
		URL: api.URL, ClientID: "huddle", AuthKey: testKey, AdminKey: "admin", AutoRegister: true, HTTPClient: api.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.hub = newHub(conn, slog.New(slog.DiscardHandler))
	s := newServer(r.hub)
	r.web = httptest.NewServer(s)
	served := make(chan struct{})
	go func() { defer close(served); r.hub.serve(conn.Events()) }()
	t.Cleanup(func() {
		r.hub.close()
		r.web.CloseClientConnections()
		r.web.Close()
		s.browsers.Wait()
		_ = conn.Close()
		<-served
		api.CloseClientConnections()
		api.Close()
	})
	return r
}

// want reads what huddle sent to rtcd.
func (r *rig) want(want string) {
	r.t.Helper()
	if got := within(r.t, r.rtcd.got, "message at rtcd"); got != want {
		r.t.Fatalf("rtcd got %q, want %q", got, want)
	}
}

// A browser is a test's end of the page's WebSocket.
type browser struct {
	t         *testing.T
	ws        *websocket.Conn
	id, token string
}

func (r *rig) dial(room, name string) *browser {
	r.t.Helper()
	u := "ws" + strings.TrimPrefix(r.web.URL, "http") + "/ws?room=" + room + "&name=" + name
	ws, _, err := websocket.DefaultDialer.Dial(u, http.Header{"Origin": {r.web.URL}})
	if err != nil {
		r.t.Fatalf("browser: %v", err)
	}
	r.t.Cleanup(func() { _ = ws.Close() })
	return &browser{t: r.t, ws: ws}
}

// enter joins and reads the welcome.
func (r *rig) enter(room, name string) (*browser, notice) {
	r.t.Helper()
	b := r.dial(room, name)
	welcome := b.next()
	if welcome.Type != "welcome" || len(welcome.ID) != 26 {
		r.t.Fatalf("first message %+v", welcome)
	}
	b.id, b.token = welcome.ID, welcome.Token
	r.want("join " + room + " " + b.id)
	return b, welcome
}

// closeInOrder ends the WebSocket as a browser does whose tab is closed.
func (b *browser) closeInOrder() {
	b.t.Helper()
	bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	if err := b.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	b.wantGone()
}

// next returns the next message but news of rtcd.
func (b *browser) next() notice {
	b.t.Helper()
	for {
		_ = b.ws.SetReadDeadline(time.Now().Add(patience))
		var n notice
		if err := b.ws.ReadJSON(&n); err != nil {
			b.t.Fatalf("browser reads: %v", err)
		}
		if n.Type != "server" {
			return n
		}
	}
}

func (b *browser) send(text string) {
	b.t.Helper()
	if err := b.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		b.t.Fatalf("browser sends: %v", err)
	}
}

// wantGone reads until the connection ends.
func (b *browser) wantGone() {
	b.t.Helper()
	_ = b.ws.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := b.ws.ReadMessage(); err != nil {
			if ne, ok := err.(interface{ Timeout() bool }); ok && ne.Timeout() {
				b.t.Fatal("the connection is still there")
			}
			return
		}
	}
}

func text(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

func TestTwoInARoom(t *testing.T) {
	r := newRig(t, false)
	ann, _ := r.enter("lobby", "Ann")
	bob, welcome := r.enter("lobby", "Bob")
	if len(welcome.People) != 2 {
		t.Errorf("Bob sees %+v", welcome.People)
	}
	if n := ann.next(); n.Type != "person" || n.Person.Name != "Bob" || !n.Person.Muted {
		t.Errorf("Ann hears %s", text(n))
	}
	if _, other := r.enter("elsewhere", "Eve"); len(other.People) != 1 {
		t.Errorf("another room sees %+v", other.People)
	}

	ann.send(`{"type":"sdp","data":{"type":"offer","sdp":"v=0"}}`)
	r.want("rtc " + ann.id + ` 2 {"type":"offer","sdp":"v=0"}`)
	ann.send(`{"type":"ice","data":{"candidate":"c"}}`)
	r.want("rtc " + ann.id + ` 1 {"candidate":"c"}`)
	r.rtcd.signal(ann.id, wire.SignalSDP, map[string]string{"type": "answer"})
	r.rtcd.signal(ann.id, wire.SignalICE, map[string]string{"type": "candidate"})
	for _, want := range []string{"sdp", "ice"} {
		if n := ann.next(); n.Type != want || len(n.Data) == 0 {
			t.Errorf("Ann got %s, want %s", text(n), want)
		}
	}

	ann.send(`{"type":"unmute"}`)
	r.want("rtc " + ann.id + " 4 ")
	if n := bob.next(); n.Type != "person" || n.Person.ID != ann.id || n.Person.Muted {
		t.Errorf("unmute: Bob hears %s", text(n))
	}
	r.rtcd.send(wire.AppendVAD(nil, wire.Signal{SessionID: ann.id, Type: wire.SignalVoiceOn}))
	if n := bob.next(); n.Type != "voice" || n.ID != ann.id || !n.On {
		t.Errorf("voice: Bob hears %s", text(n))
	}

	ann.closeInOrder()
	r.want("leave " + ann.id)
	if n := bob.next(); n.Type != "left" || n.ID != ann.id {
		t.Errorf("leaving: Bob hears %s", text(n))
	}
	r.rtcd.send(wire.AppendClose(nil, bob.id))
	if n := bob.next(); n.Type != "ended" {
		t.Errorf("close of rtcd: Bob hears %s", text(n))
	}
	bob.wantGone()
}

// rtcd hears which browsers can receive AV1.
func TestAV1(t *testing.T) {
	r := newRig(t, false)
	for query, mark := range map[string]string{"": "", "&av1=0": "", "&av1=1": " av1"} {
		b := r.dial("lobby", "Ann"+query)
		r.want("join lobby " + b.next().ID + mark)
		b.closeInOrder()
		within(t, r.rtcd.got, "leave")
	}
}

func TestRefusedAtTheDoor(t *testing.T) {
	r := newRig(t, false)
	for _, q := range [][2]string{
		{"", "Ann"}, {"UPPER", "Ann"}, {"a/b", "Ann"}, {"-a", "Ann"}, {strings.Repeat("a", 33), "Ann"},
		{"lobby", ""}, {"lobby", "+++"}, {"lobby", strings.Repeat("x", 33)}, {"lobby", "a%00b"}, {"lobby", "%E2%80%AEevil"},
	} {
		if n := r.dial(q[0], q[1]).next(); n.Type != "refused" || n.Text == "" {
			t.Errorf("room %q, name %q: %s", q[0], q[1], text(n))
		}
	}
	u := "ws" + strings.TrimPrefix(r.web.URL, "http") + "/ws?room=lobby&name=Ann"
	_, resp, err := websocket.DefaultDialer.Dial(u, http.Header{"Origin": {"http://evil.example"}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %v", err)
	}
}

func TestRulesOfTheWebSocket(t *testing.T) {
	r := newRig(t, false)
	for name, misbehave := range map[string]func(*browser){
		"not json":  func(b *browser) { b.send("hello") },
		"null":      func(b *browser) { b.send("null") },
		"type":      func(b *browser) { b.send(`{"type":"join"}`) },
		"no stream": func(b *browser) { b.send(`{"type":"video-on"}`) },
		"stream":    func(b *browser) { b.send(`{"type":"screen-on","data":{"stream":"a\"b"}}`) },
		"stream id": func(b *browser) { b.send(`{"type":"video-on","data":{"stream":"` + strings.Repeat("x", 65) + `"}}`) },
		"stream no": func(b *browser) { b.send(`{"type":"screen-on","data":{"stream":7}}`) },
		"too large": func(b *browser) { b.send(`{"type":"sdp","data":"` + strings.Repeat("x", maxBrowserMessage) + `"}`) },
		"deep":      func(b *browser) { b.send(strings.Repeat("[", 100_000)) },
		"flood": func(b *browser) {
			for range 4 * messageBurst {
				if b.ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"ice","data":{}}`)) != nil {
					return
				}
			}
		},
	} {
		b, _ := r.enter("lobby", "Ann")
		misbehave(b)
		b.wantGone()
		for left := false; !left; {
			left = within(t, r.rtcd.got, "leave after "+name) == "leave "+b.id
		}
	}
}

// quietRTCD takes everything.
type quietRTCD struct{ left []string }

func (*quietRTCD) Join(client.Join) error                             { return nil }
func (q *quietRTCD) Leave(id string) error                            { q.left = append(q.left, id); return nil }
func (*quietRTCD) SendSignal(string, client.SignalType, []byte) error { return nil }
func (*quietRTCD) Mute(string) error                                  { return nil }
func (*quietRTCD) Unmute(string) error                                { return nil }

func TestCaps(t *testing.T) {
	h := newHub(&quietRTCD{}, slog.New(slog.DiscardHandler))
	for i := range maxInRoom {
		if _, err := h.enter(visitor{room: "full", name: fmt.Sprint(i)}, &link{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.enter(visitor{room: "full", name: "one more"}, &link{}); err != errRoomFull {
		t.Errorf("full room: %v", err)
	}
	for i := range maxRooms - 1 {
		if _, err := h.enter(visitor{room: fmt.Sprint("room-", i), name: "x"}, &link{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.enter(visitor{room: "another", name: "x"}, &link{}); err != errFull {
		t.Errorf("too many rooms: %v", err)
	}
	for len(h.all) < maxParticipants {
		if _, err := h.enter(visitor{room: fmt.Sprint("room-", len(h.all)%(maxRooms-1)), name: "x"}, &link{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.enter(visitor{room: "room-1", name: "x"}, &link{}); err != errFull {
		t.Errorf("too many people: %v", err)
	}
	h.close()
	if len(h.all)+len(h.rooms)+len(h.tokens) != 0 || len(h.rtcd.(*quietRTCD).left) != maxParticipants {
		t.Error("close left somebody in")
	}
	if _, err := h.enter(visitor{room: "full", name: "late"}, &link{}); err != errClosing {
		t.Errorf("after close: %v", err)
	}
}

// A browser that does not read is given up and costs the others nothing.
func TestSlowBrowser(t *testing.T) {
	h := newHub(&quietRTCD{}, slog.New(slog.DiscardHandler))
	slow, _ := h.enter(visitor{room: "room", name: "slow"}, &link{})
	for range queueLength {
		p, err := h.enter(visitor{room: "room", name: "x"}, &link{})
		if err != nil {
			t.Fatal(err)
		}
		h.detach(p, p.link, false)
	}
	select {
	case <-slow.gone:
	default:
		t.Error("still waited for")
	}
}

func TestPageIsServed(t *testing.T) {
	r := newRig(t, false)
	for path, want := range map[string]int{"/": 200, "/huddle.js": 200, "/video.js": 200, "/call.js": 200, "/msgpack.js": 200, "/huddle.css": 200, "/../main.go": 404, "/x": 404} {
		resp, err := r.web.Client().Get(r.web.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
		if want == 200 && (len(body) == 0 || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'self'")) {
			t.Errorf("%s: %d bytes, header %v", path, len(body), resp.Header)
		}
	}
	resp, err := r.web.Client().Post(r.web.URL, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("post: %d", resp.StatusCode)
	}
}

func TestAPIURL(t *testing.T) {
	for _, c := range []struct{ addr, tls, want string }{
		{"", "", "http://127.0.0.1:8045"}, {":9000", "", "http://127.0.0.1:9000"}, {"0.0.0.0:1", "0", "http://127.0.0.1:1"},
		{"[::]:1", "", "http://127.0.0.1:1"}, {"[::1]:1", "", "http://[::1]:1"}, {"10.0.0.1:2", "true", "https://10.0.0.1:2"},
	} {
		env := map[string]string{"RTCD_API_HTTP_LISTENADDRESS": c.addr, "RTCD_API_HTTP_TLS_ENABLE": c.tls}
		if got := apiURL(func(k string) string { return env[k] }); got != c.want {
			t.Errorf("%q, tls %q: %s, want %s", c.addr, c.tls, got, c.want)
		}
	}
}
