package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rtcd/service/audit"
)

// TestRecordAndReopen shows CR-12 (form): what was recorded is there after a restart, in order, with actor,
// real address, action, object, true outcome and a UTC time of RFC 3339.
func TestRecordAndReopen(t *testing.T) {
	cfg := audit.Config{Dir: t.TempDir(), UserID: audit.PlainUsers}
	r := open(t, cfg)
	zone := time.FixedZone("", -7*3600)
	want := audit.Event{
		Time:  time.Date(2026, 11, 24, 17, 20, 51, 123e6, time.UTC),
		Actor: audit.Actor{Kind: audit.Client, ID: "chat"}, Remote: "192.0.2.7:4711", Type: "ws.join", Action: audit.Create,
		Object: audit.Object{Kind: "call", ID: "c1"}, CallID: "c1", SessionID: "s1", User: "u1",
		Outcome: audit.MinorFailure, Reason: "token_required",
	}
	given := want
	given.Time = want.Time.In(zone)
	r.Record(given)
	synced(t, r)
	closed(t, r)
	got := all(t, open(t, cfg), audit.Filter{})
	order := []string{"audit.start", "ws.join", "audit.stop", "audit.start"}
	if len(got) != len(order) {
		t.Fatalf("got %d events, want %d: %+v", len(got), len(order), got)
	}
	for i, e := range got {
		if e.Type != order[i] || e.Seq != uint64(i+1) {
			t.Errorf("event %d is %d %s, want %s", i, e.Seq, e.Type, order[i])
		}
	}
	want.Seq = 2
	if got[1] != want {
		t.Errorf("got %+v, want %+v", got[1], want)
	}
	text := read(t, logs(t, cfg.Dir)[0])
	if !bytes.Contains(text, []byte(`"time":"2026-11-24T17:20:51.123Z"`)) {
		t.Errorf("no UTC time in %s", text)
	}
}

// TestNormalised shows CR-12 (form): what a caller leaves out or gets wrong becomes what the log has.
func TestNormalised(t *testing.T) {
	r := open(t, audit.Config{Dir: t.TempDir()})
	r.Record(audit.Event{Action: "X", Outcome: 7, Reason: strings.Repeat("ä", 1000), CallID: "a\xffb"})
	e := all(t, r, audit.Filter{})[1]
	if e.Type != "unknown" || e.Action != audit.Execute || e.Outcome != audit.SeriousFailure || time.Since(e.Time) > time.Minute {
		t.Errorf("got %+v", e)
	}
	if len(e.Reason) != audit.MaxReason || strings.Trim(e.Reason, "ä") != "" || e.CallID != "a\uFFFDb" {
		t.Errorf("got a reason of %d bytes and call %q", len(e.Reason), e.CallID)
	}
}

