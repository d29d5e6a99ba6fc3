package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"rtcd/config"
)

// A visitor is what the probe page does, made of pion.
type visitor struct {
	url, token string
}

// invite asks for a link as a client, or as the operator, and returns the page that it leads to.
func invite(t *testing.T, s *server, id, key string) visitor {
	t.Helper()
	url := s.url + "/probes"
	if id == "" {
		url = s.admin + "/admin/probes"
	}
	status, body := request(t, http.MethodPost, url, id, key, "")
	var answer struct {
		Link      string
		ExpiresAt time.Time
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	origin, token, ok := strings.Cut(answer.Link, "/probe#")
	if left := time.Until(answer.ExpiresAt); !ok || origin != s.url || !strings.HasPrefix(token, "rtcdpt_") || left < 9*time.Minute || left > 10*time.Minute {
		t.Fatalf("link %q for another %v", answer.Link, left)
	}
	return visitor{s.url, token}
}

// try probes over a transport: how the server sees us, or the refusal.
func (p visitor) try(t *testing.T, transport string) (hello string, status int, reason string) {
	t.Helper()
	s := webrtc.SettingEngine{}
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4})
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	dc, err := pc.CreateDataChannel("probe", nil)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	var once sync.Once
	dc.OnMessage(func(m webrtc.DataChannelMessage) { once.Do(func() { heard <- string(m.Data) }) })
	offer, err := pc.CreateOffer(nil)
	if err == nil {
		err = pc.SetLocalDescription(offer)
	}
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"token": p.token, "transport": transport, "sdp": offer.SDP})
	if err != nil {
		t.Fatal(err)
	}
	status, text := request(t, http.MethodPost, p.url+"/probe", "", "", string(body))
	var answer struct{ SDP, Reason string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%d %s", status, text)
	}
	if status != 200 {
		return "", status, answer.Reason
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.SDP}); err != nil {
		t.Fatal(err)
	}
	select {
	case hello = <-heard:
	case <-time.After(15 * time.Second):
		t.Fatalf("%s: no way", transport)
	}
	return hello, status, ""
}

func (p visitor) report(t *testing.T, body string) (int, string) {
	t.Helper()
	return request(t, http.MethodPost, p.url+"/probe/result", "", "", fmt.Sprintf(`{"token":%q,%s}`, p.token, body))
}

// startProbed is a server with an operator's listener whose log is kept.
func startProbed(t *testing.T, change func(*config.Config)) (*server, *records) {
	t.Helper()
	logs := &records{}
	s := start(t, slog.New(logs), func(c *config.Config) {
		c.API.Admin.ListenAddress = "127.0.0.1:0"
		if change != nil {
			change(c)
		}
	})
	for _, l := range s.Listeners() {
		if l.Name == "admin" {
			s.admin = "http://" + l.Address
		}
	}
	return s, logs
}

// records is a log as its messages with their fields.
type records struct {
	mu   sync.Mutex
	list []map[string]string
}

func (*records) Enabled(context.Context, slog.Level) bool { return true }
func (l *records) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *records) WithGroup(string) slog.Handler          { return l }

