package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t testing.TB, cfg Config, log *slog.Logger) *Feed {
	t.Helper()
	f, err := Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, f) })
	return f
}

func shut(t testing.TB, f *Feed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
}

func flush(t testing.TB, f *Feed) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what has no event of its own.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// all reads everything after a cursor.
func all(t testing.TB, f *Feed, client, after string) (events []Event, next string) {
	t.Helper()
	for {
		p, err := f.Read(client, Query{After: after, Limit: 7})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Items {
			var e Event
			if err := json.Unmarshal(i.Data, &e); err != nil {
				t.Fatal(err)
			}
			if e.ID != i.ID || e.Type != i.Type {
				t.Fatalf("item %s %s holds %+v", i.ID, i.Type, e)
			}
			events = append(events, e)
		}
		if after = p.Next; !p.More {
			return events, after
		}
	}
}

// short is an event as tests say it.
func short(e Event) string {
	s := strings.TrimRight(fmt.Sprintf("%s %s#%d %s/%s", e.Type, e.CallID, e.CallSeq, e.SessionID, e.StreamID), "/")
	if e.Reason != "" {
		s += " " + e.Reason
	}
	if e.Missed > 0 {
		s += fmt.Sprintf(" -%d", e.Missed)
	}
	return s
}

func shorts(events []Event) string {
	var out []string
	for _, e := range events {
		out = append(out, short(e))
	}
	return strings.Join(out, "\n")
}

// checkCalls checks what is promised of the events of each call, unless gaps are allowed for.
func checkCalls(t testing.TB, events []Event) {
	t.Helper()
	last := ""
	seq := make(map[string]uint64)
	ended := make(map[string]bool)
	for _, e := range events {
		if e.ID <= last {
			t.Fatalf("%s comes after %s", e.ID, last)
		}
		last = e.ID
		if e.Type == Gap {
			t.Fatalf("a gap: %+v", e)
		}
		if e.CallSeq != seq[e.Instance]+1 || ended[e.Instance] || (e.CallSeq == 1) != (e.Type == CallStarted) {
			t.Fatalf("%s after #%d of instance %s (ended: %v)", short(e), seq[e.Instance], e.Instance, ended[e.Instance])
		}
		seq[e.Instance] = e.CallSeq
		ended[e.Instance] = e.Type == CallEnded
	}
}

// talk is a call with n participants, each with a stream, up to its end if it is to end.
func talk(f *Feed, client, call string, n int, end bool) {
	f.Add(client, Event{Type: CallStarted, CallID: call})
	for i := range n {
		s := fmt.Sprintf("s%d", i)
		f.Add(client, Event{Type: ParticipantJoined, CallID: call, SessionID: s, UserID: "u" + s, Role: "publisher"})
		f.Add(client, Event{Type: StreamStarted, CallID: call, SessionID: s, UserID: "u" + s, StreamID: "x" + s, Source: "voice", Codec: "audio/opus"})
	}
	if !end {
		return
	}
	for i := range n {
		s := fmt.Sprintf("s%d", i)
		f.Add(client, Event{Type: StreamEnded, CallID: call, SessionID: s, UserID: "u" + s, StreamID: "x" + s, Source: "voice", Codec: "audio/opus"})
		f.Add(client, Event{Type: ParticipantLeft, CallID: call, SessionID: s, UserID: "u" + s, Reason: "left"})
	}
	f.Add(client, Event{Type: CallEnded, CallID: call})
}

// copyDir copies the folder of a feed as a server that is killed leaves it.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "events"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "events")
}
