package audit

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// LogName is the name of the file that begins with a record.
func LogName(first uint64) string { return logName(first) }

// Rewritten returns a line with its event changed and its hash computed anew.
func Rewritten(t *testing.T, text []byte, change func(*Event)) []byte {
	t.Helper()
	r, err := parseRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	change(&r.Event)
	again, _ := appendRecord(nil, r.Event, r.prev)
	return again
}

// A Disk can be told to fail.
type Disk struct {
	WriteFails, SyncFails, TruncateFails atomic.Bool
}

// OpenOn opens a recorder that writes through d.
func OpenOn(d *Disk, cfg Config, log *slog.Logger) (*Recorder, error) {
	return openRecorder(cfg, log, func(path string, flag int, perm os.FileMode) (file, error) {
		f, err := os.OpenFile(path, flag, perm)
		if err != nil {
			return nil, err
		}
		return &diskFile{File: f, disk: d}, nil
	})
}

type diskFile struct {
	*os.File
	disk *Disk
}

// WriteAt fails after half of it, as a full disk does.
func (f *diskFile) WriteAt(b []byte, at int64) (int, error) {
	if f.disk.WriteFails.Load() {
		n, _ := f.File.WriteAt(b[:len(b)/2], at)
		return n, syscall.ENOSPC
	}
	return f.File.WriteAt(b, at)
}

func (f *diskFile) Sync() error {
	if f.disk.SyncFails.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}

func (f *diskFile) Truncate(size int64) error {
	if f.disk.TruncateFails.Load() {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

// The parts that are tested from within.
var (
	ParseCursor = parseCursor
	AppendFrame = appendFrame
)

// Reform parses a line and writes it again.
func Reform(text []byte) ([]byte, error) {
	r, err := parseRecord(text)
	if err != nil {
		return nil, err
	}
	again, _ := appendRecord(nil, r.Event, r.prev)
	return again, nil
}

// Line returns an event as the first line of a log.
func Line(e Event) []byte {
	text, _ := appendRecord(nil, e, sum{})
	return text
}

// Message returns an event as a sink sends it.
func Message(e Event, host string) ([]byte, error) {
	return appendSyslog(nil, &record{Event: e}, host)
}

// SendTo sends one message as a sink would, once the server is there.
func SendTo(ctx context.Context, cfg SinkConfig, message []byte) error {
	if err := cfg.normal(); err != nil {
		return err
	}
	s := &sink{cfg: cfg}
	conn, err := s.dial(ctx)
	for err != nil && ctx.Err() == nil {
		s.wait(ctx, 50*time.Millisecond)
		conn, err = s.dial(ctx)
	}
	if err != nil {
		return err
	}
	_, err = conn.Write(appendFrame(nil, message))
	return errors.Join(err, conn.Close())
}