func (l *records) Handle(_ context.Context, r slog.Record) error {
	m := map[string]string{"msg": r.Message, "level": r.Level.String()}
	r.Attrs(func(a slog.Attr) bool { m[a.Key] = a.Value.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, m)
	return nil
}

func (l *records) with(msg string) []map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]string
	for _, m := range l.list {
		if m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

// TestProbePage: a link lets an end user try UDP and TCP, once each, tells him how he is seen, and what he found is
// told to the operator once. No secret is in the log.
func TestProbePage(t *testing.T) {
	s, logs := startProbed(t, nil)
	newClient(t, s.url, "backend")
	if status, body := request(t, http.MethodPost, s.url+"/register", "", "", `{"clientID":"backend","authKey":"`+key+`"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	for _, c := range []struct{ id, key string }{{"backend", key}, {"", adminKey}} {
		p := invite(t, s, c.id, c.key)
		for _, transport := range []string{"udp", "tcp"} {
			hello, _, _ := p.try(t, transport)
			if !strings.HasPrefix(hello, fmt.Sprintf(`{"transport":%q,"address":"127.0.0.1","port":`, transport)) {
				t.Errorf("hello %q", hello)
			}
			if _, status, reason := p.try(t, transport); status != 401 || reason != "probe_token" {
				t.Errorf("%s a second time: %d %s", transport, status, reason)
			}
		}
		if status, body := p.report(t, `"udp":true,"udpSetupMs":120,"udpRTTMs":31,"udpLossPercent":2,"tcp":false`); status != 200 {
			t.Errorf("report: %d %s", status, body)
		}
		if status, _ := p.report(t, `"udp":false,"tcp":false`); status != 401 {
			t.Errorf("a second report: %d", status)
		}
		lines := logs.with("probe")
		last := lines[len(lines)-1]
		if last["level"] != "INFO" || last["clientID"] != c.id || last["udp"] != "true" || last["udpRTTMs"] != "31" || last["udpLossPercent"] != "2" ||
			last["tcp"] != "false" || last["tcpRTTMs"] != "" || !strings.HasPrefix(last["udpSeen"], "127.0.0.1:") || last["probeID"] == "" {
			t.Errorf("line %v", last)
		}
		for _, m := range logs.list {
			if text := fmt.Sprint(m); strings.Contains(text, strings.SplitN(p.token, "_", 3)[2]) {
				t.Errorf("the token shows: %s", text)
			}
		}
	}
	if n := len(logs.with("probe")); n != 2 {
		t.Errorf("%d lines", n)
	}
	status, body := request(t, http.MethodGet, s.admin+"/admin/probes", "", adminKey, "")
	var list struct {
		Probes []struct {
			ProbeID, ClientID string
			UDP, TCP          struct {
				Works bool
				RTTMs int
				Seen  string
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || len(list.Probes) != 2 {
		t.Fatalf("%d %s", status, body)
	}
	if p := list.Probes[1]; p.ClientID != "backend" || !p.UDP.Works || p.UDP.RTTMs != 31 || p.UDP.Seen == "" || p.TCP.Works || list.Probes[0].ClientID != "" {
		t.Errorf("results %s", body)
	}
}

// TestProbeSaysNoMoreThanItSaw: a page that claims what the server has not seen is not believed.
func TestProbeSaysNoMoreThanItSaw(t *testing.T) {
	s, logs := startProbed(t, nil)
	p := invite(t, s, "", adminKey)
	if status, _ := p.report(t, `"udp":true,"udpSetupMs":1,"tcp":true`); status != 200 {
		t.Fatalf("%d", status)
	}
	if l := logs.with("probe"); len(l) != 1 || l[0]["udp"] != "false" || l[0]["tcp"] != "false" || l[0]["udpSetupMs"] != "" {
		t.Errorf("line %v", l)
	}
}

// TestProbeTokens: what is no token, one that was changed, and one of a client whose key was replaced are refused with
// the same words; a client has 64 open ones and no more, which are not another's.
func TestProbeTokens(t *testing.T) {
	s, _ := startProbed(t, nil)
	for _, id := range []string{"one", "two"} {
		if status, body := request(t, http.MethodPost, s.url+"/register", "", "", fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key)); status != 201 {
			t.Fatalf("%d %s", status, body)
		}
	}
	p := invite(t, s, "one", key)
	other := invite(t, s, "two", key)
	replaced := p
	parts, theirs := strings.Split(p.token, "_"), strings.Split(other.token, "_")
	texts := map[string]bool{}
	refused := func(name, token string) {
		t.Helper()
		bad := visitor{s.url, token}
		status, body := bad.report(t, `"udp":false,"tcp":false`)
		if status != 401 {
			t.Errorf("%s: %d", name, status)
		}
		texts[body] = true
	}
	refused("nonsense", "x")
	refused("no secret", "rtcdpt_"+parts[1]+"_")
	refused("another's secret", "rtcdpt_"+parts[1]+"_"+strings.Join(theirs[2:], "_"))
	refused("another kind", strings.Replace(p.token, "rtcdpt_", "rtcdjt_", 1))
	refused("more", p.token+"x")
	if status, body := request(t, http.MethodPut, s.url+"/clients/self/key", "one", key, `{"authKey":"`+key+`-new"}`); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	refused("key replaced", replaced.token)
	if status, _ := request(t, http.MethodPost, s.url+"/unregister", "", adminKey, `{"clientID":"two"}`); status != 200 {
		t.Fatalf("%d", status)
	}
	refused("client removed", other.token)
	if len(texts) != 1 {
		t.Errorf("answers differ: %v", texts)
	}

	s, _ = startProbed(t, nil)
	for range 64 {
		invite(t, s, "", adminKey)
	}
	if status, body := request(t, http.MethodPost, s.admin+"/admin/probes", "", adminKey, ""); status != 429 || !strings.Contains(body, "rate_limited") {
		t.Errorf("link 65: %d %s", status, body)
	}
	if status, body := request(t, http.MethodPost, s.url+"/register", "", "", `{"clientID":"one","authKey":"`+key+`"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	invite(t, s, "one", key) // who has all of his
	refusals := 0
	for range 40 {
		if status, _ := (visitor{s.url, "x"}).report(t, `"udp":false,"tcp":false`); status == 429 {
			refusals++
		}
	}
	if refusals < 10 {
		t.Errorf("%d of 40 requests at once were refused", refusals)
	}
}
