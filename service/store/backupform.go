package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A backup is, in this order:
//
//	backupMagic
//	lists of entries in the form of Badger's own backups: 8 bytes length, little endian, and a
//	   message KVList of protocol buffers, with what is live and its latest version alone
//	8 bytes 0xff, where a length would be
//	32 bytes SHA-256 of all before
//
// Entries are in the order of their keys, each key once.
const (
	backupMagic  = "rtcd store backup 1\n"
	backupMarker = ^uint64(0)
)

// Bounds of a backup.
const (
	// maxBackupBytes is far above what a store can hold.
	maxBackupBytes = 1 << 30
	// A list is written once it is listBytes long, so it is at most one entry longer.
	listBytes    = 32 << 10
	maxListBytes = listBytes + 2*maxEntryBytes + 256
)

// errBackup is what is wrong with a backup.
var errBackup = errors.New("backup is damaged")

// An entry is what a backup holds of one key.
type entry struct {
	key, value []byte
	version    uint64
	expires    uint64 // Unix seconds, 0 for never
}

// Fields of Badger's messages KVList and KV (pb/badgerpb4.proto), as tags of protocol buffers.
const (
	tagKV        = 1<<3 | 2
	tagKey       = 1<<3 | 2
	tagValue     = 2<<3 | 2
	tagUserMeta  = 3<<3 | 2
	tagVersion   = 4 << 3
	tagExpiresAt = 5 << 3
	tagMeta      = 6<<3 | 2
	tagStreamID  = 10 << 3
)

// append adds e to a list.
func (e entry) append(list []byte) []byte {
	kv := make([]byte, 0, len(e.key)+len(e.value)+40)
	kv = appendBytes(kv, tagKey, e.key)
	kv = appendBytes(kv, tagValue, e.value)
	kv = binary.AppendUvarint(append(kv, tagVersion), e.version)
	if e.expires != 0 {
		kv = binary.AppendUvarint(append(kv, tagExpiresAt), e.expires)
	}
	return appendBytes(list, tagKV, kv)
}

func appendBytes(b []byte, tag byte, field []byte) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(field)))
	return append(b, field...)
}

// parseList calls take for each entry of a list. The entries are valid until take returns.
func parseList(list []byte, take func(entry) error) error {
	for len(list) > 0 {
		tag, _, kv, rest, err := parseField(list)
		if err != nil || tag != tagKV {
			return errors.Join(errBackup, err)
		}
		list = rest
		e, err := parseEntry(kv)
		if err != nil {
			return err
		}
		if err := take(e); err != nil {
			return err
		}
	}
	return nil
}

func parseEntry(kv []byte) (e entry, err error) {
	for len(kv) > 0 {
		tag, number, field, rest, err := parseField(kv)
		if err != nil {
			return entry{}, err
		}
		kv = rest
		switch tag {
		case tagKey:
			e.key = field
		case tagValue:
			e.value = field
		case tagVersion:
			e.version = number
		case tagExpiresAt:
			e.expires = number
		case tagStreamID: // says nothing about the entry
		case tagUserMeta, tagMeta:
			// Ours has none; Badger writes a zero byte.
			if !zeros(field) {
				return entry{}, fmt.Errorf("%w: an entry with marks", errBackup)
			}
		default:
			return entry{}, fmt.Errorf("%w: an entry with field %#x", errBackup, tag)
		}
	}
	if len(e.key) == 0 || len(e.key) > maxEntryBytes || len(e.value) > maxEntryBytes {
		return entry{}, fmt.Errorf("%w: an entry of %d and %d bytes", errBackup, len(e.key), len(e.value))
	}
	return e, nil
}

// parseField reads one field of a message, a number or bytes.
func parseField(b []byte) (tag byte, number uint64, field, rest []byte, err error) {
	tag = b[0]
	number, n := binary.Uvarint(b[1:])
	if n <= 0 || tag&7 != 0 && tag&7 != 2 {
		return 0, 0, nil, nil, errBackup
	}
	rest = b[1+n:]
	if tag&7 == 2 {
		if number > uint64(len(rest)) {
			return 0, 0, nil, nil, errBackup
		}
		field, rest = rest[:number], rest[number:]
	}
	return tag, number, field, rest, nil
}

// A backupWriter writes a backup, and sums up what it wrote.
type backupWriter struct {
	to   io.Writer
	sum  hash.Hash
	list []byte
	size int64
}

func newBackupWriter(to io.Writer) (*backupWriter, error) {
	w := &backupWriter{to: to, sum: sha256.New()}
	return w, w.write([]byte(backupMagic))
}

func (w *backupWriter) write(b []byte) error {
	w.sum.Write(b)
	return w.put(b)
}

