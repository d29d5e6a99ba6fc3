package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWebhooks shows TK-25: what a webhook may be, that its secrets come from files as well, sign
// together while they are changed, and show nowhere.
func TestWebhooks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte(strong+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := strings.ToUpper(strong)
	text := fmt.Sprintf(`
events.dir = %q
[[webhook]]
name = "crm"
client = "a"
url = "https://app.example.com/rtcd?key=canary"
secret_file = %q
old_secret = %q
events = ["call.started", "call.ended"]
[[webhook]]
client = "b"
url = "http://10.0.0.1/"
secret = %q
allow_private = true
`, filepath.Join(dir, "events"), path, old, strong)
	c := mustLoad(t, text)
	if got := c.Webhooks[0]; !slices.Equal(got.Secrets(), []string{strong, old}) || !slices.Equal(got.Events, []string{"call.started", "call.ended"}) ||
		got.AllowPrivate || !c.Webhooks[1].AllowPrivate {
		t.Errorf("loaded %+v", c.Webhooks)
	}
	encoded, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again := mustLoad(t, string(encoded)); !slices.Equal(again.Webhooks[0].Secrets(), c.Webhooks[0].Secrets()) {
		t.Errorf("does not load again:\n%s", encoded)
	}
	shown, err := c.Redacted().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{string(shown), fmt.Sprintf("%v %+v %#v", c, c, c)} {
		if strings.Contains(out, strong) || strings.Contains(out, old) {
			t.Error("a secret shows")
		}
	}
	if c.Webhooks[0].OldSecret.Reveal() != old {
		t.Error("Redacted changed the original")
	}
}

func TestBadWebhooks(t *testing.T) {
	hook := func(more string) string {
		return "webhook = [{client = 'a', secret = '" + strong + "', " + more + "}]"
	}
	for _, c := range []struct{ text, key, rule string }{
		{hook("url = 'ftp://a/'"), "webhook[0].url", "must be a URL"},
		{hook("url = 'https:///x'"), "webhook[0].url", "must be a URL"},
		{hook("url = '%zz'"), "webhook[0].url", "must be a URL"},
		{hook("url = 'http://a.example/'"), "webhook[0].url", "must be https"},
		{hook("url = 'https://u:canary@a.example/'"), "webhook[0].url", "neither credentials"},
		{hook("url = 'https://a.example/#x'"), "webhook[0].url", "nor a fragment"},
		{hook("url = 'https://a.example/', name = 'A b'"), "webhook[0].name", "must be 1 to 32"},
		{hook("url = 'https://a.example/', events = ['X']"), "webhook[0].events", "types of events"},
		{hook("url = 'https://a.example/', events = ['call.ended', 'call.ended']"), "webhook[0].events", "each once"},
		{hook("url = 'https://a.example/', events = 'call.ended'"), "webhook[0].events", "must be a list of strings"},
		{hook("url = 'https://a.example/', events = [1]"), "webhook[0].events", "must be a list of strings"},
		{hook("url = 'https://a.example/', allow_private = 'yes'"), "webhook[0].allow_private", "true or false"},
		{hook("url = 'https://a.example/', secret_file = '/none'"), "webhook[0].secret_file", "must not be set together"},
		{"webhook = [{client = 'a', url = 'https://a.example/'}]", "webhook[0].secret", "must be set"},
		{"webhook = [{url = 'https://a.example/', secret = '" + strong + "'}]", "webhook[0].client", "id of a backend"},
		{"webhook = [" + strings.Repeat("{client = 'a', url = 'https://a.example/', secret = '"+strong+"'},", 2) + "]", "webhook[1]", "there twice"},
		{"events.keep_mib = 0", "events.keep_mib", "must be from 1"},
		{"events.total_mib = 0", "events.total_mib", "must be from 1"},
		{"events.memory_mib = 0", "events.memory_mib", "must be from 1"},
		{"events.keep_for = '1s'", "events.keep_for", "must be from 1m0s"},
	} {
		_, report := load([]byte(c.text), file, nil)
		if len(report.Faults) != 1 || report.Faults[0].Key != c.key || !strings.Contains(report.Faults[0].Rule, c.rule) {
			t.Errorf("%s: %s", c.text, report)
		}
		if s := report.String(); strings.Contains(s, strong) || strings.Contains(s, "canary") {
			t.Errorf("%s: a secret shows: %s", c.text, s)
		}
	}
	judge(t, "events.dir = 'events'\nwebhook = [{client = 'a', url = 'https://a.example/', secret = 'short'}]", "webhook[0].secret = [redacted]")
}
