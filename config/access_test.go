package config

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// strong is a secret as openssl rand -base64 32 makes them.
const strong = "3q2+7wAAEjRWeJq83vAREiM0RVZneImaq7zN3u8="

// judge loads a configuration in both modes and wants the same finding, a part of it, in each: as a
// warning in drop-in and a fault in production. An empty want is no finding at all.
func judge(t *testing.T, text, want string) {
	t.Helper()
	_, loose := load([]byte(text), file, nil)
	_, strict := load([]byte("mode = 'production'\n"+text), file, nil)
	if want == "" {
		if !loose.OK() || !strict.OK() {
			t.Errorf("%s\ndrop-in: %sproduction: %s", text, loose, strict)
		}
		return
	}
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, want) })
	}
	if loose.Err != nil || !has(loose.Warnings) {
		t.Errorf("%s\ndrop-in, want a warning of %q: %s", text, want, loose)
	}
	var faults []string
	for _, f := range strict.Faults {
		faults = append(faults, f.String())
	}
	if !has(faults) {
		t.Errorf("%s\nproduction, want a fault of %q: %s", text, want, strict)
	}
}

// TestGuessableSecrets shows CR-08: what production refuses and drop-in warns of, for each secret
// that lets somebody in.
func TestGuessableSecrets(t *testing.T) {
	weak := map[string]string{
		"x":                                "shorter than 32 bytes",
		strings.Repeat("A", 32):            "different characters",
		strings.Repeat("changeme", 4):      "well-known sample",
		"admin-changeme-password-secret!!": "can be guessed",
		"correct-horse-battery-staple-correct-horse-battery-staple": "can be guessed",
		"abcdefghijklmnopqrstuvwxyz0123456789":                      "can be guessed",
		strings.Repeat("kT9#vQ2x", 100):                             "can be guessed",
		strings.Repeat("kT9#vQ2x", 8):                               "can be guessed",
		"qwertyuiopasdfghjklzxcvbnm1234567890":                      "can be guessed",
		"my-very-secret-production-server-password-2026":            "can be guessed",
		strings.Repeat("0123456789abcdef", 4):                       "can be guessed",
	}
	for _, sample := range sampleSecrets {
		weak[sample] = "" // whatever is said of it
	}
	for key, text := range map[string]string{
		"api.security.admin_secret_key":   "api.security.enable_admin = true\napi.security.admin_secret_key = '%s'",
		"api.security.auditor_secret_key": "api.security.auditor_secret_key = '%s'",
		"api.security.registration_token": "api.security.registration_token = '%s'",
		"rtc.turn.static_auth_secret":     "rtc.turn.static_auth_secret = '%s'",
	} {
		for secret, why := range weak {
			judge(t, fmt.Sprintf(text, secret), key+" = [redacted] ")
			if got := weakSecret(secret); !strings.Contains(got, why) {
				t.Errorf("%q %s, want: %s", secret, got, why)
			}
		}
		judge(t, fmt.Sprintf(text, strong), "")
	}
}

// TestRandomSecretsPass shows CR-08 from the other side: random secrets of enough bits are never
// taken for weak ones.
func TestRandomSecretsPass(t *testing.T) {
	for range 2000 {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw)
		for _, s := range []string{hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw[:24])} {
			if why := weakSecret(s); why != "" {
				t.Fatalf("%q %s (%.0f bits)", s, why, secretBits(s))
			}
		}
	}
}

