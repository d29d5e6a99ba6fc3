package api

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	maxGroupDepth = 32      // of control groups that are looked at
	maxGroupFile  = 1 << 20 // bytes of a file of the kernel's
)

// A controlGroup is a folder whose quota counts for this process.
type controlGroup struct {
	quota string // folder of the quota
	usage string // folder of what was used
	v2    bool
}

func systemQuotas() quotas { return quotasIn("/proc/self", runtime.NumCPU()) }

// quotasIn returns what reads the quotas of the process of a folder like /proc/self that are smaller
// than a machine of so many processors.
func quotasIn(proc string, processors int) quotas {
	groups := controlGroups(readSome(filepath.Join(proc, "cgroup")), readSome(filepath.Join(proc, "mountinfo")))
	if len(groups) == 0 {
		return noQuotas
	}
	return func() []quota {
		var out []quota
		for _, g := range groups {
			cores, limited := g.cores()
			if !limited || cores >= float64(processors) {
				continue
			}
			if used, ok := g.used(); ok {
				out = append(out, quota{name: g.quota, cores: cores, used: used})
			}
		}
		return out
	}
}

// controlGroups finds the groups of a process, up to the root that it sees, in what the kernel says of
// it (cgroups(7), proc_pid_mountinfo(5)).
func controlGroups(cgroup, mountinfo []byte) []controlGroup {
	var v2 string // folder in the hierarchy
	v1 := make(map[string]string)
	for line := range strings.Lines(string(cgroup)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[1] == "" {
			v2 = parts[2]
		}
		for _, controller := range strings.Split(parts[1], ",") {
			v1[controller] = parts[2]
		}
	}
	var unified, cpu, cpuacct []string // folders, innermost first
	scan := bufio.NewScanner(bytes.NewReader(mountinfo))
	scan.Buffer(nil, maxGroupFile)
	for scan.Scan() {
		mount, super, found := strings.Cut(scan.Text(), " - ")
		where, options := strings.Fields(mount), strings.Fields(super)
		if !found || len(where) < 5 || len(options) < 3 {
			continue
		}
		root, point := where[3], where[4]
		switch options[0] {
		case "cgroup2":
			unified = foldersOf(v2, root, point)
		case "cgroup":
			for _, o := range strings.Split(options[2], ",") {
				switch o {
				case "cpu":
					cpu = foldersOf(v1["cpu"], root, point)
				case "cpuacct":
					cpuacct = foldersOf(v1["cpuacct"], root, point)
				}
			}
		}
	}
	var out []controlGroup
	for _, folder := range unified {
		out = append(out, controlGroup{quota: folder, usage: folder, v2: true})
	}
	// The two controllers of version 1 may be in hierarchies of their own: only folders of the same
	// name are the same group.
	for i, folder := range cpu {
		n := i - len(cpu) + len(cpuacct)
		if n >= 0 && n < len(cpuacct) && v1["cpu"] == v1["cpuacct"] {
			out = append(out, controlGroup{quota: folder, usage: cpuacct[n]})
		}
	}
	return out
}

// foldersOf returns the folders of a group and of those around it, innermost first. group is its path in
// its hierarchy, of which root is mounted at point.
func foldersOf(group, root, point string) []string {
	if group == "" {
		return nil
	}
	inside, err := filepath.Rel(root, group)
	if err != nil || inside == ".." || strings.HasPrefix(inside, "../") {
		inside = "." // outside of what is mounted here: the mount is what we see of it
	}
	var out []string
	for len(out) < maxGroupDepth {
		out = append(out, filepath.Join(point, inside))
		if inside == "." {
			break
		}
		inside = filepath.Dir(inside)
	}
	return out
}

// cores returns the quota of a group and reports whether it has one.
func (g controlGroup) cores() (float64, bool) {
	var limit, period string
	if g.v2 {
		fields := strings.Fields(string(readSome(filepath.Join(g.quota, "cpu.max"))))
		if len(fields) != 2 {
			return 0, false
		}
		limit, period = fields[0], fields[1]
	} else {
		limit = strings.TrimSpace(string(readSome(filepath.Join(g.quota, "cpu.cfs_quota_us"))))
		period = strings.TrimSpace(string(readSome(filepath.Join(g.quota, "cpu.cfs_period_us"))))
	}
	l, err := strconv.ParseUint(limit, 10, 63) // "max" and "-1" are none
	p, errP := strconv.ParseUint(period, 10, 63)
	if err != nil || errP != nil || l == 0 || p == 0 {
		return 0, false
	}
	return float64(l) / float64(p), true
}

// used returns the processor time that a group has used.
func (g controlGroup) used() (time.Duration, bool) {
	if !g.v2 {
		n, err := strconv.ParseInt(strings.TrimSpace(string(readSome(filepath.Join(g.usage, "cpuacct.usage")))), 10, 64)
		return time.Duration(n), err == nil
	}
	for line := range strings.Lines(string(readSome(filepath.Join(g.usage, "cpu.stat")))) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil
		}
	}
	return 0, false
}

// readSome returns what is in a small file, and nothing of one that cannot be read.
func readSome(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil || len(data) > maxGroupFile {
		return nil
	}
	return data
}
