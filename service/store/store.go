// Package store keeps the registered clients: clientID → bcrypt hash, roles and epoch; and, for as
// long as each is to be remembered, which call ids were used.
//
// Badger is the durable side. Every write is synced, and its folder entry too, before it is
// acknowledged, so that what was acknowledged survives a kill and a power loss. All records are also held
// in memory, where every read is answered: a few thousand tiny records cost a few megabytes, and
// logins go on while the disk is full, slow or gone. Opening checks every record and every file
// that holds one, and refuses a damaged store instead of serving part of it.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Limits that apply where Config says nothing.
const (
	// DefaultMinFreeBytes is the free space below which writes are refused.
	DefaultMinFreeBytes = 64 << 20
	// DefaultMaxClients is the number of registrations a store takes.
	DefaultMaxClients = 10_000
	// MaxList is the most clients that List returns at once.
	MaxList = 1000
)

// Errors a caller acts on. They come wrapped with what was tried.
var (
	// ErrNotFound: no client has that id.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the id is taken already, or its hash is not the one expected.
	ErrConflict = errors.New("conflict")
	// ErrFull: the cap on registrations is reached.
	ErrFull = errors.New("too many registrations")
	// ErrNoSpace: the volume has too little free space for a write. It passes by itself.
	ErrNoSpace = errors.New("no space")
	// ErrLocked: another process holds the store, or the former server its folder.
	ErrLocked = errors.New("held by another process")
	// ErrDamaged: a file of the store is not as it was written.
	ErrDamaged = errors.New("damaged")
	// ErrReadOnly: an earlier write failed half-way; reads go on, writes need a restart.
	ErrReadOnly = errors.New("read-only after a failed write")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("closed")
	// ErrInvalid: the client is not one that can be stored.
	ErrInvalid = errors.New("invalid client")
)

// Config says where the store lives and how much it takes.
type Config struct {
	// Dir is the data_source folder, made (0700) if missing. The store writes into its sub-folder
	// "badger" alone; a folder of the former layout (protocol, section 3.7) is only read.
	Dir string
	// MinFreeBytes is the free space of the volume below which writes are refused;
	// 0 means DefaultMinFreeBytes.
	MinFreeBytes uint64
	// MaxClients caps the registrations; 0 means DefaultMaxClients.
	MaxClients int
	// MaxCallIDs caps the used call ids that are remembered; 0 means DefaultMaxCallIDs.
	MaxCallIDs int
}

// A Store holds the clients. Its methods may be called by any number of goroutines.
type Store struct {
	// Fixed at creation.
	maxClients int
	log        *slog.Logger
	db         *badger.DB // nil in memory mode
	folder     *folder    // nil in memory mode

	// A value in writer is the right to write; whoever holds it owns failed.
	writer chan struct{}
	failed error // set once, by the first write that failed half-way

	// Backups that are running, and what tells them to end. Close waits for them.
	backups sync.WaitGroup
	closing chan struct{}

	mu      sync.RWMutex // guards the fields below
	clients map[string]Client
	callIDs callIDs
	epoch   uint64 // highest one of a removed client
	closed  bool
}

// Open opens the store below cfg.Dir, making it if there is none, and takes over the clients of
// a folder of the former layout once. Errors name the file at fault; ErrLocked, ErrDamaged,
// ErrNoSpace and ErrFull can be told apart. A nil log discards.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open store: no folder given")
	}
	if cfg.MinFreeBytes == 0 {
		cfg.MinFreeBytes = DefaultMinFreeBytes
	}
	log = orDiscard(log)
	s, err := open(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", filepath.Clean(cfg.Dir), err)
	}
	return s, nil
}

