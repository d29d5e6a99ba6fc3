//go:build linux

package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rtcd/build/fire/field"
)

// Ports of a server, in its own namespace.
const (
	APIPort   = 8045
	adminPort = 8046
	MediaPort = 8443
)

// ServerConfig says how a server runs.
type ServerConfig struct {
	Binary string
	Host   *field.Namespace
	Dir    string // for its files; made if missing
	Store  string // folder of the store; "" is one in Dir
	// Config is added to the configuration; each line has a whole key, such as rtc.ice_lite = "off".
	Config []string
	Files  uint64 // descriptors it may open; 0: as many as we
	TLS    bool   // the API is behind TLS, with a certificate that nobody signed
	Group  *field.Group
}

// Server is a process of rtcd. It can be started again after its end.
type Server struct {
	cfg ServerConfig
	log string // path

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	http   *http.Client
}

// NewServer writes the configuration of a server that is not running.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Store == "" {
		cfg.Store = filepath.Join(cfg.Dir, "store")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a server: %w", err)
	}
	addr := cfg.Host.Addr
	keys := map[string]string{
		"api.http.listen_address":              strconv.Quote(fmt.Sprintf("%s:%d", addr, APIPort)),
		"api.admin.listen_address":             strconv.Quote(fmt.Sprintf("127.0.0.1:%d", adminPort)),
		"api.security.allow_self_registration": "true",
		"rtc.ice_address_udp":                  strconv.Quote(addr.String()),
		"rtc.ice_address_tcp":                  strconv.Quote(addr.String()),
		"rtc.ice_port_udp":                     strconv.Itoa(MediaPort),
		"rtc.ice_port_tcp":                     strconv.Itoa(MediaPort),
		"store.data_source":                    strconv.Quote(cfg.Store),
		"logger.enable_file":                   "false",
		"logger.console_json":                  "true",
		"shutdown.drain_deadline":              `"1ms"`,
	}
	if cfg.TLS {
		keys["api.http.tls.enable"] = "true"
		keys["api.http.tls.cert_file"] = strconv.Quote(filepath.Join(cfg.Dir, certFile))
		keys["api.http.tls.cert_key"] = strconv.Quote(filepath.Join(cfg.Dir, keyFile))
	}
	for _, line := range cfg.Config {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("make a server: configuration line %q has no value", line)
		}
		keys[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	var b strings.Builder
	for key, value := range keys {
		fmt.Fprintf(&b, "%s = %s\n", key, value)
	}
	s := &Server{cfg: cfg, log: filepath.Join(cfg.Dir, "rtcd.log")}
	s.http = &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: cfg.Host.DialContext, DisableKeepAlives: true, TLSClientConfig: anybody()},
	}
	if cfg.TLS {
		if err := s.Certify(); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(s.configPath(), []byte(b.String()), 0o600); err != nil {
		return nil, fmt.Errorf("make a server: %w", err)
	}
	return s, nil
}

func (s *Server) configPath() string { return filepath.Join(s.cfg.Dir, "config.toml") }

// API is the address of the API.
func (s *Server) API() netip.AddrPort { return netip.AddrPortFrom(s.cfg.Host.Addr, APIPort) }

// Media is the address of media.
func (s *Server) Media() netip.AddrPort { return netip.AddrPortFrom(s.cfg.Host.Addr, MediaPort) }

// URL is that of the API.
func (s *Server) URL() string {
	if s.cfg.TLS {
		return "https://" + s.API().String()
	}
	return "http://" + s.API().String()
}

// Start starts the process, and does not wait until it is ready.
func (s *Server) Start() error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start rtcd: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(s.cfg.Binary, "-config", s.configPath())
	cmd.Dir = s.cfg.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"HOME=" + s.cfg.Dir, "PATH=" + os.Getenv("PATH"), "GOTRACEBACK=all"}
	if err := s.cfg.Host.Start(cmd); err != nil {
		return fmt.Errorf("start rtcd: %w", err)
	}
	exited := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait() // ExitCode has what it says
		close(exited)
	}()
	if s.cfg.Files > 0 {
		limit := unix.Rlimit{Cur: s.cfg.Files, Max: s.cfg.Files}
		if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			return fmt.Errorf("bound the files of rtcd: %w", err)
		}
	}
	if s.cfg.Group != nil {
		return s.cfg.Group.Add(cmd.Process.Pid)
	}
	return nil
}

// LimitFiles bounds how many descriptors the running process may have open.
func (s *Server) LimitFiles(n uint64) error {
	limit := unix.Rlimit{Cur: n, Max: n}
	if err := unix.Prlimit(s.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("bound the files of rtcd: %w", err)
	}
	return nil
}

// ErrExited says that the process has ended.
var ErrExited = errors.New("rtcd has ended")

// AwaitReady waits until the server answers.
func (s *Server) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := s.get(ctx, s.URL()+"/version")
		if err == nil {
			return nil
		}
		select {
		case <-s.Exited():
			return fmt.Errorf("await rtcd: %w: %s", ErrExited, s.LogTail(500))
		case <-ctx.Done():
			return fmt.Errorf("await rtcd: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Run starts the process and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(); err != nil {
		return err
	}
	return s.AwaitReady(ctx)
}

