package service_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/config"
	"rtcd/service/api/wire"
	"rtcd/service/rtc/rtctest"
)

// statusOf is what tests look at of GET /admin/status.
type statusOf struct {
	Totals  struct{ Tenants, Calls, Sessions int }
	Tenants []struct {
		ClientID              string
		Connections, Sessions int
	}
	Sessions []struct {
		SessionID, Quality, Path         string
		UpKbps, DownKbps                 int
		LayersUp, LayersDeclared, Videos int
	}
	Store struct {
		Path    string
		Clients int
		Free    uint64
	}
	Limits []struct {
		Name string
		Hits uint64
	}
}

// The status of a server with calls: who is there, how it goes, which limits were hit, the store.
//
// With RTCD_SCREENSHOT=path it takes pictures of the page by Chromium, light and dark.
func TestStatusShowsWhatGoesOn(t *testing.T) {
	ctx := within(t, 90*time.Second)
	s := start(t, nil, func(c *config.Config) {
		withAdmin(c)
		c.Store.DataSource = filepath.Join(t.TempDir(), "data")
		c.RTC.Limits.SessionsPerCall = 3
	})
	r := connect(t, s.url, "acme")
	connect(t, s.url, "idle")
	all := people(ctx, t, r, "daily stand-up", "anna", "bert", "carl")
	rtctest.Talk(t, all)
	for _, name := range []string{"fritz", "gerd"} { // one and two too many
		if err := r.Conn.Join(client.Join{CallID: "daily stand-up", UserID: name, SessionID: name}); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	two := people(ctx, t, r, "one on one", "dora", "emil")
	rtctest.Talk(t, two)
	if err := r.Conn.SendSignal("dora", client.SignalType(wire.SignalVideoOn), []byte(`{"videoStreamID":"cam"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := two["dora"].PublishCamera(ctx, rtctest.CameraConfig{StreamID: "cam", Mime: "video/VP8", Layers: []rtctest.Layer{
		{RID: "l", Bitrate: 80_000, FPS: 15}, {RID: "h", Bitrate: 300_000, FPS: 15},
	}}); err != nil {
		t.Fatal(err)
	}

	op := s.operator(t)
	var st statusOf
	eventually(ctx, t, "the status shows it all", func() bool {
		st = statusOf{}
		if err := json.Unmarshal([]byte(op.must(200, "GET", "/admin/status", "").body), &st); err != nil {
			t.Fatal(err)
		}
		layers, videos, sound := 0, 0, 0
		for _, ses := range st.Sessions {
			layers = max(layers, ses.LayersUp)
			videos += ses.Videos
			if ses.Path == "udp" && ses.UpKbps > 0 && ses.DownKbps > 0 && ses.Quality == "good" {
				sound++
			}
		}
		return layers == 2 && videos >= 1 && sound == 5
	})
	if st.Totals.Tenants != 2 || st.Totals.Calls != 2 || st.Totals.Sessions != 5 {
		t.Errorf("totals: %+v", st.Totals)
	}
	if len(st.Tenants) != 2 || st.Tenants[0].ClientID != "acme" || st.Tenants[0].Sessions != 5 || st.Tenants[1].ClientID != "idle" || st.Tenants[1].Connections != 1 {
		t.Errorf("tenants: %+v", st.Tenants)
	}
	if st.Store.Clients != 2 || st.Store.Free == 0 || !strings.HasSuffix(st.Store.Path, "data") {
		t.Errorf("store: %+v", st.Store)
	}
	if len(st.Limits) != 1 || st.Limits[0].Name != "sessions_per_call" || st.Limits[0].Hits != 2 {
		t.Errorf("limits: %+v", st.Limits)
	}
	page := op.must(200, "GET", "/admin/", "").body
	for _, part := range []string{"daily stand-up", "sessions_per_call", "2 of 2", "idle", "/report?format=html"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page does not have %q", part)
		}
	}
	if path := os.Getenv("RTCD_SCREENSHOT"); path != "" {
		file := filepath.Join(t.TempDir(), "page.html") // the browser takes the processor from the calls
		if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		for suffix, dark := range map[string]string{"": "0", "-dark": "1"} {
			cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--run-all-compositor-stages-before-draw", "--virtual-time-budget=2000",
				"--window-size=1280,1150", "--blink-settings=preferredColorScheme="+map[string]string{"0": "1", "1": "0"}[dark],
				"--user-data-dir="+t.TempDir(), "--screenshot="+strings.TrimSuffix(path, ".png")+suffix+".png", "file://"+file)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("chromium: %v\n%s", err, out)
			}
		}
	}
}
