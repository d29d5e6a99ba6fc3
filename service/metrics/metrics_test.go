package metrics

import (
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// scrape returns the exposition as the handler serves it.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(rec.Result().Body)
	if err != nil || rec.Code != 200 {
		t.Fatalf("scrape: status %d, %v", rec.Code, err)
	}
	return string(body)
}

// use makes every documented series appear.
func use(m *Metrics) {
	m.SetWriteTimes(func() []WriteTimes {
		counts := make([]uint64, len(WriteBuckets())+1)
		counts[0], counts[1], counts[len(counts)-1] = 50, 2, 1
		return []WriteTimes{{"c1", Voice, counts, 3.5}, {"c1", Voice, counts, 0.5}}
	})
	t := m.Tenant("c1")
	t.ConnectionOpened()
	t.SessionStarted()
	t.TrackStarted(In, Opus)
	t.TrackStarted(Out, VP8)
	t.Received(JoinMessage)
	t.Received(RTCMessage)
	t.Received(UnknownMessage)
	t.Sent(RTCMessage)
	t.Sent(CloseMessage)
	m.ConnStateChanged(Connected)
	t.Errored(SignalingLockTimeout)
	t.ObserveConnection(20 * time.Millisecond)
	t.ObserveChannelOpen(20 * time.Millisecond)
	t.ObserveLockGrab(time.Microsecond)
	t.ObserveLockHeld(2 * time.Millisecond)
	t.ObserveClientLoss(0.2)
	t.ObserveClientRTT(0.3)
	t.ObserveClientJitter(0.01)
	m.LimitHit("ws_connections_per_client")
	m.Discarded(Undecodable)
}

