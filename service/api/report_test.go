package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rtcd/service/api"
)

// fakeReports has a report on each call named a, of c1.
type fakeReports struct{}

func (fakeReports) Report(_ context.Context, client, call string, started int64, f api.ReportFormat) ([]byte, error) {
	if client != "c1" || call != "a" || started > 0 && started != 1_767_323_045_678 {
		return nil, api.ErrNoReport
	}
	return []byte(`"` + string(f) + `"`), nil
}

// What a report is asked for with, and what comes.
func TestReportFormats(t *testing.T) {
	server := httptest.NewServer(api.New(api.Config{}, api.Deps{
		Auth: &fakeAuth{keys: map[string]string{"c1": key1, "c2": key2}}, Calls: fakeCalls{}, WebSockets: &fakeSockets{},
		Reports: fakeReports{}, Log: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(server.Close)
	for _, c := range []struct {
		client, key, path, accept string
		status                    int
		body                      string
	}{
		{"c1", key1, "/calls/a/report", "", 200, `"json"`},
		{"c1", key1, "/calls/a/report", "*/*", 200, `"json"`},
		{"c1", key1, "/calls/a/report", "text/html,application/xhtml+xml,*/*;q=0.8", 200, `"html"`},
		{"c1", key1, "/calls/a/report", "application/json, text/html", 200, `"json"`},
		{"c1", key1, "/calls/a/report?format=html", "", 200, `"html"`},
		{"c1", key1, "/calls/a/report?format=json", "text/html", 200, `"json"`},
		{"c1", key1, "/calls/a/report?started=2026-01-02T03:04:05.678Z", "", 200, `"json"`},
		{"c1", key1, "/calls/a/report?started=2026-01-02T03:04:05Z", "", 404, `not_found`},
		{"c1", key1, "/calls/a/report?started=yesterday", "", 400, `out_of_range`},
		{"c1", key1, "/calls/a/report?format=pdf", "", 400, `out_of_range`},
		{"c1", key1, "/calls/a/report?page=2", "", 400, `unknown_field`},
		{"c1", key1, "/calls/b/report", "", 404, `not_found`},
		{"c2", key2, "/calls/a/report", "", 404, `not_found`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(c.client, c.key)
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.body) {
			t.Errorf("%s as %s, accepting %q: %d %s, want %d %s", c.path, c.client, c.accept, resp.StatusCode, body, c.status, c.body)
		}
		if c.status == 200 {
			policy := resp.Header.Get("Content-Security-Policy")
			if resp.Header.Get("Cache-Control") != "no-store" || (c.body == `"html"`) != strings.Contains(policy, "default-src 'none'") {
				t.Errorf("%s: headers %v", c.path, resp.Header)
			}
		}
	}
}
