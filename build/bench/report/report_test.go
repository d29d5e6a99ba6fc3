package report

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func example() Report {
	costs := func(ours, plain float64) []Cost {
		spread := func(v float64) Spread { return Spread{Median: v, Min: v / 2, Max: v * 2} }
		return []Cost{
			{System: Ours, Net: spread(ours), Ratio: spread(ours / plain), Core: 0.1, Delivered: 1, Checked: 10, Due: 10},
			{System: Plain, Net: spread(plain), Ratio: spread(1), Delivered: 1, Checked: 9, Due: 10, Gaps: 1},
			{System: Sendto, Net: spread(2)},
			{System: GSO, Net: spread(1)},
		}
	}
	return Report{
		Scenarios: []Scenario{
			{Name: "6x8", Title: "calls", Sessions: 48, Rate: 4200, Costs: costs(4, 40)},
			{Name: "6x8-read", Title: "calls", Reading: true, Costs: costs(5, 50)[:2]},
			{Name: "audio-1", Title: "a voice to 1", Costs: costs(30, 90)},
			{Name: "audio-10", Title: "a voice to 10", Costs: costs(10, 60)},
			{Name: "video-10", Title: "a video to 10", Video: 1, Costs: costs(2, 20)},
		},
		Crypto: []Crypto{{Bytes: 104, Encrypt: 0.5}, {Bytes: 1060, Encrypt: 1.5}},
		Ramp: []Ramp{
			{System: Ours, Rate: 1e4, Core: 0.1, Delivered: 1, P99: 1, Measured: 5},
			{System: Ours, Rate: 1e5, Core: 0.5, Delivered: 1, P99: 2, Measured: 5},
			{System: GSO, Rate: 1e5, Core: 0.2, Delivered: 1},
		},
		Idle:   []Idle{{System: Ours, Sessions: 300, Goroutines: 17, Resident: 200, CPU: 100}},
		Storm:  []Storm{{System: Ours, Joins: 200}},
		Failed: []string{"storm: too many"},
	}
}

func TestTablesSayWhatWasMeasured(t *testing.T) {
	got := Tables(example())
	for _, want := range []string{
		"**1 : 10.0** | 2.7 |", // 4 µs against 40, and 1 + 0.5
		"**1 : 10.0** | 0.8 |", // of a video: 2 µs against 1 + 1.5
		"| rtcd | 50 | 50 | 0 | 0 |",
		"| plain pion | 50 | 45 | 0 | 5 |",
		"forwards 200000 packets", // 100,000 at half a core
		"holds 480 people",        // 48 at a tenth of a core
		"holds 5000 idle sessions",
		"Not measured: storm: too many",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("tables do not say %q:\n%s", want, got)
		}
	}
}

func TestTablesOfNothingAreShort(t *testing.T) {
	if got := Tables(Report{}); strings.Contains(got, "|") || strings.Contains(got, "NaN") {
		t.Errorf("got %q", got)
	}
}

func TestPlotsAreSVG(t *testing.T) {
	plots := Plots(example())
	for _, name := range []string{"calls.svg", "fanout.svg", "ramp.svg"} {
		plot := plots[name]
		if !strings.Contains(plot, "<svg") || strings.Contains(plot, "NaN") || strings.Contains(plot, "Inf") {
			t.Errorf("%s: %.200q", name, plot)
		}
		d := xml.NewDecoder(strings.NewReader(plot))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
}

func TestSpread(t *testing.T) {
	if got := NewSpread([]float64{3, 1, 2}); got != (Spread{Median: 2, Min: 1, Max: 3}) {
		t.Errorf("got %v", got)
	}
	if got := NewSpread([]float64{4, 1}); got != (Spread{Median: 2.5, Min: 1, Max: 4}) {
		t.Errorf("got %v", got)
	}
	if got := NewSpread(nil); got != (Spread{}) {
		t.Errorf("got %v", got)
	}
}

func TestReportsAreReadAsWritten(t *testing.T) {
	path := t.TempDir() + "/bench.json"
	want := example()
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || Tables(got) != Tables(want) {
		t.Errorf("got %v, %v", got, err)
	}
}