// TestSecretFiles shows TK-01 and CR-08: every secret key has a twin for a file, which is read,
// bounded, and refused in production if others may read it.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, group, world := path("own", " "+strong+"\n", 0o600), path("group", strong, 0o640), path("world", strong, 0o604)
	empty, large := path("empty", " \n", 0o600), path("large", strings.Repeat("x", 5000), 0o600)
	binary := path("binary", "\xff\xfe", 0o600)
	for _, k := range Keys() {
		if !k.Secret || k.Name == keyICEServers || k.Name == keyWebhook {
			continue
		}
		text := k.Name + "_file = '%s'"
		if k.Name == "api.security.admin_secret_key" {
			text += "\napi.security.enable_admin = true"
		}
		if k.Name == "rtc.turn.static_auth_secret" {
			text += "\nrtc.ice_servers = ['stun:a']"
		}
		c := mustLoad(t, fmt.Sprintf(text, own))
		if got := k.field(&c).String(); got != strong {
			t.Errorf("%s has %q of its file", k.Name, got)
		}
		encoded, err := c.Encode()
		if err != nil || strings.Contains(string(encoded), strong) {
			t.Errorf("%s: encoded with what stands in a file: %v", k.Name, err)
		}
		if again, report := load(encoded, file, nil); report.Err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s: does not load again: %s", k.Name, report)
		}
		judge(t, fmt.Sprintf(text, own), "")
		judge(t, fmt.Sprintf(text, group), k.Name+"_file = ")
		judge(t, fmt.Sprintf(text, world), "is a file that others may read (mode 0604")
		for what, bad := range map[string]string{
			"missing": filepath.Join(dir, "none"), "folder": dir, "empty": empty, "large": large, "not text": binary,
		} {
			_, report := load([]byte(fmt.Sprintf(text, bad)), file, nil)
			if len(report.Faults) != 1 || report.Faults[0].Key != k.Name+"_file" {
				t.Errorf("%s, %s: want one fault of the file: %s", k.Name, what, report)
			}
		}
		_, report := load([]byte(fmt.Sprintf(text, own)+"\n"+k.Name+" = '"+strong+"'"), file, nil)
		if len(report.Faults) != 1 || !strings.Contains(report.Faults[0].Rule, "together with "+k.Name) {
			t.Errorf("%s, both: %s", k.Name, report)
		}
	}
	c := mustLoad(t, "rtc.ice_servers = [{urls = ['turn:a'], username = 'u', credential_file = '"+own+"'}]")
	if got := c.RTC.ICEServers[0].Credential.Reveal(); got != strong {
		t.Errorf("credential %q of its file", got)
	}
}

