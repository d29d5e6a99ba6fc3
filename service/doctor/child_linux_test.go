package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"rtcd/config"
)

// A child is this test program again, in a state that the parent must not be in. It looks at the
// machine as it is, through nothing made up, and prints what it found.
type child struct {
	Config   string     // path
	Commands [][]string // first
	Nobody   bool       // gives up the rights of root
	Files    uint64     // it may open; 0: as many as the parent
}

const childEnv = "RTCD_DOCTOR_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func runChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	for _, args := range c.Commands {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	cfg, report, err := config.Load(c.Config, nil)
	if err != nil {
		return err
	}
	if c.Files > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: c.Files, Max: c.Files}); err != nil {
			return err
		}
	}
	if c.Nobody {
		const nobody = 65534
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := syscall.Setgid(nobody); err != nil {
			return err
		}
		if err := syscall.Setuid(nobody); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(Run(ctxOf(), Options{Config: cfg, Report: report}))
}

// look runs a child, with a network of its own if it has commands, and returns what it found but
// what depends on the machine of the test.
func (c child) look(t *testing.T, s *setup) []Finding {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT ROOT: what a broken machine looks like was NOT tested")
	}
	text, err := s.Config.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c.Config = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(c.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	env, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	if c.Commands != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var found []Finding
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	byMachine := []string{clockUnsynchronised, buffersSmall, conntrackSmall, conntrackFull, memorySmall, memoryGoUnset, cpuQuotaSmall}
	return slices.DeleteFunc(found, func(f Finding) bool { return slices.Contains(byMachine, f.ID) })
}

// TestRealMachines: what tests can put a machine into, without a single thing made up.
func TestRealMachines(t *testing.T) {
	up := []string{"ip", "link", "set", "lo", "up"}
	pair := [][]string{up, {"ip", "link", "add", "eth7", "type", "veth", "peer", "name", "eth8"}, {"ip", "link", "set", "eth8", "up"}, {"ip", "address", "add", "10.1.2.3/24", "dev", "eth7"}}
	const all = "" // addresses
	for _, b := range []struct {
		name   string
		child  child
		change func(*config.Config)
		want   string
		says   string
	}{
		{"all is well", child{}, nil, "", ""},
		{"few open files", child{Files: 1000}, nil, filesLow, "at most 1000"},
		{"port that needs a right", child{Nobody: true, Commands: [][]string{up, {"sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"}}},
			func(c *config.Config) { c.RTC.ICEPortTCP = 443 }, portPrivileged, "443/tcp"},
		{"store of root's", child{Nobody: true}, func(c *config.Config) {}, storeNotWritable, "permission denied"},
		{"no IPv6 address", child{Commands: [][]string{up, {"ip", "address", "add", "10.1.2.3/24", "dev", "lo"}}},
			func(c *config.Config) { c.RTC.EnableIPv6, c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = true, all, all }, ipv6NoAddress, "no interface"},
		{"IPv6 off", child{Commands: append(slices.Clone(pair), []string{"sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"})},
			func(c *config.Config) { c.RTC.EnableIPv6, c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = true, all, all }, ipv6Disabled, "disable_ipv6 = 1"},
		{"link-local IPv6 alone", child{Commands: append(slices.Clone(pair), []string{"ip", "link", "set", "eth7", "up"},
			[]string{"ip", "address", "replace", "fe80::7/64", "dev", "eth7", "nodad"})},
			func(c *config.Config) { c.RTC.EnableIPv6, c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = true, all, all }, ipv6LinkLocal, "fe80::"},
		{"IPv6 without a route", child{Commands: append(slices.Clone(pair), []string{"ip", "link", "set", "eth7", "up"},
			[]string{"ip", "address", "add", "2001:db8::5/64", "dev", "eth7", "nodad"})},
			func(c *config.Config) { c.RTC.EnableIPv6, c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = true, all, all }, ipv6NoRoute, "2001:db8::5"},
		{"IPv6 in full", child{Commands: append(slices.Clone(pair), []string{"ip", "link", "set", "eth7", "up"},
			[]string{"ip", "address", "add", "2001:db8::5/64", "dev", "eth7", "nodad"}, []string{"ip", "-6", "route", "add", "default", "via", "2001:db8::1", "dev", "eth7"})},
			func(c *config.Config) { c.RTC.EnableIPv6, c.RTC.ICEAddressUDP, c.RTC.ICEAddressTCP = true, all, all }, "", ""},
		{"override private, machine public", child{Commands: append(slices.Clone(pair), []string{"ip", "link", "set", "eth7", "up"},
			[]string{"ip", "address", "add", "203.0.113.8/24", "dev", "eth7"})},
			func(c *config.Config) { c.RTC.ICEAddressUDP, c.RTC.ICEHostOverride = all, "10.9.9.9" }, overridePrivate, "203.0.113.8"},
		{"name without a name server", child{Commands: [][]string{up}},
			func(c *config.Config) { c.RTC.ICEHostOverride = "rtcd.invalid" }, overrideUnresolvable, "rtcd.invalid"},
	} {
		t.Run(b.name, func(t *testing.T) {
			s := good(t)
			s.Config.API.HTTP.TLS.Enable = false
			if b.change != nil {
				b.change(&s.Config)
			}
			if b.child.Nobody && b.want != storeNotWritable { // whose store is another's
				if err := os.Chown(s.Config.Store.DataSource, 65534, 65534); err != nil {
					t.Fatal(err)
				}
				for _, dir := range []string{filepath.Dir(s.Config.Store.DataSource), filepath.Dir(filepath.Dir(s.Config.Store.DataSource))} {
					chmod(t, dir, 0o755)
				}
			}
			found := b.child.look(t, s)
			if b.want == "" && len(found) == 0 {
				return
			}
			if len(found) != 1 || found[0].ID != b.want || !strings.Contains(found[0].What, b.says) {
				t.Fatalf("want %q with %q, found\n%s", b.want, b.says, Text(found))
			}
		})
	}
}
