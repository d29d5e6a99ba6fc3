package service

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rtcd/service/api"
)

// pruneEvery is how long reports may be there that are too old, or bytes be counted that others have removed.
// Nobody is shown a report that is too old.
const pruneEvery = 10 * time.Minute

// pruneShare is the part of the room that is made when there is none.
const pruneShare = 16

// leastFree is what stays free on the volume of reports.
const leastFree = 256 << 20

var errVolumeFull = errors.New("too little room for the report")

// reportFiles are reports in files: a folder for each client, in it two files for each call. Names are made
// of hashes and times, so that no id can say where a file is.
type reportFiles struct {
	dir     string
	keep    int64 // bytes
	keepFor time.Duration
	free    func(dir string) (uint64, error)
	now     func() time.Time

	// The writer's. Looking through the folder takes a moment for each report in it, so that is not done
	// for each call.
	size   int64     // of all there is, at most
	pruned time.Time // when that was counted; zero: never
}

// openReportFiles makes the folder if need be.
func openReportFiles(dir string, keep int64, keepFor time.Duration) (*reportFiles, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of reports: %w", err)
	}
	return &reportFiles{dir: dir, keep: keep, keepFor: keepFor, free: freeSpace, now: time.Now}, nil
}

func hashed(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func (r *reportFiles) folder(client string) string { return filepath.Join(r.dir, hashed(client)) }

// name is that of a call's report, without its ending. Names of one call sort by the time.
func reportName(call string, started int64) string {
	return fmt.Sprintf("%s-%013d", hashed(call), started)
}

// write writes the reports on a call, each as a whole or not at all, and makes room for that.
func (r *reportFiles) write(client, call string, started int64, bodies map[api.ReportFormat][]byte) error {
	size := int64(0)
	for _, b := range bodies {
		size += int64(len(b))
	}
	if size > r.keep {
		return errVolumeFull
	}
	if r.pruned.IsZero() || r.now().Sub(r.pruned) >= pruneEvery || r.size+size > r.keep {
		if err := r.prune(size); err != nil {
			return err
		}
	}
	free, err := r.free(r.dir)
	if err != nil {
		return err
	}
	if free < uint64(size)+leastFree {
		return errVolumeFull
	}
	folder := r.folder(client)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for format, body := range bodies {
		r.size += int64(len(body)) // too much, if it fails
		if err := writeWhole(filepath.Join(folder, reportName(call, started)+"."+string(format)), body); err != nil {
			return err
		}
	}
	return nil
}

// newPrefix begins the names of files that are being written.
const newPrefix = ".new-"

// writeWhole writes a file that is there with all it has, or not.
func writeWhole(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), newPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// prune removes what is too old, and if there is no room for so many bytes the oldest until there is some
// more: of a call both formats at once.
func (r *reportFiles) prune(room int64) error {
	type written struct {
		paths []string
		size  int64
		at    time.Time
	}
	calls := make(map[string]*written)
	total, most := room, r.keep
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a client was forgotten
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		name := path
		if !strings.HasPrefix(d.Name(), newPrefix) { // left by a crash
			name = strings.TrimSuffix(path, filepath.Ext(path))
		}
		c := calls[name]
		if c == nil {
			c = &written{at: info.ModTime()}
			calls[name] = c
		}
		c.paths, c.size = append(c.paths, path), c.size+info.Size()
		total += info.Size()
		return nil
	})
	if err != nil {
		return err
	}
	if total > most { // or the next one would have to look again
		most = max(room, most-most/pruneShare)
	}
	for _, c := range slices.SortedFunc(maps.Values(calls), func(a, b *written) int { return a.at.Compare(b.at) }) {
		if r.now().Sub(c.at) <= r.keepFor && total <= most {
			break
		}
		for _, path := range c.paths {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		total -= c.size
	}
	r.size, r.pruned = total-room, r.now()
	return nil
}

// read returns a report that was written: on the latest call of that id, or on the one that began then.
func (r *reportFiles) read(client, call string, started int64, f api.ReportFormat) ([]byte, error) {
	entries, err := os.ReadDir(r.folder(client))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.ErrNoReport
	}
	if err != nil {
		return nil, err
	}
	found := ""
	for _, e := range entries { // sorted
		name, ok := strings.CutSuffix(e.Name(), "."+string(f))
		if ok && strings.HasPrefix(name, hashed(call)+"-") && (started == 0 || name == reportName(call, started)) {
			found = e.Name()
		}
	}
	if found == "" {
		return nil, api.ErrNoReport
	}
	path := filepath.Join(r.folder(client), found)
	if info, err := os.Stat(path); err != nil || r.now().Sub(info.ModTime()) > r.keepFor {
		return nil, api.ErrNoReport
	}
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.ErrNoReport
	}
	return body, err
}

// forget removes all of a client.
func (r *reportFiles) forget(client string) { _ = os.RemoveAll(r.folder(client)) }
