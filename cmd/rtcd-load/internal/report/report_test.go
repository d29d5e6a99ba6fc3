package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/scenario"
)

// result is one with something in every part.
func result(t *testing.T) *report.Result {
	t.Helper()
	s, err := scenario.Parse(scenario.Sample)
	if err != nil {
		t.Fatal(err)
	}
	q := report.Quantiles{Count: 1000, P50: 1.5, P95: 12.25, P99: 40, Max: 12_345}
	r := &report.Result{
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Server: "http://127.0.0.1:8045", Version: "v1.3.0", Scenario: s, Measured: 20,
		People:   report.People{Planned: 10, Joined: 9, Failed: 1, Join: q, FirstMedia: q, Rooms: 2, SessionsOK: true},
		Delivery: report.Delivery{Received: 1_234_567, Expected: 1_000_000, Lost: 2_500, Loss: 0.0025, Reordered: 10, Reorder: 0.00001, Streams: 30},
		Delay:    q, VoiceDelay: q, VideoDelay: q,
		Video:     report.Video{Frames: 5000, Freezes: 3, Frozen: 1.5},
		ServerUse: report.ServerUse{Known: true, CPU: 2, Cores: 0.1, Packets: 100_000, PerPacket: 20, RSS: 50e6, RSSMax: 60e6, RSSIdle: 20e6, JoinCPU: 3},
		Generator: report.Generator{CPU: 0.5, Machine: 0.6, Cores: 2, Late: q},
	}
	for i := range 20 {
		r.Over = append(r.Over, report.Second{
			At: float64(i + 1), Measured: i > 3, People: 9, Received: 5000, Sent: 1000, Loss: 0.01, P50: 1, P95: 5, P99: 20,
			ServerCores: 0.1, ServerRSS: 50e6, OwnCores: 0.5, Late: 1,
		})
		r.Joins = append(r.Joins, report.Join{At: float64(i), Open: report.Milliseconds(20 + i), Media: report.Milliseconds(i*10 - 10)})
	}
	return r
}

