package report

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var page = template.Must(template.New("report").Parse(pageHTML))

// PagePolicy is the Content-Security-Policy of a page: it loads nothing and runs nothing.
var PagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// Bounds of a page.
const (
	maxRows         = 150 // of the time line
	maxDetails      = 40  // sessions with plots
	maxPageFindings = 100
	plotPoints      = 240
)

// Places on the time line and in plots, in units of the drawing.
const (
	lineLeft, lineRight = 204.0, 1050.0
	rowHeight           = 40.0
	plotLeft, plotRight = 34.0, 500.0
	plotTop             = 16.0
)

type tickView struct {
	X, Y float64
	Text string
}

type barView struct {
	X, Y, W, H   float64
	Class, Title string
}

type laneView struct {
	Leg            string
	X, Y, W, TextY float64
	Bars           []barView
}

type rowView struct {
	Name  string
	NameY float64
	Lanes []laneView
	Dots  []barView
}

type lineView struct {
	Height float64
	Ticks  []tickView
	Rows   []rowView
}

type findingView struct{ When, Leg, Class, Text, Evidence, Sure string }

type gridView struct {
	Y, TextY float64
	Text     string
}

type curveView struct{ Class, Path string }

type plotView struct {
	Title  string
	Height float64
	Shades []barView
	Grid   []gridView
	Marks  []barView
	Curves []curveView
	Ticks  []tickView
}

type legView struct {
	Name  string
	Plots []plotView
}

type eventView struct{ At, What string }

type detailView struct {
	Name, Facts string
	Open        bool
	Legs        []legView
	Events      []eventView
	MoreEvents  int
}

type pageView struct {
	Policy                                string
	Style                                 template.CSS
	Call, Day, Began, Until, Lasted, Made string
	Running                               bool
	People, Omitted, Hidden, More         int
	Lead                                  string
	Rest                                  []string
	Line                                  lineView
	Findings                              []findingView
	Details                               []detailView
}

// Page writes a report for people: one HTML file that needs nothing else.
func (c *Call) Page(w io.Writer, findings []Finding) error {
	summary := c.Summary(findings)
	v := pageView{
		Policy: PagePolicy, Style: template.CSS(pageCSS), Call: c.ID,
		Day: day(c.Started), Began: clock(c.Started / 1000), Until: clock(c.Now / 1000),
		Lasted:  (time.Duration(c.Now-c.Started) * time.Millisecond).Round(time.Second).String(),
		Running: c.Ended == 0, Made: day(c.Now) + " " + clock(c.Now/1000),
		People: len(c.Sessions), Omitted: c.Omitted, Lead: summary[0], Rest: summary[1:],
		More: max(0, len(findings)-maxPageFindings),
	}
	for i := range findings[:min(len(findings), maxPageFindings)] {
		f := &findings[i]
		v.Findings = append(v.Findings, findingView{
			When: clock(f.From) + "–" + clock(f.To), Leg: string(f.Leg), Class: f.class(), Text: withoutTime(c.Sentence(f)),
			Evidence: f.Evidence.String(), Sure: fmt.Sprintf("%.0f %%", f.Confidence*100),
		})
	}
	order := c.ranked(findings)
	v.Hidden = max(0, len(order)-maxRows)
	v.Line = c.line(order[:min(len(order), maxRows)], findings)
	for n, i := range order[:min(len(order), maxDetails)] {
		s := &c.Sessions[i]
		v.Details = append(v.Details, c.detail(s, findings, n < 3 && has(findings, s.ID)))
	}
	return page.Execute(w, v)
}

func day(milli int64) string { return time.UnixMilli(milli).UTC().Format("2 January 2006") }

// withoutTime leaves the times out that stand before a sentence.
func withoutTime(s string) string {
	_, rest, _ := strings.Cut(s, " ")
	return rest
}

func has(findings []Finding, session string) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Session == session })
}

