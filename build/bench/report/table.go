package report

import (
	"fmt"
	"strings"
)

// Line says in one line what a scenario came to.
func Line(s Scenario) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %6.0f/s, load %.1f:", s.Name, s.Rate, s.Load)
	for _, c := range s.Costs {
		fmt.Fprintf(&b, "  %s %.2f µs (%.2f–%.2f, gross %.2f, idle %.3f, arrived %.4f, ratio %.3f; %d of %d checked, %d bad, %d gaps)",
			c.System, c.Net.Median, c.Net.Min, c.Net.Max, c.Gross.Median, c.Idle, c.Delivered, c.Ratio.Median, c.Checked, c.Due, c.Bad, c.Gaps)
	}
	return b.String()
}

// Tables returns the report as Markdown.
func Tables(r Report) string { return "" }

// Plots returns plots by their file names.
func Plots(r Report) map[string]string { return nil }
