//go:build linux

package field

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

const (
	netnsDir = "/run/netns"
	// mark begins the name of all that a field leaves on the machine; the id of the process follows.
	mark = "fire-"
)

// Field is a set of namespaces around a router, and a folder for disks and files.
type Field struct {
	Dir    string // of its own, for whatever; gone after Close
	Router *Namespace
	hosts  map[string]*Namespace
	links  map[string]bool // of hosts that are cut

	prefix    string
	impairers []*Impairer
	queues    uint16 // given out
	groups    []*Group
	mounts    []string
}

// fields counts those of this process.
var fields atomic.Int32

// New makes a field with hosts of these names, each of at most 8 characters.
func New(hosts ...string) (f *Field, err error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	f = &Field{
		prefix: fmt.Sprintf("%s%d-%d-", mark, os.Getpid(), fields.Add(1)),
		hosts:  make(map[string]*Namespace), links: make(map[string]bool),
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			f, err = nil, fmt.Errorf("make a field: %w", err)
		}
	}()
	if f.Dir, err = os.MkdirTemp("", f.prefix); err != nil {
		return f, err
	}
	if f.Router, err = newNamespace(f.prefix, "rt"); err != nil {
		return f, err
	}
	f.Router.Do(func() { err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		return f, err
	}
	for i, name := range hosts {
		if err := f.add(i+1, name); err != nil {
			return f, err
		}
	}
	return f, f.layRules()
}

// Host returns a host by its name, which must be one of the field's.
func (f *Field) Host(name string) *Namespace {
	n := f.hosts[name]
	if n == nil {
		panic("field: no host " + name)
	}
	return n
}

// add makes a host with network number i: 10.77.i.0/30. The link's end in the router has the name of
// the host, the end in the host is net.
func (f *Field) add(i int, name string) error {
	n, err := newNamespace(f.prefix, name)
	if err != nil {
		return err
	}
	f.hosts[name] = n
	n.Addr = netip.AddrFrom4([4]byte{10, 77, byte(i), 2})
	gateway := netip.AddrFrom4([4]byte{10, 77, byte(i), 1}).String()
	for _, args := range [][]string{
		{"-n", f.Router.full, "link", "add", "name", name, "type", "veth", "peer", "name", "net", "netns", n.full},
		{"-n", f.Router.full, "addr", "add", gateway + "/30", "dev", name},
		{"-n", f.Router.full, "link", "set", "dev", name, "up"},
		{"-n", n.full, "addr", "add", n.Addr.String() + "/30", "dev", "net"},
		{"-n", n.full, "link", "set", "dev", "net", "up"},
		{"-n", n.full, "route", "add", "default", "via", gateway},
	} {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// Close takes everything away. Processes that were started in the field are killed.
func (f *Field) Close() error {
	for _, i := range f.impairers {
		i.stop()
	}
	for _, n := range f.hosts {
		n.close()
	}
	if f.Router != nil {
		f.Router.close()
	}
	var errs []error
	for _, dir := range slices.Backward(f.mounts) {
		errs = append(errs, unmount(dir))
	}
	for _, g := range f.groups {
		errs = append(errs, g.remove())
	}
	if f.Dir != "" {
		errs = append(errs, os.RemoveAll(f.Dir))
	}
	return errors.Join(errs...)
}

// Clean takes away what processes left that are no more, and returns what it found.
func Clean() (found []string, err error) {
	var errs []error
	clean := func(name string, remove func() error) {
		rest, ok := strings.CutPrefix(filepath.Base(name), mark)
		pid, _, _ := strings.Cut(rest, "-")
		id, perr := strconv.Atoi(pid)
		if !ok || perr != nil || syscall.Kill(id, 0) == nil {
			return
		}
		found = append(found, name)
		errs = append(errs, remove())
	}
	namespaces, _ := os.ReadDir(netnsDir) // none, if there is no such folder
	for _, e := range namespaces {
		clean(e.Name(), func() error { return run("ip", "netns", "del", e.Name()) })
	}
	for _, group := range groupDirs() {
		clean(group, func() error { return syscall.Rmdir(group) })
	}
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), mark+"*"))
	mounted, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	for _, dir := range dirs {
		clean(dir, func() error {
			for _, line := range slices.Backward(strings.Split(string(mounted), "\n")) {
				fields := strings.Fields(line)
				if len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
					if err := unmount(fields[1]); err != nil {
						return err
					}
				}
			}
			return os.RemoveAll(dir)
		})
	}
	return found, errors.Join(errs...)
}
