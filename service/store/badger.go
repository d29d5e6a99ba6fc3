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

// load fills the fields that are held in memory and reports whether a former folder was taken over
// already.
func (s *Store) load() (imported bool, err error) {
	accounts := make(map[string]account)
	now := time.Now()
	err = s.db.View(func(txn *badger.Txn) error {
		_, err := txn.Get(importedKey)
		if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		imported = err == nil
		if err := s.loadEpoch(txn); err != nil {
			return err
		}
		for _, kind := range []struct {
			name   string
			prefix []byte
			take   func(key, value []byte) error
		}{
			{"account", accountPrefix, func(key, value []byte) error {
				id := string(key[len(accountPrefix):])
				a, err := decodeAccount(id, value)
				accounts[id] = a
				return err
			}},
			{"client", clientPrefix, func(key, value []byte) error {
				client, err := decodeClient(string(key[len(clientPrefix):]), value)
				s.clients[client.ID] = client
				return err
			}},
			{"used call id", callIDPrefix, func(key, value []byte) error {
				group, sum, err := parseCallIDKey(key)
				if err != nil {
					return err
				}
				until, err := decodeCallID(key, value)
				if err == nil && until > now.Unix() {
					s.callIDs.add(group, sum, until)
				}
				return err
			}},
		} {
			if err := each(txn, kind.prefix, kind.take); err != nil {
				return fmt.Errorf("%s %w", kind.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	s.joinAccounts(accounts)
	return imported, nil
}

// each calls take for all records below a prefix. They are valid until it returns.
func each(txn *badger.Txn, prefix []byte, take func(key, value []byte) error) error {
	opt := badger.DefaultIteratorOptions
	opt.Prefix = prefix
	it := txn.NewIterator(opt)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		err := item.Value(func(value []byte) error { return take(item.Key(), value) })
		if err != nil {
			return fmt.Errorf("%q: %w: %w", item.Key()[len(prefix):], ErrDamaged, err)
		}
	}
	return nil
}

func (s *Store) loadEpoch(txn *badger.Txn) error {
	item, err := txn.Get(epochKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return item.Value(func(value []byte) error {
		if s.epoch, err = decodeEpoch(value); err != nil {
			return fmt.Errorf("epoch: %w: %w", ErrDamaged, err)
		}
		return nil
	})
}

// joinAccounts gives clients what their accounts say. An account of a client that is no more is left by
// a server from before there were any, which removed the client, and perhaps registered it anew: that
// one then gets nothing of it but an epoch above.
func (s *Store) joinAccounts(accounts map[string]account) {
	for id, a := range accounts {
		client, ok := s.clients[id]
		if !ok || !client.Created.Equal(a.created) {
			s.epoch = max(s.epoch, a.epoch)
			if ok {
				client.Epoch = a.epoch + 1
				s.clients[id] = client
			}
			continue
		}
		s.clients[id] = a.join(client)
	}
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
		client.Epoch = s.epoch + 1
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
				if err := client.set(txn); err != nil {
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
