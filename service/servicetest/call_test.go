package servicetest_test

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// seriesOf returns the series of an exposition, name and sorted labels, without those of Go.
func seriesOf(exposition string) map[string]bool {
	line := regexp.MustCompile(`(?m)^(rtcd_\w+)(\{[^}]*\})? `)
	out := make(map[string]bool)
	for _, m := range line.FindAllStringSubmatch(exposition, -1) {
		labels := strings.Split(strings.Trim(m[2], "{}"), ",")
		slices.Sort(labels)
		out[m[1]+"{"+strings.Join(labels, ",")+"}"] = true
	}
	return out
}

// typesOf returns the TYPE lines of an exposition.
func typesOf(exposition string) map[string]bool {
	out := make(map[string]bool)
	for _, l := range regexp.MustCompile(`(?m)^# TYPE rtcd_.*$`).FindAllString(exposition, -1) {
		out[l] = true
	}
	return out
}

func missing(want, have map[string]bool) []string {
	var out []string
	for s := range want {
		if !have[s] {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// What the API says of a call is true from its first join to its end: lists, bodies to the byte,
// and every series with its type that dashboards know.
func TestWhatTheAPISaysOfACall(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b := servicetest.NewBackend(t, start(t, nil, nil), "c1")
	if l, err := b.DialWith(b.Basic()); err == nil {
		l.Close()
		t.Fatal("a client that is not registered connects")
	}
	b.Register(t)
	link := b.Dial(t)
	if link.Hello.ClientID != "c1" || !regexp.MustCompile(`^[a-z0-9]{26}$`).MatchString(link.Hello.ConnID) {
		t.Errorf("hello = %+v", link.Hello)
	}
	if status, _ := b.Get(t, "/calls/call/sessions"); status != http.StatusNotFound {
		t.Errorf("a call that is not there gives %d", status)
	}

	ada := b.Person(ctx, t, "call", "ada", rtctest.EndpointConfig{})
	bob := b.Person(ctx, t, "call", "bob", rtctest.EndpointConfig{ChannelSignalling: true})
	speakers := []*servicetest.Speaker{servicetest.Speak(t, "ada", ada), servicetest.Speak(t, "bob", bob)}
	awaitHears(ctx, t, "ada", ada, 50, "bob")
	awaitHears(ctx, t, "bob", bob, 50, "ada")

	status, text := b.Get(t, "/calls/call/sessions")
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil || status != http.StatusOK || len(list) != 2 {
		t.Errorf("list of sessions: %d %s (%v)", status, text, err)
	}
	const one = `{"GroupID":"c1","CallID":"call","UserID":"user-bob","SessionID":"bob",` +
		`"Props":{"av1Support":null,"channelID":null,"dcSignaling":true}}` + "\n"
	if status, text := b.Get(t, "/calls/call/sessions/bob"); status != http.StatusOK || text != one {
		t.Errorf("one session: %d %s", status, text)
	}
	if status, text := b.Get(t, "/calls/call/sessions/eve"); status != http.StatusNotFound {
		t.Errorf("a session that is not there: %d %s", status, text)
	}

	_, exposition := b.Do(t, http.MethodGet, "/metrics", "", "")
	captured, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	if lacking := missing(seriesOf(string(captured)), seriesOf(exposition)); lacking != nil {
		t.Errorf("series that dashboards know are missing:\n%s", strings.Join(lacking, "\n"))
	}
	if lacking := missing(typesOf(string(captured)), typesOf(exposition)); lacking != nil {
		t.Errorf("types differ:\n%s", strings.Join(lacking, "\n"))
	}
	for _, line := range []string{
		`rtcd_rtc_sessions_total{groupID="c1"} 2`, `rtcd_ws_connections_total{clientID="c1"} 1`,
		`rtcd_ws_messages_total{clientID="c1",direction="in",type="join"} 2`,
	} {
		if !strings.Contains(exposition, "\n"+line+"\n") {
			t.Errorf("metrics lack %q", line)
		}
	}

	for _, s := range speakers {
		s.Stop(t)
	}
	servicetest.Unbroken(t, ada, "bob")
	servicetest.Unbroken(t, bob, "ada")
	b.Send(wire.AppendLeave(nil, "ada"))
	b.Send(wire.AppendLeave(nil, "bob"))
	await(ctx, t, b, "closes", func() bool {
		return slices.Contains(b.News("ada"), "close") && slices.Contains(b.News("bob"), "close")
	})
	if status, _ := b.Get(t, "/calls/call/sessions"); status != http.StatusNotFound {
		t.Errorf("a call that is over gives %d", status)
	}
	live := regexp.MustCompile(`(?m)^rtcd_rtc_(sessions|rtp_tracks)_total\{[^}]*groupID="c1"[^}]*\} [^0]`)
	eventually(ctx, t, "no gauge counts the call any more", func() bool {
		_, text := b.Do(t, http.MethodGet, "/metrics", "", "")
		return !live.MatchString(text)
	})
	for name, e := range map[string]*rtctest.Endpoint{"ada": ada, "bob": bob} {
		if err := e.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The bearer token of a login opens a WebSocket and lists sessions; the next login ends it.
func TestBearerLogin(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 40*time.Second)
	b := servicetest.NewBackend(t, start(t, nil, nil), "with:colon")
	b.Register(t)
	token := login(t, b)
	l, err := b.DialWith(token)
	if err != nil {
		t.Fatalf("connect with a token: %v", err)
	}
	defer l.Close()
	if l.Hello.ClientID != b.ID {
		t.Errorf("hello names %q", l.Hello.ClientID)
	}
	l.Send(wire.AppendJoin(nil, wire.Join{CallID: "a/b c", UserID: "u", SessionID: "s"}))
	eventually(ctx, t, "session is listed", func() bool {
		status, _ := b.Do(t, http.MethodGet, "/calls/a%2Fb%20c/sessions/s", token, "")
		return status == http.StatusOK
	})
	second := login(t, b)
	if status, _ := b.Do(t, http.MethodGet, "/calls/x/sessions", token, ""); status != http.StatusUnauthorized {
		t.Errorf("a token that was replaced gives %d", status)
	}
	if status, _ := b.Do(t, http.MethodGet, "/calls/x/sessions", second, ""); status != http.StatusNotFound {
		t.Errorf("the new token gives %d", status)
	}
	admin := servicetest.NewBackend(t, b.Addr, "")
	admin.Key = adminKey
	for _, wrong := range []string{"", "Bearer ", "Bearer " + strings.Repeat("x", 32), "Basic Og==", admin.Basic()} {
		if l, err := b.DialWith(wrong); err == nil {
			l.Close()
			t.Errorf("%q opens a WebSocket", wrong)
		} else if !strings.Contains(err.Error(), "status 401") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// login returns an Authorization header with a new token.
func login(t *testing.T, b *servicetest.Backend) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"clientID": b.ID, "authKey": b.Key})
	if err != nil {
		t.Fatal(err)
	}
	status, text := b.Do(t, http.MethodPost, "/login", "", string(body))
	var answer struct{ BearerToken string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || len(answer.BearerToken) != 32 {
		t.Fatalf("login: %d %s (%v)", status, text, err)
	}
	return "Bearer " + answer.BearerToken
}
