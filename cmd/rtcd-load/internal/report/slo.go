package report

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/BurntSushi/toml"

	"rtcd/cmd/rtcd-load/internal/scenario"
)

// SampleSLO is a file of objectives with all there are.
//
//go:embed slo.toml
var SampleSLO string

// SLO are service level objectives: the most that a run may show. What is nil is not asked for.
type SLO struct {
	LossMax         *float64           `toml:"loss_max"`      // share
	WithheldMax     *float64           `toml:"withheld_max"`  // share
	ReorderedMax    *float64           `toml:"reordered_max"` // share
	BadMax          *float64           `toml:"bad_max"`       // payloads, those for somebody else among them
	SilentMax       *float64           `toml:"silent_max"`    // streams
	FreezesMax      *float64           `toml:"freezes_max"`
	FailedMax       *float64           `toml:"failed_max"`  // people
	DroppedMax      *float64           `toml:"dropped_max"` // people
	DelayP50Max     *scenario.Duration `toml:"delay_p50_max"`
	DelayP95Max     *scenario.Duration `toml:"delay_p95_max"`
	DelayP99Max     *scenario.Duration `toml:"delay_p99_max"`
	JoinP50Max      *scenario.Duration `toml:"join_p50_max"`
	JoinP99Max      *scenario.Duration `toml:"join_p99_max"`
	FirstMediaP99   *scenario.Duration `toml:"first_media_p99_max"`
	CPUPerPacketMax *scenario.Duration `toml:"cpu_per_packet_max"` // needs the server's process or metrics
	RSSMax          *float64           `toml:"rss_max"`            // bytes; likewise
	// Unlimited asks that the generator was not the bottleneck.
	Unlimited *bool `toml:"generator_unlimited"`
}

// A Judgment is what became of one objective.
type Judgment struct {
	Name string `json:"name"`
	Want string `json:"want"` // such as "at most 10ms"
	Got  string `json:"got"`
	Met  bool   `json:"met"`
}

// LoadSLO reads a file of objectives.
func LoadSLO(path string) (*SLO, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read objectives: %w", err)
	}
	s, err := ParseSLO(string(text))
	if err != nil {
		return nil, fmt.Errorf("objectives %s: %w", path, err)
	}
	return s, nil
}

// ParseSLO reads objectives from TOML.
func ParseSLO(text string) (*SLO, error) {
	s := &SLO{}
	meta, err := toml.Decode(text, s)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("line %d: %s", syntax.Position.Line, syntax.Message)
		}
		return nil, err
	}
	var faults []error
	for _, key := range meta.Undecoded() {
		faults = append(faults, fmt.Errorf("%s: no such objective", key))
	}
	for _, n := range s.numbers(&Result{}) {
		if n.most != nil && !(*n.most >= 0) {
			faults = append(faults, fmt.Errorf("%s: %v, must not be negative", n.name, *n.most))
		}
	}
	for _, d := range s.durations(&Result{}) {
		if d.most != nil && *d.most < 0 {
			faults = append(faults, fmt.Errorf("%s: %v, must not be negative", d.name, time.Duration(*d.most)))
		}
	}
	if len(meta.Keys()) == 0 {
		faults = append(faults, errors.New("there are none"))
	}
	return s, errors.Join(faults...)
}

type number struct {
	name string
	most *float64
	got  float64 // negative: not known
}

type span struct {
	name  string
	most  *scenario.Duration
	got   time.Duration // negative: not known
	empty bool          // nothing was measured that it could be of
}

func (s *SLO) numbers(r *Result) []number {
	return []number{
		{"loss_max", s.LossMax, r.Delivery.Loss},
		{"withheld_max", s.WithheldMax, r.Delivery.WithheldShare},
		{"reordered_max", s.ReorderedMax, r.Delivery.Reorder},
		{"bad_max", s.BadMax, float64(r.Delivery.Bad + r.Delivery.Foreign)},
		{"silent_max", s.SilentMax, float64(r.Delivery.Silent)},
		{"freezes_max", s.FreezesMax, float64(r.Video.Freezes)},
		{"failed_max", s.FailedMax, float64(r.People.Failed)},
		{"dropped_max", s.DroppedMax, float64(r.People.Dropped)},
		{"rss_max", s.RSSMax, float64(r.ServerUse.RSSMax)},
	}
}

func (s *SLO) durations(r *Result) []span {
	perPacket := time.Duration(r.ServerUse.PerPacket * float64(time.Microsecond))
	return []span{
		{"delay_p50_max", s.DelayP50Max, r.Delay.P50.duration(), r.Delay.Count == 0},
		{"delay_p95_max", s.DelayP95Max, r.Delay.P95.duration(), r.Delay.Count == 0},
		{"delay_p99_max", s.DelayP99Max, r.Delay.P99.duration(), r.Delay.Count == 0},
		{"join_p50_max", s.JoinP50Max, r.People.Join.P50.duration(), r.People.Join.Count == 0},
		{"join_p99_max", s.JoinP99Max, r.People.Join.P99.duration(), r.People.Join.Count == 0},
		{"first_media_p99_max", s.FirstMediaP99, r.People.FirstMedia.P99.duration(), r.People.FirstMedia.Count == 0},
		{"cpu_per_packet_max", s.CPUPerPacketMax, perPacket, !r.ServerUse.Known},
	}
}

func (m Milliseconds) duration() time.Duration {
	return time.Duration(float64(m) * float64(time.Millisecond))
}

// Judge holds a result against the objectives, stores what became of each in it, and reports whether
// all are met. What was not measured is not met.
func (s *SLO) Judge(r *Result) bool {
	r.Objectives = nil
	all := true
	add := func(j Judgment) {
		all = all && j.Met
		r.Objectives = append(r.Objectives, j)
	}
	for _, n := range s.numbers(r) {
		if n.most == nil {
			continue
		}
		j := Judgment{Name: n.name, Want: fmt.Sprintf("at most %.6g", *n.most), Got: "not measured"}
		if n.got >= 0 {
			j.Got, j.Met = fmt.Sprintf("%.6g", n.got), n.got <= *n.most
		}
		add(j)
	}
	for _, d := range s.durations(r) {
		if d.most == nil {
			continue
		}
		j := Judgment{Name: d.name, Want: "at most " + time.Duration(*d.most).String(), Got: "not measured"}
		if d.got >= 0 && !d.empty {
			j.Got, j.Met = d.got.String(), d.got <= time.Duration(*d.most)
		}
		add(j)
	}
	if s.Unlimited != nil && *s.Unlimited {
		j := Judgment{Name: "generator_unlimited", Want: "yes", Got: "yes", Met: true}
		if len(r.Generator.Limited) > 0 {
			j.Got, j.Met = "no", false
		}
		add(j)
	}
	return all
}
