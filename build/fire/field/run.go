//go:build linux

package field

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// run runs a command to its end. What it prints is in the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// feed runs a command with an input.
func feed(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ErrSkip says why nothing can be shown on this machine.
var ErrSkip = errors.New("cannot be shown here")

// Missing returns nil, or an ErrSkip that says what a field needs and is not here.
func Missing() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: it needs root", ErrSkip)
	}
	var missing []string
	for _, tool := range []string{"ip", "tc", "nft", "conntrack", "iptables-legacy", "mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: it needs %s (Debian: iproute2, nftables, conntrack, iptables, e2fsprogs, mount)",
			ErrSkip, strings.Join(missing, ", "))
	}
	return nil
}
