package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGosecFaults gives a report with an exception, a fault, and none of what other exceptions are for.
func TestGosecFaults(t *testing.T) {
	report := `{"Issues":[
		{"rule_id":"G103","details":"unsafe","file":"/r/service/rtc/netio/a.go","line":"3"},
		{"rule_id":"G103","details":"unsafe","file":"/r/service/auth/a.go","line":"7"}],"Stats":{"files":2}}`
	faults, err := gosecFaults([]byte(report), "/r")
	if err != nil {
		t.Fatal(err)
	}
	if want := "service/auth/a.go:7: unsafe (G103)"; !slices.Contains(faults, want) {
		t.Errorf("faults %q lack %q", faults, want)
	}
	if len(faults) != len(exceptions) { // all exceptions but one are not needed, and there is one fault
		t.Errorf("%d faults, want %d: %q", len(faults), len(exceptions), faults)
	}
	if _, err := gosecFaults([]byte(`{"Issues":[],"Stats":{"files":0}}`), "/r"); err == nil {
		t.Error("a report on no file is fine")
	}
	for _, e := range exceptions {
		if e.why == "" {
			t.Errorf("exception %s in %q without a reason", e.rule, e.path)
		}
	}
}

// TestReadVulns tells what is called from what is only there.
func TestReadVulns(t *testing.T) {
	finding := func(id, module, function string) string {
		return fmt.Sprintf(`{"finding":{"osv":%q,"fixed_version":"v2","trace":[{"module":%q,"version":"v1","package":"p","function":%q}]}}`,
			id, module, function)
	}
	in := `{"osv":{"id":"A"}}` + finding("A", "m", "") + finding("A", "m", "F") + finding("A", "m", "G") + finding("B", "stdlib", "H")
	v, err := readVulns(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.modules) != 1 || len(v.toolchain) != 1 || v.known != 1 {
		t.Errorf("read %+v, want one of a module and one of the toolchain", v)
	}
	if _, err := readVulns(strings.NewReader("")); err == nil {
		t.Error("no database is fine")
	}
}
