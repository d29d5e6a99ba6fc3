//go:build linux

package field

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroups = "/sys/fs/cgroup"

// Group is a control group (version 1) of processes whose memory or processor time is bounded.
type Group struct{ dirs map[string]string } // by controller

// Group makes a control group.
func (f *Field) Group() (*Group, error) {
	g := &Group{dirs: make(map[string]string)}
	f.groups = append(f.groups, g)
	for _, controller := range []string{"memory", "cpu"} {
		if _, err := os.Stat(filepath.Join(cgroups, controller, "cgroup.procs")); err != nil {
			return nil, fmt.Errorf("%w: control groups of version 1: %w", ErrSkip, err)
		}
		dir := filepath.Join(cgroups, controller, fmt.Sprintf("%sgroup%d", f.prefix, len(f.groups)))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a control group: %w", err)
		}
		g.dirs[controller] = dir
	}
	return g, nil
}

func (g *Group) write(controller, file, value string) error {
	if err := os.WriteFile(filepath.Join(g.dirs[controller], file), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s of a control group: %w", file, err)
	}
	return nil
}

// Add puts a process into the group.
func (g *Group) Add(pid int) error {
	return errors.Join(g.write("memory", "cgroup.procs", strconv.Itoa(pid)), g.write("cpu", "cgroup.procs", strconv.Itoa(pid)))
}

// Memory bounds the memory of the group, in bytes.
func (g *Group) Memory(bytes int64) error {
	return g.write("memory", "memory.limit_in_bytes", strconv.FormatInt(bytes, 10))
}

// CPU bounds the processor time, in hundredths of one processor; 0 ends the bound.
func (g *Group) CPU(percent int) error {
	if percent == 0 {
		return g.write("cpu", "cpu.cfs_quota_us", "-1")
	}
	return errors.Join(g.write("cpu", "cpu.cfs_period_us", "100000"), g.write("cpu", "cpu.cfs_quota_us", strconv.Itoa(percent*1000)))
}

// Killed returns how many processes of the group were killed for want of memory.
func (g *Group) Killed() (int, error) {
	b, err := os.ReadFile(filepath.Join(g.dirs["memory"], "memory.oom_control"))
	if err != nil {
		return 0, fmt.Errorf("read a control group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, errors.New("read a control group: no oom_kill")
}

// remove takes the group away, once its processes have ended.
func (g *Group) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		err := syscall.Rmdir(dir)
		for end := time.Now().Add(5 * time.Second); err == syscall.EBUSY && time.Now().Before(end); err = syscall.Rmdir(dir) {
			time.Sleep(20 * time.Millisecond) // the kernel has no event for the end of the last process
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

func groupDirs() []string {
	var out []string
	for _, controller := range []string{"memory", "cpu"} {
		found, _ := filepath.Glob(filepath.Join(cgroups, controller, mark+"*"))
		out = append(out, found...)
	}
	return out
}
