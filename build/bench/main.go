//go:build linux

// Command bench measures what forwarding costs: the stages of it one by one, with the benchmarks of
// the packages, and then whole servers under the same load: ours, a fan-out as pion gives it, and bare
// sockets. What it finds goes into docs/performance, and as tables and plots into
// docs/performance.md. It is run in the root of the module. That page says how it measures.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"rtcd/build/bench/report"
)

// options are the flags.
type options struct {
	quick, micro, write bool
	only                string
	fans                string
	profiles            string
	rounds              int
	window              time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "short windows and small numbers, to see that it works; writes no documents")
	flag.BoolVar(&o.micro, "micro", true, "run the benchmarks of the packages too")
	flag.BoolVar(&o.write, "write", true, "write docs/performance and docs/performance.md")
	flag.StringVar(&o.only, "only", "", "measure only what matches this regular expression: a scenario, or ramp, idle, storm, crypto; writes no documents")
	flag.StringVar(&o.fans, "fans", "1,10,100,1000", "receivers of the fan-outs")
	flag.StringVar(&o.profiles, "profiles", "", "existing folder for CPU profiles of rtcd under each load")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds in which each system is measured once")
	flag.DurationVar(&o.window, "window", 0, "how long it is measured in a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan returns how long everything takes.
func (o options) plan() plan {
	p := plan{
		rounds: 5, window: 3 * time.Second, warm: time.Second, check: 3 * time.Second,
		idle: 15 * time.Second, sessions: 300, joins: 200, singles: 30, storms: 3, ramp: 5 * time.Second,
	}
	if o.quick {
		p = plan{
			rounds: 3, window: time.Second, warm: 500 * time.Millisecond, check: time.Second,
			idle: 3 * time.Second, sessions: 60, joins: 50, singles: 10, storms: 1, ramp: 2 * time.Second,
		}
	}
	if o.rounds > 0 {
		p.rounds = o.rounds
	}
	if o.window > 0 {
		p.window = o.window
	}
	p.profiles = o.profiles
	return p
}

func run(ctx context.Context, o options) error {
	wanted, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("read -only: %w", err)
	}
	var fans []int
	for f := range strings.SplitSeq(o.fans, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 {
			return fmt.Errorf("read -fans: %q is no number of receivers", f)
		}
		fans = append(fans, n)
	}
	fmt.Println("bench: takes", o.duration(), "on a machine with two cores; nothing else should run on it")
	begin := time.Now()
	var stages error
	if o.micro {
		stages = micro(ctx, o)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{
		plan: o.plan(),
		rtcd: filepath.Join(dir, "rtcd"), plain: filepath.Join(dir, "plainpion"), raw: filepath.Join(dir, "rawudp"),
		say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", dir, "./cmd/rtcd", "./build/bench/plainpion", "./build/bench/rawudp")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the servers: %w", err)
	}
	r := report.Report{Machine: machine(ctx, begin, o.quick)}
	if stages != nil {
		b.fail(&r, "the stages", stages)
	}
	if err := b.all(ctx, &r, scenarios(fans), wanted); err != nil {
		return err
	}
	r.Machine.Minutes = time.Since(begin).Minutes()
	if o.quick || o.only != "" || !o.write {
		fmt.Println(report.Tables(r))
		return nil
	}
	return document(r)
}

// duration says how long the run takes.
func (o options) duration() string {
	switch {
	case o.only != "":
		return "a minute or two for each load"
	case o.quick:
		return "about 6 minutes"
	}
	return "about 40 minutes"
}

// all measures everything that is wanted.
func (b *bench) all(ctx context.Context, r *report.Report, loads []scenario, wanted *regexp.Regexp) error {
	for _, sc := range loads {
		if !wanted.MatchString(sc.name) {
			continue
		}
		s, err := b.compare(ctx, sc)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail(r, sc.title, err)
			continue
		}
		b.say("%s", report.Line(s))
		r.Scenarios = append(r.Scenarios, s)
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, *report.Report) error
	}{{"crypto", b.crypto}, {"ramp", b.ramps}, {"idle", b.idles}, {"storm", b.stormsOfJoins}} {
		if !wanted.MatchString(part.name) {
			continue
		}
		err := part.run(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail(r, part.name, err)
		}
	}
	return nil
}

// fail notes that something could not be measured. The rest is worth having without it.
func (b *bench) fail(r *report.Report, what string, err error) {
	text := fmt.Sprintf("%s: %.300v", what, err)
	b.say("not measured: %s", text)
	r.Failed = append(r.Failed, text)
}
