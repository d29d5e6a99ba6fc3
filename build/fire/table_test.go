//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What was not shown must never look as if it had passed.
func TestTabulate(t *testing.T) {
	kept := result{Scenario: "F1", Verdict: pass, Promises: []promiseResult{{ID: "P1", Count: 3, Of: "kills", Figure: "none lost", Kept: true}}}
	short := result{Scenario: "F27", Verdict: fail, Promises: []promiseResult{{ID: "P6", Count: 1, Of: "x", Figure: "slow", Kept: false}}}
	good := result{Scenario: "F13", Verdict: pass, Promises: []promiseResult{{ID: "P6", Count: 1, Of: "x", Figure: "quick", Kept: true}}}
	skipped := result{Scenario: "F31", Verdict: skip, Error: "no tools"}
	got := tabulate([]result{kept, short, good, skipped})
	want := map[string]string{"P1": "pass", "P6": "FALLS SHORT", "P13": "FALLS SHORT"}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d: %v", len(got), len(want), got)
	}
	for _, r := range got {
		if r.verdict != want[r.id] {
			t.Errorf("%s: %s, want %s", r.id, r.verdict, want[r.id])
		}
	}
	for verdict, want := range map[string]int{pass: statusPass, fail: statusFail, fault: statusFail, skip: statusSkipped} {
		if got := statusOf([]result{{Verdict: pass}, {Verdict: verdict}}); got != want {
			t.Errorf("status with %s is %d, want %d", verdict, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines")
	lines := `{"scenario":"F2","verdict":"fail"}` + "\n" + `{"scenario":"F1","verdict":"pass"}` + "\n" + `{"scenario":"F2","verdict":"pass"}` + "\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := read(path)
	if err != nil || len(got) != 2 || got[0].Scenario != "F1" || got[1].Verdict != pass {
		t.Errorf("read %v, %v", got, err)
	}
}

// Each promise that a scenario is about is one that there is, and ids are unique.
func TestScenarios(t *testing.T) {
	known, seen := make(map[string]bool), make(map[string]bool)
	for _, p := range promises {
		known[p.id] = true
	}
	for _, s := range scenarios {
		if seen[s.id] || s.title == "" || s.criterion == "" || s.run == nil {
			t.Errorf("scenario %s is there twice or lacks something", s.id)
		}
		seen[s.id] = true
		for _, p := range s.promises {
			if !known[p] {
				t.Errorf("%s is about %s, which is no promise", s.id, p)
			}
		}
	}
	if _, err := choose("F1|P4"); err != nil {
		t.Error(err)
	}
	if _, err := choose("nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("choosing nothing gives %v", err)
	}
}
