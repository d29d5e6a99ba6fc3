package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeCertificate makes a self-signed pair in dir.
func writeCertificate(t testing.TB, dir, certName, keyName string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		certName: {Type: "CERTIFICATE", Bytes: cert},
		keyName:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mustLoad(t *testing.T, toml string, environ ...string) Config {
	t.Helper()
	c, report := load([]byte(toml), "test.toml", environ)
	if report.Err != nil {
		t.Fatal(report.Err)
	}
	return c
}

func TestMissingFileIsANote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.toml")
	c, report, err := Load(path, []string{"RTCD_RTC_ICEPORTUDP=9000"})
	if err != nil || !report.FileMissing || !report.OK() {
		t.Fatalf("err %v, report:\n%s", err, report)
	}
	if c.RTC.ICEPortUDP != 9000 {
		t.Errorf("port %d: the environment did not apply", c.RTC.ICEPortUDP)
	}
	if text := report.String(); !strings.Contains(text, path) || !strings.HasPrefix(text, "note: ") {
		t.Errorf("report does not name the missing file: %q", text)
	}
}

func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, path, want string }{
		{"folder", dir, "read configuration: "},
		{"not TOML", write("a.toml", "[rtc]\nice_port_udp = = 1\n"), "line 2: "},
		{"key twice", write("b.toml", "mode='a'\nmode='b'\n"), "line 2: "},
		{"too large", write("c.toml", strings.Repeat("# x\n", maxFileBytes/4+1)), "larger than"},
		{"deeply nested", write("d.toml", "x = "+strings.Repeat("[", maxFileBytes-10)), "line 1: "},
		{"UTF-16", write("e.toml", "\xff\xfem\x00o\x00d\x00e\x00"), "line 1: "},
		{"control characters", write("f.toml", "mode = 'a\x1b[2Jb'\n"), "line 1: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, report, err := Load(c.path, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || report.Err != err || report.OK() {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error is not one printable line: %q", err)
			}
			if text := report.String(); !strings.Contains(text, c.want) {
				t.Errorf("report lacks the error: %q", text)
			}
		})
	}
}

