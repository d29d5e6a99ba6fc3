package service_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rtcd/config"
	"rtcd/service/report"
	"rtcd/service/rtc/rtctest"
)

// reported returns the report on a call, nil if there is none.
func reported(t *testing.T, url, id, call, query string) *report.Document {
	t.Helper()
	status, body := request(t, http.MethodGet, url+"/calls/"+call+"/report"+query, id, key, "")
	if status == http.StatusNotFound {
		return nil
	}
	d := new(report.Document)
	if err := json.Unmarshal([]byte(body), d); status != http.StatusOK || err != nil {
		t.Fatalf("report on %s of %s: %d %.200s, %v", call, id, status, body, err)
	}
	return d
}

// reportedAs polls for a report that has no event. It is less often than reports may be asked for.
func reportedAs(t *testing.T, url, id, call, query string, ok func(*report.Document) bool) *report.Document {
	t.Helper()
	ctx := within(t, 20*time.Second)
	tick := time.NewTicker(600 * time.Millisecond)
	defer tick.Stop()
	for {
		d := reported(t, url, id, call, query)
		if ok(d) {
			return d
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the report on %s stays %+v", call, d)
		}
	}
}

// TestReportOfWholeServer shows that a backend and an operator get a report on a call while it goes on and
// after it, over a restart too if reports are written, and that one of a removed client is nobody's.
func TestReportOfWholeServer(t *testing.T) {
	ctx := within(t, 60*time.Second)
	dir := filepath.Join(t.TempDir(), "reports")
	port := rtctest.FreePort(t)
	change := func(c *config.Config) {
		c.API.Admin.ListenAddress = fmt.Sprintf("127.0.0.1:%d", port)
		c.Report.Dir = dir
	}
	s := start(t, nil, change)
	a := connect(t, s.url, "a")
	connect(t, s.url, "b")
	all := people(ctx, t, a, "call", "s0", "s1")
	stop := rtctest.Talk(t, all)
	more(ctx, t, all["s1"], "s0", 5)
	during := reportedAs(t, s.url, "a", "call", "", func(d *report.Document) bool {
		return d != nil && len(d.Sessions) == 2 && len(d.Sessions[0].Points) >= 2 && len(d.Sessions[1].Points) >= 2
	})
	kinds := func(d *report.Document, session string) (out []string) {
		for _, one := range d.Sessions {
			for _, e := range one.Events {
				if one.SessionID == session {
					out = append(out, e.Kind.String())
				}
			}
		}
		return out
	}
	if got := strings.Join(kinds(during, "s0"), ", "); during.EndedAt != "" || during.Sessions[0].LeftAt != "" ||
		!strings.HasPrefix(got, "joined, connected") || !strings.Contains(got, "stream started") {
		t.Errorf("during the call: ended %q, %+v", during.EndedAt, got)
	}
	if reported(t, s.url, "b", "call", "") != nil {
		t.Error("another client has a report on it")
	}
	admin := fmt.Sprintf("http://127.0.0.1:%d/admin/calls/a/call/report", port)
	if status, body := request(t, http.MethodGet, admin+"?format=html", "", "", ""); status != http.StatusUnauthorized {
		t.Errorf("operator without key: %d %.80s", status, body)
	}
	if status, body := request(t, http.MethodGet, admin+"?format=html", "", adminKey, ""); status != http.StatusOK || !strings.Contains(body, "<svg") {
		t.Errorf("operator: %d %.200s", status, body)
	}

	stop()
	leave(ctx, t, a, "s0", "s1")
	ended := func(d *report.Document) bool { return d != nil && d.EndedAt != "" }
	after := reportedAs(t, s.url, "a", "call", "", ended)
	if got := kinds(after, "s1"); after.StartedAt != during.StartedAt || len(after.Sessions) != 2 || after.Sessions[1].LeftAt == "" ||
		got[len(got)-1] != "left" {
		t.Errorf("after the call: %s, %v", after.StartedAt, got)
	}

	people(ctx, t, a, "call", "s2")
	again := reportedAs(t, s.url, "a", "call", "", func(d *report.Document) bool { return d != nil && d.EndedAt == "" })
	first := "?started=" + during.StartedAt
	if d := reported(t, s.url, "a", "call", first); again.StartedAt == during.StartedAt || d == nil || d.EndedAt != after.EndedAt {
		t.Errorf("the first of two calls: %+v", d)
	}
	leave(ctx, t, a, "s2")
	reportedAs(t, s.url, "a", "call", "", ended)

	often := 0
	for range 100 {
		status, body := request(t, http.MethodGet, s.url+"/calls/none/report", "b", key, "")
		if status == http.StatusTooManyRequests && strings.Contains(body, `"reason":"rate_limited"`) {
			often++
		}
	}
	if often == 0 {
		t.Error("reports are made without end")
	}

	s.stop()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	s.done <- nil
	s = start(t, nil, change)
	connect(t, s.url, "a")
	if d := reported(t, s.url, "a", "call", first); d == nil || d.EndedAt != after.EndedAt || len(d.Sessions) != 2 {
		t.Errorf("the first call after a restart: %+v", d)
	}
	if d := reported(t, s.url, "a", "call", ""); d == nil || d.StartedAt != again.StartedAt {
		t.Errorf("the second call after a restart: %+v", d)
	}
	if status, body := request(t, http.MethodPost, s.url+"/unregister", "", adminKey, `{"clientID":"a"}`); status != http.StatusOK {
		t.Fatalf("unregister: %d %s", status, body)
	}
	if err := newClient(t, s.url, "a").Register(ctx); err != nil {
		t.Fatal(err)
	}
	if d := reported(t, s.url, "a", "call", ""); d != nil {
		t.Errorf("whoever has the id next has a report on %s", d.StartedAt)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
