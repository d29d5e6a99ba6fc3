package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rtcd/client"
)

// without is an environment without a variable.
func without(environ []string, name string) []string {
	return slices.DeleteFunc(environ, func(e string) bool { return strings.HasPrefix(e, name+"=") })
}

// finish runs the server until it ends by itself, and returns its status and what it printed where.
func finish(t *testing.T, dir string, args, environ []string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(rtcd, args...)
	cmd.Dir, cmd.Env = dir, environ
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(20*time.Second, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	_ = cmd.Run() // the status says it
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// F33: a start that cannot work says why in one line on standard error, and shows no secret.
func TestOneLineOnStandardError(t *testing.T) {
	files := t.TempDir()
	cert, certKey := certificate(t, files, "one")
	_, otherKey := certificate(t, files, "two")
	garbage := filepath.Join(files, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(files, "large.toml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("# x\n"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // behind the subtests, which are parallel
	tls := func(cert, key string) []string {
		return []string{"RTCD_API_HTTP_TLS_ENABLE=true", "RTCD_API_HTTP_TLS_CERTFILE=" + cert, "RTCD_API_HTTP_TLS_CERTKEY=" + key}
	}
	const secret = "CANARY-credential-6f1d"
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		names   string // what the line has to name
	}{
		{"certificate is a folder", nil, tls(files, certKey), "api.http.tls"},
		{"certificate is no PEM", nil, tls(garbage, certKey), "api.http.tls"},
		{"key of another certificate", nil, tls(cert, otherKey), "api.http.tls"},
		{"key missing", nil, tls(cert, "/none.key"), "/none.key"},
		{"file is a folder", []string{"-config", files}, nil, files},
		{"file is too large", []string{"-config", large}, nil, "larger than"},
		{"no address", nil, []string{"RTCD_API_HTTP_LISTENADDRESS="}, "api.http.listen_address"},
		{"no port", nil, []string{"RTCD_API_HTTP_LISTENADDRESS=127.0.0.1"}, "api.http.listen_address"},
		{"API port in use", nil, []string{"RTCD_API_HTTP_LISTENADDRESS=" + taken.Addr().String()}, taken.Addr().String()},
		{"no duration", nil, []string{"RTCD_SHUTDOWN_DRAINDEADLINE=10"}, "shutdown.drain_deadline"},
		{"negative duration", nil, []string{"RTCD_SHUTDOWN_DRAINDEADLINE=-1s"}, "shutdown.drain_deadline"},
		{"unknown mode", nil, []string{"RTCD_MODE=prod"}, "mode"},
		{"admin without a key", nil, []string{"RTCD_API_SECURITY_ENABLEADMIN=true"}, "api.security.admin_secret_key"},
		{"number is empty", nil, []string{"RTCD_RTC_ICEPORTUDP="}, "rtc.ice_port_udp"},
		{"log nowhere", nil, []string{"RTCD_LOGGER_ENABLECONSOLE=false"}, "logger.enable"},
		{
			"ICE servers are no JSON", nil,
			[]string{`RTCD_RTC_ICESERVERS=[{"urls":["turn:x:1"],"username":"u","credential":"` + secret + `"]`}, "rtc.ice_servers",
		},
		{
			"ICE server of a wrong scheme", nil,
			[]string{`RTCD_RTC_ICESERVERS=[{"urls":["http:x:1"],"username":"u","credential":"` + secret + `"}]`}, "rtc.ice_servers",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			began := time.Now()
			status, stdout, stderr := finish(t, dir, c.args, append(newPorts(t).environ(dir), c.environ...))
			if status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			if !strings.HasPrefix(stderr, "rtcd: ") || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("standard error is not one line: %q", stderr)
			}
			if !strings.Contains(stderr, c.names) {
				t.Errorf("%q does not name %q", stderr, c.names)
			}
			if strings.Contains(stdout+stderr, secret) {
				t.Error("a secret is shown")
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// The note about a missing file and the log go to standard output; standard error stays empty in a
// whole life.
func TestStandardErrorStaysEmpty(t *testing.T) {
	dir := t.TempDir()
	p := newPorts(t)
	cmd := exec.Command(rtcd)
	cmd.Dir, cmd.Env = dir, p.environ(dir)
	stdout, stderr := new(output), new(output)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{ports: p, cmd: cmd, out: stdout, exited: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-c.exited })
	c.awaitReady(t)
	c.connect(t, "c1")
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d", status)
	}
	if s := stderr.String(); s != "" {
		t.Errorf("standard error: %q", s)
	}
	for _, want := range []string{"no configuration file", "config/config.toml", "api listening", "signal received", "stopped"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, stdout)
		}
	}
}

// The default address of the admin listener may be taken, which is told; one that was asked for
// may not (see TestBadStarts).
func TestDefaultAdminAddressTaken(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.1:8046"); err == nil { // else something else has taken it
		defer func() { _ = l.Close() }()
	}
	dir := t.TempDir()
	p := newPorts(t)
	c := &child{ports: p, cmd: exec.Command(rtcd), out: new(output), exited: make(chan struct{})}
	c.cmd.Dir = dir
	c.cmd.Env = without(p.environ(dir), "RTCD_API_ADMIN_LISTENADDRESS")
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); <-c.exited })
	c.awaitReady(t)
	c.out.await(t, "no admin listener")
	c.out.await(t, "127.0.0.1:8046")
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d", status)
	}
}

