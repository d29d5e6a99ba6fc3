//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"

	"rtcd/build/page"
)

// promises are what is promised, in order.
var promises = []struct{ id, text string }{
	{"P1", "kill -9 loses no acknowledged registration; ready again within 1 s"},
	{"P2", "a loss of power loses no acknowledged registration"},
	{"P3", "full disk: no crash, no broken call, logins work, healed within 5 s"},
	{"P4", "a backend's WebSocket drops: no media and no signalling lost or doubled"},
	{"P5", "a stalled or hostile backend adds at most 50 ms (p99) to any other"},
	{"P6", "64-way login flood: backends connect within 200 ms (p99); 200 backends at once within 2 s"},
	{"P7", "no input crashes the process or takes more than 16 times its size of memory"},
	{"P8", "actions across tenants that succeed: none"},
	{"P9", "10 k packets of junk a second for 60 s: no call broken, at most 0.1 % loss, at most 10 log lines"},
	{"P10", "packets from off the path close no session"},
	{"P11", "at most one packet to an address that has not proved consent"},
	{"P12", "10,000 cycles of join, leave, double and abort: nothing stays behind"},
	{"P13", "SIGTERM: no new calls, none cut before the deadline, end within 5 s of it; the second at once"},
	{"P17", "address change: gap (p95) at most 1.5 s with ICE restart, 300 ms with the same credentials"},
	{"P18", "5 s pause or 30 % of a processor: nobody is disconnected"},
	{"P19", "no races, leaks, deadlocks; every bad configuration refused with the key named"},
	{"P20", "soak: memory grows at most 1 MiB an hour, goroutines stay"},
	{"P21", "every limit is documented, metered, and tested at its edge"},
}

// row is a promise and what was found.
type row struct {
	id, text string
	count    string
	figure   string
	verdict  string
}

// table is all promises.
type table []row

// tabulate puts together what scenarios say about promises.
func tabulate(results []result) (t table) {
	for _, p := range promises {
		r := row{id: p.id, text: p.text, verdict: "not run"}
		var counts, figures []string
		for _, res := range results {
			for _, found := range res.Promises {
				if found.ID != p.id {
					continue
				}
				counts = append(counts, fmt.Sprintf("%d %s", found.Count, found.Of))
				switch last := &counts[len(counts)-1]; {
				case res.Quick:
					*last += " (-quick)"
				case res.Share > 0:
					*last += fmt.Sprintf(" (-share %v)", res.Share)
				}
				figures = append(figures, found.Figure)
				switch {
				case !found.Kept:
					r.verdict = "FALLS SHORT"
				case found.NotJudged != "" && r.verdict != "FALLS SHORT":
					r.verdict = "not judged: " + found.NotJudged
				case r.verdict == "not run":
					r.verdict = "pass"
				}
			}
			if concerns(res, p.id) && (res.Verdict == fault || res.Verdict == skip) {
				figures = append(figures, fmt.Sprintf("%s was not shown: %s", res.Scenario, firstLine(res.Error)))
				r.verdict = "FALLS SHORT"
			}
		}
		r.count, r.figure = strings.Join(counts, "; "), strings.Join(figures, "; ")
		if r.verdict != "not run" {
			t = append(t, r)
		}
	}
	return t
}

// concerns reports whether a scenario is about a promise.
func concerns(r result, promise string) bool {
	for _, s := range scenarios {
		if s.id == r.Scenario {
			for _, p := range s.promises {
				if p == promise {
					return true
				}
			}
		}
	}
	return false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// text is the table for a terminal.
func (t table) text() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range t {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.id, r.verdict, r.count, r.figure)
	}
	_ = w.Flush()
	return b.String()
}

// markdown is the table for documents.
func (t table) markdown() string {
	var b strings.Builder
	b.WriteString("| | Promise | Count | Figure | |\n|---|---|---|---|---|\n")
	for _, r := range t {
		verdict := r.verdict
		if verdict != "pass" {
			verdict = "**" + verdict + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.id, r.text, r.count, strings.ReplaceAll(r.figure, "|", "\\|"), verdict)
	}
	return b.String()
}

// document puts the table into the page.
func document(t table, quick bool) error {
	kind := "`make fire`"
	if quick {
		kind = "`FIRE=-quick make fire`: smaller counts than promised"
	}
	text := kind + "\n\n" + t.markdown()
	return page.Fill("docs/reliability.md", true, "FIRE=-write make fire", map[string]string{"promises": text})
}

func verdictOf(r result) string {
	switch r.Verdict {
	case pass:
		return fmt.Sprintf("pass (%.0f s)", r.Took)
	case fail:
		return fmt.Sprintf("FALLS SHORT (%.0f s)", r.Took)
	case skip:
		return "SKIPPED, NOTHING SHOWN"
	}
	return "ERROR, NOTHING SHOWN"
}

func reasons(r result) string {
	var b strings.Builder
	for _, s := range r.Shortfalls {
		b.WriteString("\n    - " + s)
	}
	for _, s := range r.NotJudged {
		b.WriteString("\n    ? not judged: " + s)
	}
	if r.Error != "" {
		b.WriteString("\n    " + r.Error)
	}
	return b.String()
}
