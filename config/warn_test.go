package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestUnknownNames(t *testing.T) {
	for _, c := range []struct{ toml, env, what, nearest string }{
		{toml: "[rtc]\nice_port_upd = 1", what: "unknown key rtc.ice_port_upd in bad.toml", nearest: "rtc.ice_port_udp"},
		{toml: "[rtc]\nlisten_address = 'x'", what: "rtc.listen_address", nearest: "api.http.listen_address"},
		{toml: "[loger]\nfile_level = 'x'", what: "unknown key loger", nearest: "logger"},
		{toml: "[api.http.tsl]\nenable = true", what: "api.http.tsl", nearest: "api.http.tls"},
		{toml: "data_source = 'x'", what: "data_source", nearest: "store.data_source"},
		{toml: "[store]\n\"da\\nta\" = 'x'", what: `store."da\nta"`, nearest: "store.data_source"},
		{toml: "rtc.ice_servers = [{urls = ['stun:a'], usrname = 'x'}]", what: "rtc.ice_servers[0].usrname", nearest: "username"},
		{env: "RTCD_RTC_ICE_PORT_UDP=1", what: "unknown environment variable RTCD_RTC_ICE_PORT_UDP", nearest: "RTCD_RTC_ICEPORTUDP"},
		{env: "RTCD_STORE_DATASOURC=", what: "RTCD_STORE_DATASOURC", nearest: "RTCD_STORE_DATASOURCE"},
		{env: "RTCD_LOGGER_\x1b[2J=x", what: `"RTCD_LOGGER_\x1b[2J"`, nearest: "RTCD_LOGGER_"},
		{env: `RTCD_RTC_ICESERVERS=[{"urls":["stun:a"],"credentials":"x"}]`, what: "rtc.ice_servers[0].credentials", nearest: "credential"},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, report := load([]byte(c.toml), file, []string{c.env})
			if report.Err != nil || report.OK() || len(report.Warnings) != 1 {
				t.Fatalf("want one warning, got:\n%s", report)
			}
			before, nearest, _ := strings.Cut(report.Warnings[0], " is ignored; the nearest known name is ")
			if !strings.Contains(before, c.what) || !strings.HasPrefix(nearest, c.nearest) {
				t.Errorf("got %q, want %q and %q", report.Warnings[0], c.what, c.nearest)
			}
			if !strings.HasPrefix(report.String(), "warning: ") || strings.Count(report.String(), "\n") != 1 {
				t.Errorf("report is not one line: %q", report)
			}
		})
	}
}

func TestVariablesThatAreNotConfiguration(t *testing.T) {
	_, report := load(nil, file, []string{
		"PERF_PROFILES=true", "RTCD", "HOME=/",
		"RTCD_SERVICE_HOST=10.0.0.1", "RTCD_SERVICE_PORT=8045", "RTCD_SERVICE_PORT_HTTP=8045", "RTCD_PORT=tcp://10.0.0.1:8045",
		"RTCD_PORT_8045_TCP=tcp://10.0.0.1:8045", "RTCD_PORT_8045_TCP_ADDR=10.0.0.1", "RTCD_MEDIA_PORT_8443_UDP_PROTO=udp",
		"RTCD_MEDIA_SERVICE_HOST=10.0.0.1", "RTCD_MEDIA_PORT=udp://10.0.0.1:8443",
	})
	if !report.OK() {
		t.Errorf("warned of what nobody wrote:\n%s", report)
	}
	_, report = load(nil, file, []string{envSkipHello + "=true"})
	if len(report.Warnings) != 1 || !strings.HasPrefix(report.Warnings[0], envSkipHello+" is ignored") {
		t.Errorf("got %q", report.Warnings)
	}
}

func TestManyUnknownNamesAreBounded(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "x%d=1\n", i)
	}
	_, report := load([]byte(text.String()), file, nil)
	if n := len(report.Warnings); n != maxWarnings+1 || report.Warnings[n-1] != "4900 more unknown names" {
		t.Errorf("%d warnings, the last %q", n, report.Warnings[n-1])
	}
}

