package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rtcd/service/api"
	"rtcd/service/metrics"
	"rtcd/service/report"
)

// recordOf is a call that is over, of one session of a minute.
func recordOf(call string, started int64) *report.Record {
	rec := new(report.Recorder)
	for i := range int64(60) {
		rec.Add(&report.Sample{
			Unix: started/1000 + i + 1, State: report.Connected | report.HasVoice, RoundTrip: 20,
			Up: report.Up{Packets: 50, Sounds: 50, Bytes: 4000 + uint32(i)},
		})
	}
	return &report.Record{ID: call, Started: started, Ended: started + 60_000, Sessions: []report.Recorded{
		{ID: "s-of-" + call, User: "u", Joined: started, Left: started + 60_000, Recorder: rec},
	}}
}

const anyTime = 1_767_362_400_000

// limits counts which were hit.
type limits struct {
	mu  sync.Mutex
	hit map[metrics.Limit]int
}

func (l *limits) count(m metrics.Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hit == nil {
		l.hit = make(map[metrics.Limit]int)
	}
	l.hit[m]++
}

func (l *limits) of(m metrics.Limit) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hit[m]
}

// keeping makes reports on no call that goes on.
func keeping(t *testing.T, change func(*reportsConfig)) (*reports, *limits) {
	t.Helper()
	l := new(limits)
	cfg := reportsConfig{
		keepCalls: 3, memory: 1 << 20, limit: l.count, log: slog.New(slog.DiscardHandler),
		record: func(string, string) (*report.Record, bool) { return nil, false },
	}
	if change != nil {
		change(&cfg)
	}
	return newReports(cfg), l
}

func has(t *testing.T, r *reports, client, call string) bool {
	t.Helper()
	body, err := r.Report(t.Context(), client, call, 0, api.ReportJSON)
	if err != nil && !errors.Is(err, api.ErrNoReport) {
		t.Fatalf("report on %s of %s: %v", call, client, err)
	}
	return err == nil && documentOf(t, body).CallID == call
}

