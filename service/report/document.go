package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Schema is the version of a Document. Fields may be added without another one.
const Schema = 1

// Bounds of what a report shows.
const (
	maxDocumentPoints = 20_000 // of all sessions of a document together
	leastPoints       = 20     // of one
	maxFindings       = 500
)

// A Document is a report for programs.
type Document struct {
	Schema    int       `json:"schema"`
	CallID    string    `json:"callID"`
	StartedAt string    `json:"startedAt"`
	EndedAt   string    `json:"endedAt,omitempty"` // not while it goes on
	MadeAt    string    `json:"madeAt"`
	Summary   []string  `json:"summary"` // sentences, the worst first
	Findings  []Trouble `json:"findings"`
	// How many findings and sessions there are beside those listed.
	MoreFindings    int             `json:"moreFindings,omitempty"`
	OmittedSessions int             `json:"omittedSessions,omitempty"`
	Columns         []string        `json:"columns"` // of each point of a session
	Sessions        []SessionSeries `json:"sessions"`
}

// Trouble is a finding of a document.
type Trouble struct {
	Kind       Kind     `json:"kind"`
	Leg        Leg      `json:"leg"`
	SessionID  string   `json:"sessionID,omitempty"`
	UserID     string   `json:"userID,omitempty"`
	From       string   `json:"from"`
	To         string   `json:"to"`
	Confidence float64  `json:"confidence"`
	Text       string   `json:"text"`
	Evidence   Evidence `json:"evidence"`
}