// ranked lists the sessions: those with findings first, the worst first of all.
func (c *Call) ranked(findings []Finding) []int {
	weight := make(map[string]float64)
	for _, f := range findings {
		weight[f.Session] += f.Weight * f.Confidence
	}
	order := make([]int, len(c.Sessions))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		wa, wb := weight[c.Sessions[a].ID], weight[c.Sessions[b].ID]
		switch {
		case wa > wb:
			return -1
		case wa < wb:
			return 1
		}
		return 0
	})
	return order
}

// class is the colour of a finding.
func (f *Finding) class() string {
	switch f.Kind {
	case Loss:
		return "loss"
	case Delay:
		return "delay"
	case Rate:
		return "rate"
	case Disconnect, NotConnected:
		return "cut"
	case Stall:
		return "server"
	}
	return "info"
}

// String lists the figures that matter.
func (e Evidence) String() string {
	var out []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(e.LossPercent >= 0.1, "%.1f %% lost (%d packets)", e.LossPercent, e.Lost)
	add(e.Repaired > 0, "%d sent again", e.Repaired)
	add(e.DelayMs > 5, "+%d ms one way, up to %d", e.DelayMs, max(e.DelayMs, e.MostDelayMs))
	add(e.RoundTripMs > 0, "round trip %d ms, at best %d", e.RoundTripMs, e.UsualRoundTripMs)
	add(e.JitterMs > 5, "jitter up to %d ms", e.JitterMs)
	add(e.Kilobits > 0, "%d kbit/s, before %d", e.Kilobits, e.UsualKilobits)
	add(e.EstimateKilobits > 0, "carries about %d kbit/s", e.EstimateKilobits)
	add(e.ReducedSeconds > 0, "videos reduced for %d s", e.ReducedSeconds)
	add(e.QuietMs >= 1000, "nothing for %d ms", e.QuietMs)
	add(e.KeyframesAsked > 0, "%d keyframes asked for", e.KeyframesAsked)
	add(e.LateMs > 0, "%d ms late", e.LateMs)
	add(e.Packets > 0, "%d packets", e.Packets)
	return strings.Join(out, ", ")
}

// line draws the time line.
func (c *Call) line(order []int, findings []Finding) lineView {
	begin, end := c.Started/1000, max(c.Now/1000, c.Started/1000+1)
	x := func(unix int64) float64 {
		at := float64(min(max(unix, begin), end)-begin) / float64(end-begin)
		return round(lineLeft + at*(lineRight-lineLeft))
	}
	v := lineView{}
	for _, t := range ticks(begin, end, 8) {
		v.Ticks = append(v.Ticks, tickView{X: x(t), Text: label(t, end-begin)})
	}
	y := 24.0
	bars := func(session string, y float64, is func(*Finding) bool) (out []barView) {
		for i := range findings {
			f := &findings[i]
			if f.Session != session || !is(f) {
				continue
			}
			from, to := x(f.From), x(f.To)
			out = append(out, barView{X: from, Y: y, W: math.Max(3, round(to-from)), Class: f.class(), Title: c.Sentence(f)})
		}
		return out
	}
	if has(findings, "") {
		v.Rows = append(v.Rows, rowView{Name: "server", NameY: y + 10, Lanes: []laneView{{
			X: lineLeft, Y: y, W: lineRight - lineLeft, TextY: y + 9, Bars: bars("", y, func(*Finding) bool { return true }),
		}}})
		y += 22
	}
	for _, i := range order {
		s := &c.Sessions[i]
		from, to := x(s.Joined/1000), lineRight
		if s.Left != 0 {
			to = x(s.Left / 1000)
		}
		row := rowView{Name: short(c.nameOf(s.ID), 20), NameY: y + 16}
		for k, leg := range []Leg{Uplink, Downlink} {
			at := y + float64(k)*14
			row.Lanes = append(row.Lanes, laneView{
				Leg: string(leg[:len(leg)-4]), X: from, Y: at, W: math.Max(2, round(to-from)), TextY: at + 9,
				Bars: bars(s.ID, at, func(f *Finding) bool { return f.Leg == leg || f.Leg == Path }),
			})
		}
		for _, e := range s.Events[:min(len(s.Events), 60)] {
			row.Dots = append(row.Dots, barView{X: x(e.Unix / 1000), Y: y + 29, Title: clock(e.Unix/1000) + " " + e.what()})
		}
		v.Rows = append(v.Rows, row)
		y += rowHeight
	}
	v.Height = y
	return v
}

