package page

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	is := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	old, now := "head\n<!-- a: go make -->\nold\n<!-- end of a -->\ntail\n", "head\n<!-- a: go make -->\nnew\n<!-- end of a -->\ntail\n"
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	tables := map[string]string{"a": "new\n"}
	if err := Fill(path, false, "go make", tables); err == nil {
		t.Error("a page that is out of date passes")
	}
	is(old)
	if err := Fill(path, true, "go make", tables); err != nil {
		t.Error(err)
	}
	is(now)
	if err := Fill(path, false, "go make", tables); err != nil {
		t.Errorf("a page that is up to date: %v", err)
	}
	for _, missing := range []map[string]string{{"b": ""}, {"a": "newer\n", "b": ""}} {
		if err := Fill(path, true, "go make", missing); err == nil {
			t.Error("a page without the marks of a table passes")
		}
		is(now)
	}
}
