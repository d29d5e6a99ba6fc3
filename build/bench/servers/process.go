//go:build linux

// Package servers runs the servers that are compared, each as a process of its own, and brings
// endpoints into their rooms.
package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a server that runs.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// start runs a binary. The first line that it prints is returned, if it is to print one.
func start(ctx context.Context, env []string, prints bool, path string, args ...string) (*Process, string, error) {
	p := &Process{cmd: exec.Command(path, args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, "", fmt.Errorf("start %s: %w", path, err)
	}
	p.stdin = stdin
	var out io.ReadCloser
	if prints {
		if out, err = p.cmd.StdoutPipe(); err != nil {
			return nil, "", fmt.Errorf("start %s: %w", path, err)
		}
		p.cmd.Stderr = os.Stderr
	}
	if err := p.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", path, err)
	}
	line := make(chan string, 1)
	go func() {
		defer close(p.exited)
		if out != nil {
			r := bufio.NewReader(out)
			first, _ := r.ReadString('\n')
			line <- strings.TrimSpace(first)
			_, _ = io.Copy(io.Discard, r)
		}
		p.err = p.cmd.Wait()
	}()
	if !prints {
		return p, "", nil
	}
	select {
	case first := <-line:
		if first != "" {
			return p, first, nil
		}
		p.Stop()
		return nil, "", fmt.Errorf("start %s: it ended: %w", path, errors.Join(p.err))
	case <-ctx.Done():
		p.Stop()
		return nil, "", fmt.Errorf("start %s: %w", path, ctx.Err())
	}
}

// Stop kills the process and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// CPU returns the time that all threads of the process have run so far, those that have ended
// included, in user and kernel mode. The kernel's clock of a process has nanoseconds where
// /proc/PID/stat has hundredths of a second; both sum up the same.
func (p *Process) CPU() (time.Duration, error) {
	const clockSched = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|clockSched), &ts); err != nil {
		return 0, fmt.Errorf("read the cpu clock of process %d: %w", p.cmd.Process.Pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident returns the memory of the process that is in RAM, in bytes.
func (p *Process) Resident() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	return resident * int64(os.Getpagesize()), nil
}