// TestNil shows that no recorder is a recorder that does nothing.
func TestNil(t *testing.T) {
	var r *audit.Recorder
	r.Record(event(1))
	if err := errors.Join(r.Ready(), r.Sync(t.Context()), r.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Written != 0 {
		t.Errorf("got %+v", s)
	}
	if _, err := r.Query(t.Context(), audit.Filter{}, "", 1); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestUserIDs shows CR-14 and C6: ids of users are hashed with a key unless told otherwise; the same user
// gives the same hash after a restart, and another one with another key.
func TestUserIDs(t *testing.T) {
	const user = "dtdbm5ytjbgr9ehxuwywkkprka"
	kept := func(dir, mode string) string {
		t.Helper()
		r := open(t, audit.Config{Dir: dir, UserID: mode})
		r.Record(audit.Event{Type: "ws.join", User: user})
		got := all(t, r, audit.Filter{Type: "ws.join"})
		closed(t, r)
		for _, path := range logs(t, dir) {
			if found := bytes.Contains(read(t, path), []byte(user)); found != (mode == audit.PlainUsers) {
				t.Errorf("mode %q: the id stands in the log: %v", mode, found)
			}
		}
		return got[len(got)-1].User
	}
	dir := t.TempDir()
	first, again, other := kept(dir, ""), kept(dir, audit.HashUsers), kept(t.TempDir(), "")
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(first) || first != again || first == other {
		t.Errorf("got %s, again %s, with another key %s", first, again, other)
	}
	if got := kept(t.TempDir(), audit.PlainUsers); got != user {
		t.Errorf("plain: got %q", got)
	}
	if got := kept(t.TempDir(), audit.OmitUsers); got != "" {
		t.Errorf("omit: got %q", got)
	}
	if _, err := audit.Open(audit.Config{Dir: t.TempDir(), UserID: "rot13"}, nil); err == nil {
		t.Error("an unknown mode was taken")
	}
	write(t, filepath.Join(dir, "key"), []byte("short"))
	if _, err := audit.Open(audit.Config{Dir: dir}, nil); err == nil {
		t.Error("a broken key was taken")
	}
}

// TestPermissions shows CR-14: the folder and all that is in it are the server's alone.
func TestPermissions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	sink := audit.SinkConfig{Transport: audit.UDP, Address: "127.0.0.1:9"}
	r := open(t, audit.Config{Dir: dir, MaxFileBytes: 1000, Sinks: []audit.SinkConfig{sink}})
	record(t, r, 10)
	closed(t, r)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 8 {
		t.Fatalf("got %d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// TestOneWriter shows that two servers cannot write one log.
func TestOneWriter(t *testing.T) {
	cfg := audit.Config{Dir: t.TempDir()}
	open(t, cfg)
	if _, err := audit.Open(cfg, nil); !errors.Is(err, audit.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}

// TestLogInjection shows the threat row "log injection, audit forgery": whatever an id holds, a record is one
// line of printable ASCII, the id comes back unchanged, the chain holds, and nothing of it moves a terminal.
func TestLogInjection(t *testing.T) {
	nasty := []string{
		"a\r\nb", "\x1b[31mred", "u\u2028v\u2029w", "\u202egnp.exe", "\u2066x\u2069", "\x00\x07\x7f\u0085\u009b", `"},{"seq":9`, `\u0041\`,
		"</AuditMessage>", "ü漢🎥", strings.Repeat("\x01", audit.MaxID),
	}
	dir := t.TempDir()
	r := open(t, audit.Config{Dir: dir, UserID: audit.PlainUsers})
	for _, s := range nasty {
		r.Record(audit.Event{
			Actor: audit.Actor{Kind: audit.ActorKind(s), ID: s}, Remote: s, Type: s, Object: audit.Object{Kind: s, ID: s},
			CallID: s, SessionID: s, User: s, Reason: s,
		})
	}
	got := all(t, r, audit.Filter{})[1:]
	for i, s := range nasty {
		e := got[i]
		if e.Actor.ID != s || e.Remote != s || e.Object.ID != s || e.CallID != s || e.SessionID != s || e.User != s || e.Reason != s {
			t.Errorf("%q came back as %+v", s, e)
		}
		if text := e.Text(); strings.ContainsFunc(text, func(r rune) bool {
			return r < ' ' || r == 0x7f || r > 0x7e && strings.ContainsRune("\u2028\u2029\u202e\u2066\u0085\u009b", r)
		}) {
			t.Errorf("text of %q: %q", s, text)
		}
	}
	text := read(t, logs(t, dir)[0])
	if lines := bytes.Count(text, []byte("\n")); lines != len(nasty)+1 {
		t.Errorf("%d events are %d lines", len(nasty)+1, lines)
	}
	if i := bytes.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("byte %#x in the log", text[i])
	}
	closed(t, r)
	verified(t, dir)
}

// TestManyWriters shows that events of many goroutines all arrive, in one chain, each caller's in order.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	r := open(t, audit.Config{Dir: dir, MaxFileBytes: 64 << 10})
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := range 200 {
				r.Record(audit.Event{Actor: audit.Actor{Kind: audit.Client, ID: fmt.Sprint(c)}, Type: "t", Reason: fmt.Sprint(i)})
			}
		})
	}
	callers.Wait()
	for c := range 8 {
		for i, e := range all(t, r, audit.Filter{Client: fmt.Sprint(c)}) {
			if e.Reason != fmt.Sprint(i) {
				t.Fatalf("caller %d: event %d is %s", c, i, e.Reason)
			}
		}
	}
	if s := r.Stats(); s.Written != 1601 || s.Dropped != 0 {
		t.Errorf("got %+v", s)
	}
	if got := verified(t, dir); got.Records != 1601 || got.Files < 4 {
		t.Errorf("got %s", got)
	}
	closed(t, r)
	r.Record(event(0))
	if s := r.Stats(); s.Dropped != 1 {
		t.Errorf("an event after Close: %+v", s)
	}
}

// TestCloseEnds shows that Close ends in time although a sink cannot be reached.
func TestCloseEnds(t *testing.T) {
	sink := audit.SinkConfig{Transport: audit.TCP, Address: "127.0.0.1:1"}
	r := open(t, audit.Config{Dir: t.TempDir(), Sinks: []audit.SinkConfig{sink}})
	record(t, r, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Error(err)
	}
	if ctx.Err() != nil {
		t.Error("it took 5 s")
	}
}

// TestRetention shows CR-14: files past their time go, the chain says so, and it verifies from where it
// begins now; without that record, or with one more file gone, it does not.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	cfg := audit.Config{Dir: dir, MaxFileBytes: 4 << 10, KeepDays: 30}
	r := open(t, cfg)
	for i := range 100 {
		e := event(i)
		e.Time = time.Now().AddDate(0, 0, i-99) // one a day
		r.Record(e)
	}
	synced(t, r)
	closed(t, r)
	before := len(logs(t, dir))
	r = open(t, cfg)
	synced(t, r)
	kept := all(t, r, audit.Filter{})
	closed(t, r)
	if n := len(logs(t, dir)); n >= before {
		t.Fatalf("%d files before, %d after", before, n)
	}
	report := verified(t, dir)
	if report.First < 50 || report.First > 75 {
		t.Errorf("got %s", report)
	}
	for _, e := range kept[1:] {
		if time.Since(e.Time) > 45*24*time.Hour {
			t.Errorf("record %d of %v is still there", e.Seq, e.Time)
		}
	}
	if n := types(kept)["audit.retention"]; n != 1 {
		t.Errorf("%d records of the removal", n)
	}
	if _, err := audit.NewReader(dir).Query(t.Context(), audit.Filter{}, "", 1); err != nil {
		t.Error(err)
	}
	first := logs(t, dir)[0]
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	if got := faulty(t, dir); !strings.Contains(got.Reason, "before it are missing") {
		t.Errorf("got %v", got)
	}
}