func html(t *testing.T, r *report.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var plot = regexp.MustCompile(`(?s)<svg.*?</svg>`)

func TestPage(t *testing.T) {
	text := html(t, result(t))
	for _, want := range []string{
		"<title>rtcd-load: mixed</title>", "One-way delay", "Loss", "Join time", "CPU", "0.25", "2,500 of 1,000,000",
		"1,234,567", "20.0", "prefers-color-scheme: dark", "meeting", "12.3 s",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, bad := range []string{"http-equiv", "<script", "<link", "src=", "@import", "url(", "NaN", "Inf", "%!"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	plots := plot.FindAllString(text, -1)
	if len(plots) != 6 {
		t.Fatalf("%d plots, want 6", len(plots))
	}
	for i, svg := range plots {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("plot %d is no XML: %v", i, err)
				break
			}
		}
	}
	if n := strings.Count(plots[0], `class="line`); n != 3 {
		t.Errorf("the plot of delays has %d lines, want 3", n)
	}
	if n := strings.Count(plots[2], `class="bar`); n < 10 {
		t.Errorf("the plot of joins has %d bars", n)
	}
}

// A page can be made of anything that a run may come to, as of one that ended at once.
func TestPageOfNothing(t *testing.T) {
	r := &report.Result{Scenario: &scenario.Scenario{}}
	if text := html(t, r); strings.Contains(text, "NaN") || !strings.Contains(text, "</html>") {
		t.Errorf("the page is %s", text)
	}
	r = result(t)
	r.ServerUse = report.ServerUse{CPU: -1, Cores: -1, PerPacket: -1, RSS: -1, RSSMax: -1, RSSIdle: -1, JoinCPU: -1}
	r.Over[3].Loss, r.Over[4].ServerCores, r.Over[5].OwnCores = math.NaN(), -1, math.Inf(1)
	for i := range r.Over {
		r.Over[i].ServerCores = -1
	}
	if text := html(t, r); strings.Contains(text, "Server CPU per packet") || strings.Contains(text, "NaN") {
		t.Error("the page tells what is not known")
	}
}

func TestPageEscapes(t *testing.T) {
	r := result(t)
	r.Scenario.Name, r.Errors = `<script>alert("x")</script>`, []string{"<img src=x onerror=y>"}
	if text := html(t, r); strings.Contains(text, "<script") || strings.Contains(text, "<img") {
		t.Error("the page has what was to be text")
	}
}

func TestNotices(t *testing.T) {
	r := result(t)
	r.Generator.Limited = []string{"its machine was busy"}
	r.Interrupted, r.Delivery.OwnLost, r.Delivery.Withheld = true, 77, 88
	r.People.SessionsOK = false
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{b.String(), html(t, r)} {
		for _, want := range []string{"its machine was busy", "interrupted", "77", "88", "confirm"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	if !strings.Contains(b.String(), "generator-limited") {
		t.Error("the text does not say that it is generator-limited")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	want := result(t)
	if err := want.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got report.Result
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Delivery.Lost != want.Delivery.Lost || len(got.Over) != 20 || got.People.Join != want.People.Join ||
		got.Scenario.People() != want.Scenario.People() || got.Scenario.Duration != want.Scenario.Duration {
		t.Errorf("got %+v", got)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, slo string
		change    func(*report.Result)
		met       bool
	}{
		{"loss is at the limit", "loss_max = 0.0025", nil, true},
		{"loss is above", "loss_max = 0.0024", nil, false},
		{"delay", "delay_p99_max = \"40ms\"", nil, true},
		{"delay is above", "delay_p99_max = \"39ms\"", nil, false},
		{"p50", "delay_p50_max = \"1ms\"", nil, false},
		{"join", "join_p99_max = \"40ms\"\njoin_p50_max = \"2ms\"", nil, true},
		{"one of two", "join_p99_max = \"40ms\"\nloss_max = 0", nil, false},
		{"first media", "first_media_p99_max = \"1ms\"", nil, false},
		{"freezes", "freezes_max = 2", nil, false},
		{"failed", "failed_max = 1", nil, true},
		{"bad counts foreign", "bad_max = 0", func(r *report.Result) { r.Delivery.Foreign = 1 }, false},
		{"cpu", "cpu_per_packet_max = \"20us\"", nil, true},
		{"cpu is above", "cpu_per_packet_max = \"19us\"", nil, false},
		{"cpu is not known", "cpu_per_packet_max = \"1s\"", func(r *report.Result) { r.ServerUse.PerPacket = -1 }, false},
		{"memory is above", "rss_max = 59e6", nil, false},
		{"memory is not known", "rss_max = 1e9", func(r *report.Result) { r.ServerUse.RSSMax = -1 }, false},
		{"nothing measured", "delay_p99_max = \"1s\"", func(r *report.Result) { r.Delay = report.Quantiles{} }, false},
		{"unlimited", "generator_unlimited = true", nil, true},
		{"limited", "generator_unlimited = true", func(r *report.Result) { r.Generator.Limited = []string{"x"} }, false},
		{"limited may be", "generator_unlimited = false\nbad_max = 0", func(r *report.Result) { r.Generator.Limited = []string{"x"} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			slo, err := report.ParseSLO(c.slo)
			if err != nil {
				t.Fatal(err)
			}
			r := result(t)
			if c.change != nil {
				c.change(r)
			}
			if met := slo.Judge(r); met != c.met {
				t.Errorf("got %v, want %v: %+v", met, c.met, r.Objectives)
			}
			if len(r.Objectives) == 0 {
				t.Error("nothing was judged")
			}
		})
	}
}

func TestBadObjectives(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"none", "", "there are none"},
		{"unknown", "losss_max = 1", "losss_max: no such objective"},
		{"negative", "loss_max = -1", "loss_max: -1"},
		{"no number", "loss_max = nan", "loss_max: NaN"},
		{"negative time", "join_p99_max = \"-1s\"", "join_p99_max: -1s"},
		{"no time", "join_p99_max = \"soon\"", "soon"},
		{"wrong type", "loss_max = \"small\"", "loss_max"},
		{"syntax", "loss_max", "line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := report.ParseSLO(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	if _, err := report.ParseSLO(report.SampleSLO); err != nil {
		t.Errorf("the sample: %v", err)
	}
}