func TestLaterSourceWins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	text := "[rtc]\nice_port_udp = 1000\nice_port_tcp = 2000\n[logger]\nfile_location = 'from-file'\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, report, err := Load(path, []string{
		"RTCD_RTC_ICEPORTTCP=1", "RTCD_RTC_ICEPORTTCP=0xbb8", "RTCD_LOGGER_FILELOCATION=from-env=x",
		"PATH=/bin", "rtcd_rtc_iceportudp=5", "RTCD_API_HTTP_TLS_ENABLE=F",
	})
	if err != nil || !report.OK() {
		t.Fatalf("%v\n%s", err, report)
	}
	if c.RTC.ICEPortUDP != 1000 || c.RTC.ICEPortTCP != 3000 || c.Logger.FileLocation != "from-env=x" || c.Logger.FileLevel != "DEBUG" {
		t.Errorf("got %+v %+v", c.RTC, c.Logger)
	}
	for key, want := range map[string]string{
		"rtc.ice_port_udp": path, "rtc.ice_port_tcp": "RTCD_RTC_ICEPORTTCP", "logger.file_level": "default",
	} {
		if got := report.Source(key); got != want {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
}

func TestWrongTypeInFileStopsDespiteVariable(t *testing.T) {
	_, report := load([]byte(`rtc.ice_port_udp = "x"`), file, []string{"RTCD_RTC_ICEPORTUDP=9000"})
	if faults, ok := errors.AsType[Faults](report.Err); !ok || len(faults) != 1 || faults[0].Source != file {
		t.Errorf("got %v", report.Err)
	}
}

func TestEnvironmentForms(t *testing.T) {
	for _, text := range []string{"1", "t", "T", "TRUE", "true", "True"} {
		if !mustLoad(t, "", "RTCD_RTC_ENABLEIPV6="+text).RTC.EnableIPv6 {
			t.Errorf("%q is not true", text)
		}
	}
	for _, text := range []string{"0", "f", "F", "FALSE", "false", "False"} {
		if mustLoad(t, "rtc.enable_ipv6 = true", "RTCD_RTC_ENABLEIPV6="+text).RTC.EnableIPv6 {
			t.Errorf("%q is not false", text)
		}
	}
	for text, want := range map[string]int{"256": 256, "0x100": 256, "0400": 256, "0o400": 256, "+64": 64} {
		if got := mustLoad(t, "", "RTCD_RTC_NACKBUFFERSIZE="+text).RTC.NACKBufferSize; got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	// An empty variable clears a string, and the list.
	c := mustLoad(t, "rtc.ice_host_override = 'a.example'\nrtc.ice_servers = ['stun:a']",
		"RTCD_RTC_ICEHOSTOVERRIDE=", "RTCD_RTC_ICESERVERS=", "RTCD_API_ADMIN_LISTENADDRESS=")
	if c.RTC.ICEHostOverride != "" || c.RTC.ICEServers != nil || c.API.Admin.ListenAddress != "" {
		t.Errorf("not cleared: %+v", c)
	}
}

func TestVideoCodecs(t *testing.T) {
	if got := Default().RTC.VideoCodecs; !slices.Equal(got, []string{"VP8", "AV1", "VP9", "H264"}) {
		t.Errorf("default is %q", got)
	}
	c := mustLoad(t, "rtc.video_codecs = ['H264', 'VP8']")
	if got := c.RTC.VideoCodecs; !slices.Equal(got, []string{"H264", "VP8"}) {
		t.Errorf("file gives %q", got)
	}
	c = mustLoad(t, "rtc.video_codecs = ['H264', 'VP8']", "RTCD_RTC_VIDEOCODECS= VP9 ,VP8")
	if got := c.RTC.VideoCodecs; !slices.Equal(got, []string{"VP9", "VP8"}) {
		t.Errorf("environment gives %q", got)
	}
}

func TestLetterCaseAndDots(t *testing.T) {
	want := mustLoad(t, "[api.http.tls]\ncert_file = 'x'\n[rtc.turn]\nstatic_auth_secret = 'y'\n")
	for _, text := range []string{
		"[API.Http.TLS]\nCERT_FILE = 'x'\n[Rtc]\nTurn.Static_Auth_Secret = 'y'\n",
		"[api]\nhttp.tls.cert_file = 'x'\n[rtc]\nturn.static_auth_secret = 'y'\n",
		"api = {http = {tls = {cert_file = 'x'}}}\nrtc.turn = {static_auth_secret = 'y'}\n",
	} {
		if got := mustLoad(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q gives %+v", text, got)
		}
	}
}

func TestICEServerForms(t *testing.T) {
	stun := func(urls ...string) ICEServer { return ICEServer{URLs: urls} }
	turn := ICEServer{URLs: []string{"turn:a:3478"}, Username: "u", Credential: "p"}
	for _, c := range []struct {
		name, toml, env string
		want            []ICEServer
	}{
		{"strings", `rtc.ice_servers = ["stun:a:3478", "stun:b:3478"]`, "", []ICEServer{stun("stun:a:3478"), stun("stun:b:3478")}},
		{"mixed", `rtc.ice_servers = ["stun:a", {URLs = ["turn:a:3478"], username = "u", credential = "p"}]`, "", []ICEServer{stun("stun:a"), turn}},
		{"tables", "[[rtc.ice_servers]]\nurls = ['turn:a:3478']\nusername = 'u'\ncredential = 'p'\n[[RTC.ICE_Servers]]\nurls = ['stuns:b', 'STUN:[fd00::1]:3478']\n", "",
			nil},
		{"JSON strings", "", `["stun:a:3478","stun:b:3478"]`, []ICEServer{stun("stun:a:3478", "stun:b:3478")}},
		{"JSON objects", "", `[{"urls":["turn:a:3478"],"username":"u","credential":"p"}, {"URLS":["stun:b"],"username":null}]`, []ICEServer{turn, stun("stun:b")}},
		{"JSON over TOML", `rtc.ice_servers = ["stun:a"]`, `["stun:b"]`, []ICEServer{stun("stun:b")}},
		{"JSON empty", `rtc.ice_servers = ["stun:a"]`, `[]`, nil},
		{"JSON null", `rtc.ice_servers = ["stun:a"]`, `null`, nil},
		{"transport", `rtc.ice_servers = [{urls=["turns:a.example:443?transport=tcp", "turn:1.2.3.4?transport=udp"]}]`, "", []ICEServer{stun("turns:a.example:443?transport=tcp", "turn:1.2.3.4?transport=udp")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var environ []string
			if c.env != "" {
				environ = []string{"RTCD_RTC_ICESERVERS=" + c.env}
			}
			if c.name == "tables" { // two arrays that differ in letter case: one key given twice
				if _, report := load([]byte(c.toml), file, environ); len(report.Faults) != 1 {
					t.Errorf("got %v", report.Faults)
				}
				c.toml = strings.Replace(c.toml, "RTC.ICE_Servers", "rtc.ice_servers", 1)
				c.want = []ICEServer{turn, stun("stuns:b", "STUN:[fd00::1]:3478")}
			}
			if got := mustLoad(t, c.toml, environ...).RTC.ICEServers; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

// C2: a TURN entry with its own credentials is used without the static secret.
func TestUsableICEServers(t *testing.T) {
	const servers = `rtc.ice_servers = ["turn:bare", {urls=["turn:own"],username="u",credential="p"}, "stun:s", {urls=["turn:half"],username="u"}]`
	used := func(c Config) string {
		var urls []string
		for _, s := range c.RTC.UsableICEServers() {
			urls = append(urls, s.URLs[0])
		}
		return strings.Join(urls, " ")
	}
	c, report := load([]byte(servers), file, nil)
	if got := used(c); got != "turn:own stun:s" {
		t.Errorf("without secret: %s", got)
	}
	if text := report.String(); !strings.Contains(text, "rtc.ice_servers[0] has no credentials") ||
		!strings.Contains(text, "rtc.ice_servers[3] has only one") || len(report.Warnings) != 2 {
		t.Errorf("warnings: %s", text)
	}
	c = mustLoad(t, servers+"\nrtc.turn.static_auth_secret = 'x'")
	if got := used(c); got != "turn:bare turn:own stun:s" {
		t.Errorf("with secret: %s", got)
	}
	if !c.RTC.ICEServers[0].NeedsCredentials() || c.RTC.ICEServers[1].NeedsCredentials() {
		t.Error("wrong kind of entry")
	}
}

func TestDiscoveryAddress(t *testing.T) {
	for url, want := range map[string]string{
		"stun:a.example:3479":  "a.example:3479",
		"stun:a.example":       "a.example:3478",
		"STUNS:a.example":      "a.example:5349",
		"stun:[fd00::1]":       "[fd00::1]:3478",
		"stun:[fd00::1]:19302": "[fd00::1]:19302",
	} {
		c := mustLoad(t, `rtc.ice_servers = [{urls=["turn:t"],username="u",credential="p"}, "`+url+`", "stun:other"]`)
		if got := c.RTC.DiscoveryAddress(); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	if got := Default().RTC.DiscoveryAddress(); got != "" {
		t.Errorf("without servers: %q", got)
	}
}

func TestICELite(t *testing.T) {
	for _, c := range []struct {
		lite    ICELite
		servers []ICEServer
		want    bool
	}{
		{ICELiteAuto, nil, true},
		{ICELiteAuto, []ICEServer{{URLs: []string{"stun:a"}}}, false},
		{ICELiteOn, []ICEServer{{URLs: []string{"stun:a"}}}, true},
		{ICELiteOff, nil, false},
	} {
		if got := (RTC{ICELite: c.lite, ICEServers: c.servers}).UseICELite(); got != c.want {
			t.Errorf("%s with %d servers: %v", c.lite, len(c.servers), got)
		}
	}
}

func TestAddresses(t *testing.T) {
	addr := netip.MustParseAddr
	for text, want := range map[string][]netip.Addr{
		"":                                nil,
		"  ":                              nil,
		"0.0.0.0":                         nil, // C6
		"10.0.0.1, 0.0.0.0":               nil,
		"::":                              nil,
		"127.0.0.1":                       {addr("127.0.0.1")},
		" 10.0.0.2 ,\t10.0.0.1, 10.0.0.2": {addr("10.0.0.2"), addr("10.0.0.1")},
		"::ffff:10.0.0.1,fd00::1":         {addr("10.0.0.1"), addr("fd00::1")},
	} {
		r := RTC{ICEAddressUDP: text, ICEAddressTCP: text}
		udp, errU := r.UDPAddresses()
		tcp, errT := r.TCPAddresses()
		if errU != nil || errT != nil || !reflect.DeepEqual(udp, want) || !reflect.DeepEqual(tcp, want) {
			t.Errorf("%q: %v %v, %v %v, want %v", text, udp, errU, tcp, errT, want)
		}
	}
}

func TestHostOverride(t *testing.T) {
	addr := netip.MustParseAddr
	for text, want := range map[string]HostOverride{
		"":                  {},
		"203.0.113.5":       {Kind: HostOverrideAddress, Addr: addr("203.0.113.5")},
		"2001:db8::1":       {Kind: HostOverrideAddress, Addr: addr("2001:db8::1")},
		"rtc-1.example.org": {Kind: HostOverrideName, Name: "rtc-1.example.org"},
		"localhost":         {Kind: HostOverrideName, Name: "localhost"},
		"1.1.1.1/10.0.0.1, 1.1.1.1/10.0.0.2": {Kind: HostOverridePairs, Pairs: []AddressPair{
			{External: addr("1.1.1.1"), Internal: addr("10.0.0.1")}, {External: addr("1.1.1.1"), Internal: addr("10.0.0.2")}}},
	} {
		if got, err := (RTC{ICEHostOverride: text}).HostOverride(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestPortOverrides(t *testing.T) {
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}
	for _, c := range []struct {
		toml string
		port uint16
		ok   bool
	}{
		{`""`, 0, false},
		{`"8500"`, 8500, true},
		{`8500`, 8500, true},
		{`80`, 80, true},
		{`49151`, 49151, true},
		{`"10.0.0.1/9001, 10.0.0.2/9002"`, 9002, true}, // the order of the machine's addresses decides
		{`"10.0.0.9/9001"`, 0, false},
	} {
		cfg := mustLoad(t, "rtc.ice_host_override = 'a.example'\nrtc.ice_host_port_override = "+c.toml)
		o, err := cfg.RTC.PortOverrides()
		if err != nil {
			t.Fatal(err)
		}
		if port, ok := o.For(local); port != c.port || ok != c.ok {
			t.Errorf("%s: %d %v, want %d %v", c.toml, port, ok, c.port, c.ok)
		}
	}
}

func TestTLSPairLoads(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, "c.pem", "k.pem")
	c := mustLoad(t, "api.http.tls.enable = true", "RTCD_API_HTTP_TLS_CERTFILE="+dir+"/c.pem", "RTCD_API_HTTP_TLS_CERTKEY="+dir+"/k.pem")
	if !c.API.HTTP.TLS.Enable {
		t.Error("TLS is off")
	}
}

// Rules that depend on a switch do not hold while it is off.
func TestSwitchedOffIsNotChecked(t *testing.T) {
	mustLoad(t, `
[api.http.tls]
cert_file = "/nowhere"
[api.security]
admin_secret_key = "short"
[rtc.turn]
credentials_expiration_minutes = 0
[logger]
enable_file = false
file_level = "nonsense"
file_location = ""
`)
}