func (e *Event) what() string {
	what := e.Kind.String()
	if e.Stream != "" {
		what += " " + e.Stream
	}
	if e.Detail != "" {
		what += ": " + e.Detail
	}
	return what
}

// detail shows one session.
func (c *Call) detail(s *Session, findings []Finding, open bool) detailView {
	v := detailView{Name: c.nameOf(s.ID), Open: open, MoreEvents: s.More}
	facts := []string{"session " + short(s.ID, 40)}
	if s.Network != "" {
		facts = append(facts, s.Network)
	}
	facts = append(facts, "joined "+clock(s.Joined/1000))
	if s.Left != 0 {
		facts = append(facts, "left "+clock(s.Left/1000)+" ("+s.Reason+")")
	}
	v.Facts = strings.Join(facts, " · ")
	for _, e := range s.Events {
		v.Events = append(v.Events, eventView{clock(e.Unix / 1000), e.what()})
	}
	points := thin(s.Points, plotPoints)
	if len(points) == 0 {
		return v
	}
	d := drawing{call: c, session: s, findings: findings, points: points}
	d.begin, d.end = points[0].Unix-int64(points[0].Span), points[len(points)-1].Unix
	up := legView{Name: "Uplink: what came", Plots: []plotView{
		d.plot(Uplink, "packets lost, %", 4, true, false,
			series{"area", func(p *Point) float64 { return 100 * p.Up.Loss() }}),
		d.plot(Uplink, "ms: one-way delay above the usual, round trip, jitter", 40, false, false,
			series{"three", func(p *Point) float64 { return float64(p.Up.Jitter) }},
			series{"two", func(p *Point) float64 { return known(p.RoundTrip) }},
			series{"one", func(p *Point) float64 { return float64(p.Up.Delay) }}),
		d.plot(Uplink, "kbit/s: received", 100, false, true,
			series{"one", func(p *Point) float64 { return float64(p.Up.Bytes) / 125 / float64(p.Span) }}),
	}}
	down := legView{Name: "Downlink: what was sent", Plots: []plotView{
		d.plot(Downlink, "packets lost, %", 4, true, false,
			series{"area", func(p *Point) float64 { return 100 * p.Down.Loss() }}),
		d.plot(Downlink, "ms: one-way delay above the usual, round trip, jitter as it told", 40, false, false,
			series{"three", func(p *Point) float64 { return float64(p.Down.Jitter) }},
			series{"two", func(p *Point) float64 { return known(p.RoundTrip) }},
			series{"one", func(p *Point) float64 { return float64(p.Down.Delay) }}),
		d.plot(Downlink, "kbit/s: sent, and what the way carries", 100, false, true,
			series{"three", func(p *Point) float64 { return known(p.Down.Estimate) }},
			series{"one", func(p *Point) float64 { return float64(p.Down.Bytes) / 125 / float64(p.Span) }}),
	}}
	v.Legs = []legView{up, down}
	return v
}

// known makes a gap of what is not known.
func known(v uint32) float64 {
	if v == 0 {
		return math.NaN()
	}
	return float64(v)
}

// drawing is what the plots of a session have in common.
type drawing struct {
	call       *Call
	session    *Session
	findings   []Finding
	points     []Point
	begin, end int64
}

type series struct {
	class string
	of    func(*Point) float64 // NaN: a gap
}

func (d *drawing) x(unix int64) float64 {
	return round(plotLeft + float64(min(max(unix, d.begin), d.end)-d.begin)/float64(max(1, d.end-d.begin))*(plotRight-plotLeft))
}

