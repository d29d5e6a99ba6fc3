// Command testall runs all tests under the race detector in random order, says loudly which were
// skipped, and ends with the number of tests.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// alone are the packages that are tested when no others are: browsers that encode and decode video
// take all the processors there are, and times of other tests would run out.
const alone = "rtcd/build/browsertest"

// portable is tested once more without what only Linux has.
const portable = "rtcd/service/rtc/netio"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	start := time.Now()
	phases := [][]string{args}
	if len(args) == 0 {
		others, err := packages()
		if err != nil {
			fmt.Fprintln(os.Stderr, "testall:", err)
			return 1
		}
		phases = [][]string{others, {"-tags=portable", portable}, {alone}}
	}
	t := tally{output: make(map[string][]string)}
	for _, args := range phases {
		t.test(args)
	}
	for _, s := range t.skipped {
		fmt.Println("SKIPPED ", s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skipped))
	fmt.Printf("in %s\n", time.Since(start).Round(time.Second))
	if t.failed > 0 {
		return 1
	}
	return 0
}

// packages lists all but those that are tested alone.
func packages() ([]string, error) {
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return p == alone }), nil
}

// tally is what all tests came to.
type tally struct {
	passed, failed int
	skipped        []string
	output         map[string][]string // by package and test
}

// test runs go test on what args name.
func (t *tally) test(args []string) {
	cmd := exec.Command("go", append([]string{
		"test", "-json", "-race", "-shuffle=on", "-timeout=20m",
	}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Println("go test:", err)
		t.failed++
		return
	}
	before := t.failed
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // a build failure, for instance
			continue
		}
		t.take(e)
	}
	if err := cmd.Wait(); err != nil && t.failed == before {
		t.failed++
		fmt.Println("go test:", err)
	}
}

// take counts an event, and prints what is to be seen.
func (t *tally) take(e event) {
	id := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		t.output[id] = append(t.output[id], e.Output)
		return
	case "build-fail":
		fmt.Print(strings.Join(t.output[id], ""))
		return
	case "pass", "skip", "fail":
	default:
		return
	}
	switch {
	case e.Test == "" && e.Action == "pass":
		fmt.Printf("ok    %-40s %6.1fs\n", e.Package, e.Elapsed)
	case e.Test == "" && e.Action == "fail":
		fmt.Printf("FAIL  %s\n%s", e.Package, strings.Join(t.output[id], ""))
	case e.Test == "":
	case e.Action == "pass":
		t.passed++
	case e.Action == "skip":
		t.skipped = append(t.skipped, e.Package+"."+e.Test+": "+reason(t.output[id]))
	case e.Action == "fail":
		t.failed++
		fmt.Printf("FAIL  %s.%s\n%s", e.Package, e.Test, strings.Join(t.output[id], ""))
	}
	delete(t.output, id)
}

// reason is what a skipped test said.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(lines[i])
		if l != "" && !strings.HasPrefix(l, "---") && !strings.HasPrefix(l, "===") {
			return l
		}
	}
	return "no reason given"
}