// OpenMemory returns an empty store that lives in memory alone, for tests.
func OpenMemory() *Store {
	return newStore(Config{}, orDiscard(nil))
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

func newStore(cfg Config, log *slog.Logger) *Store {
	if cfg.MaxClients <= 0 {
		cfg.MaxClients = DefaultMaxClients
	}
	s := &Store{
		maxClients: cfg.MaxClients,
		log:        log,
		writer:     make(chan struct{}, 1),
		closing:    make(chan struct{}),
		clients:    make(map[string]Client),
		callIDs:    newCallIDs(cfg.MaxCallIDs),
	}
	s.writer <- struct{}{}
	return s
}

func open(cfg Config, log *slog.Logger) (*Store, error) {
	folder, err := openFolder(cfg.Dir, cfg.MinFreeBytes, log)
	if err != nil {
		return nil, err
	}
	s := newStore(cfg, log)
	s.folder = folder
	if err := s.start(cfg.Dir); err != nil {
		return nil, errors.Join(err, s.shut())
	}
	log.Info("store opened", "path", folder.path, "clients", len(s.clients))
	return s, nil
}

// start opens Badger inside the locked folder, loads the records and takes over former ones.
func (s *Store) start(dataSource string) error {
	if err := s.folder.makeRoom(); err != nil {
		return err
	}
	if err := checkFiles(s.folder.db, s.log); err != nil {
		return err
	}
	db, err := openBadger(s.folder.db, s.log)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.folder.db, err)
	}
	s.db = db
	if err := s.folder.settle(); err != nil {
		return err
	}
	imported, err := s.load()
	if err != nil {
		return fmt.Errorf("load %s: %w", s.folder.db, err)
	}
	if imported {
		return nil
	}
	if err := s.importFormer(dataSource); err != nil {
		return fmt.Errorf("take over clients of the former server: %w", err)
	}
	return nil
}

// Get returns the client with that id, or ErrNotFound.
func (s *Store) Get(id string) (Client, error) {
	s.mu.RLock()
	client, ok := s.clients[id]
	closed := s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return Client{}, ErrClosed
	case !ok:
		return Client{}, ErrNotFound
	}
	return client.clone(), nil
}

// List returns up to limit clients whose ids come after after, by id. A limit that is not between 1 and
// MaxList counts as MaxList.
func (s *Store) List(after string, limit int) ([]Client, error) {
	if limit < 1 || limit > MaxList {
		limit = MaxList
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	var ids []string
	for id := range s.clients {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	list := make([]Client, 0, min(limit, len(ids)))
	for _, id := range ids[:min(limit, len(ids))] {
		list = append(list, s.clients[id].clone())
	}
	return list, nil
}

// Count returns the number of clients.
func (s *Store) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.clients)
}

// Insert adds a client; its epoch is the store's to choose. Of several calls with one id exactly one
// succeeds, the others get ErrConflict. When it returns nil the client is on disk. Other errors: ErrFull,
// ErrNoSpace, ErrReadOnly, ErrInvalid, ErrClosed, and ctx's while it waits for its turn. After an error
// of the disk itself the client may or may not be there at the next start.
func (s *Store) Insert(ctx context.Context, client Client) error {
	if err := client.check(); err != nil {
		return err
	}
	client = client.clone()
	if client.Created.IsZero() {
		client.Created = time.Now()
	}
	client.Created = client.Created.UTC().Round(0) // as decoding gives it back
	return s.write(ctx, func() error {
		s.mu.RLock()
		_, taken := s.clients[client.ID]
		full := len(s.clients) >= s.maxClients
		client.Epoch = s.epoch + 1
		s.mu.RUnlock()
		switch {
		case taken:
			return ErrConflict
		case full:
			return fmt.Errorf("%w: the limit is %d", ErrFull, s.maxClients)
		}
		return s.put(client)
	})
}

// put writes a client. The caller has the right to write.
func (s *Store) put(client Client) error {
	return s.commit(func(txn *badger.Txn) error { return client.set(txn) },
		func() { s.clients[client.ID] = client })
}

// set writes both records of a client. What an account says by not being there is not written: a store
// of clients without roles, none of which was ever removed, is the same as it was before there were any.
func (c Client) set(txn *badger.Txn) error {
	if err := txn.Set(clientKey(c.ID), c.encode()); err != nil {
		return err
	}
	if c.plain() {
		return txn.Delete(accountKey(c.ID))
	}
	return txn.Set(accountKey(c.ID), c.encodeAccount())
}

