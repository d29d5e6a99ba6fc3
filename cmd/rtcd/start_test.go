package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"rtcd/client"
)

// A start that cannot work ends at once, with one line that names what is wrong, and leaves
// nothing behind.
func TestBadStarts(t *testing.T) {
	held := start(t, t.TempDir())
	for _, c := range []struct {
		name    string
		toml    string
		environ []string
		names   []string // that the error has to have
	}{
		{name: "not TOML", toml: "[api\nx", names: []string{"bad.toml", "line 2"}},
		{name: "wrong type", toml: "[rtc]\nice_port_udp = \"x\"", names: []string{"ice_port_udp"}},
		{name: "unknown level", environ: []string{"RTCD_LOGGER_CONSOLELEVEL=LOUD"}, names: []string{"logger.console_level", "LOUD"}},
		{name: "port out of range", environ: []string{"RTCD_RTC_ICEPORTUDP=65000"}, names: []string{"rtc.ice_port_udp", "65000", "49151"}},
		{
			name:    "several faults at once",
			environ: []string{"RTCD_RTC_ICEPORTUDP=1", "RTCD_RTC_NACKBUFFERSIZE=100", "RTCD_API_SECURITY_ENABLEADMIN=true"},
			names:   []string{"rtc.ice_port_udp", "rtc.nack_buffer_size", "api.security.admin_secret_key"},
		},
		{name: "bad bool", environ: []string{"RTCD_API_SECURITY_ENABLEADMIN=yes"}, names: []string{"RTCD_API_SECURITY_ENABLEADMIN", "yes"}},
		{
			name:    "certificate missing",
			environ: []string{"RTCD_API_HTTP_TLS_ENABLE=true", "RTCD_API_HTTP_TLS_CERTFILE=/none.pem", "RTCD_API_HTTP_TLS_CERTKEY=/none.key"},
			names:   []string{"/none.pem"},
		},
		{
			name:    "API port taken",
			environ: []string{fmt.Sprintf("RTCD_API_HTTP_LISTENADDRESS=127.0.0.1:%d", held.api)},
			names:   []string{fmt.Sprint(held.api), "in use"},
		},
		{
			name:    "media port taken (M15)",
			environ: []string{fmt.Sprintf("RTCD_RTC_ICEPORTUDP=%d", held.media)},
			names:   []string{fmt.Sprint(held.media), "in use"},
		},
		{
			name:    "admin port taken",
			environ: []string{fmt.Sprintf("RTCD_API_ADMIN_LISTENADDRESS=127.0.0.1:%d", held.admin)},
			names:   []string{"api.admin.listen_address", "in use"},
		},
		{
			name:    "store in use",
			environ: []string{"RTCD_STORE_DATASOURCE=" + filepath.Join(held.cmd.Dir, "data")},
			names:   []string{filepath.Join(held.cmd.Dir, "data")},
		},
		{name: "store is a file", environ: []string{"RTCD_STORE_DATASOURCE=" + rtcd}, names: []string{rtcd}},
		{name: "address not of this machine", environ: []string{"RTCD_RTC_ICEADDRESSUDP=192.0.2.77"}, names: []string{"192.0.2.77"}},
		{
			name:    "production with a weak secret",
			environ: []string{"RTCD_MODE=production", "RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY=short"},
			names:   []string{"api.security.admin_secret_key"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var args []string
			if c.toml != "" {
				path := filepath.Join(dir, "bad.toml")
				if err := os.WriteFile(path, []byte(c.toml), 0o600); err != nil {
					t.Fatal(err)
				}
				args = []string{"-config", path}
			}
			p := newPorts(t)
			bad := launch(t, p, dir, args, c.environ...)
			if status := bad.exit(t, 5*time.Second); status != 1 {
				t.Errorf("status %d, want 1", status)
			}
			for _, name := range c.names {
				if !strings.Contains(bad.out.String(), name) {
					t.Errorf("the error does not name %q:\n%s", name, bad.out)
				}
			}
			if conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", p.api), time.Second); err == nil {
				_ = conn.Close()
				if p.api != held.api {
					t.Error("something still listens")
				}
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good, unknown := filepath.Join(dir, "good.toml"), filepath.Join(dir, "unknown.toml")
	for path, text := range map[string]string{
		good:    "[rtc]\nice_port_udp = 8444\n",
		unknown: "[rtc]\nice_port_upd = 8444\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		status  int
		out     string // that stdout or stderr match
	}{
		{"version", []string{"-version"}, nil, 0, `^v1\.([3-9]|\d\d+)\.\d+\n$`},
		{"help", []string{"-h"}, nil, 0, `usage:`},
		{"unknown flag", []string{"-x"}, nil, 2, `not defined: -x`},
		{"unknown command", []string{"serve"}, nil, 2, `unknown command.*serve`},
		{"check of a good file", []string{"-config", good, "config", "check"}, nil, 0, `configuration is fine`},
		{"check without a file", []string{"config", "check"}, nil, 0, `configuration is fine`},
		{"check of an unknown key", []string{"-config", unknown, "config", "check"}, nil, 1, `ice_port_upd.*ice_port_udp`},
		{"check of an unknown variable", []string{"config", "check"}, []string{"RTCD_RTC_ICEPORTUPD=1"}, 1, `RTCD_RTC_ICEPORTUPD.*RTCD_RTC_ICEPORTUDP`},
		{"check of a wrong value", []string{"config", "check"}, []string{"RTCD_RTC_ICEPORTUDP=1"}, 1, `rtc\.ice_port_udp`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(c.args, c.environ, &stdout, &stderr); got != c.status {
				t.Errorf("status %d, want %d", got, c.status)
			}
			if all := stdout.String() + stderr.String(); !regexp.MustCompile(c.out).MatchString(all) {
				t.Errorf("got %q, want a match of %q", all, c.out)
			}
		})
	}
}

// C5: an unknown key is loud and does not stop the server.
func TestUnknownKeyServes(t *testing.T) {
	c := start(t, t.TempDir(), "RTCD_RTC_ICEPORTUPD=1")
	c.out.await(t, "RTCD_RTC_ICEPORTUDP") // the nearest key
}

// An acknowledged registration survives the hardest end.
func TestKilledAfterRegistration(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		c := start(t, dir)
		id := fmt.Sprintf("client-%d", round)
		body := fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key)
		resp, err := http.Post(c.url()+"/register", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("register: %s", resp.Status)
		}
		c.signal(t, syscall.SIGKILL)
		<-c.exited
	}
	c := start(t, dir, "RTCD_API_SECURITY_ALLOWSELFREGISTRATION=false")
	for round := range 5 {
		logsIn(t, c, fmt.Sprintf("client-%d", round), key, true)
	}
}