func documentOf(t *testing.T, body []byte) (d report.Document) {
	t.Helper()
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Of each client the latest calls are kept, and of all so many bytes.
func TestReportsAreBounded(t *testing.T) {
	r, _ := keeping(t, nil)
	for i := range 5 {
		r.add("a", recordOf(fmt.Sprint("c", i), anyTime))
	}
	r.add("b", recordOf("c0", anyTime))
	for i := range 5 {
		if got := has(t, r, "a", fmt.Sprint("c", i)); got != (i >= 2) {
			t.Errorf("c%d is there: %v", i, got)
		}
	}
	if !has(t, r, "b", "c0") {
		t.Error("a client has driven out the call of another")
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}

	each := recordOf("c0", anyTime).Size()
	r, _ = keeping(t, func(c *reportsConfig) { c.keepCalls, c.memory = 1000, 4*each+each/2 })
	for i := range 50 {
		r.add(fmt.Sprint("client", i), recordOf("c0", anyTime))
		if r.bytes > r.cfg.memory || r.bytes != len(r.kept)*each {
			t.Fatalf("%d bytes of %d calls", r.bytes, len(r.kept))
		}
	}
	if len(r.kept) != 4 || !has(t, r, "client49", "c0") || has(t, r, "client45", "c0") {
		t.Errorf("%d are kept", len(r.kept))
	}
	r, _ = keeping(t, func(c *reportsConfig) { c.memory = each - 1 })
	if r.add("a", recordOf("c0", anyTime)); len(r.kept) != 0 || r.bytes != 0 {
		t.Error("kept what is larger than all may be")
	}
}

// Calls of one id are told apart by when they began; the latest is meant if nothing is said, and the one
// that goes on is that.
func TestReportOfCallsOfOneID(t *testing.T) {
	var live *report.Record
	r, _ := keeping(t, func(c *reportsConfig) {
		c.record = func(client, call string) (*report.Record, bool) {
			return live, client == "a" && call == "c" && live != nil
		}
	})
	r.add("a", recordOf("c", anyTime))
	r.add("a", recordOf("c", anyTime+100_001))
	check := func(started int64, want int64) {
		t.Helper()
		body, err := r.Report(t.Context(), "a", "c", started, api.ReportJSON)
		if want == 0 {
			if !errors.Is(err, api.ErrNoReport) {
				t.Errorf("started at %d: %v", started, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, documentOf(t, body).StartedAt)
		if err != nil || at.UnixMilli() != want {
			t.Errorf("started at %d: got that of %v, %v", started, at, err)
		}
	}
	check(0, anyTime+100_001)
	check(anyTime, anyTime)
	check(anyTime+1, 0)
	live = recordOf("c", anyTime+500_000)
	live.Ended = 0
	check(0, anyTime+500_000)
	check(anyTime+500_000, anyTime+500_000)
	check(anyTime+100_001, anyTime+100_001)
	if _, err := r.Report(t.Context(), "b", "c", 0, api.ReportJSON); !errors.Is(err, api.ErrNoReport) {
		t.Errorf("of another client: %v", err)
	}
}

// Whoever asks too often, or while reports take too long to make, is told so.
func TestReportsAreNotMadeTooOften(t *testing.T) {
	r, l := keeping(t, nil)
	var err error
	n := 0
	for ; n < 2*reportsBurst; n++ {
		if _, err = r.Report(t.Context(), "a", "c", 0, api.ReportJSON); !errors.Is(err, api.ErrNoReport) {
			break
		}
	}
	if n < reportsBurst || !errors.Is(err, errReportsOften) || l.of(LimitReports) != 1 {
		t.Errorf("after %d: %v, limit hit %d times", n, err, l.of(LimitReports))
	}
	if _, err := r.Report(t.Context(), "b", "c", 0, api.ReportJSON); !errors.Is(err, api.ErrNoReport) {
		t.Errorf("another client: %v", err)
	}

	r.making <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Report(ctx, "b", "c", 0, api.ReportJSON); !errors.Is(err, errReportsBusy) {
		t.Errorf("while another is being made: %v", err)
	}
	<-r.making
	for i := range 2 * maxReportClients { // as many as may be
		r.allowed(fmt.Sprint(i))
	}
	if len(r.rates) > maxReportClients {
		t.Errorf("rates of %d clients are known", len(r.rates))
	}
}

// What is written is there after a restart, and under names that no id can choose.
func TestReportFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	open := func() *reports {
		files, err := openReportFiles(dir, 1<<20, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		files.free = func(string) (uint64, error) { return 1 << 40, nil }
		r, _ := keeping(t, func(c *reportsConfig) { c.files = files })
		return r
	}
	shut := func(r *reports) {
		t.Helper()
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
	r := open()
	const evil = "../../../etc/passwd\x00"
	r.add("a", recordOf("c", anyTime))
	r.add("a", recordOf("c", anyTime+100_000))
	r.add("a", recordOf(evil, anyTime))
	r.add(evil, recordOf("c", anyTime))
	shut(r) // writes all

	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		name := strings.TrimSuffix(strings.TrimSuffix(d.Name(), ".json"), ".html")
		if path != dir && strings.Trim(name, "0123456789abcdef-") != "" {
			t.Errorf("a file is called %q", path)
		}
		if !d.IsDir() {
			files++
		}
		return nil
	})
	if err != nil || files != 8 {
		t.Errorf("%d files, %v", files, err)
	}

	r = open()
	for _, c := range []struct{ client, call string }{{"a", "c"}, {"a", evil}, {evil, "c"}} {
		if !has(t, r, c.client, c.call) {
			t.Errorf("no report on %q of %q", c.call, c.client)
		}
	}
	if has(t, r, "b", "c") || has(t, r, "a", "c-0") {
		t.Error("a report on what there is none of")
	}
	for started, want := range map[int64]string{0: ":01:40.000Z", anyTime: ":00:00.000Z", anyTime + 1: ""} {
		page, pageErr := r.Report(t.Context(), "a", "c", started, api.ReportHTML)
		body, err := r.Report(t.Context(), "a", "c", started, api.ReportJSON)
		switch {
		case want == "":
			if !errors.Is(err, api.ErrNoReport) || !errors.Is(pageErr, api.ErrNoReport) {
				t.Errorf("started at %d: %v, %v", started, err, pageErr)
			}
		case err != nil, pageErr != nil, !bytes.HasPrefix(page, []byte("<!")):
			t.Errorf("started at %d: %v, %v, %.40q", started, err, pageErr, page)
		case !strings.HasSuffix(documentOf(t, body).StartedAt, want):
			t.Errorf("started at %d: got that of %s", started, documentOf(t, body).StartedAt)
		}
	}
	r.forget("a")
	if has(t, r, "a", "c") || has(t, r, "a", evil) || !has(t, r, evil, "c") {
		t.Error("to forget a client forgets others, or not it")
	}
	shut(r)
}

// Reports that are too old or too many are removed, the oldest first, and one that would need all the room
// that there is and more removes none.
func TestReportFilesAreBounded(t *testing.T) {
	files, err := openReportFiles(t.TempDir(), 1000, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	files.now = func() time.Time { return now }
	files.free = func(string) (uint64, error) { return 1 << 40, nil }
	bodies := func(n int) map[api.ReportFormat][]byte {
		return map[api.ReportFormat][]byte{api.ReportJSON: make([]byte, n), api.ReportHTML: make([]byte, n)}
	}
	there := func(call string) bool {
		_, err := files.read("a", call, 0, api.ReportJSON)
		return err == nil
	}
	for i, call := range []string{"c0", "c1", "c2"} {
		if err := files.write("a", call, anyTime, bodies(200)); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(files.dir, func(path string, d fs.DirEntry, err error) error {
			if strings.HasPrefix(d.Name(), hashed(call)) {
				at := now.Add(time.Duration(i-10) * time.Minute)
				return os.Chtimes(path, at, at)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if there("c0") || !there("c1") || !there("c2") {
		t.Error("not the oldest went")
	}
	if err := files.write("a", "big", anyTime, bodies(501)); !errors.Is(err, errVolumeFull) || !there("c1") {
		t.Errorf("one that is too large: %v, others there: %v", err, there("c1"))
	}
	files.free = func(string) (uint64, error) { return leastFree + 100, nil }
	if err := files.write("a", "c3", anyTime, bodies(200)); !errors.Is(err, errVolumeFull) || there("c3") || !there("c2") {
		t.Errorf("on a volume with too little: %v", err)
	}
	now = now.Add(2 * time.Hour)
	if there("c2") {
		t.Error("one that is too old is shown")
	}
	if err := files.prune(0); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(files.folder("a")); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// When there is no room some more is made than for one, so that not every call has to look for it.
func TestReportFilesMakeRoom(t *testing.T) {
	files, err := openReportFiles(t.TempDir(), 1600, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files.free = func(string) (uint64, error) { return 1 << 40, nil }
	began := time.Now().Add(-time.Minute)
	for i := range 17 {
		call := fmt.Sprint("c", i)
		if err := files.write("a", call, anyTime, map[api.ReportFormat][]byte{api.ReportJSON: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
		at := began.Add(time.Duration(i) * time.Second)
		if err := os.Chtimes(filepath.Join(files.folder("a"), reportName(call, anyTime)+".json"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	left, err := os.ReadDir(files.folder("a"))
	if err != nil || len(left) != 15 || files.size != 1500 {
		t.Errorf("%d reports and %d bytes are left, want 15 and 1500: %v", len(left), files.size, err)
	}
	for _, gone := range []string{"c0", "c1"} {
		if _, err := files.read("a", gone, 0, api.ReportJSON); !errors.Is(err, api.ErrNoReport) {
			t.Errorf("%s, one of the oldest: %v", gone, err)
		}
	}
}

// Reports that are too old go also if no call ends any more.
func TestOldReportsGoByThemselves(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		files, err := openReportFiles(dir, 1<<20, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		old := filepath.Join(dir, "old.json")
		if err := os.WriteFile(old, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(old, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		r, _ := keeping(t, func(c *reportsConfig) { c.files = files })
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		if _, err := os.Stat(old); err != nil {
			t.Errorf("it went too soon: %v", err)
		}
		time.Sleep(pruneEvery + 2*time.Second)
		synctest.Wait()
		if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
}

// What has to be looked for in the whole folder is not looked for with each call, nor left for long.
func TestReportFilesAreLookedThroughNowAndThen(t *testing.T) {
	files, err := openReportFiles(t.TempDir(), 1<<20, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	files.now = func() time.Time { return now }
	files.free = func(string) (uint64, error) { return 1 << 40, nil }
	write := func(call string) {
		t.Helper()
		if err := files.write("a", call, anyTime, map[api.ReportFormat][]byte{api.ReportJSON: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	write("c0")
	old := filepath.Join(files.folder("a"), reportName("old", anyTime)+".json")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, now.Add(-2*time.Hour), now.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	write("c1")
	if _, err := os.Stat(old); err != nil {
		t.Errorf("the folder was looked through again at once: %v", err)
	}
	now = now.Add(pruneEvery)
	write("c2")
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is too old is still there: %v", err)
	}
	if files.size != 300 {
		t.Errorf("%d bytes counted, want 300", files.size)
	}
}

// A client that is removed while its reports wait to be written has none afterwards, and one that gets
// its id next has its own.
func TestForgottenReportsAreNotWritten(t *testing.T) {
	files, err := openReportFiles(t.TempDir(), 1<<20, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	files.free = func(string) (uint64, error) { return 1 << 40, nil }
	r, l := keeping(t, func(c *reportsConfig) { c.files = files })
	r.making <- struct{}{} // the writer waits, with one in its hands
	r.add("a", recordOf("first", anyTime))
	forgotten := make(chan struct{})
	go func() { r.forget("a"); close(forgotten) }()
	for late := time.Now().Add(10 * time.Second); ; { // until the first part of it is done
		if time.Now().After(late) {
			t.Fatal("not forgotten in memory")
		}
		r.mu.Lock()
		_, begun := r.ended["a"]
		r.mu.Unlock()
		if begun {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.add("a", recordOf("second", anyTime))
	for range maxReportWrites + 10 { // never blocks
		r.add("b", recordOf("c", anyTime))
	}
	if n := l.of(LimitReportWrites); n < 1 || n > 12 {
		t.Errorf("%d did not find room to wait", n)
	}
	<-r.making
	<-forgotten
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if len(r.awaited) != 0 {
		t.Errorf("%d are still awaited", len(r.awaited))
	}
	if _, err := files.read("a", "first", 0, api.ReportJSON); !errors.Is(err, api.ErrNoReport) {
		t.Errorf("of the removed client: %v", err)
	}
	if _, err := files.read("b", "c", 0, api.ReportJSON); err != nil {
		t.Errorf("of another: %v", err)
	}
}
