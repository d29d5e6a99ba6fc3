package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rtcd/service/api"
)

// cmd is one command line with its input, run against a configuration of its own.
type cmd struct {
	t       *testing.T
	dir     string
	environ []string
}

func newCmd(t *testing.T, environ ...string) *cmd {
	dir := t.TempDir()
	return &cmd{t, dir, append([]string{"RTCD_STORE_DATASOURCE=" + filepath.Join(dir, "data")}, environ...)}
}

// run runs a command line and returns its status and what it printed.
func (c *cmd) run(stdin string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	r := &cli{environ: c.environ, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs}
	status = r.run(append([]string{"-config", filepath.Join(c.dir, "none.toml")}, args...))
	return status, out.String(), errs.String()
}

// ok runs a command line that has to succeed, and returns its standard output.
func (c *cmd) ok(stdin string, args ...string) string {
	c.t.Helper()
	status, stdout, stderr := c.run(stdin, args...)
	if status != 0 || stderr != "" {
		c.t.Fatalf("%q: status %d, standard error %q", args, status, stderr)
	}
	return stdout
}

// fails runs a command line that has to fail with one line that has a text.
func (c *cmd) fails(want int, text, stdin string, args ...string) {
	c.t.Helper()
	status, stdout, stderr := c.run(stdin, args...)
	if status != want || !strings.Contains(stderr, text) || stdout != "" {
		c.t.Errorf("%q: status %d, want %d; printed %q and %q, want %q", args, status, want, stdout, stderr, text)
	}
	if want == 1 && strings.Count(stderr, "\n") != 1 {
		c.t.Errorf("%q: not one line: %q", args, stderr)
	}
}

func (c *cmd) clients() []api.Tenant {
	c.t.Helper()
	var list struct{ Clients []api.Tenant }
	if err := json.Unmarshal([]byte(c.ok("", "client", "list", "-json")), &list); err != nil {
		c.t.Fatal(err)
	}
	return list.Clients
}

const otherKey = "another key of a backend, 32 bytes or more"

