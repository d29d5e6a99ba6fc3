package report

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteText writes the result for a terminal.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		_, _ = fmt.Fprintf(&b, "%-12s %s\n", label, fmt.Sprintf(format, args...)) // a Builder takes all
	}
	p, d, g, u := &r.People, &r.Delivery, &r.Generator, &r.ServerUse
	name := r.Scenario.Name
	if name == "" {
		name = "run"
	}
	line("scenario", "%s: %d people in %d rooms, %s of %s measured", name, p.Planned, p.Rooms,
		time.Duration(r.Measured*float64(time.Second)).Round(100*time.Millisecond), time.Duration(r.Scenario.Duration))
	line("server", "%s %s", r.Server, r.Version)
	line("people", "%d joined, %d failed, %d dropped, %d never got anything", p.Joined, p.Failed, p.Dropped, p.NeverHeard)
	line("join", "%s", p.Join)
	if p.FirstMedia.Count > 0 {
		line("first media", "%s", p.FirstMedia)
	}
	line("delivery", "%d of %d packets, %.3f %% lost; %d of %d streams silent",
		d.Expected-d.Lost, d.Expected, d.Loss*100, d.Silent, d.Streams)
	if len(d.ByKind) > 1 {
		for _, k := range d.ByKind {
			line("", "%s: %d of %d packets, %.3f %% lost", k.Kind, k.Expected-k.Lost, k.Expected, k.Loss*100)
		}
	}
	if d.Withheld > 0 {
		line("", "%d packets withheld by the server (%.3f %%): it left no gap for them", d.Withheld, d.WithheldShare*100)
	}
	if d.OwnLost > 0 {
		line("", "%d datagrams were lost on purpose", d.OwnLost)
	}
	line("order", "%d reordered (%.3f %%), %d duplicates, %d late", d.Reordered, d.Reorder*100, d.Duplicates, d.Late)
	line("payloads", "%d bad, %d for somebody else", d.Bad, d.Foreign)
	if r.VoiceDelay.Count > 0 {
		line("voice delay", "%s", r.VoiceDelay)
	}
	if r.VideoDelay.Count > 0 {
		line("video delay", "%s", r.VideoDelay)
		line("video", "%d pictures, %d freezes (%.1f s), %d keyframes asked for",
			r.Video.Frames, r.Video.Freezes, r.Video.Frozen, r.Video.Asked)
	}
	if u.Known {
		line("server use", "%s", u)
	}
	line("generator", "%s", g)
	for _, why := range g.Limited {
		line("", "generator-limited: %s", why)
	}
	for _, e := range r.Errors {
		line("error", "%s", e)
	}
	if !p.SessionsOK {
		line("error", "the server did not confirm the end of each session")
	}
	for _, j := range r.Objectives {
		verdict := "met"
		if !j.Met {
			verdict = "MISSED"
		}
		line("objective", "%-20s %s: want %s, got %s", j.Name, verdict, j.Want, j.Got)
	}
	if r.Interrupted {
		line("", "interrupted: this is what was found until then")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// String formats the quantiles for people.
func (q Quantiles) String() string {
	return fmt.Sprintf("p50 %s  p95 %s  p99 %s  max %s  (%d)", q.P50, q.P95, q.P99, q.Max, q.Count)
}

// String formats the duration with three digits.
func (m Milliseconds) String() string {
	switch {
	case m < 0:
		return "–"
	case m < 10:
		return fmt.Sprintf("%.2f ms", float64(m))
	case m < 100:
		return fmt.Sprintf("%.1f ms", float64(m))
	case m < 10_000:
		return fmt.Sprintf("%.0f ms", float64(m))
	default:
		return fmt.Sprintf("%.1f s", float64(m)/1000)
	}
}

// String formats what the server consumed.
func (u *ServerUse) String() string {
	var parts []string
	if u.CPU >= 0 {
		parts = append(parts, fmt.Sprintf("%.1f %% of a core", u.Cores*100))
	}
	if u.PerPacket >= 0 {
		parts = append(parts, fmt.Sprintf("%.1f µs of CPU per forwarded packet (%.0f)", u.PerPacket, u.Packets))
	}
	if u.Forwarded >= 0 {
		parts = append(parts, fmt.Sprintf("%.0f packets forwarded by its own count", u.Forwarded))
	}
	if u.JoinCPU >= 0 {
		parts = append(parts, fmt.Sprintf("%.1f ms of CPU per join", u.JoinCPU))
	}
	if u.RSS >= 0 {
		parts = append(parts, fmt.Sprintf("%s resident (%s before)", mega(u.RSS), mega(u.RSSIdle)))
	}
	if len(parts) == 0 {
		return "not known"
	}
	return strings.Join(parts, ", ")
}

func mega(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// String formats how the generator did.
func (g *Generator) String() string {
	s := fmt.Sprintf("%.1f %% of a core, %d CPUs", g.CPU*100, g.Cores)
	if g.Machine >= 0 {
		s += fmt.Sprintf(", machine %.0f %% busy", g.Machine*100)
	}
	return s + fmt.Sprintf(", sending late by p99 %s, %d left out, %d refused, %d unread",
		g.Late.P99, g.Skipped, g.Refused, g.Dropped+g.Overflows)
}
