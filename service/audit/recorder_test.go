package audit_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"rtcd/service/audit"
)

// open opens a recorder that the test closes if it has not.
func open(t *testing.T, cfg audit.Config) *audit.Recorder {
	t.Helper()
	r, err := audit.Open(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, r) })
	return r
}

func shut(t *testing.T, r *audit.Recorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func synced(t *testing.T, r *audit.Recorder) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// all returns every event of the log.
func all(t *testing.T, r *audit.Recorder, f audit.Filter) (events []audit.Event) {
	t.Helper()
	synced(t, r)
	for cursor := ""; ; {
		p, err := r.Query(t.Context(), f, cursor, 0)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, p.Events...)
		if cursor = p.Next; !p.More {
			return events
		}
	}
}

// TestRecordAndReopen shows that what was recorded is there after a restart, in order, with all it held.
func TestRecordAndReopen(t *testing.T) {
	cfg := audit.Config{Dir: t.TempDir(), UserID: audit.PlainUsers}
	r := open(t, cfg)
	want := audit.Event{
		Time:  time.Date(2026, 11, 24, 17, 20, 51, 123e6, time.UTC),
		Actor: audit.Actor{Kind: audit.Client, ID: "chat"}, Remote: "192.0.2.7:4711", Type: "ws.join", Action: audit.Create,
		Object: audit.Object{Kind: "call", ID: "c1"}, CallID: "c1", SessionID: "s1", User: "u1",
		Outcome: audit.MinorFailure, Reason: "token_required",
	}
	r.Record(want)
	synced(t, r)
	shut(t, r)
	got := all(t, open(t, cfg), audit.Filter{})
	types := []string{"audit.start", "ws.join", "audit.stop", "audit.start"}
	if len(got) != len(types) {
		t.Fatalf("got %d events, want %d: %+v", len(got), len(types), got)
	}
	for i, e := range got {
		if e.Type != types[i] || e.Seq != uint64(i+1) {
			t.Errorf("event %d is %d %s, want %s", i, e.Seq, e.Type, types[i])
		}
	}
	want.Seq = 2
	if got[1] != want {
		t.Errorf("got %+v, want %+v", got[1], want)
	}
}
