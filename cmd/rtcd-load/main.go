// Command rtcd-load loads a server of this wire with calls and measures what becomes of them. See
// docs/load.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"rtcd/cmd/rtcd-load/internal/load"
	"rtcd/cmd/rtcd-load/internal/probe"
	"rtcd/cmd/rtcd-load/internal/report"
	"rtcd/cmd/rtcd-load/internal/scenario"
)

// Exit codes.
const (
	exitOK     = 0
	exitMissed = 1 // an objective was missed
	exitUsage  = 2 // the command line, the scenario or the objectives are wrong
	exitFailed = 3 // it could not run
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is main with everything it touches handed in. It returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "rtcd-load: %v\n", err)
		return exitUsage
	case o.sample:
		_, _ = io.WriteString(stdout, scenario.Sample)
		return exitOK
	case o.sampleSLO:
		_, _ = io.WriteString(stdout, report.SampleSLO)
		return exitOK
	}
	result, err := carryOut(ctx, o, stderr)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "rtcd-load: %v\n", err)
		return exitFailed
	}
	code := exitOK
	if o.slo != nil && !o.slo.Judge(result) {
		code = exitMissed
	}
	if err := write(result, o, stdout); err != nil {
		_, _ = fmt.Fprintf(stderr, "rtcd-load: %v\n", err)
		return exitFailed
	}
	if result.People.Joined == 0 {
		_, _ = fmt.Fprintln(stderr, "rtcd-load: nobody could join")
		return exitFailed
	}
	return code
}

// carryOut runs the scenario.
func carryOut(ctx context.Context, o *options, stderr io.Writer) (*report.Result, error) {
	server, err := probe.NewServer(ctx, o.pid, o.metrics)
	if err != nil {
		return nil, err
	}
	local, sources, err := o.addresses()
	if err != nil {
		return nil, err
	}
	p := newProgress(stderr, o.quiet)
	defer p.end()
	return load.Run(ctx, load.Options{
		Scenario: o.scenario, Client: o.client, Unregister: o.unregister, Channel: o.channel,
		Server: server, Local: local, Sources: sources, Progress: p.show,
	})
}

// write writes the reports that are asked for.
func write(r *report.Result, o *options, stdout io.Writer) error {
	if err := r.WriteText(stdout); err != nil {
		return err
	}
	for _, out := range []struct {
		path  string
		write func(io.Writer) error
	}{{o.json, r.WriteJSON}, {o.html, r.WriteHTML}} {
		if out.path == "" {
			continue
		}
		f, err := os.Create(out.path)
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		err = out.write(f)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("write report %s: %w", out.path, err)
		}
	}
	return nil
}