// What production mode refuses, drop-in mode warns of.
func TestWeakSettingsAreWarnings(t *testing.T) {
	for _, c := range badCases {
		weak, ok := strings.CutPrefix(c.toml, "mode = \"production\"\n")
		if !ok {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			_, report := load([]byte(weak), file, nil)
			if report.Err != nil || len(report.Warnings) != 1 {
				t.Fatalf("want one warning, got:\n%s", report)
			}
			if w := report.Warnings[0]; !strings.HasPrefix(w, c.want.Key+" = ") || !strings.Contains(w, c.want.Rule) {
				t.Errorf("got %q", w)
			}
		})
	}
}

func TestStrongSettingsPassInProduction(t *testing.T) {
	dir := t.TempDir()
	issueGood(t, dir)
	for name, text := range map[string]string{
		"defaults":           "",
		"strong key":         "api.security.enable_admin = true\napi.security.admin_secret_key = '3q2+7wAAEjRWeJq83vAREiM0RVZneImaq7zN3u8='",
		"loopback register":  "api.security.allow_self_registration = true\napi.http.listen_address = 'localhost:8045'",
		"register with TLS":  "[api]\nsecurity.allow_self_registration = true\nsecurity.registration_cidrs = ['10.0.0.0/8']\nhttp.tls = {enable = true, cert_file = '" + dir + "/c.pem', cert_key = '" + dir + "/k.pem'}",
		"admin on IPv6":      "api.admin.listen_address = '[::1]:8046'",
		"no admin":           "api.admin.listen_address = ''",
		"store in a private": "store.data_source = '" + dir + "/db'",
	} {
		if _, report := load([]byte("mode = 'production'\n"+text), file, nil); !report.OK() {
			t.Errorf("%s: %s", name, report)
		}
	}
}

func TestOpenFolder(t *testing.T) {
	dir := t.TempDir()
	folder := func(path string, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sticky := folder("sticky", 0o777|os.ModeSticky)
	loose := folder("loose", 0o777)
	folder("sticky/own", 0o700)
	folder("loose/own", 0o700)
	folder("loose/own/store", 0o700)
	folder("private", 0o700)
	for path, want := range map[string]string{
		"sticky":         sticky,
		"sticky/new":     sticky,
		"sticky/new/new": sticky,
		"sticky/own/new": "", // others cannot replace own
		"loose/own/new":  loose,
		"loose/own":      loose,
		"private/a/b":    "",
	} {
		if got := openFolder(filepath.Join(dir, path)); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestDoubts(t *testing.T) {
	for text, want := range map[string]string{
		"rtc.ice_address_udp = 'fd00::1'":   "rtc.ice_address_udp names an IPv6 address",
		"rtc.ice_host_port_override = 8500": "rtc.ice_host_port_override has no effect",
		"rtc.ice_lite = 'on'\nrtc.ice_servers = [{urls=['turn:a'],username='u',credential='p'}]":                 "rtc.ice_lite is on",
		"rtc.ice_servers = ['turn:a']\n[rtc.turn]\nstatic_auth_secret = ''":                                      "rtc.ice_servers[0] has no credentials",
		"mode = 'production'\nrtc.ice_address_tcp = '10.0.0.1,fd00::1'":                                          "rtc.ice_address_tcp names an IPv6 address",
		"rtc.ice_host_override = '1.2.3.4'\nrtc.ice_host_port_override = 8500":                                   "",
		"rtc.ice_host_port_override = 8500\nrtc.ice_servers = ['stun:a']":                                        "",
		"rtc.ice_servers = ['turn:a']\nrtc.turn.static_auth_secret = '3q2+7wAAEjRWeJq83vAREiM0RVZneImaq7zN3u8='": "",
		"rtc.enable_ipv6 = true\nrtc.ice_address_udp = 'fd00::1'":                                                "",
		"api.http.listen_address = '127.0.0.1:8045'\nrtc.ice_address_tcp = '10.0.0.1'\nrtc.ice_port_tcp = 8045":  "",
	} {
		c := mustLoad(t, text)
		got := c.Warnings()
		if want == "" && len(got) == 0 || want != "" && slices.ContainsFunc(got, func(w string) bool { return strings.HasPrefix(w, want) }) {
			continue
		}
		t.Errorf("%q: got %q, want %q", text, got, want)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"udp", "upd", 2}, {"same", "same", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
