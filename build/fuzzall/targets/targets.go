// Package targets finds the fuzz targets of the module, runs them and keeps count of what they were given.
package targets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Target is a fuzz target.
type Target struct {
	Folder string // of its package, from the root of the module
	Name   string
	Seeds  int // files in testdata/fuzz; those that the target adds itself are not counted
}

// Key names the target in the counts.
func (t Target) Key() string { return t.Folder + " " + t.Name }

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// Find returns all targets below root, by folder and name.
func Find(root string) ([]Target, error) {
	var out []Target
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") && e.Name() != "." && file != root || e.Name() == "testdata"):
			return fs.SkipDir
		case !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			t := Target{Folder: filepath.ToSlash(folder), Name: string(m[1])}
			seeds, err := os.ReadDir(filepath.Join(filepath.Dir(file), "testdata", "fuzz", t.Name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			t.Seeds = len(seeds)
			out = append(out, t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for fuzz targets: %w", err)
	}
	slices.SortFunc(out, func(a, b Target) int { return strings.Compare(a.Key(), b.Key()) })
	return out, nil
}

// Run runs a target for a length such as 30s or 1000x, and returns how many inputs it was given. It
// returns an error if one of them was found to be bad. What the go command prints goes to out.
func Run(ctx context.Context, t Target, length string, out io.Writer) (execs int64, err error) {
	// A small bound on minimising: interesting inputs are many, and time is for finding.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.Name+"$",
		"-fuzztime", length, "-fuzzminimizetime", "10x", "./"+path.Clean(t.Folder))
	var all bytes.Buffer
	cmd.Stdout = io.MultiWriter(out, &all)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	if err != nil && outOfTime(all.String()) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("fuzz %s: %w", t.Key(), err)
	}
	return executions(all.Bytes()), err
}

var counted = regexp.MustCompile(`execs: (\d+)`)

// executions returns the last count in what the go command printed.
func executions(out []byte) (n int64) {
	if all := counted.FindAllSubmatch(out, -1); all != nil {
		n, _ = strconv.ParseInt(string(all[len(all)-1][1]), 10, 64)
	}
	return n
}

// outOfTime reports whether a run failed only because its time was over in the middle of an input:
// the go command then says so and writes no failing input.
func outOfTime(out string) bool {
	return strings.Contains(out, "context deadline exceeded") &&
		!strings.Contains(out, "Failing input") && !strings.Contains(out, "panic") && !strings.Contains(out, "fatal error")
}

// CountFile has the counts of all runs that were counted.
const CountFile = "docs/reliability/fuzz.json"

// Counts is how many inputs each target was given so far, by its key.
type Counts map[string]int64

// ReadCounts reads counts. There may be none yet.
func ReadCounts(root string) (Counts, error) {
	b, err := os.ReadFile(filepath.Join(root, CountFile))
	if errors.Is(err, fs.ErrNotExist) {
		return make(Counts), nil
	}
	c := make(Counts)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return nil, fmt.Errorf("read counts of fuzzing: %w", err)
	}
	return c, nil
}

// Add adds to the counts that are on disk: a run takes long, and another may have ended meanwhile.
func Add(root, key string, execs int64) error {
	c, err := ReadCounts(root)
	if err != nil {
		return err
	}
	c[key] += execs
	b, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return fmt.Errorf("write counts of fuzzing: %w", err)
	}
	name := filepath.Join(root, CountFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write counts of fuzzing: %w", err)
	}
	if err := os.WriteFile(name+".new", append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write counts of fuzzing: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("write counts of fuzzing: %w", err)
	}
	return nil
}
