package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func ctxOf() context.Context { return context.Background() }

// lines are what a start logs.
func lines(t *testing.T, s *setup) (logged []map[string]any, found []Finding, took time.Duration) {
	t.Helper()
	var b bytes.Buffer
	began := time.Now()
	found = Startup(t.Context(), s.Options, slog.New(slog.NewJSONHandler(&b, nil)))
	took = time.Since(began)
	for line := range strings.Lines(b.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		logged = append(logged, m)
	}
	return logged, found, took
}

// TestStartup: a start logs each thing that is to be done once, with its name and what to do, and
// takes next to no time. It asks nobody: the set-up has a name to look up, and nobody who does.
func TestStartup(t *testing.T) {
	s := good(t)
	if logged, found, _ := lines(t, s); len(logged)+len(found) > 0 {
		t.Errorf("a good set-up: %v", logged)
	}
	s = good(t)
	s.Online, s.NTP = true, "ntp.invalid"
	s.Config.RTC.ICEHostOverride = "rtcd.example.com"
	s.Host.Lookup, s.Host.Dial, s.Host.Bind, s.Host.Holder = nil, nil, nil, nil // not to be called
	s.Host.OpenFiles = func() (uint64, error) { return 1024, nil }
	s.Host.Synchronised = func() (bool, error) { return false, nil }
	s.have("/sys/fs/cgroup/memory.max", "1073741824\n") // is information alone
	logged, found, took := lines(t, s)
	if len(logged) != 2 || len(found) != 3 {
		t.Fatalf("logged %v, found\n%s", logged, Text(found))
	}
	for i, id := range []string{clockUnsynchronised, filesLow} {
		l := logged[i]
		if l["id"] != id || l["level"] != "WARN" || l["fix"] != kindOf(id).fix || !strings.HasPrefix(l["msg"].(string), "doctor: ") {
			t.Errorf("line %d: %v, want %s", i, l, id)
		}
	}
	if took > 100*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// TestStartupWithoutFolder: a store in memory is on nothing.
func TestStartupWithoutFolder(t *testing.T) {
	s := good(t)
	chmod(t, s.Config.Store.DataSource, 0o777)
	s.MemoryStore = true
	if logged, _, _ := lines(t, s); len(logged) > 0 {
		t.Errorf("logged %v", logged)
	}
}

const (
	manual     = "../../docs/operations.md"
	tableBegin = "<!-- findings: rtcd doctor -table -->\n"
	tableEnd   = "<!-- end of findings -->\n"
)

// TestManualHasTheTable: the table of the manual is what this code makes.
func TestManualHasTheTable(t *testing.T) {
	page, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), tableBegin)
	table, _, ended := strings.Cut(rest, tableEnd)
	if !found || !ended || table != Table() {
		t.Error("docs/operations.md does not have the table of findings: put there what `rtcd doctor -table` prints")
	}
}

// TestKinds: the table has what it needs, once.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kinds {
		if seen[k.id] || k.severity.rank() < 0 || k.when == "" || k.why == "" || k.fix == "" || strings.Contains(k.when+k.why+k.fix, "|") {
			t.Errorf("%+v", k)
		}
		if strings.Trim(k.id, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%q is not in snake case", k.id)
		}
		seen[k.id] = true
	}
	for id := range sayTheSame {
		if !seen[id] {
			t.Errorf("no finding %s", id)
		}
	}
}

// TestStartupOnThisHost: on the machine as it is a start is not held up. The best of some is taken: others
// use the machine, too.
func TestStartupOnThisHost(t *testing.T) {
	s := good(t)
	s.Host = ThisHost()
	best := time.Hour
	for range 5 {
		_, _, took := lines(t, s)
		best = min(best, took)
	}
	t.Logf("took %v", best)
	if best > 100*time.Millisecond {
		t.Errorf("took %v", best)
	}
}