func logsIn(t *testing.T, c *child, id, key string, want bool) {
	t.Helper()
	cl, err := client.New(client.Config{URL: c.url(), ClientID: id, AuthKey: key})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.CloseIdleConnections()
	conn, err := cl.Connect(context.Background())
	if (err == nil) != want {
		t.Errorf("connect as %s: %v, want success %v", id, err, want)
	}
	if conn != nil {
		_ = conn.Close()
	}
}

// formerRecord is a record of the former store's data files (docs/operations.md).
func formerRecord(key, value string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(key)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, key...)
	b = append(b, value...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(value)))
	return binary.BigEndian.AppendUint64(b, 0) // no expiry
}

// The clients of a folder of the former store are taken over and the folder stays as it was.
func TestFormerStore(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	hash := func(key string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(key), 10)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	old, now := hash("the key that was replaced later on"), hash(key)
	files := map[string][]byte{
		"000000001.data": append(formerRecord("kept", now), append(formerRecord("changed", old), formerRecord("deleted", now)...)...),
		"000000002.data": append(formerRecord("changed", now), formerRecord("deleted", "")...),
		"index":          []byte("not ours to read"),
		"meta.json":      []byte("{}"),
		"config.json":    []byte("{}"),
		"lock":           nil,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(data, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second start finds them in the new store
		c := start(t, dir, "RTCD_API_SECURITY_ALLOWSELFREGISTRATION=false")
		logsIn(t, c, "kept", key, true)
		logsIn(t, c, "changed", key, true)
		logsIn(t, c, "deleted", key, false)
		c.signal(t, syscall.SIGTERM)
		if status := c.exit(t, 5*time.Second); status != 0 {
			t.Fatalf("status %d\n%s", status, c.out)
		}
	}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(path) != data {
			return err
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want, ok := files[d.Name()]
		if !ok {
			t.Errorf("new file %s in the folder of the former store", d.Name())
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s was changed", d.Name())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestListeners shows A8 and CR-04: what stands where, in both profiles. Nothing of the operator's is on
// the public port but, for today's dashboards, the metrics in drop-in mode.
func TestListeners(t *testing.T) {
	for mode, metricsStatus := range map[string]int{"drop-in": 200, "production": 404} {
		t.Run(mode, func(t *testing.T) {
			c := start(t, t.TempDir(), "RTCD_MODE="+mode)
			admin := fmt.Sprintf("http://127.0.0.1:%d", c.admin)
			for url, want := range map[string]int{
				c.url() + "/metrics":              metricsStatus,
				c.url() + "/debug/pprof/heap":     404,
				c.url() + "/debug/pprof/":         404,
				c.url() + "/admin/clients":        404,
				c.url() + "/admin/audit":          404,
				c.url() + "/ws":                   401,
				c.url() + "/calls/x/sessions":     401,
				c.url() + "/none":                 404,
				admin + "/metrics":                200,
				admin + "/debug/pprof/heap":       200,
				admin + "/debug/pprof/goroutine":  200,
				admin + "/register":               404,
				c.url() + "/calls/x/sessions/../": 404,
			} {
				if got, _ := c.get(t, url); got != want {
					t.Errorf("GET %s: %d, want %d", url, got, want)
				}
			}
		})
	}
}
