package feed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestOrder shows that each call has its events numbered without gaps, a call id that is used twice is
// two instances, clients share nothing, and a report is told of behind the end.
func TestOrder(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		f := open(t, Config{Dir: dir}, nil)
		talk(f, "a", "one", 2, false)
		talk(f, "b", "one", 1, true)
		talk(f, "a", "two", 1, true)
		for _, s := range []string{"s0", "s1"} {
			f.Add("a", Event{Type: StreamEnded, CallID: "one", SessionID: s, StreamID: "x" + s})
			f.Add("a", Event{Type: ParticipantLeft, CallID: "one", SessionID: s})
		}
		f.Add("a", Event{Type: CallEnded, CallID: "one"})
		f.Add("a", Event{Type: CallStarted, CallID: "one"})
		f.ReportReady("a", "one")
		f.ReportReady("a", "none")
		f.Add("a", Event{Type: CallEnded, CallID: "one"})
		flush(t, f)
		events, next := all(t, f, "a", "")
		want := `call.started one#1
participant.joined one#2 s0
stream.started one#3 s0/xs0
participant.joined one#4 s1
stream.started one#5 s1/xs1
call.started two#1
participant.joined two#2 s0
stream.started two#3 s0/xs0
stream.ended two#4 s0/xs0
participant.left two#5 s0 left
call.ended two#6
stream.ended one#6 s0/xs0
participant.left one#7 s0
stream.ended one#8 s1/xs1
participant.left one#9 s1
call.ended one#10
call.started one#1
call.report_ready one#11
call.report_ready none#0
call.ended one#2`
		if got := strings.ReplaceAll(shorts(events), " \n", "\n"); strings.TrimSpace(got) != want {
			t.Errorf("dir %q: got\n%s\nwant\n%s", dir, got, want)
		}
		if events[0].Instance != events[0].ID || events[17].Instance != events[0].ID || events[16].Instance == events[0].ID {
			t.Errorf("instances of %v", events)
		}
		if more, _ := all(t, f, "a", next); len(more) != 0 {
			t.Errorf("after the last: %s", shorts(more))
		}
		b, _ := all(t, f, "b", "")
		checkCalls(t, b)
		if len(b) != 6 {
			t.Errorf("b has %d events", len(b))
		}
		for i := range events { // from everywhere it goes on with the next
			if rest, _ := all(t, f, "a", events[i].ID); len(rest) != len(events)-1-i {
				t.Errorf("after %d: %d events", i, len(rest))
			}
		}
		p, err := f.Read("a", Query{Call: "two", Limit: 100})
		if err != nil || len(p.Items) != 6 || p.Next != next {
			t.Errorf("of call two: %d events up to %s, %v", len(p.Items), p.Next, err)
		}
		if p, err := f.Read("a", Query{After: Now, Limit: 1}); err != nil || len(p.Items) != 0 || p.Next != next {
			t.Errorf("from now on: %+v %v", p, err)
		}
	}
}

// TestLostServer shows that a server that is killed takes back nothing: numbers go on, and calls that ran
// are ended in order, their streams and participants first.
func TestLostServer(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir}, nil)
	talk(f, "a", "over", 1, true)
	talk(f, "a", "late", 2, false)
	flush(t, f)
	before, next := all(t, f, "a", "")
	g := open(t, Config{Dir: copyDir(t, dir)}, nil)
	flush(t, g)
	again, _ := all(t, g, "a", "")
	checkCalls(t, again)
	if got := shorts(again[:len(before)]); got != shorts(before) {
		t.Errorf("got\n%s\nwant\n%s", got, shorts(before))
	}
	rest, _ := all(t, g, "a", next)
	want := `stream.ended late#6 s0/xs0
participant.left late#7 s0 server_lost
stream.ended late#8 s1/xs1
participant.left late#9 s1 server_lost
call.ended late#10  server_lost`
	if got := shorts(rest); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if rest[0].Codec != "audio/opus" || rest[0].UserID != "us0" {
		t.Errorf("%+v", rest[0])
	}
	talk(g, "a", "late", 1, true)
	flush(t, g)
	events, _ := all(t, g, "a", "")
	checkCalls(t, events)
	if _, err := Open(Config{Dir: g.cfg.Dir}, nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server with the same folder: %v", err)
	}
}

