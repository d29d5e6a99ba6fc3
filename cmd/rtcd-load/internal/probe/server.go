// Package probe reads what the server and this process consume.
package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Sample is what a server had consumed at some time. What is not known is negative.
type Sample struct {
	CPU       time.Duration // of all its threads, user and system
	RSS       int64         // resident memory in bytes
	Forwarded float64       // packets that it says it has sent on, counted for each receiver
}

// none is a sample that knows nothing.
var none = Sample{CPU: -1, RSS: -1, Forwarded: -1}

// A Server is where samples come from: a process of this machine, a metrics page, or both.
type Server struct {
	pid     int
	metrics string
	http    *http.Client
	proc    string
}

// NewServer returns a server with a process id (0: not known) and the URL of a page of metrics in the
// format of Prometheus ("": none). It reads both once to see that it can.
func NewServer(ctx context.Context, pid int, metrics string) (*Server, error) {
	s := &Server{pid: pid, metrics: metrics, proc: "/proc", http: &http.Client{Timeout: 2 * time.Second}}
	if pid == 0 && metrics == "" {
		return s, nil
	}
	if _, err := s.Sample(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Known reports whether there is anything to sample.
func (s *Server) Known() bool { return s.pid != 0 || s.metrics != "" }

// Sample reads what the server has consumed so far. Where both sources know it, that is the process's.
func (s *Server) Sample(ctx context.Context) (Sample, error) {
	out := none
	if s.metrics != "" {
		var err error
		if out, err = s.scrape(ctx); err != nil {
			return none, err
		}
	}
	if s.pid != 0 {
		cpu, rss, err := s.process()
		if err != nil {
			return none, err
		}
		out.CPU, out.RSS = cpu, rss
	}
	return out, nil
}

// tick is the unit of times in /proc: Linux has 100 a second on all architectures that Go runs on.
const tick = time.Second / 100

func (s *Server) process() (cpu time.Duration, rss int64, err error) {
	dir := filepath.Join(s.proc, strconv.Itoa(s.pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0, 0, fmt.Errorf("read cpu time of process %d: %w", s.pid, err)
	}
	if cpu, err = parseStat(string(stat)); err != nil {
		return 0, 0, fmt.Errorf("read cpu time of process %d: %w", s.pid, err)
	}
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of process %d: %w", s.pid, err)
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("read memory of process %d: %d fields", s.pid, len(fields))
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of process %d: %w", s.pid, err)
	}
	return cpu, pages * int64(os.Getpagesize()), nil
}

// parseStat returns the CPU time in a /proc/PID/stat. The second field is a name in parentheses that
// may hold anything, so the rest is counted from the last of them.
func parseStat(stat string) (time.Duration, error) {
	const user, system = 11, 12 // fields 14 and 15, of those behind the name
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) <= system {
		return 0, errors.New("stat has too few fields")
	}
	var sum time.Duration
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

const maxMetrics = 16 << 20 // bytes of a page

func (s *Server) scrape(ctx context.Context) (Sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.metrics, nil)
	if err != nil {
		return none, fmt.Errorf("read metrics: %w", err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return none, fmt.Errorf("read metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return none, fmt.Errorf("read metrics: server answered %d", resp.StatusCode)
	}
	out, err := parseMetrics(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return none, fmt.Errorf("read metrics: %w", err)
	}
	if out.CPU < 0 {
		return none, errors.New("read metrics: no process_cpu_seconds_total in them")
	}
	return out, nil
}

// parseMetrics reads the series that matter, with any namespace before their names.
func parseMetrics(page io.Reader) (Sample, error) {
	out := none
	lines := bufio.NewScanner(page)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest := line, ""
		if i := strings.IndexAny(line, "{ "); i >= 0 {
			name, rest = line[:i], line[i:]
		}
		if i := strings.LastIndexByte(rest, '}'); i >= 0 { // labels may hold blanks
			rest = rest[i+1:]
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		switch {
		case is(name, "process_cpu_seconds_total"):
			out.CPU = time.Duration(v * float64(time.Second))
		case is(name, "process_resident_memory_bytes"):
			out.RSS = int64(v)
		case is(name, "forwarded_packets_total"):
			out.Forwarded = max(out.Forwarded, 0) + v
		}
	}
	return out, lines.Err()
}

func is(name, suffix string) bool { return name == suffix || strings.HasSuffix(name, "_"+suffix) }
