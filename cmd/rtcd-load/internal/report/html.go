package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// A tile is a figure that is shown large.
type tile struct{ Label, Value, Unit, Note, Class string }

// A row is a line of the details.
type row struct{ Label, Value string }

// view is what the page shows.
type view struct {
	R       *Result
	Name    string
	When    string
	Verdict tile
	Tiles   []tile
	Charts  []chart
	Details []row
	Rooms   []row
	Notices []string
}

// WriteHTML writes one page that needs nothing else: styles and plots are in it.
func (r *Result) WriteHTML(w io.Writer) error {
	v := view{R: r, Name: r.Scenario.Name, When: r.Started.Format("2006-01-02 15:04:05 MST")}
	if v.Name == "" {
		v.Name = "Load run"
	}
	v.Verdict = r.verdict()
	v.Tiles, v.Charts, v.Details, v.Rooms = r.tiles(), r.charts(), r.details(), r.rooms()
	if r.Interrupted {
		v.Notices = append(v.Notices, "The run was interrupted: this is what was found until then.")
	}
	if why := r.Generator.Limited; len(why) > 0 {
		v.Notices = append(v.Notices,
			"Generator-limited: "+strings.Join(why, "; ")+". Times and losses are not the server's alone.")
	}
	if !r.People.SessionsOK {
		v.Notices = append(v.Notices, "The server did not confirm the end of each session.")
	}
	if err := page.Execute(w, &v); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

func (r *Result) verdict() tile {
	missed := 0
	for _, j := range r.Objectives {
		if !j.Met {
			missed++
		}
	}
	switch {
	case missed > 0:
		return tile{Value: fmt.Sprintf("%d of %d objectives missed", missed, len(r.Objectives)), Class: "bad"}
	case len(r.Objectives) > 0:
		return tile{Value: fmt.Sprintf("all %d objectives met", len(r.Objectives)), Class: "good"}
	case len(r.Generator.Limited) > 0:
		return tile{Value: "generator-limited", Class: "warn"}
	default:
		return tile{Value: "no objectives", Class: "plain"}
	}
}

func (r *Result) tiles() []tile {
	d, p, u := &r.Delivery, &r.People, &r.ServerUse
	split := func(m Milliseconds) (value, unit string) {
		s := m.String()
		for i := range s {
			if s[i] == ' ' {
				return s[:i], s[i+1:]
			}
		}
		return s, ""
	}
	add := func(to []tile, label string, m Milliseconds, note string) []tile {
		value, unit := split(m)
		return append(to, tile{Label: label, Value: value, Unit: unit, Note: note})
	}
	class := ""
	if d.Lost > 0 {
		class = "warn"
	}
	tiles := []tile{{
		Label: "Packets lost", Value: fmt.Sprintf("%.3g", d.Loss*100), Unit: "%", Class: class,
		Note: fmt.Sprintf("%s of %s", thousands(d.Lost), thousands(d.Expected)),
	}}
	tiles = add(tiles, "One-way delay, p99", r.Delay.P99, fmt.Sprintf("p50 %s, p95 %s", r.Delay.P50, r.Delay.P95))
	tiles = add(tiles, "Join, p99", p.Join.P99, fmt.Sprintf("p50 %s, %d joined", p.Join.P50, p.Joined))
	if r.VideoDelay.Count > 0 {
		tiles = append(tiles, tile{
			Label: "Freezes", Value: fmt.Sprint(r.Video.Freezes), Note: fmt.Sprintf("%.1f s of %s pictures", r.Video.Frozen, thousands(r.Video.Frames)),
		})
	}
	if u.PerPacket >= 0 {
		tiles = append(tiles, tile{
			Label: "Server CPU per packet", Value: fmt.Sprintf("%.1f", u.PerPacket), Unit: "µs",
			Note: fmt.Sprintf("%.1f %% of a core", u.Cores*100),
		})
	}
	if u.RSSMax >= 0 {
		tiles = append(tiles, tile{
			Label: "Server memory", Value: fmt.Sprintf("%.1f", float64(u.RSSMax)/1e6), Unit: "MB",
			Note: "at most; before " + mega(u.RSSIdle),
		})
	}
	class = ""
	if d.Bad+d.Foreign > 0 {
		class = "bad"
	}
	return append(tiles, tile{
		Label: "Bad payloads", Value: thousands(d.Bad + d.Foreign), Class: class, Note: "each of " + thousands(d.Received) + " checked",
	})
}

func (r *Result) charts() []chart {
	column := func(f func(*Second) float64) []float64 {
		out := make([]float64, len(r.Over))
		for i := range r.Over {
			out[i] = f(&r.Over[i])
		}
		return out
	}
	ms := func(v float64) string { return number3(v) + " ms" }
	percent := func(v float64) string { return number3(v) + " %" }
	charts := []chart{
		linePlot("One-way delay", "of each second", r.Over, 1, ms,
			series{"p99", "s3", column(func(s *Second) float64 { return float64(s.P99) })},
			series{"p95", "s2", column(func(s *Second) float64 { return float64(s.P95) })},
			series{"p50", "s1", column(func(s *Second) float64 { return float64(s.P50) })}),
		linePlot("Loss", "in each second, repaired later or not", r.Over, 1, percent,
			series{"loss", "s4", column(func(s *Second) float64 { return s.Loss * 100 })}),
	}
	var open, media []float64
	for _, j := range r.Joins {
		open = append(open, float64(j.Open))
		if j.Media >= 0 {
			media = append(media, float64(j.Media))
		}
	}
	charts = append(charts,
		histogramPlot("Join time", "people, since their join", "ms",
			series{"data channel open", "s1", open}, series{"first media", "s5", media}),
		linePlot("CPU", "of one core", r.Over, 1, percent,
			series{"server", "s1", column(func(s *Second) float64 { return s.ServerCores * 100 })},
			series{"generator", "s5", column(func(s *Second) float64 { return s.OwnCores * 100 })}),
		linePlot("Packets", "a second", r.Over, 1, number3,
			series{"received", "s1", column(func(s *Second) float64 { return float64(s.Received) })},
			series{"sent", "s5", column(func(s *Second) float64 { return float64(s.Sent) })}),
	)
	if r.ServerUse.RSSMax >= 0 {
		mb := func(v float64) string { return number3(v) + " MB" }
		charts = append(charts, linePlot("Server memory", "resident", r.Over, 1, mb,
			series{"resident", "s1", column(func(s *Second) float64 { return float64(s.ServerRSS) / 1e6 })}))
	} else {
		charts = append(charts, linePlot("Lateness of the generator's sending", "p99 of each second", r.Over, 1, ms,
			series{"late", "s5", column(func(s *Second) float64 { return float64(s.Late) })}))
	}
	return charts
}

func (r *Result) details() []row {
	d, p, g := &r.Delivery, &r.People, &r.Generator
	rows := []row{
		{"People", fmt.Sprintf("%d planned in %d rooms, %d joined, %d failed, %d dropped, %d never got anything",
			p.Planned, p.Rooms, p.Joined, p.Failed, p.Dropped, p.NeverHeard)},
		{"Join", p.Join.String()},
		{"First media", p.FirstMedia.String()},
		{"Streams", fmt.Sprintf("%d, of them %d silent", d.Streams, d.Silent)},
	}
	for _, k := range d.ByKind {
		rows = append(rows, row{"Delivery, " + k.Kind, fmt.Sprintf("%s of %s packets, %.3f %% lost",
			thousands(k.Expected-k.Lost), thousands(k.Expected), k.Loss*100)})
	}
	rows = append(rows,
		row{"Withheld by the server", fmt.Sprintf("%s packets (%.3f %%)", thousands(d.Withheld), d.WithheldShare*100)},
		row{"Lost on purpose", thousands(d.OwnLost) + " datagrams"},
		row{"Order", fmt.Sprintf("%s reordered (%.3f %%), %s duplicates, %s late",
			thousands(d.Reordered), d.Reorder*100, thousands(d.Duplicates), thousands(d.Late))},
		row{"Payloads", fmt.Sprintf("%d bad, %d for somebody else", d.Bad, d.Foreign)})
	if r.VoiceDelay.Count > 0 {
		rows = append(rows, row{"Delay of voices", r.VoiceDelay.String()})
	}
	if r.VideoDelay.Count > 0 {
		rows = append(rows, row{"Delay of video", r.VideoDelay.String()}, row{"Video", fmt.Sprintf(
			"%s pictures, %d freezes (%.1f s), %d keyframes asked for", thousands(r.Video.Frames), r.Video.Freezes, r.Video.Frozen, r.Video.Asked)})
	}
	if r.ServerUse.Known {
		rows = append(rows, row{"Server", r.ServerUse.String()})
	}
	return append(rows, row{"Generator", g.String()}, row{"Its WebSocket", fmt.Sprintf("opened again %d times", g.Rejoined)})
}

func (r *Result) rooms() []row {
	var rows []row
	for i := range r.Scenario.Rooms {
		room := &r.Scenario.Rooms[i]
		text := fmt.Sprintf("%d of %d people: %d voices, %d cameras, %d screens",
			room.Count, room.People, room.Voices, room.Cameras, room.Screens)
		if room.Cameras > 0 {
			text += "; camera " + room.Camera.String()
		}
		if room.Screens > 0 {
			text += "; screen " + room.Screen.String()
		}
		if room.Joiners+room.Leavers+room.Muters > 0 {
			text += fmt.Sprintf("; %d joiners, %d leavers, %d muters", room.Joiners, room.Leavers, room.Muters)
		}
		up, down := r.Scenario.Impairments(i)
		if up != down || up.Loss > 0 || up.Delay > 0 || up.Jitter > 0 {
			text += fmt.Sprintf("; up %s, down %s", up, down)
		}
		rows = append(rows, row{room.Name, text})
	}
	return append(rows, row{"measured", fmt.Sprintf("%.1f s of %v", r.Measured, time.Duration(r.Scenario.Duration))})
}

// thousands formats a count with groups of three digits.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
