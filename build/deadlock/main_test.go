package main

import (
	"strings"
	"testing"
)

// TestRewrite rewrites files with and without other uses of package sync.
func TestRewrite(t *testing.T) {
	const body = "package p\n\nimport (\n\t\"io\"\n\t\"sync\"\n)\n\nvar _ io.Reader\n\nvar mu sync.Mutex\n"
	for _, c := range []struct{ name, src, lacks string }{
		{"only mutexes", body, `"sync"`},
		{"other uses", body + "\nvar once sync.Once\n", "sync.Mutex"},
	} {
		out, pkg, changed, err := rewrite("p.go", []byte(c.src))
		if err != nil || !changed || pkg != "p" {
			t.Fatalf("%s: changed %v, %v", c.name, changed, err)
		}
		if text := string(out); !strings.Contains(text, "deadlock.Mutex") || !strings.Contains(text, watched) || strings.Contains(text, c.lacks) {
			t.Errorf("%s: rewritten to\n%s", c.name, out)
		}
		if _, _, changed, err := rewrite("again.go", out); err != nil || changed {
			t.Errorf("%s: what was rewritten does not parse or changes again: %v, %v", c.name, changed, err)
		}
	}
	if _, _, changed, err := rewrite("p.go", []byte("package p\n\nimport \"sync\"\n\nvar o sync.Once\n")); err != nil || changed {
		t.Errorf("a file without a mutex: changed %v, %v", changed, err)
	}
}
