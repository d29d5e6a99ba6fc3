package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckShowsNoSecret shows TK-01: whatever is wrong with a configuration, "rtcd config check" and commands that
// fail over it say so without the value of any secret in it, be it from the file, the environment or a file of its own.
func TestCheckShowsNoSecret(t *testing.T) {
	const canary = "CanarySecret0815"
	const long = "a-long-secret-" + canary + "-of-more-than-32-bytes"
	keys := []string{
		"api.security.admin_secret_key", "api.security.auditor_secret_key", "api.security.registration_token",
		"rtc.turn.static_auth_secret",
	}
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(canary+"\nand "+canary), 0o666); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, full := range keys {
		at := strings.LastIndex(full, ".")
		table, name := full[:at], full[at+1:]
		for _, value := range []string{
			`"` + long + `"`, `"` + canary + `"`, `"` + canary, canary, `["` + canary + `"]`, `{a="` + canary + `"}`, `"""` + canary, `'` + canary,
			`"\q` + canary + `"`, "\"" + canary + "\x01\"", `"` + canary + `" "` + canary + `"`, `"` + canary + "\"\n" + name + ` = "` + canary + `"`,
			`"` + long + "\"\n" + name + `_file = "` + secretFile + `"`,
		} {
			files = append(files, fmt.Sprintf("[%s]\n%s = %s\n", table, name, value))
		}
		files = append(files, fmt.Sprintf("[%s]\n%s_file = %q\n", table, name, secretFile))
	}
	same := "[api.security]\nenable_admin = true\n" + `admin_secret_key = "` + long + `"` + "\n" + `auditor_secret_key = "` + long + `"` + "\n"
	files = append(files, same, "mode = \"production\"\n"+same)
	for _, server := range []string{
		`urls = ["turn:127.0.0.1:1"], username = "` + canary + `", credential = "` + canary + `"`,
		`urls = ["stun:127.0.0.1:1"], username = "` + canary + `", credential = "` + canary + `"`,
		`urls = ["turn:127.0.0.1:1"], username = ["` + canary + `"], credential = 1`,
		`urls = ["turn:127.0.0.1:1"], credential = "` + canary + `", credential_file = "` + secretFile + `"`,
		`urls = ["turn:127.0.0.1:1"], credential = "` + canary,
	} {
		files = append(files, "[rtc]\nice_servers = [{"+server+"}]\n")
	}
	environs := [][]string{
		nil, {"RTCD_MODE=production"},
		{"RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY=" + canary, "RTCD_API_SECURITY_AUDITORSECRETKEY=" + canary},
		{"RTCD_MODE=production", "RTCD_API_SECURITY_ENABLEADMIN=true", "RTCD_API_SECURITY_ADMINSECRETKEY=" + canary + "\x7f", "RTCD_API_SECURITY_REGISTRATIONTOKEN=" + canary},
		{"RTCD_RTC_TURNCONFIG_STATICAUTHSECRET=" + canary, "RTCD_RTC_TURNCONFIG_STATICAUTHSECRETFILE=" + secretFile},
		{`RTCD_RTC_ICESERVERS=[{"urls":["turn:127.0.0.1:1"],"username":"u","credential":"` + canary + `"}]`},
		{`RTCD_RTC_ICESERVERS=[{"urls":["turn:127.0.0.1:1"],"credential":["` + canary + `"]}]`},
		{`RTCD_RTC_ICESERVERS=[{"urls":["turn:127.0.0.1:1"],"credential":"` + canary + `"`},
		{`RTCD_RTC_ICESERVERS=` + canary},
		{`RTCD_RTC_ICESERVERS=turn:user:` + canary + `@127.0.0.1`},
	}
	checks := 0
	check := func(what string, environ []string, file string) {
		t.Helper()
		c := newCmd(t, environ...)
		if err := os.WriteFile(filepath.Join(c.dir, "none.toml"), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"config", "check"}, {"config", "check", "-ports"}, {"client", "list"}} {
			status, stdout, stderr := c.run("", args...)
			checks++
			if text := stdout + stderr; text == "" && args[0] == "config" || strings.Contains(text, canary) || strings.Contains(text, canary[6:]) {
				t.Errorf("%s: status %d, %d bytes that hold the secret, or none:\n%s", what, status, len(text), strings.ReplaceAll(text, canary, "CANARY"))
			}
		}
	}
	for _, f := range files {
		check(strings.ReplaceAll(f, canary, "CANARY"), nil, f)
	}
	for i, e := range environs {
		check(fmt.Sprint("environment ", i), e, "")
	}
	t.Logf("%d checks", checks)
}
