// Command testall runs all tests under the race detector in random order, says loudly which were
// skipped, and ends with the number of tests.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		args = []string{"./..."}
	}
	start := time.Now()
	cmd := exec.Command("go", append([]string{
		"test", "-json", "-race", "-shuffle=on", "-timeout=20m",
	}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testall:", err)
		return 1
	}
	var passed, failed int
	var skipped []string
	output := make(map[string][]string) // by package and test
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // a build failure, for instance
			continue
		}
		id := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[id] = append(output[id], e.Output)
			continue
		case "build-fail":
			fmt.Print(strings.Join(output[id], ""))
			continue
		case "pass", "skip", "fail":
		default:
			continue
		}
		switch {
		case e.Test == "" && e.Action == "pass":
			fmt.Printf("ok    %-40s %6.1fs\n", e.Package, e.Elapsed)
		case e.Test == "" && e.Action == "fail":
			fmt.Printf("FAIL  %s\n%s", e.Package, strings.Join(output[id], ""))
		case e.Test == "":
		case e.Action == "pass":
			passed++
		case e.Action == "skip":
			skipped = append(skipped, e.Package+"."+e.Test+": "+reason(output[id]))
		case e.Action == "fail":
			failed++
			fmt.Printf("FAIL  %s.%s\n%s", e.Package, e.Test, strings.Join(output[id], ""))
		}
		delete(output, id)
	}
	err = cmd.Wait()
	for _, s := range skipped {
		fmt.Println("SKIPPED ", s)
	}
	if err != nil && failed == 0 {
		failed = 1
		fmt.Println("go test:", err)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	fmt.Printf("in %s\n", time.Since(start).Round(time.Second))
	if failed > 0 {
		return 1
	}
	return 0
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
