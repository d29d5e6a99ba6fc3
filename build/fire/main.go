//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"rtcd/build/fire/field"
)

// Exit statuses.
const (
	statusPass    = 0
	statusFail    = 1
	statusUsage   = 2
	statusSkipped = 4 // nothing was shown: never to be taken for a pass
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// options are those of the command line.
type options struct {
	quick, json, list, clean, write bool
	ci                              bool
	pattern, out, from              string
	seed                            uint64
	soak                            time.Duration
	share                           float64
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("fire", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "fewer faults and a smaller load, in less than 10 minutes")
	flags.BoolVar(&o.ci, "ci", false, "the most telling scenarios, in less than 3 minutes, for the checks of each change")
	full := flags.Bool("full", false, "the counts of the promises (the default)")
	flags.StringVar(&o.pattern, "run", "", "run scenarios whose id or promises match the `regexp` only")
	flags.StringVar(&o.out, "out", "", "write a line of JSON for each scenario, the table, and the logs of servers into this `folder`")
	flags.StringVar(&o.from, "from", "", "run nothing: make the table from lines of JSON of runs before, the last of each scenario, in this `file`")
	flags.BoolVar(&o.json, "json", false, "print the lines of JSON and nothing else")
	flags.BoolVar(&o.list, "list", false, "list the scenarios")
	flags.BoolVar(&o.clean, "clean", false, "take away what runs have left that were killed, and end")
	flags.BoolVar(&o.write, "write", false, "write the table into docs/reliability.md")
	flags.Float64Var(&o.share, "share", 1, "part of the counts and times of a full run, where that is more than those of -quick")
	flags.DurationVar(&o.soak, "soak", 0, "how long the soak of P20 is (default 8h, 20s with -quick)")
	flags.Uint64Var(&o.seed, "seed", rand.Uint64N(1<<32), "seed of all chance")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *full && (o.quick || o.ci) || o.quick && o.ci || flags.NArg() > 0 {
		return o, errors.New("fire: one of -ci, -quick and -full, and no arguments")
	}
	if o.soak < 0 {
		return o, fmt.Errorf("fire: a soak of %v", o.soak)
	}
	o.quick = o.quick || o.ci
	if !(o.share > 0 && o.share <= 1) || o.share < 1 && o.quick {
		return o, fmt.Errorf("fire: a share of %v is outside 0 to 1, or beside -quick or -ci", o.share)
	}
	return o, nil
}

func run(ctx context.Context, args []string) int {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return statusPass
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return statusUsage
	}
	chosen, err := choose(o.pattern)
	chosen = slices.DeleteFunc(chosen, func(s scenario) bool {
		return o.ci && !slices.Contains(telling, s.id) || o.quick && o.pattern == "" && slices.Contains(lengthy, s.id)
	})
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "fire:", err)
		return statusUsage
	case o.list:
		total := 0
		for _, s := range chosen {
			total += budgets[s.id]
			fmt.Printf("%-4s %4d s  %-92s %v\n", s.id, budgets[s.id], s.title, s.promises)
		}
		fmt.Printf("     %4d s  with -quick, on two processors that do nothing else\n", total)
		return statusPass
	}
	if o.from != "" {
		return retell(o)
	}
	if err := field.Missing(); err != nil {
		fmt.Fprintf(os.Stderr, "\nfire: SKIPPED, NOTHING WAS SHOWN: %v\n\n", err)
		return statusSkipped
	}
	found, err := field.Clean()
	for _, f := range found {
		fmt.Fprintln(os.Stderr, "fire: took away what a run before left:", f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fire: clean up:", err)
	}
	if o.clean {
		return statusPass
	}
	status, err := burn(ctx, o, chosen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fire:", err)
		return statusFail
	}
	return status
}

// retell makes the table of runs before.
func retell(o options) int {
	results, err := read(o.from)
	if err == nil {
		t := tabulate(results)
		fmt.Print(t.text())
		if o.write {
			err = document(t, !slices.ContainsFunc(results, func(r result) bool { return !r.Quick }))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fire:", err)
		return statusFail
	}
	return statusOf(results)
}

// read returns the last result of each scenario in a file.
func read(path string) ([]result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	last := make(map[string]result)
	for line := range bytes.Lines(b) {
		var r result
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		last[r.Scenario] = r
	}
	var out []result
	for _, s := range scenarios {
		if r, ok := last[s.id]; ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// choose returns the scenarios that match.
func choose(pattern string) ([]scenario, error) {
	re, err := regexp.Compile("^(" + pattern + ")$")
	if err != nil {
		return nil, err
	}
	var out []scenario
	for _, s := range scenarios {
		if pattern == "" || re.MatchString(s.id) || slices.ContainsFunc(s.promises, re.MatchString) {
			out = append(out, s)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("no scenario matches %q", pattern)
	}
	return out, nil
}

// burn builds the server, runs scenarios and prints what became of them.
func burn(ctx context.Context, o options, chosen []scenario) (int, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("fire-%d-", os.Getpid()))
	if err != nil {
		return statusFail, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "rtcd")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/rtcd")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return statusFail, fmt.Errorf("build rtcd: %w", err)
	}
	var lines io.Writer = io.Discard
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o755); err != nil {
			return statusFail, err
		}
		f, err := os.Create(filepath.Join(o.out, "fire.jsonl"))
		if err != nil {
			return statusFail, err
		}
		defer func() { _ = f.Close() }()
		lines = f
	}
	var people io.Writer = os.Stdout
	if o.json {
		people = io.Discard
	}
	var results []result
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		_, _ = fmt.Fprintf(people, "%s %s\n", s.id, s.title)
		r := play(ctx, s, &trial{quick: o.quick, ci: o.ci, binary: binary, seed: o.seed, soak: o.soak, share: o.share, log: people, out: o.out})
		results = append(results, r)
		line, err := json.Marshal(r)
		if err != nil {
			return statusFail, err
		}
		_, _ = fmt.Fprintf(os.Stdout, "%s\n", line)
		_, _ = fmt.Fprintf(lines, "%s\n", line)
		_, _ = fmt.Fprintf(people, "    %s%s\n", verdictOf(r), reasons(r))
	}
	table := tabulate(results)
	_, _ = fmt.Fprintf(people, "\n%s", table.text())
	if o.out != "" {
		if err := os.WriteFile(filepath.Join(o.out, "promises.md"), []byte(table.markdown()), 0o644); err != nil {
			return statusFail, err
		}
	}
	if o.write {
		if err := document(table, o.quick); err != nil {
			return statusFail, err
		}
	}
	return statusOf(results), ctx.Err()
}

// statusOf is the exit status: what was not shown is not passed.
func statusOf(results []result) int {
	status := statusPass
	for _, r := range results {
		switch r.Verdict {
		case fail, fault:
			return statusFail
		case skip:
			status = statusSkipped
		}
	}
	return status
}
