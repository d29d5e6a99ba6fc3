package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Plots returns plots in SVG by their file names.
func Plots(r Report) map[string]string {
	out := make(map[string]string)
	if rows := pick(r, false, false); len(rows) > 0 {
		out["calls.svg"] = bars(rows)
	}
	if rows := pick(r, true, false); len(rows) > 0 {
		out["fanout.svg"] = fans(rows)
	}
	if len(r.Ramp) > 0 {
		out["ramp.svg"] = ramps(r.Ramp)
	}
	return out
}

var colours = map[string]string{Ours: "#1a7f37", Plain: "#bc4c00", Sendto: "#57606a", GSO: "#0969da"}

// systems are all that are compared, in the order of legends.
var systems = []string{Ours, Plain, Sendto, GSO}

const style = `<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.g{stroke:#ddd}.l{fill:none;stroke-width:2}</style>`

func open(b *strings.Builder, width, height int) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n%s\n"+`<rect width="100%%" height="100%%" fill="white"/>`+"\n",
		width, height, width, height, style)
}

func legend(b *strings.Builder, x, y int, names []string) {
	for i, name := range names {
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			x+i*140, y-10, colours[name], x+i*140+17, y, name)
	}
}

// bars shows µs for each packet of calls.
func bars(rows []Scenario) string {
	const left, top, width, bar, gap = 300, 60, 460, 16, 18
	most := 0.0
	for _, s := range rows {
		for _, c := range s.Costs {
			most = max(most, c.Net.Median)
		}
	}
	height := top + len(rows)*(4*bar+gap) + 10
	var b strings.Builder
	open(&b, left+width+80, height)
	b.WriteString(`<text class="t" x="10" y="20">CPU of the server for each forwarded packet, µs, idle cost taken off</text>` + "\n")
	legend(&b, 10, 44, systems)
	y := top
	for _, s := range rows {
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text>`+"\n", y+2*bar+4, s.Title)
		for _, name := range systems {
			if c, ok := s.Find(name); ok {
				w := max(0, c.Net.Median) / most * width
				fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d">%.1f</text>`+"\n",
					left, y, w, bar-2, colours[name], left+w+5, y+bar-4, c.Net.Median)
			}
			y += bar
		}
		y += gap
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// point is one of a line.
type point struct{ x, y float64 }

// chart is lines over two axes.
type chart struct {
	title, xTitle string
	lines         map[string][]point
	logY          bool
}

const chartWidth, chartHeight = 420, 300

// draw draws the chart at x, with a logarithmic axis of x.
func (c chart) draw(b *strings.Builder, x0 int) {
	const left, right, top, bottom = 60, 15, 70, 40
	minX, maxX, minY, maxY := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, line := range c.lines {
		for _, p := range line {
			minX, maxX = min(minX, p.x), max(maxX, p.x)
			minY, maxY = min(minY, p.y), max(maxY, p.y)
		}
	}
	if maxX <= 0 || maxY <= 0 {
		return
	}
	scale := func(v, low, high float64, log bool) float64 {
		if log {
			v, low, high = math.Log(v), math.Log(low), math.Log(high)
		}
		if high == low {
			return 0.5
		}
		return (v - low) / (high - low)
	}
	lowY := 0.0
	if c.logY {
		lowY = math.Pow(10, math.Floor(math.Log10(minY)))
		maxY = math.Pow(10, math.Ceil(math.Log10(maxY)))
	}
	px := func(v float64) float64 {
		return float64(x0+left) + scale(v, minX, maxX, true)*(chartWidth-left-right)
	}
	py := func(v float64) float64 {
		return chartHeight - bottom - scale(v, lowY, maxY, c.logY)*(chartHeight-top-bottom)
	}
	fmt.Fprintf(b, `<text class="t" x="%d" y="60">%s</text><text x="%d" y="%d">%s</text>`+"\n", x0+left, c.title, x0+left, chartHeight-6, c.xTitle)
	for _, y := range ticks(lowY, maxY, c.logY) {
		fmt.Fprintf(b, `<path class="g" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`+"\n",
			x0+left, py(y), x0+chartWidth-right, x0+left-6, py(y)+4, y)
	}
	for _, x := range ticks(minX, maxX, true) {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%.4g</text>`+"\n", px(x), chartHeight-bottom+16, x)
	}
	for _, name := range systems {
		line := c.lines[name]
		if len(line) == 0 {
			continue
		}
		fmt.Fprintf(b, `<path class="l" stroke="%s" d="`, colours[name])
		for i, p := range line {
			fmt.Fprintf(b, "%c%.1f %.1f", "ML"[min(i, 1)], px(p.x), py(p.y))
		}
		b.WriteString(`"/>` + "\n")
		for _, p := range line {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px(p.x), py(p.y), colours[name])
		}
	}
}

// ticks returns where an axis has labels.
func ticks(low, high float64, log bool) []float64 {
	var out []float64
	if log {
		for v := math.Pow(10, math.Ceil(math.Log10(low)-1e-9)); v <= high*1.001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	if high/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= high*1.001; v += step {
		out = append(out, v)
	}
	return out
}

func charts(title string, names []string, all ...chart) string {
	var b strings.Builder
	open(&b, len(all)*chartWidth, chartHeight)
	fmt.Fprintf(&b, `<text class="t" x="10" y="18">%s</text>`+"\n", title)
	legend(&b, 10, 38, names)
	for i, c := range all {
		c.draw(&b, i*chartWidth)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// fans shows how the cost of a packet falls with the number of receivers.
func fans(rows []Scenario) string {
	of := func(prefix, title string) chart {
		c := chart{title: title, xTitle: "receivers", lines: make(map[string][]point), logY: true}
		for _, s := range rows {
			var n float64
			if _, err := fmt.Sscanf(s.Name, prefix+"-%g", &n); err != nil {
				continue
			}
			for _, cost := range s.Costs {
				if cost.Net.Median > 0 {
					c.lines[cost.System] = append(c.lines[cost.System], point{n, cost.Net.Median})
				}
			}
		}
		return c
	}
	return charts("CPU of the server for each forwarded packet, µs, idle cost taken off", systems,
		of("audio", "a voice"), of("video", "a video of 1.2 Mbit/s"))
}

// ramps shows what more packets cost.
func ramps(steps []Ramp) string {
	core := chart{title: "share of a core", xTitle: "packets a second", lines: make(map[string][]point)}
	transit := chart{title: "transit, p99, ms", xTitle: "packets a second", lines: make(map[string][]point), logY: true}
	var names []string
	for _, s := range steps {
		if !slices.Contains(names, s.System) {
			names = append(names, s.System)
		}
		core.lines[s.System] = append(core.lines[s.System], point{s.Rate, s.Core})
		if s.Measured > 0 && s.P99 > 0 {
			transit.lines[s.System] = append(transit.lines[s.System], point{s.Rate, s.P99})
		}
	}
	return charts("From 8 senders to 30 receivers each", names, core, transit)
}
