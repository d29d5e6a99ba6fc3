package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rtcd/client"
	"rtcd/service/api"
)

// An operator works on a running server from the command line.
type operator struct {
	*cmd
	admin []string // flags that say where the server is
	audit string   // folder of its audit log
}

// operate starts a server with an admin listener and an audit log.
func operate(t *testing.T) (*child, *operator) {
	t.Helper()
	const adminKey = "the admin key of this test, long enough"
	dir := t.TempDir()
	o := &operator{cmd: newCmd(t), audit: filepath.Join(dir, "audit")}
	s := start(t, dir, "RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY="+adminKey,
		"RTCD_AUDIT_ENABLE=on", "RTCD_AUDIT_DIR="+o.audit)
	file := filepath.Join(o.dir, "admin.key")
	if err := os.WriteFile(file, []byte(adminKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.admin = []string{"-admin", fmt.Sprintf("http://127.0.0.1:%d", s.ports.admin), "-admin-key-file", file}
	return s, o
}

// online adds the flags for the running server.
func (o *operator) online(args ...string) []string { return append(args, o.admin...) }

// list returns the clients of the running server by id.
func (o *operator) list() map[string]api.Tenant {
	o.t.Helper()
	var list struct{ Clients []api.Tenant }
	if err := json.Unmarshal([]byte(o.ok("", o.online("client", "list", "-json")...)), &list); err != nil {
		o.t.Fatal(err)
	}
	out := make(map[string]api.Tenant)
	for _, c := range list.Clients {
		out[c.ClientID] = c
	}
	return out
}

// TestOperatorOnline shows WX-10 and CR-02: the operator adds, lists, changes, revokes and removes clients of
// a running server, which obeys at once, and takes a copy of its store that another server starts from.
// CR-14: all of it is on record, which can be verified and read while the server runs and afterwards.
func TestOperatorOnline(t *testing.T) {
	ctx := within(t, 60*time.Second)
	s, o := operate(t)
	o.ok(key+"\n", o.online("client", "add", "one")...)
	status, _, stderr := o.run(key, o.online("client", "add", "two", "-roles", "client,x.y")...)
	if status != 0 || !strings.Contains(stderr, "x.y") {
		t.Errorf("a role that nothing asks for: status %d, %q", status, stderr)
	}
	made := strings.TrimSpace(o.ok("", o.online("client", "add", "three", "-generate")...))
	logsIn(t, s, "one", key, true)
	logsIn(t, s, "three", made, true)
	o.fails(1, "already", key, o.online("client", "add", "one")...)
	o.fails(1, "not_found", "", o.online("client", "rm", "nobody")...)
	o.fails(1, "role_reserved", "", o.online("client", "roles", "one", "admin")...)
	o.fails(1, "400", "short", o.online("client", "rotate", "one")...)
	wrong := filepath.Join(o.dir, "wrong.key")
	if err := os.WriteFile(wrong, []byte("another admin key, which is not the right one"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.fails(1, "401", "", "client", "list", "-admin", o.admin[1], "-admin-key-file", wrong)
	if list := o.list(); len(list) != 3 || list["one"].Epoch != 1 || !slices.Equal(list["two"].Roles, []string{"client", "x.y"}) {
		t.Errorf("clients %+v", list)
	}
	if text := o.ok("", o.online("client", "list")...); !strings.Contains(text, "three") || strings.Contains(text, made) {
		t.Errorf("printed %q", text)
	}

	r := s.connect(t, "one")
	lost := func() bool {
		return r.Await(ctx, func(events []client.Event) bool {
			_, ok := events[len(events)-1].(client.Disconnected)
			return ok
		}) == nil
	}
	o.ok(otherKey, o.online("client", "rotate", "one", "-grace", "0s")...)
	if !lost() {
		t.Error("the connection of before is open")
	}
	logsIn(t, s, "one", key, false)
	logsIn(t, s, "one", otherKey, true)
	o.ok("", o.online("client", "roles", "two", "calls.create")...)
	o.ok("", o.online("client", "revoke", "three")...)
	logsIn(t, s, "three", made, false)
	list := o.list()
	if list["one"].Epoch != 2 || !slices.Equal(list["two"].Roles, []string{"calls.create"}) || !list["three"].Revoked {
		t.Errorf("clients %+v", list)
	}
	o.ok("", o.online("client", "roles", "two", "-default")...)
	o.ok("", o.online("client", "rm", "three")...)
	if list := o.list(); len(list) != 2 || !slices.Equal(list["two"].Roles, []string{"client"}) {
		t.Errorf("clients %+v", list)
	}

	// A copy of the running store is a store, of the time it was made.
	backup := filepath.Join(o.dir, "backup")
	if text := o.ok("", o.online("store", "backup", backup)...); !strings.HasPrefix(text, "2 clients, ") {
		t.Errorf("printed %q", text)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v, %v", info, err)
	}
	o.ok("", "store", "verify", backup)
	o.ok("", o.online("client", "rm", "two")...)
	o.ok("", "store", "restore", backup)
	second := start(t, o.dir)
	logsIn(t, second, "one", otherKey, true)
	logsIn(t, second, "one", key, false)
	logsIn(t, second, "two", key, true)
	logsIn(t, s, "two", key, false)

	for { // it is written a moment after the answer
		if text := o.ok("", "audit", "tail", "-dir", o.audit, "-type", "client.remove"); strings.Count(text, "\n") == 3 {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the last removal is not on record")
		}
	}
	o.onRecord(t)
	s.signal(t, syscall.SIGTERM)
	if status := s.exit(t, 20*time.Second); status != 0 {
		t.Errorf("status %d\n%s", status, s.out)
	}
	o.onRecord(t)
	for what, secret := range map[string]string{"key": key, "other key": otherKey, "generated key": made, "admin key": "the admin key of this test"} {
		if strings.Contains(s.out.String(), secret) {
			t.Errorf("the %s is in the log", what)
		}
	}
}

// onRecord checks that the audit log is whole, and has what was done by whom.
func (o *operator) onRecord(t *testing.T) {
	t.Helper()
	if text := o.ok("", "audit", "verify", "-dir", o.audit); !strings.Contains(text, "records") {
		t.Errorf("verify: %s", text)
	}
	text := o.ok("", "audit", "tail", "-dir", o.audit, "-n", "1000", "-json")
	count := make(map[string]int) // by type and outcome
	for line := range strings.Lines(text) {
		var e struct {
			Type    string
			Outcome int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if e.Outcome == 0 {
			count[e.Type]++
		} else {
			count[e.Type+" refused"]++
		}
	}
	for what, want := range map[string]int{
		"client.add": 3, "client.add refused": 1, "client.rotate": 1, "client.rotate refused": 1, "client.roles": 2, "client.roles refused": 1,
		"client.revoke": 1, "client.remove": 2, "client.remove refused": 1, "client.list": 4, "client.list refused": 1, "store.backup": 1,
	} {
		if count[what] != want {
			t.Errorf("%d events %s, want %d", count[what], what, want)
		}
	}
	if one := o.ok("", "audit", "tail", "-dir", o.audit, "-type", "store.backup", "-n", "5"); strings.Count(one, "\n") != 1 || !strings.Contains(one, "operator") {
		t.Errorf("the backup is on record as %q", one)
	}
	for _, secret := range []string{key, otherKey, "the admin key of this test"} {
		if strings.Contains(text, secret) {
			t.Error("a key is on record")
		}
	}
}