// D3: the load is measured on while the server drains.
func TestLoadMovesWhileDraining(t *testing.T) {
	ctx := within(t, 60*time.Second)
	c := start(t, t.TempDir())
	r := c.connect(t, "c1")
	call(ctx, t, r)
	c.signal(t, syscall.SIGTERM)
	if err := r.Conn.Join(client.Join{CallID: "new", UserID: "u", SessionID: "refused"}); err != nil {
		t.Fatal(err)
	}
	if err := r.AwaitClosed(ctx, "refused"); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for len(seen) < 4 { // it is measured every second
		_, body := c.get(t, c.url()+"/system")
		seen[body] = true
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("stands still at %v", seen)
		}
	}
	for _, name := range []string{"s1", "s2"} {
		if err := r.Conn.Leave(name); err != nil {
			t.Fatal(err)
		}
	}
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Errorf("status %d", status)
	}
}

// F31: what was registered while the signal came is there after the restart.
func TestStopDuringRegistrations(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	var mu sync.Mutex
	var acknowledged []string
	first := make(chan struct{})
	var once sync.Once
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("c%d-%d", i, n)
				resp, err := http.Post(c.url()+"/register", "application/json",
					strings.NewReader(fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key)))
				if err != nil {
					return // it has stopped
				}
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusCreated {
					mu.Lock()
					acknowledged = append(acknowledged, id)
					mu.Unlock()
					once.Do(func() { close(first) })
				}
			}
		})
	}
	select {
	case <-first:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is registered")
	}
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, c.out)
	}
	clients.Wait()
	c = start(t, dir)
	for _, id := range acknowledged {
		resp, err := http.Post(c.url()+"/register", "application/json",
			strings.NewReader(fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest { // already registered
			t.Errorf("%s was acknowledged and is gone: %s", id, resp.Status)
		}
	}
	t.Logf("%d registrations acknowledged", len(acknowledged))
}

// Secrets that the configuration holds are in no log, at the most talkative level, and in no answer.
func TestConfiguredSecretsStaySecret(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "log", "rtcd.log")
	const admin, turn, credential = "CANARY-admin-0123456789abcdefghijkl", "CANARY-turn-0123456789", "CANARY-ice-0123456789"
	c := start(t, dir,
		"RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY="+admin,
		"RTCD_RTC_TURNCONFIG_STATICAUTHSECRET="+turn,
		`RTCD_RTC_ICESERVERS=[{"urls":["turn:127.0.0.1:9"],"username":"u","credential":"`+credential+`"},{"urls":["turn:127.0.0.1:10"]}]`,
		"RTCD_LOGGER_ENABLEFILE=true", "RTCD_LOGGER_FILELOCATION="+file, "RTCD_LOGGER_FILELEVEL=STDLOG",
		"RTCD_LOGGER_CONSOLELEVEL=STDLOG",
	)
	ctx := within(t, 60*time.Second)
	r := c.connect(t, "c1")
	call(ctx, t, r)
	var answers strings.Builder
	for _, url := range []string{
		c.url() + "/version", c.url() + "/system", c.url() + "/metrics", c.url() + "/calls/call/sessions",
		fmt.Sprintf("http://127.0.0.1:%d/metrics", c.admin), fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/goroutine?debug=2", c.admin),
	} {
		_, body := c.get(t, url)
		answers.WriteString(body)
	}
	for path, body := range map[string]string{
		"/register":   `{"clientID":"` + admin + `x","authKey":"short"}`,
		"/login":      `{"clientID":"c1","authKey":"` + admin + `"}`,
		"/unregister": `{"clientID":"c1"}`,
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if path == "/unregister" {
			req.SetBasicAuth("", admin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		_ = resp.Body.Close()
		if path == "/unregister" && resp.StatusCode != http.StatusOK {
			t.Errorf("unregister: %s %s", resp.Status, b.String())
		}
		answers.WriteString(b.String())
	}
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 15*time.Second); status != 0 {
		t.Errorf("status %d", status)
	}
	logged, err := os.ReadFile(file)
	if err != nil || len(logged) == 0 {
		t.Fatalf("log file: %d bytes, %v", len(logged), err)
	}
	// An id is no secret: the one that begins with the admin key is left out.
	log := strings.ReplaceAll(string(logged)+c.out.String(), admin+"x", "")
	for name, secret := range map[string]string{"admin key": admin, "TURN secret": turn, "ICE credential": credential, "auth key": key} {
		if strings.Contains(log, secret) {
			t.Errorf("%s in a log", name)
		}
		if strings.Contains(answers.String(), secret) {
			t.Errorf("%s in an answer", name)
		}
	}
}

// F4: while the disk is full, registrations are refused for now, and nobody outside is told of
// paths or sizes. Who is registered comes in.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.connect(t, "c1")
	c.signal(t, syscall.SIGTERM)
	if status := c.exit(t, 10*time.Second); status != 0 {
		t.Fatalf("status %d", status)
	}
	c = start(t, dir, "RTCD_STORE_MINFREEMIB=1000000") // more than this disk has
	resp, err := http.Post(c.url()+"/register", "application/json",
		strings.NewReader(fmt.Sprintf(`{"clientID":"c2","authKey":%q}`, key)))
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		t.Skip("this disk has a terabyte to spare")
	}
	const want = `{"code":"503","error":"registration failed: store unavailable"}` + "\n"
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || body.String() != want {
		t.Errorf("register: %s, Retry-After %q, %s", resp.Status, resp.Header.Get("Retry-After"), body.String())
	}
	c.out.await(t, "no space")
	logsIn(t, c, "c1", key, true)
}