func TestExposition(t *testing.T) {
	m := New()
	use(m)
	got := scrape(t, m)
	for _, want := range []string{
		"# TYPE rtcd_rtc_sessions_total gauge",
		`rtcd_rtc_sessions_total{groupID="c1"} 1`,
		"# TYPE rtcd_rtc_conn_states_total counter",
		`rtcd_rtc_conn_states_total{type="connected"} 1`,
		`rtcd_rtc_errors_total{groupID="c1",type="signaling_lock_timeout"} 1`,
		"# TYPE rtcd_rtc_rtp_tracks_total gauge",
		`rtcd_rtc_rtp_tracks_total{direction="in",groupID="c1",type="audio/opus"} 1`,
		`rtcd_rtc_rtp_tracks_total{direction="out",groupID="c1",type="video/VP8"} 1`,
		"# TYPE rtcd_rtc_rtp_tracks_writes_time histogram",
		`rtcd_rtc_rtp_tracks_writes_time_bucket{groupID="c1",type="voice",le="0.001"} 100`,
		`rtcd_rtc_rtp_tracks_writes_time_bucket{groupID="c1",type="voice",le="0.005"} 104`,
		`rtcd_rtc_rtp_tracks_writes_time_bucket{groupID="c1",type="voice",le="1"} 104`,
		`rtcd_rtc_rtp_tracks_writes_time_bucket{groupID="c1",type="voice",le="+Inf"} 106`,
		`rtcd_rtc_rtp_tracks_writes_time_sum{groupID="c1",type="voice"} 4`,
		`rtcd_rtc_rtp_tracks_writes_time_count{groupID="c1",type="voice"} 106`,
		`rtcd_rtc_connection_time_bucket{groupID="c1",le="0.025"} 1`,
		`rtcd_rtc_dc_open_time_count{groupID="c1"} 1`,
		`rtcd_rtc_signaling_lock_grab_time_count{groupID="c1"} 1`,
		`rtcd_rtc_signaling_lock_locked_time_sum{groupID="c1"} 0.002`,
		`rtcd_rtc_client_loss_rate_sum{groupID="c1"} 0.2`,
		`rtcd_rtc_client_rtt_sum{groupID="c1"} 0.3`,
		`rtcd_rtc_client_jitter_sum{groupID="c1"} 0.01`,
		"# TYPE rtcd_ws_connections_total gauge",
		`rtcd_ws_connections_total{clientID="c1"} 1`,
		"# TYPE rtcd_ws_messages_total counter",
		`rtcd_ws_messages_total{clientID="c1",direction="in",type="join"} 1`,
		`rtcd_ws_messages_total{clientID="c1",direction="in",type="rtc"} 1`,
		`rtcd_ws_messages_total{clientID="c1",direction="in",type="unknown"} 1`,
		`rtcd_ws_messages_total{clientID="c1",direction="out",type="rtc"} 1`,
		`rtcd_limit_hits_total{limit="ws_connections_per_client"} 1`,
		"rtcd_process_cpu_seconds_total", "rtcd_process_open_fds", "rtcd_process_max_fds",
		"rtcd_process_resident_memory_bytes", "rtcd_process_virtual_memory_bytes",
		"rtcd_process_virtual_memory_max_bytes", "rtcd_process_start_time_seconds",
		"go_goroutines", "go_memstats_alloc_bytes", "go_gc_duration_seconds", "go_threads", "go_info",
	} {
		if !strings.Contains(got, want+"\n") && !strings.Contains(got, want+" ") && !strings.Contains(got, want+"{") {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(got, `type="close"`) {
		t.Error("a sent close is counted; only rtc and vad have series")
	}
	if problems, err := testutil.GatherAndLint(m.Registry()); err != nil {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestBuckets(t *testing.T) {
	m := New()
	use(m)
	got := scrape(t, m)
	a := ".001 .005 .0075 .01 .025 .05 .075 .1 .25 .3 .4 .5 .75 1"
	b := ".001 .005 .0075 .01 .025 .05 .075 .1 .25 .5 .75 1"
	d := ".005 .01 .025 .05 .1 .25 .5 1 2.5 5 10"
	for name, want := range map[string]string{
		"rtp_tracks_writes_time": a, "client_rtt": a, "client_jitter": a, "client_loss_rate": b,
		"connection_time": d, "dc_open_time": d, "signaling_lock_grab_time": d, "signaling_lock_locked_time": d,
	} {
		var bounds []string
		for _, match := range regexp.MustCompile(`rtcd_rtc_`+name+`_bucket\{.*le="0?([^"]*)"`).FindAllStringSubmatch(got, -1) {
			bounds = append(bounds, match[1])
		}
		if s := strings.Join(bounds, " "); s != want+" +Inf" {
			t.Errorf("%s: buckets %s, want %s +Inf", name, s, want)
		}
	}
}

func TestGaugesGoWithWhatTheyCount(t *testing.T) {
	m := New()
	tenant := m.Tenant("c1")
	tenant.SessionStarted()
	tenant.SessionStarted()
	tenant.SessionEnded()
	if !strings.Contains(scrape(t, m), `rtcd_rtc_sessions_total{groupID="c1"} 1`) {
		t.Error("one session does not show")
	}
	tenant.SessionEnded()
	tenant.SessionEnded() // one too many must not go below zero
	tenant.ConnectionOpened()
	tenant.ConnectionClosed()
	tenant.TrackStarted(In, AV1)
	tenant.TrackEnded(In, AV1)
	if got := scrape(t, m); strings.Contains(got, "c1") {
		t.Error("series of a tenant without anything live")
	}
	tenant.SessionStarted()
	if !strings.Contains(scrape(t, m), `rtcd_rtc_sessions_total{groupID="c1"} 1`) {
		t.Error("the gauge does not come back")
	}
}

func TestForgetDropsCounters(t *testing.T) {
	m := New()
	use(m)
	m.SetWriteTimes(nil)
	tenant := m.Tenant("c1")
	tenant.SessionEnded()
	tenant.ConnectionClosed()
	tenant.TrackEnded(In, Opus)
	tenant.TrackEnded(Out, VP8)
	m.Forget("c1")
	if got := scrape(t, m); strings.Contains(got, "c1") {
		t.Error("series of a forgotten tenant")
	}
	m.Tenant("c1").Received(JoinMessage)
	if !strings.Contains(scrape(t, m), `clientID="c1",direction="in",type="join"} 1`) {
		t.Error("a new tenant of that id has no series")
	}
}

func TestLabelsAreAlwaysValid(t *testing.T) { // R1, R2
	m := New()
	for _, id := range []string{"", "\xff\xfe", strings.Repeat("x", 1<<16), strings.Repeat("é", 1000), "a\x00b\n\"", strings.Repeat("a", 127) + "é"} {
		tenant := m.Tenant(id)
		if !utf8.ValidString(tenant.id) || len(tenant.id) > maxIDBytes+3 {
			t.Errorf("id %.10q has label %.20q of %d bytes", id, tenant.id, len(tenant.id))
		}
		tenant.ConnectionOpened()
		tenant.Received(Message(200))
		tenant.Sent(Message(200))
		tenant.Errored(ErrorKind(200))
		tenant.TrackStarted(Direction(200), Codec(200))
	}
	m.ConnStateChanged(ConnState(200))
	m.Discarded(DiscardReason(200))
	m.LimitHit("\xff")
	scrape(t, m)
}

func TestTenantsAreBounded(t *testing.T) {
	m := New()
	for i := range maxTenants + 100 {
		m.Tenant(fmt.Sprint(i))
	}
	if n := len(m.tenants); n != maxTenants {
		t.Errorf("%d tenants, want %d", n, maxTenants)
	}
	m.Tenant("late").Received(JoinMessage)
	if !strings.Contains(scrape(t, m), `clientID="other",direction="in",type="join"} 1`) {
		t.Error("a tenant beyond the bound is not counted under other")
	}
}

func TestReportedValuesAreChecked(t *testing.T) {
	m := New()
	tenant := m.Tenant("c1")
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300} {
		tenant.ObserveClientLoss(v)
		tenant.ObserveClientRTT(v)
		tenant.ObserveClientJitter(v)
	}
	tenant.ObserveLockGrab(-time.Hour)
	got := scrape(t, m)
	if strings.Contains(got, "rtcd_rtc_client_") {
		t.Error("a value that is none was recorded")
	}
	if !strings.Contains(got, `rtcd_rtc_signaling_lock_grab_time_sum{groupID="c1"} 0`) {
		t.Error("a negative time is not recorded as zero")
	}
}

func TestWriteTimesOfWrongShapeAreSkipped(t *testing.T) {
	m := New()
	m.SetWriteTimes(func() []WriteTimes {
		good := make([]uint64, len(WriteBuckets())+1)
		good[3] = 1
		return []WriteTimes{{"c1", Voice, nil, 1}, {"c1", Source(99), good, 1}, {"c\xff", Video, good, 1}, {"idle", Video, make([]uint64, len(good)), 0}}
	})
	got := scrape(t, m)
	if n := strings.Count(got, "writes_time_count"); n != 1 {
		t.Errorf("%d histograms, want 1", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	m := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 50 {
				use(m)
				if i%10 == 0 {
					m.Forget("c1")
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			scrapeQuietly(m)
		}
	})
	wg.Wait()
}

func scrapeQuietly(m *Metrics) {
	m.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := New()
	tenant := m.Tenant("c1")
	n := testing.AllocsPerRun(100, func() {
		tenant.Received(RTCMessage)
		tenant.Sent(RTCMessage)
		tenant.ObserveClientRTT(0.1)
	})
	if n != 0 {
		t.Errorf("%v allocations per message, want 0", n)
	}
}

func TestWriteBucketsIsACopy(t *testing.T) {
	WriteBuckets()[0] = 7
	if slices.Contains(WriteBuckets(), 7) {
		t.Error("callers can change the buckets")
	}
}

func TestMediaSamples(t *testing.T) {
	m := New()
	m.SetMedia(func() []Sample {
		return []Sample{
			{Name: "media_sent_packets_total", Help: "Packets.", N: 5},
			{Name: "port_destinations", Help: "Destinations.", Gauge: true, Label: "state", Value: "failing", N: 1},
			{Name: "port_destinations", Help: "Destinations.", Gauge: true, Label: "state", Value: "paused", N: 2},
			{Name: "port_destinations", Help: "Destinations.", Label: "state", Value: "\xff", N: 2}, // no valid label
		}
	})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"# TYPE rtcd_media_sent_packets_total counter", "rtcd_media_sent_packets_total 5",
		"# TYPE rtcd_port_destinations gauge", `rtcd_port_destinations{state="failing"} 1`, `rtcd_port_destinations{state="paused"} 2`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("status %d, no %q", w.Code, want)
		}
	}
}
