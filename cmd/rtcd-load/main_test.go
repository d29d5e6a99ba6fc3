package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/config"
	"rtcd/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server runs a server on loopback ports of its own until the test ends, and returns its URL.
func server(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	_ = c.Close()
	cfg := config.Default()
	cfg.API.HTTP.ListenAddress = "127.0.0.1:0"
	cfg.API.Admin.ListenAddress = ""
	cfg.API.Security.AllowSelfRegistration = true
	cfg.RTC.ICEAddressUDP, cfg.RTC.ICEAddressTCP = "127.0.0.1", "127.0.0.1"
	cfg.RTC.ICEPortUDP, cfg.RTC.ICEPortTCP = port, port
	cfg.Shutdown.DrainDeadline = time.Millisecond
	srv, err := service.New(t.Context(), cfg, service.Options{Log: slog.New(slog.DiscardHandler), MemoryStore: true})
	if err != nil {
		t.Fatalf("start server: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	return "http://" + srv.Addr().String()
}

// loadRun runs the command and returns its exit code and what it wrote.
func loadRun(t *testing.T, args ...string) (code int, r report.Result, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "result.json")
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, append(args, "-json", file), func(string) string { return "" }, &stdout, &stderr)
	text = stdout.String() + stderr.String()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatalf("exit code %d, no result: %v\n%s", code, err, text)
	}
	return code, r, text
}

func TestVoiceRooms(t *testing.T) {
	html := filepath.Join(t.TempDir(), "result.html")
	slo := file(t, "loss_max = 0\nbad_max = 0\nsilent_max = 0\nfailed_max = 0\ndropped_max = 0\njoin_p99_max = \"20s\"\n")
	code, r, text := loadRun(t, "-server", server(t), "-rooms", "2", "-people", "3", "-duration", "3s", "-settle", "1s",
		"-ramp", "500ms", "-slo", slo, "-html", html)
	if code != exitOK {
		t.Errorf("exit code %d, want %d\n%s", code, exitOK, text)
	}
	if p := r.People; p.Planned != 6 || p.Joined != 6 || p.Rooms != 2 || p.Join.Count != 6 || !p.SessionsOK {
		t.Errorf("people: %+v", p)
	}
	// Six voices of 50 packets a second, each for two people.
	if d := r.Delivery; d.Streams != 12 || d.Lost != 0 || d.Expected < 12*50*3 || d.Bad+d.Foreign+d.Duplicates != 0 {
		t.Errorf("delivery: %+v\n%s", d, text)
	}
	if r.VoiceDelay.Count < 12*50*2 || r.VoiceDelay.P50 <= 0 || r.VideoDelay.Count != 0 {
		t.Errorf("delays: voice %+v, video %+v", r.VoiceDelay, r.VideoDelay)
	}
	if len(r.Over) < 3 || len(r.Joins) != 6 {
		t.Errorf("%d seconds and %d joins in the result", len(r.Over), len(r.Joins))
	}
	if b, err := os.ReadFile(html); err != nil || !bytes.Contains(b, []byte("<svg")) {
		t.Errorf("page: %v, %d bytes", err, len(b))
	}
}

func TestOwnLossIsSeen(t *testing.T) {
	slo := file(t, "loss_max = 0.01\n")
	code, r, text := loadRun(t, "-server", server(t), "-rooms", "2", "-people", "3", "-duration", "5s", "-settle", "1s",
		"-ramp", "500ms", "-loss", "0.1", "-slo", slo, "-quiet")
	if code != exitMissed {
		t.Errorf("exit code %d, want %d\n%s", code, exitMissed, text)
	}
	if d := r.Delivery; d.Loss < 0.06 || d.Loss > 0.14 || d.OwnLost == 0 || d.Bad != 0 {
		t.Errorf("delivery %+v, want about 10 %% lost\n%s", d, text)
	}
	if !strings.Contains(text, "MISSED") {
		t.Errorf("the report says nothing of the objective:\n%s", text)
	}
}

