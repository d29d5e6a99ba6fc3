// Package report is what calls on impaired links came to: values that a test measures, and their
// presentation as JSON, as a table and as a plot.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Result is what a viewer got in one scenario. Times are in seconds.
type Result struct {
	Scenario string  `json:"scenario"`
	Seconds  float64 `json:"seconds"` // that the link was impaired

	Frames    int     `json:"frames"`    // of which something came
	Decodable int     `json:"decodable"` // of these
	Pictures  float64 `json:"pictures"`  // shown, in each second
	Freezes   int     `json:"freezes"`
	Frozen    float64 `json:"frozen"`
	Bitrate   int     `json:"bitrate"` // mean, bit/s

	Best  float64 `json:"best"`  // share of the time in which the best layer was shown
	Lower int     `json:"lower"` // lowest layer that was shown
	Down  float64 `json:"down"`  // until a lower layer was shown for the first time; -1: none was
	Up    float64 `json:"up"`    // after the impairment, until the best layer was shown; 0: it was, -1: it did not come

	Asked    int `json:"asked"`    // packets that the viewer asked the server for again
	Resent   int `json:"resent"`   // by the server
	Repaired int `json:"repaired"` // packets that came in the repair stream first
	Keys     int `json:"keys"`     // keyframes that the viewer asked for

	Voice     int `json:"voice"`     // packets sent
	Lost      int `json:"lost"`      // of these
	LateVoice int `json:"lateVoice"` // of these: sent after the first 2 s
	LateLost  int `json:"lateLost"`

	// After the impairment.
	AfterFrames    int     `json:"afterFrames"` // from the third second on
	AfterDecodable int     `json:"afterDecodable"`
	Recovered      float64 `json:"recovered"` // from when on the best layer was shown without a break

	Timeline []Sample `json:"timeline,omitempty"`
}

// Sample is one moment of a scenario.
type Sample struct {
	At      float64 `json:"at"`      // seconds since the beginning of the impairment
	Layer   int     `json:"layer"`   // shown; -1: none yet
	Bitrate int     `json:"bitrate"` // of the video in the second before, bit/s
	Limit   int     `json:"limit"`   // of the link, bit/s; 0: none
	Age     float64 `json:"age"`     // of the picture that is shown, seconds
}

// Ratio returns the share of the frames that was decodable.
func (r Result) Ratio() float64 { return ratio(r.Decodable, r.Frames) }

// VoiceLoss returns the share of the voice's packets that was lost.
func (r Result) VoiceLoss() float64 { return ratio(r.Lost, r.Voice) }

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// Read returns the results that a file holds.
func Read(path string) ([]Result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var out []Result
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read results of %s: %w", path, err)
	}
	return out, nil
}

// Write puts results into a file, a scenario or a sample a line.
func Write(path string, results []Result) error {
	var b strings.Builder
	b.WriteString("[\n")
	for i, r := range results {
		timeline := r.Timeline
		r.Timeline = nil
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		b.WriteString(strings.TrimSuffix(string(line), "}"))
		for k, s := range timeline {
			sample, err := json.Marshal(s)
			if err != nil {
				return fmt.Errorf("write results: %w", err)
			}
			if k == 0 {
				b.WriteString(`,"timeline":[`)
			}
			fmt.Fprintf(&b, "\n  %s", sample)
			if k < len(timeline)-1 {
				b.WriteString(",")
			} else {
				b.WriteString("\n]")
			}
		}
		b.WriteString("}")
		if i < len(results)-1 {
			b.WriteString(",")
		}
		b.WriteString("\n")
	}
	b.WriteString("]\n")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// Table returns the results as a table in Markdown.
func Table(results []Result) string {
	rows := [][]string{
		{"Scenario", "Decodable", "Pictures/s", "Freezes", "Frozen", "Best layer", "Down after", "Up after", "Sent again", "Voice lost"},
		{"---", "--:", "--:", "--:", "--:", "--:", "--:", "--:", "--:", "--:"},
	}
	for _, r := range results {
		rows = append(rows, []string{
			r.Scenario, percent(r.Ratio()), fmt.Sprintf("%.1f", r.Pictures), fmt.Sprint(r.Freezes),
			seconds(r.Frozen), percent(r.Best), down(r), up(r),
			fmt.Sprint(r.Resent), percent(r.VoiceLoss()),
		})
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

func percent(share float64) string {
	if share == 1 || share == 0 {
		return fmt.Sprintf("%.0f %%", share*100)
	}
	return fmt.Sprintf("%.1f %%", min(share*100, 99.9))
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }

// down says when the best layer was left.
func down(r Result) string {
	switch {
	case r.Down < 0:
		return "stays"
	case r.Best == 0:
		return "–" // it was never there
	default:
		return seconds(r.Down)
	}
}

// up says when the best layer came back.
func up(r Result) string {
	switch {
	case r.Down < 0:
		return "–"
	case r.Up < 0:
		return "not"
	default:
		return seconds(r.Up)
	}
}
