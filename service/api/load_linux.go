package api

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// userHZ is the unit of /proc/stat; it is 100 on every architecture Go runs on.
const userHZ = 100

func systemIdle() (time.Duration, error) { return idleFrom("/proc/stat") }

// idleFrom reads the idle time of all processors from a file like /proc/stat.
func idleFrom(path string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	defer f.Close()
	var buf [512]byte // the line for all processors is the first
	n, err := io.ReadFull(f, buf[:])
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	line, _, _ := bytes.Cut(buf[:n], []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 5 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("read idle time: %s has no line for all processors", path)
	}
	ticks, err := strconv.ParseUint(string(fields[4]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	return time.Duration(ticks) * (time.Second / userHZ), nil
}
