// Package report is what the benchmark comes to: values, and their presentation as JSON, tables
// and plots.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// The systems that are compared.
const (
	Ours   = "rtcd"
	Plain  = "plain pion"
	Sendto = "sendto"
	GSO    = "sendmmsg+GSO"
)

// Report is one run, on one machine.
type Report struct {
	Machine   Machine    `json:"machine"`
	Scenarios []Scenario `json:"scenarios"`
	Crypto    []Crypto   `json:"crypto"`
	Ramp      []Ramp     `json:"ramp"`
	Idle      []Idle     `json:"idle"`
	Storm     []Storm    `json:"storm"`
	Failed    []string   `json:"failed,omitempty"` // what could not be measured, and why
}

// Machine is where and when it ran.
type Machine struct {
	Start   string  `json:"start"` // RFC 3339
	Minutes float64 `json:"minutes"`
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  int     `json:"memoryGiB"`
	Kernel  string  `json:"kernel"`
	Go      string  `json:"go"`
	Commit  string  `json:"commit"`
	Quick   bool    `json:"quick"`
}

// Scenario is the same load on several systems.
type Scenario struct {
	Name     string  `json:"name"`
	Title    string  `json:"title"`
	Sessions int     `json:"sessions"`
	Rate     float64 `json:"rate"`    // packets that are due, in a second
	Video    float64 `json:"video"`   // share of them that is video
	Reading  bool    `json:"reading"` // receivers read, and send feedback
	Load     float64 `json:"load"`    // load average at the end, ours included
	Costs    []Cost  `json:"costs"`
}

// Cost is what a system costs in a scenario.
type Cost struct {
	System    string  `json:"system"`
	Net       Spread  `json:"net"`       // µs of CPU for each packet delivered, without what it costs to be idle
	Gross     Spread  `json:"gross"`     // the same, all in
	Core      float64 `json:"core"`      // share of a core, all in; median
	Idle      float64 `json:"idle"`      // share of a core without media
	Delivered float64 `json:"delivered"` // packets that arrived, of those that were due
	Ratio     Spread  `json:"ratio"`     // of the net cost to plain pion's, round by round

	// What the server says to have forwarded of what was due; 0 of bare sockets, which say nothing.
	Counted float64 `json:"counted"`

	// The phase in which all packets are checked.
	Checked uint64 `json:"checked"` // packets decrypted
	Due     uint64 `json:"due"`     // that should have come
	Bad     uint64 `json:"bad"`     // whose checksum was wrong
	Gaps    uint64 `json:"gaps"`    // that were not the next ones
}

// Spread is what several rounds came to.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// NewSpread returns that of some values.
func NewSpread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Clone(values)
	slices.Sort(v)
	return Spread{Median: (v[(len(v)-1)/2] + v[len(v)/2]) / 2, Min: v[0], Max: v[len(v)-1]}
}

// Crypto is what it costs to encrypt a packet.
type Crypto struct {
	Bytes   int     `json:"bytes"`   // of the plain packet
	Encrypt float64 `json:"encrypt"` // µs
	Decrypt float64 `json:"decrypt"` // µs
}

// Ramp is a system at one rate.
type Ramp struct {
	System    string  `json:"system"`
	Rate      float64 `json:"rate"`      // packets due, in a second
	Delivered float64 `json:"delivered"` // of those due
	Core      float64 `json:"core"`      // share of a core, all in
	Generator float64 `json:"generator"` // share of a core that the load takes
	Net       float64 `json:"net"`       // µs for each packet
	// From the call that sends a packet to its arrival at a receiver's socket, in ms; and the same
	// between two sockets without a server, at the same time.
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Max      float64 `json:"max"`
	BareP50  float64 `json:"bareP50"`
	BareP99  float64 `json:"bareP99"`
	Measured int     `json:"measured"` // packets that were timed
	Load     float64 `json:"load"`
}

// Idle is what a session costs that does nothing.
type Idle struct {
	System     string  `json:"system"`
	Sessions   int     `json:"sessions"`
	Goroutines float64 `json:"goroutines"` // for each session
	Resident   float64 `json:"residentKB"` // 1,000 bytes, for each session
	CPU        float64 `json:"cpu"`        // µs in a second, for each session
}

// Storm is many who join one call at once.
type Storm struct {
	System string  `json:"system"`
	Joins  int     `json:"joins"`
	CPU    Spread  `json:"cpu"`    // ms for each join
	P50    Spread  `json:"p50"`    // ms until the data channel is open
	P99    Spread  `json:"p99"`    // ms
	Single float64 `json:"single"` // ms, median of single joins, one after another
}

// Find returns what a system came to.
func (s Scenario) Find(system string) (Cost, bool) {
	i := slices.IndexFunc(s.Costs, func(c Cost) bool { return c.System == system })
	if i < 0 {
		return Cost{}, false
	}
	return s.Costs[i], true
}

// Read returns the report that a file holds.
func Read(path string) (Report, error) {
	var r Report
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read the report %s: %w", path, err)
	}
	return r, nil
}

// Write puts the report into a file.
func (r Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