func (w *backupWriter) put(b []byte) error {
	n, err := w.to.Write(b)
	w.size += int64(n)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return err
}

func (w *backupWriter) add(e entry) error {
	w.list = e.append(w.list)
	if len(w.list) < listBytes {
		return nil
	}
	return w.flush()
}

func (w *backupWriter) flush() error {
	if len(w.list) == 0 {
		return nil
	}
	if err := w.write(binary.LittleEndian.AppendUint64(nil, uint64(len(w.list)))); err != nil {
		return err
	}
	err := w.write(w.list)
	w.list = w.list[:0]
	return err
}

// finish writes what is left, the marker and the sum.
func (w *backupWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.write(binary.LittleEndian.AppendUint64(nil, backupMarker)); err != nil {
		return err
	}
	return w.put(w.sum.Sum(nil))
}

// readBackup reads a whole backup, calls take for each entry, and checks everything there is to check. What
// take was told counts only if no error is returned.
func readBackup(from io.Reader, take func(entry) error) (BackupInfo, error) {
	r := &sumReader{from: bufio.NewReaderSize(io.LimitReader(from, maxBackupBytes+1), 64<<10), sum: sha256.New()}
	var info BackupInfo
	magic, err := r.next(len(backupMagic))
	if err != nil || string(magic) != backupMagic {
		return BackupInfo{}, errors.Join(fmt.Errorf("%w: it is not a backup of a store", errBackup), err)
	}
	var former []byte
	for {
		head, err := r.next(8)
		if err != nil {
			return BackupInfo{}, err
		}
		size := binary.LittleEndian.Uint64(head)
		if size == backupMarker {
			break
		}
		if size == 0 || size > maxListBytes {
			return BackupInfo{}, fmt.Errorf("%w: a list of %d bytes at offset %d", errBackup, size, r.size)
		}
		list, err := r.next(int(size))
		if err != nil {
			return BackupInfo{}, err
		}
		err = parseList(list, func(e entry) error {
			if bytes.Compare(e.key, former) <= 0 {
				return fmt.Errorf("%w: its entries are out of order", errBackup)
			}
			former = append(former[:0], e.key...)
			if err := info.count(e); err != nil {
				return fmt.Errorf("%w: entry %q: %w", errBackup, e.key, err)
			}
			return take(e)
		})
		if err != nil {
			return BackupInfo{}, err
		}
	}
	want := r.sum.Sum(nil)
	got, err := r.next(sha256.Size)
	if err != nil {
		return BackupInfo{}, err
	}
	if !bytes.Equal(got, want) {
		return BackupInfo{}, fmt.Errorf("%w: its SHA-256 does not match", errBackup)
	}
	info.SHA256, info.Bytes = [sha256.Size]byte(want), r.size
	if _, err := r.next(1); !errors.Is(err, errCutOff) {
		return BackupInfo{}, errors.Join(fmt.Errorf("%w: there is something behind it", errBackup), err)
	}
	return info, nil
}

// count checks an entry as a start would, and counts it.
func (info *BackupInfo) count(e entry) error {
	switch {
	case bytes.HasPrefix(e.key, clientPrefix):
		info.Clients++
		_, err := decodeClient(string(e.key[len(clientPrefix):]), e.value)
		return err
	case bytes.HasPrefix(e.key, accountPrefix):
		_, err := decodeAccount(string(e.key[len(accountPrefix):]), e.value)
		return err
	case bytes.HasPrefix(e.key, callIDPrefix):
		info.CallIDs++
		if _, _, err := parseCallIDKey(e.key); err != nil {
			return err
		}
		until, err := decodeCallID(e.key, e.value)
		if err == nil && uint64(until) != e.expires {
			err = errRecordForm
		}
		return err
	case bytes.Equal(e.key, epochKey):
		_, err := decodeEpoch(e.value)
		return err
	case bytes.Equal(e.key, importedKey):
		return nil
	}
	return errors.New("this server knows no such key")
}

// errCutOff: the backup ends too early.
var errCutOff = fmt.Errorf("%w: it is cut off", errBackup)

// A sumReader reads pieces, and sums them up.
type sumReader struct {
	from *bufio.Reader
	sum  hash.Hash
	buf  [maxListBytes]byte
	size int64
}

// next returns the next n bytes, at most maxListBytes, which are valid until it is called again.
func (r *sumReader) next(n int) ([]byte, error) {
	b := r.buf[:n]
	got, err := io.ReadFull(r.from, b)
	r.size += int64(got)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCutOff
	case err != nil:
		return nil, err
	case r.size > maxBackupBytes:
		return nil, fmt.Errorf("%w: longer than %d bytes", errBackup, maxBackupBytes)
	}
	r.sum.Write(b)
	return b, nil
}
