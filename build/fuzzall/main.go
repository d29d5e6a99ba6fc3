// Command fuzzall runs every fuzz target of the module in turn, each for FUZZTIME (default 30s).
//
//	go run ./build/fuzzall [-count] [-run regexp]
//
// With -count it adds the number of inputs of each to docs/reliability/fuzz.json, from which
// go run ./build/docs -write makes the table in docs/reliability.md.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"

	"rtcd/build/fuzzall/targets"
)

func main() {
	count := flag.Bool("count", false, "add the number of inputs to "+targets.CountFile)
	pattern := flag.String("run", "", "run targets whose folder and name match the `regexp` only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *pattern, *count); err != nil {
		fmt.Fprintln(os.Stderr, "fuzzall:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pattern string, count bool) error {
	chosen, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	all, err := targets.Find(".")
	if err != nil {
		return err
	}
	length := cmp.Or(os.Getenv("FUZZTIME"), "30s")
	ran, failed, total := 0, 0, int64(0)
	for _, t := range all {
		if !chosen.MatchString(t.Key()) || ctx.Err() != nil {
			continue
		}
		ran++
		fmt.Printf("== %s for %s\n", t.Key(), length)
		execs, err := targets.Run(ctx, t, length, os.Stdout)
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "fuzzall:", err)
			failed++
		}
		total += execs
		if count {
			if err := targets.Add(".", t.Key(), execs); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%d fuzz targets, %d inputs, %d failed\n", ran, total, failed)
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d targets failed", failed, ran)
	case ran == 0:
		return fmt.Errorf("no target matches %q", pattern)
	}
	return ctx.Err()
}
