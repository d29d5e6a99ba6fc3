package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Names in the folder of the log.
//
//	00000000000000000001.jsonl   the log, each file named after its first record
//	00000000000000000001.idx     what a query may skip of it; can be made again
//	head                         how far the log reaches
//	sink-….pos                   how far a sink has sent
//	key                          the key of the users' hashes
//	lock                         held while a server runs
const (
	logSuffix   = ".jsonl"
	indexSuffix = ".idx"
	headName    = "head"
	keyName     = "key"
	lockName    = "lock"
)

// file is what the log needs of an open file.
type file interface {
	io.WriterAt
	io.Closer
	Stat() (os.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// opener opens a file for writing. A test hands in one that fails.
type opener func(path string, flag int, perm os.FileMode) (file, error)

func openFile(path string, flag int, perm os.FileMode) (file, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func logName(first uint64) string { return fmt.Sprintf("%020d%s", first, logSuffix) }

func indexName(first uint64) string { return fmt.Sprintf("%020d%s", first, indexSuffix) }

// logFiles returns the first records of the log files in dir, in order.
func logFiles(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		digits, isLog := strings.CutSuffix(e.Name(), logSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		if isLog && err == nil && logName(first) == e.Name() && first > 0 {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// syncDir makes names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// eachLine calls visit with each line of r, its offset and its length, newline included, and returns the
// length of the rest that has no newline. Of a line longer than maxLine, visit gets the first bytes.
func eachLine(r io.Reader, visit func(text []byte, at, n int64) error) (rest int64, err error) {
	in := bufio.NewReaderSize(r, maxLine+1)
	for at := int64(0); ; {
		text, err := in.ReadSlice('\n')
		n := int64(len(text))
		if errors.Is(err, bufio.ErrBufferFull) {
			text = slices.Clone(text)
			for errors.Is(err, bufio.ErrBufferFull) {
				var more []byte
				more, err = in.ReadSlice('\n')
				n += int64(len(more))
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		if err := visit(text, at, n); err != nil {
			return 0, err
		}
		at += n
	}
}

// indexOf returns the index of a file up to size, from its sidecar or else from the file.
func indexOf(dir string, first uint64, size int64) (index, error) {
	if x, err := readIndex(filepath.Join(dir, indexName(first)), size); err == nil {
		return x, nil
	}
	f, err := os.Open(filepath.Join(dir, logName(first)))
	if err != nil {
		return index{}, err
	}
	defer func() { _ = f.Close() }()
	var x index
	_, err = eachLine(io.LimitReader(f, size), func(text []byte, _, n int64) error {
		// Damage is Verify's to name; here a line that is none still has its bytes.
		r, _ := decodeRecord(text)
		x.add(r.Event, n)
		return nil
	})
	return x, err
}

// writeDurably makes a file with what is in text, whole or not at all.
func writeDurably(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}
