package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long rtcd has to stop before it is asked again, and before it is killed.
const (
	askAgainAfter = 4 * time.Second
	killAfter     = 12 * time.Second
)

// A child is an rtcd of our own.
type child struct {
	adminKey string
	cmd      *exec.Cmd
	folder   string        // removed in the end
	done     chan struct{} // closed once the process has ended
	err      error         // how it ended; read after done
	output   *tail
}

var errCrashed = errors.New("rtcd stopped by itself")

// startChild starts rtcd on its embedded defaults: in an empty folder, where it finds no
// configuration file. RTCD_* variables of our environment reach it. Its output is shown if
// verbose is set, else only if it fails.
func startChild(binary string, verbose bool, stdout, stderr io.Writer) (*child, error) {
	if err := checkPorts(os.Getenv); err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, fmt.Errorf("path of rtcd: %w", err)
	}
	folder, err := os.MkdirTemp("", "huddle-")
	if err != nil {
		return nil, err
	}
	c := &child{folder: folder, done: make(chan struct{}), output: &tail{}}
	c.adminKey = os.Getenv("RTCD_API_SECURITY_ADMINSECRETKEY")
	if c.adminKey == "" {
		c.adminKey = rand.Text()
	}
	store := filepath.Join(folder, "data")
	if s := os.Getenv("RTCD_STORE_DATASOURCE"); s != "" {
		if store, err = filepath.Abs(s); err != nil {
			return nil, errors.Join(fmt.Errorf("RTCD_STORE_DATASOURCE: %w", err), os.RemoveAll(folder))
		}
	}
	c.cmd = exec.Command(binary)
	c.cmd.Dir = folder
	c.cmd.Env = append(os.Environ(),
		"RTCD_API_SECURITY_ENABLEADMIN=true",
		"RTCD_API_SECURITY_ADMINSECRETKEY="+c.adminKey,
		"RTCD_STORE_DATASOURCE="+store,
	)
	c.cmd.SysProcAttr = ownGroup() // Ctrl-C reaches us alone
	c.cmd.WaitDelay = time.Second
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	if verbose {
		c.cmd.Stdout, c.cmd.Stderr = io.MultiWriter(c.output, stdout), io.MultiWriter(c.output, stderr)
	}
	started := make(chan error)
	go func() {
		// The kernel ends the child when the thread that started it ends; so it has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
		}
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start rtcd: %w", err), os.RemoveAll(folder))
	}
	return c, nil
}

// stop ends rtcd and returns an error if it had ended by itself or did not end well.
func (c *child) stop() error {
	defer func() { _ = os.RemoveAll(c.folder) }() // what is left in the folder for temporary files does no harm
	select {
	case <-c.done:
		return c.failure(errCrashed.Error())
	default:
	}
	again, kill := time.NewTimer(askAgainAfter), time.NewTimer(killAfter)
	defer again.Stop()
	defer kill.Stop()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	for {
		select {
		case <-c.done:
			if c.err != nil {
				return c.failure("rtcd did not stop well")
			}
			return nil
		case <-again.C:
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
		case <-kill.C:
			_ = c.cmd.Process.Kill()
		}
	}
}

func (c *child) failure(what string) error {
	return fmt.Errorf("%s (%v); the end of its output:\n%s", what, c.cmd.ProcessState, strings.TrimSpace(c.output.String()))
}

// A tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if n := len(t.buf) - tailBytes; n > 0 {
		t.buf = bytes.Clone(t.buf[n:])
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// apiURL returns where the environment makes rtcd listen.
func apiURL(env func(string) string) string {
	scheme := "http"
	if on, err := strconv.ParseBool(env("RTCD_API_HTTP_TLS_ENABLE")); err == nil && on {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(env("RTCD_API_HTTP_LISTENADDRESS"))
	if err != nil {
		host, port = "", "8045"
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// checkPorts finds out whether the ports rtcd is going to use are free, to say so in few words.
func checkPorts(env func(string) string) error {
	value := func(name, preset string) string {
		if v := env(name); v != "" {
			return v
		}
		return preset
	}
	for _, p := range []struct{ what, network, host, port, name string }{
		{"rtcd's API", "tcp", "", value("RTCD_API_HTTP_LISTENADDRESS", ":8045"), "RTCD_API_HTTP_LISTENADDRESS"},
		{"rtcd's media", "tcp", firstAddress(env("RTCD_RTC_ICEADDRESSTCP")), value("RTCD_RTC_ICEPORTTCP", "8443"), "RTCD_RTC_ICEPORTTCP"},
		{"rtcd's media", "udp", firstAddress(env("RTCD_RTC_ICEADDRESSUDP")), value("RTCD_RTC_ICEPORTUDP", "8443"), "RTCD_RTC_ICEPORTUDP"},
	} {
		addr := p.port
		if !strings.Contains(addr, ":") {
			addr = net.JoinHostPort(p.host, p.port)
		}
		var socket io.Closer
		var err error
		if p.network == "udp" {
			socket, err = net.ListenPacket("udp", addr)
		} else {
			socket, err = net.Listen("tcp", addr)
		}
		if err != nil {
			return taken(p.what, strings.ToUpper(p.network), addr, p.name, err)
		}
		_ = socket.Close()
	}
	return nil
}

func firstAddress(list string) string {
	first, _, _ := strings.Cut(list, ",")
	return strings.TrimSpace(first)
}

// taken says in few words that an address cannot be had, and what to set for another.
func taken(what, network, addr, setting string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s address %s for %s is taken by another program: stop it, or choose another with %s", network, addr, what, setting)
	}
	return fmt.Errorf("%s address %s for %s (%s): %w", network, addr, what, setting, err)
}
