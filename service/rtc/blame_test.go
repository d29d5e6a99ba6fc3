package rtc_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/report"
	"rtcd/service/rtc"
	"rtcd/service/rtc/rtctest"
)

// fault is what is done to one direction of somebody's link, and what the report is to call it.
type fault struct {
	kind report.Kind // "": nothing is done
	leg  report.Leg
	does rtctest.Impairment
}

func (f fault) String() string {
	if f.kind == "" {
		return "none"
	}
	return string(f.kind) + " " + string(f.leg)
}

// faults of each leg. What is called a delay has jitter, too: no path is as steady as a clock.
func faults() []fault {
	out := []fault{{}}
	for _, leg := range []report.Leg{report.Uplink, report.Downlink} {
		out = append(out,
			fault{report.Loss, leg, rtctest.Impairment{Loss: 0.08}},
			fault{report.Delay, leg, rtctest.Impairment{Delay: 200 * time.Millisecond, Jitter: 10 * time.Millisecond}},
			fault{report.Rate, leg, rtctest.Impairment{Rate: 300_000}},
		)
	}
	return out
}

// blamed are cameras whose best layers do not fit into the narrow link.
var blamed = []rtctest.Layer{
	{RID: "l", Bitrate: 80_000, FPS: 10},
	{RID: "m", Bitrate: 250_000, FPS: 15},
	{RID: "h", Bitrate: 600_000, FPS: 20},
}

const (
	faultAfter = 20 * time.Second
	faultFor   = 20 * time.Second
	faultCalm  = 10 * time.Second
)

// blame has three people talk and see each other, impairs the link of one, and returns the call.
func blame(t *testing.T, f fault, who int) *report.Call {
	ctx := deadline(t, 5*time.Minute)
	n := rtctest.NewNetwork(t)
	serve := n.Serve(t)
	b := rtctest.NewBackend(t, func(c *rtc.Config) {
		serve(c)
		c.CallRecord = func(string, *report.Record) {}
	})
	var guests []*rtctest.Endpoint
	var links []*rtctest.Link
	for i := range 3 {
		host, _, link := n.ImpairedHost(t)
		e := b.Join(t, "g", "call", fmt.Sprintf("s%d", i), rtctest.EndpointConfig{Net: host})
		if err := e.Connect(ctx); err != nil {
			t.Fatal(err)
		}
		guests, links = append(guests, e), append(links, link)
	}
	t.Cleanup(func() {
		for _, l := range links {
			l.Set(rtctest.Impairment{Loss: 1}) // see conversation.part
		}
	})
	for i, e := range guests {
		name := fmt.Sprintf("s%d", i)
		if err := e.Publish(ctx, "voice_"+name); err != nil {
			t.Fatal(err)
		}
		talk50(t, e, name)
		if _, err := e.PublishCamera(ctx, rtctest.CameraConfig{StreamID: "cam_" + name, Mime: "video/VP8", Layers: blamed}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range guests { // when all have a section to send their own on
		name := fmt.Sprintf("s%d", i)
		signal(t, b, name, wire.SignalVideoOn, fmt.Sprintf(`{"videoStreamID":"cam_%s"}`, name))
	}
	wait(ctx, t, faultAfter)
	switch f.leg {
	case report.Uplink:
		links[who].Up.Set(f.does)
	case report.Downlink:
		links[who].Down.Set(f.does)
	}
	wait(ctx, t, faultFor)
	links[who].Set(rtctest.Impairment{})
	wait(ctx, t, faultCalm)
	r, ok := b.Server.Record("g", "call")
	if !ok {
		t.Fatal("no record")
	}
	return r.Open(time.Now().UnixMilli())
}

// verdictOf is what the report says went wrong first of all, and all that it says.
func verdictOf(c *report.Call, who int) (verdict string, all []string, innocent bool) {
	findings := report.Analyse(c)
	innocent = true
	name := fmt.Sprintf("s%d", who)
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s %s %s %d-%d %.2f %.1f %+v", f.Session, f.Kind, f.Leg,
			f.From-c.Started/1000, f.To-c.Started/1000, f.Confidence, f.Weight, f.Evidence))
		innocent = innocent && f.Session == name
	}
	if len(findings) == 0 {
		return "none", nil, true
	}
	return string(findings[0].Kind) + " " + string(findings[0].Leg), all, innocent
}

// TestReportNamesTheLeg: of three people the link of one is made worse, one way, and the report names what,
// which way and whose, and blames nobody else. RTCD_BLAME is how many runs of each fault there are.
func TestReportNamesTheLeg(t *testing.T) {
	runs, _ := strconv.Atoi(os.Getenv("RTCD_BLAME"))
	full := runs > 0
	runs = max(runs, 1)
	var mu sync.Mutex
	table := make(map[string]map[string]int)
	right, wrong := 0, 0
	t.Run("fault", func(t *testing.T) {
		for i, f := range faults() {
			if !full && !slices.Contains([]int{0, 1, 5, 6}, i) { // by default one of each kind, and none
				continue
			}
			for run := range runs {
				t.Run(fmt.Sprintf("%v/%d", f, run), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						who := run % 3
						c := blame(t, f, who)
						show(t, c, f)
						got, all, innocent := verdictOf(c, who)
						mu.Lock()
						defer mu.Unlock()
						if !innocent {
							got += ", and others"
						}
						if table[f.String()] == nil {
							table[f.String()] = make(map[string]int)
						}
						table[f.String()][got]++
						if got == f.String() {
							right++
							return
						}
						wrong++
						t.Logf("s%d: %s is called %s\n%s", who, f, got, strings.Join(all, "\n"))
						if !full {
							t.Errorf("s%d: %s is called %s", who, f, got)
						}
					})
				})
			}
		}
	})
	t.Log("\n" + confusion(table))
	if float64(right) < 0.95*float64(right+wrong) {
		t.Errorf("right in %d of %d runs", right, right+wrong)
	}
}

// confusion is what was said of what, as a table.
func confusion(table map[string]map[string]int) string {
	var b strings.Builder
	for _, f := range faults() {
		fmt.Fprintf(&b, "%-16s", f)
		var said []string
		for s := range table[f.String()] {
			said = append(said, s)
		}
		slices.Sort(said)
		for _, s := range said {
			fmt.Fprintf(&b, " | %s: %d", s, table[f.String()][s])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// wait lets time pass.
func wait(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}

// show writes the page of a call to the folder that RTCD_REPORT_PAGES names.
func show(t *testing.T, c *report.Call, f fault) {
	t.Helper()
	dir := os.Getenv("RTCD_REPORT_PAGES")
	if dir == "" {
		return
	}
	for i := range c.Sessions {
		c.Sessions[i].User = []string{"Ann", "Bob", "Cem"}[i%3]
	}
	var b bytes.Buffer
	if err := c.Page(&b, report.Analyse(c)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(f.String(), " ", "-")+".html"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
