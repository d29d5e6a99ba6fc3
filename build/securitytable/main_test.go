package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a_test.go", "package a\n// TestOne shows XX-01, "+"OT-01 and "+"OT-02.\nfunc TestOne() {}\n// helper: "+"OT-03\nfunc helper() {}\n")
	write("b/b_test.go", "package b\n// TestTwo shows "+"OT-01.\nfunc TestTwo() {}\n")
	tests, err := citations(root)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parseRows("# comment\nOT-01 does this\n  and that\nOT-02 does more\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := complete(rows, tests); err != nil {
		t.Errorf("complete: %v", err)
	}
	got := table(rows, tests)
	for _, want := range []string{
		"| OT-01 | does this and that | `a` `TestOne`, `b` `TestTwo` |",
		"| OT-02 | does more | `a` `TestOne` |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("table lacks %q:\n%s", want, got)
		}
	}
}

func TestIncomplete(t *testing.T) {
	rows := []row{{"OT-01", "x"}, {"OT-02", "y"}}
	err := complete(rows, map[string][]string{"OT-01": {"a TestA"}, "OT-09": {"b TestB"}})
	if err == nil {
		t.Fatal("a row without a test and a test without a row passed")
	}
	for _, want := range []string{"OT-02 has no test", "OT-09 is cited by b TestB"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestBadRows(t *testing.T) {
	for _, text := range []string{"OT-1 x", "OT-01", "OT-01 x\nOT-01 y"} {
		if _, err := parseRows(text); err == nil {
			t.Errorf("parseRows(%q) passed", text)
		}
	}
}
