package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
)

// Badger, given damaged files, ends the process, drops what it cannot read, or removes tables
// its manifest does not name. checkFiles therefore reads all of them before Badger does. Sizes
// are small: the whole store is a few megabytes.

// Bounds of single files; ours stay far below.
const (
	maxTableBytes    = 64 << 20
	maxManifestBytes = 16 << 20
)

// maxEntryBytes bounds the key and the value of an entry in a write-ahead file.
const maxEntryBytes = 4 << 10

// walHeaderSize is the key id and IV in front of a write-ahead file's entries.
const walHeaderSize = 20

// damaged names the file, what is wrong, and how to go on.
func damaged(path string, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s; restore the folder from a backup, or move it away to start empty",
		ErrDamaged, path, fmt.Sprintf(format, args...))
}

// A versions range says which commits a file holds; last is 0 if none.
type versions struct{ first, last uint64 }

// checkFiles returns an ErrDamaged that names the file if what is in dir is not what a Badger
// that was closed, killed or cut off left behind.
func checkFiles(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var tables, wals []string
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch filepath.Ext(path) {
		case ".sst":
			tables = append(tables, path)
		case ".mem":
			wals = append(wals, path)
		case ".vlog":
			err = dropValueLog(path)
		default:
			switch entry.Name() {
			case "DISCARD": // statistics of the value log, which is not used
				err = os.Remove(path)
			case badger.KeyRegistryFileName:
				err = checkKeyRegistry(path)
			}
		}
		if err != nil {
			return err
		}
	}
	logged, err := checkWriteAheadFiles(wals, log)
	if err != nil {
		return err
	}
	return checkTables(dir, tables, logged)
}

// dropValueLog removes a value log, which never holds anything here: Badger makes a new one.
func dropValueLog(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(walHeaderSize, io.SeekStart); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		if !zeros(buf[:n]) {
			return damaged(path, "it holds data, and this server never writes any there")
		}
		if errors.Is(err, io.EOF) {
			return os.Remove(path)
		}
		if err != nil {
			return err
		}
	}
}

func zeros(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// checkKeyRegistry checks the file of encryption keys: without encryption it is an IV and a
// fixed text.
func checkKeyRegistry(path string) error {
	const size, text = 28, "Hello Badger"
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return err
	}
	if len(b) != size || string(b[size-len(text):]) != text {
		return damaged(path, "not a key registry of an unencrypted store")
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, damaged(path, "%d bytes long, at most %d expected", info.Size(), limit)
	}
	return os.ReadFile(path)
}

// checkWriteAheadFiles returns the commits in each write-ahead file.
func checkWriteAheadFiles(paths []string, log *slog.Logger) ([]versions, error) {
	var all []versions
	for _, path := range paths {
		if _, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), ".mem"), 10, 32); err != nil {
			return nil, damaged(path, "its name is not a number")
		}
		b, err := readBounded(path, 2*memTableBytes)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			// Cut off between being made and being sized: nothing was acknowledged from it.
			log.Warn("empty write-ahead file removed", "path", path)
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		held, err := checkWriteAhead(path, b)
		if err != nil {
			return nil, err
		}
		all = append(all, held)
	}
	return all, nil
}

// checkWriteAhead follows the entries of one file as Badger will. Badger takes the first entry
// that does not check as the end, since a cut-off write looks like that. But writes are synced
// one by one, so behind a cut-off one there can only be the rest of the same commit, and only if
// a sector between was never written. Anything else means that an acknowledged entry was damaged.
func checkWriteAhead(path string, b []byte) (versions, error) {
	var held versions
	if len(b) < walHeaderSize || binary.BigEndian.Uint64(b) != 0 {
		return held, damaged(path, "its header is broken")
	}
	at, committed := walHeaderSize, true
	for {
		entry, ok := parseWALEntry(b[at:])
		if !ok {
			break
		}
		held.add(entry.version)
		at, committed = at+entry.size, entry.commits
	}
	// Badger makes the file this long, and when it has replayed it cuts it behind the last commit.
	if len(b) != 2*memTableBytes && (len(b) != at || !committed) {
		return held, damaged(path, "it ends inside the entry at offset %d", at)
	}
	var behind versions
	for from := at; from < len(b); from++ {
		if b[from] == 0 { // our entries start with a transaction bit
			continue
		}
		entry, ok := parseWALEntry(b[from:])
		if !ok {
			continue
		}
		first := behind.last == 0
		behind.add(entry.version)
		cutOff := behind.first == behind.last &&
			(held.last == 0 || behind.last <= held.last+1) &&
			(!first || unwrittenSector(b, at, from))
		if !cutOff {
			return held, damaged(path, "the entry at offset %d is broken, and sound ones follow it", at)
		}
		from += entry.size - 1
	}
	return held, nil
}

// unwrittenSector reports whether some disk sector has nothing but zeros between from and to.
func unwrittenSector(b []byte, from, to int) bool {
	const sector = 512
	for from < to {
		end := min(to, from-from%sector+sector)
		if zeros(b[from:end]) {
			return true
		}
		from = end
	}
	return false
}

func (v *versions) add(version uint64) {
	if version == 0 {
		return
	}
	if v.last == 0 {
		v.first = version
	}
	v.first, v.last = min(v.first, version), max(v.last, version)
}

type walEntry struct {
	size    int
	version uint64
	commits bool // the last entry of its commit
}

