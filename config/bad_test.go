package config

import (
	"strings"
	"testing"
)

// A badCase is a configuration with exactly one fault.
type badCase struct {
	name string
	toml string
	env  []string
	want Fault // Rule: a part of it; Source is compared if not empty
}

const (
	file     = "bad.toml"
	portRule = "must be from 80 to 49151"
)

func tomlCase(name, toml, key, value, rule string) badCase {
	return badCase{name: name, toml: toml, want: Fault{Key: key, Value: value, Rule: rule, Source: file}}
}

func envCase(entry, key, value, rule string) badCase {
	name, _, _ := strings.Cut(entry, "=")
	return badCase{name: entry, env: []string{entry}, want: Fault{Key: key, Value: value, Rule: rule, Source: name}}
}

var badCases = []badCase{
	// Wrong TOML types.
	tomlCase("mode is a number", `mode = 1`, "mode", "1", "must be a string, not an integer"),
	tomlCase("table is a number", `api = 5`, "api", redacted, "must be a table, not an integer"),
	tomlCase("table is a list", "[[rtc]]\nice_port_udp = 8443", "rtc", redacted, "must be a table, not a list"),
	tomlCase("key is a table", `rtc.ice_port_udp.x = 1`, "rtc.ice_port_udp", "map[x:1]", "must be an integer, not a table"),
	tomlCase("string is an integer", `api.http.listen_address = 8045`, "api.http.listen_address", "8045", "must be a string, not an integer"),
	tomlCase("bool is a string", `api.http.tls.enable = "true"`, "api.http.tls.enable", "true", "must be true or false, not a string"),
	tomlCase("bool is an integer", `rtc.enable_ipv6 = 1`, "rtc.enable_ipv6", "1", "must be true or false, not an integer"),
	tomlCase("integer is a string", `rtc.ice_port_tcp = "8443"`, "rtc.ice_port_tcp", "8443", "must be an integer, not a string"),
	tomlCase("integer is a float", `rtc.udp_sockets_count = 1.5`, "rtc.udp_sockets_count", "1.5", "must be an integer, not a float"),
	tomlCase("string is a date", `store.data_source = 2026-01-01`, "store.data_source", "2026-01-01T00:00:00", "must be a string, not a date"),
	tomlCase("string is a list", `logger.file_location = ["a"]`, "logger.file_location", "[a]", "must be a string, not a list"),
	tomlCase("secret is an integer", `api.security.admin_secret_key = 12345`, "api.security.admin_secret_key", redacted, "must be a string, not an integer"),
	tomlCase("port override is a bool", `rtc.ice_host_port_override = true`, "rtc.ice_host_port_override", "true", "must be a string or an integer, not a boolean"),
	tomlCase("duration is an integer", `shutdown.drain_deadline = 3600`, "shutdown.drain_deadline", "3600", "must be a string, not an integer"),
	tomlCase("duration without unit", `shutdown.drain_deadline = "24"`, "shutdown.drain_deadline", "24", "must be a duration"),
	tomlCase("twice in two cases", "[rtc]\nice_port_udp = 1000\nICE_Port_UDP = 2000", "rtc.ice_port_udp", "ice_port_udp", "given twice"),

	// Rules of values, from the file.
	tomlCase("unknown mode", `mode = "prod"`, "mode", "prod", "must be one of drop-in, production"),
	tomlCase("empty listen address", `api.http.listen_address = ""`, "api.http.listen_address", "", "must not be empty"),
	tomlCase("listen address without port", `api.http.listen_address = "localhost"`, "api.http.listen_address", "localhost", "must be host:port"),
	tomlCase("listen address, empty port", `api.http.listen_address = "localhost:"`, "api.http.listen_address", "localhost:", "must be host:port"),
	tomlCase("listen address, port too large", `api.http.listen_address = ":65536"`, "api.http.listen_address", ":65536", "must be host:port"),
	tomlCase("listen address, bare IPv6", `api.http.listen_address = "::1:8045"`, "api.http.listen_address", "::1:8045", "must be host:port"),
	tomlCase("listen address is a URL", `api.http.listen_address = "http://a:80"`, "api.http.listen_address", "http://a:80", "must be host:port"),
	tomlCase("admin listener without port", `api.admin.listen_address = "127.0.0.1"`, "api.admin.listen_address", "127.0.0.1", "must be host:port"),
	tomlCase("admin listener on the API", `api.admin.listen_address = "127.0.0.1:8045"`, "api.admin.listen_address", "127.0.0.1:8045", "must not be the port of api.http.listen_address"),
	tomlCase("admin without key", `api.security.enable_admin = true`, "api.security.admin_secret_key", redacted, "must not be empty"),
	tomlCase("expiration 0", `api.security.session_cache.expiration_minutes = 0`, "api.security.session_cache.expiration_minutes", "0", "must be from 1"),
	tomlCase("expiration overflows", `api.security.session_cache.expiration_minutes = 9223372036854775807`, "api.security.session_cache.expiration_minutes", "9223372036854775807", "must be from 1"),
	tomlCase("bcrypt too cheap", `api.security.bcrypt_cost = 9`, "api.security.bcrypt_cost", "9", "must be from 10 to 14"),
	tomlCase("bcrypt too dear", `api.security.bcrypt_cost = 15`, "api.security.bcrypt_cost", "15", "must be from 10 to 14"),
	tomlCase("UDP address is a name", `rtc.ice_address_udp = "localhost"`, "rtc.ice_address_udp", "localhost", "must be a comma list of IP addresses"),
	tomlCase("UDP address list with a gap", `rtc.ice_address_udp = "127.0.0.1,,10.0.0.1"`, "rtc.ice_address_udp", "127.0.0.1,,10.0.0.1", "must be a comma list of IP addresses"),
	tomlCase("UDP address with port", `rtc.ice_address_udp = "127.0.0.1:8443"`, "rtc.ice_address_udp", "127.0.0.1:8443", "must be a comma list of IP addresses"),
	tomlCase("TCP address with zone", `rtc.ice_address_tcp = "fe80::1%eth0"`, "rtc.ice_address_tcp", "fe80::1%eth0", "must be a comma list of IP addresses"),
	tomlCase("UDP port too small", `rtc.ice_port_udp = 79`, "rtc.ice_port_udp", "79", portRule),
	tomlCase("UDP port too large", `rtc.ice_port_udp = 49152`, "rtc.ice_port_udp", "49152", portRule),
	tomlCase("TCP port 0", `rtc.ice_port_tcp = 0`, "rtc.ice_port_tcp", "0", portRule),
	tomlCase("TCP port of the API", `rtc.ice_port_tcp = 8045`, "rtc.ice_port_tcp", "8045", "must not be the port of api.http.listen_address"),
	tomlCase("TCP port of the admin listener", `rtc.ice_port_tcp = 8046`, "rtc.ice_port_tcp", "8046", "must not be the port of api.admin.listen_address"),
	tomlCase("no sockets", `rtc.udp_sockets_count = 0`, "rtc.udp_sockets_count", "0", "must be greater than 0"),
	tomlCase("NACK buffer no power of two", `rtc.nack_buffer_size = 100`, "rtc.nack_buffer_size", "100", "power of two"),
	tomlCase("NACK buffer too small", `rtc.nack_buffer_size = 16`, "rtc.nack_buffer_size", "16", "power of two"),
	tomlCase("NACK buffer too large", `rtc.nack_buffer_size = 16384`, "rtc.nack_buffer_size", "16384", "power of two"),
	tomlCase("screen shares negative", `rtc.screen_shares = -1`, "rtc.screen_shares", "-1", "must be from 0 to 64"),
	tomlCase("screen shares too many", `rtc.screen_shares = 65`, "rtc.screen_shares", "65", "must be from 0 to 64"),
	tomlCase("cameras negative", `rtc.last_cameras = -1`, "rtc.last_cameras", "-1", "must be from 0 to 1000"),
	tomlCase("voices too many", `rtc.loudest_voices = 1001`, "rtc.loudest_voices", "1001", "must be from 0 to 1000"),
	tomlCase("codecs no list", `rtc.video_codecs = "VP8"`, "rtc.video_codecs", "VP8", "must be a list, not a string"),
	tomlCase("codec a number", `rtc.video_codecs = ["VP8", 8]`, "rtc.video_codecs[1]", "8", "must be a string, not an integer"),
	tomlCase("codec unknown", `rtc.video_codecs = ["VP8", "H265"]`, "rtc.video_codecs", "VP8,H265", `must hold only VP8, AV1, VP9, H264, not "H265"`),
	tomlCase("codec twice", `rtc.video_codecs = ["VP8", "VP9", "VP9"]`, "rtc.video_codecs", "VP8,VP9,VP9", "must name VP9 once"),
	tomlCase("codecs without VP8", `rtc.video_codecs = ["AV1", "H264"]`, "rtc.video_codecs", "AV1,H264", "must have VP8"),
	tomlCase("NACK buffer negative", `rtc.nack_buffer_size = -32`, "rtc.nack_buffer_size", "-32", "power of two"),
	tomlCase("host override with port", `rtc.ice_host_override = "1.2.3.4:8443"`, "rtc.ice_host_override", "1.2.3.4:8443", "must be an IP address, a host name"),
	tomlCase("host override mistyped", `rtc.ice_host_override = "1.2.3.456"`, "rtc.ice_host_override", "1.2.3.456", "must be an IP address, a host name"),
	tomlCase("host override unspecified", `rtc.ice_host_override = "0.0.0.0"`, "rtc.ice_host_override", "0.0.0.0", "must not be the unspecified address"),
	tomlCase("host override list", `rtc.ice_host_override = "1.2.3.4,5.6.7.8"`, "rtc.ice_host_override", "1.2.3.4,5.6.7.8", "must be an IP address, a host name"),
	tomlCase("host pairs with a name", `rtc.ice_host_override = "a.example/10.0.0.1"`, "rtc.ice_host_override", "a.example/10.0.0.1", "must be external/internal IP addresses"),
	tomlCase("host pairs of two families", `rtc.ice_host_override = "1.2.3.4/fd00::1"`, "rtc.ice_host_override", "1.2.3.4/fd00::1", "one family"),
	tomlCase("host pairs, internal twice", `rtc.ice_host_override = "1.1.1.1/10.0.0.1,1.1.1.2/10.0.0.1"`, "rtc.ice_host_override", "1.1.1.1/10.0.0.1,1.1.1.2/10.0.0.1", "internal address twice"),
	tomlCase("host pairs, one single", `rtc.ice_host_override = "1.1.1.1/10.0.0.1,1.1.1.2"`, "rtc.ice_host_override", "1.1.1.1/10.0.0.1,1.1.1.2", "must be external/internal IP addresses"),
	tomlCase("port override 0", `rtc.ice_host_port_override = 0`, "rtc.ice_host_port_override", "0", portRule),
	tomlCase("port override too large", `rtc.ice_host_port_override = "50000"`, "rtc.ice_host_port_override", "50000", portRule),
	tomlCase("port override a word", `rtc.ice_host_port_override = "https"`, "rtc.ice_host_port_override", "https", portRule),
	tomlCase("port list out of range (C3)", `rtc.ice_host_port_override = "10.0.0.1/70000"`, "rtc.ice_host_port_override", "10.0.0.1/70000", portRule),
	tomlCase("port list below range (C3)", `rtc.ice_host_port_override = "10.0.0.1/8443,10.0.0.2/79"`, "rtc.ice_host_port_override", "10.0.0.1/8443,10.0.0.2/79", portRule),
	tomlCase("port list, address twice", `rtc.ice_host_port_override = "10.0.0.1/8443,10.0.0.1/8444"`, "rtc.ice_host_port_override", "10.0.0.1/8443,10.0.0.1/8444", "address twice"),
	tomlCase("port list, port twice", `rtc.ice_host_port_override = "10.0.0.1/8443,10.0.0.2/8443"`, "rtc.ice_host_port_override", "10.0.0.1/8443,10.0.0.2/8443", "port twice"),
	tomlCase("port list, no address", `rtc.ice_host_port_override = "a/8443"`, "rtc.ice_host_port_override", "a/8443", "must be localIP/port pairs"),
	tomlCase("unknown ICE mode", `rtc.ice_lite = "yes"`, "rtc.ice_lite", "yes", "must be one of auto, on, off"),
	tomlCase("TURN expiration 0", "[rtc.turn]\nstatic_auth_secret = \"s\"\ncredentials_expiration_minutes = 0", "rtc.turn.credentials_expiration_minutes", "0", "must be from 1 to 10079"),
	tomlCase("TURN expiration a week", "[rtc.turn]\nstatic_auth_secret = \"s\"\ncredentials_expiration_minutes = 10080", "rtc.turn.credentials_expiration_minutes", "10080", "must be from 1 to 10079"),
	tomlCase("empty store", `store.data_source = ""`, "store.data_source", "", "must not be empty"),
	tomlCase("store with zero byte", `store.data_source = "a\u0000b"`, "store.data_source", "a\x00b", "zero byte"),
	tomlCase("no free space kept", `store.min_free_mib = 0`, "store.min_free_mib", "0", "must be from 1"),
	tomlCase("no clients", `store.max_clients = 0`, "store.max_clients", "0", "must be from 1"),
	tomlCase("unknown console level", `logger.console_level = "verbose"`, "logger.console_level", "verbose", "must be one of panic, fatal"),
	tomlCase("unknown file level", `logger.file_level = ""`, "logger.file_level", "", "must be one of panic, fatal"),
	tomlCase("no file location", `logger.file_location = ""`, "logger.file_location", "", "must not be empty with logger.enable_file on"),
	tomlCase("no log at all", "[logger]\nenable_console = false\nenable_file = false", "logger.enable_console", "false", "must be on if logger.enable_file is off"),
	tomlCase("negative drain", `shutdown.drain_deadline = "-1s"`, "shutdown.drain_deadline", "-1s", "must not be negative"),
	tomlCase("negative sessions", `rtc.limits.sessions_per_call = -1`, "rtc.limits.sessions_per_call", "-1", "must be from 0"),
	tomlCase("no candidates", `rtc.limits.remote_candidates = 0`, "rtc.limits.remote_candidates", "0", "must be from 1 to 1024"),
	tomlCase("two sections", `rtc.limits.media_sections = 2`, "rtc.limits.media_sections", "2", "must be from 3"),
	tomlCase("tiny messages", `api.limits.ws_message_bytes = 100`, "api.limits.ws_message_bytes", "100", "must be from 4096"),
	tomlCase("no connections", `api.limits.connections = 0`, "api.limits.connections", "0", "must be from 1"),

	// TLS files; @ stands for their folder.
	tomlCase("TLS without key", "[api.http.tls]\nenable = true\ncert_file = \"@/cert.pem\"", "api.http.tls.cert_key", "", "must not be empty"),
	tomlCase("TLS without certificate", "[api.http.tls]\nenable = true\ncert_key = \"@/key.pem\"", "api.http.tls.cert_file", "", "must not be empty"),
	tomlCase("no such certificate", "[api.http.tls]\nenable = true\ncert_file = \"@/none.pem\"\ncert_key = \"@/key.pem\"", "api.http.tls.cert_file", "@/none.pem", "must be a readable file"),
	tomlCase("certificate is a folder", "[api.http.tls]\nenable = true\ncert_file = \"@\"\ncert_key = \"@/key.pem\"", "api.http.tls.cert_file", "@", "not a regular file"),
	tomlCase("certificate is a key", "[api.http.tls]\nenable = true\ncert_file = \"@/key.pem\"\ncert_key = \"@/key.pem\"", "api.http.tls.cert_file", "@/key.pem", "must be a certificate"),
	tomlCase("key of another certificate", "[api.http.tls]\nenable = true\ncert_file = \"@/cert.pem\"\ncert_key = \"@/other-key.pem\"", "api.http.tls.cert_key", "@/other-key.pem", "must load together with"),

	// ICE servers, from the file.
	tomlCase("servers no list", `rtc.ice_servers = "stun:a"`, "rtc.ice_servers", redacted, "must be a list, not a string"),
	tomlCase("server a number", `rtc.ice_servers = [1]`, "rtc.ice_servers[0]", redacted, "must be a URL or a table"),
	tomlCase("server without urls", `rtc.ice_servers = [{username = "u"}]`, "rtc.ice_servers[0].urls", "", "must not be empty"),
	tomlCase("urls no list", `rtc.ice_servers = [{urls = "stun:a"}]`, "rtc.ice_servers[0].urls", redacted, "must be a list of strings"),
	tomlCase("url a number", `rtc.ice_servers = ["stun:a", {urls = [1]}]`, "rtc.ice_servers[1].urls[0]", redacted, "must be a string"),
	tomlCase("credential a number", "[[rtc.ice_servers]]\nurls = [\"turn:a\"]\nusername = \"u\"\ncredential = 7", "rtc.ice_servers[0].credential", redacted, "must be a string"),
	tomlCase("mixed entry", `rtc.ice_servers = [{urls = ["stun:a", "turn:a"]}]`, "rtc.ice_servers[0].urls[1]", "turn:a", "all STUN or all TURN"),
	tomlCase("empty url", `rtc.ice_servers = [""]`, "rtc.ice_servers[0].urls[0]", "", "must start with stun:"),
	tomlCase("http url", `rtc.ice_servers = ["https://a"]`, "rtc.ice_servers[0].urls[0]", "https://a", "must start with stun:"),
	tomlCase("url with slashes", `rtc.ice_servers = ["stun://a:3478"]`, "rtc.ice_servers[0].urls[0]", "stun://a:3478", "host name"),
	tomlCase("url without host", `rtc.ice_servers = ["stun:"]`, "rtc.ice_servers[0].urls[0]", "stun:", "host name"),
	tomlCase("url with port 0", `rtc.ice_servers = ["stun:a:0"]`, "rtc.ice_servers[0].urls[0]", "stun:a:0", "port from 1 to 65535"),
	tomlCase("STUN url with transport", `rtc.ice_servers = ["stun:a?transport=udp"]`, "rtc.ice_servers[0].urls[0]", "stun:a?transport=udp", "no query"),
	tomlCase("TURN url with odd transport", `rtc.ice_servers = [{urls=["turn:a?transport=quic"],username="u",credential="p"}]`, "rtc.ice_servers[0].urls[0]", "turn:a?transport=quic", "no query"),
	tomlCase("url with password", `rtc.ice_servers = [{urls=["turn:u:hush@a"],username="u",credential="p"}]`, "rtc.ice_servers[0].urls[0]", redacted+"@a", "port from 1"),
	tomlCase("url with bad IPv6", `rtc.ice_servers = ["stun:[1.2.3.4]:3478"]`, "rtc.ice_servers[0].urls[0]", "stun:[1.2.3.4]:3478", "IPv6 address in the brackets"),

	// The environment.
	envCase("RTCD_MODE=", "mode", "", "must be one of drop-in, production"),
	envCase("RTCD_API_HTTP_LISTENADDRESS=", "api.http.listen_address", "", "must not be empty"),
	envCase("RTCD_API_HTTP_TLS_ENABLE=", "api.http.tls.enable", "", "must be one of 1 t T"),
	envCase("RTCD_API_HTTP_TLS_ENABLE=yes", "api.http.tls.enable", "yes", "must be one of 1 t T"),
	envCase("RTCD_RTC_ENABLEIPV6=tRUE", "rtc.enable_ipv6", "tRUE", "must be one of 1 t T"),
	envCase("RTCD_RTC_ENABLEIPV6= true", "rtc.enable_ipv6", " true", "must be one of 1 t T"),
	envCase("RTCD_RTC_ICEPORTUDP=", "rtc.ice_port_udp", "", "must be a whole number"),
	envCase("RTCD_RTC_ICEPORTUDP=8443 ", "rtc.ice_port_udp", "8443 ", "must be a whole number"),
	envCase("RTCD_RTC_ICEPORTUDP=0x1g", "rtc.ice_port_udp", "0x1g", "must be a whole number"),
	envCase("RTCD_RTC_ICEPORTUDP=099", "rtc.ice_port_udp", "099", "must be a whole number"),
	envCase("RTCD_RTC_ICEPORTTCP=99999999999999999999", "rtc.ice_port_tcp", "99999999999999999999", "must be a whole number"),
	envCase("RTCD_RTC_NACKBUFFERSIZE=65536", "rtc.nack_buffer_size", "65536", "power of two"),
	envCase("RTCD_RTC_SCREENSHARES=", "rtc.screen_shares", "", "must be a whole number"),
	envCase("RTCD_RTC_VIDEOCODECS=", "rtc.video_codecs", "", "must have VP8"),
	envCase("RTCD_RTC_VIDEOCODECS=VP8,", "rtc.video_codecs", "VP8,", `not ""`),
	envCase("RTCD_RTC_VIDEOCODECS=VP8,\xff", "rtc.video_codecs", "VP8,\xff", "must hold only"),
	envCase("RTCD_RTC_ICEHOSTPORTOVERRIDE=0", "rtc.ice_host_port_override", "0", portRule),
	envCase("RTCD_RTC_ICESERVERS=stun:a", "rtc.ice_servers", redacted, "must be a JSON list"),
	envCase(`RTCD_RTC_ICESERVERS=["stun:a"] x`, "rtc.ice_servers", redacted, "must be a JSON list"),
	envCase(`RTCD_RTC_ICESERVERS=["stun:a","turn:b"]`, "rtc.ice_servers[0].urls[1]", "turn:b", "all STUN or all TURN"),
	envCase(`RTCD_RTC_ICESERVERS=[{"urls":["turn:a"]},"stun:b"]`, "rtc.ice_servers[1]", redacted, "a list is of URLs or of objects"),
	envCase(`RTCD_RTC_ICESERVERS=[{"urls":["turn:a"],"username":5}]`, "rtc.ice_servers[0].username", redacted, "must be a string"),
	envCase("RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES=x", "rtc.turn.credentials_expiration_minutes", "x", "must be a whole number"),
	envCase("RTCD_STORE_DATASOURCE=", "store.data_source", "", "must not be empty"),
	envCase("RTCD_STORE_DATASOURCE=\xff", "store.data_source", "\xff", "must be UTF-8 text"),
	envCase("RTCD_LOGGER_CONSOLELEVEL=", "logger.console_level", "", "must be one of panic"),
	envCase("RTCD_SHUTDOWN_DRAINDEADLINE=", "shutdown.drain_deadline", "", "must be a duration"),

	// What only production mode refuses.
	tomlCase("short admin key", "mode = \"production\"\n[api.security]\nenable_admin = true\nadmin_secret_key = \"0123456789abcdefghijklmnopqrstu\"", "api.security.admin_secret_key", redacted, "shorter than 32 bytes"),
	tomlCase("sample admin key", "mode = \"production\"\n[api.security]\nenable_admin = true\nadmin_secret_key = \"changemechangemechangemechangeme\"", "api.security.admin_secret_key", redacted, "well-known sample"),
	tomlCase("monotonous admin key", "mode = \"production\"\n[api.security]\nenable_admin = true\nadmin_secret_key = \"01010101010101010101010101010101\"", "api.security.admin_secret_key", redacted, "different characters"),
	tomlCase("store in /tmp", "mode = \"production\"\nstore.data_source = \"/tmp/rtcd_db\"", "store.data_source", "/tmp/rtcd_db", "every user may write to (\"/tmp\")"),
	tomlCase("open registration", "mode = \"production\"\napi.security.allow_self_registration = true", "api.security.allow_self_registration", "true", "register, with keys sent in clear"),
	tomlCase("open admin listener", "mode = \"production\"\napi.admin.listen_address = \":8046\"", "api.admin.listen_address", ":8046", "without authentication"),
}

