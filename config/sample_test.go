package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// sampleCPUs is the machine whose default number of sockets the sample shows.
const sampleCPUs = 4

var commentedKey = regexp.MustCompile(`^# ([a-z0-9_.]+ = .*)$`)

// uncommentedSample returns the sample with all keys in force.
func uncommentedSample(t testing.TB) string {
	t.Helper()
	lines := strings.Split(string(Sample()), "\n")
	for i, line := range lines {
		if m := commentedKey.FindStringSubmatch(line); m != nil {
			lines[i] = m[1]
		}
	}
	return strings.Join(lines, "\n")
}

func TestSampleUncommentedIsDefault(t *testing.T) {
	got, report := load([]byte(uncommentedSample(t)), "sample", nil)
	if report.Err != nil || len(report.Warnings) != 0 {
		t.Fatalf("sample does not load cleanly:\n%s", report)
	}
	if want := defaults(sampleCPUs); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	asIs, report := load(Sample(), "sample", nil)
	if !report.OK() || !reflect.DeepEqual(asIs, Default()) {
		t.Errorf("the sample as it stands changes something:\n%s", report)
	}
}

func TestSampleHasEveryKey(t *testing.T) {
	var tree map[string]any
	if _, err := toml.Decode(uncommentedSample(t), &tree); err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	var walk func(prefix string, table map[string]any)
	walk = func(prefix string, table map[string]any) {
		for name, v := range table {
			if sub, ok := v.(map[string]any); ok && known().byName[prefix+name] == nil {
				walk(prefix+name+".", sub)
				continue
			}
			found[prefix+name] = v
		}
	}
	walk("", tree)
	for _, k := range Keys() {
		value, ok := found[k.Name]
		if !ok {
			t.Errorf("sample lacks %s", k.Name)
			continue
		}
		want := k.Default
		if k.Name == keyUDPSockets {
			want = fmt.Sprint(socketsPerCPU * sampleCPUs)
		}
		if names, ok := value.([]any); ok && len(names) > 0 {
			texts := make([]string, len(names))
			for i, name := range names {
				texts[i] = fmt.Sprint(name)
			}
			value = strings.Join(texts, ",")
		}
		if table, ok := value.(map[string]any); ok && len(table) == 0 {
			value = "{}"
		}
		if fmt.Sprint(value) != want {
			t.Errorf("sample has %s = %v, want %s", k.Name, value, want)
		}
		if got := strings.Count(string(Sample()), "["+k.Env+"]"); got != 1 {
			t.Errorf("sample names %s %d times, want once", k.Env, got)
		}
		delete(found, k.Name)
	}
	for name := range found {
		t.Errorf("sample has %s, which is no key", name)
	}
}

// Each key's row in the operators' manual has its variable and default.
func TestManualHasEveryKey(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\| `(RTCD_[A-Z0-9_]+)` \\| [^|]+ \\| ([^|]+) \\|")
	rows := map[string][2]string{}
	for _, m := range row.FindAllStringSubmatch(string(manual), -1) {
		rows[m[1]] = [2]string{m[2], strings.Trim(m[3], "` ")}
	}
	for _, k := range Keys() {
		want := [2]string{k.Env, k.Default}
		if k.Default == "" {
			want[1] = "empty"
		}
		if rows[k.Name] != want {
			t.Errorf("row of %s says %q, want %q", k.Name, rows[k.Name], want)
		}
		delete(rows, k.Name)
	}
	for name := range rows {
		t.Errorf("the manual has %s, which is no key", name)
	}
}

// TestDefaultIsSafe shows C19: nothing that could be used as a secret ships, and the store is not
// where every user may write (which production refuses, see badCases).
func TestDefaultIsSafe(t *testing.T) {
	for _, k := range Keys() {
		none := ""
		if k.Name == keyICEServers || k.Name == keyWebhook {
			none = "[]"
		}
		if k.Secret && k.Default != none {
			t.Errorf("%s ships with a value", k.Name)
		}
	}
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	if c.API.Security.AllowSelfRegistration || c.API.Security.EnableAdmin || c.Store.DataSource != "./data" {
		t.Errorf("unsafe default: %+v, %+v", c.API.Security, c.Store)
	}
}

func TestRedactedHidesSecrets(t *testing.T) {
	c, report := load([]byte(`
[api.security]
admin_secret_key = "canary-1"
[rtc]
turn.static_auth_secret = "canary-2"
ice_servers = [{urls=["turn:t"], username="canary-3", credential="canary-4"}]
`), "f", nil)
	if report.Err != nil {
		t.Fatal(report.Err)
	}
	text, err := c.Redacted().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{string(text), fmt.Sprintf("%v %+v %#v", c, c, c), report.String()} {
		if strings.Contains(out, "canary") {
			t.Errorf("a secret shows in %s", out)
		}
	}
	if c.RTC.ICEServers[0].Credential.Reveal() != "canary-4" {
		t.Error("Redacted changed the original")
	}
}
