//go:build !linux

package audit

import (
	"os"
	"syscall"
	"time"
)

// lockFile opens path. Where there is no flock, it is for the operator to start one server only.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

// boundUnacknowledged does nothing: the bound of the operating system has to do.
func boundUnacknowledged(syscall.RawConn, time.Duration) error { return nil }

// unacknowledged knows nothing.
func unacknowledged(syscall.RawConn) int64 { return 0 }
