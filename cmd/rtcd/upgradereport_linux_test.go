package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rtcd/service/report"
	"rtcd/service/rtc/rtctest"
)

// reportOn polls for a report until ok holds of it.
func (c *child) reportOn(ctx context.Context, t *testing.T, call string, ok func(*report.Document) bool) *report.Document {
	t.Helper()
	tick := time.NewTicker(600 * time.Millisecond) // reports may be asked for twice a second
	defer tick.Stop()
	for {
		status, body := c.get(t, "http://c1:"+key+"@"+c.url()[len("http://"):]+"/calls/"+call+"/report")
		d := new(report.Document)
		if status == 200 {
			if err := json.Unmarshal([]byte(body), d); err != nil {
				t.Fatal(err)
			}
			if ok(d) {
				return d
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("report on %s: %d %.300s\n%s", call, status, body, c.out)
		}
	}
}

// Reports on calls that stay with former processes are there in front: during those calls, when they are
// over, and when the processes are gone; and so are those on calls that were over before.
func TestReportsOutliveUpgrades(t *testing.T) {
	ctx := within(t, 120*time.Second)
	c, dir, environ, r, f := upgradable(ctx, t)
	leave := func(session string) {
		t.Helper()
		if err := r.Conn.Leave(session); err != nil {
			t.Fatal(err)
		}
		if err := r.AwaitClosed(ctx, session); err != nil {
			t.Fatalf("%s: %v", session, err)
		}
	}
	guest := r.Join(t, "early", "guest", rtctest.EndpointConfig{})
	if err := guest.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	leave("guest")
	ended := func(d *report.Document) bool { return d.EndedAt != "" }
	early := c.reportOn(ctx, t, "early", ended)
	long := func(d *report.Document) bool { return len(d.Sessions) == 2 && len(d.Sessions[0].Points) >= 2 }
	began := c.reportOn(ctx, t, "call0", long)

	environ = append(environ, "RTCD_REPORT_DIR="+filepath.Join(dir, "reports"))
	second := c.upgrade(t, dir, environ...)
	reconnected(ctx, t, r, 0)
	third := second.upgrade(t, dir, environ...) // which has no calls, and ends
	reconnected(ctx, t, r, 1)
	if code := second.exit(t, 20*time.Second); code != 0 {
		t.Errorf("exit status %d\n%s", code, second.out)
	}
	more(ctx, t, f.to, f.name, 100)
	during := third.reportOn(ctx, t, "call0", func(d *report.Document) bool {
		return long(d) && len(d.Sessions[0].Points) > len(began.Sessions[0].Points)
	})
	if during.StartedAt != began.StartedAt || during.EndedAt != "" {
		t.Errorf("during the call: started %s, want %s; ended %q", during.StartedAt, began.StartedAt, during.EndedAt)
	}
	if d := third.reportOn(ctx, t, "early", ended); d.EndedAt != early.EndedAt {
		t.Errorf("the call that was over ended at %s, want %s", d.EndedAt, early.EndedAt)
	}

	leave("call0-a")
	leave("call0-b")
	if code := c.exit(t, 20*time.Second); code != 0 {
		t.Errorf("exit status %d\n%s", code, c.out)
	}
	after := third.reportOn(ctx, t, "call0", ended)
	if after.StartedAt != began.StartedAt || len(after.Sessions) != 2 || after.Sessions[0].LeftAt == "" ||
		len(after.Sessions[0].Points) < len(during.Sessions[0].Points) {
		t.Errorf("after the call: %+v", after)
	}
	files, err := filepath.Glob(filepath.Join(dir, "reports", "*", "*.json"))
	for end := time.Now().Add(10 * time.Second); len(files) < 2 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		files, err = filepath.Glob(filepath.Join(dir, "reports", "*", "*.json"))
	}
	if err != nil || len(files) != 2 { // the process that had the calls wrote none
		entries, _ := os.ReadDir(dir)
		t.Errorf("files %v of %v: %v", files, entries, err)
	}
}
