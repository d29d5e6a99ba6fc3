package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rtcd/service/api"
)

// Status makes a world an api.Status.
func (w *world) Status() api.StatusReport { return w.status }

// TestStatusPage: ids of peers change nothing of the page, what is shown is bounded, and nothing is loaded.
func TestStatusPage(t *testing.T) {
	w := newWorld(t, setup{cfg: adm})
	hostile := "<script>alert(1)</script>\r\n\u202e\"'&"
	w.status = api.StatusReport{
		Started: time.Now().Add(-time.Hour), Tenants: []api.TenantStatus{{ClientID: hostile}}, Calls: []api.CallStatus{{ClientID: hostile, CallID: hostile, Poor: 1}},
	}
	for i := range 10_000 {
		q := []string{"good", "fair", "poor", "unknown"}[i%4]
		w.status.Sessions = append(w.status.Sessions, api.SessionStatus{ClientID: "c", CallID: hostile, SessionID: fmt.Sprint("s", i), Quality: q, Path: "udp"})
	}
	begin := time.Now()
	rec := w.ask("GET", "/admin/", "", nil)
	took := time.Since(begin)
	page := rec.Body.String()
	switch {
	case rec.Code != 200 || strings.Contains(page, "<script"):
		t.Errorf("%d %.300s", rec.Code, page)
	case strings.Count(page, "<td class=\"poor\">poor") != 100:
		t.Errorf("%d poor sessions on the first page", strings.Count(page, "<td class=\"poor\">poor"))
	case !strings.HasPrefix(rec.Header().Get("Content-Security-Policy"), "default-src 'none'"):
		t.Errorf("policy %q", rec.Header().Get("Content-Security-Policy"))
	case !strings.Contains(page, `http-equiv="refresh"`) || !strings.Contains(page, "Page 1 of 100"):
		t.Error("it does not refresh, or has no pages")
	}
	t.Logf("%d bytes in %v", len(page), took)
	var v struct {
		Sessions []api.SessionStatus
		Totals   struct{ Sessions int }
	}
	rec = w.ask("GET", "/admin/status?page=26", "", nil)
	if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil || v.Totals.Sessions != 10_000 || len(v.Sessions) != 100 || v.Sessions[0].Quality != "fair" {
		t.Errorf("%v %.200s", err, rec.Body)
	}
	for _, bad := range []string{"0", "-1", "x", "1000001"} {
		if rec := w.ask("GET", "/admin/?page="+bad, "", nil); rec.Code != 400 {
			t.Errorf("page %s: %d", bad, rec.Code)
		}
	}
	if rec := w.ask("GET", "/admin/?page=1000000", "", nil); rec.Code != 200 {
		t.Errorf("behind the end: %d", rec.Code)
	}
	if rec := w.ask("GET", "/admin/nothing", "", nil); rec.Code != 404 {
		t.Errorf("another path: %d", rec.Code)
	}
}