// SessionSeries is a session of a document.
type SessionSeries struct {
	SessionID      string    `json:"sessionID"`
	UserID         string    `json:"userID,omitempty"`
	Network        string    `json:"network,omitempty"`
	JoinedAt       string    `json:"joinedAt"`
	LeftAt         string    `json:"leftAt,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	Events         []Happens `json:"events"`
	MoreEvents     int       `json:"moreEvents,omitempty"`
	UnknownSeconds int       `json:"unknownSeconds,omitempty"`
	Points         [][]int64 `json:"points"`
}

// Happens is an event of a document.
type Happens struct {
	At     string    `json:"at"`
	Kind   EventKind `json:"kind"`
	Stream string    `json:"stream,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// columns name the numbers of a point of a document, in their order.
var columns = []string{
	"unix", "seconds", "connected", "roundTripMs",
	"upPackets", "upKilobits", "upLost", "upRepaired", "upJitterMs", "upDelayMs", "upMostDelayMs", "upQuietMs",
	"downPackets", "downTold", "downLost", "downResent", "downJitterMs", "downDelayMs", "downMostDelayMs",
	"downEstimateKilobits", "videos", "videosReduced", "videosPaused",
}

func (p *Point) row() []int64 {
	u, d := &p.Up, &p.Down
	span := int64(max(1, p.Span))
	return []int64{
		p.Unix, span, int64(p.State & Connected), int64(p.RoundTrip),
		int64(u.Packets), int64(u.Bytes) / 125 / span, int64(u.Lost), int64(u.Repaired), int64(u.Jitter), int64(u.Delay),
		int64(p.High.UpDelay), int64(p.High.Quiet),
		int64(d.Packets), int64(d.Told), int64(d.Lost), int64(d.Resent), int64(d.Jitter), int64(d.Delay),
		int64(p.High.DownDelay), int64(d.Estimate), int64(d.Videos), int64(d.Reduced), int64(d.Paused),
	}
}

// Document makes a report for programs of a call and what was found in it.
func (c *Call) Document(findings []Finding) *Document {
	d := &Document{
		Schema: Schema, CallID: c.ID, StartedAt: stamp(c.Started), MadeAt: stamp(c.Now),
		Summary: c.Summary(findings), Findings: []Trouble{}, OmittedSessions: c.Omitted,
		Columns: columns, Sessions: []SessionSeries{},
	}
	if c.Ended != 0 {
		d.EndedAt = stamp(c.Ended)
	}
	d.MoreFindings = max(0, len(findings)-maxFindings)
	for _, f := range findings[:min(len(findings), maxFindings)] {
		d.Findings = append(d.Findings, Trouble{
			Kind: f.Kind, Leg: f.Leg, SessionID: f.Session, UserID: c.userOf(f.Session), From: stamp(f.From * 1000), To: stamp(f.To * 1000),
			Confidence: math.Round(f.Confidence*100) / 100, Text: c.Sentence(&f), Evidence: f.Evidence.rounded(),
		})
	}
	each := max(leastPoints, maxDocumentPoints/max(1, len(c.Sessions)))
	for i := range c.Sessions {
		s := &c.Sessions[i]
		out := SessionSeries{
			SessionID: s.ID, UserID: s.User, Network: s.Network, JoinedAt: stamp(s.Joined), Reason: s.Reason,
			Events: []Happens{}, MoreEvents: s.More, UnknownSeconds: s.Unknown, Points: [][]int64{},
		}
		if s.Left != 0 {
			out.LeftAt = stamp(s.Left)
		}
		for _, e := range s.Events {
			out.Events = append(out.Events, Happens{stamp(e.Unix), e.Kind, e.Stream, e.Detail})
		}
		for _, p := range thin(s.Points, each) {
			out.Points = append(out.Points, p.row())
		}
		d.Sessions = append(d.Sessions, out)
	}
	return d
}

func (e Evidence) rounded() Evidence {
	e.LossPercent = math.Round(e.LossPercent*10) / 10
	return e
}

// thin returns points in such numbers at most, each of as many seconds as that takes.
func thin(points []Point, most int) []Point {
	if len(points) <= most {
		return points
	}
	n := (len(points) + most - 1) / most
	out := make([]Point, 0, most)
	for chunk := range slices.Chunk(points, n) {
		out = append(out, merge(chunk))
	}
	return out
}

func stamp(milli int64) string { return time.UnixMilli(milli).UTC().Format("2006-01-02T15:04:05.000Z") }

func clock(unix int64) string { return time.Unix(unix, 0).UTC().Format("15:04:05") }

func (c *Call) userOf(session string) string {
	for i := range c.Sessions {
		if c.Sessions[i].ID == session {
			return c.Sessions[i].User
		}
	}
	return ""
}

// nameOf is what people are shown of a session.
func (c *Call) nameOf(session string) string {
	if user := c.userOf(session); user != "" {
		return user
	}
	return session
}

// Summary says in sentences what went wrong, the worst first, of each leg once for each kind.
func (c *Call) Summary(findings []Finding) []string {
	var out []string
	for i := range findings {
		if len(out) == 5 {
			if more := len(findings) - i; more > 0 {
				out = append(out, fmt.Sprintf("%d more findings are listed below.", more))
			}
			return out
		}
		out = append(out, c.Sentence(&findings[i]))
	}
	if len(out) == 0 {
		out = append(out, "Nothing was found wrong with any leg of this call.")
	}
	return out
}

// Sentence says what a finding is.
func (c *Call) Sentence(f *Finding) string {
	e, who := &f.Evidence, c.nameOf(f.Session)
	from, to := clock(f.From), clock(f.To)
	when := from + "–" + to + " "
	whose := who + "’s " + string(f.Leg)
	if f.Leg == Path {
		whose = who + "’s connection"
	}
	heard := ""
	if f.Leg == Uplink && f.Receivers > 0 {
		heard = ": everybody got gaps of " + who
	}
	switch f.Kind {
	case Loss:
		text := fmt.Sprintf("%s%s lost %.0f %% of its packets", when, whose, math.Max(1, e.LossPercent))
		if f.Leg == Downlink {
			return text + ": only " + who + " got gaps."
		}
		return text + heard + "."
	case Delay:
		switch {
		case f.Leg == Path:
			return fmt.Sprintf("%s%s was slow: %d ms there and back; the direction cannot be told.", when, whose, e.RoundTripMs)
		case e.DelayMs >= e.JitterMs:
			return fmt.Sprintf("%s%s took %d ms longer than usual%s.", when, whose, e.DelayMs, late(f, who))
		}
		return fmt.Sprintf("%s%s was unsteady, with %d ms of jitter%s.", when, whose, e.JitterMs, late(f, who))
	case Rate:
		text := fmt.Sprintf("%s%s was full: %d kbit/s came through", when, whose, e.Kilobits)
		if e.UsualKilobits > e.Kilobits*11/10 {
			text += fmt.Sprintf(" instead of %d", e.UsualKilobits)
		}
		if e.LossPercent >= 1 {
			text += fmt.Sprintf(", %.0f %% were lost", e.LossPercent)
		}
		if f.Leg == Downlink && e.ReducedSeconds > 0 {
			text += fmt.Sprintf("; videos were sent in less than the best for %d s", e.ReducedSeconds)
		}
		return text + heard + "."
	case Disconnect:
		return fmt.Sprintf("%s%s was cut: nothing came for up to %.0f s.", when, whose, math.Ceil(float64(e.QuietMs)/1000))
	case Restart:
		times := "once"
		if e.Times > 1 {
			times = fmt.Sprint(e.Times, " times")
		}
		return fmt.Sprintf("%s%s was made anew or moved %s.", when, whose, times)
	case Fallback:
		return when + "the media of " + who + " went over TCP: UDP did not get through. Losses then show as delays."
	case Stall:
		text := fmt.Sprintf("%sthe server was slow, by up to %d ms", when, e.LateMs)
		if e.Packets > 0 {
			text += fmt.Sprintf(", and could not send %d packets", e.Packets)
		}
		return text + "."
	case Refused:
		return fmt.Sprintf("%s%s sent more than the server takes: %d packets were refused.", when, who, e.Packets)
	case Silence:
		return when + "the voice of " + who + " was on, but nothing was to be heard: the microphone or its access, not the network."
	case Freeze:
		return fmt.Sprintf("%sthe picture of %s stood still: %d keyframes were asked for and none came.", when, who, e.KeyframesAsked)
	case NotConnected:
		return when + who + " never got a connection: no packet of its media came through."
	}
	return when + whose + ": " + strings.ToLower(string(f.Kind)) + "."
}

// late says who noticed a delay.
func late(f *Finding, who string) string {
	if f.Leg == Downlink {
		return ": only " + who + " noticed"
	}
	if f.Receivers > 0 {
		return ": everybody heard " + who + " late"
	}
	return ""
}
