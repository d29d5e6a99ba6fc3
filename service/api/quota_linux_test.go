package api

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func putFiles(t *testing.T, files map[string]string) {
	t.Helper()
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuotasOfVersion2(t *testing.T) {
	dir := t.TempDir()
	proc, tree := filepath.Join(dir, "proc"), filepath.Join(dir, "cg")
	putFiles(t, map[string]string{
		proc + "/cgroup":               "0::/kube/pod/box\n",
		proc + "/mountinfo":            "30 22 0:27 / " + tree + " rw - cgroup2 cgroup2 rw\n31 22 0:28 / /proc rw - proc proc rw\n",
		tree + "/cpu.stat":             "usage_usec 99\n",
		tree + "/kube/cpu.max":         "800000 100000\n", // as many as the machine has: no limit
		tree + "/kube/cpu.stat":        "usage_usec 7\n",
		tree + "/kube/pod/cpu.max":     "150000 100000\n",
		tree + "/kube/pod/cpu.stat":    "usage_usec 2500000\nuser_usec 1\n",
		tree + "/kube/pod/box/cpu.max": "max 100000\n",
	})
	got := quotasIn(proc, 8)()
	want := []quota{{name: tree + "/kube/pod", cores: 1.5, used: 2500 * time.Millisecond}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := quotasIn(proc, 1)(); len(got) != 0 {
		t.Errorf("on a smaller machine: %+v", got)
	}
}

// The container sees its own group at the root of the mount, under the name it has outside.
func TestQuotasOfVersion1InAContainer(t *testing.T) {
	dir := t.TempDir()
	proc, cpu, acct := filepath.Join(dir, "proc"), filepath.Join(dir, "cpu"), filepath.Join(dir, "acct")
	putFiles(t, map[string]string{
		proc + "/cgroup": "3:cpu:/docker/abc\n2:cpuacct:/docker/abc\n0::/\n",
		proc + "/mountinfo": "30 22 0:27 /docker/abc " + cpu + " rw - cgroup cgroup rw,cpu\n" +
			"31 22 0:28 /docker/abc " + acct + " rw - cgroup cgroup rw,cpuacct\n",
		cpu + "/cpu.cfs_quota_us":  "50000\n",
		cpu + "/cpu.cfs_period_us": "100000\n",
		acct + "/cpuacct.usage":    "3000000000\n",
	})
	want := []quota{{name: cpu, cores: 0.5, used: 3 * time.Second}}
	if got := quotasIn(proc, 2)(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	putFiles(t, map[string]string{cpu + "/cpu.cfs_quota_us": "-1\n"})
	if got := quotasIn(proc, 2)(); len(got) != 0 {
		t.Errorf("without a quota: %+v", got)
	}
}

func TestQuotasOfNonsense(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":        {},
		"broken lines":   {"/cgroup": "x\n::\n0:\n", "/mountinfo": "a b c\n - cgroup2\n1 2 3 / /x - cgroup2 a b\n"},
		"no such folder": {"/cgroup": "0::/../../etc\n", "/mountinfo": "30 22 0:27 / /does/not/exist rw - cgroup2 cgroup2 rw\n"},
	} {
		dir := t.TempDir()
		for path, text := range files {
			putFiles(t, map[string]string{dir + path: text})
		}
		if got := quotasIn(dir, 2)(); len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	_ = systemQuotas()() // whatever this machine has
}

// H2: the load is that of the quota where it is the fuller one.
func TestLoadFollowsQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &fakeMachine{}
		q := quota{name: "g", cores: 0.5}
		var list []quota
		l := startLoad(m.read, func() []quota { return list })
		defer l.Stop()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		pass := func(idle, used time.Duration) {
			q.used += used
			list = []quota{q}
			m.pass(idle, nil)
		}
		for _, s := range []struct {
			name       string
			idle, used time.Duration
			want       float64
		}{
			{"first seen: not measured yet", 2 * time.Second, 0, 0.5},
			{"unused quota of half a core", 2 * time.Second, 0, 2},
			{"half used", 2 * time.Second, 250 * time.Millisecond, 4},
			{"used up", 1500 * time.Millisecond, 500 * time.Millisecond, MaxLoad},
			{"more than used up", 1400 * time.Millisecond, 600 * time.Millisecond, MaxLoad},
			{"the machine is the fuller one", 100 * time.Millisecond, 0, 10},
		} {
			pass(s.idle, s.used)
			if got := l.Value(); got < s.want*(1-1e-9) || got > s.want*(1+1e-9) {
				t.Errorf("%s: %v, want %v", s.name, got, s.want)
			}
		}
	})
}
