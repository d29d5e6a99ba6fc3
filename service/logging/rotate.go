package logging

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	maxFileBytes   = 100_000_000
	backupLayout   = "2006-01-02T15-04-05.000"
	partSuffix     = ".part"
	compressSuffix = ".gz"
)

// A rotatingFile is a log file of bounded size. A full one is renamed to name-<UTC time>.ext and
// compressed to name-<UTC time>.ext.gz by a goroutine of its own, and kept. What was left by a
// process that ended meanwhile is compressed at the next start.
//
// It is our own as the usual package keeps a goroutine that nothing can end.
type rotatingFile struct {
	path    string
	max     int64
	trouble func(error) // told of every failure; called without the lock

	mu      sync.Mutex // guards the fields below
	file    *os.File   // nil once closed
	size    int64
	limit   int64 // max, or more after a rotation that failed
	pending []string
	busy    bool // a goroutine is working off pending

	stop chan struct{} // closed by Close
	work sync.WaitGroup
}

func openRotating(path string, max int64, trouble func(error)) (*rotatingFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f := &rotatingFile{path: path, max: max, limit: max, trouble: trouble, stop: make(chan struct{})}
	if err := f.open(); err != nil {
		return nil, err
	}
	f.compress(f.leftovers())
	return f, nil
}

// open opens the file for appending and takes its size. The caller holds the lock, or is alone.
func (f *rotatingFile) open() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.size, f.limit = file, info.Size(), f.max
	if !info.Mode().IsRegular() {
		f.limit = 1<<63 - 1 // a device or a pipe cannot be rotated
	}
	return nil
}

// Write appends one line, in a new file if it does not fit.
func (f *rotatingFile) Write(line []byte) (int, error) {
	n, full, err := f.write(line)
	if full != "" {
		f.compress([]string{full})
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		f.trouble(err)
	}
	return n, err
}

// write returns the path of the file that was rotated away, if one was.
func (f *rotatingFile) write(line []byte) (n int, full string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0, "", os.ErrClosed
	}
	var rotation error
	if f.size > 0 && f.size+int64(len(line)) > f.limit {
		full, rotation = f.rotate()
	}
	n, err = f.file.Write(line)
	f.size += int64(n)
	return n, full, errors.Join(rotation, err)
}

// rotate renames the file and opens a new one. If that fails it goes on with the old one, and tries
// again after as much again.
func (f *rotatingFile) rotate() (string, error) {
	backup := backupName(f.path, time.Now())
	old := f.file
	err := os.Rename(f.path, backup)
	if err == nil {
		if err = f.open(); err == nil {
			return backup, old.Close()
		}
		err = errors.Join(err, os.Rename(backup, f.path))
	}
	f.limit = f.size + f.max
	return "", fmt.Errorf("rotate log file: %w", err)
}

// backupName returns a name that is not taken, nor its compressed form.
func backupName(path string, now time.Time) string {
	ext := filepath.Ext(path)
	for ; ; now = now.Add(time.Millisecond) {
		name := strings.TrimSuffix(path, ext) + "-" + now.UTC().Format(backupLayout) + ext
		_, err := os.Lstat(name)
		_, errGz := os.Lstat(name + compressSuffix)
		if err != nil && errGz != nil {
			return name
		}
	}
}

// leftovers returns full files that are not compressed.
func (f *rotatingFile) leftovers() []string {
	ext := filepath.Ext(f.path)
	stem := strings.TrimSuffix(filepath.Base(f.path), ext) + "-"
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		stamp, isOurs := strings.CutPrefix(e.Name(), stem)
		stamp, hasExt := strings.CutSuffix(stamp, ext)
		if _, err := time.Parse(backupLayout, stamp); isOurs && hasExt && err == nil && e.Type().IsRegular() {
			found = append(found, filepath.Join(filepath.Dir(f.path), e.Name()))
		}
	}
	return found
}

// compress hands over full files, and starts the goroutine that works them off if there is none.
func (f *rotatingFile) compress(paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, paths...)
	if f.busy || len(f.pending) == 0 || f.file == nil {
		return
	}
	f.busy = true
	f.work.Go(func() {
		for path := f.next(); path != ""; path = f.next() {
			if err := f.compressOne(path); err != nil && !errors.Is(err, os.ErrClosed) {
				f.trouble(fmt.Errorf("compress log file: %w", err))
			}
		}
	})
}

func (f *rotatingFile) next() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == 0 || f.file == nil {
		f.busy = false
		return ""
	}
	path := f.pending[0]
	f.pending = f.pending[1:]
	return path
}

// compressOne replaces a file by its compressed form. Until that is complete and on disk it has
// another name, so an end at any moment loses nothing.
func (f *rotatingFile) compressOne(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	part := path + compressSuffix + partSuffix
	out, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	gz := gzip.NewWriter(out)
	_, err = io.Copy(gz, untilClosed{in, f.stop})
	err = errors.Join(err, gz.Close())
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(part, path+compressSuffix)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Remove(path)
}

// untilClosed reads until stop is closed.
type untilClosed struct {
	in   io.Reader
	stop <-chan struct{}
}

func (r untilClosed) Read(b []byte) (int, error) {
	select {
	case <-r.stop:
		return 0, os.ErrClosed
	default:
		return r.in.Read(b)
	}
}

// Close closes the file and waits for the goroutine, which breaks off. Lines written later are lost.
func (f *rotatingFile) Close() error {
	f.mu.Lock()
	file := f.file
	f.file = nil
	f.mu.Unlock()
	if file == nil {
		return nil
	}
	close(f.stop)
	err := file.Close()
	f.work.Wait()
	return err
}
