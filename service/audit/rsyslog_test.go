package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rtcd/service/audit"
)

// rsyslogConfig takes messages over TLS from whoever shows a certificate of our authority, and writes each with a line
// end of its own. Nothing is escaped or cut: what is in the file is what came.
const rsyslogConfig = `
global(workDirectory="%[1]s" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off"
	defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="%[2]s"
	defaultNetstreamDriverCertFile="%[3]s" defaultNetstreamDriverKeyFile="%[4]s")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="raw" type="string" string="%%syslogpriority%% %%syslogfacility%% %%msgid%% %%app-name%% %%msg%%\n")
ruleset(name="audit") {
	action(type="omfile" file="%[1]s/received" template="raw" asyncWriting="off" flushOnTXEnd="on" fileCreateMode="0600")
}
input(type="imtcp" address="127.0.0.1" port="%[5]s" ruleset="audit")
`

// A syslogd is a running rsyslogd.
type syslogd struct {
	dir     string
	cmd     *exec.Cmd
	output  bytes.Buffer
	address string
}

// start starts the daemon and waits until it takes connections.
func (d *syslogd) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("rsyslogd", "-n", "-f", filepath.Join(d.dir, "rsyslog.conf"), "-i", filepath.Join(d.dir, "pid"))
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (d *syslogd) stop(sig os.Signal) {
	if d.cmd == nil {
		return
	}
	process := d.cmd.Process
	late := time.AfterFunc(10*time.Second, func() { _ = process.Kill() })
	defer late.Stop()
	_ = process.Signal(sig)
	_ = d.cmd.Wait()
	d.cmd = nil
}

// received returns the messages that were written, in order.
func (d *syslogd) received(t *testing.T) (messages []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "received"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if strings.HasSuffix(l, "\n") {
			messages = append(messages, strings.TrimSuffix(l, "\n"))
		}
	}
	return messages
}

func startSyslogd(t *testing.T, a *authority) *syslogd {
	t.Helper()
	if _, err := exec.LookPath("rsyslogd"); err != nil {
		t.Skip("SKIPPED: there is no rsyslogd (Debian: rsyslog, rsyslog-openssl)")
	}
	if found, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_ossl.so"); len(found) == 0 {
		t.Skip("SKIPPED: rsyslogd has no TLS of OpenSSL (Debian: rsyslog-openssl)")
	}
	d := &syslogd{dir: t.TempDir(), address: freeAddress(t)}
	certFile, keyFile := a.issue(t, "rsyslogd")
	_, port, _ := strings.Cut(d.address, ":")
	write(t, filepath.Join(d.dir, "rsyslog.conf"), fmt.Appendf(nil, rsyslogConfig, d.dir, a.ca(), certFile, keyFile, port))
	t.Cleanup(func() {
		d.stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("rsyslogd: %s", d.output.Bytes())
		}
	})
	d.start(t)
	return d
}

// arrived reads what rsyslogd wrote, with each message checked, and returns the records.
func (d *syslogd) arrived(t *testing.T) (seqs []uint64) {
	t.Helper()
	for _, m := range d.received(t) {
		fields := strings.SplitN(m, " ", 5)
		if len(fields) != 5 || fields[1] != "10" || fields[2] != "DICOM+RFC3881" || fields[3] != "rtcd" || fields[0] != "5" && fields[0] != "4" {
			t.Fatalf("rsyslogd understood %.200q", m)
		}
		seqs = append(seqs, seqOf(t, []byte(strings.TrimPrefix(fields[4], "\uFEFF"))))
	}
	return seqs
}

// TestRsyslog shows CR-15 against a real rsyslogd over TLS with certificates on both sides: every event arrives once the
// daemon is there, in order, as a valid audit message, also what was recorded while it was stopped or killed.
func TestRsyslog(t *testing.T) {
	a := newAuthority(t)
	d := startSyslogd(t, a)
	sink := audit.SinkConfig{Address: d.address, CAFile: a.ca(), Settle: time.Second, RetryMax: 200 * time.Millisecond}
	sink.CertFile, sink.KeyFile = a.issue(t, "rtcd")
	dir := t.TempDir()
	r := open(t, audit.Config{Dir: dir, Sinks: []audit.SinkConfig{sink}})
	nasty := goldenEvents()["nasty"]
	r.Record(nasty)
	record(t, r, 300)
	delivered := func() {
		t.Helper()
		synced(t, r)
		eventually(t, "all is delivered", 20*time.Second, func() bool { return r.Stats().Sinks[0].Unsent == 0 })
	}
	delivered()
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		record(t, r, 50)
		d.stop(sig)
		record(t, r, 200)
		d.start(t)
		delivered()
	}
	// rsyslogd writes from a queue of its own.
	last := verified(t, dir).Records
	eventually(t, "rsyslogd writes the last one", 10*time.Second, func() bool { return slices.Contains(d.arrived(t), last) })
	complete(t, d.arrived(t), 1, last)

	// A clean end: rsyslogd has read everything when it closes its side.
	start := time.Now()
	closed(t, r)
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("Close took %v", took)
	}
	eventually(t, "rsyslogd writes the end", 10*time.Second, func() bool { return slices.Contains(d.arrived(t), last+1) })
	complete(t, d.arrived(t), 1, last+1)
}

// TestRsyslogLong shows CR-15: rsyslogd takes a message of 32 KiB whole.
func TestRsyslogLong(t *testing.T) {
	a := newAuthority(t)
	d := startSyslogd(t, a)
	certFile, keyFile := a.issue(t, "rtcd")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	text, err := audit.Message(goldenEvents()["denied"], "rtcd.example.com")
	if err != nil {
		t.Fatal(err)
	}
	pad := strings.Repeat("x", 32<<10-len(text))
	text = bytes.Replace(text, []byte("forbidden"), []byte("forbidden"+pad), 1)
	if err := audit.SendTo(ctx, audit.SinkConfig{Address: d.address, CAFile: a.ca(), CertFile: certFile, KeyFile: keyFile}, text); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is written", 10*time.Second, func() bool { return len(d.received(t)) == 1 })
	if got := d.received(t)[0]; !strings.Contains(got, "forbidden"+pad+"<") || len(text) != 32<<10 {
		t.Errorf("sent %d bytes, got %d", len(text), len(got))
	}
	if seqs := d.arrived(t); !slices.Equal(seqs, []uint64{7}) {
		t.Errorf("got %v", seqs)
	}
}
