package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rtcd/service/audit"
)

// open opens a recorder that the test closes if it has not.
func open(t testing.TB, cfg audit.Config) *audit.Recorder {
	t.Helper()
	r, err := audit.Open(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shut(r) })
	return r
}

func shut(r *audit.Recorder) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.Close(ctx)
}

func closed(t testing.TB, r *audit.Recorder) {
	t.Helper()
	if err := shut(r); err != nil {
		t.Errorf("close: %v", err)
	}
}

func synced(t testing.TB, r *audit.Recorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := r.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// all returns every chosen event of the log.
func all(t testing.TB, r *audit.Recorder, f audit.Filter) (events []audit.Event) {
	t.Helper()
	synced(t, r)
	for cursor := ""; ; {
		p, err := r.Query(t.Context(), f, cursor, audit.MaxLimit)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, p.Events...)
		if cursor = p.Next; !p.More {
			return events
		}
	}
}

// types returns how many events there are of each type.
func types(events []audit.Event) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[e.Type]++
	}
	return n
}

// event returns the i-th event of a series.
func event(i int) audit.Event {
	return audit.Event{
		Actor:  audit.Actor{Kind: audit.Client, ID: fmt.Sprintf("client%d", i%10)},
		Remote: "192.0.2.7:4711", Type: []string{"ws.join", "ws.leave", "call.list"}[i%3],
		Action: []audit.Action{audit.Create, audit.Delete, audit.Read}[i%3],
		Object: audit.Object{Kind: "call", ID: fmt.Sprintf("call%d", i)}, CallID: fmt.Sprintf("call%d", i),
		SessionID: fmt.Sprintf("session%d", i), User: "user", Outcome: audit.Outcome(i % 4 * 4), Reason: fmt.Sprint(i),
	}
}

// record writes n events in steps that the queue holds.
func record(t testing.TB, r *audit.Recorder, n int) {
	t.Helper()
	for i := range n {
		r.Record(event(i))
		if i%4000 == 3999 {
			synced(t, r)
		}
	}
	synced(t, r)
}

// verified checks that the log in dir is whole.
func verified(t testing.TB, dir string) audit.Report {
	t.Helper()
	report, err := audit.Verify(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Fault != nil {
		t.Fatalf("verify: %s", report)
	}
	return report
}

// faulty checks that the log in dir is not, and returns its first fault.
func faulty(t testing.TB, dir string) audit.Fault {
	t.Helper()
	report, err := audit.Verify(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Fault == nil {
		t.Fatalf("verify: %s; want a fault", report)
	}
	return *report.Fault
}

// logs returns the paths of the log's files in order.
func logs(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for something that no channel tells of.
func eventually(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
