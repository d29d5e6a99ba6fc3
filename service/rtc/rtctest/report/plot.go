package report

import (
	"fmt"
	"html"
	"strings"
)

// Measures of the plot, in pixels.
const (
	plotWidth   = 860
	nameWidth   = 250
	barWidth    = 250
	barGap      = 50
	rowHeight   = 22
	topMargin   = 60
	chartHeight = 220
	chartLeft   = 60
	chartRight  = plotWidth - 20
)

// Colours, which colour-blind people can tell apart.
const (
	good  = "#0072b2"
	bad   = "#d55e00"
	faint = "#999999"
)

// layerColours are those of the layers from the lowest on.
var layerColours = []string{"#f6d9c4", "#f4eec2", "#cfe6d6"}

// Plot returns a picture (SVG) of the results: for each how many frames were decodable and how long
// the picture stood still, and the course of the one that is named.
func Plot(results []Result, course string) string {
	var timeline *Result
	for i := range results {
		if results[i].Scenario == course && len(results[i].Timeline) > 1 {
			timeline = &results[i]
		}
	}
	height := topMargin + rowHeight*len(results) + 30
	top := height + 50
	if timeline != nil {
		height = top + chartHeight + 60
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#222222">`+"\n",
		plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, height)
	bars(&b, results)
	if timeline != nil {
		chart(&b, timeline, top)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func text(b *strings.Builder, x, y float64, anchor, attributes, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, attributes, html.EscapeString(s))
}

func rect(b *strings.Builder, x, y, width, height float64, fill string) {
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, width, height, fill)
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

// bars draws a row for each result.
func bars(b *strings.Builder, results []Result) {
	const left, right = nameWidth + 10, nameWidth + 10 + barWidth + barGap
	text(b, left, 25, "start", ` font-weight="bold"`, "Decodable frames")
	text(b, right, 25, "start", ` font-weight="bold"`, "Time that the picture stood still")
	bottom := float64(topMargin + rowHeight*len(results))
	for i := range 5 {
		x := float64(i) * barWidth / 4
		line(b, left+x, topMargin-8, left+x, bottom, "#dddddd")
		line(b, right+x, topMargin-8, right+x, bottom, "#dddddd")
		text(b, left+x, topMargin-14, "middle", fmt.Sprintf(` font-size="11" fill="%s"`, faint), fmt.Sprintf("%d %%", 25*i))
		text(b, right+x, topMargin-14, "middle", fmt.Sprintf(` font-size="11" fill="%s"`, faint), fmt.Sprintf("%d %%", 25*i))
	}
	for i, r := range results {
		y := float64(topMargin + rowHeight*i)
		text(b, nameWidth, y+14, "end", "", r.Scenario)
		width := r.Ratio() * barWidth
		rect(b, left, y+3, width, rowHeight-7, good)
		text(b, left+width-5, y+14, "end", ` font-size="11" fill="#ffffff"`, percent(r.Ratio()))
		width = 0
		if r.Seconds > 0 {
			width = min(1, r.Frozen/r.Seconds) * barWidth
		}
		rect(b, right, y+3, width, rowHeight-7, bad)
		text(b, right+width+5, y+14, "start", ` font-size="11"`, fmt.Sprintf("%s in %d", seconds(r.Frozen), r.Freezes))
	}
}

// chart draws the course of a result, with its upper edge at top.
func chart(b *strings.Builder, r *Result, top int) {
	samples := r.Timeline
	begin, end := samples[0].At, samples[len(samples)-1].At
	highest := 0
	for _, s := range samples {
		highest = max(highest, s.Bitrate)
	}
	step := 500_000
	highest = (highest/step + 1) * step
	x := func(at float64) float64 { return chartLeft + (at-begin)/(end-begin)*(chartRight-chartLeft) }
	y := func(bps int) float64 {
		return float64(top+chartHeight) - float64(min(bps, highest))/float64(highest)*chartHeight
	}
	text(b, chartLeft, float64(top-12), "start", ` font-weight="bold"`, r.Scenario+": what the viewer is sent")
	bands(b, samples, x, top)
	for bps := 0; bps <= highest; bps += step {
		line(b, chartLeft, y(bps), chartRight, y(bps), "#dddddd")
		text(b, chartLeft-6, y(bps)+4, "end", ` font-size="11"`, fmt.Sprint(bps/1000))
	}
	text(b, 14, float64(top+chartHeight/2), "middle", fmt.Sprintf(` font-size="11" transform="rotate(-90 14 %d)"`, top+chartHeight/2), "kbit/s")
	for at := 0.0; at <= end; at += 2 {
		text(b, x(at), float64(top+chartHeight+16), "middle", ` font-size="11"`, fmt.Sprintf("%.0f s", at))
	}
	var limit, rate strings.Builder
	for i, s := range samples {
		if s.Limit > 0 {
			if i > 0 && samples[i-1].Limit != s.Limit {
				fmt.Fprintf(&limit, "%.1f,%.1f ", x(s.At), y(samples[i-1].Limit))
			}
			fmt.Fprintf(&limit, "%.1f,%.1f ", x(s.At), y(s.Limit))
		}
		fmt.Fprintf(&rate, "%.1f,%.1f ", x(s.At), y(s.Bitrate))
	}
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" stroke-dasharray="6 4" points="%s"/>`+"\n", bad, strings.TrimSpace(limit.String()))
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", good, strings.TrimSpace(rate.String()))
	legend(b, float64(top+chartHeight+42), fmt.Sprintf("link, as far as %d kbit/s", highest/1000))
}

// bands colours the background by the layer that is shown.
func bands(b *strings.Builder, samples []Sample, x func(float64) float64, top int) {
	for from := 0; from < len(samples)-1; {
		to := from + 1
		for to < len(samples)-1 && samples[to].Layer == samples[from].Layer {
			to++
		}
		if layer := samples[from].Layer; layer >= 0 && layer < len(layerColours) {
			left, right := x(samples[from].At), x(samples[to].At)
			rect(b, left, float64(top), right-left, chartHeight, layerColours[layer])
		}
		from = to
	}
}

func legend(b *strings.Builder, y float64, limit string) {
	at := float64(chartLeft)
	for i, name := range []string{"lowest layer", "middle layer", "best layer"} {
		rect(b, at, y-11, 14, 14, layerColours[i])
		text(b, at+20, y, "start", ` font-size="11"`, name)
		at += 105
	}
	line(b, at, y-4, at+24, y-4, good)
	text(b, at+30, y, "start", ` font-size="11"`, "video, over the last second")
	at += 200
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="6 4"/>`+"\n", at, y-4, at+24, y-4, bad)
	text(b, at+30, y, "start", ` font-size="11"`, limit)
}