// TestReadableConfigFile shows CR-08: a configuration file with a secret in it is for its user alone.
func TestReadableConfigFile(t *testing.T) {
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"api.security.enable_admin = true\napi.security.admin_secret_key = '" + strong + "'", 0o640, "stands in"},
		{"api.security.enable_admin = true\napi.security.admin_secret_key = '" + strong + "'", 0o604, "mode 0604, should be 0600"},
		{"api.security.enable_admin = true\napi.security.admin_secret_key = '" + strong + "'", 0o600, ""},
		{"rtc.ice_servers = [{urls=['turn:a'],username='u',credential='p'}]", 0o644, "stands in"},
		{"rtc.ice_servers = ['stun:a']", 0o644, ""},
	} {
		for _, mode := range []Mode{ModeDropIn, ModeProduction} {
			path := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(path, []byte("mode = '"+string(mode)+"'\n"+tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, report, err := Load(path, nil)
			switch {
			case tt.want == "" && !report.OK(), tt.want != "" && !strings.Contains(report.String(), tt.want):
				t.Errorf("mode %04o, %s: %s", tt.mode, mode, report)
			case (err != nil) != (tt.want != "" && mode == ModeProduction):
				t.Errorf("mode %04o, %s: %v", tt.mode, mode, err)
			}
		}
	}
}

// TestCertificatesOfProduction shows OT-06 and CR-17: production refuses a certificate that is
// self-signed, for development, expired or not valid yet; drop-in warns. Both warn of one that ends
// within 30 days.
func TestCertificatesOfProduction(t *testing.T) {
	now, year := time.Now(), time.Now().AddDate(1, 0, 0)
	text := func(dir string) string {
		return "[api.http.tls]\nenable = true\ncert_file = '" + dir + "/c.pem'\ncert_key = '" + dir + "/k.pem'\n"
	}
	self := t.TempDir()
	writeCertificate(t, self, "c.pem", "k.pem")
	judge(t, text(self), "is self-signed")
	for _, tt := range []struct {
		organization  string
		before, after time.Time
		want          string
	}{
		{"example", now.Add(-time.Hour), year, ""},
		{DevOrganization, now.Add(-time.Hour), year, "is for development only"},
		{"example", now.Add(-2 * time.Hour), now.Add(-time.Hour), "expired at "},
		{"example", now.Add(time.Hour), year, "is not valid before "},
	} {
		dir := t.TempDir()
		issue(t, dir, "c.pem", "k.pem", tt.organization, tt.before, tt.after)
		judge(t, text(dir), tt.want)
	}
	dir := t.TempDir()
	issue(t, dir, "c.pem", "k.pem", "example", now.Add(-time.Hour), now.AddDate(0, 0, 29))
	for _, mode := range []string{"drop-in", "production"} {
		_, report := load([]byte("mode = '"+mode+"'\n"+text(dir)), file, nil)
		if report.Err != nil || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "in less than 30 days") {
			t.Errorf("%s: %s", mode, report)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "k.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	judge(t, text(dir), "api.http.tls.cert_key")

	// The authorities of clients.
	dir = t.TempDir()
	issueGood(t, dir)
	dev := t.TempDir()
	issue(t, dev, "x.pem", "y.pem", DevOrganization, now.Add(-time.Hour), year)
	judge(t, text(dir)+"client_auth = 'require'\nclient_ca_file = '"+dir+"/ca.pem'", "")
	judge(t, text(dir)+"client_auth = 'require'\nclient_ca_file = '"+dev+"/ca.pem'", "api.http.tls.client_ca_file")
}

// TestOpenAdminListener shows CR-04: the admin listener leaves the machine only with TLS and the
// admin key.
func TestOpenAdminListener(t *testing.T) {
	dir := t.TempDir()
	issueGood(t, dir)
	files := "api.http.tls.cert_file = '" + dir + "/c.pem'\napi.http.tls.cert_key = '" + dir + "/k.pem'\n"
	key := "api.security.enable_admin = true\napi.security.admin_secret_key = '" + strong + "'\n"
	open := "api.admin.listen_address = '0.0.0.0:8046'\n"
	judge(t, open, "without authentication")
	judge(t, open+key, "without authentication")
	judge(t, open+files+"api.admin.tls.enable = true", "without authentication")
	_, report := load([]byte("mode = 'production'\n"+open+files+key+"api.admin.tls.enable = true"), file, nil)
	if !report.OK() {
		t.Errorf("with both: %s", report)
	}
	_, report = load([]byte(open+files+key+"api.admin.tls.enable = true"), file, nil)
	if report.Err != nil || len(report.Warnings) != 1 {
		t.Errorf("drop-in, which asks for no credentials: %s", report)
	}
}

// TestAuditSinks shows CR-16: no sink outside without TLS, and none while a secret can be guessed.
func TestAuditSinks(t *testing.T) {
	sink := func(transport, address string) string {
		return "audit.enable = 'on'\naudit.sink = [{type = 'syslog', transport = '" + transport + "', address = '" + address + "'}]\n"
	}
	for address, want := range map[string]string{
		"10.1.2.3:514": "", "192.168.0.9:514": "", "127.0.0.1:514": "", "[fd00::5]:514": "", "localhost:514": "", "[fe80::1]:514": "",
		"172.31.1.1:514": "", "[::1]:514": "", "[::ffff:10.0.0.1]:514": "", "172.32.0.1:514": "audit.sink[0].address", "0.0.0.0:514": "audit.sink[0].address",
		"203.0.113.5:514": "audit.sink[0].address", "[2001:db8::1]:514": "audit.sink[0].address", "log.example.com:514": "audit.sink[0].address",
	} {
		judge(t, sink("tcp", address), want)
		judge(t, sink("udp", address), want)
		judge(t, sink("tls", address), "")
	}
	judge(t, sink("tls", "10.1.2.3:6514")+"api.security.auditor_secret_key = 'short'", "audit.sink = \"1 sinks\"")
	judge(t, sink("tls", "10.1.2.3:6514")+"api.security.auditor_secret_key = '"+strong+"'", "")
}

// TestOpenRegistration shows C2: self-registration on an open listener needs a fence.
func TestOpenRegistration(t *testing.T) {
	dir := t.TempDir()
	issueGood(t, dir)
	tls := "api.http.tls = {enable = true, cert_file = '" + dir + "/c.pem', cert_key = '" + dir + "/k.pem'}\n"
	on := "mode = 'production'\napi.security.allow_self_registration = true\n"
	for text, want := range map[string]string{
		on + tls: "lets anyone who reaches the API register",
		on + tls + "api.security.registration_token = '" + strong + "'":         "",
		on + tls + "api.security.registration_cidrs = ['10.0.0.0/8']":           "",
		on + "api.http.listen_address = '127.0.0.1:8045'":                       "",
		on + tls + "api.http.listen_address = '127.0.0.1:8045'":                 "",
		on + "api.security.registration_cidrs = ['10.0.0.0/8', 'fd00::/8']\n\n": "",
		// A fence around everybody is none.
		on + tls + "api.security.registration_cidrs = ['0.0.0.0/0']":        "lets anyone who reaches the API register",
		on + tls + "api.security.registration_cidrs = ['fd00::/8', '::/0']": "lets anyone who reaches the API register",
	} {
		_, report := load([]byte(text), file, nil)
		if report.Err != nil || want == "" && len(report.Warnings) != 0 || !strings.Contains(strings.Join(report.Warnings, ""), want) {
			t.Errorf("%s\n%s", text, report)
		}
	}
}

// TestTrustEverybody shows OT-04 and CR-08: production does not believe everybody's forwarded headers, nor
// take a list of all addresses for a fence.
func TestTrustEverybody(t *testing.T) {
	for _, list := range []string{"0.0.0.0/0", "::/0", "::ffff:0:0/96", "10.0.0.0/8', '1.2.3.4/0"} {
		judge(t, "api.http.trusted_proxies = ['"+list+"']", "api.http.trusted_proxies")
		judge(t, "api.security.allow_self_registration = true\napi.http.listen_address = '10.0.0.1:8045'\n"+
			"api.security.registration_cidrs = ['"+list+"']", "api.security.allow_self_registration")
	}
	judge(t, "api.http.trusted_proxies = ['10.0.0.0/8', '::1']", "")
}

// TestPlainHTTP shows C23: plain HTTP is never refused nor a finding, but production takes note of it.
func TestPlainHTTP(t *testing.T) {
	for text, notes := range map[string]int{
		"mode = 'production'": 1,
		"mode = 'production'\napi.http.listen_address = '10.0.0.1:8045'":  1,
		"mode = 'production'\napi.http.listen_address = '127.0.0.1:8045'": 0,
		"mode = 'production'\napi.http.trusted_proxies = ['10.0.0.0/24']": 0,
		"mode = 'development'": 0,
		"":                     0,
	} {
		if _, report := load([]byte(text), file, nil); !report.OK() || len(report.Notes) != notes {
			t.Errorf("%q: want %d notes: %s", text, notes, report)
		}
	}
}

// TestAccessRules shows WX-12 and the rules of the other keys of access, each with its bad values.
func TestAccessRules(t *testing.T) {
	for _, c := range []struct{ text, key, value, rule string }{
		{"policy.default_role = 'admin'", "policy.default_role", "admin", "role of operators"}, // WX-12
		{"policy.default_role = 'auditor'", "policy.default_role", "auditor", "role of operators"},
		{"policy.default_role = ''", "policy.default_role", "", "1 to 32 of"},
		{"policy.default_role = 'Client'", "policy.default_role", "Client", "1 to 32 of"},
		{"policy.client_includes = ['moderate', 'admin']", "policy.client_includes[1]", "admin", "role of operators"},
		{"policy.client_includes = ['a b']", "policy.client_includes[0]", "a b", "1 to 32 of"},
		{"policy.roles = {'POST /calls' = ''}", `policy.roles["POST /calls"]`, "", "1 to 32 of"},
		{"policy.roles = {'POST /calls' = 5}", `policy.roles["POST /calls"]`, "5", "must be a string, not an integer"},
		{"policy.roles = 'x'", "policy.roles", "x", "must be a table, not a string"},
		{"policy.in_ok = [{type = 'join', type_re = 'j.*'}]", "policy.in_ok[0]", "join", "one of type and type_re"},
		{"policy.in_ok = [{role = 'client'}]", "policy.in_ok[0]", "", "one of type and type_re"},
		{"policy.out_ok = [{type = 'rtc'}, {type_re = '('}]", "policy.out_ok[1].type_re", "(", "regular expression"},
		{"policy.out_ok = [{type_re = '" + strings.Repeat("a", 257) + "'}]", "policy.out_ok[0].type_re", strings.Repeat("a", 200) + "...", "at most 256 bytes"},
		{"policy.out_ok = [{type = 'rtc', role = 'A'}]", "policy.out_ok[0].role", "A", "1 to 32 of"},
		{"policy.in_ok = ['join']", "policy.in_ok[0]", "join", "must be a table, not a string"},
		{"policy.in_ok = [{type = 5}]", "policy.in_ok[0].type", "5", "must be a string, not an integer"},
		{"call.linger = '-1s'", "call.linger", "-1s", "must be from 0s to 24h"},
		{"call.unused_for = '0s'", "call.unused_for", "0s", "must be from 1m"},
		{"call.max_participants = -1", "call.max_participants", "-1", "must be from 0"},
		{"call.tokens_per_minute = 0", "call.tokens_per_minute", "0", "must be from 1"},
		{"rtc.limits.bitrate_per_client = -1", "rtc.limits.bitrate_per_client", "-1", "must be from 0"},
		{"audit.enable = 'yes'", "audit.enable", "yes", "must be one of auto, on, off"},
		{"audit.user_id = 'x'", "audit.user_id", "x", "must be one of hash, plain, omit"},
		{"audit.on_failure = 'x'", "audit.on_failure", "x", "must be one of drop, block"},
		{"audit.max_file_mib = 0", "audit.max_file_mib", "0", "must be from 1"},
		{"audit.keep_days = 0", "audit.keep_days", "0", "must be from 1"},
		{"audit.enable = 'on'\naudit.dir = ''", "audit.dir", "", "must not be empty"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'fhir', address = 'a:1'}]", "audit.sink[0].type", "fhir", "must be syslog"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'syslog', transport = 'ftp', address = '10.0.0.1:1'}]", "audit.sink[0].transport", "ftp", "must be one of tls"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'syslog', address = 'a'}]", "audit.sink[0].address", "a", "must be host:port"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'syslog', address = 'a:1', ca_file = '/none'}]", "audit.sink[0].ca_file", "/none", "readable file"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'syslog', address = 'a:1', spool_mib = -1}]", "audit.sink[0].spool_mib", "-1", "must be from 1"},
		{"audit.enable = 'on'\naudit.sink = [{type = 'syslog', address = 'a:1', spool_mib = '1'}]", "audit.sink[0].spool_mib", "1", "must be an integer"},
		{"api.http.trusted_proxies = ['10.0.0.0/33']", "api.http.trusted_proxies", "10.0.0.0/33", "list of prefixes"},
		{"api.http.trusted_proxies = ['proxy']", "api.http.trusted_proxies", "proxy", "list of prefixes"},
		{"api.security.registration_cidrs = ['x']", "api.security.registration_cidrs", "x", "list of prefixes"},
		{"api.admin.allowed_cidrs = ['x']", "api.admin.allowed_cidrs", "x", "list of prefixes"},
		{"api.security.basic_auth_scope = 'none'", "api.security.basic_auth_scope", "none", "must be one of all, login"},
		{"api.security.ticket_ttl = '11m'", "api.security.ticket_ttl", "11m0s", "must be from 1s to 10m"},
		{"api.security.ticket_bind = ['addr']", "api.security.ticket_bind", "addr", "must have client"},
		{"api.security.ticket_bind = ['client', 'host']", "api.security.ticket_bind", "client,host", "only client and addr"},
		{"api.security.enable_admin = true\napi.security.admin_secret_key = '" + strong + "'\napi.security.auditor_secret_key = '" + strong + "'", "api.security.auditor_secret_key", redacted, "must not be the same"},
		{"api.http.tls.client_auth = 'yes'", "api.http.tls.client_auth", "yes", "must be one of none"},
		{"api.http.tls.client_cert_bind = 'ou'", "api.http.tls.client_cert_bind", "ou", "must be one of san"},
		{"api.http.tls.client_fingerprints = ['a=12']", "api.http.tls.client_fingerprints", "[a=12]", "64 hexadecimal"},
		{"mode = 'staging'", "mode", "staging", "must be one of drop-in, production, development"},
	} {
		_, report := load([]byte(c.text), file, nil)
		if !slices.ContainsFunc(report.Faults, func(f Fault) bool {
			return f.Key == c.key && f.Value == c.value && strings.Contains(f.Rule, c.rule) && f.Source == file
		}) {
			t.Errorf("%s\nwant %s = %q: %s\ngot %s", c.text, c.key, c.value, c.rule, report)
		}
	}
}

