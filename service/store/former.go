package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Bounds of the former layout (protocol, section 3.7).
const (
	formerMaxKey     = 64
	formerMaxValue   = 65536
	formerMaxFiles   = 10_000
	formerHashBytes  = 60
	formerHeadBytes  = 4 + 8
	formerTailBytes  = 4 + 8
	formerDataLayout = "[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9].data"
)

// A former folder is what was found in one of the former layout.
type former struct {
	clients []Client // by id
	skipped int      // records of clients that cannot be taken over
}

// readFormer reads the clients in dir, a folder of the former layout, as of now. It returns nil
// if dir is none. It changes nothing, and fails with ErrLocked while the former server runs there.
func readFormer(dir string, now time.Time, maxClients int, log *slog.Logger) (*former, error) {
	paths, err := formerFiles(dir)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	lock, err := os.Open(filepath.Join(dir, "lock"))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		defer lock.Close()
		if err := flock(lock); err != nil {
			return nil, fmt.Errorf("stop the former server first: %w", err)
		}
	}
	r := formerReader{
		now:     now,
		keys:    make(map[string]Client),
		maxKeys: 2 * maxClients,
		log:     log,
	}
	for _, path := range paths {
		if err := r.readFile(path); err != nil {
			return nil, err
		}
	}
	found := &former{skipped: r.skipped}
	for _, client := range r.keys {
		found.clients = append(found.clients, client)
	}
	slices.SortFunc(found.clients, func(a, b Client) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return found, nil
}

// formerFiles returns the data files of dir in the order they were written.
func formerFiles(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var paths []string
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if ok, _ := filepath.Match(formerDataLayout, name); ok {
				paths = append(paths, filepath.Join(dir, name))
			}
		}
		if len(paths) > formerMaxFiles {
			return nil, fmt.Errorf("%s holds more than %d data files", dir, formerMaxFiles)
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(paths)
			return paths, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// A formerReader follows records from file to file.
type formerReader struct {
	now     time.Time
	keys    map[string]Client // the latest sound record of each id
	maxKeys int
	skipped int
	log     *slog.Logger
}

func (r *formerReader) readFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	return r.read(path, file, info.ModTime())
}

// errTornRecord: the file ends inside a record, as after a kill.
var errTornRecord = errors.New("torn record")

// read follows the records of one data file. A torn tail is tolerated, with a warning; lengths
// that cannot be are not, since nothing behind them can be trusted to be a record.
func (r *formerReader) read(path string, from io.Reader, modified time.Time) error {
	in := bufio.NewReaderSize(from, 64<<10)
	for offset := int64(0); ; {
		record, err := readFormerRecord(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTornRecord):
			r.log.Warn("former store file ends inside a record, the rest is taken over",
				"path", path, "offset", offset)
			return nil
		case err != nil:
			return fmt.Errorf("%s at offset %d: %w", path, offset, err)
		}
		if err := r.apply(path, offset, record, modified); err != nil {
			return err
		}
		offset += formerHeadBytes + int64(len(record.key)+len(record.value)) + formerTailBytes
	}
}

type formerRecord struct {
	key    string
	value  []byte
	sum    uint32
	expiry uint64 // Unix seconds, 0 for never
}

// readFormerRecord reads one record. io.EOF means that none follows.
func readFormerRecord(in io.Reader) (formerRecord, error) {
	var head [formerHeadBytes]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return formerRecord{}, torn(err, io.EOF)
	}
	keyLen := binary.BigEndian.Uint32(head[:])
	valueLen := binary.BigEndian.Uint64(head[4:])
	if zeros(head[:]) {
		return formerRecord{}, onlyZeros(in)
	}
	if keyLen == 0 || keyLen > formerMaxKey || valueLen > formerMaxValue {
		return formerRecord{}, fmt.Errorf("%w: record of a %d-byte key and a %d-byte value",
			ErrDamaged, keyLen, valueLen)
	}
	body := make([]byte, int(keyLen)+int(valueLen)+formerTailBytes)
	if _, err := io.ReadFull(in, body); err != nil {
		return formerRecord{}, torn(err, errTornRecord)
	}
	tail := body[len(body)-formerTailBytes:]
	return formerRecord{
		key:    string(body[:keyLen]),
		value:  body[keyLen : len(body)-formerTailBytes],
		sum:    binary.BigEndian.Uint32(tail),
		expiry: binary.BigEndian.Uint64(tail[4:]),
	}, nil
}

// torn maps the end of the input: atStart if nothing was read, else errTornRecord.
func torn(err, atStart error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errTornRecord
	case errors.Is(err, io.EOF):
		return atStart
	}
	return err
}

// onlyZeros tells a file that a power loss left longer than its contents from a broken one.
func onlyZeros(in io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if !zeros(buf[:n]) {
			return fmt.Errorf("%w: record without a key", ErrDamaged)
		}
		if errors.Is(err, io.EOF) {
			return errTornRecord
		}
		if err != nil {
			return err
		}
	}
}

// apply lets a record replace what is known of its key. A record that cannot be used counts as
// well: the hash before it may be of a key that was given up, so the client is left out.
func (r *formerReader) apply(path string, offset int64, record formerRecord, modified time.Time) error {
	delete(r.keys, record.key)
	if crc32.ChecksumIEEE(record.value) != record.sum {
		r.skip(path, offset, record.key, "its checksum does not match")
		return nil
	}
	if len(record.value) == 0 {
		return nil // removed
	}
	if record.expiry != 0 && record.expiry <= uint64(max(r.now.Unix(), 0)) {
		return nil // expired
	}
	client := Client{ID: record.key, Hash: record.value, Created: modified}
	if len(client.Hash) != formerHashBytes || string(client.Hash[:2]) != "$2" {
		r.skip(path, offset, record.key, "its value is not a bcrypt hash")
		return nil
	}
	if err := client.check(); err != nil {
		r.skip(path, offset, record.key, err.Error())
		return nil
	}
	if len(r.keys) >= r.maxKeys {
		return fmt.Errorf("%w: %s holds more than %d", ErrFull, filepath.Dir(path), r.maxKeys)
	}
	r.keys[record.key] = client
	return nil
}

func (r *formerReader) skip(path string, offset int64, id, reason string) {
	r.skipped++
	r.log.Warn("client of the former server left out, it must register again",
		"path", path, "offset", offset, "client", fmt.Sprintf("%q", id), "reason", reason)
}