func TestBadConfigs(t *testing.T) {
	if len(badCases) < 60 {
		t.Fatalf("%d cases, want at least 60", len(badCases))
	}
	dir := t.TempDir()
	writeCertificate(t, dir, "cert.pem", "key.pem")
	writeCertificate(t, dir, "other-cert.pem", "other-key.pem")
	for _, c := range badCases {
		t.Run(c.name, func(t *testing.T) {
			toml := strings.ReplaceAll(c.toml, `"@`, `"`+dir)
			if rest, ok := strings.CutPrefix(c.want.Value, "@"); ok {
				c.want.Value = dir + rest
			}
			_, report := load([]byte(toml), file, c.env)
			if len(report.Faults) != 1 {
				t.Fatalf("want one fault, got:\n%s", report)
			}
			got := report.Faults[0]
			if got.Key != c.want.Key || got.Value != c.want.Value || !strings.Contains(got.Rule, c.want.Rule) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			// A missing key is a fault of the default: its source says so.
			if got.Source != c.want.Source && got.Source != "default" {
				t.Errorf("source %q, want %q", got.Source, c.want.Source)
			}
			if msg := report.Err.Error(); !strings.Contains(msg, c.want.Key) || strings.Contains(msg, "\n") {
				t.Errorf("error is not one line with the key: %q", msg)
			}
		})
	}
}

