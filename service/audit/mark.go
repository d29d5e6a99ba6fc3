package audit

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// A mark is a durable place in the log: the record seq with its hash, and where its line ends.
type mark struct {
	seq  uint64
	sum  sum
	file uint64 // the first record of the file
	end  int64  // bytes of the file up to and with the record
}

// A mark file has two slots that are written in turn, so that a write that breaks off leaves the other
// one. Each is within a sector of a disk.
const (
	slotBytes  = 256
	markFormat = "%020d %s %020d %020d"
)

// markFile holds a mark on disk.
type markFile struct {
	path string
	file file
	turn int64
}

// readMark returns the newest mark of a file; ok is false if there is no file or nothing in it. A file
// without a valid slot is an error.
func readMark(path string) (m mark, slot int64, ok bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, 0, false, nil
	}
	if err != nil || len(text) == 0 {
		return mark{}, 0, false, err
	}
	for i := int64(0); i < 2; i++ {
		if int64(len(text)) < (i+1)*slotBytes {
			break
		}
		found, valid := parseMark(text[i*slotBytes : (i+1)*slotBytes])
		if valid && (!ok || found.seq >= m.seq) {
			m, slot, ok = found, i, true
		}
	}
	if !ok {
		return mark{}, 0, false, fmt.Errorf("read %s: no valid mark in it", path)
	}
	return m, slot, true, nil
}

func parseMark(slot []byte) (mark, bool) {
	body, _, found := bytes.Cut(slot, []byte{'\n'})
	if !found {
		return mark{}, false
	}
	var (
		m     mark
		text  string
		check uint32
	)
	if n, err := fmt.Sscanf(string(body), "%d %s %d %d %x", &m.seq, &text, &m.file, &m.end, &check); n != 5 || err != nil {
		return mark{}, false
	}
	s, err := parseSum(text)
	if err != nil {
		return mark{}, false
	}
	m.sum = s
	return m, check == crc32.ChecksumIEEE(fmt.Appendf(nil, markFormat, m.seq, m.sum, m.file, m.end))
}

// openMark opens a mark file for writing, making it if missing, and returns what it holds. A file
// without a valid mark is written anew from its first slot on; the caller was told by readMark.
func openMark(path string, open opener) (*markFile, mark, bool, error) {
	m, slot, ok, readErr := readMark(path)
	f, err := open(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, mark{}, false, err
	}
	mf := &markFile{path: path, file: f}
	if ok {
		mf.turn = 1 - slot
	}
	return mf, m, ok, readErr
}

// write makes m durable.
func (f *markFile) write(m mark) error {
	body := fmt.Appendf(nil, markFormat, m.seq, m.sum, m.file, m.end)
	body = fmt.Appendf(body, " %08x\n", crc32.ChecksumIEEE(body))
	body = append(body, bytes.Repeat([]byte{' '}, slotBytes-len(body)-1)...)
	body = append(body, '\n')
	if _, err := f.file.WriteAt(body, f.turn*slotBytes); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.path, err)
	}
	f.turn = 1 - f.turn
	return nil
}

func (f *markFile) close() error { return f.file.Close() }
