// Package scenario says what happens in a load run: the rooms, who is in them and sends what, who
// comes and goes and when. It reads that from TOML and turns it into a plan.
package scenario

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/BurntSushi/toml"
)

// Sample is a scenario file with all there is to set.
//
//go:embed sample.toml
var Sample string

// A Duration is a time.Duration that is written as text, such as "20s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration, such as \"500ms\" or \"20s\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Impairment is what the generator does to its own packets in one direction.
type Impairment struct {
	Loss   float64  `toml:"loss" json:"loss"`
	Delay  Duration `toml:"delay" json:"delay"`
	Jitter Duration `toml:"jitter" json:"jitter"`
}

// Video describes a camera or screen.
type Video struct {
	Bitrate   int  `toml:"bitrate" json:"bitrate"` // bit/s
	FPS       int  `toml:"fps" json:"fps"`
	Simulcast bool `toml:"simulcast" json:"simulcast"`
}

// Room is a shape of rooms.
type Room struct {
	Name        string   `toml:"name" json:"name"`
	Count       int      `toml:"count" json:"count"`
	People      int      `toml:"people" json:"people"`
	Voices      int      `toml:"voices" json:"voices"`
	Cameras     int      `toml:"cameras" json:"cameras"`
	Screens     int      `toml:"screens" json:"screens"`
	Muters      int      `toml:"muters" json:"muters"`
	MuteEvery   Duration `toml:"mute_every" json:"mute_every"`
	Joiners     int      `toml:"joiners" json:"joiners"`
	JoinersTalk bool     `toml:"joiners_talk" json:"joiners_talk"`
	Leavers     int      `toml:"leavers" json:"leavers"`
	Start       Duration `toml:"start" json:"start"`
	Ramp        Duration `toml:"ramp" json:"ramp"`
	VoiceBytes  int      `toml:"voice_bytes" json:"voice_bytes"`
	Camera      Video    `toml:"camera" json:"camera"`
	Screen      Video    `toml:"screen" json:"screen"`

	Up   *Impairment `toml:"up" json:"up,omitempty"` // nil: that of the scenario
	Down *Impairment `toml:"down" json:"down,omitempty"`
}

// A Scenario is what a load run is to do.
type Scenario struct {
	Name     string     `toml:"name" json:"name"`
	Duration Duration   `toml:"duration" json:"duration"`
	Settle   Duration   `toml:"settle" json:"settle"`
	Up       Impairment `toml:"up" json:"up"`
	Down     Impairment `toml:"down" json:"down"`
	Rooms    []Room     `toml:"rooms" json:"rooms"`
}

// Defaults of what a scenario leaves out.
const (
	DefaultDuration   = 20 * time.Second
	DefaultSettle     = 2 * time.Second
	DefaultMuteEvery  = 5 * time.Second
	DefaultVoiceBytes = 100
)

// DefaultCamera and DefaultScreen are the videos that a scenario says nothing else about.
var (
	DefaultCamera = Video{Bitrate: 800_000, FPS: 25}
	DefaultScreen = Video{Bitrate: 1_500_000, FPS: 15}
)

// Load reads a scenario file and checks it.
func Load(path string) (*Scenario, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", path, err)
	}
	return s, nil
}

// Parse reads a scenario from TOML, fills in what it leaves out and checks it. The error says all
// that is wrong.
func Parse(text string) (*Scenario, error) {
	s := &Scenario{Duration: Duration(DefaultDuration), Settle: Duration(DefaultSettle)}
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
		faults = append(faults, fmt.Errorf("%s: no such setting", key))
	}
	s.fill()
	if err := errors.Join(append(faults, s.Validate())...); err != nil {
		return nil, err
	}
	return s, nil
}

// fill sets what was left out.
func (s *Scenario) fill() {
	for i := range s.Rooms {
		r := &s.Rooms[i]
		if r.Name == "" {
			r.Name = fmt.Sprintf("room%d", i+1)
		}
		setZero(&r.Count, 1)
		setZero(&r.VoiceBytes, DefaultVoiceBytes)
		setZero(&r.MuteEvery, Duration(DefaultMuteEvery))
		setZero(&r.Camera.Bitrate, DefaultCamera.Bitrate)
		setZero(&r.Camera.FPS, DefaultCamera.FPS)
		setZero(&r.Screen.Bitrate, DefaultScreen.Bitrate)
		setZero(&r.Screen.FPS, DefaultScreen.FPS)
	}
}

func setZero[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

// People returns how many people take part in all.
func (s *Scenario) People() int {
	n := 0
	for i := range s.Rooms {
		n += s.Rooms[i].Count * (s.Rooms[i].People + s.Rooms[i].Joiners)
	}
	return n
}

// String formats the video for people.
func (v Video) String() string {
	s := fmt.Sprintf("%d kbit/s, %d pictures/s", v.Bitrate/1000, v.FPS)
	if v.Simulcast {
		s += ", simulcast"
	}
	return s
}

// String formats the impairment for people.
func (i Impairment) String() string {
	return fmt.Sprintf("%.4g %% lost, delay %v + %v", i.Loss*100, time.Duration(i.Delay), time.Duration(i.Jitter))
}