// Update changes a client as change does to a copy, atomically: nothing else is written meanwhile, so
// change has to be quick and may not call the store. An error of change is returned as it is, and nothing
// is written. ID and Created stay what they are, and the epoch does not go down: ErrInvalid. Errors: ErrNotFound,
// and those of Insert.
func (s *Store) Update(ctx context.Context, id string, change func(*Client) error) error {
	return s.write(ctx, func() error {
		s.mu.RLock()
		former, ok := s.clients[id]
		s.mu.RUnlock()
		if !ok {
			return ErrNotFound
		}
		client := former.clone()
		if err := change(&client); err != nil {
			return err
		}
		if client.ID != former.ID || !client.Created.Equal(former.Created) || client.Epoch < former.Epoch {
			return fmt.Errorf("%w: a change of id or creation, or an epoch below the former one", ErrInvalid)
		}
		if err := client.check(); err != nil {
			return err
		}
		return s.put(client.clone())
	})
}

// UpdateHash replaces the hash of a client if it is still old, else it returns ErrConflict
// (or ErrNotFound), so that an upgrade never undoes a registration made meanwhile.
func (s *Store) UpdateHash(ctx context.Context, id string, old, hash []byte) error {
	return s.Update(ctx, id, func(client *Client) error {
		if !bytes.Equal(client.Hash, old) {
			return ErrConflict
		}
		client.Hash = hash
		return nil
	})
}

// Delete removes a client, or returns ErrNotFound. Its epoch is below that of every client to come.
func (s *Store) Delete(ctx context.Context, id string) error {
	return s.write(ctx, func() error {
		s.mu.RLock()
		client, ok := s.clients[id]
		epoch := max(s.epoch, client.Epoch)
		s.mu.RUnlock()
		if !ok {
			return ErrNotFound
		}
		return s.commit(func(txn *badger.Txn) error {
			for _, key := range [][]byte{clientKey(id), accountKey(id)} {
				if err := txn.Delete(key); err != nil {
					return err
				}
			}
			return txn.Set(epochKey, encodeEpoch(epoch))
		}, func() {
			delete(s.clients, id)
			s.epoch = epoch
		})
	})
}

// Close waits for a write in progress, cuts off backups at their next write, flushes and releases the
// folder. It may be called again.
func (s *Store) Close() error {
	<-s.writer
	defer func() { s.writer <- struct{}{} }()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	close(s.closing)
	s.backups.Wait()
	if err := s.shut(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// shut releases what was opened. Badger flushes its memory table here: the ballast goes first,
// so that a full disk has room for it.
func (s *Store) shut() error {
	var errs []error
	if s.db != nil {
		s.folder.dropBallast()
		errs = append(errs, s.db.Close())
		s.db = nil
	}
	if s.folder != nil {
		errs = append(errs, s.folder.close())
	}
	return errors.Join(errs...)
}

// write runs f with the right to write. Writes run one after the other: a second one would only
// wait for the first one's sync, and what f sees of clients holds until it returns.
func (s *Store) write(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.writer:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.writer <- struct{}{} }()
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	return f()
}

// commit makes a change durable, then visible. After a failed Badger write nothing more is
// written: a sync that failed once may have lost pages that a later one would report as safe,
// and Badger cannot go on without a memory table.
func (s *Store) commit(change func(*badger.Txn) error, apply func()) error {
	if s.db != nil {
		if s.failed != nil {
			return fmt.Errorf("%w: %w", ErrReadOnly, s.failed)
		}
		if err := s.folder.guard(); err != nil {
			return err
		}
		err := s.db.Update(change)
		if err == nil {
			err = s.folder.syncEntries()
		}
		if err != nil {
			s.failed = err
			s.log.Error("store write failed, the store is read-only until the next start",
				"path", s.folder.db, "err", err)
			return fmt.Errorf("%w: %w", ErrReadOnly, err)
		}
		if err := s.folder.settle(); err != nil {
			s.log.Warn("store files could not be prepared for the next write", "err", err)
		}
	}
	s.mu.Lock()
	apply()
	s.mu.Unlock()
	return nil
}

var _ io.Closer = (*Store)(nil)
