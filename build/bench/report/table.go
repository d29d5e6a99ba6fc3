package report

import (
	"fmt"
	"slices"
	"strings"
)

// Line says in one line what a scenario came to.
func Line(s Scenario) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %6.0f packets/s, load average %.1f", s.Name, s.Rate, s.Load)
	for _, c := range s.Costs {
		fmt.Fprintf(&b, "\n   %-13s %6.2f µs (%.2f to %.2f, gross %.2f), %.3f of plain pion, %.2f %% arrived, %.2f %% counted",
			c.System, c.Net.Median, c.Net.Min, c.Net.Max, c.Gross.Median, c.Ratio.Median, 100*c.Delivered, 100*c.Counted)
		if c.Due > 0 {
			fmt.Fprintf(&b, "; of %d checked %d came, %d bad, %d gaps", c.Due, c.Checked, c.Bad, c.Gaps)
		}
	}
	return b.String()
}

// Tables returns the report as Markdown.
func Tables(r Report) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %.0f minutes; %d cores of %s, %d GiB, Linux %s, %s; commit %s.\n", m.Start, m.Minutes,
		m.Cores, m.CPU, m.Memory, m.Kernel, m.Go, m.Commit)
	for _, part := range []func(*strings.Builder, Report){costTable, fanTable, readTable, checkTable, rampTable, idleTable, stormTable, holds} {
		part(&b, r)
	}
	for _, f := range r.Failed {
		fmt.Fprintf(&b, "\nNot measured: %s\n", f)
	}
	return b.String()
}

// pick returns the scenarios that are told apart by their names.
func pick(r Report, fan, reading bool) []Scenario {
	var out []Scenario
	for _, s := range r.Scenarios {
		if isFan := strings.HasPrefix(s.Name, "audio-") || strings.HasPrefix(s.Name, "video-"); isFan == fan && s.Reading == reading {
			out = append(out, s)
		}
	}
	return out
}

// Encrypt returns what it costs to encrypt a packet of the scenario, in µs; 0 if that was not
// measured.
func (r Report) Encrypt(s Scenario) float64 {
	if len(r.Crypto) != 2 {
		return 0
	}
	return r.Crypto[0].Encrypt*(1-s.Video) + r.Crypto[1].Encrypt*s.Video
}

// Floor returns what a packet of the scenario costs at least: the better of the bare sockets, and
// encryption.
func (r Report) Floor(s Scenario) float64 {
	c, ok := s.Find(GSO)
	if !ok {
		return 0
	}
	if other, ok := s.Find(Sendto); ok && other.Net.Median < c.Net.Median {
		c = other
	}
	return c.Net.Median + r.Encrypt(s)
}

func costTable(b *strings.Builder, r Report) {
	rows := pick(r, false, false)
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n**Calls.** µs of CPU for each packet that arrived, median of the rounds (the least and the most):\n\n")
	costHead(b)
	for _, s := range rows {
		costRow(b, r, s)
	}
}

func fanTable(b *strings.Builder, r Report) {
	rows := pick(r, true, false)
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n**One sender to many**, the same:\n\n")
	costHead(b)
	for _, s := range rows {
		costRow(b, r, s)
	}
}

