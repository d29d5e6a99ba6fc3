package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rtcd/service/api/wire"
	"rtcd/service/rtc/channel"
	"rtcd/service/rtc/rtctest"
	"rtcd/service/servicetest"
)

// missingTool ends a test that needs a program of Debian's package prometheus.
func missingTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("SKIPPED, NOTHING WAS CHECKED: no %s; apt-get install prometheus", name)
		}
	}
}

// process starts a program that is told to end with the test, and killed if it does not.
func process(t *testing.T, env []string, name string, args ...string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s did not end by itself", name)
		}
		if t.Failed() {
			t.Logf("%s:\n%.4000s", filepath.Base(name), out.String())
		}
	})
	return &out
}

// until asks again and again until what is asked for is there.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !there(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 40 s: %s", what)
		}
	}
}

func address(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", rtctest.FreePort(t))
}

// server runs a real server that has all it can show switched on, and returns its address.
func server(t *testing.T, dir string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "rtcd")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v9.8.7 -X main.hash=abc", "-o", bin, "./cmd/rtcd")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if out, err := exec.Command(bin, "dev-certs", "-hosts", "127.0.0.1", filepath.Join(dir, "certs")).CombinedOutput(); err != nil {
		t.Fatalf("make certificates: %v\n%s", err, out)
	}
	// Where nobody listens: events for it wait.
	sink := address(t)
	addr := address(t)
	var media uint16
	for media = rtctest.FreePort(t); media > 49151; {
		media = rtctest.FreePort(t)
	}
	config := filepath.Join(dir, "rtcd.toml")
	text := fmt.Sprintf(`
[api.http]
listen_address = %q
tls.cert_file = %q
tls.cert_key = %q
[api.admin]
listen_address = %q
tls.enable = true
[api.security]
allow_self_registration = true
[rtc]
ice_address_udp = "127.0.0.1"
ice_address_tcp = "127.0.0.1"
ice_port_udp = %d
ice_port_tcp = %d
[store]
data_source = %q
[audit]
enable = "on"
dir = %q
sink = [{type = "syslog", transport = "tcp", address = %q}]
[events]
dir = %q
[shutdown]
drain_deadline = "1ms"
[[webhook]]
name = "crm"
client = "acme"
url = "http://%s/"
secret_file = %q
allow_private = true
`, addr, filepath.Join(dir, "certs/server.pem"), filepath.Join(dir, "certs/server-key.pem"), address(t), media, media,
		filepath.Join(dir, "data"), filepath.Join(dir, "audit"), sink, filepath.Join(dir, "events"), sink, filepath.Join(dir, "secret"))
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("rtcdwh_0123456789_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, nil, bin, "-config", config)
	until(t, "the server answers", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return addr
}

// calls makes two calls: of voices, and with a camera of two layers. What it returns makes once more
// happen what happens now and then, so that it can be done in sight of several scrapes: a guest joins and
// leaves, end users report, and one signals what cannot be used.
func calls(t *testing.T, addr string) (again func(n int)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	b := servicetest.NewBackend(t, addr, "acme")
	b.Register(t)
	b.Dial(t)
	ada := b.Person(ctx, t, "standup", "ada", rtctest.EndpointConfig{})
	bob := b.Person(ctx, t, "standup", "bob", rtctest.EndpointConfig{ChannelSignalling: true})
	servicetest.Speak(t, "ada", ada)
	servicetest.Speak(t, "bob", bob)
	eve := b.Person(ctx, t, "demo", "eve", rtctest.EndpointConfig{})
	b.Person(ctx, t, "demo", "dan", rtctest.EndpointConfig{})
	says := func(session string, typ wire.SignalType, data string) {
		b.Send(wire.AppendRTC(nil, wire.Signal{SessionID: session, Type: typ, Data: []byte(data)}))
	}
	says("eve", wire.SignalVideoOn, `{"videoStreamID":"camera"}`)
	camera, err := eve.PublishCamera(ctx, rtctest.CameraConfig{
		StreamID: "camera", Mime: "video/VP8",
		Layers: []rtctest.Layer{{RID: "l", Bitrate: 100_000, FPS: 15}, {RID: "h", Bitrate: 500_000, FPS: 15}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(camera.Stop)
	b.Do(t, http.MethodPost, "/register", "", strings.Repeat("x", 5<<10)) // a limit
	return func(n int) {
		says("eve", wire.SignalSDP, "no description") // an error
		for _, m := range [][]byte{channel.AppendLoss(nil, 0.01), channel.AppendRTT(nil, 0.05), channel.AppendJitter(nil, 0.01)} {
			if err := ada.Channel(m); err != nil {
				t.Fatalf("report as an end user does: %v", err)
			}
		}
		guest := fmt.Sprintf("guest%d", n)
		b.Person(ctx, t, "standup", guest, rtctest.EndpointConfig{})
		b.Send(wire.AppendLeave(nil, guest))
	}
}

// prometheus runs Debian's Prometheus on the server with our rules, and returns its URL.
func prometheus(t *testing.T, dir, target string) string {
	t.Helper()
	rules, err := filepath.Abs("../prometheus")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s/recording.yml, %s/alerts.yml]
scrape_configs:
  - job_name: rtcd
    static_configs: [{targets: [%q]}]
`, rules, rules, target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := address(t)
	process(t, nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+listen)
	at := "http://" + listen
	until(t, "Prometheus is ready", func() bool {
		resp, err := http.Get(at + "/-/ready")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return at
}

// get asks the API of Prometheus.
func get(t *testing.T, at, path string, into any) error {
	t.Helper()
	resp, err := http.Get(at + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// ask evaluates an expression and returns the series it has now.
func ask(t *testing.T, at, expr string) (series []string, err error) {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	err = get(t, at, "/api/v1/query?query="+url.QueryEscape(expr), &data)
	for _, r := range data.Result {
		if r.Value[1] != "NaN" {
			series = append(series, fmt.Sprintf("%v %v", r.Metric, r.Value[1]))
		}
	}
	return series, err
}

// A query of the dashboard as it is in the file.
type shown struct{ panel, expr string }

// queries reads them from the file, as Grafana would.
func queries(t *testing.T) []shown {
	t.Helper()
	data, err := os.ReadFile("rtcd.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	var out []shown
	filled := strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*", "$tenant", ".*")
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			out = append(out, shown{p.Title, filled.Replace(q.Expr)})
		}
	}
	return out
}

// Every query of the dashboard has data on a server with two calls, every metric that a rule asks for is
// there, and no alert fires but the one that is provoked.
func TestEveryQueryHasData(t *testing.T) {
	missingTool(t, "prometheus", "promtool")
	dir := t.TempDir()
	addr := server(t, dir)
	at := prometheus(t, dir, addr)
	until(t, "a first scrape", func() bool {
		series, err := ask(t, at, "rtcd_build_info")
		return err == nil && len(series) == 1
	})
	again := calls(t, addr)

	all := queries(t)
	if len(all) < 60 {
		t.Fatalf("%d queries in the dashboard, want all of them", len(all))
	}
	// What happens once is in sight of a rate for a while only, so each query has to have data once.
	empty := all
	for n, end := 0, time.Now().Add(40*time.Second); len(empty) > 0 && time.Now().Before(end); n++ {
		again(n)
		time.Sleep(500 * time.Millisecond) // half a scrape
		empty = slices.DeleteFunc(slices.Clone(empty), func(q shown) bool {
			series, err := ask(t, at, q.expr)
			if err != nil {
				t.Fatalf("%s: %s: %v", q.panel, q.expr, err)
			}
			return len(series) > 0
		})
	}
	for _, q := range empty {
		t.Errorf("no data: %s: %s", q.panel, q.expr)
	}
	checkRules(t, at)
	checkLint(t, addr)
}

var metricName = regexp.MustCompile(`\b(?:rtcd_[a-z_]+|up|[a-z_]+:rtcd_[a-z_]+:[a-z0-9_]+)\b`)

// checkRules looks at what Prometheus made of our rules.
func checkRules(t *testing.T, at string) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct {
				Name, Query, Type, Health, LastError, State string
				Annotations                                 map[string]string
			}
		}
	}
	if err := get(t, at, "/api/v1/rules", &data); err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	// Provoked on purpose: a body that is too large, and a sink and a webhook that nobody listens on.
	provoked := []string{"RtcdLimitHit", "RtcdAuditLags", "RtcdWebhookLags"}
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health == "err" {
				t.Errorf("%s: %s", r.Name, r.LastError)
			}
			for _, name := range metricName.FindAllString(r.Query, -1) {
				if series, err := ask(t, at, name); err != nil || len(series) == 0 {
					t.Errorf("%s asks for %s, which is not there: %v", r.Name, name, err)
				}
			}
			if r.Type != "alerting" {
				if series, err := ask(t, at, r.Query); err != nil || len(series) == 0 {
					t.Errorf("%s has no data: %v", r.Name, err)
				}
				continue
			}
			if r.State == "firing" && !slices.Contains(provoked, r.Name) {
				t.Errorf("%s fires for a server that is well", r.Name)
			}
			if r.Annotations["runbook"] != "docs/operations.md#"+strings.ToLower(r.Name) || r.Annotations["summary"] == "" {
				t.Errorf("%s: annotations %v", r.Name, r.Annotations)
			}
			if !bytes.Contains(manual, []byte("\n#### "+r.Name+"\n")) {
				t.Errorf("docs/operations.md has no heading %s", r.Name)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d rules are loaded", n)
	}
	if series, err := ask(t, at, `ALERTS{alertname="RtcdLimitHit",limit="api_body"}`); err != nil || len(series) == 0 {
		t.Errorf("a limit was hit and there is no alert: %v", err)
	}
}

// named are names that the protocol fixed before the rules of promtool, and why it objects.
// named are series whose names and labels the protocol fixes, as dashboards know them: gauges with _total,
// times without a unit, labels like groupID.
var named = regexp.MustCompile(`^rtcd_(rtc_(sessions_total|rtp_tracks_total|rtp_tracks_writes_time|errors_total|connection_time|dc_open_time|` +
	`signaling_lock_(grab|locked)_time|client_(loss_rate|rtt|jitter))|ws_(connections|messages)_total) `)

// checkLint gives a scrape to promtool.
func checkLint(t *testing.T, addr string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = resp.Body
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !named.MatchString(line) {
			t.Errorf("promtool check metrics: %s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Errorf("promtool check metrics: %v", err)
	}
}

func TestRules(t *testing.T) {
	missingTool(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "--lint-fatal", "alerts.yml", "recording.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "../prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// Each alert has a unit test and a heading in the manual.
func TestAlertsAreDocumented(t *testing.T) {
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	tests, manual := read("../prometheus/alerts_test.yml"), read("../../docs/operations.md")
	names := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read("../prometheus/alerts.yml"), -1)
	if len(names) < 15 {
		t.Fatalf("%d alerts", len(names))
	}
	for _, m := range names {
		if !strings.Contains(tests, "- name: "+m[1]+"\n") {
			t.Errorf("%s has no unit test", m[1])
		}
		if !strings.Contains(manual, "\n#### "+m[1]+"\n") {
			t.Errorf("%s has no heading in docs/operations.md", m[1])
		}
	}
}

func TestDashboardIsUpToDate(t *testing.T) {
	want, err := dashboard(rows)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("rtcd.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("rtcd.json is out of date: go run ./build/grafana")
	}
}
