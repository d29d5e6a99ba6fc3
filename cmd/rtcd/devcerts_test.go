package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rtcd/service/api"
)

// TestDevCerts shows CR-17 and CR-07: the generated set runs mutual TLS with a real server, and
// production refuses the command and the certificates.
func TestDevCerts(t *testing.T) {
	c := newCmd(t)
	dir := filepath.Join(c.dir, "certs")
	c.ok("", "dev-certs", dir, "-client", "one")
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"ca.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem"} {
		info, err := os.Stat(at(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	c.fails(1, "exists", "", "dev-certs", dir) // it overwrites nothing

	environ := []string{
		"RTCD_API_HTTP_TLS_ENABLE=true", "RTCD_API_HTTP_TLS_CERTFILE=" + at("server.pem"), "RTCD_API_HTTP_TLS_CERTKEY=" + at("server-key.pem"),
		"RTCD_API_HTTP_TLS_CLIENTAUTH=require", "RTCD_API_HTTP_TLS_CLIENTCAFILE=" + at("ca.pem"),
		"RTCD_API_ADMIN_TLS_ENABLE=true",
	}
	p := newPorts(t)
	server := launch(t, p, c.dir, nil, environ...)
	server.out.await(t, "backends: HTTP and WebSocket")
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(at("ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.pem: %v", err)
	}
	pair, err := tls.LoadX509KeyPair(at("client.pem"), at("client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(pair.Leaf.NotAfter); left < 29*24*time.Hour || left > 30*24*time.Hour {
		t.Errorf("valid for %v", left)
	}
	if o := pair.Leaf.Subject.Organization; len(o) != 1 || o[0] != "rtcd development" || pair.Leaf.DNSNames[0] != "one" {
		t.Errorf("subject %v", pair.Leaf.Subject)
	}
	get := func(url string, certs ...tls.Certificate) int {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(url)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	public, admin := fmt.Sprintf("https://localhost:%d/version", p.api), fmt.Sprintf("https://127.0.0.1:%d/metrics", p.admin)
	if got := get(public, pair); got != 200 {
		t.Errorf("with the client's certificate: %d", got)
	}
	if got := get(public); got != 0 {
		t.Errorf("without a certificate: %d", got)
	}
	if got := get(admin); got != 200 {
		t.Errorf("admin listener, which asks for no certificate: %d", got)
	}

	production := launch(t, newPorts(t), t.TempDir(), nil, append(environ, "RTCD_MODE=production")...)
	if status := production.exit(t, 5*time.Second); status != 1 || !strings.Contains(production.out.String(), "development") {
		t.Errorf("production: status %d\n%s", status, production.out)
	}
	c.environ = append(c.environ, "RTCD_MODE=production")
	c.fails(1, "production", "", "dev-certs", filepath.Join(c.dir, "more"))
	if _, err := os.Stat(filepath.Join(c.dir, "more")); err == nil {
		t.Error("production made certificates")
	}
}

// TestProductionRefusals shows CR-08, CR-04, CR-16 and OT-06 with the real server: each finding ends the
// start with status 1 and a line that names the key.
func TestProductionRefusals(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open.key")
	if err := os.WriteFile(open, []byte("3q2+7wAAEjRWeJq83vAREiM0RVZneImaq7zN3u8="), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	cert, certKey := certificate(t, dir, "self") // self-signed
	for _, tt := range []struct {
		key     string
		environ []string
	}{
		{"api.security.admin_secret_key", []string{"RTCD_API_SECURITY_ENABLEADMIN=1", "RTCD_API_SECURITY_ADMINSECRETKEY=x"}},
		{"api.security.admin_secret_key", []string{"RTCD_API_SECURITY_ENABLEADMIN=1", "RTCD_API_SECURITY_ADMINSECRETKEY=" + strings.Repeat("A", 32)}},
		{"api.security.admin_secret_key_file", []string{"RTCD_API_SECURITY_ENABLEADMIN=1", "RTCD_API_SECURITY_ADMINSECRETKEYFILE=" + open}},
		{"rtc.turn.static_auth_secret", []string{"RTCD_RTC_TURNCONFIG_STATICAUTHSECRET=devkey"}},
		{"api.admin.listen_address", []string{"RTCD_API_ADMIN_LISTENADDRESS=0.0.0.0:8046"}},
		{"audit.sink[0].address", []string{`RTCD_AUDIT_SINK=[{"type":"syslog","transport":"udp","address":"203.0.113.1:514"}]`}},
		{"api.http.tls.cert_file", []string{"RTCD_API_HTTP_TLS_ENABLE=1", "RTCD_API_HTTP_TLS_CERTFILE=" + cert, "RTCD_API_HTTP_TLS_CERTKEY=" + certKey}},
	} {
		home := t.TempDir()
		bad := launch(t, newPorts(t), home, nil, append([]string{"RTCD_MODE=production", "RTCD_AUDIT_DIR=" + filepath.Join(home, "audit")}, tt.environ...)...)
		if status := bad.exit(t, 5*time.Second); status != 1 || !strings.Contains(bad.out.String(), tt.key+" = ") {
			t.Errorf("%s: status %d\n%s", tt.key, status, bad.out)
		}
		// "config check" lists the same.
		check := newCmd(t, append([]string{"RTCD_MODE=production"}, tt.environ...)...)
		if status, stdout, _ := check.run("", "config", "check"); status != 1 || !strings.Contains(stdout, "fault: "+tt.key) {
			t.Errorf("config check, %s: status %d\n%s", tt.key, status, stdout)
		}
	}
}

// TestCheckPorts shows CR-01: what would be listened on is known without a start.
func TestCheckPorts(t *testing.T) {
	c := newCmd(t, "RTCD_RTC_ICEADDRESSUDP=127.0.0.1", "RTCD_RTC_ICEADDRESSTCP=127.0.0.1", "RTCD_API_ADMIN_LISTENADDRESS=")
	text := c.ok("", "config", "check", "-ports")
	for _, line := range []string{"api       tcp      :8045           off   backends", "media     udp      127.0.0.1:8443  dtls  end users", "media     tcp      127.0.0.1:8443  dtls"} {
		if !strings.Contains(text, line) {
			t.Errorf("lacks %q:\n%s", line, text)
		}
	}
	if strings.Contains(text, "admin ") {
		t.Errorf("an admin listener that is off:\n%s", text)
	}
	c.environ = append(c.environ, "RTCD_API_ADMIN_LISTENADDRESS=127.0.0.1:8046")
	_, stdout, _ := c.run("", "config", "check", "-ports", "-json")
	var table api.ListenerTable
	if err := json.Unmarshal([]byte(stdout), &table); err != nil || len(table) != 4 || table[1].Name != "admin" || table[1].Address != "127.0.0.1:8046" {
		t.Errorf("%v, %v", table, err)
	}
	// A configuration that stops the start has no listeners.
	c.environ = append(c.environ, "RTCD_RTC_ICEPORTUDP=1")
	if status, stdout, _ := c.run("", "config", "check", "-ports"); status != 1 || strings.Contains(stdout, "LISTENER") {
		t.Errorf("status %d:\n%s", status, stdout)
	}
}
