package doctor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProcesses bounds how many are looked at for one that has a port.
const maxProcesses = 4096

func volumeOf(path string) (Volume, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Volume{}, err
	}
	v := Volume{Type: fmt.Sprintf("%#x", s.Type), Free: s.Bavail * uint64(s.Bsize)}
	switch s.Type {
	case unix.TMPFS_MAGIC:
		v.Type = "tmpfs"
	case unix.RAMFS_MAGIC:
		v.Type = "ramfs"
	}
	return v, nil
}

func writable(path string) error { return unix.Access(path, unix.W_OK|unix.X_OK) }

func openFiles() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	// The runtime raises the soft limit to the hard one when it starts.
	return max(r.Cur, r.Max), nil
}

func synchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, err
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, nil
}

// grantedBuffers asks beyond the limits of the system first, as the server does.
func grantedBuffers(want int) (read, write int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return 0, 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	grow := func(force, plain int) int {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, want) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, want) // what was granted says it
		}
		got, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, plain)
		err = errors.Join(err, gerr)
		return got / 2 // the kernel doubles it for its own bookkeeping
	}
	read = grow(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	write = grow(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	return read, write, err
}

// holderOf looks the port up in the tables of sockets, and then for a process that has the socket
// open. Of processes of other users only root sees that.
func holderOf(network string, port uint16) (Process, bool) {
	inodes := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		data, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if inode, ok := listener(line, network, port); ok {
				inodes["socket:["+inode+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return Process{}, false
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return Process{}, false
	}
	for _, dir := range all[:min(len(all), maxProcesses)] {
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			target, err := os.Readlink(dir + "/fd/" + fd.Name())
			if err != nil || !inodes[target] {
				continue
			}
			pid, _ := strconv.Atoi(filepath.Base(dir)) // digits
			name, _ := os.ReadFile(dir + "/comm")      // gone: without a name
			return Process{PID: pid, Name: strings.TrimSpace(string(name))}, true
		}
	}
	return Process{}, false
}

// listener returns the inode of the socket in a line of /proc/net/tcp or udp if it waits on the port.
func listener(line, network string, port uint16) (inode string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return "", false
	}
	_, text, found := strings.Cut(f[1], ":")
	b, err := hex.DecodeString(text)
	if !found || err != nil || len(b) != 2 || uint16(b[0])<<8|uint16(b[1]) != port {
		return "", false
	}
	const listening = "0A" // TCP_LISTEN
	return f[9], network == "udp" || f[3] == listening
}
