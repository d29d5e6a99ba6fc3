package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// memTableBytes is the size of a memory table. Its write-ahead file is twice as large and
// allocated in full, see folder.settle.
const memTableBytes = 1 << 20

// badgerOptions are sized for some thousand records of about 100 bytes; the figures are in
// docs/decisions/0004-badger-options.md.
func badgerOptions(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithLogger(badgerLog{log}).
		WithMetricsEnabled(false).
		WithMemTableSize(memTableBytes).
		WithNumMemtables(2).
		WithBaseTableSize(memTableBytes).
		WithBaseLevelSize(4 * memTableBytes).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2). // the fewest Badger takes
		WithNumGoroutines(1).
		WithValueThreshold(64 << 10). // every record stays in the tree, none in the value log
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithChecksumVerificationMode(options.OnTableAndBlockRead).
		WithNumVersionsToKeep(1)
}

func openBadger(dir string, log *slog.Logger) (*badger.DB, error) {
	return badger.Open(badgerOptions(dir, log))
}

// load fills clients and reports whether a former folder was taken over already.
func (s *Store) load() (imported bool, err error) {
	err = s.db.View(func(txn *badger.Txn) error {
		_, err := txn.Get(importedKey)
		if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		imported = err == nil
		opt := badger.DefaultIteratorOptions
		opt.Prefix = clientPrefix
		it := txn.NewIterator(opt)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			id := string(item.Key()[len(clientPrefix):])
			err := item.Value(func(value []byte) error {
				client, err := decodeClient(id, value)
				if err == nil {
					s.clients[id] = client
				}
				return err
			})
			if err != nil {
				return fmt.Errorf("client %q: %w: %w", id, ErrDamaged, err)
			}
		}
		return nil
	})
	return imported, err
}

// importBatch is how many records go into one transaction; Badger caps its size.
const importBatch = 256

// importFormer takes over the clients of a former folder, if there is one. The mark that this
// was done is written with the last of them: a start that is cut short is repeated, and since no
// client can be removed before it ends, none comes back.
func (s *Store) importFormer(dir string) error {
	former, err := readFormer(dir, time.Now(), s.maxClients, s.log)
	if err != nil || former == nil {
		return err
	}
	var fresh []Client
	for _, client := range former.clients {
		if _, taken := s.clients[client.ID]; !taken {
			fresh = append(fresh, client)
		}
	}
	if total := len(s.clients) + len(fresh); total > s.maxClients {
		return fmt.Errorf("%w: %d clients, the limit is %d", ErrFull, total, s.maxClients)
	}
	for rest := fresh; ; rest = rest[importBatch:] {
		batch := rest[:min(importBatch, len(rest))]
		last := len(batch) == len(rest)
		err := s.commit(func(txn *badger.Txn) error {
			for _, client := range batch {
				if err := txn.Set(clientKey(client.ID), client.encode()); err != nil {
					return err
				}
			}
			if last {
				return txn.Set(importedKey, []byte{recordVersion})
			}
			return nil
		}, func() {
			for _, client := range batch {
				s.clients[client.ID] = client
			}
		})
		if err != nil {
			return err
		}
		if last {
			break
		}
	}
	s.log.Info("clients of the former server taken over", "path", dir,
		"clients", len(fresh), "kept", len(former.clients)-len(fresh), "skipped", former.skipped)
	return nil
}

// badgerLog passes Badger's own messages on at debug level; what matters reaches the caller as
// an error.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(format string, args ...any)   { l.debug("error", format, args) }
func (l badgerLog) Warningf(format string, args ...any) { l.debug("warning", format, args) }
func (l badgerLog) Infof(format string, args ...any)    { l.debug("info", format, args) }
func (l badgerLog) Debugf(string, ...any)               {}

func (l badgerLog) debug(level, format string, args []any) {
	if !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	l.log.Debug("badger", "severity", level, "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
}