// Pid is the process's.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Exited is closed at the end of the process.
func (s *Server) Exited() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exited
}

// Alive reports whether the process runs.
func (s *Server) Alive() bool {
	select {
	case <-s.Exited():
		return false
	default:
		return true
	}
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig syscall.Signal) error {
	if err := syscall.Kill(s.Pid(), sig); err != nil {
		return fmt.Errorf("signal rtcd: %w", err)
	}
	return nil
}

// Kill ends the process at once and waits for its end.
func (s *Server) Kill() {
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-exited
	}
}

// ExitCode is that of the process that has ended; -1 is a signal's.
func (s *Server) ExitCode() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.ProcessState.ExitCode()
}

// get makes a request from the server's own namespace.
func (s *Server) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: status %s", url, res.Status)
	}
	return b, err
}

// Metrics returns the server's metrics by name, each with its labels as they stand there.
func (s *Server) Metrics(ctx context.Context) (map[string]float64, error) {
	b, err := s.get(ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", adminPort))
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	out := make(map[string]float64)
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[line[:i]] = v
		}
	}
	return out, nil
}

// Stacks returns what the goroutines of the server do.
func (s *Server) Stacks(ctx context.Context) ([]byte, error) {
	return s.get(ctx, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/goroutine?debug=1", adminPort))
}

// Usage is what the process has of its machine.
type Usage struct {
	Resident   int64 // bytes
	Heap       int64 // bytes of objects, garbage that was not collected included
	Goroutines int
	Files      int
	CPU        time.Duration
}

// Usage looks at the process.
func (s *Server) Usage(ctx context.Context) (u Usage, err error) {
	pid := s.Pid()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return u, fmt.Errorf("look at rtcd: %w", err)
	}
	var size int64
	if _, err := fmt.Sscan(string(b), &size, &u.Resident); err != nil {
		return u, fmt.Errorf("look at rtcd: %w", err)
	}
	u.Resident *= int64(os.Getpagesize())
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, fmt.Errorf("look at rtcd: %w", err)
	}
	u.Files = len(files)
	if u.CPU, err = s.CPU(); err != nil {
		return u, err
	}
	metrics, err := s.Metrics(ctx)
	u.Goroutines, u.Heap = int(metrics["go_goroutines"]), int64(metrics["go_memstats_heap_alloc_bytes"])
	return u, err
}

// CPU returns the processor time that the process has taken so far.
func (s *Server) CPU() (time.Duration, error) {
	const clockSched = 2 // CPUCLOCK_SCHED; see clock_getcpuclockid(3)
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^s.Pid()<<3|clockSched), &ts); err != nil {
		return 0, fmt.Errorf("look at rtcd: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// logSize returns where the log ends now.
func (s *Server) logSize() int64 {
	info, err := os.Stat(s.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// LogTail returns the end of the log.
func (s *Server) LogTail(bytes int64) string {
	b, _ := s.logFrom(max(0, s.logSize()-bytes))
	return string(b)
}

func (s *Server) logFrom(offset int64) ([]byte, error) {
	f, err := os.Open(s.log)
	if err != nil {
		return nil, fmt.Errorf("read the log of rtcd: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the log of rtcd: %w", err)
	}
	return io.ReadAll(f)
}

// logged counts what the log has from an offset on.
type logged struct {
	Lines  int
	Panics int
	ByText map[string]int
}

func (s *Server) logged(offset int64) (l logged, err error) {
	b, err := s.logFrom(offset)
	if err != nil {
		return l, err
	}
	l.ByText = make(map[string]int)
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l.Lines++
		text := lines.Text()
		var line struct{ Msg, Level string }
		if json.Unmarshal(lines.Bytes(), &line) == nil {
			text = line.Msg
			l.ByText[line.Level+" "+line.Msg]++
		}
		if strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:") || strings.Contains(text, "panic") && line.Level == "error" {
			l.Panics++
		}
	}
	return l, lines.Err()
}

// Store is the folder of the server's store.
func (s *Server) Store() string { return s.cfg.Store }

// BreakConnections breaks all TCP connections to the API with an RST to each side.
func (s *Server) BreakConnections() error {
	return s.cfg.Host.Run("ss", "-K", "state", "established", "sport", "=", fmt.Sprintf(":%d", APIPort))
}

// Sessions returns how many sessions the server has.
func (s *Server) Sessions(ctx context.Context) (n int, err error) {
	metrics, err := s.Metrics(ctx)
	for name, v := range metrics {
		if strings.HasPrefix(name, "rtcd_rtc_sessions_total{") {
			n += int(v)
		}
	}
	return n, err
}

// Collected is Usage after a garbage collection.
func (s *Server) Collected(ctx context.Context) (Usage, error) {
	for range 3 { // what is pooled goes with the second
		if _, err := s.get(ctx, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1", adminPort)); err != nil {
			return Usage{}, fmt.Errorf("collect the garbage of rtcd: %w", err)
		}
	}
	return s.Usage(ctx)
}

// HeapProfile returns the objects of the server's heap, for go tool pprof.
func (s *Server) HeapProfile(ctx context.Context) ([]byte, error) {
	return s.get(ctx, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap", adminPort))
}