// The forms of tables in the file and in the environment mean the same.
func TestTableForms(t *testing.T) {
	fromFile := mustLoad(t, `
[policy.roles]
"POST /calls" = "scheduler"
[[policy.in_ok]]
type = "join"
role = "client"
[[policy.in_ok]]
Type_RE = "r.*"
[[audit.sink]]
type = "syslog"
transport = "udp"
address = "10.0.0.5:514"
spool_mib = 8
`)
	fromEnv := mustLoad(t, "",
		`RTCD_POLICY_ROLES={"POST /calls":"scheduler"}`,
		`RTCD_POLICY_INOK=[{"type":"join","role":"client"},{"type_re":"r.*"}]`,
		`RTCD_AUDIT_SINK=[{"type":"syslog","transport":"udp","address":"10.0.0.5:514","spool_mib":8}]`)
	if !reflect.DeepEqual(fromFile, fromEnv) {
		t.Errorf("file %+v\nenvironment %+v", fromFile.Policy, fromEnv.Policy)
	}
	if want := []Rule{{Type: "join", Role: "client"}, {TypeRE: "r.*"}}; !slices.Equal(fromFile.Policy.In, want) {
		t.Errorf("rules %+v", fromFile.Policy.In)
	}
	if s := fromFile.Audit.Sinks[0]; s.SpoolBytes() != 8<<20 || (AuditSink{}).SpoolBytes() != 64<<20 || (AuditSink{}).TransportOrDefault() != "tls" {
		t.Errorf("sink %+v", s)
	}
	for _, entry := range []string{"RTCD_POLICY_ROLES=x", "RTCD_POLICY_INOK={", `RTCD_AUDIT_SINK=[{"spool_mib":1.5}]`} {
		if _, report := load(nil, file, []string{entry}); len(report.Faults) == 0 {
			t.Errorf("%s: no fault", entry)
		}
	}
	if _, report := load([]byte("audit.enable='on'\naudit.sink = [{type = 'syslog', adress = 'a:1'}]"), file, nil); !strings.Contains(report.String(), "audit.sink[0].adress is ignored; the nearest known name is address") {
		t.Errorf("unknown key: %s", report)
	}
}

func TestPrefixes(t *testing.T) {
	got, err := Prefixes([]string{"10.1.2.3/8", "192.0.2.1", "::ffff:192.0.2.0/120", "fd00::1"})
	if want := "[10.0.0.0/8 192.0.2.1/32 192.0.2.0/24 fd00::1/128]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"", "10.0.0.0/33", "::ffff:0:0/90", "fe80::1%eth0", "host", "10.0.0.0/8 "} {
		if got, err := Prefixes([]string{bad}); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestFingerprints(t *testing.T) {
	sum := strings.Repeat("aB", 32)
	prints, err := TLS{ClientFingerprints: []string{"a=b=" + sum, "a=b=" + strings.Repeat("00:", 31) + "11"}}.Fingerprints()
	if err != nil || len(prints["a=b"]) != 2 || prints["a=b"][0] != strings.ToLower(sum) {
		t.Errorf("%v, %v", prints, err)
	}
}

// TestAuditOn shows that the record is kept in production unless it is switched off (CR-12).
func TestAuditOn(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "mode = 'production'": true, "audit.enable = 'on'": true, "mode = 'production'\naudit.enable = 'off'": false,
	} {
		if got := mustLoad(t, text).AuditOn(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
