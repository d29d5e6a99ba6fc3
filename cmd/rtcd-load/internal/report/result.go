// Package report presents what a load run found: as text, JSON and one HTML page, and held against
// service level objectives.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"rtcd/cmd/rtcd-load/internal/scenario"
	"rtcd/cmd/rtcd-load/internal/stats"
)

// Milliseconds is a duration as reports have it.
type Milliseconds float64

// Ms converts a duration.
func Ms(d time.Duration) Milliseconds {
	return Milliseconds(float64(d.Round(time.Microsecond)) / float64(time.Millisecond))
}

// Quantiles sum up many durations.
type Quantiles struct {
	Count uint64       `json:"count"`
	P50   Milliseconds `json:"p50_ms"`
	P95   Milliseconds `json:"p95_ms"`
	P99   Milliseconds `json:"p99_ms"`
	Max   Milliseconds `json:"max_ms"`
}

// Summarize returns the quantiles of a snapshot.
func Summarize(s *stats.Snapshot) Quantiles {
	return Quantiles{
		Count: s.Count, P50: Ms(s.Quantile(0.5)), P95: Ms(s.Quantile(0.95)), P99: Ms(s.Quantile(0.99)), Max: Ms(s.Max()),
	}
}

// A Result is all that a run found. Shares are from 0 to 1.
type Result struct {
	Started     time.Time          `json:"started"`
	Server      string             `json:"server"`
	Version     string             `json:"server_version"`
	Scenario    *scenario.Scenario `json:"scenario"`
	Measured    float64            `json:"measured_seconds"`
	Interrupted bool               `json:"interrupted"`

	People     People     `json:"people"`
	Delivery   Delivery   `json:"delivery"`
	VoiceDelay Quantiles  `json:"voice_delay"`
	VideoDelay Quantiles  `json:"video_delay"`
	Delay      Quantiles  `json:"delay"` // of both
	Video      Video      `json:"video"`
	ServerUse  ServerUse  `json:"server_use"`
	Generator  Generator  `json:"generator"`
	Over       []Second   `json:"seconds"`
	Joins      []Join     `json:"joins"`
	Errors     []string   `json:"errors"` // the first few, each once
	Objectives []Judgment `json:"objectives,omitempty"`
}

// People is what became of those who take part.
type People struct {
	Planned    int       `json:"planned"`
	Joined     int       `json:"joined"`       // their data channel opened
	Failed     int       `json:"failed"`       // could not join, or not publish
	Dropped    int       `json:"dropped"`      // connections and sessions that ended by themselves
	Join       Quantiles `json:"join"`         // from the join's sending to the open data channel
	FirstMedia Quantiles `json:"first_media"`  // from there to the first packet, of those with somebody to hear
	NeverHeard int       `json:"never_heard"`  // joined, should have got something, and got nothing
	Rooms      int       `json:"rooms"`        // calls
	MaxAtOnce  int       `json:"max_at_once"`  // people
	SessionsOK bool      `json:"sessions_end"` // each session's end was told by the server
}

// Delivery is what became of the packets, of the whole run.
type Delivery struct {
	Sent     uint64  `json:"sent"`     // by all senders
	Received uint64  `json:"received"` // by all receivers
	Expected uint64  `json:"expected"` // by all receivers
	Lost     uint64  `json:"lost"`
	Loss     float64 `json:"loss"`
	// Withheld are packets that the server left out without a gap in its own numbers, as it does with
	// video for which a link seems too narrow. They are not lost.
	Withheld      uint64  `json:"withheld"`
	WithheldShare float64 `json:"withheld_share"`
	Silent        int     `json:"silent_streams"` // of which nothing came, though it should have
	Streams       int     `json:"streams"`        // that somebody got or should have got
	Duplicates    uint64  `json:"duplicates"`
	Late          uint64  `json:"late"`
	Reordered     uint64  `json:"reordered"`
	Reorder       float64 `json:"reordered_share"`
	Bad           uint64  `json:"bad"`     // changed payloads
	Foreign       uint64  `json:"foreign"` // payloads that came to somebody they were not for
	OwnLost       uint64  `json:"own_lost"`
	ByKind        []Kind  `json:"by_kind"`
}

// Kind is what became of the packets of one kind of source.
type Kind struct {
	Kind     string  `json:"kind"` // voice, camera or screen
	Streams  int     `json:"streams"`
	Expected uint64  `json:"expected"`
	Lost     uint64  `json:"lost"`
	Loss     float64 `json:"loss"`
}

// Video is what the watchers saw.
type Video struct {
	Frames  uint64  `json:"frames"`
	Freezes uint64  `json:"freezes"`
	Frozen  float64 `json:"frozen_seconds"`
	Asked   uint64  `json:"keyframes_asked"`
}

// ServerUse is what the server consumed while it was measured. What is not known is negative.
type ServerUse struct {
	Known     bool    `json:"known"`
	CPU       float64 `json:"cpu_seconds"`
	Cores     float64 `json:"cores"`         // on average
	Packets   float64 `json:"packets"`       // received from it in that time
	PerPacket float64 `json:"us_per_packet"` // µs of CPU for each of these
	Forwarded float64 `json:"forwarded"`     // packets that it counts as forwarded in that time
	RSS       int64   `json:"rss_bytes"`     // at the end of what was measured
	RSSMax    int64   `json:"rss_max_bytes"`
	RSSIdle   int64   `json:"rss_before_bytes"` // before anybody joined
	JoinCPU   float64 `json:"cpu_ms_per_join"`  // of the time in which people joined, media and all
}

// Generator is how well this process did its own part.
type Generator struct {
	Limited   []string  `json:"limited"`  // why its figures are not the server's alone; empty: they are
	CPU       float64   `json:"cores"`    // on average
	Machine   float64   `json:"machine"`  // share of the whole machine that was busy; negative: not known
	Late      Quantiles `json:"lateness"` // of its sending
	Skipped   uint64    `json:"skipped"`  // packets left out because it was too late for them
	Refused   uint64    `json:"refused"`  // datagrams that the kernel did not take
	Dropped   uint64    `json:"dropped"`  // datagrams that came but were not read in time
	Cores     int       `json:"cpus"`
	Rejoined  uint64    `json:"reconnects"` // of the WebSocket
	Overflows uint64    `json:"overflows"`  // datagrams that found no place to wait for their delay
}

// A Second is what happened in one.
type Second struct {
	At          float64      `json:"at"` // seconds since the beginning, at its end
	Measured    bool         `json:"measured"`
	People      int          `json:"people"`
	Sent        uint64       `json:"sent"`
	Received    uint64       `json:"received"`
	Loss        float64      `json:"loss"`
	P50         Milliseconds `json:"p50_ms"`
	P95         Milliseconds `json:"p95_ms"`
	P99         Milliseconds `json:"p99_ms"`
	Freezes     uint64       `json:"freezes"`
	ServerCores float64      `json:"server_cores"` // negative: not known
	ServerRSS   int64        `json:"server_rss"`   // negative: not known
	OwnCores    float64      `json:"own_cores"`
	Late        Milliseconds `json:"late_p99_ms"`
}

// A Join is one person's.
type Join struct {
	At    float64      `json:"at"` // seconds since the beginning, when it was sent
	Open  Milliseconds `json:"open_ms"`
	Media Milliseconds `json:"media_ms"` // negative: there was nobody to hear, or nothing came
}

// WriteJSON writes the result as JSON.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	return nil
}
