package probe

import (
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	cpu, err := parseStat("4711 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1 2 3")
	if err != nil || cpu != 2*time.Second {
		t.Errorf("got %v, %v, want 2s", cpu, err)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2 3", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if cpu, err := parseStat(bad); err == nil {
			t.Errorf("of %q: got %v, want an error", bad, cpu)
		}
	}
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "7"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat": "7 (rtcd) S 1 2 3 4 5 6 7 8 9 10 100 20 0 0 20 0 9 0 1 2 3", "statm": "900 100 30 4 0 5 0",
	} {
		if err := os.WriteFile(filepath.Join(dir, "7", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{pid: 7, proc: dir}
	got, err := s.Sample(t.Context())
	if err != nil || got.CPU != 1200*time.Millisecond || got.RSS != 100*int64(os.Getpagesize()) || got.Forwarded != -1 {
		t.Errorf("got %+v, %v", got, err)
	}
	s.pid = 8
	if _, err := s.Sample(t.Context()); err == nil {
		t.Error("a process that is not there has a sample")
	}
}

const page = `# HELP rtcd_process_cpu_seconds_total x
rtcd_process_cpu_seconds_total 12.5
rtcd_process_resident_memory_bytes 4.096e+07
rtcd_rtc_forwarded_packets_total{groupID="a } b",type="voice"} 1000
rtcd_rtc_forwarded_packets_total{groupID="c",type="video"} 234
rtcd_rtc_forwarded_packets_total_bucket{groupID="c",le="1"} 99
rtcd_rtc_rtp_tracks_writes_time_count{groupID="c",type="voice"} 77
broken line
`

func TestMetrics(t *testing.T) {
	got, err := parseMetrics(strings.NewReader(page))
	want := Sample{CPU: 12500 * time.Millisecond, RSS: 40_960_000, Forwarded: 1234}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	// A write is of a packet that came in, whatever the number of its copies.
	const writes = "process_cpu_seconds_total 1\nrtcd_rtc_rtp_tracks_writes_time_count 77\n"
	if got, err := parseMetrics(strings.NewReader(writes)); err != nil || got.Forwarded != -1 {
		t.Errorf("of writes alone: got %+v, %v, want nothing forwarded", got, err)
	}
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(page))
	}))
	defer server.Close()
	s, err := NewServer(t.Context(), 0, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Sample(t.Context()); err != nil || got != want {
		t.Errorf("scraped %+v, %v, want %+v", got, err, want)
	}
	status = http.StatusForbidden
	if _, err := s.Sample(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("of a refusal: got %v", err)
	}
	s.http.CloseIdleConnections()
}

func TestNothingKnown(t *testing.T) {
	s, err := NewServer(t.Context(), 0, "")
	if err != nil || s.Known() {
		t.Errorf("got %v, known %v", err, s.Known())
	}
	if got, err := s.Sample(t.Context()); err != nil || got != none {
		t.Errorf("got %+v, %v, want nothing", got, err)
	}
}

func TestMachine(t *testing.T) {
	a, ok := parseMachine("cpu  10 0 10 60 20 0 0 0 0 0\ncpu0 1 2\n")
	b, ok2 := parseMachine("cpu  40 0 40 70 30 0 0 0 0 0\n")
	if !ok || !ok2 || math.Abs(b.Since(a)-0.75) > 1e-9 {
		t.Errorf("got %v, %v, %v, want 0.75", ok, ok2, b.Since(a))
	}
	if _, ok := parseMachine("intr 1 2 3"); ok {
		t.Error("another line was taken")
	}
	if runtime.GOOS == "linux" {
		if OwnCPU() <= 0 {
			t.Errorf("own cpu is %v", OwnCPU())
		}
		if m, ok := ReadMachine(); !ok || m.Busy == 0 {
			t.Errorf("the machine is %+v, %v", m, ok)
		}
	}
}
