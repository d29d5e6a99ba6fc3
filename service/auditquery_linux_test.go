package service_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"rtcd/service/audit"
)

// everything pages through what a query finds.
func (w *recorded) everything(t *testing.T, query url.Values, limit int) []entry {
	t.Helper()
	query.Set("limit", fmt.Sprint(limit))
	var all []entry
	for {
		p := w.auditPage(t, query)
		all = append(all, p.Events...)
		if !p.More {
			query.Del("cursor")
			return all
		}
		query.Set("cursor", p.Next)
	}
}

// TestAuditQuery shows CR-13 and CR-14: over the whole server, every filter finds exactly what it says; pages put together have
// every event once and in order while others are written; a bad cursor is refused, an old one goes on; only the auditor reads,
// and each time he does is on record itself.
func TestAuditQuery(t *testing.T) {
	t.Parallel()
	w := startRecorded(t, nil, nil)
	account := fmt.Sprintf(`{"clientID":"a","authKey":%q}`, key)
	for _, want := range []int{201, 409} {
		if a := (probe{method: "POST", url: w.admin + "/admin/clients", key: adminKey, body: account}).do(t); a.status != want {
			t.Fatalf("add a client: %d %s", a.status, a.body)
		}
	}
	token := probe{method: "POST", url: w.url + "/login", body: account}.do(t).field(t, "bearerToken")
	get := func(query, user, key string) answer {
		return probe{method: "GET", url: w.admin + "/admin/audit?" + query, user: user, key: key, from: "127.3.0.1"}.do(t)
	}

	// Pages, while twenty requests at a time add to the log.
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			p := probe{method: "GET", url: w.url + "/calls", token: token, from: fmt.Sprintf("127.4.0.%d", i+1)}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a := p.do(t); a.status != 200 {
					t.Errorf("calls: %d %s", a.status, a.body)
				}
			}
		})
	}
	var paged []entry
	cursors := []string{""}
	for query := (url.Values{"limit": {"7"}}); len(paged) < 300; {
		p := w.auditPage(t, query)
		paged = append(paged, p.Events...)
		cursors = append(cursors, p.Next)
		query.Set("cursor", p.Next)
	}
	close(stop)
	writers.Wait()
	for i, e := range paged {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d of the pages is number %d", i+1, e.Seq)
		}
	}
	// A cursor of then gives the same page now, though the log has grown.
	again := w.auditPage(t, url.Values{"limit": {"7"}, "cursor": {cursors[3]}})
	for _, e := range again.Events {
		if e != paged[e.Seq-1] {
			t.Errorf("event %d was %s, is %s", e.Seq, paged[e.Seq-1], e)
		}
	}

	w.filters(t)

	for _, bad := range []string{
		"cursor=", "cursor=x", "cursor=" + cursors[2] + "A", "cursor=" + cursors[2][1:], "cursor=%00", "limit=0", "limit=1001", "limit=x",
		"action=X", "outcome=1", "since=yesterday", "until=1", "client=", "type=%2e%2e%2f", "nonsense=1", "limit=1&limit=2",
	} {
		if a := get(bad, "", reviewerKey); a.status != 400 {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	for who, want := range map[[2]string]int{{"", adminKey}: 403, {"", ""}: 401, {"", key}: 401, {"auditor", reviewerKey}: 200, {"a", reviewerKey}: 401} {
		if a := get("limit=1", who[0], who[1]); a.status != want {
			t.Errorf("as %q: %d, want %d", who[0], a.status, want)
		}
	}
	// The auditor may nothing else.
	for _, path := range []string{w.url + "/calls", w.admin + "/admin/clients", w.url + "/ws"} {
		if a := (probe{method: "GET", url: path, key: reviewerKey}).do(t); a.status != 401 && a.status != 403 {
			t.Errorf("%s as auditor: %d", path, a.status)
		}
	}
	w.finish(t)
	outcomes := make(map[int]int)
	for _, e := range logged(t, w.cfg.Audit.Dir) {
		if e.Type == "audit.read" && strings.HasPrefix(e.Remote, "127.3.0.1:") {
			outcomes[e.Outcome]++
		}
	}
	if outcomes[0] != 1 || outcomes[4] != 16 || outcomes[8] != 4 {
		t.Errorf("reads of the log are on record by outcome as %v", outcomes)
	}
	report, err := audit.Verify(t.Context(), w.cfg.Audit.Dir)
	if err != nil || report.Fault != nil {
		t.Errorf("verify: %v %v", report, err)
	}
	// Changed, the log says so.
	files, _ := filepath.Glob(filepath.Join(w.cfg.Audit.Dir, "*.jsonl"))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `"actor":{"kind":"client","id":"a"}`, `"actor":{"kind":"client","id":"b"}`, 1)
	if changed == string(text) {
		t.Fatal("nothing to change")
	}
	if err := os.WriteFile(files[0], []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if report, err := audit.Verify(t.Context(), w.cfg.Audit.Dir); err != nil || report.Fault == nil {
		t.Errorf("verify of a changed log: %v %v", report, err)
	}
}

// filters compares what filters find with the log read whole.
func (w *recorded) filters(t *testing.T) {
	t.Helper()
	all := w.everything(t, url.Values{}, 1000)
	middle := all[len(all)/2].Time
	for query, want := range map[string]func(entry) bool{
		"client=a": func(e entry) bool {
			return e.Actor.Kind == "client" && e.Actor.ID == "a" || e.Actor.Kind != "client" && e.Object.Kind == "client" && e.Object.ID == "a"
		},
		"client=nobody":      func(entry) bool { return false },
		"type=client.login":  func(e entry) bool { return e.Type == "client.login" },
		"action=C":           func(e entry) bool { return e.Action == "C" },
		"outcome=4":          func(e entry) bool { return e.Outcome == 4 },
		"outcome=0&action=E": func(e entry) bool { return e.Outcome == 0 && e.Action == "E" },
		"until=" + middle:    func(e entry) bool { return e.Time < middle },
		"since=" + middle:    func(e entry) bool { return e.Time >= middle },
		"client=a&type=client.add&action=C&outcome=4": func(e entry) bool { return e.Object.ID == "a" && e.Type == "client.add" && e.Outcome == 4 },
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		upTo := all[len(all)-1].Seq // what this test itself adds is none of its business
		var wanted, found []uint64
		for _, e := range all {
			if want(e) {
				wanted = append(wanted, e.Seq)
			}
		}
		for _, e := range w.everything(t, values, 5+len(wanted)/3) {
			if e.Seq <= upTo {
				found = append(found, e.Seq)
			}
		}
		if !slices.Equal(found, wanted) || len(wanted) == 0 && query != "client=nobody" {
			t.Errorf("%s finds %d events, want %d", query, len(found), len(wanted))
		}
	}
}

// logged reads the events of an audit folder from its files.
func logged(t *testing.T, dir string) (out []entry) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	slices.Sort(files)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var e entry
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
	}
	return out
}

// folder returns all bytes below a folder, names included.
func folder(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintln(&all, path)
		all.Write(text)
		return err
	})
	if err != nil || all.Len() == 0 {
		t.Fatalf("read %s: %v", dir, err)
	}
	return all.String()
}

// absent fails the test for each secret that stands somewhere. It does not print it.
func absent(t *testing.T, where, text string, secrets map[string]string) {
	t.Helper()
	for name, secret := range secrets {
		if i := strings.Index(text, secret); i >= 0 {
			from := max(0, i-60)
			t.Errorf("%s is in %s, after %q", name, where, text[from:i])
		}
	}
}
