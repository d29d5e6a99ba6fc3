package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Layout below data_source. Nothing outside "badger" is ever written.
//
//	badger/         0700
//	badger/lock     held with flock while a server runs
//	badger/ballast  space to close and reopen on a full disk
//	badger/db/      Badger's own files
const (
	folderName  = "badger"
	lockName    = "lock"
	ballastName = "ballast"
	dbName      = "db"
)

const (
	// A flush writes one table of a memory table's size; a compaction may rewrite some.
	ballastBytes = 4 << 20
	// Free space without which Badger cannot open: a write-ahead file, a flush, small change.
	openBytes = 2*memTableBytes + memTableBytes + 512<<10
)

// A folder is the store's part of data_source: its lock, its permissions and the space on its
// volume. Badger maps its files into memory, where running out of space is not an error but the
// signal SIGBUS: so no page may be touched that has no block on disk yet.
type folder struct {
	path    string // data_source/badger
	db      string // data_source/badger/db
	minFree uint64
	log     *slog.Logger
	lock    *os.File

	// Owned by the writer.
	settled map[string]bool // files that have their mode and blocks
	ballast bool            // whether the ballast is there
}

// openFolder makes the folder if it is missing and takes its lock.
func openFolder(dataSource string, minFree uint64, log *slog.Logger) (*folder, error) {
	if err := os.MkdirAll(dataSource, 0o700); err != nil {
		return nil, err
	}
	f := &folder{
		path:    filepath.Join(dataSource, folderName),
		minFree: minFree,
		log:     log,
		settled: make(map[string]bool),
	}
	f.db = filepath.Join(f.path, dbName)
	for _, dir := range []string{f.path, f.db} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		// Whatever the umask was, and also if someone opened it up since.
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := lockFile(filepath.Join(f.path, lockName))
	if err != nil {
		return nil, err
	}
	f.lock = lock
	for _, dir := range []string{dataSource, f.path, f.db} {
		if err := syncDir(dir); err != nil {
			return nil, errors.Join(err, f.lock.Close())
		}
	}
	return f, nil
}

// close gives the files their mode and releases the lock.
func (f *folder) close() error {
	clear(f.settled)
	_, err := f.newFiles()
	return errors.Join(err, f.lock.Close())
}

// makeRoom sees to it that Badger can open. On a full disk the ballast gives the space back that
// opening and closing need; writes stay refused.
func (f *folder) makeRoom() error {
	path := filepath.Join(f.path, ballastName)
	_, err := os.Stat(path)
	f.ballast = err == nil
	free, err := freeBytes(f.path)
	if err != nil {
		return err
	}
	if free < f.minFree && f.ballast {
		f.dropBallast()
		if free, err = freeBytes(f.path); err != nil {
			return err
		}
	}
	if free < openBytes {
		return fmt.Errorf("%w: %s has %d bytes free, opening needs %d", ErrNoSpace, f.path, free, openBytes)
	}
	if free < f.minFree {
		f.log.Warn("store volume is almost full, registrations are refused",
			"path", f.path, "free_bytes", free, "min_free_bytes", f.minFree)
	}
	return nil
}

// guard refuses a write that the volume has no room for.
func (f *folder) guard() error {
	free, err := freeBytes(f.path)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", f.path, err)
	}
	if free < f.minFree {
		return fmt.Errorf("%w: %s has %d bytes free, the limit (min_free_bytes) is %d",
			ErrNoSpace, f.path, free, f.minFree)
	}
	// Files that could not be prepared after the last write.
	return f.settle()
}

// settle gives files that appeared since the last call mode 0600, and write-ahead files all
// their blocks. It also restores the ballast once there is room.
func (f *folder) settle() error {
	fresh, err := f.newFiles()
	if err != nil {
		return err
	}
	for _, path := range fresh {
		if strings.HasSuffix(path, ".mem") {
			if err := allocate(path, 2*memTableBytes); err != nil {
				delete(f.settled, path)
				return fmt.Errorf("%w: allocate %s: %w", ErrNoSpace, path, err)
			}
		}
	}
	if f.ballast {
		return nil
	}
	free, err := freeBytes(f.path)
	if err != nil || free < f.minFree+ballastBytes {
		return err
	}
	path := filepath.Join(f.path, ballastName)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.ballast = true
	return errors.Join(file.Chmod(0o600), file.Close(), allocate(path, ballastBytes))
}

func (f *folder) dropBallast() {
	f.ballast = false
	err := os.Remove(filepath.Join(f.path, ballastName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Warn("store ballast could not be removed", "err", err)
	}
}

// newFiles returns the files not seen yet, after setting their mode: Badger makes some with 0666
// less the umask.
func (f *folder) newFiles() ([]string, error) {
	var fresh []string
	for _, dir := range []string{f.path, f.db} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if f.settled[path] || !entry.Type().IsRegular() {
				continue
			}
			err := os.Chmod(path, 0o600)
			if errors.Is(err, os.ErrNotExist) {
				continue // flushed or compacted away meanwhile
			}
			if err != nil {
				return nil, err
			}
			f.settled[path] = true
			fresh = append(fresh, path)
		}
	}
	return fresh, nil
}

// syncEntries makes the names of new files durable: Badger syncs a new write-ahead file's name
// in the background, which may be after the first write into it was acknowledged.
func (f *folder) syncEntries() error { return syncDir(f.db) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