// TestContinued shows that the calls of a log go on when another process has them, and end when that is lost.
func TestContinued(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir}, nil)
	talk(f, "a", "c", 1, false)
	talk(f, "a", "d", 1, false)
	shut(t, f)
	g := open(t, Config{Dir: dir, Continued: true}, nil)
	g.Add("a", Event{Type: StreamEnded, CallID: "c", SessionID: "s0", StreamID: "xs0"})
	g.Add("a", Event{Type: ParticipantLeft, CallID: "c", SessionID: "s0"})
	g.Add("a", Event{Type: CallEnded, CallID: "d"}) // for a process that is lost
	g.Add("a", Event{Type: CallEnded, CallID: "c"})
	flush(t, g)
	events, _ := all(t, g, "a", "")
	checkCalls(t, events)
	want := "stream.ended c#4 s0/xs0\nparticipant.left c#5 s0\nstream.ended d#4 s0/xs0\nparticipant.left d#5 s0 server_lost\n" +
		"call.ended d#6  server_lost\ncall.ended c#6 "
	if got := shorts(events[6:]); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTornTail cuts and damages the end of the last file in each place.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir}, nil)
	talk(f, "a", "c", 3, true)
	flush(t, f)
	events, _ := all(t, f, "a", "")
	path := segmentPath(clientDir(dir, "a"), 1)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if n%11 != 0 {
			continue
		}
		dir := t.TempDir()
		sub := clientDir(dir, "a")
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(segmentPath(sub, 1), data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(Config{Dir: dir}, nil)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		flush(t, f)
		talk(f, "a", "d", 1, true)
		flush(t, f)
		got, _ := all(t, f, "a", "")
		checkCalls(t, got)
		for i, e := range got[:min(len(got), len(events))] {
			if e.ID[:16] == events[i].ID[:16] && e.Reason != ServerLost && e.CallID == "c" && e.ID != events[i].ID {
				t.Fatalf("cut at %d: event %d is %s, was %s", n, i, e.ID, events[i].ID)
			}
		}
		shut(t, f)
	}
}

// TestDamage shows that numbers of events that were delivered and are damaged on disk later are not used
// again, and that their readers are told.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir}, nil)
	talk(f, "a", "c", 3, true)
	flush(t, f)
	events, last := all(t, f, "a", "")
	broken := copyDir(t, dir)
	path := segmentPath(clientDir(broken, "a"), 1)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), events[5].ID)
	data[at] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	g := open(t, Config{Dir: broken}, nil)
	flush(t, g)
	got, _ := all(t, g, "a", "")
	if want := events[:5]; shorts(got[:5]) != shorts(want) || got[5].Type != Gap || got[5].Missed != uint64(len(events)-5) || got[5].Reason != Overflow {
		t.Errorf("got\n%s", shorts(got))
	}
	if got[5].ID != last {
		t.Errorf("the gap ends at %s, the events did at %s", got[5].ID, last)
	}
	rest, _ := all(t, g, "a", last)
	if len(rest) == 0 || rest[len(rest)-1].Reason != ServerLost || rest[0].Type == Gap {
		t.Errorf("who had all of them gets\n%s", shorts(rest))
	}
}

// TestRetention shows the bounds on disk, and that nothing goes without a word: a cursor older than what is
// kept gives a gap with the number of missed events and the place behind which the first one stands.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	const keep, total = 1 << 20, 2 << 20
	f := open(t, Config{Dir: dir, KeepBytes: keep, TotalBytes: total, MemoryBytes: 1 << 20}, nil)
	f.Add("a", Event{Type: CallStarted, CallID: "long"})
	flush(t, f)
	first, cursorOfFirst := all(t, f, "a", "")
	for i := range 1500 {
		for _, c := range []string{"a", "b", "c"} {
			talk(f, c, fmt.Sprint("call-", i), 1, true)
		}
		if i%20 == 0 {
			flush(t, f)
		}
	}
	flush(t, f)
	var size int64
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			size += info.Size()
			if strings.HasPrefix(filepath.Base(filepath.Dir(path)), "c-61") && info.Size() > keep/8+2<<20 {
				t.Errorf("%s has %d bytes", path, info.Size())
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Stats(); size > total || s.DiskBytes != size || s.MemoryBytes > 1<<20 || s.Lost != 0 {
		t.Errorf("%d bytes on disk, %+v", size, s)
	}
	got, end := all(t, f, "a", cursorOfFirst)
	if got[0].Type != Gap || got[0].Reason != Expired || got[0].Missed == 0 {
		t.Fatalf("first %+v", got[0])
	}
	if want := uint64(1500*6+1) - 1 - uint64(len(got)-1); got[0].Missed != want {
		t.Errorf("missed %d, want %d", got[0].Missed, want)
	}
	again, _ := all(t, f, "a", got[0].ID)
	if shorts(again) != shorts(got[1:]) {
		t.Error("behind the gap comes something else")
	}
	// The call that began before all that is kept runs still.
	g := open(t, Config{Dir: copyDir(t, dir)}, nil)
	flush(t, g)
	rest, _ := all(t, g, "a", end)
	if len(rest) != 1 || rest[0].Instance != first[0].Instance || rest[0].CallSeq != 2 || rest[0].Reason != ServerLost {
		t.Errorf("after the end: %s", shorts(rest))
	}
}

