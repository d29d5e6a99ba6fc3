package report_test

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"rtcd/service/rtc/rtctest/report"
)

var results = []report.Result{
	{Scenario: "clean", Seconds: 10, Frames: 100, Decodable: 100, Pictures: 25, Best: 1, Down: -1, Voice: 500},
	{
		Scenario: "a < b", Seconds: 10, Frames: 200, Decodable: 199, Freezes: 2, Frozen: 1.3, Best: 0.1, Down: 0.9, Up: 4.2,
		Resent: 7, Voice: 500, Lost: 5,
		Timeline: []report.Sample{{At: 0, Layer: 2, Bitrate: 1_500_000, Limit: 300_000}, {At: 0.1, Layer: 0, Limit: 3_000_000}},
	},
	{Scenario: "nothing came", Seconds: 10, Down: 0.1, Up: -1},
}

func TestReadWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := report.Write(path, results); err != nil {
		t.Fatal(err)
	}
	got, err := report.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, results) {
		t.Errorf("got %+v, want %+v", got, results)
	}
	if _, err := report.Read(path + ".none"); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func TestTable(t *testing.T) {
	got := report.Table(results)
	for _, row := range []string{
		"| clean | 100 % | 25.0 | 0 | 0.0 s | 100 % | stays | – | 0 | 0 % |\n",
		"| a < b | 99.5 % | 0.0 | 2 | 1.3 s | 10.0 % | 0.9 s | 4.2 s | 7 | 1.0 % |\n",
		"| nothing came | 0 % | 0.0 | 0 | 0.0 s | 0 % | – | not | 0 | 0 % |\n",
	} {
		if !strings.Contains(got, row) {
			t.Errorf("no row %q in\n%s", row, got)
		}
	}
}

func TestPlotIsXML(t *testing.T) {
	for _, course := range []string{"a < b", "clean", ""} {
		plot := report.Plot(results, course)
		d := xml.NewDecoder(strings.NewReader(plot))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("course %q: %v in\n%s", course, err, plot)
			}
		}
		if got, want := strings.Count(plot, "<polyline"), 0; course != "a < b" && got != want {
			t.Errorf("course %q: %d lines, want none", course, got)
		}
		if !strings.Contains(plot, "a &lt; b") {
			t.Error("a name is missing or not escaped")
		}
	}
}
