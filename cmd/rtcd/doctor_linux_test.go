package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rtcd/config"
	"rtcd/service/doctor"
)

// byMachine are findings that a machine for tests may well have.
var byMachine = []string{
	"clock_unsynchronised", "socket_buffers_small", "conntrack_small", "conntrack_full", "memory_limit_small", "gomemlimit_unset",
	"cpu_quota_small", "open_files_low", "store_on_tmpfs", "store_low_space",
}

// examined runs rtcd doctor as a user does, and returns its status and its findings but those of the machine.
func examined(t *testing.T, environ []string, args ...string) (status int, found []doctor.Finding, text string) {
	t.Helper()
	dir := t.TempDir()
	_, text, _ = finish(t, dir, append([]string{"doctor"}, args...), environ)
	status, stdout, stderr := finish(t, dir, append([]string{"doctor", "-json"}, args...), environ)
	if stderr != "" {
		t.Errorf("standard error: %q", stderr)
	}
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if (status == 0) != doctor.Healthy(all) {
		t.Errorf("status %d with\n%s", status, doctor.Text(all))
	}
	for _, f := range all {
		if !strings.Contains(text, "\n"+string(f.Severity)+" "+f.ID+": ") && !strings.HasPrefix(text, string(f.Severity)+" "+f.ID+": ") {
			t.Errorf("the text lacks %s:\n%s", f.ID, text)
		}
	}
	return status, slices.DeleteFunc(all, func(f doctor.Finding) bool { return slices.Contains(byMachine, f.ID) }), text
}

func named(found []doctor.Finding) string {
	var all []string
	for _, f := range found {
		all = append(all, f.ID)
	}
	return strings.Join(all, " ")
}

// TestDoctor: before the start nothing is wrong; with a port taken that is; beside the running server its ports
// are its own; and of what a start finds it logs the same as the doctor says.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	p := newPorts(t)
	environ := p.environ(dir)
	if _, found, _ := examined(t, environ); named(found) != "media_loopback_only" {
		t.Errorf("before the start: %s", named(found))
	}
	l, err := net.Listen("tcp", strings.TrimPrefix(p.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	status, found, text := examined(t, environ)
	_ = l.Close()
	if named(found) != "api_port_taken media_loopback_only" || status != 1 || !strings.Contains(text, "by process ") {
		t.Errorf("with the port taken: status %d, %s\n%s", status, named(found), text)
	}

	c := launch(t, p, dir, nil)
	c.awaitReady(t)
	_, found, text = examined(t, environ)
	if named(found) != "server_running media_loopback_only" {
		t.Errorf("beside the server: %s", text)
	}
	c.connect(t, "c1") // still serving
}

// TestStartUpSelfTest: what is wrong is logged once, with what to do, and the server serves all the same.
func TestStartUpSelfTest(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "data")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(store, 0o707); err != nil {
		t.Fatal(err)
	}
	c := launch(t, newPorts(t), dir, nil)
	c.awaitReady(t)
	c.connect(t, "c1")
	c.out.await(t, "store_world_writable")
	if n := strings.Count(c.out.String(), "store_world_writable"); n != 1 || !strings.Contains(c.out.String(), "chmod o-w") {
		t.Errorf("logged %d times:\n%s", n, c.out)
	}
}

// TestDoctorMisused: a wrong command line is said to be one.
func TestDoctorMisused(t *testing.T) {
	var out, errs bytes.Buffer
	if status := run([]string{"doctor", "x"}, nil, &out, &errs); status != statusUsage || !strings.Contains(errs.String(), "rtcd doctor [-json]") {
		t.Errorf("status %d: %s", status, errs.String())
	}
	if status := run([]string{"doctor", "-table"}, nil, &out, &errs); status != statusOK || out.String() != doctor.Table() {
		t.Errorf("status %d: %s", status, out.String())
	}
}

// TestAdminURL: the listener of the configuration is asked on this machine.
func TestAdminURL(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:8046": "http://127.0.0.1:8046", ":8046": "http://localhost:8046", "[::]:8046": "http://localhost:8046",
		"[::1]:8046": "http://[::1]:8046", "": "",
	} {
		got, err := adminURL(config.Admin{ListenAddress: address})
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
}
