package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// Size of a plot and of what is around its axes, in units of its view box.
const (
	plotWidth, plotHeight   = 640.0, 230.0
	padLeft, padRight       = 52.0, 12.0
	padTop, padBottom       = 10.0, 26.0
	innerWidth, innerHeight = plotWidth - padLeft - padRight, plotHeight - padTop - padBottom
)

// A series is a line of a plot. Values that are negative or no numbers are gaps.
type series struct {
	name, class string
	values      []float64
}

// A chart is a plot with its legend, for the page.
type chart struct {
	Title, Note string
	Legend      []legend
	SVG         template.HTML
}

type legend struct{ Class, Name string }

// canvas makes the SVG of a plot.
type canvas struct {
	b          strings.Builder
	xMax, yMax float64
	format     func(float64) string
}

func newCanvas(label string, xMax, yMax float64, format func(float64) string) *canvas {
	c := &canvas{xMax: max(xMax, 1e-9), yMax: max(yMax, 1e-9), format: format}
	c.add(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, plotWidth, plotHeight, html.EscapeString(label))
	return c
}

func (c *canvas) add(format string, args ...any) {
	_, _ = fmt.Fprintf(&c.b, format, args...) // a Builder takes all
}

func (c *canvas) x(v float64) float64 { return padLeft + v/c.xMax*innerWidth }
func (c *canvas) y(v float64) float64 { return padTop + innerHeight - min(v/c.yMax, 1)*innerHeight }

// axes draws the grid and its numbers.
func (c *canvas) axes(xUnit string) {
	step := niceStep(c.yMax, 4)
	for v := 0.0; v <= c.yMax*1.0001; v += step {
		c.add(`<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, padLeft, c.y(v), plotWidth-padRight, c.y(v))
		c.add(`<text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, padLeft-7, c.y(v)+4, html.EscapeString(c.format(v)))
	}
	step = niceStep(c.xMax, 7)
	for v := 0.0; v <= c.xMax*1.0001; v += step {
		x, anchor := c.x(v), "middle"
		if x > plotWidth-padRight-15 {
			x, anchor = plotWidth, "end"
		}
		c.add(`<text class="tick" x="%.1f" y="%.1f" text-anchor="%s">%s%s</text>`,
			x, plotHeight-8, anchor, number3(v), html.EscapeString(xUnit))
	}
}

func (c *canvas) end() template.HTML {
	c.add(`</svg>`)
	return template.HTML(c.b.String()) // of numbers and escaped text only
}

// niceStep returns a step of 1, 2 or 5 times a power of ten that makes about n steps of a range.
func niceStep(most float64, n int) float64 {
	raw := most / float64(n)
	if !(raw > 0) || math.IsInf(raw, 0) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= raw {
			return m * power
		}
	}
	return 10 * power
}

// niceMax returns the end of an axis for values up to most.
func niceMax(most float64) float64 {
	step := niceStep(most, 4)
	return max(math.Ceil(most/step-1e-9), 1) * step
}

// number3 formats a number with up to three digits behind the point and no more than it has.
func number3(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0") }

// linePlot draws lines over the seconds of a run. The seconds that are measured are marked.
func linePlot(title, note string, over []Second, least float64, format func(float64) string, lines ...series) chart {
	out := chart{Title: title, Note: note}
	most := least
	for _, l := range lines {
		for _, v := range l.values {
			if v > most && !math.IsInf(v, 0) {
				most = v
			}
		}
	}
	end := 1.0
	if len(over) > 0 {
		end = over[len(over)-1].At
	}
	c := newCanvas(title, end, niceMax(most), format)
	if from, to, ok := measured(over); ok {
		c.add(`<rect class="measured" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`,
			c.x(from), padTop, c.x(to)-c.x(from), innerHeight)
	}
	c.axes(" s")
	for _, l := range lines {
		c.line(over, l)
		if len(lines) > 1 {
			out.Legend = append(out.Legend, legend{l.class, l.name})
		}
	}
	c.hints(over, lines)
	out.SVG = c.end()
	return out
}

// measured returns the time in which it was measured.
func measured(over []Second) (from, to float64, ok bool) {
	for i, s := range over {
		if !s.Measured {
			continue
		}
		if !ok && i > 0 {
			from = over[i-1].At
		}
		to, ok = s.At, true
	}
	return from, to, ok
}

func (c *canvas) line(over []Second, l series) {
	var path strings.Builder
	pen := "M"
	for i, v := range l.values {
		if !(v >= 0) {
			pen = "M"
			continue
		}
		_, _ = fmt.Fprintf(&path, "%s%.1f %.1f", pen, c.x(over[i].At), c.y(v))
		pen = "L"
	}
	if path.Len() > 0 {
		c.add(`<path class="line %s" d="%s"/>`, l.class, path.String())
	}
}

// hints lays a strip over each second that says its values when pointed at.
func (c *canvas) hints(over []Second, lines []series) {
	width := innerWidth / float64(max(len(over), 1))
	for i, s := range over {
		parts := []string{fmt.Sprintf("%.0f s, %d people", s.At, s.People)}
		for _, l := range lines {
			if v := l.values[i]; v >= 0 {
				parts = append(parts, fmt.Sprintf("%s: %s", l.name, c.format(v)))
			}
		}
		c.add(`<rect class="hint" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`,
			c.x(s.At)-width/2, padTop, width, innerHeight, html.EscapeString(strings.Join(parts, "\n")))
	}
}

const bins = 24

// histogramPlot draws how often values fall into ranges.
func histogramPlot(title, note, unit string, groups ...series) chart {
	out := chart{Title: title, Note: note}
	most := 0.0
	for _, g := range groups {
		for _, v := range g.values {
			most = max(most, v)
		}
	}
	end := niceMax(most * 1.0001)
	width := end / bins
	counts := make([][bins]float64, len(groups))
	highest := 1.0
	for i, g := range groups {
		for _, v := range g.values {
			if v >= 0 {
				n := &counts[i][min(int(v/width), bins-1)]
				*n++
				highest = max(highest, *n)
			}
		}
	}
	c := newCanvas(title, end, niceMax(highest), number3)
	c.axes(" " + unit)
	bar := innerWidth / bins / float64(len(groups))
	for i, g := range groups {
		for n, count := range counts[i] {
			if count == 0 {
				continue
			}
			x := c.x(float64(n)*width) + float64(i)*bar + 1
			c.add(`<rect class="bar %s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5"><title>%s</title></rect>`,
				g.class, x, c.y(count), bar-1.5, c.y(0)-c.y(count),
				html.EscapeString(fmt.Sprintf("%s: %.0f within %s to %s %s", g.name, count,
					number3(float64(n)*width), number3(float64(n+1)*width), unit)))
		}
		out.Legend = append(out.Legend, legend{g.class, g.name})
	}
	out.SVG = c.end()
	return out
}