// TestKeepFor shows that events past their time go, without numbers being used again.
func TestKeepFor(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir, KeepFor: 50 * time.Millisecond}, nil)
	talk(f, "a", "c", 1, true)
	flush(t, f)
	_, next := all(t, f, "a", Now)
	eventually(t, "the events expire", func() bool {
		p, err := f.Read("a", Query{Limit: 1})
		return err == nil && len(p.Items) == 0
	})
	old := cursor{}
	if c, err := parseCursor(next); err != nil {
		t.Fatal(err)
	} else {
		old = cursor{c.lineage, 1}
	}
	if got, _ := all(t, f, "a", old.String()); len(got) != 1 || got[0].Type != Gap || got[0].Missed != 5 || got[0].ID != next {
		t.Errorf("got %s", shorts(got))
	}
	shut(t, f)
	g := open(t, Config{Dir: dir}, nil)
	talk(g, "a", "c", 1, true)
	flush(t, g)
	got, _ := all(t, g, "a", next)
	checkCalls(t, got)
	if len(got) != 6 {
		t.Errorf("after the time: %s", shorts(got))
	}
}

// TestMemoryIsFlat (P12): without a folder and with the defaults, what events take on the heap does not
// grow any more once a client has its share, and stays what is said for all however many clients there are.
func TestMemoryIsFlat(t *testing.T) {
	f := open(t, Config{}, nil)
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what the first one finalizes
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	event := func(client string, i int) {
		// Ids as long as those of today's backends, each with memory of its own.
		id := func(kind string) string { return fmt.Sprintf("%s%025d", kind, i) }
		f.Add(client, Event{
			Type: "participant.connected", CallID: "call" + client, SessionID: id("s"), UserID: id("u"), Path: "udp",
		})
	}
	const part, all = 1 << 20, 16 << 20
	before := heap()
	for i := range 20_000 {
		event("a", i)
	}
	full := heap()
	for i := range 80_000 {
		event("a", 20_000+i)
	}
	after := heap()
	t.Logf("one client: %d KiB after 20,000 events, %d after 100,000", (full-before)>>10, (after-before)>>10)
	if s := f.Stats(); s.MemoryBytes > part || s.Events != 100_000 || after-before > part*5/4 || after-full > part/8 {
		t.Errorf("grew by %d bytes, and %d more: %+v", full-before, after-full, s)
	}
	for i := range 100_000 {
		event(fmt.Sprint("client", i%40), i)
	}
	after = heap()
	t.Logf("41 clients: %d KiB after 200,000 events", (after-before)>>10)
	if s := f.Stats(); s.MemoryBytes > all || s.MemoryBytes < all*3/4 || after-before > all*5/4 {
		t.Errorf("41 clients have grown by %d bytes: %+v", after-before, s)
	}
	runtime.KeepAlive(f)
}

// TestMemory shows that without a folder what is kept is bounded, and that a cursor of a server that is
// gone gives a gap.
func TestMemory(t *testing.T) {
	f := open(t, Config{MemoryBytes: 64 << 10}, nil)
	talk(f, "a", "c", 1, true)
	events, next := all(t, f, "a", "")
	for i := range 2000 {
		talk(f, fmt.Sprint("client", i%50), "c", 1, true)
	}
	if s := f.Stats(); s.MemoryBytes > 64<<10 || s.Events != 6+2000*6 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
	talk(f, "a", "d", 30, true)
	got, _ := all(t, f, "a", events[2].ID)
	if got[0].Type != Gap || got[0].Reason != Expired {
		t.Errorf("first %s", short(got[0]))
	}
	g := open(t, Config{}, nil)
	got, end := all(t, g, "a", next)
	if len(got) != 1 || got[0].Reason != UnknownCursor || got[0].ID != end {
		t.Errorf("of another server: %s", shorts(got))
	}
	talk(g, "a", "c", 1, true)
	if got, _ := all(t, g, "a", end); len(got) != 6 {
		t.Errorf("behind it: %s", shorts(got))
	}
}

// TestForget shows that of a client that is removed nothing is left, and that whoever gets its id has a log
// of its own.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	f := open(t, Config{Dir: dir}, nil)
	talk(f, "a", "c", 1, true)
	talk(f, "b", "c", 1, true)
	flush(t, f)
	_, next := all(t, f, "a", "")
	talk(f, "a", "unwritten", 20, false)
	if err := f.Forget("a"); err != nil {
		t.Fatal(err)
	}
	flush(t, f)
	if _, err := os.Stat(clientDir(dir, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	for range 3 {
		talk(f, "a", "c", 1, true)
	}
	flush(t, f)
	got, _ := all(t, f, "a", "")
	checkCalls(t, got)
	if len(got) != 18 {
		t.Errorf("%d events", len(got))
	}
	if got, _ := all(t, f, "a", next); len(got) != 19 || got[0].Reason != UnknownCursor {
		t.Errorf("with the former cursor: %s", shorts(got))
	}
	if got, _ := all(t, f, "b", ""); len(got) != 6 {
		t.Errorf("b has %d events", len(got))
	}
	if s := f.Stats(); s.Delayed != 0 || s.Lost != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCursor(t *testing.T) {
	f := open(t, Config{}, nil)
	for _, bad := range []string{"x", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("G", 32), strings.Repeat("A", 32)} {
		if _, err := f.Read("a", Query{After: bad}); !errors.Is(err, ErrCursor) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor{1, 2}.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text)
		if err == nil && c.String() != text {
			t.Errorf("%q reads as %q", text, c)
		}
	})
}
