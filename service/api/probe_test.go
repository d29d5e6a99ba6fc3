package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rtcd/service/api"
	"rtcd/service/audit"
)

// Probes.

func (w *world) Invite(clientID string, epoch uint64) (api.ProbeToken, error) {
	return api.ProbeToken{Token: "rtcdpt_id_secret", ID: "id", ExpiresAt: now}, w.note("invite %s %d", clientID, epoch)
}

func (w *world) Origin(host string) string { return "http://" + host + ":8045" }

func (w *world) Offer(_ context.Context, from netip.Addr, token, transport, sdp string) (string, error) {
	if token != "t" {
		return "", api.Refuse(401, "probe_token", errors.New("not valid"))
	}
	return "answer to " + sdp, w.note("probe %s %s", from, transport)
}

func (w *world) Report(_ netip.Addr, token string, r api.ProbeReport) error {
	if token != "t" {
		return api.Refuse(401, "probe_token", errors.New("not valid"))
	}
	return w.note("report %+v", r)
}

func (w *world) Results() []api.ProbeResult { return nil }

// TestProbeLink: the link has the token in the fragment and nowhere else, and leads to where the request was
// sent to, or to where it says.
func TestProbeLink(t *testing.T) {
	w := newWorld(t, setup{cfg: adm})
	for _, c := range []struct {
		path, body, link string
		who              *creds
		headers          []string
	}{
		{"/probes", "", "http://example.com/probe#rtcdpt_id_secret", c1, nil},
		{"/probes", `{"origin":"https://rtcd.example.org"}`, "https://rtcd.example.org/probe#rtcdpt_id_secret", c1, nil},
		{"/probes", `{"origin":"https://rtcd.example.org:8443/"}`, "https://rtcd.example.org:8443/probe#rtcdpt_id_secret", c1, nil},
		{"/probes", "", "http://example.com/probe#rtcdpt_id_secret", c1, []string{"X-Forwarded-Proto", "https"}}, // of nobody we trust
		{"/admin/probes", "", "http://localhost:8045/probe#rtcdpt_id_secret", admin, nil},
		{"/admin/probes", `{"origin":"http://[2001:db8::1]:8045"}`, "http://[2001:db8::1]:8045/probe#rtcdpt_id_secret", admin, nil},
	} {
		rec := w.ask("POST", c.path, c.body, c.who, c.headers...)
		var answer struct{ Link, ProbeID, ExpiresAt string }
		if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || rec.Code != 201 || answer.Link != c.link || answer.ProbeID != "id" ||
			answer.ExpiresAt != "2026-11-24T12:00:00Z" || rec.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %d %s", c.path, c.body, rec.Code, rec.Body)
		}
		if e := w.events[len(w.events)-1]; e.Object != (audit.Object{Kind: "probe", ID: "id"}) || strings.Contains(fmt.Sprint(e), "secret") {
			t.Errorf("event %+v", e)
		}
	}
	if want := []string{"invite c1 1", "invite  0"}; !slices.Contains(w.did, want[0]) || !slices.Contains(w.did, want[1]) {
		t.Errorf("did %q", w.did)
	}
	for _, origin := range []string{"", "rtcd.example.org", "ftp://a", "http://a/b", "http://a?b", "http://a#b", "http://u:p@a", "javascript:alert(1)", "http://", "http:///x", "https://" + strings.Repeat("a", 300)} {
		if rec := w.ask("POST", "/probes", fmt.Sprintf(`{"origin":%q}`, origin), c1); rec.Code != 400 || reason(t, rec) != "out_of_range" {
			t.Errorf("origin %q: %d %s", origin, rec.Code, rec.Body)
		}
	}
}

// TestProbePage: the page is one file that can do nothing but run its own script and speak to this server.
func TestProbePage(t *testing.T) {
	w := newWorld(t, setup{cfg: adm})
	rec := w.ask("GET", "/probe", "", nil)
	page, h := rec.Body.String(), rec.Header()
	for _, bad := range []string{"src=", "href=", "onclick", "style=", "innerHTML", "eval(", "http:", "https:"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if strings.Count(page, "<script>") != 1 || strings.Count(page, "<style>") != 1 || h.Get("Content-Type") != "text/html; charset=utf-8" ||
		h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", h)
	}
	csp := h.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
}

// TestProbeInput: what a page says is bounded before anything is made of it, and a token that is not good is
// refused without a challenge, which would make a browser ask for a password.
func TestProbeInput(t *testing.T) {
	w := newWorld(t, setup{cfg: adm})
	for body, why := range map[string]string{
		`{}`:                            "missing_field",
		`{"token":"t","sdp":"v=0"}`:     "missing_field",
		`{"token":"t","transport":"x"}`: "out_of_range",
		`{"token":"","transport":"udp","sdp":"v=0"}`:                                "out_of_range",
		`{"token":"t","transport":"udp","sdp":""}`:                                  "out_of_range",
		`{"token":"t","transport":"udp","sdp":["v"]}`:                               "wrong_type",
		`{"token":"t","transport":"udp","sdp":"v","callID":"a"}`:                    "unknown_field",
		`{"token":"t","transport":"udp","sdp":"` + strings.Repeat("x", 3073) + `"}`: "out_of_range",
		`{"token":"` + strings.Repeat("t", 129) + `","transport":"udp","sdp":"v"}`:  "out_of_range",
	} {
		if rec := w.ask("POST", "/probe", body, nil); rec.Code != 400 || reason(t, rec) != why {
			t.Errorf("%.60s: %d %s", body, rec.Code, rec.Body)
		}
	}
	for body, why := range map[string]string{
		`{"token":"t","udp":true}`:                                 "missing_field",
		`{"token":"t","udp":1,"tcp":true}`:                         "wrong_type",
		`{"token":"t","udp":true,"tcp":true,"udpLossPercent":101}`: "out_of_range",
		`{"token":"t","udp":true,"tcp":true,"tcpRTTMs":-1}`:        "out_of_range",
	} {
		if rec := w.ask("POST", "/probe/result", body, nil); rec.Code != 400 || reason(t, rec) != why {
			t.Errorf("%.60s: %d %s", body, rec.Code, rec.Body)
		}
	}
	if rec := w.ask("POST", "/probe", `{"token":"t","transport":"udp","sdp":"`+strings.Repeat("x", 4200)+`"}`, nil); rec.Code != 413 {
		t.Errorf("a large body: %d", rec.Code)
	}
	if len(w.did) > 0 {
		t.Errorf("did %q", w.did)
	}
	for path, body := range map[string]string{"/probe": `{"token":"x","transport":"udp","sdp":"v"}`, "/probe/result": `{"token":"x","udp":true,"tcp":true}`} {
		if rec := w.ask("POST", path, body, nil); rec.Code != 401 || reason(t, rec) != "probe_token" || rec.Header().Get("WWW-Authenticate") != "" {
			t.Errorf("%s with a wrong token: %d %v", path, rec.Code, rec.Header())
		}
	}
	rec := w.ask("POST", "/probe/result", `{"token":"t","udp":true,"udpSetupMs":120,"udpRTTMs":31,"udpLossPercent":2,"tcp":false}`, nil)
	if want := "report {UDP:{Works:true SetupMs:120 RTTMs:31 LossPercent:2 Seen:} TCP:{Works:false SetupMs:0 RTTMs:0 LossPercent:0 Seen:}}"; rec.Code != 200 || w.did[0] != want {
		t.Errorf("%d, did %q", rec.Code, w.did)
	}
}
