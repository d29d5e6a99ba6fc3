package feed

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock takes the folder of a feed for this process; what it returns gives it back.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another server: %w", path, err), f.Close())
	}
	return f, nil
}
