//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rtcd/build/fire/edges"
	"rtcd/build/fuzzall/targets"
)

// What tests of the packages inject already is run from here, so that it stands in the table with a
// count.

var powerLoss = scenario{
	id: "F2", title: "loss of power during registrations", promises: []string{"P2"},
	criterion: "every registration that was acknowledged is in the copy of the disk",
	run: func(ctx context.Context, t *trial) error {
		rounds := t.of(5, 200)
		out, err := exec.CommandContext(ctx, "go", "run", "./build/powerloss",
			"-rounds", strconv.Itoa(rounds), "-seed", strconv.FormatUint(t.seed, 10)).CombinedOutput()
		m := regexp.MustCompile(`(?m)^(\d+) rounds: (\d+) acknowledged, (\d+) lost; of the unsynced file (\d+) lost`).FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("powerloss: %w: %s", err, bytes.TrimSpace(out))
		}
		n := func(i int) int { v, _ := strconv.Atoi(string(m[i])); return v }
		t.result.Count = n(1)
		t.result.More["acknowledged"], t.result.More["lost"], t.result.More["unsynced_lost"] = n(2), n(3), n(4)
		t.expect(err == nil, "powerloss: %v", err)
		t.promise("P2", err == nil && n(3) == 0, n(1), "losses of power", "%d of %d registrations lost; of an unsynced file %d were", n(3), n(2), n(4))
		return nil
	},
}

var tornStore = scenario{
	id: "F3", title: "files of the store are torn or changed", promises: nil,
	criterion: "a damaged copy opens with nothing wrong in it, or is refused with the file named, in a process of its own",
	run: func(ctx context.Context, t *trial) error {
		copies := t.of(20, 500)
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout=60m", "-run", "^TestDamagedFolder$", "./service/store")
		cmd.Env = append(os.Environ(), "RTCD_DAMAGE_ROUNDS="+strconv.Itoa(copies))
		out, err := cmd.CombinedOutput()
		m := regexp.MustCompile(`(\d+) damaged copies: (\d+) refused, (\d+) opened`).FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("damage the store: %w: %s", err, bytes.TrimSpace(out))
		}
		t.result.Count = copies
		t.result.More["refused"], t.result.More["opened"] = string(m[2]), string(m[3])
		t.say("%s", m[0])
		t.expect(err == nil, "%s", bytes.TrimSpace(out))
		return nil
	},
}

var badConfigurations = scenario{
	id: "F33", title: "bad configurations", promises: []string{"P19"},
	criterion: "each of at least 60 is refused, with the key named",
	run: func(ctx context.Context, t *trial) error {
		if err := t.testsHold(ctx, "P19", "bad configurations", "-run", "TestBadConfigs", "./config"); err != nil {
			return err
		}
		t.expect(t.result.Count >= 60, "only %d bad configurations", t.result.Count)
		return nil
	},
}

var acrossTenants = scenario{
	id: "P8", title: "actions across tenants", promises: []string{"P8"},
	criterion: "every route and message, with another's ids: none succeeds",
	run: func(ctx context.Context, t *trial) error {
		return t.testsHold(ctx, "P8", "routes and messages with another's ids", "-run", "TestTwoTenants|TestMatrixIsComplete|TestSameIDsOfTwoTenants|TestTenantsCannotReachEachOther", "./service")
	},
}

var limitsHold = scenario{
	id: "P21", title: "limits, at their edges", promises: []string{"P21"},
	criterion: "every limit is documented, counts its hits, and has tests that reach it and go beyond, which pass",
	run: func(ctx context.Context, t *trial) error {
		all, err := edges.Find(".", "service", "config", "cmd")
		if err != nil {
			return err
		}
		byFolder := make(map[string][]string)
		var without []string
		for _, e := range all {
			if len(e.Tests) == 0 {
				without = append(without, string(e.Name))
			}
			for _, test := range e.Tests {
				dir, name, _ := strings.Cut(test, " ")
				if dir != edges.Fire && !slices.Contains(byFolder[dir], name) {
					byFolder[dir] = append(byFolder[dir], name)
				}
			}
		}
		failed := 0
		for _, dir := range slices.Sorted(maps.Keys(byFolder)) {
			r, err := t.goTest(ctx, "-run", "^("+strings.Join(byFolder[dir], "|")+")$", "./"+dir)
			if err != nil {
				return err
			}
			t.result.Count += r.passed + r.failed
			failed += r.failed
			t.expect(r.failed == 0, "tests fail: %s", strings.Join(r.failures, ", "))
			t.expect(r.passed > 0, "no test of %s ran", dir)
		}
		manual, err := exec.CommandContext(ctx, "go", "run", "./build/docs").CombinedOutput()
		t.expect(err == nil, "manuals: %s", bytes.TrimSpace(manual))
		documented, err := t.goTest(ctx, "-run", "TestSampleHasEveryKey|TestManualHasEveryKey", "./config")
		if err != nil {
			return err
		}
		t.expect(documented.failed == 0, "keys without a word in sample or manual: %s", strings.Join(documented.failures, ", "))
		t.expect(len(without) == 0, "no test reaches %s", strings.Join(without, ", "))
		t.result.More["limits"], t.result.More["without_test"] = len(all), without
		t.promise("P21", len(t.result.Shortfalls) == 0, len(all), "limits", "%d tests of them, %d fail, %d limits without one", t.result.Count, failed, len(without))
		return nil
	},
}

var fuzzing = scenario{
	id: "F25", title: "malformed input of every kind", promises: []string{"P7"},
	criterion: "no crash, no hang, memory within 16 times the input",
	run: func(ctx context.Context, t *trial) error {
		all, err := targets.Find(".")
		if err != nil {
			return err
		}
		counts, err := targets.ReadCounts(".")
		if err != nil {
			return err
		}
		before := int64(0)
		for _, n := range counts {
			before += n
		}
		// All seeds of all targets; then some, or all, are fuzzed.
		folders := make(map[string]bool)
		for _, target := range all {
			folders["./"+target.Folder] = true
		}
		seeds, err := t.goTest(ctx, append([]string{"-run", "^Fuzz"}, slices.Sorted(maps.Keys(folders))...)...)
		if err != nil {
			return err
		}
		t.expect(seeds.failed == 0, "seeds fail: %s", strings.Join(seeds.failures, ", "))
		length, fuzzed := "30s", all
		if t.quick {
			length = "1s"
			t.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			fuzzed = all[:min(4, len(all))]
		}
		for _, target := range fuzzed {
			n, err := targets.Run(ctx, target, length, io.Discard)
			t.result.Count += int(n)
			t.expect(err == nil, "%v", err)
		}
		t.result.More["targets"], t.result.More["seeds"], t.result.More["counted_before"] = len(all), seeds.passed, before
		t.promise("P7", len(t.result.Shortfalls) == 0 && len(all) >= 16, t.result.Count+seeds.passed, fmt.Sprintf("inputs to %d targets", len(all)),
			"%d of them made trouble; %d inputs in runs before", len(t.result.Shortfalls), before)
		return ctx.Err()
	},
}