func costHead(b *strings.Builder) {
	b.WriteString("| Load | packets/s | rtcd | gross | plain pion | gross | `sendto` | `sendmmsg`+GSO | AES-GCM | rtcd : plain pion | rtcd : floor | arrived: rtcd, plain pion | load average |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
}

func costRow(b *strings.Builder, r Report, s Scenario) {
	ours, _ := s.Find(Ours)
	plain, _ := s.Find(Plain)
	sendto, _ := s.Find(Sendto)
	gso, _ := s.Find(GSO)
	floor := "–"
	if f := r.Floor(s); f > 0 {
		floor = fmt.Sprintf("%.1f", ours.Net.Median/f)
	}
	fmt.Fprintf(b, "| %s | %.0f | **%s** | %.1f | %s | %.1f | %.2f | %.2f | %.2f | **1 : %.1f** | %s | %.2f %%, %.2f %% | %.1f |\n",
		s.Title, s.Rate, spread(ours.Net), ours.Gross.Median, spread(plain.Net), plain.Gross.Median, sendto.Net.Median, gso.Net.Median,
		r.Encrypt(s), 1/ours.Ratio.Median, floor, 100*ours.Delivered, 100*plain.Delivered, s.Load)
}

func spread(s Spread) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

func readTable(b *strings.Builder, r Report) {
	rows := pick(r, false, true)
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n**Calls whose receivers read everything** on the same machine, and send reports and transport feedback:\n\n")
	b.WriteString("| Load | rtcd | gross | plain pion | gross | rtcd : plain pion | arrived: rtcd, plain pion | load average |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range rows {
		ours, _ := s.Find(Ours)
		plain, _ := s.Find(Plain)
		fmt.Fprintf(b, "| %s | **%s** | %.1f | %s | %.1f | **1 : %.1f** | %.2f %%, %.2f %% | %.1f |\n", s.Title, spread(ours.Net),
			ours.Gross.Median, spread(plain.Net), plain.Gross.Median, 1/ours.Ratio.Median, 100*ours.Delivered, 100*plain.Delivered, s.Load)
	}
}

func checkTable(b *strings.Builder, r Report) {
	var due, came, bad, gaps [2]uint64
	for _, s := range r.Scenarios {
		for i, system := range []string{Ours, Plain} {
			if c, ok := s.Find(system); ok {
				due[i] += c.Due
				came[i] += c.Checked
				bad[i] += c.Bad
				gaps[i] += c.Gaps
			}
		}
	}
	if due[0] == 0 {
		return
	}
	b.WriteString("\n**Checked.** Packets that were decrypted and compared at every receiver, before the measuring:\n\n")
	b.WriteString("| | due | came | wrong | gaps |\n|---|--:|--:|--:|--:|\n")
	for i, system := range []string{Ours, Plain} {
		fmt.Fprintf(b, "| %s | %d | %d | %d | %d |\n", system, due[i], came[i], bad[i], gaps[i])
	}
}

func rampTable(b *strings.Builder, r Report) {
	if len(r.Ramp) == 0 {
		return
	}
	b.WriteString("\n**Up to the limit.** Packets of voices from 8 senders to 30 each, and the time that other packets at 100/s take from socket to socket:\n\n")
	b.WriteString("| | packets/s | of a core | µs each | arrived | transit p50, p99 (ms) | without a server p50, p99 | load average |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range r.Ramp {
		transit, bare := "–", "–"
		if s.Measured > 0 {
			transit = fmt.Sprintf("%.2f, %.2f", s.P50, s.P99)
			bare = fmt.Sprintf("%.2f, %.2f", s.BareP50, s.BareP99)
		}
		fmt.Fprintf(b, "| %s | %.0f | %.0f %% | %.2f | %.3f %% | %s | %s | %.1f |\n", s.System, s.Rate, 100*s.Core, s.Net, 100*s.Delivered, transit, bare, s.Load)
	}
}

func idleTable(b *strings.Builder, r Report) {
	if len(r.Idle) == 0 {
		return
	}
	b.WriteString("\n**Idle sessions**, each connected and with its data channel open:\n\n")
	b.WriteString("| | sessions | goroutines each | resident kB each | CPU µs/s each |\n|---|--:|--:|--:|--:|\n")
	for _, i := range r.Idle {
		fmt.Fprintf(b, "| %s | %d | %.1f | %.0f | %.0f |\n", i.System, i.Sessions, i.Goroutines, i.Resident, i.CPU)
	}
}

func stormTable(b *strings.Builder, r Report) {
	if len(r.Storm) == 0 {
		return
	}
	b.WriteString("\n**Joins** with a microphone, to the open data channel. Endpoints share the cores with the server, and need as much for a handshake:\n\n")
	b.WriteString("| | at once | CPU ms of the server each | p50 (ms) | p99 (ms) | one alone (ms) |\n|---|--:|--:|--:|--:|--:|\n")
	for _, s := range r.Storm {
		fmt.Fprintf(b, "| %s | %d | %s | %.0f | %.0f | %.0f |\n", s.System, s.Joins, spread(s.CPU), s.P50.Median, s.P99.Median, s.Single)
	}
}

// What streams need on a wire: payload, and 12 + 8 + 16 bytes of RTP, extension and tag, 28 of IPv4
// and UDP, 14 of Ethernet.
const wireOverhead = 12 + 8 + 16 + 28 + 14

// holds says what one core, one gigabyte and one gigabit hold.
func holds(b *strings.Builder, r Report) {
	var lines []string
	best := 0.0
	for _, s := range r.Ramp {
		if s.System == Ours && s.Delivered > 0.999 && s.Core > 0 && s.Core <= 1 {
			best = max(best, s.Rate/s.Core)
		}
	}
	if best > 0 {
		line := fmt.Sprintf("**One core** forwards %.0f packets of voices a second, all in, at the highest rate above: %.0f voices to a listener each.", best, best/50)
		if i := slices.IndexFunc(r.Scenarios, func(s Scenario) bool { return s.Name == "6x8" }); i >= 0 {
			if c, ok := r.Scenarios[i].Find(Ours); ok && c.Core > 0 {
				line += fmt.Sprintf(" Of small calls as in the first row, where waking up costs the most, it holds %.0f people.", float64(r.Scenarios[i].Sessions)/c.Core)
			}
		}
		lines = append(lines, line)
	}
	for _, i := range r.Idle {
		if i.System == Ours && i.Resident > 0 {
			lines = append(lines, fmt.Sprintf("**One gigabyte** holds %.0f idle sessions; one core keeps %.0f of them alive.", 1e6/i.Resident, 1e6/i.CPU))
		}
	}
	if len(lines) > 0 {
		voices := 1e9 / 8 / float64(84+wireOverhead) / 50
		screens := 1e9 / 8 / float64(1040+wireOverhead) / 180
		lines = append(lines, fmt.Sprintf("**One gigabit** carries %.0f voices or %.0f screens of 1.5 Mbit/s to a receiver each, by their sizes.", voices, screens))
	}
	for _, line := range lines {
		b.WriteString("\n- " + line)
	}
	b.WriteString("\n")
}