// parseWALEntry reads one entry: meta, user meta, lengths of key and value and expiry as
// varints, key, value, CRC-32C of all that. A key ends in its version, counted down. An empty
// entry (zeros, whose checksum does not match) is not one.
func parseWALEntry(b []byte) (walEntry, bool) {
	at := 2
	var numbers [3]uint64
	for i := range numbers {
		if at >= len(b) {
			return walEntry{}, false
		}
		number, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return walEntry{}, false
		}
		numbers[i] = number
		at += n
	}
	keyLen, valueLen := numbers[0], numbers[1]
	if keyLen < 8 || keyLen > maxEntryBytes || valueLen > maxEntryBytes {
		return walEntry{}, false
	}
	end := at + int(keyLen) + int(valueLen)
	if end+4 > len(b) {
		return walEntry{}, false
	}
	if binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return walEntry{}, false
	}
	keyEnd := at + int(keyLen)
	return walEntry{
		size:    end + 4,
		version: math.MaxUint64 - binary.BigEndian.Uint64(b[keyEnd-8:keyEnd]),
		commits: b[0]&(1<<7) != 0,
	}, true
}

// checkTables checks every table against its checksums and against the manifest. A table that the
// manifest does not name is normal after a kill, between writing the table and naming it; then
// its commits are also elsewhere: in the write-ahead file it was made from, or in the tables it
// was to replace. If they are not, the manifest has lost it, and Badger would remove it.
func checkTables(dir string, paths []string, logged []versions) error {
	path := filepath.Join(dir, badger.ManifestFilename)
	named, err := readManifest(path)
	if err != nil {
		return err
	}
	var namedLast uint64
	unnamed := make(map[string]uint64)
	for _, file := range paths {
		id, ok := table.ParseFileID(file)
		if !ok {
			return damaged(file, "its name is not a number")
		}
		last, err := checkTable(file, id)
		if _, isNamed := named[id]; isNamed {
			if err != nil {
				return err
			}
			namedLast = max(namedLast, last)
			delete(named, id)
			continue
		}
		if err == nil {
			unnamed[file] = last
		}
		// A table that neither checks nor is named was cut off while being written.
	}
	for id := range named {
		return damaged(table.NewFilename(id, dir), "the file is missing, and %s names it", path)
	}
	for file, last := range unnamed {
		covered := last <= namedLast || slices.ContainsFunc(logged, func(v versions) bool {
			return v.first <= last && last <= v.last
		})
		if !covered {
			return damaged(path, "it does not name %s, whose records are in no other file", file)
		}
	}
	return nil
}

// readManifest returns the ids of the tables that the manifest names; none if there is no file.
func readManifest(path string) (map[uint64]struct{}, error) {
	if _, err := readBounded(path, maxManifestBytes); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	manifest, _, err := badger.ReplayManifestFile(file, 0, badger.Options{Logger: badgerLog{orDiscard(nil)}})
	if err != nil {
		return nil, damaged(path, "%v", err)
	}
	ids := make(map[uint64]struct{}, len(manifest.Tables))
	for id, t := range manifest.Tables {
		if t.Level >= uint8(badger.DefaultOptions("").MaxLevels) || t.KeyID != 0 {
			return nil, damaged(path, "table %d has level %d and key %d", id, t.Level, t.KeyID)
		}
		ids[id] = struct{}{}
	}
	return ids, nil
}

// checkTable verifies all checksums of a table and returns its latest commit.
func checkTable(path string, id uint64) (last uint64, err error) {
	b, err := readBounded(path, maxTableBytes)
	if err != nil {
		return 0, err
	}
	if err := checkTableFooter(b); err != nil {
		return 0, damaged(path, "%v", err)
	}
	// What is left to find, Badger reports by panicking: here on our own goroutine, over bytes
	// in memory.
	defer func() {
		if r := recover(); r != nil {
			last, err = 0, damaged(path, "a block is broken")
		}
	}()
	opt := table.Options{ReadOnly: true, BlockSize: 4 << 10}
	t, err := table.OpenInMemoryTable(bytes.Clone(b), id, &opt)
	if err != nil {
		return 0, damaged(path, "%v", err)
	}
	if err := t.VerifyChecksum(); err != nil {
		return 0, damaged(path, "%v", err)
	}
	return t.MaxVersion(), nil
}

// checkTableFooter checks what Badger believes before it looks at a checksum: the file ends in
// the index, its length, its checksum message and that one's length.
func checkTableFooter(b []byte) error {
	rest := len(b) - 4
	if rest < 0 {
		return errors.New("too short for a table")
	}
	checksumLen := uint64(binary.BigEndian.Uint32(b[rest:]))
	if checksumLen > 64 || uint64(rest) < checksumLen+4 {
		return errors.New("the length of its checksum is impossible")
	}
	rest -= int(checksumLen)
	checksum := b[rest : rest+int(checksumLen)]
	rest -= 4
	indexLen := uint64(binary.BigEndian.Uint32(b[rest:]))
	if indexLen == 0 || uint64(rest) < indexLen {
		return errors.New("the length of its index is impossible")
	}
	want, ok := parseChecksum(checksum)
	if index := b[rest-int(indexLen) : rest]; !ok || want != uint64(crc32.Checksum(index, castagnoli)) {
		return errors.New("its index does not match its checksum")
	}
	return nil
}

// parseChecksum reads Badger's checksum message: algorithm (field 1, CRC-32C is 0) and sum
// (field 2), both varints of protocol buffers.
func parseChecksum(b []byte) (sum uint64, ok bool) {
	for len(b) > 0 {
		field := b[0]
		number, n := binary.Uvarint(b[1:])
		if n <= 0 {
			return 0, false
		}
		switch {
		case field == 1<<3 && number == 0:
		case field == 2<<3:
			sum = number
		default:
			return 0, false
		}
		b = b[1+n:]
	}
	return sum, true
}
