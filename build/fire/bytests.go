//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// What tests of the packages inject already is run from here, so that it stands in the table with a
// count.

var powerLoss = scenario{
	id: "F2", title: "loss of power during registrations", promises: []string{"P2"},
	criterion: "every registration that was acknowledged is in the copy of the disk",
	run: func(ctx context.Context, t *trial) error {
		rounds := t.of(10, 200)
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
	criterion: "it opens, or says which file is broken; nothing wrong comes out of it",
	run: func(ctx context.Context, t *trial) error {
		return t.testsHold(ctx, "", "", "-run", "Torn|Corrupt|Damaged|Broken|Truncat|Flip|Mutat", "./service/store/...")
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
	criterion: "every limit of the configuration is documented, and tests at the limit and beyond it pass",
	run: func(ctx context.Context, t *trial) error {
		return t.testsHold(ctx, "P21", "tests of limits, samples and manuals", "-run", "Limit|Budget|Bound|TooMany|Full|TestSampleHasEveryKey|TestManualHasEveryKey|TestOverload|Flood|Capped",
			"./config", "./service/...")
	},
}

var fuzzing = scenario{
	id: "F25", title: "malformed input of every kind", promises: []string{"P7"},
	criterion: "no crash, no hang, memory within 16 times the input",
	run: func(ctx context.Context, t *trial) error {
		out, err := exec.CommandContext(ctx, "go", "list", "./...").Output()
		if err != nil {
			return fmt.Errorf("list packages: %w", err)
		}
		each := "2s"
		if !t.quick {
			each = "60s"
		}
		execs, targets, failed := 0, 0, 0
		for _, pkg := range strings.Fields(string(out)) {
			list, err := exec.CommandContext(ctx, "go", "test", "-list", "^Fuzz", pkg).Output()
			if err != nil {
				return fmt.Errorf("list fuzz targets of %s: %w", pkg, err)
			}
			for _, target := range strings.Fields(string(list)) {
				if !strings.HasPrefix(target, "Fuzz") {
					continue
				}
				if t.quick && targets >= 16 {
					break
				}
				targets++
				n, ok := fuzz(ctx, pkg, target, each)
				execs += n
				if !ok {
					failed++
					t.shortfall("%s of %s found something", target, pkg)
				}
			}
		}
		t.result.Count = execs
		t.result.More["targets"] = targets
		t.promise("P7", failed == 0 && targets > 0, execs, fmt.Sprintf("inputs to %d targets", targets), "%d targets found something", failed)
		return ctx.Err()
	},
}

// fuzz runs one target and returns how many inputs it was given.
func fuzz(ctx context.Context, pkg, target, length string) (execs int, ok bool) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", length,
		"-fuzzminimizetime", "10x", pkg).CombinedOutput()
	counted := regexp.MustCompile(`execs: (\d+)`)
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if m := counted.FindStringSubmatch(lines.Text()); m != nil {
			execs, _ = strconv.Atoi(m[1])
		}
	}
	late := bytes.Contains(out, []byte("context deadline exceeded")) && !bytes.Contains(out, []byte("Failing input"))
	return execs, err == nil || late
}
