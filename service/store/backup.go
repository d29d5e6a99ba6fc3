package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Errors of backups that a caller acts on.
var (
	// ErrNotEmpty: there is something where a backup is to be restored to.
	ErrNotEmpty = errors.New("not empty")
	// ErrNoBackup: a store in memory has nothing to back up.
	ErrNoBackup = errors.New("a store in memory cannot be backed up")
)

// BackupInfo says what a backup holds.
type BackupInfo struct {
	Clients int
	CallIDs int // used call ids that had not expired
	Bytes   int64
	// SHA256 is the sum that it ends with, of everything before.
	SHA256 [sha256.Size]byte
}

// Backup writes all that is stored at one moment between its call and its first write to w: every write
// that was acknowledged before the call is in it, and none in part. Writes go on meanwhile. A backup is
// as confidential as the store: whoever makes a file of it gives that the mode 0600, as BackupFile does.
// Errors: ErrNoBackup, ErrClosed (also if the store is closed meanwhile), w's and ctx's. What w got is then
// no backup, and VerifyBackup says so.
func (s *Store) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	info, err := s.backup(ctx, w)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up store: %w", err)
	}
	return info, nil
}

func (s *Store) backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	s.mu.RLock()
	closed, db := s.closed, s.db
	if !closed {
		s.backups.Add(1)
	}
	s.mu.RUnlock()
	if closed {
		return BackupInfo{}, ErrClosed
	}
	defer s.backups.Done()
	if db == nil {
		return BackupInfo{}, ErrNoBackup
	}
	out, err := newBackupWriter(w)
	if err != nil {
		return BackupInfo{}, err
	}
	var info BackupInfo
	// One transaction sees one state. Badger's own backup has one for each of its goroutines, which may
	// be of different states, keeps former versions, hashes of former keys among them, and leaves out
	// what it cannot read, with a word in the log.
	err = db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.closing:
				return ErrClosed
			default:
			}
			item := it.Item()
			e := entry{key: item.Key(), version: item.Version(), expires: item.ExpiresAt()}
			err := item.Value(func(value []byte) error {
				e.value = value
				if err := info.count(e); err != nil {
					return fmt.Errorf("entry %q: %w: %w", e.key, ErrDamaged, err)
				}
				return out.add(e)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = out.finish()
	}
	info.Bytes = out.size
	out.sum.Sum(info.SHA256[:0])
	return info, err
}

// BackupFile is Backup into a new file of mode 0600, which is there whole and durable, or not at all.
func (s *Store) BackupFile(ctx context.Context, path string) (info BackupInfo, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up store: %w", err)
	}
	defer func() {
		if err != nil {
			info, err = BackupInfo{}, errors.Join(err, os.Remove(path))
		}
	}()
	err = file.Chmod(0o600)
	if err == nil {
		info, err = s.Backup(ctx, file)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return info, err
}

// VerifyBackup reads a backup and returns what it holds, or what is wrong with it.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	info, err := readBackup(r, func(entry) error { return nil })
	if err != nil {
		return BackupInfo{}, fmt.Errorf("verify backup: %w", err)
	}
	return info, nil
}

// beforeRestore is where a forced restoration leaves the store that was there.
const beforeRestore = folderName + ".before-restore"

// Restore makes the store below dir what a backup holds. The backup is verified first, and the new store
// is made and opened beside; then it takes its place at once. Until then dir is what it was, but for a
// folder "restoring-…" that is removed again.
//
// If anything is in dir, Restore returns ErrNotEmpty unless force is set. Then a store there is moved to
// "badger.before-restore", where it replaces an earlier one; remove that once it is not needed. Clients of
// a former layout there are not taken over any more. ErrLocked means that a server runs.
func Restore(ctx context.Context, from io.ReadSeeker, dir string, force bool) (BackupInfo, error) {
	info, err := restore(ctx, from, dir, force)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("restore store %s: %w", dir, err)
	}
	return info, nil
}

func restore(ctx context.Context, from io.ReadSeeker, dir string, force bool) (info BackupInfo, err error) {
	verified, err := readFromStart(from, func(entry) error { return ctx.Err() })
	if err != nil {
		return BackupInfo{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return BackupInfo{}, err
	}
	if len(entries) > 0 && !force {
		return BackupInfo{}, ErrNotEmpty
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return BackupInfo{}, err
	}
	target := filepath.Join(dir, folderName)
	_, err = os.Stat(target)
	exists := err == nil
	if exists {
		lock, err := lockFile(filepath.Join(target, lockName))
		if err != nil {
			return BackupInfo{}, err
		}
		defer lock.Close()
	}
	beside, err := os.MkdirTemp(dir, "restoring-")
	if err != nil {
		return BackupInfo{}, err
	}
	former := false // whether the store that was there is beside
	defer func() {
		if !former {
			err = errors.Join(err, os.RemoveAll(beside))
		}
	}()
	if err := makeFrom(ctx, from, beside, verified); err != nil {
		return BackupInfo{}, err
	}
	made := filepath.Join(beside, folderName)
	if !exists {
		err = os.Rename(made, target)
	} else if err = exchange(made, target); err == nil {
		// The restoration is done; what is left is where the store that was there is kept.
		former = true
		kept := filepath.Join(dir, beforeRestore)
		if err = os.RemoveAll(kept); err == nil {
			err = os.Rename(made, kept)
		}
		former = err != nil
	}
	return verified, errors.Join(err, syncDir(dir))
}

func readFromStart(from io.ReadSeeker, take func(entry) error) (BackupInfo, error) {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return BackupInfo{}, err
	}
	return readBackup(from, take)
}

// makeFrom makes a store below dir out of a backup, and opens it once more to see that it is sound.
func makeFrom(ctx context.Context, from io.ReadSeeker, dir string, verified BackupInfo) error {
	cfg := Config{Dir: dir, MinFreeBytes: DefaultMinFreeBytes}
	s, err := open(cfg, orDiscard(nil))
	if err != nil {
		return err
	}
	err = s.write(ctx, func() error { return s.loadBackup(ctx, from, verified) })
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	s, err = open(cfg, orDiscard(nil))
	if err != nil {
		return err
	}
	if n := s.Count(); n != verified.Clients {
		err = fmt.Errorf("%d clients are there, and the backup has %d", n, verified.Clients)
	}
	return errors.Join(err, s.Close())
}

// restoreBatch is how many records go into one transaction. Each may be larger than those of importBatch.
const restoreBatch = 64

// loadBackup writes the entries of a backup to a store that nobody uses yet.
func (s *Store) loadBackup(ctx context.Context, from io.ReadSeeker, verified BackupInfo) error {
	now := uint64(max(time.Now().Unix(), 0))
	var batch []*badger.Entry
	write := func() error {
		defer func() { batch = batch[:0] }()
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.commit(func(txn *badger.Txn) error {
			for _, e := range batch {
				if err := txn.SetEntry(e); err != nil {
					return err
				}
			}
			return nil
		}, func() {})
	}
	info, err := readFromStart(from, func(e entry) error {
		if e.expires != 0 && e.expires <= now {
			return nil
		}
		added := badger.NewEntry(append([]byte(nil), e.key...), append([]byte(nil), e.value...))
		added.ExpiresAt = e.expires
		batch = append(batch, added)
		if len(batch) < restoreBatch {
			return nil
		}
		return write()
	})
	switch {
	case err != nil:
		return err
	case info != verified:
		return errors.New("the backup changes while it is read")
	}
	// A start takes over nothing that is not in the backup.
	batch = append(batch, badger.NewEntry(importedKey, []byte{recordVersion}))
	return write()
}