// TestUsage shows the exit statuses: 2 and the usage for a wrong command line, 0 for help.
func TestUsage(t *testing.T) {
	c := newCmd(t)
	for _, args := range []string{
		"client", "client frob", "client add", "client add a b", "client add a -grace 1s", "client list a", "client rm",
		"client roles", "client roles a b c", "client roles a b -default", "client add a -generate -key-file x",
		"client rotate a -grace -1s -admin http://127.0.0.1:1", "client rotate a -grace 5s", "client rm a -key-file x", "client add a -key secret",
		"store", "store frob", "store backup", "store backup a b", "store verify a -force", "store restore a -admin http://127.0.0.1:1",
		"config", "config frob", "config check x", "dev-certs", "dev-certs a b", "dev-certs a -hosts=", "audit", "audit frob", "frob",
	} {
		if status, _, stderr := c.run("", strings.Fields(args)...); status != 2 || !strings.Contains(strings.ToLower(stderr), "usage") {
			t.Errorf("%s: status %d, printed %q", args, status, stderr)
		}
	}
	for _, args := range []string{"client -h", "store -h", "config -h", "dev-certs -h", "-h"} {
		if status, _, stderr := c.run("", strings.Fields(args)...); status != 0 || !strings.Contains(stderr, "usage:") {
			t.Errorf("%s: status %d, printed %q", args, status, stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(c.dir, "data")); err == nil {
		t.Error("a wrong command line made a data store")
	}
}

// TestClientOffline shows WX-10: the operator's tool changes the data store while no server runs.
// Keys come from standard input or a file, and are printed only if they were generated.
func TestClientOffline(t *testing.T) {
	c := newCmd(t)
	c.fails(1, "no such file", "", "client", "list") // looking makes no store
	c.ok(key+"\n", "client", "add", "one")
	file := filepath.Join(c.dir, "key")
	if err := os.WriteFile(file, []byte(key+"\r\nmore"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok("", "client", "add", "two", "-roles", "client, x.y", "--key-file", file)
	made := strings.TrimSpace(c.ok("", "client", "add", "three", "--generate", "-roles="))
	if len(made) < 32 {
		t.Errorf("generated key of %d bytes", len(made))
	}
	c.ok(key, "client", "roles", "one", "client,moderate")
	c.ok(otherKey, "client", "rotate", "one")
	c.ok("", "client", "revoke", "two")
	want := map[string]api.Tenant{
		"one": {Roles: []string{"client", "moderate"}, Epoch: 2}, "two": {Roles: []string{"client", "x.y"}, Epoch: 2, Revoked: true}, "three": {Roles: []string{}, Epoch: 1},
	}
	list := c.clients()
	for _, got := range list {
		w := want[got.ClientID]
		if strings.Join(got.Roles, " ") != strings.Join(w.Roles, " ") || got.Revoked != w.Revoked || got.Created.IsZero() {
			t.Errorf("%s: %+v, want %+v", got.ClientID, got, w)
		}
	}
	if len(list) != 3 {
		t.Fatalf("%d clients", len(list))
	}
	c.ok("", "client", "roles", "three", "-default")
	c.ok("", "client", "rm", "two")
	text := c.ok("", "client", "list")
	for _, part := range []string{"CLIENT", "one", "moderate", "three", "client", "valid"} {
		if !strings.Contains(text, part) {
			t.Errorf("the list lacks %q:\n%s", part, text)
		}
	}

	c.fails(1, "already registered", key, "client", "add", "one")
	c.fails(1, "two", key, "client", "rotate", "two")
	c.fails(1, "nobody", "", "client", "rm", "nobody")
	c.fails(1, "nobody", "", "client", "revoke", "nobody")
	c.fails(1, "admin", "", "client", "roles", "one", "admin")
	c.fails(1, "auditor", key, "client", "add", "four", "-roles", "auditor")
	c.fails(1, "it is empty", "", "client", "add", "four")
	c.fails(1, "no line of text", strings.Repeat("x", 5000), "client", "add", "four")
	c.fails(1, "no line of text", "\xff\xfe", "client", "add", "four")
	c.fails(1, "client add four: ", "short", "client", "add", "four")
	c.fails(1, "none.key", "", "client", "add", "four", "-key-file", "none.key")

	// What was changed is what a server finds, and a running one keeps the tool out.
	server := start(t, c.dir)
	logsIn(t, server, "one", otherKey, true)
	logsIn(t, server, "one", key, false)
	logsIn(t, server, "three", made, true)
	logsIn(t, server, "two", key, false)
	c.fails(1, "use -admin URL", key, "client", "add", "four")
	c.fails(1, "use -admin URL", "", "client", "list")
	c.fails(1, "use -admin URL", "", "store", "backup", filepath.Join(c.dir, "backup"))
	logsIn(t, server, "one", otherKey, true)
}

// TestOddIDs shows that an id may begin like a flag, and is quoted if it does not print plainly.
func TestOddIDs(t *testing.T) {
	c := newCmd(t)
	c.ok(key, "client", "add", "--", "-a  b")
	if text := c.ok("", "client", "list"); !strings.Contains(text, `"-a  b"`) {
		t.Errorf("printed %q", text)
	}
}

// TestClientOnline shows WX-10: the same commands go to a running server's admin listener, with the
// admin key in a header alone.
func TestClientOnline(t *testing.T) {
	const adminKey = "the admin key of this test, long enough"
	type request struct{ method, uri, body string }
	var got []request
	answer, status := "{}", 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, request{r.Method, r.RequestURI, string(body)})
		if id, k, ok := r.BasicAuth(); !ok || id != "" || k != adminKey {
			t.Errorf("credentials of %q", id)
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	c := newCmd(t)
	file := filepath.Join(c.dir, "admin.key")
	if err := os.WriteFile(file, []byte(adminKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := []string{"-admin", server.URL, "-admin-key-file", file}
	online := func(args ...string) []string { return append(args, admin...) }
	for _, tt := range []struct {
		args []string
		want request
	}{
		{online("client", "add", "a/b"), request{"POST", "/admin/clients", `{"clientID":"a/b","authKey":"` + key + `"}`}},
		{online("client", "add", "a", "-roles", "x,y"), request{"POST", "/admin/clients", `{"clientID":"a","authKey":"` + key + `","roles":["x","y"]}`}},
		{online("client", "add", "a", "-roles", ""), request{"POST", "/admin/clients", `{"clientID":"a","authKey":"` + key + `","roles":[]}`}},
		{online("client", "roles", "a/b", "x"), request{"PUT", "/admin/clients/a%2Fb/roles", `{"roles":["x"]}`}},
		{online("client", "roles", "a"), request{"PUT", "/admin/clients/a/roles", `{"roles":[]}`}},
		{online("client", "roles", "a", "-default"), request{"PUT", "/admin/clients/a/roles", `{"roles":null}`}},
		{online("client", "rotate", "a", "-grace", "90s"), request{"POST", "/admin/clients/a/rotate", `{"authKey":"` + key + `","graceSeconds":90}`}},
		{online("client", "revoke", "a"), request{"POST", "/admin/clients/a/revoke", ""}},
		{online("client", "rm", "a?b"), request{"DELETE", "/admin/clients/a%3Fb", ""}},
	} {
		got = nil
		c.ok(key, tt.args...)
		if len(got) != 1 || got[0] != tt.want {
			t.Errorf("%q sent %q, want %q", tt.args[:3], got, tt.want)
		}
	}

	got, answer = nil, `{"clients":[{"clientID":"a","roles":["client"],"epoch":3,"revoked":true}]}`
	if text := c.ok("", online("client", "list")...); !strings.Contains(text, "revoked") || got[0].uri != "/admin/clients?limit=100" {
		t.Errorf("list of %q: %s", got, text)
	}
	answer = `{"unknownRoles":["x"]}`
	if status, _, stderr := c.run(key, online("client", "add", "a", "-roles", "x")...); status != 0 || !strings.Contains(stderr, "role x gives no right") {
		t.Errorf("status %d, %q", status, stderr)
	}

	answer, status = `{"error":"client not found\n","code":"404","reason":"not_found"}`, 404
	c.fails(1, `(not_found)`, "", online("client", "rm", "a")...)
	answer, status = "<html>", 502
	c.fails(1, "502", "", online("client", "list")...)
	answer, status = "not JSON", 200
	c.fails(1, "decode answer", "", online("client", "list")...)
	got, status = nil, http.StatusFound
	c.fails(1, "302", "", online("client", "rm", "a")...)
	if len(got) != 1 {
		t.Errorf("went on to %q with the key", got)
	}
	got = nil
	for _, url := range []string{"http://192.0.2.1:8046", "http://example.com", "ftp://127.0.0.1", "127.0.0.1:8046", "http://u:p@127.0.0.1", "http://127.0.0.1/x", "https://"} {
		c.fails(1, "-admin ", "", "client", "list", "-admin", url, "-admin-key-file", file)
	}
	c.fails(1, "no admin key", "", "client", "list", "-admin", server.URL)
	if len(got) != 0 {
		t.Errorf("sent %q", got)
	}
	// Without a file the key is that of the configuration.
	status, answer = 200, `{"clients":[]}`
	c.environ = append(c.environ, "RTCD_API_SECURITY_ADMINSECRETKEYFILE="+file)
	c.ok("", "client", "list", "-admin", server.URL)
}

// TestStoreCommands shows CR-02: back up, verify, restore. A damaged backup and a store that is not
// empty are left alone, and clients of a restored store log in.
func TestStoreCommands(t *testing.T) {
	c := newCmd(t)
	for i := range 3 {
		c.ok(key, "client", "add", fmt.Sprintf("c%d", i))
	}
	backup := filepath.Join(c.dir, "backup")
	if text := c.ok("", "store", "backup", backup); !strings.HasPrefix(text, "3 clients, ") {
		t.Errorf("printed %q", text)
	}
	info, err := os.Stat(backup)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	c.fails(1, "exists", "", "store", "backup", backup)
	var verified struct {
		Clients int
		SHA256  string
	}
	if err := json.Unmarshal([]byte(c.ok("", "store", "verify", backup, "-json")), &verified); err != nil || verified.Clients != 3 || len(verified.SHA256) != 64 {
		t.Errorf("%+v, %v", verified, err)
	}
	c.fails(1, "force", "", "store", "restore", backup)

	data, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(data)
	flipped[len(flipped)/2] ^= 1
	other := newCmd(t)
	for name, bad := range map[string][]byte{"truncated": data[:len(data)-1], "flipped": flipped, "empty": nil} {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c.fails(1, "store verify: ", "", "store", "verify", path)
		other.fails(1, "store restore: ", "", "store", "restore", path)
		c.fails(1, "store restore: ", "", "store", "restore", path, "-force")
	}
	if _, err := os.Stat(filepath.Join(other.dir, "data")); err == nil {
		t.Error("a damaged backup made a data store")
	}
	other.fails(1, "no such file", "", "store", "backup", filepath.Join(other.dir, "b"))
	if n := len(c.clients()); n != 3 {
		t.Errorf("%d clients after refused restorations", n)
	}

	other.ok("", "store", "restore", backup)
	c.ok("", "client", "rm", "c1")
	c.ok("", "store", "restore", backup, "-force")
	if n := len(c.clients()); n != 3 {
		t.Errorf("%d clients after a forced restoration", n)
	}
	server := start(t, other.dir)
	for i := range 3 {
		logsIn(t, server, fmt.Sprintf("c%d", i), key, true)
	}
	c.environ = append(c.environ, "RTCD_STORE_DATASOURCE="+filepath.Join(other.dir, "data"))
	c.fails(1, "held by another process", "", "store", "restore", backup, "-force")

	// Through an admin listener: a backup that breaks off leaves nothing.
	cut := data
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.RequestURI != "POST /admin/store/backup" {
			t.Errorf("%s %s", r.Method, r.RequestURI)
		}
		_, _ = w.Write(cut)
	}))
	defer admin.Close()
	file := filepath.Join(c.dir, "admin.key")
	if err := os.WriteFile(file, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	online := filepath.Join(c.dir, "online")
	args := []string{"store", "backup", online, "-admin", admin.URL, "-admin-key-file", file}
	cut = data[:len(data)/2]
	c.fails(1, "receive backup: ", "", args...)
	if left, _ := filepath.Glob(online + "*"); left != nil {
		t.Errorf("left %v", left)
	}
	cut = data
	c.ok("", args...)
	if got, err := os.ReadFile(online); err != nil || !bytes.Equal(got, data) {
		t.Errorf("differs from the backup: %v", err)
	}
	c.fails(1, "exists", "", args...)
}
