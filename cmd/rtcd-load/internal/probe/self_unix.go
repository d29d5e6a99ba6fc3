//go:build unix

package probe

import (
	"syscall"
	"time"
)

// OwnCPU returns the CPU time of this process, user and system; negative if it is not known.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
