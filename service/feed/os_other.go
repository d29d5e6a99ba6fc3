//go:build !linux

package feed

import "os"

// lock opens the lock of a feed; it keeps nobody out here.
func lock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
