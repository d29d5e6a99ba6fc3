//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What a busy machine kept from being judged is neither kept nor broken, and a shortfall beside it stays one.
func TestNotJudged(t *testing.T) {
	one := func(kept bool, why string) result {
		return result{Scenario: "F1", Verdict: pass, Promises: []promiseResult{{ID: "P1", Kept: kept, NotJudged: why}}}
	}
	for want, results := range map[string][]result{
		"not judged: machine late by 2s": {one(true, ""), one(true, "machine late by 2s")},
		"FALLS SHORT":                    {one(false, ""), one(true, "machine late by 2s")},
	} {
		if got := tabulate(results); len(got) != 1 || got[0].verdict != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
	late := &trial{late: lateness{worst: time.Second, n: 1}}
	if !late.within(3*time.Second, 2*time.Second, "slow") || len(late.result.NotJudged) != 1 || len(late.result.Shortfalls) != 0 {
		t.Errorf("a late machine's time is judged: %+v", late.result)
	}
	quiet := &trial{}
	if quiet.within(3*time.Second, 2*time.Second, "slow") || len(quiet.result.Shortfalls) != 1 {
		t.Errorf("a quiet machine's time is not judged: %+v", quiet.result)
	}
}

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
	total := 0
	for _, p := range promises {
		known[p.id] = true
	}
	for _, s := range scenarios {
		if seen[s.id] || s.title == "" || s.criterion == "" || s.run == nil {
			t.Errorf("scenario %s is there twice or lacks something", s.id)
		}
		seen[s.id] = true
		if !slices.Contains(lengthy, s.id) {
			total += budgets[s.id]
		}
		if budgets[s.id] == 0 {
			t.Errorf("scenario %s has no budget", s.id)
		}
		for _, p := range s.promises {
			if !known[p] {
				t.Errorf("%s is about %s, which is no promise", s.id, p)
			}
		}
	}
	if total > 600 || len(budgets) != len(scenarios) {
		t.Errorf("quick runs of %d scenarios may take %d s, more than 10 minutes", len(budgets), total)
	}
	if _, err := choose("F1|P4"); err != nil {
		t.Error(err)
	}
	if _, err := choose("nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("choosing nothing gives %v", err)
	}
}