// A scenario with all that a room can have.
func TestMixedRoom(t *testing.T) {
	scenario := file(t, `
duration = "5s"
settle = "1s"
[down]
delay = "20ms"
jitter = "5ms"
[[rooms]]
name = "all"
people = 4
voices = 2
cameras = 1
screens = 1
muters = 1
mute_every = "1s"
joiners = 1
leavers = 1
ramp = "500ms"
[rooms.camera]
bitrate = 200_000
fps = 10
simulcast = true
[rooms.screen]
bitrate = 100_000
fps = 5
`)
	code, r, text := loadRun(t, "-server", server(t), "-scenario", scenario, "-signalling", "backend")
	if code != exitOK || r.People.Joined != 5 || r.People.Failed+r.People.Dropped+r.People.NeverHeard != 0 || !r.People.SessionsOK {
		t.Errorf("exit code %d, people %+v\n%s", code, r.People, text)
	}
	if d := r.Delivery; d.Silent != 0 || d.Bad+d.Foreign != 0 || len(d.ByKind) != 3 || d.ByKind[0].Lost != 0 {
		t.Errorf("delivery: %+v\n%s", d, text)
	}
	if r.Video.Frames < 50 {
		t.Errorf("video: %+v", r.Video)
	}
	if r.VoiceDelay.P50 < 20 || r.VoiceDelay.P50 > 200 {
		t.Errorf("voice delay %v, want the 20 ms that are added and a little", r.VoiceDelay)
	}
}

func TestExitCodes(t *testing.T) {
	bad := file(t, "rooms = 1")
	slo := file(t, "[[rooms]]\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"help", []string{"-h"}, exitOK, "usage:"},
		{"sample", []string{"-sample"}, exitOK, "[[rooms]]"},
		{"sample of objectives", []string{"-sample-slo"}, exitOK, "loss_max"},
		{"unknown flag", []string{"-nonsense"}, exitUsage, "nonsense"},
		{"an argument", []string{"server"}, exitUsage, "unexpected argument"},
		{"no such scenario", []string{"-scenario", "/nonexistent/x.toml"}, exitUsage, "no such file"},
		{"bad scenario", []string{"-scenario", bad}, exitUsage, "rooms"},
		{"bad objectives", []string{"-slo", slo}, exitUsage, "no such objective"},
		{"both shapes", []string{"-scenario", bad, "-people", "3"}, exitUsage, "use one of them"},
		{"too few people", []string{"-people", "0"}, exitUsage, "people: 0"},
		{"too many voices", []string{"-people", "2", "-voices", "3"}, exitUsage, "voices: 3"},
		{"loss", []string{"-loss", "2"}, exitUsage, "loss: 2"},
		{"signalling", []string{"-signalling", "pigeon"}, exitUsage, "pigeon"},
		{"short key", []string{"-client-id", "x", "-auth-key", "y"}, exitUsage, "auth key"},
		{"no key", []string{"-client-id", "x"}, exitUsage, "needs an -auth-key"},
		{"bad url", []string{"-server", "ftp://x"}, exitUsage, "scheme"},
		{"bad address", []string{"-local-ip", "here"}, exitUsage, "-local-ip"},
		{"negative pid", []string{"-pid", "-3"}, exitUsage, "-pid"},
		{"no server", []string{"-server", "http://127.0.0.1:1"}, exitFailed, "refused"},
		{"no metrics", []string{"-metrics", "http://127.0.0.1:1/metrics"}, exitFailed, "metrics"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, func(string) string { return "" }, &stdout, &stderr)
			if text := stdout.String() + stderr.String(); code != c.code || !strings.Contains(text, c.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.want, text)
			}
		})
	}
}

// An interrupted run ends in order and reports what it has.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout bytes.Buffer
	stop := writer(func(line string) {
		if strings.Contains(line, "measuring") {
			cancel()
		}
	})
	code := run(ctx, []string{"-server", server(t), "-duration", "1h", "-settle", "0s", "-ramp", "0s"},
		func(string) string { return "" }, &stdout, stop)
	if code != exitOK || !strings.Contains(stdout.String(), "interrupted") || !strings.Contains(stdout.String(), "3 joined") {
		t.Errorf("exit code %d:\n%s", code, stdout.String())
	}
}

// writer calls a function with what is written.
type writer func(string)

func (w writer) Write(b []byte) (int, error) {
	w(string(b))
	return len(b), nil
}

var _ io.Writer = writer(nil)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