// plot draws curves over time. least is the least that the axis goes up to; with times the axis of time is
// drawn, too.
func (d *drawing) plot(leg Leg, title string, least float64, low, times bool, curves ...series) plotView {
	height := 70.0
	if low {
		height = 44
	}
	top := least
	for _, s := range curves {
		for i := range d.points {
			if y := s.of(&d.points[i]); y > top {
				top = y
			}
		}
	}
	top = nice(top)
	y := func(v float64) float64 { return round(plotTop + height*(1-min(v, top)/top)) }
	v := plotView{Title: title, Height: plotTop + height + 8}
	for i := range d.findings {
		f := &d.findings[i]
		if f.Session == d.session.ID && (f.Leg == leg || f.Leg == Path) && f.To > d.begin && f.From < d.end {
			v.Shades = append(v.Shades, barView{X: d.x(f.From), W: math.Max(2, round(d.x(f.To)-d.x(f.From))), H: height, Class: f.class()})
		}
	}
	for _, g := range []float64{0, top} {
		v.Grid = append(v.Grid, gridView{Y: y(g), TextY: y(g) + 4, Text: strconv.FormatFloat(g, 'f', -1, 64)})
	}
	for _, e := range d.session.Events[:min(len(d.session.Events), 40)] {
		if at := e.Unix / 1000; at >= d.begin && at <= d.end && e.notable() {
			v.Marks = append(v.Marks, barView{X: d.x(at), Y: plotTop + height, Title: clock(at) + " " + e.what()})
		}
	}
	for _, s := range curves {
		v.Curves = append(v.Curves, curveView{s.class, d.path(s, y)})
	}
	if times {
		v.Height += 10
		for _, t := range ticks(d.begin, d.end, 5) {
			v.Ticks = append(v.Ticks, tickView{X: d.x(t), Y: plotTop + height + 14, Text: label(t, d.end-d.begin)})
		}
	}
	return v
}

// notable reports whether an event is worth a line in plots.
func (e *Event) notable() bool {
	switch e.Kind {
	case Disconnected, Reconnected, Moved, Restarted, Reduced, Restored, LimitHit:
		return true
	}
	return false
}

// path is a curve as SVG has it. Areas are closed; a gap in time, or of what is known, begins another.
func (d *drawing) path(s series, y func(float64) float64) string {
	var b strings.Builder
	num := func(f float64) { b.WriteString(strconv.FormatFloat(f, 'f', -1, 64)) }
	area := s.class == "area"
	open, last, lastX := false, int64(0), 0.0
	stop := func() {
		if open && area {
			b.WriteByte('L')
			num(lastX)
			b.WriteByte(' ')
			num(y(0))
			b.WriteByte('Z')
		}
		open = false
	}
	for i := range d.points {
		p := &d.points[i]
		v := s.of(p)
		if math.IsNaN(v) || open && p.Unix-int64(p.Span)-last > 3 {
			stop()
		}
		if math.IsNaN(v) {
			continue
		}
		at := d.x(p.Unix)
		switch {
		case open:
			b.WriteByte('L')
		case area:
			b.WriteByte('M')
			num(at)
			b.WriteByte(' ')
			num(y(0))
			b.WriteByte('L')
		default:
			b.WriteByte('M')
		}
		num(at)
		b.WriteByte(' ')
		num(y(v))
		open, last, lastX = true, p.Unix, at
	}
	stop()
	return b.String()
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// nice returns the next of 1, 2, 4, 5, 8 times a power of ten.
func nice(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 4, 5, 8, 10} {
		if v <= step*power {
			return step * power
		}
	}
	return 10 * power
}

// ticks returns some round times within.
func ticks(begin, end int64, most int64) []int64 {
	step := int64(3600 * 24)
	for _, s := range []int64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800} {
		if (end-begin)/s <= most {
			step = s
			break
		}
	}
	var out []int64
	for t := (begin + step - 1) / step * step; t <= end && int64(len(out)) <= most; t += step {
		out = append(out, t)
	}
	return out
}

// label writes a time of a scale of so many seconds.
func label(unix, scale int64) string {
	if scale < 600 {
		return clock(unix)
	}
	return clock(unix)[:5]
}

// short cuts what is too long for its place.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return cut(s, n-1) + "…"
}