// Faults of the file, the environment and of rules come together, in the order of the keys.
func TestAllFaultsAtOnce(t *testing.T) {
	_, report := load([]byte(`
[rtc]
ice_port_udp = 1
ice_port_tcp = "x"
[logger]
file_level = "loud"
[api.security]
enable_admin = true
`), file, []string{"RTCD_API_HTTP_TLS_ENABLE=maybe", "RTCD_STORE_DATASOURCE=", "RTCD_RTC_ICEPORTTCP=9000"})
	want := []string{
		"api.http.tls.enable", "api.security.admin_secret_key", "rtc.ice_port_udp", "rtc.ice_port_tcp",
		"store.data_source", "logger.file_level",
	}
	var got []string
	for _, f := range report.Faults {
		got = append(got, f.Key)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("got faults of %v\nwant %v", got, want)
	}
	text := report.Err.Error()
	if !strings.HasPrefix(text, "configuration: 6 faults\n") || strings.Count(text, "\n") != 6 {
		t.Errorf("error is not a heading and a line for each:\n%s", text)
	}
	for _, line := range []string{
		`api.http.tls.enable = "maybe" (RTCD_API_HTTP_TLS_ENABLE): must be one of 1 t T TRUE true True 0 f F FALSE false False`,
		`rtc.ice_port_udp = "1" (bad.toml): must be from 80 to 49151`,
	} {
		if !strings.Contains(text, "\n  "+line) {
			t.Errorf("lacks line %q:\n%s", line, text)
		}
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	const canary = "canary-hush"
	for _, c := range []badCase{
		{name: "wrong type", toml: `api.security.admin_secret_key = ["` + canary + `"]`},
		{name: "weak", toml: "mode = \"production\"\napi.security.enable_admin = true\napi.security.admin_secret_key = \"" + canary + `"`},
		{name: "warned of", toml: "api.security.enable_admin = true\napi.security.admin_secret_key = \"" + canary + `"`},
		{name: "syntax", toml: `api.security.admin_secret_key = ` + canary},
		{name: "syntax after key", toml: `api.security.admin_secret_key = "x" ` + canary},
		{name: "syntax, next line", toml: "api.security.admin_secret_key = \"\"\"x\n\"\"\" \"" + canary},
		{name: "servers", toml: `rtc.ice_servers = [{urls = ["x:a"], username = "` + canary + `", credential = "` + canary + `"}]`},
		{name: "servers no list", toml: `rtc.ice_servers = "` + canary + `"`},
		{name: "JSON", env: []string{`RTCD_RTC_ICESERVERS=[{"urls":["turn:a"],"credential":"` + canary + `"`}},
		{name: "not UTF-8", env: []string{"RTCD_RTC_TURNCONFIG_STATICAUTHSECRET=" + canary + "\xff"}},
		{name: "half", toml: `rtc.ice_servers = [{urls = ["turn:a"], credential = "` + canary + `"}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, report := load([]byte(c.toml), file, c.env)
			if report.OK() {
				t.Fatal("nothing found")
			}
			if text := report.String(); strings.Contains(text, "canary") {
				t.Errorf("shows a secret: %s", text)
			}
		})
	}
}
